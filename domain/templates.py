"""Texts with places for each recipient's own words: `Hello {name}`."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

# A name has at most as many characters as that of a variable.
_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}|[{}]")


class InvalidTemplate(ValueError):
    """A text with invalid braces; the sentence says where."""


class MissingVariable(KeyError):
    """A recipient has no value for a place of the text."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class TooLong(ValueError):
    """A text that has too many characters, or too many places, for any recipient."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text cut at its places: literal text and names in turn, beginning and ending with text."""

    literals: tuple[str, ...]
    names: tuple[str, ...]
    places: Mapping[str, int]
    """How often each name stands in the text, in the order of first appearance."""
    characters: int
    """How many characters of the text are literal."""

    @classmethod
    def parse(cls, text: str, longest: int) -> "Template":
        """Cut a text. `{name}` is a place; `{{` and `}}` stand for braces.

        Parsing stops as soon as more than `longest` literal characters, or places, were found.

        Raises:
            InvalidTemplate: a brace is neither.
            TooLong: no recipient's text could have at most `longest` characters.
        """
        literals, names, pieces = [], [], list[str]()
        end = characters = 0
        for token in _TOKEN.finditer(text):
            literal = text[end : token.start()]
            end = token.end()
            if token[1] is not None:
                literals.append("".join([*pieces, literal]))
                names.append(token[1])
                pieces.clear()
            elif len(token[0]) == 1:
                message = (
                    f"The brace at character {token.start() + 1} of the text begins or ends no "
                    "{name}: write {{ or }} for a brace of the text itself."
                )
                raise InvalidTemplate(message)
            else:
                literal += token[0][0]
                pieces.append(literal)
            characters += len(literal)
            if characters > longest or len(names) > longest:
                raise TooLong
        literals.append("".join([*pieces, text[end:]]))
        characters += len(text) - end
        if characters > longest:
            raise TooLong
        return cls(tuple(literals), tuple(names), Counter(names), characters)

    def length(self, variables: Mapping[str, str]) -> int:
        """How many characters `fill` would give; it costs as much as there are different names.

        Raises:
            MissingVariable: a place has no value.
        """
        total = self.characters
        for name, count in self.places.items():
            if name not in variables:
                raise MissingVariable(name)
            total += count * len(variables[name])
        return total

    def fill(self, variables: Mapping[str, str]) -> str:
        """The text for one recipient; look at its `length` first.

        Raises:
            MissingVariable: a place has no value.
        """
        pieces = [""] * (2 * len(self.names) + 1)
        pieces[::2] = self.literals
        try:
            pieces[1::2] = map(variables.__getitem__, self.names)
        except KeyError as missing:
            raise MissingVariable(missing.args[0]) from None
        return "".join(pieces)

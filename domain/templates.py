"""Texts with places for each recipient's own words: `Hello {name}`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


class InvalidTemplate(ValueError):
    """A text whose braces say nothing; the sentence tells where."""


class MissingVariable(KeyError):
    """A recipient has no value for a place of the text."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class Template:
    """A text cut at its places: literal text and names in turn, beginning and ending with text."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Cut a text. `{name}` is a place; `{{` and `}}` stand for braces.

        Raises:
            InvalidTemplate: a brace is neither.
        """
        literals, names, literal, end = [], [], "", 0
        for token in _TOKEN.finditer(text):
            literal += text[end : token.start()]
            end = token.end()
            if token[1] is not None:
                literals.append(literal)
                names.append(token[1])
                literal = ""
            elif len(token[0]) == 1:
                message = (
                    f"The brace at character {token.start() + 1} of the text begins or ends no "
                    "{name}: write {{ or }} for a brace of the text itself."
                )
                raise InvalidTemplate(message)
            else:
                literal += token[0][0]
        return cls((*literals, literal + text[end:]), tuple(names))

    def fill(self, variables: Mapping[str, str]) -> str:
        """The text for one recipient.

        Raises:
            MissingVariable: a place has no value.
        """
        text = self.literals[0]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            if name not in variables:
                raise MissingVariable(name)
            text += variables[name] + literal
        return text

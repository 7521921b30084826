"""What a TOML document may have, looked at before it is parsed.

`tomllib` needs the square of the length of a dotted key, recurses into lists, and fails on integers
that Python does not convert. No key of a configuration is anywhere near these limits.
"""

import re
from typing import Final

MOST_CHARACTERS: Final = 1_000_000
MOST_NESTED: Final = 16
"""Parts of a dotted key, or lists and tables in each other."""
LONGEST_WORD: Final = 256
"""Characters of a key without quotes, a number or a time."""

# A string without an end goes to the end of its line, so that no character is looked at twice.
_TOKEN: Final = re.compile(
    r'"""|\'\'\'|"(?:[^"\\\n]++|\\.)*+"?|\'[^\'\n]*+\'?|#[^\n]*+|[A-Za-z0-9_+-]++|[ \t]++|[.\[\]{}]'
)
_MULTILINE_ENDS: Final = {
    '"""': re.compile(r'(?:[^"\\]++|\\.|""?(?!"))*+"{3,5}', re.DOTALL),
    "'''": re.compile(r"(?:[^']++|''?(?!'))*+'{3,5}"),
}


class TomlLimit(ValueError):
    """A document that is not parsed; the sentence says why. `at` is the place, in characters."""

    def __init__(self, sentence: str, at: int) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.at = at


def check_limits(text: str) -> None:
    """Look at a document of which it is not known whether it is TOML; in one pass.

    Raises:
        TomlLimit: it is too long, or has a key, number or nesting that no configuration has.
    """
    if len(text) > MOST_CHARACTERS:
        raise TomlLimit(f"the text is longer than {MOST_CHARACTERS} characters", MOST_CHARACTERS)
    nested = dots = at = 0
    while found := _TOKEN.search(text, at):
        word, began = found.group(), found.start()
        # What stands between two words, such as the end of a line, ends a key.
        dots = dots if began == at else 0
        at = found.end()
        match word:
            case '"""' | "'''":
                end = _MULTILINE_ENDS[word].match(text, at)
                if end is None:
                    return  # it has no end, which is for the parser to say
                at = end.end()
            case ".":
                dots += 1
            case "[" | "{":
                nested += 1
            case "]" | "}":
                nested = max(0, nested - 1)
            case _ if word[0] not in "\"'# \t" and len(word) > LONGEST_WORD:
                raise TomlLimit(
                    f"a key or number without quotes has more than {LONGEST_WORD} characters", began
                )
            case _:
                pass
        if max(nested, dots + 1) > MOST_NESTED:
            raise TomlLimit(f"keys or lists are nested more than {MOST_NESTED} times", began)

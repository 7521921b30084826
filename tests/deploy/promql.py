"""What a PromQL expression asks for: its metrics, their matchers, and the labels that it groups by.

It parses just enough to distinguish names; whether the expression is right is for promtool to say.
"""

import re
from dataclasses import dataclass, field
from typing import Final

TOKEN: Final = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")
      | (?P<window>\[[^\]]*\])
      | (?P<number>\d[\w.]*)
      | (?P<name>[A-Za-z_:$][\w:]*)
      | (?P<sign>=~|!~|!=|==|>=|<=|\S)""",
    re.VERBOSE,
)
GROUPING: Final = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS: Final = {"and", "or", "unless", "bool", "offset", "atan2"}


@dataclass
class ParsedExpression:
    """Of one expression."""

    metrics: list[tuple[str, list[tuple[str, str, str]]]] = field(default_factory=list)
    """Each metric with its matchers: label, operator, value."""
    labels: set[str] = field(default_factory=set)
    """What it groups by."""


def read(expression: str) -> ParsedExpression:
    """The names in an expression."""
    tokens = [(found.lastgroup, found[0]) for found in TOKEN.finditer(expression)]
    asked = ParsedExpression()
    position = 0
    while position < len(tokens):
        kind, text = tokens[position]
        following = tokens[position + 1][1] if position + 1 < len(tokens) else ""
        position += 1
        if kind != "name" or text in WORDS:
            continue
        if text in GROUPING:
            end = _end(tokens, position, ")")
            asked.labels |= {text for kind, text in tokens[position:end] if kind == "name"}
            position = end
        elif following == "{":
            end = _end(tokens, position, "}")
            asked.metrics.append((text, _matchers(tokens[position + 1 : end])))
            position = end
        elif following != "(" and following not in GROUPING:
            asked.metrics.append((text, []))
    return asked


def _end(tokens: list[tuple[str | None, str]], start: int, sign: str) -> int:
    return next(n for n in range(start, len(tokens)) if tokens[n] == ("sign", sign))


def _matchers(tokens: list[tuple[str | None, str]]) -> list[tuple[str, str, str]]:
    words = [text for _, text in tokens if text != ","]
    triples = zip(words[::3], words[1::3], words[2::3], strict=True)
    return [(label, operator, value[1:-1]) for label, operator, value in triples]

"""Regular expressions of a configuration, which must not take long whatever they are matched with.

Only a part of the syntax is allowed: no repetition of what repeats, no references back, no looking around. What is left
can be slow, but not exponentially so; a time limit bounds it.
"""

import re
from functools import lru_cache
from typing import Any, Final

import regex

LONGEST_PATTERN: Final = 200
MOST_MATCHED: Final = 64 * 1024
"""Characters of a text that a pattern is looked for in, from its beginning."""
_SECONDS: Final = 0.05

# An element of a pattern; what is no element is not allowed.
_ELEMENT: Final = re.compile(
    r"""
    (?P<escape>\\(?:[dDwWsSbBnrt]|[^A-Za-z0-9\s]))
  | (?P<set>\[\^?\]?(?:[^\[\]\\]|\\(?:[dDwWsSnrt]|[^A-Za-z0-9\s]))*\])
  | (?P<open>\((?:\?:)?(?!\?))
  | (?P<close>\))
  | (?P<repeat>(?:[*+?]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\})\??)
  | (?P<or>\|)
  | (?P<character>[^\\\[\]{}()*+?|])
    """,
    re.VERBOSE,
)


def checked_pattern(text: str) -> str:
    """The pattern itself, if it is allowed.

    Raises:
        ValueError: it is not, or is no regular expression; the sentence says why.
    """
    if not 0 < len(text) <= LONGEST_PATTERN:
        raise ValueError(f"a pattern has 1 to {LONGEST_PATTERN} characters")
    if _groups(text) != 1:
        raise ValueError(
            "a pattern has exactly one group in ( ), which is the value; others are (?: )"
        )
    try:
        _compiled(text)
    except regex.error as error:
        raise ValueError(f"this is no regular expression: {error.msg}") from None
    return text


def _groups(text: str) -> int:
    """How many groups a pattern has.

    Raises:
        ValueError: it has an element that is not allowed, or repeats what repeats.
    """
    groups, at = 0, 0
    repeats_within: list[bool] = [False]
    captures: list[bool] = [False]
    closed: tuple[bool, bool] | None = (
        None  # of the group that ends here: whether it repeats, captures
    )
    while at < len(text):
        found = _ELEMENT.match(text, at)
        if found is None:
            raise ValueError(
                f"character {at + 1} of the pattern begins something that is not supported: there are "
                "characters, classes in [ ], groups, | and repetitions"
            )
        at = found.end()
        kind, ended, closed = found.lastgroup, closed, None
        if kind == "open":
            captures.append(found.group() == "(")
            groups += captures[-1]
            repeats_within.append(False)
        elif kind == "close" and len(captures) > 1:
            closed = repeats_within.pop(), captures.pop()
            repeats_within[-1] |= closed[0]
        elif kind == "repeat":
            once_at_most = found.group()[0] == "?"
            if ended is not None and (ended[1] or (ended[0] and not once_at_most)):
                raise ValueError(
                    "a group that repeats something, or is the value, is not repeated itself"
                )
            repeats_within[-1] |= not once_at_most
        elif kind == "or":
            repeats_within[-1] = True  # alternatives may be as many ways to match as repetitions
    return groups


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern)


def first_group(pattern: str, text: str) -> str | None:
    """What the group of the first match is; None without a match, or if finding it takes too long."""
    try:
        found = _compiled(pattern).search(text[:MOST_MATCHED], timeout=_SECONDS)
    except TimeoutError:
        return None
    return None if found is None else found[1]

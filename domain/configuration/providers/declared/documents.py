"""Bodies of responses and receipts, and where a value is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

from domain.configuration.providers.declared.patterns import checked_pattern, first_group


class Format(StrEnum):
    """How a body is read."""

    JSON = "json"
    FORM = "form"
    """application/x-www-form-urlencoded, in UTF-8."""
    QUERY = "query"
    """As `FORM`, in the query of the address."""
    TEXT = "text"


class Unreadable(ValueError):
    """A body is not of the format that is declared, or lacks what it must have."""


Steps: TypeAlias = tuple[str | int, ...]

_MOST_FIELDS: Final = 1000
_LONGEST_PATH: Final = 200
_STEP: Final = re.compile(r'\.([^.\[\]"\s$]+)|\[([0-9]{1,4})\]|\["([^"\]]+)"\]')
_WITH_PATTERN: Final = re.compile(r"(?:(?P<path>.*\S)\s*=~\s*)?/(?P<pattern>.*)/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value is: a place in the document, and a pattern whose group it is there.

    `otherwise` is where it is if it is not there.
    """

    steps: Steps
    pattern: str | None = None
    otherwise: Source | None = None

    def text_in(self, document: Any) -> str | None:
        """The value as text, without blanks around it; None where there is none, or no scalar."""
        found = self._text_in(document)
        if found is None and self.otherwise is not None:
            return self.otherwise.text_in(document)
        return found

    def _text_in(self, document: Any) -> str | None:
        found = at_steps(document, self.steps)
        if isinstance(found, bool):
            found = "true" if found else "false"
        if not isinstance(found, str):
            return None
        if self.pattern is not None:
            found = first_group(self.pattern, found)
        return (found or "").strip() or None

    def is_in(self, document: Any) -> bool:
        """Whether anything is there, other than null and an empty text."""
        if self.otherwise is not None and self.otherwise.is_in(document):
            return True
        if self.pattern is not None:
            return self._text_in(document) is not None
        return at_steps(document, self.steps) not in (None, "")


def at_steps(document: Any, steps: Steps) -> Any:
    """What is at a place of a document; None where nothing is."""
    for step in steps:
        if isinstance(step, int):
            if not isinstance(document, list) or step >= len(document):
                return None
            document = document[step]
        else:
            document = document.get(step) if isinstance(document, Mapping) else None
    return document


@lru_cache(maxsize=4096)
def parse_source(text: str, written_in: Format) -> Source:
    """Where a value is in a document of a format.

    `a.b[0].c`, `a["b.c"]` and `$` for all of it are paths in JSON. In forms and queries a path is the
    name of a field. `/PATTERN/` is looked for in the whole text, `PATH =~ /PATTERN/` in one value.
    ` || ` stands between places of which the first counts that has a value.

    Raises:
        ValueError: it is none of these; the sentence says why.
    """
    first, divided, rest = text.partition(" || ")
    if divided:
        source = parse_source(first, written_in)
        return replace(source, otherwise=parse_source(rest, written_in))
    found = _WITH_PATTERN.fullmatch(text)
    if found is None:
        if written_in is Format.TEXT:
            raise ValueError("a value in a text is found by a pattern, such as '/^OK: ([0-9]+)/'")
        return Source(parse_path(text, written_in))
    pattern = checked_pattern(found["pattern"])
    if (found["path"] is None) != (written_in is Format.TEXT):
        raise ValueError(
            "a pattern alone is for texts; elsewhere it is written as PATH =~ /PATTERN/"
        )
    return Source(() if found["path"] is None else parse_path(found["path"], written_in), pattern)


def parse_path(text: str, written_in: Format) -> Steps:
    """A path in a document; without steps for all of it.

    Raises:
        ValueError: it is no path; the sentence says why.
    """
    if not 0 < len(text) <= _LONGEST_PATH:
        raise ValueError(f"a path has 1 to {_LONGEST_PATH} characters")
    if written_in is not Format.JSON:
        return (text,)
    rest = text[1:] if text[0] == "$" else text if text[0] == "[" else f".{text}"
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        if found is None:
            raise ValueError(
                'a path in JSON is written like "messages[0].id", or "$" for all of it'
            )
        name, place, quoted = found.groups()
        steps.append(int(place) if place is not None else name or quoted)
        at = found.end()
    return tuple(steps)


def read_document(body: bytes, written_in: Format) -> Any:
    """A body, as values that `Source` looks in. Numbers of JSON are texts, as they were written.

    Raises:
        Unreadable: it is something else.
    """
    try:
        match written_in:
            case Format.JSON:
                return parse_json(body)
            case Format.FORM | Format.QUERY:
                pairs = parse_qsl(
                    body.decode(),
                    keep_blank_values=True,
                    strict_parsing=bool(body),
                    errors="strict",
                    max_num_fields=_MOST_FIELDS,
                )
                return dict(pairs)
            case Format.TEXT:
                return body.decode()
    except ValueError:
        raise Unreadable("it is not in the format that is declared") from None


def parse_json(text: str | bytes) -> Any:
    """A JSON document whose numbers are kept as they were written: none is too large or rounded.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError:
        raise ValueError("nested too deeply") from None

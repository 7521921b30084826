"""What is shown: tables for people, JSON for programs, and failures on stderr."""

import json
import sys
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.text import Text

from smsctl.failures import Failure

# What is not a terminal has no edge to wrap at.
_NO_EDGE = 4000
# Direction marks and isolates, which can make text read as what it is not (UAX #9, 2).
_MISLEADING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class OutputFormat(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"


class Screen:
    """Standard output and standard error, in one format."""

    def __init__(self, output_format: OutputFormat) -> None:
        self.format = output_format
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    @property
    def for_programs(self) -> bool:
        """Whether the output is read by a program."""
        return self.format is OutputFormat.JSON

    def show(self, result: BaseModel | Mapping[str, Any], *rendered: RenderableType) -> None:
        """A result: as the document that it is, or as rendered for people."""
        if self.for_programs:
            self.document(result)
            return
        for one in rendered:
            self.out.print(one)

    def document(self, result: BaseModel | Mapping[str, Any]) -> None:
        """One JSON document on standard output."""
        sys.stdout.write(_json(_plain(result), sys.stdout.encoding) + "\n")

    def remark(self, sentence: str) -> None:
        """Something beside the result, for people; programs are not told."""
        if not self.for_programs:
            self.err.print(Text(visible(sentence)))

    def fail(self, failure: Failure) -> None:
        """Why there is no result."""
        if self.for_programs:
            sys.stderr.write(_json(failure.as_json(), sys.stderr.encoding) + "\n")
            return
        told = Text("smsctl: ", style="bold red")
        told.append(visible(failure.sentence), style="default not bold")
        if failure.advice:
            told.append(f" {visible(failure.advice)}", style="default not bold")
        self.err.print(told)


def visible(text: str) -> str:
    """`text` without anything that steers a terminal or misleads the eye; such is spelled out."""
    return "".join(
        f"\\u{ord(character):04x}"
        if (unicodedata.category(character) == "Cc" and character != "\n")
        or character in _MISLEADING
        else character
        for character in text
    )


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _NO_EDGE
    return console


def _plain(result: BaseModel | Mapping[str, Any]) -> Any:
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json", by_alias=True)
    return {
        key: value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value
        for key, value in result.items()
    }


def _json(document: Any, encoding: str | None) -> str:
    universal = (encoding or "").lower().replace("-", "").startswith("utf")
    return json.dumps(document, indent=2, ensure_ascii=not universal)

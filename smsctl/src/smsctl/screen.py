"""What is shown: tables for people, JSON for programs, and failures on stderr."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

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
    TSV = "tsv"


class Tabular(Protocol):
    """What can be written as lines of cells, the headings first."""

    def cells(self) -> Iterable[Sequence[str]]:
        """The lines."""
        ...


class Screen:
    """Standard output and standard error, in one format."""

    def __init__(self, output_format: OutputFormat) -> None:
        self.format = output_format
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    @property
    def for_programs(self) -> bool:
        """Whether the output is read by a program."""
        return self.format is not OutputFormat.TABLE

    def show(
        self,
        result: BaseModel | Mapping[str, Any],
        *rendered: RenderableType,
        table: Tabular | None = None,
    ) -> None:
        """A result: as the document that it is, as a table of text, or as rendered for people.

        Without a `table`, the text has a line for each member of the document.
        """
        match self.format:
            case OutputFormat.JSON:
                self.document(result)
            case OutputFormat.TSV:
                self.lines(_members(result) if table is None else table.cells())
            case OutputFormat.TABLE:
                for one in rendered:
                    self.out.print(one)

    def lines(self, lines: Iterable[Sequence[str]]) -> None:
        """Lines of cells, separated by tabs."""
        for cells in lines:
            self.out.file.write("\t".join(map(_cell, cells)) + "\n")

    def document(self, result: BaseModel | Mapping[str, Any]) -> None:
        """One JSON document on standard output."""
        sys.stdout.write(_json(_plain(result), sys.stdout.encoding) + "\n")

    def remark(self, sentence: str) -> None:
        """Something beside the result, for people; with JSON it is left out."""
        if self.format is not OutputFormat.JSON:
            self.err.print(Text(visible(sentence)))

    def fail(self, failure: Failure) -> None:
        """Why there is no result."""
        if self.format is OutputFormat.JSON:
            sys.stderr.write(_json(failure.as_json(), sys.stderr.encoding) + "\n")
            return
        line = Text("smsctl: ", style="bold red")
        line.append(visible(failure.sentence), style="default not bold")
        if failure.advice:
            line.append(f" {visible(failure.advice)}", style="default not bold")
        self.err.print(line)


def visible(text: str) -> str:
    """`text` without anything that steers a terminal or misleads the eye; such is spelled out."""
    return "".join(
        f"\\u{ord(character):04x}"
        if (unicodedata.category(character) == "Cc" and character != "\n")
        or character in _MISLEADING
        else character
        for character in text
    )


def _cell(text: str) -> str:
    """A cell of a line, in which no tab and no end of line stands."""
    for character, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(character, escaped)
    return visible(text)


def _members(result: BaseModel | Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Name and value of each member of a document; what is neither text nor number is JSON."""
    for name, value in _plain(result).items():
        is_text = value is None or isinstance(value, str)
        yield name, (value or "") if is_text else json.dumps(value, ensure_ascii=False)


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

"""Recipients in a CSV file: read as a stream, and checked whole before anything of it is sent."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from smsgateway import Recipient

from smsctl.columns import counted
from smsctl.failures import Mistake

MOST_BYTES = 8_000_000
"""Of recipients in one request; a gateway reads 8 MiB by default."""
LONGEST_NUMBER = 64
LONGEST_VARIABLE = 1000
BODY_COLUMN = "body"

# As the gateway reads a text: `{name}` is a place, and `{{` and `}}` are braces.
_PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")
_JSON = json.JSONEncoder(ensure_ascii=False)
_A_NUMBER = re.compile(r"\d{6}")


@dataclass(frozen=True, slots=True)
class Row:
    """What stands below the header; `line` is where it begins, from 1, as editors count."""

    line: int
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one request; `number` counts from 1, and `digest` is of all that is sent of them."""

    number: int
    rows: Sequence[Row]
    recipients: Sequence[Recipient]
    digest: str

    @property
    def first_line(self) -> int:
        """Where its first row begins."""
        return self.rows[0].line

    @property
    def last_line(self) -> int:
        """Where its last row begins."""
        return self.rows[-1].line


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be found in a file.

    Attributes:
        to_column: the name of the column of the numbers.
        body: the text for all; None if each row has one of its own.
        metadata: what every message is given.
    """

    to_column: str
    body: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How many columns there are, and which of them are used for what."""

    columns: int
    to: int
    body: int | None
    variables: Mapping[str, int]


class RecipientFile:
    """A CSV file with a header line; raises a Mistake that names the line wherever it is wrong.

    Args:
        text: the file, which can be gone back to the beginning of; bytes that are not UTF-8 are in
            it as lone surrogates (PEP 383), and lines end in it as they do in the file.
        name: what it is called in sentences.
        wanted: what is to be found in it.
    """

    def __init__(self, text: TextIO, name: str, wanted: Wanted) -> None:
        self._text = text
        self._name = name
        self._wanted = wanted

    def columns(self) -> Sequence[str]:
        """The names of the columns."""
        return self._header(self._rows()).cells

    def slices(self, size: int) -> Iterator[Slice]:
        """The rows in slices of `size`, or of fewer where they are long."""
        rows = self._rows()
        layout = self._layout(self._header(rows))
        cut = _Cut(1)
        for row in rows:
            recipient = self._recipient(row, layout)
            written = _JSON.encode(recipient.as_json()).encode()
            if cut.rows and (len(cut.rows) == size or cut.bytes + len(written) > MOST_BYTES):
                yield cut.slice()
                cut = _Cut(cut.number + 1)
            cut.add(row, recipient, written)
        if not cut.rows:
            raise Mistake(
                f"{self._name} has a header line and no recipients: write one on each line below "
                "it."
            )
        yield cut.slice()

    def unchanged(self, size: int, digests: Sequence[str]) -> Iterator[Slice]:
        """The slices once more; raises Mistake before one that is not as it was.

        Args:
            size: as it was.
            digests: those of the slices, when the file was checked.
        """
        count = 0
        for found in self.slices(size):
            count += 1
            if digests[count - 1 : count] != [found.digest]:
                raise self._changed()
            yield found
        if count != len(digests):
            raise self._changed()

    def _changed(self) -> Mistake:
        return Mistake(
            f"{self._name} was changed while it was being sent: see which lines are accepted, and "
            "send the rest from a file of its own."
        )

    def _rows(self) -> Iterator[Row]:
        """All rows with something in them, the header's too."""
        self._text.seek(0)
        reader = csv.reader(self._lines(), strict=True)
        line = 1
        while True:
            try:
                cells = next(reader, None)
            except csv.Error:
                raise self._mistake(
                    line,
                    "is not CSV: a text in double quotes is not closed, goes on behind them, or is "
                    'endless; write " within a text as "".',
                ) from None
            if cells is None:
                return
            if cells:
                yield Row(line, cells)
            line = reader.line_num + 1

    def _lines(self) -> Iterator[str]:
        for number, line in enumerate(self._text, 1):
            try:
                line.encode()
            except UnicodeEncodeError:
                raise self._mistake(
                    number, "is not text in UTF-8: save the file as UTF-8, and send it again."
                ) from None
            if "\0" in line:
                raise self._mistake(
                    number, "holds a NUL character, which no message can hold: take it out."
                )
            yield line

    def _header(self, rows: Iterator[Row]) -> Row:
        header = next(rows, None)
        if header is None:
            raise Mistake(
                f"{self._name} is empty: its first line names the columns, such as to,name, and "
                "each line below it is a recipient."
            )
        return Row(header.line, [cell.strip() for cell in header.cells])

    def _layout(self, header: Row) -> _Layout:
        wanted = self._wanted
        count = len(header.cells)
        to = self._place_of(
            wanted.to_column, header, "for the numbers: rename one, or say which with --to-column"
        )
        if wanted.body is None:
            if BODY_COLUMN not in header.cells:
                raise Mistake(
                    "There is no text to send: give --body, or the file a column "
                    f"`{BODY_COLUMN}` with a text for each recipient."
                )
            return _Layout(count, to, self._place_of(BODY_COLUMN, header, ""), {})
        names = {place[1] for place in _PLACE.finditer(wanted.body) if place[1]}
        variables = {
            name: self._place_of(
                name,
                header,
                f"for which the text has a place: rename one, or write {{{{{name}}}}} in the text "
                "if no place is meant",
            )
            for name in sorted(names)
        }
        return _Layout(count, to, None, variables)

    def _place_of(self, column: str, header: Row, why: str) -> int:
        """Index of a column; `why` says what it is needed for, and what to do without it."""
        columns = header.cells
        if columns.count(column) > 1:
            raise self._mistake(
                header.line, f"names the column `{column}` twice: rename one of them."
            )
        if column in columns:
            return columns.index(column)
        if any(_A_NUMBER.search(name) for name in columns):
            # They are not repeated: they may be somebody's.
            raise self._mistake(
                header.line,
                "holds a number where the names of the columns belong: put a line such as "
                "to,name above it.",
            )
        named = ", ".join(f"`{name}`" for name in columns if name)
        raise self._mistake(
            header.line,
            f"names no column `{column}` {why}. Separated by commas, there are: {named}.",
        )

    def _recipient(self, row: Row, layout: _Layout) -> Recipient:
        if len(row.cells) != layout.columns:
            raise self._mistake(
                row.line,
                f"has {counted(len(row.cells), 'column')}, but the header line names {layout.columns}: put a "
                "text that holds commas in double quotes.",
            )
        to = row.cells[layout.to].strip()
        variables = {name: row.cells[place] for name, place in layout.variables.items()}
        self._check_length(row, self._wanted.to_column, to, LONGEST_NUMBER)
        for name, value in variables.items():
            self._check_length(row, name, value, LONGEST_VARIABLE)
        body = None if layout.body is None else row.cells[layout.body]
        return Recipient(to, variables, body, self._wanted.metadata)

    def _check_length(self, row: Row, column: str, value: str, longest: int) -> None:
        if len(value) > longest:
            raise self._mistake(
                row.line,
                f"has {len(value)} characters in the column `{column}`, of which the gateway takes "
                f"{longest}: shorten it.",
            )

    def _mistake(self, line: int, what: str) -> Mistake:
        return Mistake(f"Line {line} of {self._name} {what}")


class _Cut:
    """A slice while it grows."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: list[Row] = []
        self.bytes = 0
        self._recipients: list[Recipient] = []
        self._digest = hashlib.sha256()

    def add(self, row: Row, recipient: Recipient, written: bytes) -> None:
        separated = written + b",\n"
        self.rows.append(row)
        self.bytes += len(separated)
        self._recipients.append(recipient)
        self._digest.update(separated)

    def slice(self) -> Slice:
        return Slice(self.number, self.rows, self._recipients, self._digest.hexdigest())

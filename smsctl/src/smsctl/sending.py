"""`batch send`: the slices of a file made into batches, and what became of each line."""

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from smsgateway import (
    AcceptedBatch,
    Client,
    FieldError,
    MissingReceipt,
    Mode,
    Priority,
    ValidationFailed,
)

from smsctl.failures import Mistake
from smsctl.recipients import Row, Slice

MOST_RECIPIENTS = 10_000
"""In one request."""
MOST_LISTED = 20
"""Refused lines that the output lists; the file of --refused has all of them."""

_WHY = ("refused_line", "refused_field", "refused_reason", "refused_detail")
_OF_A_RECIPIENT = re.compile(r"recipients\.(\d+)\.(.+)")
_ANOTHER_RECIPIENT = re.compile(r"The recipient at index (\d+) of this request")
_UNNAMED = (
    "The gateway refused the whole request, and names only the first of its recipients that are "
    "at fault."
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all recipients alike; None is left to the gateway."""

    sender: str
    body: str | None
    mode: Mode | None
    priority: Priority | None
    callback_url: str | None
    validity: int | None
    at: datetime | None
    smart_encoding: bool
    receipt_deadline: int | None = None
    parameters: Mapping[str, str] | None = None
    missing_receipt: MissingReceipt | None = None


def key_of(terms: Terms, part: Slice, name: str | None) -> str:
    """The idempotency key of a slice.

    Without a name it is made from all that is sent and from the slice's number, so that the same
    command makes the same keys.
    """
    if name is not None:
        return f"{name}-{part.number}"
    content = [asdict(terms), part.digest, part.number]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line of the file that got no message, and why."""

    line: int
    field: str
    reason: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class SentSlice:
    """What became of a slice: `batch` is None if nothing of it was accepted."""

    part: Slice
    batch: AcceptedBatch | None
    refused: Sequence[RefusedLine]


def send_slice(client: Client, terms: Terms, part: Slice, key: str) -> SentSlice:
    """Send a slice; that some or all of its recipients are refused is no error.

    Raises:
        GatewayError: nothing is known of the slice, or it was refused for what holds for all.
    """
    try:
        batch = client.send_batch(
            sender=terms.sender,
            body=terms.body,
            recipients=part.recipients,
            mode=terms.mode,
            priority=terms.priority,
            callback_url=terms.callback_url,
            validity_period=terms.validity,
            receipt_deadline=terms.receipt_deadline,
            missing_receipt=terms.missing_receipt,
            scheduled_at=terms.at,
            parameters=terms.parameters,
            smart_encoding=terms.smart_encoding,
            idempotency_key=key,
        )
    except ValidationFailed as error:
        faults = _errors_of_recipients(error, len(part.rows))
        if not faults:
            raise _with_lines(error, part) from None
        return SentSlice(part, None, list(_refused_whole(part, faults)))
    except ValueError as error:
        raise Mistake(str(error)) from None
    refused = [
        RefusedLine(
            part.rows[result.index].line,
            result.error.field,
            result.error.reason,
            _detail_with_line(result.error.detail, part),
        )
        for result in batch.results
        if result.error is not None
    ]
    return SentSlice(part, batch, refused)


def _errors_of_recipients(error: ValidationFailed, count: int) -> dict[int, FieldError]:
    """The first fault of each recipient, by its place; none if anything else is at fault too."""
    faults: dict[int, FieldError] = {}
    for fault in error.errors:
        found = _OF_A_RECIPIENT.fullmatch(fault.field)
        if found is None or int(found[1]) >= count:
            return {}
        faults.setdefault(int(found[1]), fault.model_copy(update={"field": found[2]}))
    return faults


def _refused_whole(part: Slice, faults: dict[int, FieldError]) -> Iterator[RefusedLine]:
    for place, row in enumerate(part.rows):
        fault = faults.get(place, FieldError(reason="request_refused", detail=_UNNAMED))
        yield RefusedLine(
            row.line, fault.field, fault.reason, _detail_with_line(fault.detail, part)
        )


def _with_lines(error: ValidationFailed, part: Slice) -> ValidationFailed:
    """The error with the lines of the file in place of the places in the request."""
    errors = []
    for fault in error.errors:
        found = _OF_A_RECIPIENT.fullmatch(fault.field)
        if found is not None and int(found[1]) < len(part.rows):
            line = part.rows[int(found[1])].line
            fault = fault.model_copy(update={"field": found[2], "line": line})  # noqa: PLW2901
        errors.append(fault)
    problem = error.problem.model_copy(update={"errors": tuple(errors)})
    return ValidationFailed(problem, retry_after=error.retry_after)


def _detail_with_line(detail: str, part: Slice) -> str:
    """What the gateway says of a recipient, with the line of another one that it names."""

    def line(found: re.Match[str]) -> str:
        index = int(found[1])
        return f"Line {part.rows[index].line}" if index < len(part.rows) else found[0]

    return _ANOTHER_RECIPIENT.sub(line, detail)


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch, and the lines that it was made of."""

    batch_id: str
    first_line: int
    last_line: int
    recipients: int
    accepted: int
    refused: int
    replayed: bool


@dataclass(slots=True)
class Tally:
    """What has become of the lines so far; of the refused ones the first are kept."""

    batches: list[SentBatch] = field(default_factory=list)
    recipients: int = 0
    accepted: int = 0
    accepted_before: int = 0
    refused: int = 0
    first_refused: list[RefusedLine] = field(default_factory=list)
    last_line: int = 0

    def add(self, sent: SentSlice) -> None:
        """Count a slice."""
        self.recipients += len(sent.part.rows)
        self.refused += len(sent.refused)
        self.first_refused += sent.refused[: MOST_LISTED - len(self.first_refused)]
        self.last_line = sent.part.last_line
        batch = sent.batch
        if batch is None:
            return
        self.accepted += batch.accepted
        self.accepted_before += batch.accepted if batch.replayed else 0
        self.batches.append(
            SentBatch(
                batch.batch_id,
                sent.part.first_line,
                sent.part.last_line,
                batch.recipients,
                batch.accepted,
                batch.refused,
                batch.replayed,
            )
        )

    def as_json(self) -> dict[str, Any]:
        """The document for programs."""
        return {
            "batches": [asdict(batch) for batch in self.batches],
            "recipients": self.recipients,
            "accepted": self.accepted,
            "refused": self.refused,
            "first_refused": [asdict(line) for line in self.first_refused],
        }


class RefusedFile:
    """A CSV file of the lines that were refused: why, and then as they stood.

    It can be mended and sent: columns that it has from an earlier time give way to the new ones.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._kept = [place for place, name in enumerate(columns) if name not in _WHY]
        try:
            self._file = path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise self._unwritable(error) from error
        self._write([[*_WHY, *(columns[place] for place in self._kept)]])

    def add(self, sent: SentSlice) -> None:
        """Write the refused lines of a slice."""
        rows = {row.line: row for row in sent.part.rows}
        self._write(self._cells(rows[refused.line], refused) for refused in sent.refused)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _cells(self, row: Row, refused: RefusedLine) -> list[str]:
        why = (str(refused.line), refused.field, refused.reason or "", refused.detail)
        return [*why, *(row.cells[place] for place in self._kept)]

    def _write(self, rows: Iterable[Sequence[str]]) -> None:
        try:
            csv.writer(self._file, lineterminator="\n").writerows(rows)
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> Mistake:
        return Mistake(f"{self._path} cannot be written: {error.strerror}.")

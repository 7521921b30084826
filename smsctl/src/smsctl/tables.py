"""Results for people: what is a column is a line in a table here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from pydantic import JsonValue
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from smsgateway import (
    Accepted,
    AcceptedBatch,
    Attempt,
    Batch,
    BatchCount,
    Callback,
    Event,
    Explanation,
    Key,
    Message,
    Part,
    Provider,
    Receipt,
    RecipientResult,
)

from smsctl.profiles import Profiles
from smsctl.screen import visible

T = TypeVar("T")

Cell = str | int | float | bool | datetime | None
_STYLES: Mapping[str, str] = {
    "delivered": "green",
    "up": "green",
    "finished": "green",
    "sent": "cyan",
    "accepted": "cyan",
    "sending": "cyan",
    "submitting": "cyan",
    "pending": "cyan",
    "running": "cyan",
    "unknown": "yellow",
    "retried": "yellow",
    "partial": "yellow",
    "throttled": "yellow",
    "paused": "yellow",
    "failed": "red",
    "refused": "red",
    "undelivered": "red",
    "unreachable": "red",
    "dead_letter": "red",
    "expired": "red",
    "down": "red",
    "canceled": "magenta",
}
_UNBOUND = 100_000
_KEY_SHOWN = len("sg_live_0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A heading and what stands under it: a status has its colour, a sentence may be folded."""

    heading: str
    of: Callable[[T], Cell]
    is_status: bool = False
    is_sentence: bool = False


class Grid(Generic[T]):
    """A table with a row for each thing; where that is too wide, something narrower for each.

    Nothing but sentences is folded, so that ids can be copied. A terminal is spared columns in which
    nothing stands; where there is none, rows are bare and the columns always the same.

    Args:
        columns: from left to right.
        things: from top to bottom.
        title: stands above.
        narrow: shows one thing where the table is too wide; else it is a block of lines.
    """

    def __init__(
        self,
        columns: Sequence[Column[T]],
        things: Iterable[T],
        *,
        title: str = "",
        narrow: Callable[[T], RenderableType] | None = None,
    ) -> None:
        self._columns = columns
        self._things = list(things)
        self._title = title
        self._narrow = narrow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._title:
            yield Text(self._title, style="bold")
        table = self._table(for_terminal=console.is_terminal)
        if _width(console, table) <= options.max_width:
            yield table
        elif self._narrow is not None:
            yield from map(self._narrow, self._things)
        else:
            for number, thing in enumerate(self._things):
                if number:
                    yield Text()
                yield details((column.heading, _cell(column, thing)) for column in self._columns)

    def _table(self, *, for_terminal: bool) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD if for_terminal else None,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1 if for_terminal else 2, 0, 0),
        )
        kept = [c for c in self._columns if not for_terminal or any(map(c.of, self._things))]
        for column in kept:
            numbers = all(isinstance(column.of(thing), int | float) for thing in self._things)
            table.add_column(
                column.heading,
                no_wrap=not column.is_sentence,
                overflow="fold",
                justify="right" if numbers else "left",
            )
        for thing in self._things:
            table.add_row(*(_cell(column, thing) for column in kept))
        return table


def _width(console: Console, table: Table) -> int:
    """How wide the table is at least, whatever there is room for."""
    return Measurement.get(console, console.options.update(width=_UNBOUND), table).minimum


def style_of(status: str) -> str:
    """The colour of a status; empty for one that has none."""
    return _STYLES.get(status, "")


def text_of(value: Cell) -> str:
    """A value as it is read by people; times are UTC."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case datetime():
            return _time(value)
        case _:
            return visible(str(value))


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _cell(column: Column[T], thing: T) -> Text:
    return _styled(column.of(thing), is_status=column.is_status)


def _styled(value: Cell, *, is_status: bool) -> Text:
    text = text_of(value)
    return Text(text, style=style_of(text) if is_status else "")


def counted(count: int, thing: str, things: str = "") -> str:
    """`1 part`, `2 parts`, `2 batches`."""
    return f"{count} {thing}" if count == 1 else f"{count} {things or thing + 's'}"


def details(rows: Iterable[tuple[str, Cell | Text]]) -> Table:
    """Names and values, one pair a line; what has no value is left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        shown = value if isinstance(value, Text) else _styled(value, is_status=name == "status")
        if shown:
            table.add_row(name, shown)
    return table


def accepted_lines(accepted: Accepted) -> list[RenderableType]:
    """What was taken on, and what was changed to make it shorter."""
    again = " It had been accepted before, by the same key." if accepted.replayed else ""
    lines: list[RenderableType] = [
        Text.assemble(
            "Accepted as ",
            (visible(accepted.message_id), "bold"),
            f": {visible(accepted.status)}, {counted(accepted.segments, 'segment')}, "
            f"{visible(accepted.encoding)}.{again}",
        )
    ]
    lines += [
        Text(
            f"Replaced {visible(one.character)} by {visible(one.replacement)}, "
            f"{counted(one.count, 'time')}."
        )
        for one in accepted.replacements
    ]
    return lines


MESSAGE_COLUMNS: Sequence[Column[Message]] = (
    Column("message", lambda m: m.message_id),
    Column("accepted", lambda m: m.accepted_at),
    Column("status", lambda m: m.status, is_status=True),
    Column("reason", lambda m: m.reason),
    Column("to", lambda m: m.to),
    Column("from", lambda m: m.sender),
    Column("mode", lambda m: m.mode),
    Column("provider", lambda m: m.provider),
)


def message_details(message: Message) -> Table:
    """All of a message."""
    return details(
        [
            ("message", message.message_id),
            ("status", message.status),
            ("reason", message.reason),
            ("to", message.to),
            ("from", message.sender),
            ("body", message.body),
            ("mode", message.mode),
            ("priority", message.priority),
            ("encoding", f"{message.encoding}, {counted(message.segments, 'segment')}"),
            ("country", message.country),
            ("network", message.network),
            ("provider", message.provider),
            ("attempts", message.attempts),
            ("environment", message.environment),
            ("accepted", message.accepted_at),
            ("scheduled", message.scheduled_at),
            ("valid until", message.valid_until),
            ("updated", message.updated_at),
            ("cancel requested", True if message.cancel_requested else None),
            ("callback", message.callback_url),
            *((f"metadata {name}", value) for name, value in message.metadata.items()),
        ]
    )


BATCH_COLUMNS: Sequence[Column[Batch]] = (
    Column("batch", lambda b: b.batch_id),
    Column("accepted at", lambda b: b.created_at),
    Column("status", lambda b: b.status, is_status=True),
    Column("recipients", lambda b: b.recipients),
    Column("accepted", lambda b: b.accepted),
    Column("refused", lambda b: b.refused),
    Column("open", lambda b: b.open),
    Column("from", lambda b: b.sender),
    Column("mode", lambda b: b.mode),
)
COUNT_COLUMNS: Sequence[Column[BatchCount]] = (
    Column("messages", lambda c: c.messages),
    Column("status", lambda c: c.status, is_status=True),
    Column("reason", lambda c: c.reason),
)
RESULT_COLUMNS: Sequence[Column[RecipientResult]] = (
    Column("recipient", lambda r: r.index),
    Column("message", lambda r: r.message_id),
    Column("encoding", lambda r: r.encoding),
    Column("segments", lambda r: r.segments),
    Column("refused", lambda r: r.error.reason if r.error else None),
    Column("why", lambda r: r.error.detail if r.error else None, is_sentence=True),
)


def batch_details(batch: Batch) -> Group:
    """All of a batch, with its messages counted; and what became of each recipient, if known."""
    about = details(
        [
            ("batch", batch.batch_id),
            ("status", batch.status),
            ("recipients", batch.recipients),
            ("accepted", batch.accepted),
            ("refused", batch.refused),
            ("open", batch.open),
            ("from", batch.sender),
            ("mode", batch.mode),
            ("environment", batch.environment),
            ("accepted at", batch.created_at),
        ]
    )
    shown: list[RenderableType] = [about, Text(), Grid(COUNT_COLUMNS, batch.counts)]
    if isinstance(batch, AcceptedBatch):
        shown += [Text(), Grid(RESULT_COLUMNS, batch.results)]
    return Group(*shown)


@dataclass(frozen=True, slots=True)
class Moment:
    """An event, with the seconds since the first one."""

    event: Event
    elapsed: float


def moments(events: Sequence[Event]) -> list[Moment]:
    """Events with the time that had passed."""
    return [Moment(event, (event.at - events[0].at).total_seconds()) for event in events]


def _note(event: Event) -> str:
    """The reason, and what else the event holds."""
    said = [event.reason] if event.reason else []
    if isinstance(event.detail, dict):
        said += [f"{name}={_short(value)}" for name, value in event.detail.items()]
    elif event.detail is not None:
        said.append(_short(event.detail))
    return " ".join(said)


def _short(value: JsonValue) -> str:
    """JSON as it is read: `primary(score=1 up=yes), backup(score=0.5 up=yes)`."""
    match value:
        case list():
            return ", ".join(_short(item) for item in value)
        case dict():
            members = {**value}
            name = members.pop("provider", "")
            within = " ".join(f"{key}={_short(members[key])}" for key in sorted(members))
            return f"{name}({within})"
        case _:
            return text_of(value)


TIMELINE_COLUMNS: Sequence[Column[Moment]] = (
    Column("at", lambda m: m.event.at),
    Column("after", lambda m: f"{m.elapsed:.3f} s"),
    Column("event", lambda m: m.event.kind),
    Column("status", lambda m: m.event.status, is_status=True),
    Column("attempt", lambda m: m.event.attempt),
    Column("provider", lambda m: m.event.provider),
    Column("network", lambda m: m.event.network),
    Column("code", lambda m: m.event.code),
    Column("actor", lambda m: m.event.actor),
    Column("why", lambda m: _note(m.event), is_sentence=True),
)


def timeline(events: Sequence[Event], title: str = "") -> Grid[Moment]:
    """What happened, in order."""
    return Grid(TIMELINE_COLUMNS, moments(events), title=title, narrow=moment_line)


def moment_line(moment: Moment) -> Text:
    """One event on a line of its own, for where a table cannot grow."""
    event = moment.event
    by = f"by {event.actor}" if event.actor else None
    said = [event.kind, event.status, event.provider, event.code, _note(event), by]
    return Text(
        f"{_time(event.at)}  {moment.elapsed:>8.3f} s  "
        + "  ".join(visible(one) for one in said if one)
    )


ATTEMPT_COLUMNS: Sequence[Column[Attempt]] = (
    Column("attempt", lambda a: a.number),
    Column("epoch", lambda a: a.epoch),
    Column("provider", lambda a: a.provider),
    Column("status", lambda a: a.status, is_status=True),
    Column("error", lambda a: a.error_class),
    Column("code", lambda a: a.code),
    Column("tries", lambda a: a.tries),
    Column("started", lambda a: a.started_at),
    Column("settled", lambda a: a.settled_at),
    Column("receipt by", lambda a: a.receipt_by),
    Column("recalled", lambda a: a.recalled),
    Column("parts by", lambda a: a.part_method),
    Column("config", lambda a: a.config_version),
)


@dataclass(frozen=True, slots=True)
class AttemptPart:
    """A part, with the attempt that it belongs to."""

    attempt: Attempt
    part: Part


PART_COLUMNS: Sequence[Column[AttemptPart]] = (
    Column("attempt", lambda p: p.attempt.number),
    Column("part", lambda p: p.part.number),
    Column("status", lambda p: p.part.status, is_status=True),
    Column("provider's id", lambda p: p.part.provider_message_id),
    Column("error", lambda p: p.part.error_class),
    Column("code", lambda p: p.part.code),
    Column("submitted", lambda p: p.part.submitted_at),
    Column("answered", lambda p: p.part.answered_at),
    Column("receipt", lambda p: p.part.receipt_state, is_status=True),
    Column("receipt code", lambda p: p.part.receipt_code),
    Column("receipt at", lambda p: p.part.receipt_at),
)
RECEIPT_COLUMNS: Sequence[Column[Receipt]] = (
    Column("received", lambda r: r.received_at),
    Column("provider", lambda r: r.provider),
    Column("provider's id", lambda r: r.provider_message_id),
    Column("state", lambda r: r.state, is_status=True),
    Column("code", lambda r: r.code),
    Column("network", lambda r: r.network),
    Column("attempt", lambda r: r.attempt),
    Column("part", lambda r: r.part),
    Column("copies", lambda r: r.copies),
    Column("done", lambda r: r.done_at),
)
CALLBACK_COLUMNS: Sequence[Column[Callback]] = (
    Column("callback", lambda c: c.id),
    Column("message", lambda c: c.message_id),
    Column("tells", lambda c: c.status, is_status=True),
    Column("code", lambda c: c.provider_code),
    Column("state", lambda c: c.state, is_status=True),
    Column("tries", lambda c: c.tries),
    Column("next", lambda c: c.next_at),
    Column("answered", lambda c: c.answered_at),
    Column("last answer", lambda c: c.last_status),
    Column("last error", lambda c: c.last_error, is_sentence=True),
    Column("url", lambda c: c.url),
)
PROVIDER_COLUMNS: Sequence[Column[Provider]] = (
    Column("provider", lambda p: p.name),
    Column("type", lambda p: p.type),
    Column("for", lambda p: p.environment),
    Column("state", lambda p: p.state, is_status=True),
    Column("workers", lambda p: p.workers),
    Column("binds", lambda p: str(p.binds_up) if p.binds is None else f"{p.binds_up}/{p.binds}"),
    Column("rate/s", lambda p: p.rate),
    Column("last beat", lambda p: p.last_beat_at),
    Column("attempts", lambda p: p.recent.attempts),
    Column("accepted", lambda p: p.recent.accepted),
    Column("refused", lambda p: p.recent.refused),
    Column("unreachable", lambda p: p.recent.unreachable),
    Column("unknown", lambda p: p.recent.unknown),
    Column("delivered", lambda p: p.recent.delivered),
    Column("undelivered", lambda p: p.recent.undelivered),
    Column("p50 ms", lambda p: p.recent.accept_p50_ms),
)
KEY_COLUMNS: Sequence[Column[Key]] = (
    Column("key", lambda k: k.id),
    Column("name", lambda k: k.name),
    Column("environment", lambda k: k.environment),
    Column("scopes", lambda k: " ".join(k.scopes), is_sentence=True),
    Column("created", lambda k: k.created_at),
    Column("expires", lambda k: k.expires_at),
    Column("revoked", lambda k: k.revoked_at),
    Column("last used", lambda k: k.last_used_at),
)


@dataclass(frozen=True, slots=True)
class NamedProfile:
    """A profile as it is shown: its key only so far that it can be told from others."""

    name: str
    api: str
    key: str
    is_current: bool


def named_profiles(profiles: Profiles) -> list[NamedProfile]:
    """All profiles, by name."""
    return [
        NamedProfile(name, profile.api, masked(profile.key), name == profiles.current)
        for name, profile in sorted(profiles.by_name.items())
    ]


def masked(key: str) -> str:
    """A reference as it is; of a key, the part that is not secret."""
    if key.startswith(("env:", "file:")):
        return key
    return f"{key[:_KEY_SHOWN]}…" if key.startswith("sg_") and len(key) > _KEY_SHOWN else "…"


PROFILE_COLUMNS: Sequence[Column[NamedProfile]] = (
    Column("", lambda p: "*" if p.is_current else ""),
    Column("profile", lambda p: p.name),
    Column("api", lambda p: p.api),
    Column("key", lambda p: p.key),
)


def explanation(explained: Explanation) -> Group:
    """All that is known of a message, in the order in which it is asked for."""
    parts = [AttemptPart(attempt, part) for attempt in explained.attempts for part in attempt.parts]
    sections: list[tuple[bool, RenderableType]] = [
        (True, message_details(explained.message)),
        (bool(explained.events), timeline(explained.events, "Timeline")),
        (bool(explained.attempts), Grid(ATTEMPT_COLUMNS, explained.attempts, title="Attempts")),
        (bool(parts), Grid(PART_COLUMNS, parts, title="Parts")),
        (bool(explained.receipts), Grid(RECEIPT_COLUMNS, explained.receipts, title="Receipts")),
        (bool(explained.callbacks), Grid(CALLBACK_COLUMNS, explained.callbacks, title="Callbacks")),
        (bool(explained.summary), _summary(explained.summary)),
    ]
    shown: list[RenderableType] = []
    for has_something, section in sections:
        if has_something:
            shown += [section, Text()]
    return Group(*shown[:-1])


def _summary(sentences: Iterable[str]) -> Group:
    return Group(
        Text("In short", style="bold"), *(Text(f"· {visible(sentence)}") for sentence in sentences)
    )

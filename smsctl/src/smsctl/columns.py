"""Results for people: what is a column is a line in a table here."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from pydantic import JsonValue
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from smsgateway import (
    Accepted,
    AcceptedBatch,
    Account,
    AccountEvent,
    Attempt,
    Batch,
    BatchCount,
    Callback,
    Event,
    Explanation,
    Key,
    Message,
    OperatorKey,
    Part,
    Preview,
    Provider,
    RateShare,
    RecipientResult,
    Replacement,
    SessionBindError,
    Step,
)

from smsctl.profiles import Profiles
from smsctl.screen import visible
from smsctl.sentences import sentence, words

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
    """A heading and what stands under it: a status has its colour, a sentence may be folded.

    One that `is_extra` is shown only when it is chosen by its name.
    """

    heading: str
    of: Callable[[T], Cell]
    is_status: bool = False
    is_sentence: bool = False
    is_extra: bool = False

    @property
    def name(self) -> str:
        """What it is chosen by: the heading, as one word."""
        return self.heading.replace(" ", "_").replace("*", "current")


class Grid(Generic[T]):
    """A table with a row for each thing; where that is too wide, something narrower for each.

    Nothing but sentences is folded, so that ids can be copied. A terminal is spared columns in which
    nothing stands; where there is none, rows are bare and the columns always the same.

    Args:
        columns: from left to right.
        things: from top to bottom.
        title: stands above.
        narrow: shows one thing where the table is too wide; else it is a block of lines.
        chosen: the names of the columns to show, in this order; if none, those that are not extra.
    """

    def __init__(
        self,
        columns: Sequence[Column[T]],
        things: Iterable[T],
        *,
        title: str = "",
        narrow: Callable[[T], RenderableType] | None = None,
        chosen: Sequence[str] = (),
    ) -> None:
        by_name = {column.name: column for column in columns}
        self._is_chosen = bool(chosen)
        self._columns = (
            [by_name[name] for name in chosen]
            if chosen
            else [column for column in columns if not column.is_extra]
        )
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

    def cells(self) -> Iterator[Sequence[str]]:
        """The names of the columns, and then the text of each thing."""
        yield [column.name for column in self._columns]
        for thing in self._things:
            yield [raw_text_of(column.of(thing)) for column in self._columns]

    def _table(self, *, for_terminal: bool) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD if for_terminal else None,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1 if for_terminal else 2, 0, 0),
        )
        keeps_empty = self._is_chosen or not for_terminal
        kept = [c for c in self._columns if keeps_empty or any(map(c.of, self._things))]
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
    """A value as it is read by people, without what steers a terminal; times are UTC."""
    return visible(raw_text_of(value))


def raw_text_of(value: Cell) -> str:
    """A value as text; times are UTC."""
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
            return str(value)


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


_SENT_BY_ROLE: Mapping[str, str] = {"providers": "single messages", "chunks": "batches"}


def _rate_shares(shares: Sequence[RateShare]) -> str | None:
    """Such as `batches 195 (demand 310), single messages 5 (demand 0.5)`, one for each worker."""
    return ", ".join(map(_rate_share, shares)) or None


def _rate_share(share: RateShare) -> str:
    sends = " and ".join(_SENT_BY_ROLE.get(role, role) for role in share.roles)
    rate = "no limit" if share.share is None else f"{round(share.share, 2):g}"
    return f"{sends} {rate} (demand {round(share.demand, 2):g})"


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
    return [*lines, *_replaced_lines(accepted.replacements)]


def _replaced_lines(replacements: Iterable[Replacement]) -> list[RenderableType]:
    return [
        Text(
            f"Replaced {visible(one.character)} by {visible(one.replacement)}, "
            f"{counted(one.count, 'time')}."
        )
        for one in replacements
    ]


def preview_lines(
    preview: Preview, receipt_deadline: int | None, missing_receipt: str | None
) -> list[RenderableType]:
    """What would be sent, and by which providers; with what the message says of receipts, if it does."""
    ranking = ", ".join(
        f"{each.provider} ({'up' if each.up else 'down'})" for each in preview.providers
    )
    return [
        details(
            [
                ("encoding", preview.encoding),
                ("segments", preview.segments),
                ("body", preview.body),
                ("country", preview.country),
                ("priority", preview.priority),
                ("valid for", f"{preview.validity_period} s"),
                ("receipt deadline", None if receipt_deadline is None else f"{receipt_deadline} s"),
                ("missing receipt", missing_receipt),
                ("route", "none" if preview.route is None else f"routes[{preview.route}]"),
                ("providers", ranking or None),
            ]
        ),
        *_replaced_lines(preview.replacements),
        Text("Nothing was sent."),
    ]


MESSAGE_COLUMNS: Sequence[Column[Message]] = (
    Column("message", lambda m: m.message_id),
    Column("accepted", lambda m: m.accepted_at),
    Column("status", lambda m: m.status, is_status=True),
    Column("reason", lambda m: m.reason),
    Column("to", lambda m: m.to),
    Column("from", lambda m: m.sender),
    Column("mode", lambda m: m.mode),
    Column("provider", lambda m: m.provider),
    Column("priority", lambda m: m.priority, is_extra=True),
    Column("encoding", lambda m: m.encoding, is_extra=True),
    Column("segments", lambda m: m.segments, is_extra=True),
    Column("country", lambda m: m.country, is_extra=True),
    Column("network", lambda m: m.network, is_extra=True),
    Column("attempts", lambda m: m.attempts, is_extra=True),
    Column("scheduled", lambda m: m.scheduled_at, is_extra=True),
    Column("valid until", lambda m: m.valid_until, is_extra=True),
    Column("updated", lambda m: m.updated_at, is_extra=True),
    Column("body", lambda m: m.body, is_sentence=True, is_extra=True),
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
            *((f"parameter {name}", value) for name, value in message.parameters.items()),
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
    Column("recipient", lambda r: r.index + 1),
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
    """JSON as it is read: `primary(standing=chosen up=yes), backup(standing=lower up=yes)`."""
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


def timeline(events: Sequence[Event]) -> Grid[Moment]:
    """What happened, in order, with all details: for programs."""
    return Grid(TIMELINE_COLUMNS, moments(events))


EVENT_LINE_COLUMNS: Sequence[Column[AccountEvent]] = (
    Column("at", lambda e: e.at),
    Column("message", lambda e: e.message_id),
    Column("event", lambda e: e.kind),
    Column("previous", lambda e: e.previous),
    Column("status", lambda e: e.status),
    Column("provider", lambda e: e.provider),
    Column("code", lambda e: e.code),
    Column("reason", lambda e: e.reason),
    Column("by", lambda e: e.actor),
)


def event_line(event: AccountEvent) -> str:
    """One event of any message on a line of its own, with the message's id to be copied."""
    return f"{_time_of_day(event.at)} {visible(event.message_id)} {visible(sentence(event))}"


def moment_line(event: Event, meaning: str | None = None) -> Text:
    """One event of a message on a line of its own, and what its code means, where that is known."""
    style = style_of(event.status or "") if event.kind != "decided" else ""
    return Text.assemble(
        (f"{_time_of_day(event.at, 'milliseconds')}  ", "dim"),
        (visible(sentence(event)), style),
        f" The code means: {visible(meaning)}." if meaning else "",
    )


def _time_of_day(at: datetime, precision: str = "seconds") -> str:
    return f"{at.astimezone(UTC).time().isoformat(precision)}Z"


@dataclass(frozen=True, slots=True)
class AttemptPart:
    """A part, with the attempt that it belongs to."""

    attempt: Attempt
    part: Part


ACCEPTED_PART_COLUMNS: Sequence[Column[AttemptPart]] = (
    Column("attempt", lambda p: p.attempt.number),
    Column("provider", lambda p: p.attempt.provider),
    Column("part", lambda p: p.part.number),
    Column("status", lambda p: p.part.status, is_status=True),
    Column("provider's id", lambda p: p.part.provider_message_id),
    Column("receipt code", lambda p: p.part.receipt_code),
)
CALLBACK_COLUMNS: Sequence[Column[Callback]] = (
    Column("callback", lambda c: c.id),
    Column("message", lambda c: c.message_id),
    Column("status", lambda c: c.status, is_status=True),
    Column("code", lambda c: c.provider_code),
    Column("state", lambda c: c.state, is_status=True),
    Column("tries", lambda c: c.tries),
    Column("next", lambda c: c.next_at),
    Column("answered", lambda c: c.responded_at),
    Column("last response", lambda c: c.last_status),
    Column("last error", lambda c: c.last_error, is_sentence=True),
    Column("url", lambda c: c.url),
)


_AGES = (("days", 2 * 86_400, 86_400), ("h", 2 * 3600, 3600), ("min", 60, 60))


def _rate_after_throttling(provider: Provider) -> str | None:
    """The part of the rate that is in use; nothing where there is no rate, or nobody to use it."""
    if provider.rate is None or not provider.binds_up:
        return None
    return f"{provider.rate_ratio:.0%}"


def _why_not_up(provider: Provider) -> str | None:
    """Why it is not up; or the last error, where that is over."""
    if provider.detail:
        return provider.detail
    error = provider.last_bind_error
    return _error_line(error) if error else None


def _error_line(error: SessionBindError) -> str:
    if error.is_current or error.at is None:
        return error.detail
    return f"Last error {age(datetime.now(UTC) - error.at)} ago. {error.detail}"


def age(span: timedelta) -> str:
    """A span as people say it: `12 s`, `3 min`, `5 h`, `2 days`."""
    seconds = max(0, int(span.total_seconds()))
    for unit, shortest, length in _AGES:
        if seconds >= shortest:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


PROVIDER_COLUMNS: Sequence[Column[Provider]] = (
    Column("provider", lambda p: p.name),
    Column("type", lambda p: p.type),
    Column("for", lambda p: p.environment),
    Column("state", lambda p: p.state, is_status=True),
    Column("workers", lambda p: p.workers),
    Column("binds", lambda p: str(p.binds_up) if p.binds is None else f"{p.binds_up}/{p.binds}"),
    Column("rate/s", lambda p: p.rate),
    Column("rate after throttling", _rate_after_throttling),
    Column("last heartbeat", lambda p: p.last_heartbeat_at),
    Column("attempts", lambda p: p.recent.attempts),
    Column("accepted", lambda p: p.recent.accepted),
    Column("refused", lambda p: p.recent.refused),
    Column("unreachable", lambda p: p.recent.unreachable),
    Column("unknown", lambda p: p.recent.unknown),
    Column("delivered", lambda p: p.recent.delivered),
    Column("undelivered", lambda p: p.recent.undelivered),
    Column("unparsed receipts", lambda p: p.unparsed_receipts),
    Column("p50 ms", lambda p: p.recent.accept_p50_ms),
    Column("unmatched receipts", lambda p: p.unmatched_receipts),
    Column("up for", lambda p: " ".join(p.up_for)),
    Column(
        "shares/s",
        lambda p: _rate_shares(p.rate_shares) if p.rate is not None else None,
        is_sentence=True,
    ),
    Column(
        "error",
        lambda p: p.last_bind_error.reason if p.last_bind_error else None,
        is_extra=True,
    ),
    Column(
        "error code",
        lambda p: p.last_bind_error.code if p.last_bind_error else None,
        is_extra=True,
    ),
    Column(
        "error at",
        lambda p: p.last_bind_error.at if p.last_bind_error else None,
        is_extra=True,
    ),
    Column("why", _why_not_up, is_sentence=True),
)


def provider_details(provider: Provider) -> Group:
    """All of a provider, and the error that each of its workers reports."""
    about = details((column.heading, column.of(provider)) for column in PROVIDER_COLUMNS)
    errors = [
        Text(f"· {counted(error.workers, 'worker')}: {visible(_error_line(error))}")
        for error in provider.bind_errors
    ]
    return Group(about, *((Text(), Text("Bind errors", style="bold"), *errors) if errors else ()))


KEY_COLUMNS: Sequence[Column[Key]] = (
    Column("key", lambda k: k.id),
    Column("name", lambda k: k.name),
    Column("environment", lambda k: k.environment),
    Column("scopes", lambda k: " ".join(k.scopes), is_sentence=True),
    Column("created", lambda k: k.created_at),
    Column("expires", lambda k: k.expires_at),
    Column("revoked", lambda k: k.revoked_at),
    Column("last used", lambda k: k.last_used_at),
    Column("parent", lambda k: k.parent_id),
    Column("account", lambda k: k.account_id),
)
ACCOUNT_COLUMNS: Sequence[Column[Account]] = (
    Column("account", lambda a: a.id),
    Column("name", lambda a: a.name, is_sentence=True),
    Column("created", lambda a: a.created_at),
    Column("suspended", lambda a: a.suspended_at),
)
OPERATOR_KEY_COLUMNS: Sequence[Column[OperatorKey]] = (
    Column("key", lambda k: k.id),
    Column("name", lambda k: k.name),
    Column("scopes", lambda k: " ".join(k.scopes), is_sentence=True),
    Column("created", lambda k: k.created_at),
    Column("expires", lambda k: k.expires_at),
    Column("revoked", lambda k: k.revoked_at),
    Column("last used", lambda k: k.last_used_at),
    Column("parent", lambda k: k.parent_id),
)


@dataclass(frozen=True, slots=True)
class NamedProfile:
    """A profile as it is shown: of its key only enough to distinguish it from others."""

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
    Column("*", lambda p: "*" if p.is_current else ""),
    Column("profile", lambda p: p.name),
    Column("api", lambda p: p.api),
    Column("key", lambda p: p.key),
)


def result_of_test(explained: Explanation, waited: float) -> list[Text]:
    """How a test of a provider ended, and its times, segments and price.

    `waited` is how many seconds were waited for its end.
    """
    message = explained.message
    state = words(message.status)
    first = f"It is still {state}: it had not ended after {waited:.0f} s."
    if message.has_ended:
        first = next(iter(explained.summary), f"Ended as {state}.")
    lines = [first]
    for attempt in explained.attempts:
        lines += _attempt_result(attempt, waited)
    lines.append(f"{counted(message.segments, 'segment')} by the gateway's own count.")
    return [Text(visible(line)) for line in lines]


def _attempt_result(attempt: Attempt, waited: float) -> Iterator[str]:
    """The response, the receipt and the bill of an attempt, in sentences."""
    begun = attempt.started_at
    which = f"Attempt {attempt.number}"
    responded = [part.responded_at for part in attempt.parts if part.responded_at is not None]
    received = [part.receipt_at for part in attempt.parts if part.receipt_at is not None]
    if responded and attempt.status != "unknown":
        yield f"{which}: response after {_seconds(max(responded) - begun)}."
    else:
        yield f"{which}: no response."
    if received:
        yield f"{which}: receipt after {_seconds(max(received) - begun)}."
    elif attempt.status in _WITHOUT_RECEIPT:
        yield f"{which}: no receipt, which was waited for {waited:.0f} s."
    segments = None
    if attempt.billed_segments is not None:
        segments = counted(attempt.billed_segments, "segment")
    billed = [each for each in (segments, str(attempt.price or "")) if each]
    if billed:
        yield f"{which}: {attempt.provider} bills {' for '.join(billed)}."
    else:
        yield f"{which}: {attempt.provider} has reported neither price nor segments."


_WITHOUT_RECEIPT = frozenset({"accepted", "unknown", "expired"})
"""Statuses of attempts whose receipt was waited for."""


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.3f} s"


_READABLE = 80
"""Columns of an explanation where there is no terminal: it is read in tickets and chats, too."""


def explanation(explained: Explanation, *, is_terminal: bool = False) -> RenderableType:
    """All that is known of a message, the most important first; at most 80 columns without a terminal."""
    parts = [
        AttemptPart(attempt, part)
        for attempt in explained.attempts
        for part in attempt.parts
        if part.provider_message_id
    ]
    sections: list[tuple[bool, RenderableType]] = [
        (bool(explained.summary), _summary(explained.summary)),
        (bool(explained.steps), _steps(explained.steps)),
        (bool(parts), Grid(ACCEPTED_PART_COLUMNS, parts, title="Parts that providers accepted")),
        (bool(explained.callbacks), Grid(CALLBACK_COLUMNS, explained.callbacks, title="Callbacks")),
        (True, Group(Text("Message", style="bold"), message_details(explained.message))),
    ]
    shown: list[RenderableType] = []
    for has_something, section in sections:
        if has_something:
            shown += [section, Text()]
    return Constrain(Group(*shown[:-1]), None if is_terminal else _READABLE)


def _summary(sentences: Sequence[str]) -> Group:
    """The first sentence on a line of its own, the others below it."""
    first, *others = sentences
    return Group(
        Text(visible(first), style="bold"),
        *(_hanging(Text("·"), Text(visible(sentence))) for sentence in others),
    )


def _steps(steps: Sequence[Step]) -> Group:
    """One line for each step, wrapped at words."""
    lines = (
        _hanging(Text(_time(step.at), style="dim"), Text(visible(step.text))) for step in steps
    )
    return Group(Text("Steps", style="bold"), *lines)


def _hanging(before: Text, text: Text) -> Table:
    """A text beside another one, below which none of its lines begins."""
    line = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    line.add_column(no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(before, text)
    return line

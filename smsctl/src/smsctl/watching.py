"""`batch watch`: how far batches are, shown while their messages leave and end."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from smsgateway import Batch, Client, MessageStatus

from smsctl.columns import counted, style_of
from smsctl.screen import Screen, visible
from smsctl.waiting import look_until_ended

# From the end that is hoped for back to the beginning, and then the other ends.
_ORDER = (
    MessageStatus.DELIVERED,
    MessageStatus.SENT,
    MessageStatus.UNKNOWN,
    MessageStatus.RETRIED,
    MessageStatus.SENDING,
    MessageStatus.QUEUED,
    MessageStatus.SCHEDULED,
    MessageStatus.FAILED,
    MessageStatus.DEAD_LETTER,
    MessageStatus.EXPIRED,
    MessageStatus.CANCELED,
)
_WIDEST_STATUS = max(len(status) for status in MessageStatus)


@dataclass(frozen=True, slots=True)
class Watched:
    """Batches as last seen, in the order in which they were asked for."""

    batches: Sequence[Batch]

    @property
    def have_ended(self) -> bool:
        """Whether every one is finished or cancelled."""
        return all(batch.has_ended for batch in self.batches)

    @property
    def messages(self) -> int:
        """Of all of them."""
        return sum(batch.accepted for batch in self.batches)

    @property
    def delivered(self) -> int:
        """How many messages arrived."""
        return sum(batch.by_status.get(MessageStatus.DELIVERED, 0) for batch in self.batches)

    @property
    def open(self) -> int:
        """How many messages go on."""
        return sum(batch.open for batch in self.batches)


def show_watching(
    screen: Screen, client: Client, batch_ids: Sequence[str], timeout: float | None
) -> Watched:
    """Watch batches until they have ended, as the screen allows: bars, lines, or nothing.

    Without `timeout` seconds it may take days. Outages in between are outwaited.

    Raises:
        GatewayError: one of them cannot be looked at.
    """
    look = _Look(client, batch_ids)
    seconds = math.inf if timeout is None else timeout
    if screen.for_programs:
        return look_until_ended(look, _have_ended, seconds, lambda _: None)
    if not screen.out.is_terminal:
        return look_until_ended(look, _have_ended, seconds, _Lines(screen).show)
    with Live(console=screen.out, refresh_per_second=8) as live:
        return look_until_ended(
            look, _have_ended, seconds, lambda watched: live.update(Bars(watched.batches))
        )


def last_words(watched: Watched) -> Text:
    """How it ended, over all batches."""
    otherwise = watched.messages - watched.delivered - watched.open
    said = [f"{watched.delivered} of {counted(watched.messages, 'message')} delivered"]
    said += [f"{otherwise} ended otherwise"] if otherwise else []
    said += [f"{watched.open} still on the way"] if watched.open else []
    late = "" if watched.have_ended else "Not ended in time: "
    return Text(f"{late}{', '.join(said)}.")


def _have_ended(watched: Watched) -> bool:
    return watched.have_ended


class _Look:
    """Asks after the batches that had not ended when they were last seen."""

    def __init__(self, client: Client, batch_ids: Sequence[str]) -> None:
        self._client = client
        self._seen: dict[str, Batch | None] = dict.fromkeys(batch_ids)

    def __call__(self) -> Watched:
        for batch_id, seen in self._seen.items():
            if seen is None or not seen.has_ended:
                self._seen[batch_id] = self._client.batch(batch_id)
        return Watched([batch for batch in self._seen.values() if batch is not None])


class _Lines:
    """A line for each batch that has moved."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown: dict[str, str] = {}

    def show(self, watched: Watched) -> None:
        for batch in watched.batches:
            line = _line(batch)
            if self._shown.get(batch.batch_id) != line:
                self._shown[batch.batch_id] = line
                self._screen.out.print(Text(visible(line)))


def _line(batch: Batch) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in _ordered(batch.by_status))
    return f"{batch.batch_id}  {batch.status}  {counts}"


class Bars:
    """A bar for each status of each batch; where there is no room for that, of all together."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if len(self._batches) > 1 and self._height >= console.height:
            yield from self._together()
            return
        for batch in self._batches:
            yield Text.assemble(
                (visible(batch.batch_id), "bold"),
                "  ",
                (visible(batch.status), style_of(batch.status)),
                f"  {counted(batch.accepted, 'message')}",
            )
            yield _bars(batch.by_status, batch.accepted)

    @property
    def _height(self) -> int:
        return sum(1 + len(batch.by_status) for batch in self._batches)

    def _together(self) -> Iterator[RenderableType]:
        statuses = Counter(batch.status for batch in self._batches)
        by_status: Counter[MessageStatus | str] = Counter()
        for batch in self._batches:
            by_status.update(batch.by_status)
        total = by_status.total()
        how = ", ".join(f"{count} {visible(status)}" for status, count in statuses.items())
        yield Text.assemble(
            (counted(len(self._batches), "batch", "batches"), "bold"),
            f"  {how}  {counted(total, 'message')}",
        )
        yield _bars(by_status, total)


def _bars(by_status: Mapping[MessageStatus | str, int], total: int) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(min_width=_WIDEST_STATUS, no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", min_width=len("100 %"), no_wrap=True)
    for status, count in _ordered(by_status):
        style = style_of(status) or "default"
        bar = ProgressBar(
            total=max(total, 1), completed=count, complete_style=style, finished_style=style
        )
        share = f"{100 * count // max(total, 1)} %"
        table.add_row(Text(visible(status), style=style), bar, str(count), share)
    return table


def _ordered(
    by_status: Mapping[MessageStatus | str, int],
) -> Sequence[tuple[MessageStatus | str, int]]:
    """Statuses with their counts; those that a newer gateway knows stand at the end."""
    places: dict[MessageStatus | str, int] = {status: place for place, status in enumerate(_ORDER)}
    return sorted(by_status.items(), key=lambda item: (places.get(item[0], len(places)), item[0]))

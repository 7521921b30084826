"""`send --wait` and `provider test`: the timeline of a message, shown while it comes about."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from smsgateway import (
    Client,
    ConnectionFailed,
    Event,
    Explanation,
    GatewayError,
    Message,
    Unavailable,
)

from smsctl.columns import moment_line
from smsctl.screen import Screen, visible
from smsctl.sentences import words

T = TypeVar("T")

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
_SLOWER_BY = 1.3
# The message is in safe hands; what only hinders looking is outwaited.
_PASSING = (ConnectionFailed, Unavailable)


@dataclass(frozen=True, slots=True)
class Seen:
    """A message and its events, as last seen; `meanings` are those of providers' codes."""

    message: Message
    events: Sequence[Event]
    meanings: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[Text]:
        """A line for each event; the meaning of a code stands with the first event that has it."""
        left = dict(self.meanings)
        return [moment_line(event, left.pop(event.code or "", None)) for event in self.events]


Watcher = Callable[[Seen], None]


def wait(client: Client, message_id: str, timeout: float, watch: Watcher) -> Seen:
    """Look until the message has ended or `timeout` seconds are over.

    `watch` is called with whatever is seen. Outages in between are outwaited.

    Raises:
        GatewayError: the message cannot be looked at.
    """

    def look() -> Seen:
        # In this order, so that the events of a message that has ended are all there.
        return Seen(client.message(message_id), client.events(message_id))

    return look_until_ended(look, lambda seen: seen.message.has_ended, timeout, watch)


def look_until_ended(
    look: Callable[[], T],
    has_ended: Callable[[T], bool],
    timeout: float,
    watch: Callable[[T], None],
) -> T:
    """Look, more and more slowly, until it has ended or `timeout` seconds are over.

    `watch` is called with whatever is seen. Outages in between are outwaited.

    Raises:
        GatewayError: it cannot be looked at.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        seen = _seen(look)
        if not isinstance(seen, GatewayError):
            watch(seen)
            if has_ended(seen):
                return seen
        left = deadline - time.monotonic()
        if left <= 0:
            if isinstance(seen, GatewayError):
                raise seen
            return seen
        time.sleep(min(pause, left))
        pause = min(_LONGEST_PAUSE, pause * _SLOWER_BY)


def _seen(look: Callable[[], T]) -> T | GatewayError:
    try:
        return look()
    except _PASSING as error:
        return error


def show_waiting(screen: Screen, client: Client, message_id: str, timeout: float) -> Seen:
    """Wait, and show what happens as the screen allows: lines, or nothing."""
    return shown(screen, lambda watch: wait(client, message_id, timeout, watch))


def show_waiting_for_test(
    screen: Screen, client: Client, provider: str, message_id: str, timeout: float
) -> tuple[Seen, Explanation]:
    """Wait for the end of a test of a provider, and show what happens, as `show_waiting` does."""
    explained: list[Explanation] = []

    def look() -> Seen:
        found = client.explain_provider_test(provider, message_id)
        explained[:] = [found]
        meanings = {step.code: step.meaning for step in found.steps if step.code and step.meaning}
        return Seen(found.message, found.events, meanings)

    def waited(watch: Watcher) -> Seen:
        return look_until_ended(look, lambda seen: seen.message.has_ended, timeout, watch)

    return shown(screen, waited), explained[0]


def shown(screen: Screen, waited: Callable[[Watcher], Seen]) -> Seen:
    """What `waited` returns, while what it sees is shown."""
    if screen.for_programs:
        return waited(lambda _: None)
    if not screen.out.is_terminal:
        return waited(_Lines(screen).show)
    with Live(console=screen.out, refresh_per_second=8) as live:
        return waited(lambda seen: live.update(_growing(seen)))


class _Lines:
    """Each event on a line, once."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown = 0

    def show(self, seen: Seen) -> None:
        for line in seen.lines()[self._shown :]:
            self._screen.out.print(line)
        self._shown = len(seen.events)


def _growing(seen: Seen) -> RenderableType:
    lines = seen.lines()
    if not seen.message.has_ended:
        lines.append(Text(f"… {visible(words(seen.message.status))}, waiting", style="dim"))
    return Group(*lines)

"""Whose turn it is: priority, rate and window of one provider within this process."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from domain.errors import ErrorClass
from providers.base import NoSlot

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE: Final = 1.0
"""Seconds that a message waits for its turn; then its worker has better things to do."""

# How much may leave at once, in seconds of the rate: enough for the coarseness of timers, and too
# little to look like a burst to an SMSC that counts by the second.
_BURST: Final = 0.1
# A carrier that throttles gets half the rate, which then doubles in so many seconds.
_RECOVERY: Final = 5.0
# The answers to one window arrive together; they are one complaint.
_ONE_COMPLAINT: Final = 1.0
_SLOWEST: Final = 1.0
# Goes before every priority, whose ranks begin at 1: what has begun should end.
_FURTHER_PART: Final = 0


class Pace:
    """The rate at which messages may leave, as the generic cell rate algorithm (ITU-T I.371).

    `rate`, which is its `limit`, is in messages a second, None for as fast as the window allows. Times
    are seconds of `clock`, which is monotonic.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float]) -> None:
        self.limit = rate
        self._clock = clock
        self._due = clock()
        self._slowed_to: float | None = None
        self._slowed_at = 0.0
        self._recovered: float | None = rate
        self._second = 0
        self._left_in_second = 0
        self._left_before = 0

    def limit_to(self, rate: float) -> None:
        """Messages a second from now on, where there was a rate before."""
        self.limit = self._recovered = rate

    def rate(self) -> float | None:
        """The rate just now, which is less than the configured one after a complaint."""
        if self._slowed_to is None:
            return self.limit
        rate = self._slowed_to * 2 ** ((self._clock() - self._slowed_at) / _RECOVERY)
        if self._recovered is not None and rate >= self._recovered:
            self._slowed_to = None
            return self.limit
        return float(rate)

    def wait(self) -> float:
        """Seconds until the next message may leave, 0 for now."""
        return max(0.0, self._due - _BURST - self._clock())

    def leave(self) -> None:
        """A message leaves."""
        now = self._clock()
        rate = self.rate()
        if rate is not None:
            self._due = max(self._due, now) + 1 / rate
        second = int(now)
        if second != self._second:
            self._left_before = self._left_in_second if second == self._second + 1 else 0
            self._left_in_second = 0
            self._second = second
        self._left_in_second += 1

    def complain(self) -> None:
        """The carrier throttles: halve the rate, at most once for each second."""
        now = self._clock()
        if self._slowed_to is not None and now - self._slowed_at < _ONE_COMPLAINT:
            return
        rate = self.rate()
        if rate is None:
            rate = float(max(self._left_in_second, self._left_before, 1))
            self._recovered = rate
        self._slowed_to = max(min(_SLOWEST, rate), rate / 2)
        self._slowed_at = now


class Turns:
    """Gives turns by rank (lower first), then by arrival, as rate and capacity allow.

    `capacity` is how many turns may be held at once: the open windows of the sessions. It is
    looked at whenever a turn is asked for or given back, and on `look_again`.
    """

    def __init__(self, rate: float | None, capacity: Callable[[], int]) -> None:
        self._loop = asyncio.get_running_loop()
        self.pace = Pace(rate, self._loop.time)
        self.held = 0
        self._capacity = capacity
        self._arrivals = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiting_by_rank: Counter[int] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_back = asyncio.Event()
        self._all_back.set()

    async def take(self, rank: int, *, patience: float = PATIENCE) -> None:
        """Wait for a turn of this rank, from 1, for at most `patience` seconds.

        Raises:
            NoSlot: at once where it is plain that the turn will not come in time.
        """
        if self._closed:
            raise NoSlot(timedelta(seconds=patience), ErrorClass.UNREACHABLE)
        if not self._waiting and self._may_leave():
            self._leave()
            return
        expected = self._expected_wait(rank)
        if expected > patience:
            raise NoSlot(timedelta(seconds=expected), ErrorClass.THROTTLED)
        turn = self._queue(rank)
        try:
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError:
            if not _given(turn):
                self._waiting_by_rank[rank] -= 1
                raise self._too_late(rank) from None
        except BaseException:
            if _given(turn):
                self.give_back()  # it came while its taker was leaving
            else:
                self._waiting_by_rank[rank] -= 1
            raise

    async def take_for_part(self) -> None:
        """Wait until a further part of a message may leave: it has the turn, and needs the rate.

        Raises:
            NoSlot: there will be no more.
        """
        turn = self._queue(_FURTHER_PART)
        try:
            await turn
        finally:
            if not _given(turn):
                self._waiting_by_rank[_FURTHER_PART] -= 1

    def give_back(self) -> None:
        """The holder of a turn is done."""
        self.held -= 1
        if self.held == 0:
            self._all_back.set()
        self.look_again()

    def look_again(self) -> None:
        """Give what can be given: something has changed."""
        while self._waiting:
            rank, _, turn = self._waiting[0]
            if turn.done():  # its taker is gone
                heapq.heappop(self._waiting)
                continue
            needs_window = rank != _FURTHER_PART
            if needs_window and (self._closed or self.held >= self._capacity()):
                return
            wait = self.pace.wait()
            if wait > 0:
                self._look_again_in(wait)
                return
            heapq.heappop(self._waiting)
            self._waiting_by_rank[rank] -= 1
            if needs_window:
                self._leave()
            else:
                self.pace.leave()
            turn.set_result(None)

    def _may_leave(self) -> bool:
        return self.held < self._capacity() and self.pace.wait() == 0

    def _leave(self) -> None:
        """A message has its turn."""
        self.pace.leave()
        self.held += 1
        self._all_back.clear()

    async def close(self) -> None:
        """Give no more turns but to further parts, and return when all are back."""
        self._closed = True
        await self._all_back.wait()

    def end(self) -> None:
        """Give nothing any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for _, _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(NoSlot(timedelta(seconds=PATIENCE), ErrorClass.UNREACHABLE))
        self._waiting.clear()

    def _queue(self, rank: int) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (rank, next(self._arrivals), turn))
        self._waiting_by_rank[rank] += 1
        self.look_again()
        return turn

    def _expected_wait(self, rank: int) -> float:
        """Seconds until a turn of this rank by the rate alone, since answers cannot be foretold."""
        rate = self.pace.rate()
        if rate is None:
            return 0.0
        ahead = sum(count for other, count in self._waiting_by_rank.items() if other <= rank)
        return self.pace.wait() + ahead / rate

    def _too_late(self, rank: int) -> NoSlot:
        if self._capacity() == 0:
            return NoSlot(timedelta(seconds=PATIENCE), ErrorClass.UNREACHABLE)
        wait = max(self._expected_wait(rank), PATIENCE)
        return NoSlot(timedelta(seconds=wait), ErrorClass.THROTTLED)

    def _look_again_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self.look_again()


def _given(turn: asyncio.Future[None]) -> bool:
    return turn.done() and not turn.cancelled() and turn.exception() is None

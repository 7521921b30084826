"""Whose turn it is: priority, rate and window of one provider within this process."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter, deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from domain.error_classes import ErrorClass
from domain.modes import Priority
from domain.rates import NO_DEMAND, RateDemand
from providers.base import NoSlot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE: Final = 1.0
"""Seconds that a message waits for its turn; then its worker has better things to do."""

# How much may leave at once, in seconds of the rate: enough for the coarseness of timers. An SMSC that
# counts by the second sees that much more than the rate at most.
_BURST: Final = 0.04
# Demand is measured over so many seconds at least.
_MEASURED_FOR: Final = 1.0
# Seconds after which a share of the rate has grown, when messages wait for it: a few heartbeats.
_SHARE_GROWS_WITHIN: Final = 2.0
# Responses are counted for so many seconds. Within them the rate goes down by the share of answers that
# throttle, to half at most.
_COUNTED_FOR: Final = 1.0
_LEAST_FACTOR: Final = 0.5
# Added to the answers that are counted, so that the first one of them does not decide alone.
_FEW_RESPONSES: Final = 10
# From which share of the responses on an error speaks of the carrier. A full queue is mostly that of one
# recipient; where half of the recipients have one, it is the carrier's own.
_SPEAKS_OF_THE_CARRIER: Final[Mapping[ErrorClass, float]] = {
    ErrorClass.THROTTLED: 0.0,
    ErrorClass.QUEUE_FULL: 0.5,
}
# The rate doubles 3 s after the last response that slowed it down, and has grown a thousandfold after
# 10 s: the exponent grows with the square of the time, so that it comes back slowly at first, near to
# what the carrier takes, and then fast.
_RECOVERY: Final = 10.0
_SLOWEST: Final = 1.0
# What of the window requests may have that are no submits: a quarter, and one slot at least.
_PART_FOR_OPERATIONS: Final = 4
# Goes before every priority, whose ranks begin at 1: what has begun should end.
_FURTHER_PART: Final = 0


class RateLimiter:
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
        self._counted_from = clock()
        self._responses = 0
        self._errors: Counter[ErrorClass] = Counter()
        self._rate_before: float | None = None
        self._second = 0
        self._left_in_second = 0
        self._left_before = 0

    def limit_to(self, rate: float) -> None:
        """Messages a second from now on, where there was a rate before; 0 for none.

        What the carrier's throttling left of the rate keeps its ratio.
        """
        before = self.limit
        self.limit = self._recovered = rate
        if not rate:
            return
        if before and self._slowed_to is not None:
            self._slowed_to *= rate / before
        self._due = min(self._due, self._clock() + _BURST + 1 / rate)

    def rate(self) -> float | None:
        """The rate just now, which is less than the configured one while the carrier throttles."""
        if self._slowed_to is None:
            return self.limit
        since = self._clock() - self._slowed_at
        rate = self._slowed_to * 2 ** min(since * since / _RECOVERY, 64)
        if self._recovered is not None and rate >= self._recovered:
            self._slowed_to = None
            return self.limit
        return float(rate)

    def wait(self) -> float:
        """Seconds until the next message may leave, 0 for now; infinite while the rate is 0."""
        if self.limit == 0:
            return math.inf
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

    @property
    def ratio(self) -> float:
        """The rate just now by the usual one: 1 unless slowed down."""
        rate = self.rate()
        if self._slowed_to is None or rate is None or self._recovered is None:
            return 1.0
        return rate / self._recovered

    def count_response(self, error_class: ErrorClass | None) -> None:
        """Count a response to a submit; slow down where its kind and its share speak of the carrier."""
        now = self._clock()
        if now - self._counted_from >= _COUNTED_FOR:
            self._counted_from, self._responses, self._rate_before = now, 0, None
            self._errors.clear()
        self._responses += 1
        if error_class is None or error_class not in _SPEAKS_OF_THE_CARRIER:
            return
        self._errors[error_class] += 1
        share = self._errors[error_class] / (self._responses + _FEW_RESPONSES)
        if share >= _SPEAKS_OF_THE_CARRIER[error_class]:
            self._slow_down(share, now)

    def _slow_down(self, share: float, now: float) -> None:
        rate = self.rate()
        if rate is None:
            rate = float(max(self._left_in_second, self._left_before, 1))
            self._recovered = rate
        if self._rate_before is None:
            self._rate_before = rate
        wanted = self._rate_before * max(_LEAST_FACTOR, 1 - share)
        if wanted < rate:
            self._slowed_to = max(min(_SLOWEST, rate), wanted)
            self._slowed_at = now


class DemandMeter:
    """Measures what wants to leave, over intervals of a second or more. Times are seconds of `clock`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._before = self._last = NO_DEMAND
        self._wanted = self._critical = 0
        self._turned_away = False
        self._waiting_since: float | None = None
        self._waited = 0.0

    def count(self, rank: int) -> None:
        """One more message, or part of one, wants to leave."""
        self._wanted += 1
        self._critical += rank == Priority.CRITICAL.rank

    def turned_away(self) -> None:
        """The rate is too low for a message to wait."""
        self._turned_away = True

    def waits_for_the_rate(self, waits: bool) -> None:
        """From now on something waits for the rate, or nothing does."""
        now = self._clock()
        if self._waiting_since is not None:
            self._waited += now - self._waiting_since
        self._waiting_since = now if waits else None

    def measured(self, waiting: Mapping[int, int]) -> RateDemand:
        """The larger demand of the last two intervals; `waiting` counts those who wait now, by rank.

        It falls only after two intervals, so that shares do not follow each short pause.
        """
        now = self._clock()
        elapsed = now - self._began
        if elapsed >= _MEASURED_FOR:
            self.waits_for_the_rate(self._waiting_since is not None)
            is_limited = self._turned_away or self._waited > elapsed / 2
            demand = RateDemand(self._wanted / elapsed, self._critical / elapsed, is_limited)
            self._before, self._last = self._last, demand
            self._began, self._turned_away, self._waited = now, False, 0.0
            self._wanted = sum(waiting.values())
            self._critical = waiting.get(Priority.CRITICAL.rank, 0)
        before, last = self._before, self._last
        return RateDemand(
            max(before.total, last.total),
            max(before.critical, last.critical),
            is_limited=before.is_limited or last.is_limited,
        )


class SubmitQueue:
    """Gives turns by rank (lower first), then by arrival, as rate and capacity allow.

    `capacity` is how many turns may be held at once: the open windows of the sessions. It is
    looked at whenever a turn is asked for or given back, and on `recheck`. Every request takes one,
    also those that are no submits (`take_for_operation`): so whoever has a turn finds a free slot.
    """

    def __init__(self, rate: float | None, capacity: Callable[[], int]) -> None:
        self._loop = asyncio.get_running_loop()
        self.rate_limiter = RateLimiter(rate, self._loop.time)
        self.held = 0
        """By all requests that are not answered."""
        self.held_by_operations = 0
        self._total_rate = rate
        self._demand = DemandMeter(self._loop.time)
        self._capacity = capacity
        self._operations: deque[asyncio.Future[None]] = deque()
        self._operation_was_last = False
        self._arrivals = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiting_by_rank: Counter[int] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_back = asyncio.Event()
        self._all_back.set()
        self._one_back = asyncio.Event()

    async def take(self, rank: int, *, patience: float = PATIENCE) -> None:
        """Wait for a turn of this rank, from 1, for at most `patience` seconds.

        Raises:
            NoSlot: at once where it is plain that the turn will not come in time.
        """
        if self._closed:
            raise NoSlot(timedelta(seconds=patience), ErrorClass.UNREACHABLE)
        self._demand.count(rank)
        if not self._waiting and self._may_leave():
            self._leave()
            return
        if self._expected_wait(rank) > patience:
            self._demand.turned_away()
            raise NoSlot(timedelta(seconds=self._try_again_after(rank)), ErrorClass.THROTTLED)
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

    async def take_for_part(self, rank: int) -> None:
        """Wait until a further part of a message may leave: it has the turn, and needs the rate.

        `rank` is that of the message: for the demand, since further parts go before all messages.

        Raises:
            NoSlot: there will be no more.
        """
        self._demand.count(rank)
        turn = self._queue(_FURTHER_PART)
        try:
            await turn
        finally:
            if not _given(turn):
                self._waiting_by_rank[_FURTHER_PART] -= 1

    async def take_for_operation(self, *, patience: float) -> None:
        """Wait at most `patience` seconds for a turn for a request that is no submit: no rate is needed.

        These have a quarter of the window at most, and one slot at least. Where both kinds wait for
        the same slot, each gets every other one.

        Raises:
            NoSlot: none came in time, or there will be no more.
        """
        if self._closed:
            raise NoSlot(timedelta(seconds=patience), ErrorClass.UNREACHABLE)
        turn: asyncio.Future[None] = self._loop.create_future()
        self._operations.append(turn)
        self.recheck()
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            if _given(turn):
                self.give_back_operation()
            if isinstance(error, TimeoutError):
                raise NoSlot(timedelta(seconds=patience), ErrorClass.THROTTLED) from None
            raise

    def give_back_operation(self) -> None:
        """The holder of a turn for an operation is done."""
        self.held_by_operations -= 1
        self.give_back()

    def give_back(self) -> None:
        """The holder of a turn is done."""
        self.held -= 1
        self._one_back.set()
        if self.held == 0:
            self._all_back.set()
        self.recheck()

    def recheck(self) -> None:
        """Give what can be given: something has changed."""
        while self._give_operation() or self._give_next():
            pass
        self._demand.waits_for_the_rate(self._waiting_for_the_rate())

    def limit_rate(self, rate: float) -> None:
        """So many messages may leave in a second from now on."""
        self.rate_limiter.limit_to(rate)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.recheck()

    def demand(self) -> RateDemand:
        """What wanted to leave in the last seconds."""
        return self._demand.measured(self._waiting_by_rank)

    def _waiting_for_the_rate(self) -> bool:
        """Whether the rate keeps the first in the queue waiting, and not the window."""
        if not self._waiting:
            return False
        needs_window = self._waiting[0][0] != _FURTHER_PART
        return (self._has_slot() or not needs_window) and self.rate_limiter.wait() > 0

    def _give_operation(self) -> bool:
        """Give a turn to the operation that waits longest, if it may have one."""
        while self._operations and self._operations[0].done():  # its taker is gone
            self._operations.popleft()
        most = max(1, self._capacity() // _PART_FOR_OPERATIONS)
        if not self._operations or self.held_by_operations >= most or not self._has_slot():
            return False
        if self._operation_was_last and self._submits_wait_for_a_slot():
            return False
        self.held_by_operations += 1
        self._operation_was_last = True
        self._hold()
        self._operations.popleft().set_result(None)
        return True

    def _submits_wait_for_a_slot(self) -> bool:
        waiting = self._waiting_by_rank.total() - self._waiting_by_rank[_FURTHER_PART]
        return waiting > 0 and self.rate_limiter.wait() == 0

    def _give_next(self) -> bool:
        """Give a turn to the first in the queue, or drop it if nobody waits there; False if it must wait."""
        if not self._waiting:
            return False
        rank, _, turn = self._waiting[0]
        if turn.done():  # its taker is gone
            heapq.heappop(self._waiting)
            return True
        needs_window = rank != _FURTHER_PART
        if needs_window and not self._has_slot():
            return False
        wait = self.rate_limiter.wait()
        if wait > 0:
            self._recheck_in(wait)
            return False
        heapq.heappop(self._waiting)
        self._waiting_by_rank[rank] -= 1
        if needs_window:
            self._leave()
        else:
            self.rate_limiter.leave()
        turn.set_result(None)
        return True

    def _has_slot(self) -> bool:
        return not self._closed and self.held < self._capacity()

    def _may_leave(self) -> bool:
        return self.held < self._capacity() and self.rate_limiter.wait() == 0

    def _leave(self) -> None:
        """A message has its turn."""
        self.rate_limiter.leave()
        self._operation_was_last = False
        self._hold()

    def _hold(self) -> None:
        self.held += 1
        self._all_back.clear()

    async def until_held(self, most: int) -> None:
        """Return when no more than so many turns are held."""
        while self.held > most:
            self._one_back.clear()
            await self._one_back.wait()

    async def close(self) -> None:
        """Give no more turns but to further parts, and return when all are back."""
        self._closed = True
        await self._all_back.wait()

    def end(self) -> None:
        """Give nothing any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for turn in [*(turn for _, _, turn in self._waiting), *self._operations]:
            if not turn.done():
                turn.set_exception(NoSlot(timedelta(seconds=PATIENCE), ErrorClass.UNREACHABLE))
        self._waiting.clear()
        self._operations.clear()

    def _queue(self, rank: int) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (rank, next(self._arrivals), turn))
        self._waiting_by_rank[rank] += 1
        self.recheck()
        return turn

    def _expected_wait(self, rank: int) -> float:
        """Seconds until a turn of this rank by the rate alone, since answers cannot be foretold."""
        rate = self.rate_limiter.rate()
        if rate is None:
            return 0.0
        if rate == 0:
            return math.inf
        return self.rate_limiter.wait() + self._ahead_of(rank) / rate

    def _ahead_of(self, rank: int) -> int:
        return sum(count for other, count in self._waiting_by_rank.items() if other <= rank)

    def _too_late(self, rank: int) -> NoSlot:
        if self._capacity() == 0:
            return NoSlot(timedelta(seconds=PATIENCE), ErrorClass.UNREACHABLE)
        wait = max(self._try_again_after(rank), PATIENCE)
        return NoSlot(timedelta(seconds=wait), ErrorClass.THROTTLED)

    def _try_again_after(self, rank: int) -> float:
        """Seconds until a turn of this rank by the rate just now, or by the whole rate if that is sooner.

        A process with a small share gets a larger one soon, since the message counts as its demand.
        """
        expected = self._expected_wait(rank)
        if self._total_rate is None:
            return expected
        return min(expected, _SHARE_GROWS_WITHIN + self._ahead_of(rank) / self._total_rate)

    def _recheck_in(self, seconds: float) -> None:
        if self._timer is None and seconds < math.inf:
            self._timer = self._loop.call_later(seconds, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self.recheck()


def _given(turn: asyncio.Future[None]) -> bool:
    return turn.done() and not turn.cancelled() and turn.exception() is None

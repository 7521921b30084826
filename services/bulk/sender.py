"""Hands the messages of a bulk to one provider, as fast as it takes them."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import psycopg

from domain import deadlines
from domain.claims import Refusal
from domain.error_classes import ErrorClass
from domain.outcomes import OutcomeKind, PartOutcome
from providers.base import NoSlot, Provider
from providers.submit_queue import PATIENCE
from services.bulk.claims import PREPARED_AT_ONCE, BulkClaims, Ready
from services.bulk.in_flight import InFlightLimit, InFlightLimits
from services.bulk.outcomes import OutcomeRecorder, Outcomes
from services.bulk.state import id_range_of, uuid_of
from services.outcomes import as_change
from services.yielding_slices import yielding_slices
from store import bulks
from store.bulks import IdRange
from store.database import Database
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.ports.bulk import BulkRef

_log = get_logger(__name__)

_FIRST_ID: Final = UUID(int=0)

_GATHERING: Final = 0.05
_LONGEST_GATHERING: Final = 0.2
"""Seconds for which outcomes are gathered, while more are to come: few statements cost less. It ends
between the two when a quarter of what the windows hold has come, so that these stay full."""

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
"""Seconds after which a message tries again to get a slot: the rate may have changed."""


class BulkSender:
    """Sends chunks of bulks at the providers of this process."""

    def __init__(self, database: Database, claims: BulkClaims, recorder: OutcomeRecorder) -> None:
        self._database = database
        self._claims = claims
        self._recorder = recorder
        self._limits = InFlightLimits()

    async def send_chunk(self, ref: BulkRef, provider: Provider, stop: asyncio.Event) -> int:
        """Send a provider's messages of a bulk; returns when their outcomes are recorded.

        Returns the number of messages that were handed over. Ends early at `stop`, when the provider is
        down, and after `CHUNK_TIME`: the next plan continues.
        """
        async with self._database.begin() as connection:
            bulk = await bulks.stored(connection, uuid_of(ref))
        if bulk is None:
            return 0
        limit = self._limits.of(provider)
        chunk = _Chunk(self._claims, self._recorder, limit, id_range_of(bulk), provider)
        return await chunk.send(stop)


class _Chunk:
    """One provider's chunk of a bulk while it is sent."""

    def __init__(
        self,
        claims: BulkClaims,
        recorder: OutcomeRecorder,
        limit: InFlightLimit,
        id_range: IdRange,
        provider: Provider,
    ) -> None:
        self._claims = claims
        self._limit = limit
        self._id_range = id_range
        self._provider = provider
        self._outcomes = Outcomes(recorder, provider.name, self._gather)
        self._submitting: set[asyncio.Task[None]] = set()
        self._enough = 0
        self._gathered = asyncio.Event()
        self._failure: BaseException | None = None

    async def send(self, stop: asyncio.Event) -> int:
        """Send until nothing is left; how many messages were handed over."""
        handed_over = 0
        ends = time.monotonic() + deadlines.CHUNK_TIME.total_seconds()
        page = self._page_after(_FIRST_ID)
        try:
            while not stop.is_set() and time.monotonic() < ends:
                found, last = await page
                if last is None:
                    break
                page = self._page_after(last)  # read while this one is sent
                sent, goes_on = await self._send_page(found, stop, ends)
                handed_over += sent
                if not goes_on:
                    break
        finally:
            page.cancel()
            await asyncio.gather(page, return_exceptions=True)
            await self._finished()
        return handed_over

    def _page_after(self, last: UUID) -> asyncio.Task[tuple[list[Ready], UUID | None]]:
        reading = self._claims.ready(self._id_range, self._provider, last, datetime.now(UTC))
        return asyncio.create_task(reading)

    async def _send_page(
        self, found: list[Ready], stop: asyncio.Event, ends: float
    ) -> tuple[int, bool]:
        """Claim and hand over a page; how many messages were granted, and whether the chunk continues.

        It ends when the provider is down, when the bulk is paused, and at `ends`: the next plan
        continues. A message that is refused for its own reason does not end the chunk.
        """
        sent, looked_at = 0, 0
        while looked_at < len(found):
            reserved = await self._limit.take(len(found) - looked_at, until=ends)
            if not reserved:
                return sent, False
            wanted = found[looked_at : looked_at + reserved]
            if stop.is_set() or self._failure is not None:
                self._limit.give_back(reserved)
                return sent, False
            granted, refusals = await self._claimed(wanted)
            self._limit.give_back(reserved - len(granted))
            await self._hand_over(granted)
            sent += len(granted)
            if Refusal.PAUSED in refusals:
                return sent, False
            looked_at += len(wanted)
        return sent, True

    async def _claimed(self, wanted: list[Ready]) -> tuple[list[Ready], frozenset[Refusal]]:
        """The messages that may be sent, and why the rest may not."""
        try:
            return await self._claims.claim(
                self._id_range, self._provider, wanted, datetime.now(UTC)
            )
        except BaseException:
            self._limit.give_back(len(wanted))
            raise

    async def _hand_over(self, granted: list[Ready]) -> None:
        """Begin to submit messages, each in a task of its own."""
        async for some in yielding_slices(granted, PREPARED_AT_ONCE):
            for each in some:
                task = asyncio.create_task(self._submit(each))
                self._submitting.add(task)
                task.add_done_callback(self._submitted)

    async def _submit(self, ready: Ready) -> None:
        """Submit a message, and have its outcomes recorded."""
        numbers = range(1, ready.parts + 1)
        try:
            outcomes = await self._outcomes_of(ready, numbers)
        except Exception as error:  # noqa: BLE001 - a fault of ours: nobody knows what was sent
            _log.error("submit_failed", error_type=type(error).__name__)
            unknown = OutcomeKind.UNKNOWN
            outcomes = [PartOutcome(n, unknown, error_class=ErrorClass.UNKNOWN) for n in numbers]
        change = as_change(ready.outbound.message_id, ready.submit.number, outcomes)
        self._outcomes.submit(change).add_done_callback(self._recorded)

    async def _outcomes_of(self, ready: Ready, numbers: Sequence[int]) -> list[PartOutcome]:
        """Wait for a slot and for the provider's responses; retried while its rate gives no slot."""
        outbound = ready.outbound
        while True:
            try:
                async with self._provider.acquire(outbound.priority):
                    now = time.monotonic()
                    if ready.submit.number == 1 and now < ready.start_by:
                        metrics.message_reached_wire(
                            mode=ready.mode,
                            seconds=(datetime.now(UTC) - ready.accepted_at).total_seconds(),
                        )
                    return await self._provider.submit(
                        outbound, numbers, start_within=timedelta(seconds=ready.start_by - now)
                    )
            except NoSlot as full:
                if full.error_class is ErrorClass.THROTTLED and time.monotonic() < ready.slot_by:
                    await asyncio.sleep(_until_a_slot_is_near(full))
                    continue
                return [_without_slot(number, full) for number in numbers]

    def _submitted(self, task: asyncio.Task[None]) -> None:
        self._submitting.discard(task)
        if len(self._outcomes) >= self._enough or not self._submitting:
            self._gathered.set()

    async def _gather(self) -> None:
        """Return when the outcomes that wait are worth a statement."""
        if not self._submitting:
            return
        self._enough = self._provider.capacity + 1
        self._gathered.clear()
        for seconds in (_GATHERING, _LONGEST_GATHERING - _GATHERING):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._gathered.wait()
            self._enough = self._provider.capacity // 4
            if not self._submitting or len(self._outcomes) >= self._enough:
                return

    def _recorded(self, written: asyncio.Future[None]) -> None:
        self._limit.give_back(1)
        error = written.exception()
        if error is None or isinstance(error, psycopg.Error):
            return  # what Postgres refuses was logged, and becomes unknown by its deadline
        if self._failure is None:
            _log.error("outcomes_not_recorded", error_type=type(error).__name__)
        self._failure = error

    async def _finished(self) -> None:
        """Wait until each message that was handed over is recorded.

        Raises:
            Exception: outcomes could not be recorded.
        """
        while self._submitting:
            await asyncio.wait(self._submitting)
        await self._outcomes.drained()
        if self._failure is not None:
            raise self._failure


def _until_a_slot_is_near(full: NoSlot) -> float:
    """Seconds until a message finds a queue that is short enough to wait in."""
    return min(max(full.after.total_seconds() - PATIENCE, _SHORTEST_PAUSE), _LONGEST_PAUSE)


def _without_slot(number: int, full: NoSlot) -> PartOutcome:
    """The outcome of a part whose message got no slot: it certainly was not sent."""
    throttled = full.error_class is ErrorClass.THROTTLED
    return PartOutcome(
        number,
        OutcomeKind.THROTTLED if throttled else OutcomeKind.UNREACHABLE,
        error_class=full.error_class,
        after=full.after if throttled else None,
    )

"""A slice of time in which the events of a lane are delivered."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from domain.callbacks.events import CallbackState
from domain.callbacks.retries import Response, Trouble
from domain.outbox import Transport
from services.callbacks.requests import Ready, Request, Sendable
from services.callbacks.secrets import ConfigurationInForce
from services.callbacks.transports import LaneTransport
from services.event_kinds import EventKinds
from store import callbacks as store
from store.callbacks import TriedCallbacks
from store.database import Database
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.callbacks import DrainResult

_log = get_logger(__name__)


AT_ONCE: Final = 16
"""Requests under way in one lane, no two of them about the same message."""

# Until its first response: an origin that hangs holds so many connections, and one once it is known to.
_AT_FIRST: Final = 2
# A failure that took so many seconds has held a place for as long: the lane goes on among its like.
_HANGS_FROM_SECONDS: Final = 2.0
# So many answers in a row that speak of the whole origin mean that it is down: the rest waits.
_DOWN_AFTER: Final = 16
_SLICE: Final = timedelta(seconds=20)
_LOOK_AGAIN_SECONDS: Final = 1.0
# While nothing is answered and nothing new is found, each look is twice as far from the one before, up to
# so many seconds: lanes that hang would else read the database all the time.
_LOOK_AT_LEAST_SECONDS: Final = 8.0
# After a look that has found all there was, the next one waits for so many seconds: else as much time
# would be spent on looking as on delivering. The first look of a slice does not wait.
_BETWEEN_LOOKS_SECONDS: Final = 0.1
# A lane in which many messages were due at once will have more in a moment: to stay costs less than
# a workflow that is started anew.
_MANY: Final = 20
_STAY_SECONDS: Final = 1.0
_FEWEST_READ: Final = 100


# Untried events are due ten minutes before their time (`store.callbacks`), so it must be longer.
_NOT_TRIED_AGAIN_AFTER: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Lane:
    """The lane of an endpoint: whose it is, and how its events are delivered."""

    id: UUID
    account_id: str
    transport: Transport


class LaneSlice:
    """One slice: as many requests at once as allowed, each recorded as soon as it is answered."""

    def __init__(
        self,
        database: Database,
        transport: LaneTransport,
        lane: Lane,
        configuration: ConfigurationInForce,
        kinds: EventKinds,
        *,
        now: datetime,
        was_down: bool,
        was_hanging: bool,
    ) -> None:
        self._database = database
        self._transport = transport
        self._lane = lane
        self._configuration = configuration
        self._kinds = kinds
        self._began_at = now
        self._began = time.monotonic()
        probes = was_down or was_hanging
        self._at_once = 1 if probes else _AT_FIRST
        self._down_after = 1 if probes else _DOWN_AFTER
        self._hanging = self._was_hanging = was_hanging
        self._looks_in_vain = 0
        self._ready = Ready()
        self._under_way: dict[asyncio.Task[Sequence[TriedCallbacks]], Request] = {}
        self._sending: set[UUID] = set()
        self._read_up_to: datetime | None = None
        """Where the rows go on that are due; None if the last look has seen them to their end."""
        self._looked = self._look_at = self._stays_until = 0.0  # of the monotonic clock
        self._put_back_at = self._began + _LOOK_AGAIN_SECONDS
        self._delivered = 0
        self._failed = 0
        self._in_trouble = 0

    def now(self) -> datetime:
        """The caller's time, counted on."""
        return self._began_at + timedelta(seconds=time.monotonic() - self._began)

    @property
    def time_is_up(self) -> bool:
        return self.now() - self._began_at >= _SLICE

    @property
    def origin_down(self) -> bool:
        return self._in_trouble >= self._down_after

    @property
    def is_over(self) -> bool:
        """Whether this slice begins nothing more: another one does, if need be on the other queue."""
        began_to_hang = self._hanging and not self._was_hanging
        return self.origin_down or self.time_is_up or began_to_hang

    def result(self, next_at: datetime | None) -> DrainResult:
        return DrainResult(
            next_at,
            self._delivered,
            self._failed,
            failing=self.origin_down,
            hanging=self._hanging,
        )

    async def run(self, heartbeat: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Deliver until nothing is due and nothing under way, or nothing new may be begun."""
        self._look_at = 0.0
        try:
            while True:
                heartbeat()
                may_begin = not (self.is_over or stopping())
                if may_begin:
                    await self._begin_what_is_due()
                if self._under_way:
                    done, _ = await asyncio.wait(
                        self._under_way,
                        timeout=self._look_in() if may_begin else _LOOK_AGAIN_SECONDS,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    await self._record(done)
                elif may_begin and time.monotonic() < self._stays_until:
                    await asyncio.sleep(self._look_in())
                else:
                    return
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    def _look_in(self) -> float:
        """For how many seconds another look at the rows would bring nothing."""
        if self._ready or len(self._under_way) >= self._at_once:
            return _LOOK_AGAIN_SECONDS
        return min(max(0.0, self._look_at - time.monotonic()), _LOOK_AGAIN_SECONDS)

    async def _begin_what_is_due(self) -> None:
        while len(self._under_way) < self._at_once:
            if time.monotonic() >= self._looked + _LOOK_AGAIN_SECONDS:
                # What was read by then is read again: a number may have been erased since.
                self._ready, self._read_up_to = Ready(), None
            if self._ready:
                self._begin(self._ready.next_request(self._most_in_a_request))
            elif time.monotonic() < self._look_at or not await self._look():
                return

    @property
    def _most_in_a_request(self) -> int:
        """As the account prefers just now; a signal is one event."""
        if self._lane.transport is Transport.SIGNAL:
            return 1
        return self._configuration().account(self._lane.account_id).callback_events_per_request

    async def _look(self) -> bool:
        """Read what is due; whether there is anything."""
        free = self._at_once - len(self._under_way)
        limit = max(_FEWEST_READ, free * self._most_in_a_request)
        async with self._database.begin() as connection:
            found = await store.due(
                connection,
                self._lane.id,
                self.now(),
                limit=limit,
                since=self._read_up_to,
                under_way=self._sending,
            )
            bodies = await self._kinds.bodies(
                connection,
                (callback.event for callbacks in found for callback in callbacks),
                self._lane.transport,
            )
        for callbacks in found:
            self._ready.add([Sendable(each, bodies.get(each.event.id)) for each in callbacks])
        self._looked = time.monotonic()
        if len(found) >= _MANY:
            self._stays_until = self._looked + _STAY_SECONDS
        if len(found) == limit:
            self._read_up_to, self._look_at = found[-1][0].next_at, self._looked
        else:
            await self._put_back_sometimes()
            self._looks_in_vain = 0 if found else self._looks_in_vain + 1
            stays = self._looked < self._stays_until
            wait = _BETWEEN_LOOKS_SECONDS if stays else self._look_again_after()
            self._read_up_to, self._look_at = None, self._looked + wait
        return bool(found)

    def _look_again_after(self) -> float:
        longer = _LOOK_AGAIN_SECONDS * (1 << min(max(0, self._looks_in_vain - 1), 10))
        return min(longer, _LOOK_AT_LEAST_SECONDS)

    async def _put_back_sometimes(self) -> None:
        """In a lane that is never left, what waits behind others has to make room all the same."""
        if self._looked >= self._put_back_at:
            self._put_back_at = self._looked + _LOOK_AGAIN_SECONDS
            async with self._database.begin() as connection:
                store.put_back(connection, self._lane.id, self.now())

    def _begin(self, request: Request) -> None:
        self._sending.update(each.event.id for each in request.events)
        self._under_way[asyncio.create_task(self._deliver(request))] = request

    async def _deliver(self, request: Request) -> Sequence[TriedCallbacks]:
        if request.body is None:
            for kind in sorted({each.event.kind for each in request.events}):
                _log.error("event_kind_unknown", lane_id=str(self._lane.id), event_kind=kind)
            return self._not_tried(request, Trouble.KIND_UNKNOWN)
        response = await self._transport.send(request, request.body, self.now())
        if response is None:
            return self._not_tried(request, Trouble.SECRET_UNUSABLE)
        tried = request.by_tries()
        at = self.now()
        self._count(response, sum(map(len, tried.values())))
        judged = (
            (ids, tries, self._transport.decide_retry(response, tries, at))
            for tries, ids in tried.items()
        )
        return [
            TriedCallbacks(
                ids, tries, becomes.state, becomes.next_at, at, response.status, response.trouble
            )
            for ids, tries, becomes in judged
        ]

    def _not_tried(self, request: Request, trouble: Trouble) -> Sequence[TriedCallbacks]:
        """Postpone events that cannot be sent; the others of the lane go on."""
        tried = request.by_tries()
        events = sum(map(len, tried.values()))
        self._failed += events
        metrics.callbacks_not_tried(trouble, events)
        at = self.now()
        next_at = at + _NOT_TRIED_AGAIN_AFTER
        return [
            TriedCallbacks(ids, tries, CallbackState.PENDING, next_at, at, None, trouble)
            for tries, ids in tried.items()
        ]

    def _count(self, response: Response, events: int) -> None:
        if response.delivered:
            self._delivered += events
        else:
            self._failed += events
        self._looks_in_vain = 0
        self._hanging = response.trouble is Trouble.TIMEOUT or (
            response.concerns_origin and response.seconds >= _HANGS_FROM_SECONDS
        )
        if response.concerns_origin:
            self._in_trouble += 1
        else:
            self._in_trouble = 0
            self._at_once, self._down_after = AT_ONCE, _DOWN_AFTER

    async def _record(self, done: Collection[asyncio.Task[Sequence[TriedCallbacks]]]) -> None:
        if not done:
            return
        tried = [fate for task in done for fate in task.result()]
        async with self._database.begin() as connection:
            store.record(connection, tried)
        waiting = {
            callback
            for fate in tried
            if fate.state is CallbackState.PENDING
            for callback in fate.ids
        }
        for task in done:
            request = self._under_way.pop(task)
            self._sending.difference_update(each.event.id for each in request.events)
            for subject in request.subjects:
                if subject.rest and waiting.isdisjoint(
                    each.due.event.id for each in subject.events
                ):
                    self._ready.add(subject.rest)
        self._look_at = min(self._look_at, self._looked + _BETWEEN_LOOKS_SECONDS)

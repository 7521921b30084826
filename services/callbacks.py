"""Callbacks: woken when there is something to tell, delivered lane by lane, listed, replayed."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, Self
from uuid import UUID

from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from connectors.webhooks import Webhooks
from domain.callbacks import (
    Answer,
    CallbackState,
    InvalidSecret,
    body_of_many,
    judge,
    sign,
    signed_headers,
    webhook_id_of_many,
)
from domain.configuration import Configuration
from domain.values import value
from settings.secrets import resolve_secret
from store import callbacks as store
from store.callbacks import DueCallback, TriedCallbacks, WokenLane
from store.database import DATABASE_ERRORS, Database, Row
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.callbacks import (
    CALLBACKS,
    CallbackLane,
    CallbackWorkflow,
    DrainResult,
    callback_workflow_id,
)

_log = get_logger(__name__)

ConfigurationInForce = Callable[[], Configuration]


# --- who delivers ------------------------------------------------------------------------------


class LaneStarter(Protocol):
    """Sees to it that somebody drains a lane."""

    async def start(self, lane_id: UUID, account_id: str) -> bool:
        """Start or wake the lane's workflow; False, and no error, if Temporal is away."""


_RPC_TIMEOUT: Final = timedelta(seconds=3)
_ACCOUNT: Final = SearchAttributeKey.for_keyword("Account")


class TemporalLanes:
    """Starts the workflows of lanes, or signals those that run (signal-with-start).

    Args:
        connected: gives the client, or None while Temporal is away.
    """

    def __init__(self, connected: Callable[[], Awaitable[Client | None]]) -> None:
        self._connected = connected

    async def start(self, lane_id: UUID, account_id: str) -> bool:
        client = await self._connected()
        if client is None:
            return False
        workflow_id = callback_workflow_id(str(lane_id))
        try:
            await client.start_workflow(
                CallbackWorkflow.run,
                CallbackLane(str(lane_id)),
                id=workflow_id,
                task_queue=CALLBACKS,
                start_signal="woken",
                static_summary=f"Callbacks of {account_id}",
                search_attributes=TypedSearchAttributes(
                    [SearchAttributePair(_ACCOUNT, account_id)]
                ),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except (RPCError, RuntimeError) as error:
            status = error.status.name if isinstance(error, RPCError) else type(error).__name__
            _log.warning("lane_not_started", workflow_id=workflow_id, code=status)
            return False
        return True


# --- the use cases -----------------------------------------------------------------------------

OVERDUE: Final = timedelta(seconds=15)
"""How long a callback may be due before the sweep sees to its lane."""

_ROUSE_AGAIN: Final = timedelta(minutes=1)
_STARTS_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class CallbackPage:
    """Some callbacks, newest first; `next_before` continues the list, unless it ends here."""

    items: Sequence[Row]
    next_before: UUID | None


class Callbacks:
    """What is done with callbacks, besides delivering them.

    Args:
        database: where the outbox is.
        lanes: who delivers.
        configuration: the one that is in force now.
    """

    def __init__(
        self, database: Database, lanes: LaneStarter, configuration: ConfigurationInForce
    ) -> None:
        self._database = database
        self._lanes = lanes
        self._configuration = configuration
        self._roused: dict[UUID, datetime] = {}

    async def wake(self, lane_ids: Collection[UUID]) -> bool:
        """See to it that lanes are drained, after the commit of what was added to them.

        Whether any was asleep, as far as is known. Never raises: what cannot be woken now is found by
        the sweep.
        """
        if not lane_ids:
            return False
        try:
            async with self._database.begin() as connection:
                woken = await store.wake(connection, lane_ids)
        except DATABASE_ERRORS as error:
            _log.warning("lanes_not_woken", error_type=type(error).__name__)
            return True
        await self._start(woken)
        return bool(woken)

    async def sweep(self, now: datetime) -> int:
        """Start the workflows of lanes that have been due for a while; how many there were.

        That covers what a crash or Temporal's absence left: a lane marked as looked at whose
        workflow was never started, or was lost with Temporal's database. A lane that is only slow
        looks the same, so each is roused once a minute at most.
        """
        async with self._database.begin() as connection:
            overdue = await store.overdue(connection, now, by=OVERDUE)
        self._roused = {lane: at for lane, at in self._roused.items() if now - at < _ROUSE_AGAIN}
        late = [lane for lane in overdue if lane.id not in self._roused]
        self._roused.update(dict.fromkeys(await self._start(late), now))
        return len(late)

    async def _start(self, lanes: Sequence[WokenLane]) -> Sequence[UUID]:
        """Start workflows; the lanes that have one now."""
        started: list[UUID] = []
        for first in range(0, len(lanes), _STARTS_AT_ONCE):
            some = lanes[first : first + _STARTS_AT_ONCE]
            done = await asyncio.gather(
                *(self._lanes.start(lane.id, lane.account_id) for lane in some)
            )
            started += [
                lane.id for lane, has_started in zip(some, done, strict=True) if has_started
            ]
            if not all(done):
                break  # Temporal is away: the rest would only wait for the same answer
        return started

    async def page(
        self,
        account_id: str,
        environment: str,
        *,
        state: CallbackState | None = None,
        message_id: UUID | None = None,
        before: UUID | None = None,
        limit: int = 50,
    ) -> CallbackPage:
        """An account's callbacks, newest first, from the one after `before`."""
        async with self._database.begin() as connection:
            found = await store.page(
                connection,
                account_id=account_id,
                environment=environment,
                state=state,
                message_id=message_id,
                before=before,
                limit=limit + 1,
            )
        items = found[:limit]
        return CallbackPage(items, items[-1]["id"] if len(found) > limit else None)

    async def replay(
        self, callback_id: UUID, account_id: str, environment: str, *, now: datetime
    ) -> Row | None:
        """Deliver a callback once more, whatever became of it; None if the account has none such."""
        async with self._database.begin() as connection:
            replayed = await store.replay(
                connection, callback_id, account_id=account_id, environment=environment, at=now
            )
        if replayed is not None:
            await self.wake([replayed["lane_id"]])
        return replayed

    async def replay_many(
        self,
        account_id: str,
        environment: str,
        *,
        state: CallbackState,
        limit: int,
        now: datetime,
    ) -> int:
        """Deliver callbacks once more, the oldest in this state first; how many there were."""
        async with self._database.begin() as connection:
            lanes = await store.replay_many(
                connection,
                account_id=account_id,
                environment=environment,
                state=state,
                limit=limit,
                at=now,
            )
        await self.wake(set(lanes))
        return len(lanes)

    async def secret(self, account_id: str) -> str | None:
        """What signs an account's callbacks: the configured secret, else the one it was given.

        Raises:
            SecretMissing: the configuration's reference leads nowhere.
        """
        return await _secret(self._database, self._configuration(), account_id)


async def _secret(database: Database, configuration: Configuration, account_id: str) -> str | None:
    reference = configuration.account(account_id).callback_secret
    if reference is not None:
        return resolve_secret(reference).get_secret_value()
    async with database.begin() as connection:
        return await store.secret(connection, account_id)


# --- delivering --------------------------------------------------------------------------------

AT_ONCE: Final = 16
"""Requests under way in one lane, no two of them about the same message."""

# So many answers in a row that speak of the whole origin mean that it is down: the rest waits.
_DOWN_AFTER: Final = 16
_SLICE: Final = timedelta(seconds=20)
_LOOK_AGAIN_SECONDS: Final = 1.0
# Where the last look has found all there was, another one waits for so long, or as much is spent on
# looking as on telling. The first look of a slice waits for nothing.
_BETWEEN_LOOKS_SECONDS: Final = 0.1
# A lane in which many messages were due at once will have more in a moment: to stay costs less than
# a workflow that is started anew.
_MANY: Final = 20
_STAY_SECONDS: Final = 1.0
_FEWEST_READ: Final = 100
# A slice must end in good time, whatever timeout is configured.
_LONGEST_REQUEST: Final = timedelta(minutes=2)


class UnusableSecret(Exception):
    """An account's callbacks cannot be signed; nothing is sent until its secret is mended."""

    loggable = True

    def __init__(self, account_id: str) -> None:
        super().__init__(
            f"the callback_secret of account {account_id} is no signing secret: it is "
            '"whsec_" and base64 of 24 to 64 bytes'
        )


class LaneDrain:
    """Delivers the callbacks of a lane, a slice of time at a time.

    Delivery is at least once: what was answered and not yet recorded when a process dies is sent
    again, under the same webhook id.

    Args:
        database: where the outbox is; no connection is held during requests.
        webhooks: how requests are made.
        configuration: the one that is in force now.
    """

    def __init__(
        self, database: Database, webhooks: Webhooks, configuration: ConfigurationInForce
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._configuration = configuration

    async def drain(
        self,
        lane_id: UUID,
        *,
        now: datetime,
        beat: Callable[[], None],
        stopping: Callable[[], bool],
        was_down: bool = False,
    ) -> DrainResult:
        """Deliver what is due in a lane until none is left, or for some twenty seconds.

        Args:
            lane_id: which lane; only one call at a time should drain it.
            was_down: whether the slice before found the origin down; then a single request has to
                be answered before more are made.
            now: the present time, from which the time of this slice is counted on.
            beat: called at least every second.
            stopping: whether this process ends, so that nothing new should be begun.

        Raises:
            SecretMissing: the account's secret is referred to and not there.
            UnusableSecret: it is there, and no secret.
        """
        async with self._database.begin() as connection:
            account_id = await store.take(connection, lane_id)
        if account_id is None:
            return DrainResult(next_at=None)
        configuration = self._configuration()
        secret = await _secret(self._database, configuration, account_id) or ""
        try:
            sign(secret, "", 0, b"")
        except InvalidSecret:
            raise UnusableSecret(account_id) from None
        delivery = _Delivery(
            self._database,
            self._webhooks,
            _Lane(lane_id, account_id, secret),
            self._configuration,
            now=now,
            was_down=was_down,
        )
        while True:
            await delivery.run(beat, stopping)
            if delivery.origin_down or delivery.time_is_up or stopping():
                return delivery.result(delivery.now())
            next_at = await self._leave(lane_id, delivery.now())
            if next_at is None or next_at > delivery.now():
                return delivery.result(next_at)

    async def _leave(self, lane_id: UUID, now: datetime) -> datetime | None:
        """Stop looking at a lane; when its next callback is due.

        First the mark goes, then the rows are looked at, in a transaction of its own. Whoever adds
        a row commits it before asking for the mark. So either the row was committed before this
        look, which finds it, or the mark was gone before they asked, and they wake the lane. In a
        single transaction both could miss the other.
        """
        async with self._database.begin() as connection:
            store.put_back(connection, lane_id, now)
            store.leave(connection, lane_id)
        async with self._database.begin() as connection:
            next_at = await store.next_due(connection, lane_id, now)
            if next_at is not None and next_at <= now:
                await store.take(connection, lane_id)
        return next_at


@dataclass(frozen=True, slots=True)
class _Lane:
    id: UUID
    account_id: str
    secret: str


@value
class _Told:
    """What a request tells of one message, and what waits until that is recorded."""

    callbacks: Sequence[DueCallback]
    rest: Sequence[DueCallback]


@dataclass(frozen=True, slots=True)
class _Request:
    """Callbacks that travel together, all to one URL."""

    url: str
    messages: Sequence[_Told]
    webhook_id: str
    body: bytes

    @property
    def callbacks(self) -> Iterator[DueCallback]:
        return (callback for told in self.messages for callback in told.callbacks)

    @classmethod
    def of(cls, url: str, messages: Sequence[_Told], *, as_list: bool) -> Self:
        events = [callback.event for told in messages for callback in told.callbacks]
        if as_list:
            return cls(url, messages, webhook_id_of_many(events), body_of_many(events))
        (event,) = events
        return cls(url, messages, event.webhook_id, event.body())


class _Ready:
    """What was read and is to be sent: message by message, each URL apart, in turns."""

    def __init__(self) -> None:
        self._by_url: dict[str, deque[Sequence[DueCallback]]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_url)

    def add(self, callbacks: Sequence[DueCallback]) -> None:
        self._by_url.setdefault(callbacks[0].url, deque()).append(callbacks)

    def next_request(self, most: int) -> _Request:
        """Take what one request carries: `most` callbacks, or fewer if no more are ready."""
        url = next(iter(self._by_url))
        waiting = self._by_url.pop(url)
        messages: list[_Told] = []
        room = most
        while waiting and room:
            callbacks = waiting.popleft()
            messages.append(_Told(callbacks[:room], callbacks[room:]))
            room -= len(messages[-1].callbacks)
        if waiting:
            self._by_url[url] = waiting  # behind the others
        return _Request.of(url, messages, as_list=most > 1)


class _Delivery:
    """One slice: as many requests at once as allowed, each recorded as soon as it is answered."""

    def __init__(
        self,
        database: Database,
        webhooks: Webhooks,
        lane: _Lane,
        configuration: ConfigurationInForce,
        *,
        now: datetime,
        was_down: bool,
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._lane = lane
        self._configuration = configuration
        self._began_at = now
        self._began = time.monotonic()
        self._at_once = 1 if was_down else AT_ONCE
        self._down_after = 1 if was_down else _DOWN_AFTER
        self._ready = _Ready()
        self._under_way: dict[asyncio.Task[Sequence[TriedCallbacks]], _Request] = {}
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

    def result(self, next_at: datetime | None) -> DrainResult:
        return DrainResult(next_at, self._delivered, self._failed, failing=self.origin_down)

    async def run(self, beat: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Deliver until nothing is due and nothing under way, or nothing new may be begun."""
        self._look_at = 0.0
        try:
            while True:
                beat()
                may_begin = not (self.origin_down or self.time_is_up or stopping())
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
                self._ready, self._read_up_to = _Ready(), None
            if self._ready:
                self._begin(self._ready.next_request(self._most_in_a_request))
            elif time.monotonic() < self._look_at or not await self._look():
                return

    @property
    def _most_in_a_request(self) -> int:
        """As the account prefers just now."""
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
        for callbacks in found:
            self._ready.add(callbacks)
        self._looked = time.monotonic()
        if len(found) >= _MANY:
            self._stays_until = self._looked + _STAY_SECONDS
        if len(found) == limit:
            self._read_up_to, self._look_at = found[-1][0].next_at, self._looked
        else:
            await self._put_back_sometimes()
            stays = self._looked < self._stays_until
            wait = _BETWEEN_LOOKS_SECONDS if stays else _LOOK_AGAIN_SECONDS
            self._read_up_to, self._look_at = None, self._looked + wait
        return bool(found)

    async def _put_back_sometimes(self) -> None:
        """In a lane that is never left, what waits behind others has to make room all the same."""
        if self._looked >= self._put_back_at:
            self._put_back_at = self._looked + _LOOK_AGAIN_SECONDS
            async with self._database.begin() as connection:
                store.put_back(connection, self._lane.id, self.now())

    def _begin(self, request: _Request) -> None:
        self._sending.update(callback.event.id for callback in request.callbacks)
        self._under_way[asyncio.create_task(self._deliver(request))] = request

    async def _deliver(self, request: _Request) -> Sequence[TriedCallbacks]:
        policy = self._configuration().callbacks
        answer = await self._webhooks.post(
            request.url,
            headers=signed_headers(self._lane.secret, request.webhook_id, self.now(), request.body),
            body=request.body,
            within=min(policy.timeout, _LONGEST_REQUEST),
        )
        at = self.now()
        tried: defaultdict[int, list[UUID]] = defaultdict(list)
        for callback in request.callbacks:
            tried[callback.tries].append(callback.event.id)
        events = sum(map(len, tried.values()))
        self._count(answer, events)
        outcome = answer.trouble or "delivered"
        metrics.callbacks_tried(outcome=outcome, events=events, seconds=answer.seconds)
        _log.info(
            "callbacks_tried",
            callback_id=request.webhook_id,
            count=events,
            outcome=outcome,
            status=answer.status,
            duration_ms=round(answer.seconds * 1000),
        )
        judged = (
            (ids, tries, judge(answer, tries, at, policy.retry_delays))
            for tries, ids in tried.items()
        )
        return [
            TriedCallbacks(
                ids, tries, becomes.state, becomes.next_at, at, answer.status, answer.trouble
            )
            for ids, tries, becomes in judged
        ]

    def _count(self, answer: Answer, events: int) -> None:
        if answer.delivered:
            self._delivered += events
        else:
            self._failed += events
        if answer.concerns_origin:
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
            self._sending.difference_update(callback.event.id for callback in request.callbacks)
            for told in request.messages:
                if told.rest and waiting.isdisjoint(c.event.id for c in told.callbacks):
                    self._ready.add(told.rest)
        self._look_at = min(self._look_at, self._looked + _BETWEEN_LOOKS_SECONDS)

"""Callbacks: woken when there is something to tell, delivered lane by lane, listed, replayed."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from connectors.webhooks import Webhooks
from domain.callbacks import (
    Answer,
    CallbackState,
    InvalidSecret,
    judge,
    sign,
    signed_headers,
)
from domain.configuration import CallbackPolicy, Configuration
from settings.secrets import resolve_secret
from store import callbacks as store
from store.callbacks import DueCallback, TriedCallback, WokenLane
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

    async def wake(self, lane_ids: Collection[UUID]) -> None:
        """See to it that lanes are drained, after the commit of what was added to them.

        Never raises: what cannot be woken now is found by the sweep.
        """
        if not lane_ids:
            return
        try:
            async with self._database.begin() as connection:
                woken = await store.wake(connection, lane_ids)
        except DATABASE_ERRORS as error:
            _log.warning("lanes_not_woken", error_type=type(error).__name__)
            return
        await self._start(woken)

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
"""Requests under way in one lane, each for another message."""

# So many answers in a row that speak of the whole origin mean that it is down: the rest waits.
_DOWN_AFTER: Final = 16
_SLICE: Final = timedelta(seconds=20)
_LOOK_AGAIN_SECONDS: Final = 1.0
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
    ) -> DrainResult:
        """Deliver what is due in a lane until none is left, or for some twenty seconds.

        Args:
            lane_id: which lane; only one call at a time should drain it.
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
            self._database, self._webhooks, lane_id, secret, configuration.callbacks, now
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
            store.leave(connection, lane_id)
        async with self._database.begin() as connection:
            next_at = await store.next_due(connection, lane_id, now)
            if next_at is not None and next_at <= now:
                await store.take(connection, lane_id)
        return next_at


class _Delivery:
    """One slice: as many requests at once as allowed, each recorded as soon as it is answered."""

    def __init__(
        self,
        database: Database,
        webhooks: Webhooks,
        lane_id: UUID,
        secret: str,
        policy: CallbackPolicy,
        now: datetime,
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._lane_id = lane_id
        self._secret = secret
        self._policy = policy
        self._began_at = now
        self._began = time.monotonic()
        self._under_way: dict[asyncio.Task[TriedCallback], UUID] = {}
        self._ready: deque[DueCallback] = deque()
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
        return self._in_trouble >= _DOWN_AFTER

    def result(self, next_at: datetime | None) -> DrainResult:
        return DrainResult(next_at, self._delivered, self._failed, failing=self.origin_down)

    async def run(self, beat: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Deliver until nothing is due and nothing under way, or nothing new may be begun."""
        try:
            while True:
                beat()
                if not (self.origin_down or self.time_is_up or stopping()):
                    await self._begin_what_is_due()
                if not self._under_way:
                    return
                done, _ = await asyncio.wait(
                    self._under_way,
                    # Now and then a look at the rows: a slow answer holds up nobody else.
                    timeout=_LOOK_AGAIN_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                await self._record(done)
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _begin_what_is_due(self) -> None:
        if not self._ready and len(self._under_way) < AT_ONCE:
            async with self._database.begin() as connection:
                self._ready = deque(
                    await store.due(
                        connection,
                        self._lane_id,
                        self.now(),
                        limit=2 * AT_ONCE,
                        under_way=self._under_way.values(),
                    )
                )
        while self._ready and len(self._under_way) < AT_ONCE:
            callback = self._ready.popleft()
            self._under_way[asyncio.create_task(self._deliver(callback))] = callback.event.id

    async def _deliver(self, callback: DueCallback) -> TriedCallback:
        event = callback.event
        body = event.body()
        answer = await self._webhooks.post(
            callback.url,
            headers=signed_headers(self._secret, event.webhook_id, self.now(), body),
            body=body,
            within=min(self._policy.timeout, _LONGEST_REQUEST),
        )
        self._count(answer)
        at = self.now()
        judgement = judge(answer, callback.tries, at, self._policy.retry_delays)
        metrics.callback_tried(outcome=answer.trouble or "delivered", seconds=answer.seconds)
        _log.info(
            "callback_tried",
            callback_id=event.webhook_id,
            outcome=answer.trouble or "delivered",
            status=answer.status,
            state=judgement.state,
            duration_ms=round(answer.seconds * 1000),
        )
        return TriedCallback(
            id=event.id,
            tries_before=callback.tries,
            state=judgement.state,
            tries=judgement.tries,
            next_at=judgement.next_at,
            at=at,
            status=answer.status,
            trouble=answer.trouble,
        )

    def _count(self, answer: Answer) -> None:
        if answer.delivered:
            self._delivered += 1
        else:
            self._failed += 1
        self._in_trouble = self._in_trouble + 1 if answer.concerns_origin else 0

    async def _record(self, done: Collection[asyncio.Task[TriedCallback]]) -> None:
        if not done:
            return
        tried = [task.result() for task in done]
        async with self._database.begin() as connection:
            await store.record(connection, tried)
        for task in done:
            del self._under_way[task]

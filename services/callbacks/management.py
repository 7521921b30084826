"""What is done with callbacks besides delivering them: lanes woken, callbacks listed and replayed."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from domain.callbacks.events import CallbackState
from domain.configuration import Environment
from services.callbacks.lanes import LaneStarter
from services.callbacks.secrets import ConfigurationInForce, configured_reference
from services.reads import listing
from store import callbacks as store
from store.callbacks import StoredCallback, WokenLane
from store.database import DATABASE_ERRORS, Database
from telemetry.logs import get_logger

_NARROWS = "give `message_id`, or leave out `state`"

_log = get_logger(__name__)


OVERDUE: Final = timedelta(seconds=15)
"""How long a callback may be due before the sweep sees to its lane."""

_ROUSE_AGAIN: Final = timedelta(minutes=1)
_STARTS_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class CallbackPage:
    """Some callbacks, newest first; `next_before` continues the list, unless it ends here."""

    items: Sequence[StoredCallback]
    next_before: UUID | None


class Callbacks:
    """What is done with callbacks, besides delivering them.

    Args:
        database: where the outbox is.
        lanes: who delivers.
        configuration: the one that is in force now.
        reads: the pool for lists; without it they use that of `database`.
    """

    def __init__(
        self,
        database: Database,
        lanes: LaneStarter,
        configuration: ConfigurationInForce,
        reads: Database | None = None,
    ) -> None:
        self._database = database
        self._reads = reads or database
        self._lanes = lanes
        self._configuration = configuration
        self._signalled: dict[UUID, datetime] = {}

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
        looks the same, so each is signalled once a minute at most.
        """
        async with self._database.begin() as connection:
            overdue = await store.overdue(connection, now, by=OVERDUE)
        self._signalled = {
            lane: at for lane, at in self._signalled.items() if now - at < _ROUSE_AGAIN
        }
        late = [lane for lane in overdue if lane.id not in self._signalled]
        self._signalled.update(dict.fromkeys(await self._start(late), now))
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
                break  # Temporal is away: the rest would only wait for the same response
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
        """An account's callbacks, newest first, from the one after `before`.

        Raises:
            QueryTooWide: too many callbacks would have to be looked at.
        """
        async with listing(self._reads, narrows=_NARROWS) as connection:
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
        return CallbackPage(items, items[-1].id if len(found) > limit else None)

    async def replay(
        self, callback_id: UUID, account_id: str, environment: str, *, now: datetime
    ) -> StoredCallback | None:
        """Deliver a callback once more, whatever became of it; None if the account has none such."""
        async with self._database.begin() as connection:
            replayed = await store.replay(
                connection, callback_id, account_id=account_id, environment=environment, at=now
            )
        if replayed is not None:
            await self.wake([replayed.lane_id])
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

    async def secret(self, account_id: str, environment: Environment) -> str | None:
        """The generated secret that signs an account's callbacks in an environment.

        Raises:
            SecretConfigured: the configuration refers to another one, which is never shown.
        """
        if configured_reference(self._configuration(), account_id, environment) is not None:
            raise SecretConfigured
        async with self._database.begin() as connection:
            return await store.secret(connection, account_id, environment)


class SecretConfigured(Exception):
    """The operator has set the account's secret in the configuration; it is not shown."""

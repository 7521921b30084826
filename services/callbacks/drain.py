"""Delivers the events of a lane, one slice after the other."""

from collections.abc import Callable
from datetime import datetime
from typing import assert_never
from uuid import UUID

from connectors.webhooks import Webhooks
from domain.outbox import Transport
from domain.secrets import NO_SECRETS, AllowedSecrets
from services.callbacks.secrets import CallbackSecrets, ConfigurationInForce
from services.callbacks.slice import Lane, LaneSlice
from services.callbacks.transports import LaneTransport, Signals, SignalTransport, WebhookTransport
from services.event_kinds import EVENT_KINDS, EventKinds
from store import callbacks as store
from store.database import Database
from workflows.callbacks import DrainResult


class LaneDrain:
    """Delivers the events of a lane, a slice of time at a time.

    Delivery is at least once: what was answered and not yet recorded when a process dies is sent
    again, under the same webhook id.

    Args:
        database: where the outbox is; no connection is held during requests.
        webhooks: how requests are made.
        configuration: the one that is in force now.
        signals: how workflows are signalled.
        kinds: how bodies are made.
        allowed_secrets: which secrets it may refer to; none, if not given.
    """

    def __init__(
        self,
        database: Database,
        webhooks: Webhooks,
        configuration: ConfigurationInForce,
        signals: Signals,
        *,
        kinds: EventKinds = EVENT_KINDS,
        allowed_secrets: AllowedSecrets = NO_SECRETS,
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._configuration = configuration
        self._signals = signals
        self._kinds = kinds
        self._secrets = CallbackSecrets(database, configuration, allowed_secrets)

    async def drain(
        self,
        lane_id: UUID,
        *,
        now: datetime,
        heartbeat: Callable[[], None],
        stopping: Callable[[], bool],
        was_down: bool = False,
        was_hanging: bool = False,
    ) -> DrainResult:
        """Deliver what is due in a lane until none is left, or for some twenty seconds.

        Args:
            lane_id: which lane; only one call at a time should drain it.
            was_down: whether the slice before found the origin down; then a single request has to
                be answered before more are made.
            was_hanging: whether the last request before hung; likewise.
            now: the present time, from which the time of this slice is counted on.
            heartbeat: called at least every second.
            stopping: whether this process ends, so that nothing new should be begun.
        """
        async with self._database.begin() as connection:
            taken = await store.take(connection, lane_id)
        if taken is None:
            return DrainResult(next_at=None)
        transport: LaneTransport
        match taken.transport:
            case Transport.WEBHOOK:
                secrets = await self._secrets.usable(taken.account_id)
                transport = WebhookTransport(self._webhooks, self._configuration, secrets)
            case Transport.SIGNAL:
                transport = SignalTransport(self._signals)
            case _:
                assert_never(taken.transport)
        delivery = LaneSlice(
            self._database,
            transport,
            Lane(lane_id, taken.account_id, taken.transport),
            self._configuration,
            self._kinds,
            now=now,
            was_down=was_down,
            was_hanging=was_hanging,
        )
        while True:
            await delivery.run(heartbeat, stopping)
            if delivery.is_over or stopping():
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

"""Accepting a message: the one path for every way in."""

import asyncio
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks import origin_of
from domain.ids import IdPrefix, public_id
from services.asked import (
    KEY_LIFE,
    Accepted,
    Addressed,
    Asked,
    Caller,
    Checks,
    SendCommand,
    Shared,
    answer_again,
    answered_before,
)
from services.configuration import Configurations
from services.delivery import Delivery
from services.groups import Groups
from services.money import Purse
from services.orchestration import Orchestration
from services.recipients import RecipientHash
from services.starts import START_GRACE, StartBudget, leave_to_the_reconciler
from store import callbacks as callback_store
from store import events, idempotency, messages
from store.database import Connection, Database
from store.messages import NewMessage
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.ports.send import Step, send_workflow_id

_log = get_logger(__name__)

_ANSWER_WITHIN: Final = 0.02
"""Seconds for which an answer waits for a Temporal that is slow: the message is committed."""


class Accept:
    """Validates, commits, starts the runner: in that order, so that a 202 is never taken back."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        orchestration: Orchestration,
        delivery: Delivery,
        checks: Checks,
        groups: Groups,
        budget: StartBudget,
        recipient_hash: RecipientHash,
        purse: Purse,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._orchestration = orchestration
        self._delivery = delivery
        self._checks = checks
        self._groups = groups
        self._budget = budget
        self._recipient_hash = recipient_hash
        self._purse = purse
        self._starting: set[asyncio.Task[None]] = set()

    async def __call__(
        self, caller: Caller, command: SendCommand, *, idempotency_key: str | None = None
    ) -> Accepted:
        """Accept a message: with a runner of its own, or in a group if they come too fast.

        Raises:
            Refused: with every fault of the command; nothing was stored.
            KeyInFlight, KeyReused: about the idempotency key; nothing was stored.
        """
        now = datetime.now(UTC)
        asked = self._checks.asked(caller, command, now, idempotency_key=idempotency_key)
        if asked.key is None:
            asked.checked()
        if not await self._budget.take():
            return await self._groups.join(asked)
        message_id = uuid7()
        async with self._database.begin() as connection:
            if asked.key is not None:
                known = await answered_before(connection, {asked.key: asked.digest}, now)
                if asked.key in known:
                    return Accepted.again(answer_again(known[asked.key]))
            shared, addressed = asked.checked()
            accepted = asked.accepted_as(message_id, addressed)
            first = await self._write(connection, asked, shared, addressed, message_id, now)
            if asked.key is not None:
                idempotency.keep(
                    connection,
                    {asked.key: (asked.digest, accepted.to_json())},
                    at=now,
                    expires_at=now + KEY_LIFE,
                )
        metrics.message_accepted(
            mode=command.mode,
            environment=caller.environment.value,
            country=addressed.number.country,
            runner="single",
        )
        _log.info("message_accepted", message_id=accepted.message_id, mode=command.mode)
        task = asyncio.create_task(self._start(asked, addressed, message_id, first, now))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        await asyncio.wait({task}, timeout=_ANSWER_WITHIN)
        return accepted

    async def drained(self) -> None:
        """Wait until every runner was started."""
        while self._starting:
            await asyncio.wait(self._starting)

    async def _start(
        self,
        asked: Asked,
        addressed: Addressed,
        message_id: UUID,
        first: Step | None,
        now: datetime,
    ) -> None:
        started = await self._orchestration.start_send(
            message_id,
            1,
            mode=asked.command.mode.value,
            country=addressed.number.country,
            account=asked.caller.account_id,
            first=first,
        )
        if not started:
            await leave_to_the_reconciler(self._database, now, message=message_id)

    async def _write(
        self,
        connection: Connection,
        asked: Asked,
        shared: Shared,
        addressed: Addressed,
        message_id: UUID,
        now: datetime,
    ) -> Step | None:
        """Write the message, that it was accepted, and what is done first, if that is decided."""
        caller = asked.caller
        message = await self._to_store(connection, asked, shared, addressed, message_id, now)
        await self._purse.reserve(
            connection, caller.account_id, message_id, addressed.text.segments
        )
        messages.insert(connection, message)
        events.append(
            connection,
            message_id,
            "accepted",
            actor=caller.key_id,
            at=now,
            status="scheduled" if shared.scheduled_at else "queued",
            detail={
                "encoding": message.encoding,
                "segments": message.segments,
                "configuration": self._configurations.version,
            },
        )
        return await self._delivery.first_step(connection, message, now)

    async def _to_store(
        self,
        connection: Connection,
        asked: Asked,
        shared: Shared,
        addressed: Addressed,
        message_id: UUID,
        now: datetime,
    ) -> NewMessage:
        number, caller = addressed.number, asked.caller
        recipient_id = await messages.recipient(
            connection,
            caller.account_id,
            number.e164,
            self._recipient_hash.of(number.e164),
            self._recipient_hash.version,
            number.country,
        )
        lane = None
        if shared.callback_url is not None:
            lane = await callback_store.lane(
                connection, caller.account_id, origin_of(shared.callback_url)
            )
        return NewMessage(
            id=message_id,
            account_id=caller.account_id,
            environment=caller.environment.value,
            mode=shared.mode.value,
            priority=shared.priority.value,
            sender=shared.sender.value,
            recipient_id=recipient_id,
            country=number.country,
            network="unknown",
            body=addressed.text.text,
            encoding=addressed.text.encoding.value,
            segments=addressed.text.segments,
            accepted_at=now,
            scheduled_at=shared.scheduled_at,
            validity=shared.validity,
            valid_until=(shared.scheduled_at or now) + shared.validity,
            owner=send_workflow_id(public_id(IdPrefix.MESSAGE, message_id)),
            check_by=now + START_GRACE,
            config_version=self._configurations.version,
            callback_url=shared.callback_url,
            callback_lane_id=lane,
            callback_final_only=shared.callback_final_only,
            traceparent=asked.traceparent,
            metadata=asked.command.metadata,
        )

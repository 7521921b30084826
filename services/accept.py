"""Accepting a message: the one path for every way in."""

import asyncio
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from domain import deadlines
from domain.ids import IdPrefix, public_id
from domain.modes import Priority
from services.billing import Billing
from services.configuration import Configurations
from services.decisions import MessageDecisions
from services.grouped_sends import GroupedSends
from services.recipients import RecipientHash
from services.submission import (
    KEY_LIFE,
    Accepted,
    Caller,
    MessageOptions,
    SendCommand,
    Submission,
    SubmissionValidator,
    ValidatedRecipient,
    callback_lane,
    earlier_responses,
    repeat_response,
)
from services.workflow_client import WorkflowClient
from services.workflow_starts import WorkflowStartBudget, schedule_reconcile_now
from store import callbacks, events, idempotency, messages
from store.database import Connection, Database
from store.messages import NewMessage
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.ports.send import Step, send_workflow_id

_log = get_logger(__name__)

_ANSWER_WITHIN: Final = 0.02
"""Seconds for which a response waits for a Temporal that is slow: the message is committed."""


class Accept:
    """Validates, commits, starts the runner: in that order, so that a 202 is never taken back."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        workflow_client: WorkflowClient,
        decisions: MessageDecisions,
        checks: SubmissionValidator,
        groups: GroupedSends,
        budget: WorkflowStartBudget,
        recipient_hash: RecipientHash,
        billing: Billing,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._workflow_client = workflow_client
        self._decisions = decisions
        self._checks = checks
        self._groups = groups
        self._budget = budget
        self._recipient_hash = recipient_hash
        self._billing = billing
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
        submission = self._checks.submission(caller, command, now, idempotency_key=idempotency_key)
        if submission.key is None:
            submission.checked()
        if not await self._may_have_a_runner(submission):
            return await self._groups.submit(submission)
        message_id = uuid7()
        async with self._database.begin() as connection:
            if submission.key is not None:
                known = await earlier_responses(
                    connection, {submission.key: submission.digest}, now
                )
                if submission.key in known:
                    return Accepted.again(repeat_response(known[submission.key]))
            options, recipient = submission.checked()
            accepted = submission.accepted_as(message_id, recipient)
            first = await self._write(connection, submission, options, recipient, message_id, now)
            if submission.key is not None:
                idempotency.keep(
                    connection,
                    {submission.key: (submission.digest, accepted.to_json())},
                    at=now,
                    expires_at=now + KEY_LIFE,
                )
        metrics.message_accepted(
            mode=command.mode,
            environment=caller.environment.value,
            country=recipient.number.country,
            runner="single",
        )
        _log.info("message_accepted", message_id=accepted.message_id, mode=command.mode)
        task = asyncio.create_task(
            self._start(submission, recipient, message_id, options.priority, first, now)
        )
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        await asyncio.wait({task}, timeout=_ANSWER_WITHIN)
        return accepted

    async def _may_have_a_runner(self, submission: Submission) -> bool:
        """Whether a message gets a workflow of its own, at once.

        A critical one does without a look at the budget, which others then find smaller. So does one
        with a listener, and one for one provider alone: a group is routed by its routing keys.
        """
        options = submission.options
        is_critical = options is not None and options.priority is Priority.CRITICAL
        command = submission.command
        alone = command.listener is not None or command.only_provider is not None
        if is_critical or alone:
            self._budget.overdraw()
            return True
        return await self._budget.take()

    async def drained(self) -> None:
        """Wait until every runner was started."""
        while self._starting:
            await asyncio.wait(self._starting)

    async def _start(
        self,
        submission: Submission,
        recipient: ValidatedRecipient,
        message_id: UUID,
        priority: Priority,
        first: Step | None,
        now: datetime,
    ) -> None:
        started = await self._workflow_client.start_send(
            message_id,
            1,
            mode=submission.command.mode.value,
            country=recipient.number.country,
            account=submission.caller.account_id,
            priority=priority,
            first=first,
        )
        if not started:
            await schedule_reconcile_now(self._database, now, message=message_id)

    async def _write(
        self,
        connection: Connection,
        submission: Submission,
        options: MessageOptions,
        recipient: ValidatedRecipient,
        message_id: UUID,
        now: datetime,
    ) -> Step | None:
        """Write the message, that it was accepted, and what is done first, if that is decided."""
        caller = submission.caller
        message = await self._to_store(connection, submission, options, recipient, message_id, now)
        await self._billing.reserve(
            connection, caller.account_id, message_id, recipient.text.segments
        )
        messages.insert(connection, message)
        events.append(
            connection,
            message_id,
            "accepted",
            actor=caller.key_id,
            at=now,
            status="scheduled" if options.scheduled_at else "queued",
            detail={
                "encoding": message.encoding,
                "segments": message.segments,
                "configuration": self._configurations.version,
            },
        )
        return await self._decisions.first_step(connection, message, now)

    async def _to_store(
        self,
        connection: Connection,
        submission: Submission,
        options: MessageOptions,
        recipient: ValidatedRecipient,
        message_id: UUID,
        now: datetime,
    ) -> NewMessage:
        number, caller = recipient.number, submission.caller
        recipient_id = await messages.recipient(
            connection,
            caller.account_id,
            number.e164,
            self._recipient_hash.of(number.e164),
            self._recipient_hash.version,
            number.country,
        )
        lane = await callback_lane(connection, caller, options)
        listener = submission.command.listener
        return NewMessage(
            id=message_id,
            account_id=caller.account_id,
            environment=caller.environment.value,
            mode=options.mode.value,
            priority=options.priority.value,
            sender=options.sender.value,
            recipient_id=recipient_id,
            country=number.country,
            network="unknown",
            body=recipient.text.text,
            encoding=recipient.text.encoding.value,
            segments=recipient.text.segments,
            accepted_at=now,
            scheduled_at=options.scheduled_at,
            validity=options.validity,
            valid_until=(options.scheduled_at or now) + options.validity,
            owner=send_workflow_id(public_id(IdPrefix.MESSAGE, message_id)),
            check_by=deadlines.reconcile_start_at(now),
            config_version=self._configurations.version,
            callback_url=options.callback_url,
            callback_lane_id=lane,
            callback_final_only=options.callback_final_only,
            traceparent=submission.traceparent,
            metadata=submission.command.metadata,
            parameters=submission.command.parameters,
            receipt_deadline=options.receipt_deadline,
            missing_receipt=options.missing_receipt,
            listener=listener,
            only_provider=submission.command.only_provider,
            listener_lane_id=await callbacks.listener_lane(connection, caller.account_id)
            if listener is not None
            else None,
        )

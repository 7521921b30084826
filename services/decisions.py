"""Decides about single messages, and stores each decision in the transaction that it was made in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from domain import deadlines
from domain.delivery import (
    CancelAtProvider,
    Decision,
    Finish,
    MarkAttempt,
    MessageFacts,
    Reason,
    ReportMissingReceipt,
    RouteOption,
    Standing,
    Submit,
    Wait,
    WaitFor,
    decide,
    standings,
)
from domain.modes import Mode, ModePolicy, Priority
from domain.states import MessageStatus, Verdict
from services.bulk.state import in_bulk
from services.configuration import Configurations
from services.routes import Routes, unknown_until
from store import attempts, events, messages
from store import routing_key as routing_keys
from store.database import Connection, PendingResult
from store.events import WORKFLOW
from store.messages import NewMessage, StoredMessage
from store.transitions import Transition, emit_sent, refresh_status, report_no_receipt
from workflows.ports.send import Step


@dataclass(frozen=True, slots=True)
class Decided:
    """The next step, and what is to be published after the commit.

    `lanes` are those that got an event without a transition.
    """

    step: Step
    transitions: Sequence[Transition] = ()
    lanes: Collection[UUID] = ()


class MessageDecisions:
    """Applies `domain.delivery.decide` to one message, and says what its runner does next."""

    def __init__(self, configurations: Configurations, routes: Routes) -> None:
        self._configurations = configurations
        self._routes = routes

    async def first_step(
        self, connection: Connection, message: NewMessage, now: datetime
    ) -> Step | None:
        """Decide about a message in the transaction that accepts it.

        None if the first step is anything but a submit: then the message's runner decides.
        """
        if message.scheduled_at is not None:
            return None
        configuration = self._configurations.current
        policy = configuration.mode_policy(Mode(message.mode)).for_message(message.missing_receipt)
        route, options = await self._routes.options(connection, configuration, message.routing_key)
        facts = MessageFacts.untried(since=message.accepted_at, valid_until=message.valid_until)
        decision = decide(facts, options, policy, now)
        if not isinstance(decision, Submit):
            return None
        only = message.only_provider
        detail = self._explained(facts, decision, route, options, policy, now, only)
        self._append_event(connection, message.id, decision, detail, now)
        return self._step(decision, policy, message.priority, message.segments)

    async def next_step(
        self,
        connection: Connection,
        message_id: UUID,
        epoch: int,
        stored: PendingResult[StoredMessage | None],
        now: datetime,
    ) -> Decided:
        """Decide, and store the decision; what is decided is to be published after the commit.

        Args:
            connection: the transaction.
            message_id: which message.
            epoch: the runner's; where the message has another one, the runner is to end.
            stored: the message's row, locked.
            now: the moment of the decision.
        """
        known = attempts.of_message(connection, message_id)
        message = await stored
        if message is None or message.epoch != epoch:
            status = MessageStatus.QUEUED if message is None else message.status
            return Decided(Step(Finish(status, Reason.SUPERSEDED)))
        configuration = self._configurations.current
        policy = configuration.mode_policy(message.mode).for_message(message.missing_receipt)
        routing_key = routing_keys.read(message)
        route, options = await self._routes.options(connection, configuration, routing_key)
        transitions: list[Transition] = []
        lanes: set[UUID] = set()
        while True:
            facts = in_bulk(messages.facts(message, await known), message)
            decision = decide(facts, options, policy, now)
            if isinstance(decision, MarkAttempt):
                transitions += await self._mark_attempt(
                    connection, message_id, facts.attempts[-1].provider, decision, now
                )
            elif isinstance(decision, ReportMissingReceipt):
                attempts.wait_longer(connection, message_id, decision.number, decision.until)
                report_no_receipt(connection, message_id, now)
                if message.listener_lane_id is not None:
                    lanes.add(message.listener_lane_id)
            else:
                break
            known = attempts.of_message(connection, message_id)
        step = self._step(decision, policy, message.priority, message.segments)
        # Before the transition that follows from it.
        if isinstance(decision, Submit | CancelAtProvider | Finish):
            only = message.only_provider
            detail = self._explained(facts, decision, route, options, policy, now, only)
            self._append_event(connection, message_id, decision, detail, now)
        transitions += await self._store(connection, message, step, options, now)
        if isinstance(decision, Finish) and message.listener_lane_id is not None:
            lanes.add(message.listener_lane_id)
        return Decided(step, transitions, lanes)

    def _explained(
        self,
        facts: MessageFacts,
        decision: Decision,
        route: int | None,
        options: Sequence[RouteOption],
        policy: ModePolicy,
        now: datetime,
        only_provider: str | None,
    ) -> dict[str, Any]:
        """The ranking of a decision, and why a submit goes to this provider and not to another."""
        chosen: dict[str, Standing] = {}
        if isinstance(decision, Submit):
            chosen = standings(facts, options, policy, now, decision.provider)
        return self._routes.explained(route, options, chosen, only_provider=only_provider)

    def _append_event(
        self,
        connection: Connection,
        message_id: UUID,
        decision: Submit | CancelAtProvider | Finish,
        detail: Mapping[str, Any],
        now: datetime,
    ) -> None:
        about = _about(decision)
        events.append(
            connection,
            message_id,
            "decided",
            actor=WORKFLOW,
            at=now,
            status=about.status,
            attempt=about.attempt,
            provider=about.provider,
            reason=about.reason,
            detail=detail,
        )

    async def _mark_attempt(
        self,
        connection: Connection,
        message_id: UUID,
        provider: str,
        decision: MarkAttempt,
        now: datetime,
    ) -> list[Transition]:
        attempts.mark_attempt(
            connection,
            [(message_id, decision.number)],
            decision.status,
            at=now,
            unknown_until=unknown_until(self._configurations.current, provider, now),
        )
        return await refresh_status(
            connection, [message_id], actor=WORKFLOW, at=now, check_by=deadlines.reconcile_at(now)
        )

    async def _store(
        self,
        connection: Connection,
        message: StoredMessage,
        step: Step,
        options: Sequence[RouteOption],
        now: datetime,
    ) -> list[Transition]:
        """Store a decision: the verdict of an end, or what is waited for and until when."""
        message_id, epoch = message.id, message.epoch
        match step.decision:
            case Finish(status=status, reason=reason):
                if status is MessageStatus.DELIVERED or message.verdict == status.value:
                    return []
                messages.set_verdict(
                    connection,
                    message_id,
                    epoch,
                    Verdict(status.value),
                    reason,
                    offered=[option.provider for option in options],
                )
                if status is MessageStatus.SENT:
                    emit_sent(connection, [message_id], now)
                return await refresh_status(connection, [message_id], actor=WORKFLOW, at=now)
            case Wait(until=until, why=why):
                check_by = deadlines.reconcile_at(until)
                messages.waits(connection, message_id, epoch, why, check_by)
                if why is WaitFor.SCHEDULE:
                    return []
            case Submit() | CancelAtProvider():
                check_by = deadlines.reconcile_task_at(now, step.queue_within, step.response_within)
                messages.waits(connection, message_id, epoch, None, check_by)
            case MarkAttempt() | ReportMissingReceipt():
                return []
        if message.verdict is Verdict.SCHEDULED:
            messages.set_verdict(connection, message_id, epoch, None, None)
            return await refresh_status(connection, [message_id], actor=WORKFLOW, at=now)
        return []

    def _step(self, decision: Decision, policy: ModePolicy, priority: str, segments: int) -> Step:
        step = Step(decision, priority=Priority(priority).rank)
        if not isinstance(decision, Submit | CancelAtProvider):
            return step
        provider = self._configurations.current.providers.get(decision.provider)
        if provider is None:
            return step
        timeout = provider.response_timeout
        return Step(
            decision,
            priority=step.priority,
            response_within=deadlines.submit_activity_within(
                timeout, 1 if provider.splits_messages else segments
            )
            if isinstance(decision, Submit)
            else deadlines.cancel_activity_within(timeout),
            queue_within=deadlines.queue_within(must_arrive=policy.must_arrive),
        )


@dataclass(frozen=True, slots=True)
class _About:
    """What a decision is about, for its event."""

    reason: str
    status: str | None = None
    provider: str | None = None
    attempt: int | None = None


def _about(decision: Submit | CancelAtProvider | Finish) -> _About:
    match decision:
        case Submit(provider=provider, number=number, resume=resume):
            return _About("resume" if resume else "submit", provider=provider, attempt=number)
        case CancelAtProvider(provider=provider, number=number):
            return _About("cancel_at_provider", provider=provider, attempt=number)
        case Finish(status=status, reason=reason):
            return _About(reason, status=status.value)

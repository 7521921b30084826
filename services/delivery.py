"""The steps of one message's delivery, each one transaction: decide, claim, record, recall."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from domain.delivery import (
    Decision,
    Declare,
    Finish,
    MessageFacts,
    Reason,
    Recall,
    RouteOption,
    Submit,
    Wait,
    WaitFor,
    decide,
)
from domain.ids import IdPrefix, parse_id, public_id
from domain.modes import Mode, ModePolicy, Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.states import MessageStatus, Verdict
from providers.base import LateAnswer, Outbound
from services.announcements import Announcements
from services.configuration import Configurations
from services.meeting import GRACE, RECEIPT_ERROR_NAMES, Meeting
from services.routes import ROUTED_BY, Routes, receipt_by, receipt_deadline
from store import attempts, events, messages, receipts
from store.attempts import AttemptChange, Claim, PartRecord
from store.database import Answer, Connection, Database, DatabaseAway, Row
from store.messages import NewMessage
from store.transitions import Transition, lock, settle, tell_sent
from telemetry.logs import get_logger
from workflows.ports.send import MessageRef, Step, send_workflow_id

_log = get_logger(__name__)

ACTOR = "workflow"

TURN = timedelta(seconds=1)
"""How long a message waits for its turn at a provider before it gives its slot back."""

_IN_A_HURRY = timedelta(seconds=5)
_IN_NO_HURRY = timedelta(seconds=10)
"""How long a submit waits for a worker of its provider before another look at the routes."""

# Reading, writing and the way there and back, on top of what the provider may take.
AROUND_AN_ANSWER = timedelta(seconds=4)

# A database that restarts is back in seconds, one that fails over in a minute or two.
_BETWEEN_TRIES = 0.5
_MOST_TRIES = 600
_Written = TypeVar("_Written")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A message on its way to a provider, and what its trace and its metrics need."""

    outbound: Outbound
    mode: Mode
    accepted_at: datetime
    valid_until: datetime
    traceparent: str | None
    first: bool
    """Whether this is the first attempt of all."""


class Delivery:
    """What `activities.send` does between Temporal and the provider."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        announcements: Announcements,
        meeting: Meeting,
        routes: Routes,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._announcements = announcements
        self._meeting = meeting
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
        policy = configuration.mode_policy(Mode(message.mode))
        routed_by = {name: getattr(message, name) for name in ROUTED_BY}
        route, options = await self._routes.options(connection, configuration, routed_by)
        facts = MessageFacts.untried(since=message.accepted_at, valid_until=message.valid_until)
        decision = decide(facts, options, policy, now)
        if not isinstance(decision, Submit):
            return None
        self._tell_decision(connection, message.id, decision, route, options, now)
        return self._step(decision, policy, message.priority)

    async def decide(self, ref: MessageRef, now: datetime) -> Step:
        """Decide about a message and store the decision."""
        async with self._database.begin() as connection:
            message = messages.stored(connection, _uuid(ref), locked=True)
            step, moves = await self._decide(connection, ref, now, message)
        self._announcements.tell(moves, runner_knows=True)
        return step

    async def load(self, ref: MessageRef, submit: Submit, now: datetime) -> Loaded | None:
        """Read what a provider is handed; None if there is nothing to send any more."""
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            found = messages.content(connection, message_id)
        content = await found
        if content is None or content["body"] is None or content["recipient"] is None:
            return None
        policy = self._configurations.current.mode_policy(Mode(content["mode"]))
        until = receipt_by(
            self._configurations.current, submit.provider, policy, content["valid_until"], now
        )
        lives_until = min(until, content["valid_until"])
        return Loaded(
            outbound=Outbound(
                message_id=message_id,
                attempt=submit.number,
                sender=content["sender"],
                recipient=content["recipient"],
                text=content["body"],
                reference=reference_of(message_id, submit.number),
                valid_for=max(timedelta(seconds=1), lives_until - now),
                priority=Priority(content["priority"]),
            ),
            mode=Mode(content["mode"]),
            accepted_at=content["accepted_at"],
            valid_until=content["valid_until"],
            traceparent=content["traceparent"],
            first=submit.number == 1,
        )

    async def claim(
        self,
        ref: MessageRef,
        submit: Submit,
        loaded: Loaded,
        *,
        parts: int,
        now: datetime,
    ) -> list[int]:
        """Write the attempt, with the last look at all that forbids it; the parts to be sent now.

        Empty if something forbids it: then nothing was written and nothing may be sent.
        """
        provider = self._configurations.current.providers[submit.provider]
        policy = self._configurations.current.mode_policy(loaded.mode)
        wanted = Claim(
            message_id=loaded.outbound.message_id,
            epoch=ref.epoch,
            number=submit.number,
            provider=submit.provider,
            parts=parts,
            part_method=provider.parts.value,
            reference=loaded.outbound.reference,
            at=now,
            answer_by=now + provider.response_timeout + AROUND_AN_ANSWER,
            receipt_by=receipt_by(
                self._configurations.current, submit.provider, policy, loaded.valid_until, now
            ),
            config_version=self._configurations.version,
        )
        async with self._database.begin() as connection:
            write = attempts.resume if submit.resume else attempts.claim
            numbers = write(connection, wanted)
            moves = settle(
                connection,
                [wanted.message_id],
                actor=ACTOR,
                at=now,
                check_by=wanted.answer_by + GRACE,
            )
        self._announcements.tell(await moves, runner_knows=True)
        return await numbers

    async def record(
        self,
        ref: MessageRef,
        submit: Submit,
        outcomes: Sequence[PartOutcome],
        clock: Callable[[], datetime],
    ) -> Step:
        """Write what came of an attempt, meet the receipts that were quicker, and decide anew.

        What is known is not given up while the database is away for a while: else a message that
        was accepted would count as unknown. A runner that has stopped waiting meanwhile is told.
        """
        step, tries = await until_written(
            lambda: self._record(ref, submit, outcomes, clock()),
            message_id=ref.message_id,
            provider=submit.provider,
        )
        if tries > 1:
            self._announcements.nudge(send_workflow_id(ref.message_id), MessageStatus.SENDING.value)
        ids = [outcome.provider_message_id for outcome in outcomes]
        self._announcements.afterwards(self._meeting.look_again(submit.provider, ids))
        return step

    async def _record(
        self, ref: MessageRef, submit: Submit, outcomes: Sequence[PartOutcome], now: datetime
    ) -> Step:
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            message = messages.stored(connection, message_id, locked=True)
            attempts.record(
                connection,
                [as_change(message_id, submit.number, outcomes)],
                at=now,
                doubt_until=now + receipt_deadline(self._configurations.current, submit.provider),
            )
            early = await self._meet_receipts(connection, submit.provider, outcomes, now)
            moves = settle(connection, [message_id], actor=ACTOR, at=now, check_by=now + GRACE)
            step, decided = await self._decide(connection, ref, now, message)
        mine = [move for move in [*early, *await moves, *decided] if move.message_id == message_id]
        others = [move for move in early if move.message_id != message_id]
        self._announcements.tell(mine, runner_knows=True)
        self._announcements.tell(others)
        return step

    async def record_late(self, answer: LateAnswer) -> None:
        """Write an answer that came after its attempt was given up as unknown; tells the runner."""
        moves, _ = await until_written(
            lambda: self._record_late(answer),
            message_id=public_id(IdPrefix.MESSAGE, answer.message_id),
            provider=answer.provider,
        )
        self._announcements.tell(moves)
        await self._meeting.look_again(answer.provider, [answer.outcome.provider_message_id])

    async def _record_late(self, answer: LateAnswer) -> list[Transition]:
        now = datetime.now(UTC)
        outcome = answer.outcome
        async with self._database.begin() as connection:
            lock(connection, [answer.message_id])
            attempts.record(
                connection,
                [as_change(answer.message_id, answer.attempt, [outcome])],
                at=now,
                doubt_until=None,
            )
            early = await self._meet_receipts(connection, answer.provider, [outcome], now)
            moves = await settle(
                connection, [answer.message_id], actor="provider", at=now, check_by=now + GRACE
            )
        return [*early, *moves]

    async def _meet_receipts(
        self,
        connection: Connection,
        provider: str,
        outcomes: Sequence[PartOutcome],
        now: datetime,
    ) -> list[Transition]:
        """Let receipts that were quicker than the answer find their parts."""
        ids = [o.provider_message_id for o in outcomes if o.provider_message_id is not None]
        if not ids:
            return []
        matched = await receipts.match(
            connection, provider, ids, at=now, errors=RECEIPT_ERROR_NAMES, recheck=GRACE
        )
        return list(matched.transitions)

    async def sent_parts(self, ref: MessageRef, recall: Recall) -> tuple[Row | None, list[str]]:
        """What a recall needs: the message's content, and the provider's ids of the attempt."""
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            found = messages.content(connection, message_id)
            parts = await attempts.parts_of_message(connection, message_id)
        return await found, [
            part["provider_message_id"]
            for part in parts
            if part["attempt"] == recall.number and part["provider_message_id"] is not None
        ]

    async def recalled(self, ref: MessageRef, recall: Recall, *, done: bool, now: datetime) -> Step:
        """Record whether the provider forgot an attempt, and decide anew."""
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            message = messages.stored(connection, message_id, locked=True)
            attempts.recalled(connection, message_id, recall.number, done=done)
            events.append(
                connection,
                message_id,
                "recalled",
                actor=ACTOR,
                at=now,
                attempt=recall.number,
                provider=recall.provider,
                reason="forgotten" if done else "refused",
            )
            step, moves = await self._decide(connection, ref, now, message)
        self._announcements.tell(moves, runner_knows=True)
        return step

    async def _decide(
        self,
        connection: Connection,
        ref: MessageRef,
        now: datetime,
        stored: Answer[Row | None],
    ) -> tuple[Step, list[Transition]]:
        """Decide, and store the decision; `stored` is the message's row, locked."""
        message_id = _uuid(ref)
        known = attempts.of_message(connection, message_id)
        message = await stored
        if message is None or message["epoch"] != ref.epoch:
            status = MessageStatus.QUEUED if message is None else MessageStatus(message["status"])
            return Step(Finish(status, Reason.SUPERSEDED)), []
        configuration = self._configurations.current
        policy = configuration.mode_policy(Mode(message["mode"]))
        route, options = await self._routes.options(connection, configuration, message)
        moves: list[Transition] = []
        while True:
            facts = messages.facts(message, await known)
            decision = decide(facts, options, policy, now)
            if not isinstance(decision, Declare):
                break
            moves += await self._declare(
                connection, message_id, facts.attempts[-1].provider, decision, now
            )
            known = attempts.of_message(connection, message_id)
        moves += await self._keep(connection, message, decision, now)
        if isinstance(decision, Submit | Recall | Finish):
            self._tell_decision(connection, message_id, decision, route, options, now)
        return self._step(decision, policy, message["priority"]), moves

    def _tell_decision(
        self,
        connection: Connection,
        message_id: UUID,
        decision: Submit | Recall | Finish,
        route: int | None,
        options: Sequence[RouteOption],
        now: datetime,
    ) -> None:
        about = _about(decision)
        events.append(
            connection,
            message_id,
            "decided",
            actor=ACTOR,
            at=now,
            status=about.status,
            attempt=about.attempt,
            provider=about.provider,
            reason=about.reason,
            detail=self._routes.explained(route, options),
        )

    async def _declare(
        self,
        connection: Connection,
        message_id: UUID,
        provider: str,
        decision: Declare,
        now: datetime,
    ) -> list[Transition]:
        attempts.declare(
            connection,
            [(message_id, decision.number)],
            decision.status,
            at=now,
            doubt_until=now + receipt_deadline(self._configurations.current, provider),
        )
        return await settle(connection, [message_id], actor=ACTOR, at=now, check_by=now + GRACE)

    async def _keep(
        self, connection: Connection, message: Row, decision: Decision, now: datetime
    ) -> list[Transition]:
        """Store a decision: the verdict of an end, or what is waited for and until when."""
        message_id, epoch = message["id"], message["epoch"]
        match decision:
            case Finish(status=status, reason=reason):
                if status is MessageStatus.DELIVERED or message["verdict"] == status.value:
                    return []
                messages.judge(connection, message_id, epoch, Verdict(status.value), reason)
                if status is MessageStatus.SENT:
                    tell_sent(connection, [message_id], now)
                return await settle(connection, [message_id], actor=ACTOR, at=now)
            case Wait(until=until, why=why):
                messages.waits(connection, message_id, epoch, why, until + GRACE)
                if why is WaitFor.SCHEDULE:
                    return []
            case Submit() | Recall():
                messages.waits(connection, message_id, epoch, None, now + 2 * GRACE)
            case Declare():
                return []
        if message["verdict"] == Verdict.SCHEDULED:
            messages.judge(connection, message_id, epoch, None, None)
            return await settle(connection, [message_id], actor=ACTOR, at=now)
        return []

    def _step(self, decision: Decision, policy: ModePolicy, priority: str) -> Step:
        step = Step(decision, priority=Priority(priority).rank)
        if not isinstance(decision, Submit | Recall):
            return step
        provider = self._configurations.current.providers.get(decision.provider)
        if provider is None:
            return step
        waits = provider.response_timeout + TURN + AROUND_AN_ANSWER
        return Step(
            decision,
            priority=step.priority,
            answer_within=waits,
            queue_within=_IN_A_HURRY if policy.must_arrive else _IN_NO_HURRY,
        )


_GRAVITY = {
    OutcomeKind.ACCEPTED: 0,
    OutcomeKind.UNREACHABLE: 1,
    OutcomeKind.THROTTLED: 2,
    OutcomeKind.REFUSED: 3,
    OutcomeKind.UNKNOWN: 4,
}


def as_change(message_id: UUID, number: int, outcomes: Sequence[PartOutcome]) -> AttemptChange:
    """What the outcomes of an attempt's parts are to the store: the worst speaks for it."""
    worst = outcomes[0]
    if len(outcomes) > 1:
        worst = max(outcomes, key=lambda outcome: _GRAVITY[outcome.kind])
    return AttemptChange(
        message_id=message_id,
        number=number,
        parts=[_as_record(outcome) for outcome in outcomes],
        error_class=worst.error_class.value if worst.error_class else None,
        code=worst.code,
        retry_after=worst.after,
        bind=worst.bind,
    )


def _as_record(outcome: PartOutcome) -> PartRecord:
    return PartRecord(
        number=outcome.number,
        status=outcome.kind.value,
        provider_message_id=outcome.provider_message_id,
        error_class=outcome.error_class.value if outcome.error_class else None,
        code=outcome.code,
    )


async def until_written(
    write: Callable[[], Awaitable[_Written]], *, message_id: str | None, provider: str
) -> tuple[_Written, int]:
    """What `write` returned, and how often it was tried while the database was away."""
    for tries in range(1, _MOST_TRIES):
        try:
            return await write(), tries
        except DatabaseAway as error:
            _log.warning(
                "outcome_not_recorded_yet",
                message_id=message_id,
                provider=provider,
                error_type=type(error).__name__,
            )
        await asyncio.sleep(_BETWEEN_TRIES)
    return await write(), _MOST_TRIES


@dataclass(frozen=True, slots=True)
class _About:
    """What a decision is about, for its event."""

    reason: str
    status: str | None = None
    provider: str | None = None
    attempt: int | None = None


def _about(decision: Submit | Recall | Finish) -> _About:
    match decision:
        case Submit(provider=provider, number=number, resume=resume):
            return _About("resume" if resume else "submit", provider=provider, attempt=number)
        case Recall(provider=provider, number=number):
            return _About("recall", provider=provider, attempt=number)
        case Finish(status=status, reason=reason):
            return _About(reason, status=status.value)


def _uuid(ref: MessageRef) -> UUID:
    found = parse_id(IdPrefix.MESSAGE, ref.message_id)
    if found is None:
        message = f"{ref.message_id!r} is no message id"
        raise ValueError(message)
    return found


def reference_of(message_id: UUID, attempt: int) -> int:
    """The reference that ties parts together: the id's random end, moved on with each attempt."""
    return (message_id.int + attempt * 0x101) & 0xFFFF

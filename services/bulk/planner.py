"""Plans a bulk: writes what time has changed in its rows, and says what can be sent now."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from domain import deadlines
from domain.delivery import (
    CancelAtProvider,
    Finish,
    MarkAttempt,
    MessageFacts,
    ReportMissingReceipt,
    RouteOption,
    Submit,
    Wait,
    decide,
)
from domain.ids import IdPrefix, public_id
from domain.modes import Priority
from domain.states import AttemptStatus, MessageStatus, Verdict
from services.bulk.decisions import BulkDecisions
from services.bulk.state import id_range_of, in_bulk, uuid_of
from services.configuration import Configurations
from services.routes import Routes, unknown_until
from services.transitions import TransitionPublisher
from services.workflow_client import WorkflowClient
from store import attempts, bulks, events
from store import routing_key as routing_keys
from store.bulks import IdRange, OpenCounts, StoredBulk
from store.database import BACKGROUND, Connection, Database
from store.events import WORKFLOW
from store.messages import RunnableMessage
from store.transitions import Transition, emit_sent, lock, refresh_status
from workflows.ports.bulk import Plan, PlanTask, ProviderChunk
from workflows.ports.send import send_workflow_id

_MOST_EXCEPTIONS: Final = 20_000
"""More than a bulk has messages."""
_MOST_TO_PROMOTE: Final = 20
"""Messages that get a runner of their own in one plan, so that workers have time for others."""


@dataclass
class _Draft:
    """A plan before it is written.

    Attributes:
        chunks: messages that each provider should get now.
        priorities: the first of them, of each provider's messages.
        ends: messages that have come to an end, by status, reason, and the providers of their route.
        marked: attempts that time has made unknown or expired, by status and provider.
        promoted: messages that need a runner of their own.
        due: when there is something to do next.
    """

    chunks: Counter[str] = field(default_factory=Counter)
    priorities: dict[str, int] = field(default_factory=dict)
    ends: dict[tuple[MessageStatus, str, tuple[str, ...]], list[UUID]] = field(
        default_factory=lambda: defaultdict(list)
    )
    marked: dict[tuple[AttemptStatus, str], list[tuple[UUID, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    promoted: list[UUID] = field(default_factory=list)
    due: list[datetime] = field(default_factory=list)

    def chunk(self, provider: str, messages: int, priority: Priority) -> None:
        """This provider should get so many messages now."""
        self.chunks[provider] += messages
        rank = priority.rank
        self.priorities[provider] = min(rank, self.priorities.get(provider, rank))

    def end(self, finish: Finish, options: Sequence[RouteOption], ids: Sequence[UUID]) -> None:
        """These messages have come to an end."""
        offered = tuple(option.provider for option in options)
        self.ends[finish.status, finish.reason, offered] += ids

    @property
    def changed(self) -> list[UUID]:
        """The messages with an attempt that is marked, and those that have come to an end."""
        marked = [message_id for each in self.marked.values() for message_id, _ in each]
        return [*marked, *(message_id for ids in self.ends.values() for message_id in ids)]

    def as_chunks(self) -> tuple[ProviderChunk, ...]:
        """The chunks, as the workflow starts them."""
        return tuple(
            ProviderChunk(provider, count, self.priorities[provider])
            for provider, count in sorted(self.chunks.items())
        )


@dataclass(frozen=True, slots=True)
class _Written:
    """What the transaction of a plan has written, and what is open after it.

    Attributes:
        draft: what was decided.
        transitions: to be published after the commit.
        promoted: rows of the messages whose runners are to be started.
        open: number of messages that are not final.
    """

    draft: _Draft
    transitions: Sequence[Transition]
    promoted: Sequence[RunnableMessage]
    open: int


class BulkPlanner:
    """Decides what happens next to the messages of bulks."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        publisher: TransitionPublisher,
        workflow_client: WorkflowClient,
        routes: Routes,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._publisher = publisher
        self._workflow_client = workflow_client
        self._routes = routes

    async def plan(self, task: PlanTask) -> Plan:
        """Read the rows, write what time has changed in them, and say what can be sent."""
        now = task.now
        async with self._database.begin(within=BACKGROUND) as connection:
            bulk = await bulks.stored(connection, uuid_of(task.bulk))
            if bulk is None:
                return Plan((), 0)
            written = await self._decide_and_write(connection, bulk, now)
        was_extended = await self._check_or_end(id_range_of(bulk), written.open, now)
        self._publisher.publish(written.transitions, runner_knows=True)
        await self._start_runners(written.promoted)
        draft = written.draft
        if was_extended or draft.marked or len(draft.promoted) > len(written.promoted):
            draft.due.append(now)
        is_forbidden = bulk.paused_at is not None or bulk.canceled_at is not None
        return Plan(
            chunks=() if is_forbidden else draft.as_chunks(),
            open=max(written.open, int(was_extended)),
            look_at=min(draft.due, default=None),
        )

    async def _decide_and_write(
        self, connection: Connection, bulk: StoredBulk, now: datetime
    ) -> _Written:
        id_range = id_range_of(bulk)
        transitions: list[Transition] = []
        open_rows = await self._count_by_routing_key(connection, id_range, now)
        if any(each.released for each in open_rows):
            released = await bulks.unschedule(connection, id_range, now)
            transitions += await refresh_status(connection, released, actor=WORKFLOW, at=now)
        draft = _Draft()
        await self._decide_untried(connection, bulk, open_rows, draft, now)
        if any(each.exceptional for each in open_rows):
            await self._decide_exceptional(connection, bulk, draft, now)
        transitions += await self._write(connection, id_range, draft, now)
        promoted = await self._promote(connection, id_range, draft.promoted, now)
        if transitions or promoted or draft.changed:
            open_rows = await self._count_by_routing_key(connection, id_range, now)
        draft.due += [each.due for each in open_rows if each.due is not None]
        return _Written(draft, transitions, promoted, sum(each.messages for each in open_rows))

    async def _count_by_routing_key(
        self, connection: Connection, id_range: IdRange, now: datetime
    ) -> Sequence[OpenCounts]:
        """The numbers of open messages by routing key, from one look at all rows."""
        return await bulks.by_routing_key(
            connection, id_range, now, without_receipts=self._a_provider_is_silent
        )

    @property
    def _a_provider_is_silent(self) -> bool:
        """Whether there is one that gives no receipts."""
        declared = self._configurations.current.providers.values()
        return any(not provider.receipts for provider in declared)

    async def _decide_untried(
        self,
        connection: Connection,
        bulk: StoredBulk,
        open_rows: Iterable[OpenCounts],
        draft: _Draft,
        now: datetime,
    ) -> None:
        """Decide about messages without attempts, once per routing key."""
        configuration = self._configurations.current
        for alike in open_rows:
            if alike.since is None or alike.valid_until is None:  # none was untried
                continue
            if alike.scheduled_at is not None and alike.scheduled_at > now:
                draft.due.append(alike.scheduled_at)
                continue
            routing_key = routing_keys.read(alike)
            _, options = await self._routes.options(connection, configuration, routing_key)
            policy = configuration.mode_policy(alike.mode)
            facts = MessageFacts.untried(
                since=alike.since,
                valid_until=alike.valid_until,
                scheduled_at=alike.scheduled_at,
            )
            decision = decide(in_bulk(facts, bulk), options, policy, now)
            match decision:
                case Submit(provider=provider):
                    draft.chunk(provider, alike.untried, alike.priority)
                case Wait(until=until):
                    draft.due.append(until)
                case Finish():
                    ids = await bulks.untried_ids(connection, id_range_of(bulk), alike, now)
                    draft.end(decision, options, ids)
                case (
                    CancelAtProvider() | MarkAttempt() | ReportMissingReceipt()
                ):  # nothing was tried
                    pass

    async def _decide_exceptional(
        self, connection: Connection, bulk: StoredBulk, draft: _Draft, now: datetime
    ) -> None:
        """Decide about each message that was tried, cancelled, or has waited for long enough."""
        rows = await bulks.needing_decision(
            connection,
            id_range_of(bulk),
            now,
            _MOST_EXCEPTIONS,
            without_receipts=self._a_provider_is_silent,
        )
        tried = await bulks.attempts_of(connection, [row.id for row in rows])
        decisions = BulkDecisions(self._routes, connection, self._configurations.current, now, bulk)
        for row in rows:
            known = tried.get(row.id, [])
            decided = await decisions.about(row, known)
            decision = decided.decision
            match decision:
                case Submit(resume=False, provider=provider):
                    draft.chunk(provider, 1, row.priority)
                case Submit() | CancelAtProvider() | ReportMissingReceipt():
                    draft.promoted.append(row.id)
                case Wait(until=until):
                    draft.due.append(until)
                case MarkAttempt(number=number, status=status):
                    provider = known[-1].provider
                    draft.marked[status, provider].append((row.id, number))
                case Finish():
                    draft.end(decision, decided.options, [row.id])

    async def _write(
        self, connection: Connection, id_range: IdRange, draft: _Draft, now: datetime
    ) -> list[Transition]:
        """Write which attempts are marked, and which messages have come to an end."""
        changed = draft.changed
        if not changed:
            return []
        lock(connection, sorted(changed))
        for (status, provider), marked in draft.marked.items():
            until = unknown_until(self._configurations.current, provider, now)
            attempts.mark_attempt(connection, marked, status, at=now, unknown_until=until)
        for (end, reason, offered), ids in draft.ends.items():
            verdict = Verdict(end.value)
            bulks.set_verdict(connection, id_range.owner, ids, verdict, reason, offered=offered)
            if end is MessageStatus.SENT:
                emit_sent(connection, ids, now)
            events.append_to_many(
                connection,
                id_range.bulk_id,
                ids,
                "decided",
                actor=WORKFLOW,
                at=now,
                status=end.value,
                reason=reason,
                detail={"configuration": self._configurations.version},
            )
        return await refresh_status(connection, changed, actor=WORKFLOW, at=now)

    async def _promote(
        self, connection: Connection, id_range: IdRange, ids: Sequence[UUID], now: datetime
    ) -> Sequence[RunnableMessage]:
        """Make runners of their own the owners of messages, of the first ones if they are many."""
        owners = {
            message_id: send_workflow_id(public_id(IdPrefix.MESSAGE, message_id))
            for message_id in ids[:_MOST_TO_PROMOTE]
        }
        if not owners:
            return ()
        promoted = await bulks.leave(
            connection, id_range.owner, owners, deadlines.reconcile_at(now)
        )
        events.append_to_many(
            connection,
            id_range.bulk_id,
            [message.id for message in promoted],
            "promoted",
            actor=WORKFLOW,
            at=now,
        )
        return promoted

    async def _check_or_end(self, id_range: IdRange, is_open: int, now: datetime) -> bool:
        """Set when the reconciler checks the bulk, or end it if no message is open.

        In a transaction of its own: a cancellation locks the bulk's row before those of its messages.

        Returns:
            Whether it was not ended because messages were added since the open ones were counted.
        """
        async with self._database.begin() as connection:
            if is_open:
                bulks.check(connection, id_range.bulk_id, deadlines.reconcile_bulk_at(now))
                return False
            return not await bulks.end(connection, id_range)

    async def _start_runners(self, promoted: Iterable[RunnableMessage]) -> None:
        for message in promoted:
            await self._workflow_client.start_runner(message)

"""Rows past their `check_by`: their runners are signalled, or restarted where they are gone.

Each kind of row that carries a `check_by` is one `Checked`; the reconciler goes through a list of them.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final, Protocol, Self
from uuid import UUID

from domain import deadlines
from domain.ids import IdPrefix, public_id
from domain.modes import Priority
from domain.states import MessageStatus
from services.workflow_client import SignalResult, WorkflowClient
from store import bulks, events, messages
from store.database import BACKGROUND, Database
from store.messages import OverdueMessage
from workflows.ports.bulk import bulk_workflow_id
from workflows.ports.send import MessageChanged, send_workflow_id

BATCH: Final = 200
"""Rows of a kind that one round takes up, at most."""
AT_ONCE: Final = 8
"""How many messages are taken up side by side; each takes two round trips to the database."""

_LOOK: Final = MessageChanged(MessageStatus.QUEUED.value, final=False)


class _Outcome(Enum):
    """What was done about an overdue row."""

    SIGNALLED = auto()
    RESTARTED = auto()
    OVER_OR_TAKEN = auto()
    """It moved on meanwhile."""
    NOT_YET = auto()
    """Temporal is away, or came back this moment."""


@dataclass(slots=True)
class TakenUp:
    """What a round did about the overdue rows of one kind.

    Attributes:
        overdue: rows found, at most `BATCH`.
        signalled: rows whose runner lives.
        restarted: rows whose runner was gone, and has a successor now.
        not_yet: rows left for the next round, since Temporal does not respond.
    """

    overdue: int = 0
    signalled: int = 0
    restarted: int = 0
    not_yet: int = 0

    @property
    def more(self) -> bool:
        """Whether another round at once would find more to do."""
        return self.overdue >= BATCH and not self.not_yet

    def count(self, outcomes: Collection[_Outcome]) -> None:
        for outcome in outcomes:
            self.signalled += outcome is _Outcome.SIGNALLED
            self.restarted += outcome is _Outcome.RESTARTED
            self.not_yet += outcome is _Outcome.NOT_YET

    def __iadd__(self, other: "TakenUp") -> Self:
        self.overdue += other.overdue
        self.signalled += other.signalled
        self.restarted += other.restarted
        self.not_yet += other.not_yet
        return self


class Checked(Protocol):
    """A kind of row that carries a `check_by`."""

    name: str
    """In log events and as a metric's label."""

    async def make_all_due(self, now: datetime) -> int:
        """Let the next rounds look at every open row; how many messages that concerns."""

    async def take_up(self, now: datetime) -> TakenUp:
        """Signal or restart the runners of rows past their `check_by`, in the order of priority."""


class CheckedBulks:
    """Bulks: one `check_by` for all messages that a `BulkSendWorkflow` runs."""

    name = "bulks"

    def __init__(self, database: Database, workflow_client: WorkflowClient) -> None:
        self._database = database
        self._workflow_client = workflow_client

    async def make_all_due(self, now: datetime) -> int:
        """Let the next rounds look at every open bulk."""
        async with self._database.begin() as connection:
            return await bulks.mark_all_due(connection, now)

    async def take_up(self, now: datetime) -> TakenUp:
        """Let the runners of overdue bulks look at their messages again; start those that are gone."""
        async with self._database.begin() as connection:
            overdue = await bulks.overdue(connection, now, BATCH)
        taken_up = TakenUp(overdue=len(overdue))
        for bulk in overdue:
            outcome = await self.signal_or_start(bulk.id, bulk.priority)
            taken_up.count([outcome])
            if outcome is _Outcome.NOT_YET:
                break
            async with self._database.begin() as connection:
                bulks.check_again(connection, bulk.id, now, deadlines.reconcile_again_at(now))
        return taken_up

    async def signal_or_start(self, bulk_id: UUID, priority: Priority) -> _Outcome:
        public = public_id(IdPrefix.BATCH, bulk_id)
        signalled = await self._workflow_client.signal(bulk_workflow_id(public), _LOOK)
        if signalled is SignalResult.NOT_RUNNING:
            started = await self._workflow_client.start_bulk(public, priority=priority)
            return _Outcome.RESTARTED if started else _Outcome.NOT_YET
        return _Outcome.SIGNALLED if signalled is SignalResult.YES else _Outcome.NOT_YET


class CheckedMessages:
    """Messages that a `SendWorkflow` each runs."""

    name = "messages"

    def __init__(self, database: Database, workflow_client: WorkflowClient) -> None:
        self._database = database
        self._workflow_client = workflow_client

    async def make_all_due(self, now: datetime) -> int:
        """Let the next rounds look at every open message."""
        async with self._database.begin(within=BACKGROUND) as connection:
            return await messages.mark_all_due(connection, now)

    async def take_up(self, now: datetime) -> TakenUp:
        """Signal or restart the runners of overdue messages, until Temporal does not respond."""
        async with self._database.begin() as connection:
            overdue = await messages.overdue(connection, now, BATCH)
        taken_up = TakenUp(overdue=len(overdue))
        for first in range(0, len(overdue), AT_ONCE):
            if taken_up.not_yet:
                break  # the rest stays overdue, and is the next round's
            some = overdue[first : first + AT_ONCE]
            taken_up.count(await asyncio.gather(*(self._take_up(row, now) for row in some)))
        return taken_up

    async def _take_up(self, row: OverdueMessage, now: datetime) -> _Outcome:
        signalled = await self._signal(row)
        if signalled is SignalResult.TEMPORAL_AWAY:
            return _Outcome.NOT_YET
        return (
            _Outcome.SIGNALLED if signalled is SignalResult.YES else await self._restart(row, now)
        )

    async def _signal(self, row: OverdueMessage) -> SignalResult:
        """Let a runner that lives look at its message again."""
        owner = row.owner
        if owner is None:
            return SignalResult.NOT_RUNNING
        signalled = await self._workflow_client.signal(owner, _LOOK)
        if signalled is SignalResult.YES:
            async with self._database.begin() as connection:
                messages.reschedule_check(
                    connection, [row.id], deadlines.reconcile_again_at(datetime.now(UTC))
                )
        return signalled

    async def _restart(self, row: OverdueMessage, now: datetime) -> _Outcome:
        """Take the message over from a runner that is gone, and start a new one."""
        message_id = row.id
        public = public_id(IdPrefix.MESSAGE, message_id)
        async with self._database.begin() as connection:
            epoch = await messages.take_over(
                connection,
                message_id,
                row.epoch,
                send_workflow_id(public),
                deadlines.reconcile_again_at(now),
            )
            message = await messages.stored(connection, message_id)
            if epoch is None or message is None:
                return _Outcome.OVER_OR_TAKEN
            events.append(
                connection,
                message_id,
                "taken_over",
                actor="reconciler",
                at=now,
                detail={"epoch": epoch},
            )
        started = await self._workflow_client.start_send(
            message_id,
            epoch,
            mode=message.mode,
            country=message.country,
            account=message.account_id,
            priority=message.priority,
        )
        if started:
            return _Outcome.RESTARTED
        async with self._database.begin() as connection:
            messages.reschedule_check(
                connection, [message_id], deadlines.reconcile_start_at(datetime.now(UTC))
            )
        return _Outcome.NOT_YET


def all_checked(database: Database, workflow_client: WorkflowClient) -> Sequence[Checked]:
    """Every kind of row that carries a `check_by`."""
    return CheckedMessages(database, workflow_client), CheckedBulks(database, workflow_client)

"""Records the outcomes of bulk attempts, together with the receipts that arrived before them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from domain import deadlines
from domain.ids import IdPrefix, public_id
from domain.receipts import ReceiptState
from domain.states import MessageStatus
from services.configuration import Configurations
from services.group_commit import GroupCommit
from services.outcomes import until_written
from services.receipt_correlator import PendingOutcomes, ReceiptCorrelator
from services.routes import unknown_until
from services.transitions import TransitionPublisher
from store import attempts
from store.attempts import AttemptChange
from store.database import Database
from store.events import WORKFLOW
from store.transitions import Transition, lock
from telemetry import metrics

_MOST_OUTCOMES: Final = 5000
"""Outcomes in one commit; seldom so many are gathered."""


class OutcomeRecorder:
    """Writes outcomes of many attempts at one provider in one transaction."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        publisher: TransitionPublisher,
        correlator: ReceiptCorrelator,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._publisher = publisher
        self._correlator = correlator

    def pending(self, provider: str) -> PendingOutcomes:
        """An empty set of responses of this provider that are about to be written."""
        return self._correlator.responses(provider)

    async def record(
        self, provider: str, changes: Sequence[AttemptChange], pending: PendingOutcomes
    ) -> None:
        """Write outcomes, then match receipts that arrived before them.

        While the database is away, outcomes are kept and retried. Receipts that were held for them are
        returned to be written by themselves.

        Raises:
            DatabaseAway: it was away for five minutes.
            psycopg.Error: Postgres refuses one of the outcomes; none was written.
        """
        transitions, _ = await until_written(
            lambda: self._record(provider, changes, pending),
            message_id=_the_only(changes),
            provider=provider,
        )
        self._publisher.publish(transitions)
        delivered = _delivered(transitions)
        ids = [
            part.provider_message_id
            for change in changes
            if change.message_id not in delivered
            for part in change.parts
        ]
        self._publisher.afterwards(self._correlator.rematch(provider, ids))

    async def _record(
        self, provider: str, changes: Sequence[AttemptChange], pending: PendingOutcomes
    ) -> list[Transition]:
        now = datetime.now(UTC)
        with pending.receipts() as (kept, written):
            async with self._database.begin() as connection:
                lock(connection, sorted({change.message_id for change in changes}))
                transitions = await self._correlator.record_delivered(
                    connection, provider, changes, kept, actor=WORKFLOW, at=now
                )
                done = {message_id for transition in transitions for message_id in transition.ids}
                transitions += await attempts.record_and_refresh(
                    connection,
                    [change for change in changes if change.message_id not in done],
                    actor=WORKFLOW,
                    at=now,
                    check_by=deadlines.reconcile_at(now),
                    unknown_until=unknown_until(self._configurations.current, provider, now),
                )
            written.update(
                part.provider_message_id
                for change in changes
                if change.message_id in done
                for part in change.parts
                if part.provider_message_id is not None
            )
        # Their delay is 0: they arrived before the responses were recorded.
        metrics.receipts_came(
            provider=provider,
            state=ReceiptState.DELIVERED,
            matched=True,
            count=len(written),
            seconds=0,
        )
        return transitions


class Outcomes:
    """Writes outcomes of a provider's attempts by group commit.

    Args:
        recorder: writes them.
        provider: its name.
        gather: as that of `GroupCommit`.
    """

    def __init__(
        self,
        recorder: OutcomeRecorder,
        provider: str,
        gather: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._recorder = recorder
        self._provider = provider
        self._pending = recorder.pending(provider)
        self._commits: GroupCommit[AttemptChange, None] = GroupCommit(
            self._write, most=_MOST_OUTCOMES, gather=gather
        )

    def __len__(self) -> int:
        """How many wait to be written."""
        return len(self._commits)

    def submit(self, change: AttemptChange) -> asyncio.Future[None]:
        """Have an outcome written; its future raises if it could not be."""
        self._pending.add(part.provider_message_id for part in change.parts)
        return self._commits.submit(change)

    async def drained(self) -> None:
        """Wait until each outcome is written, or cannot be."""
        await self._commits.drained()

    async def _write(self, changes: Sequence[AttemptChange]) -> Sequence[None]:
        pending, self._pending = self._pending, self._recorder.pending(self._provider)
        try:
            await self._recorder.record(self._provider, changes, pending)
        finally:
            pending.written()
        return [None] * len(changes)


def _delivered(transitions: Iterable[Transition]) -> set[UUID]:
    """The messages that are delivered by these transitions."""
    return {
        message_id
        for transition in transitions
        if transition.status is MessageStatus.DELIVERED
        for message_id in transition.ids
    }


def _the_only(changes: Sequence[AttemptChange]) -> str | None:
    """The message's id for the log, if there is only one change."""
    return public_id(IdPrefix.MESSAGE, changes[0].message_id) if len(changes) == 1 else None

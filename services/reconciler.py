"""The reconciler: whatever should have happened to a row and did not is made to happen.

Every message that is not final carries `check_by`, or the bulk that it is of does for all of them. One
past it has lost its runner (Temporal was away when it was accepted, or lost its database), or its
runner lost a signal.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from domain.states import MessageStatus
from services.callbacks.management import Callbacks
from services.receipts import ReceiptIntake
from services.reconciler_kinds import Checked, TakenUp
from services.retention import Retention
from store import idempotency, messages
from store.database import Database
from store.receipts.unmatched import unmatched_counts
from telemetry import metrics
from telemetry.logs import get_logger

_log = get_logger(__name__)
_T = TypeVar("_T")

LONGEST_STEP: Final = timedelta(seconds=30)
"""After that a step has failed, and the next one begins."""

_COUNTING_REST: Final = 50
"""How many times as long as a count takes passes between two."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one round found; `more` is whether another round should follow at once."""

    reminded: int = 0
    restarted: int = 0
    matched: int = 0
    more: bool = False


class Reconciler:
    """What `ReconcilerWorkflow` does, round after round.

    Args:
        database: where all rows are.
        checked: the kinds of rows that carry a `check_by`, in the order in which they are taken up.
        callbacks: whose lanes may have lost a wake-up.
        receipts: which may have come before their parts.
        retention: deletes what is old.
    """

    def __init__(
        self,
        database: Database,
        checked: Sequence[Checked],
        callbacks: Callbacks,
        receipts: ReceiptIntake,
        retention: Retention,
    ) -> None:
        self._database = database
        self._checked = checked
        self._callbacks = callbacks
        self._receipts = receipts
        self._retention = retention
        self._count_from = 0.0

    async def mark_everything_due(self) -> None:
        """Let the next sweeps look at every open row, whenever its own time would come."""
        now = datetime.now(UTC)
        made_due = sum([await checked.make_all_due(now) for checked in self._checked])
        _log.info("open_messages_marked_due", count=made_due)

    async def sweep(self) -> SweepResult:
        """One round: overdue rows, receipts, callbacks, what is old, and the counts of all that.

        A step that fails is logged and counted, and the next one follows: no step can stop those
        behind it.
        """
        now = datetime.now(UTC)
        total, more = TakenUp(), False
        for checked in self._checked:
            taken_up = await self._step(checked.name, checked.take_up(now))
            if taken_up is not None:
                total += taken_up
                more = more or taken_up.more
        matched = await self._step("late_receipts", self._receipts.match_late(now))
        await self._step("callbacks", self._callbacks.sweep(now))
        await self._step("retention", self._retention.delete(now))
        await self._step("partitions", self._retention.turn_partitions(now))
        await self._step("idempotency_keys", self._expire_keys(now))
        await self._step("unmatched_receipts", self._count_unmatched(now))
        await self._step("open_messages", self._count_open())
        metrics.sweep_done(overdue=total.overdue)
        if total.restarted or total.signalled:
            metrics.message_reconciled("runner_gone", total.restarted)
            metrics.message_reconciled("reminded", total.signalled)
            _log.info("reconciled", restarted=total.restarted, reminded=total.signalled)
        return SweepResult(total.signalled, total.restarted, matched or 0, more=more)

    async def _step(self, name: str, work: Awaitable[_T]) -> _T | None:
        """Do one step within its limit; None if it failed."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_STEP.total_seconds()):
                result = await work
        except Exception as error:  # noqa: BLE001 - whatever it is, the other steps have to follow
            _log.error("reconciler_step_failed", step=name, error_type=type(error).__name__)
            metrics.reconciler_step(name, failed=True, seconds=time.monotonic() - began)
            return None
        metrics.reconciler_step(name, failed=False, seconds=time.monotonic() - began)
        return result

    async def _expire_keys(self, now: datetime) -> None:
        async with self._database.begin(within=LONGEST_STEP) as connection:
            idempotency.expire(connection, now)

    async def _count_unmatched(self, now: datetime) -> None:
        async with self._database.begin(within=LONGEST_STEP) as connection:
            unmatched = await unmatched_counts(connection, now)
        metrics.unmatched_receipts_counted({name: n.waiting for name, n in unmatched.items()})

    async def _count_open(self) -> None:
        """Count what is open, in a fiftieth of the time at most: it takes longer the more there is."""
        began = time.monotonic()
        if began < self._count_from:
            return
        async with self._database.begin(within=LONGEST_STEP) as connection:
            counts = await messages.open_counts(connection)
        ended = time.monotonic()
        self._count_from = ended + _COUNTING_REST * (ended - began)
        metrics.open_messages_counted({status: counts.get(status, 0) for status in _OPEN})


_OPEN: Final = (
    MessageStatus.SCHEDULED,
    MessageStatus.QUEUED,
    MessageStatus.SENDING,
    MessageStatus.SENT,
    MessageStatus.UNKNOWN,
    MessageStatus.RETRIED,
)

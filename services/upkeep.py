"""The reconciler: whatever should have happened to a message and did not is made to happen.

Every message that is not final carries `check_by`, or the bulk that it is of does for all of them. One
past it has lost its runner (Temporal was away when it was accepted, or lost its database), or its
runner lost a signal.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from uuid import UUID

from domain.ids import IdPrefix, public_id
from domain.states import MessageStatus
from services.bulk import extent_of
from services.callbacks import Callbacks
from services.orchestration import Orchestration, Told
from services.receipts import ReceiptIntake
from services.retention import Retention
from services.starts import START_GRACE
from store import bulks, events, idempotency, messages, receipts
from store.database import Database, Row
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.ports.bulk import bulk_workflow_id, is_bulk
from workflows.ports.send import MessageChanged, send_workflow_id

_log = get_logger(__name__)

BATCH = 200
AT_ONCE = 8
"""How many messages are taken up side by side; each takes two round trips to the database."""

LOOK_AGAIN = timedelta(seconds=60)
"""When a message whose runner lives, or was just started, is looked at again."""

_COUNTING_REST = 50
"""How many times as long as a count takes passes between two."""

UNMATCHED_SINCE = timedelta(days=3)
UNMATCHED_UNTIL = timedelta(seconds=5)


class _TakenUp(Enum):
    """What was done about a message of which nothing was heard."""

    REMINDED = auto()
    RESTARTED = auto()
    OVER_OR_TAKEN = auto()
    """It moved on while we looked."""
    NOT_YET = auto()
    """Temporal is away, or came back this moment."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round found; `more` tells that another round is worth it at once."""

    reminded: int = 0
    restarted: int = 0
    matched: int = 0
    more: bool = False


class Upkeep:
    """What `UpkeepWorkflow` does, round after round."""

    def __init__(
        self,
        database: Database,
        orchestration: Orchestration,
        callbacks: Callbacks,
        receipts: ReceiptIntake,
        retention: Retention,
    ) -> None:
        self._database = database
        self._orchestration = orchestration
        self._callbacks = callbacks
        self._receipts = receipts
        self._retention = retention
        self._count_from = 0.0

    async def doubt_everything(self) -> None:
        """Let the next sweeps ask after every open message, whenever its own time would come."""
        async with self._database.begin() as connection:
            now = datetime.now(UTC)
            doubted = await messages.doubt_all(connection, now)
            doubted += await bulks.doubt_all(connection, now)
        _log.info("open_messages_doubted", count=doubted)

    async def sweep(self) -> Swept:
        """One round over messages, receipts, callbacks, idempotency keys, and what is old."""
        now = datetime.now(UTC)
        async with self._database.begin() as connection:
            overdue = await messages.overdue(connection, now, BATCH)
            overdue_bulks = await bulks.overdue(connection, now, BATCH)
        of_bulks = {row["bulk_id"] for row in overdue if is_bulk(row["owner"] or "")}
        single = [row for row in overdue if not is_bulk(row["owner"] or "")]
        taken_up = await self._take_up_bulks({*overdue_bulks, *of_bulks}, of_bulks, now)
        taken_up += await self._take_up_all(single, now)
        reminded, restarted = taken_up[_TakenUp.REMINDED], taken_up[_TakenUp.RESTARTED]
        matched = await self._receipts.match_late(now - UNMATCHED_SINCE, now - UNMATCHED_UNTIL)
        await self._callbacks.sweep(now)
        await self._retention.delete(now)
        await self._retention.turn_partitions(now)
        async with self._database.begin() as connection:
            idempotency.expire(connection, now)
            alone = await receipts.count_unmatched(
                connection, now - UNMATCHED_SINCE, now - UNMATCHED_UNTIL
            )
        await self._count_open()
        metrics.upkeep_done(overdue=len(overdue) + len(overdue_bulks), unmatched_receipts=alone)
        if restarted or reminded:
            metrics.message_reconciled("runner_gone", restarted)
            metrics.message_reconciled("reminded", reminded)
            _log.info("reconciled", restarted=restarted, reminded=reminded)
        more = BATCH in {len(overdue), len(overdue_bulks)} and not taken_up[_TakenUp.NOT_YET]
        return Swept(reminded, restarted, matched, more=more)

    async def _count_open(self) -> None:
        """Count what is open, in a fiftieth of the time at most: it takes longer the more there is."""
        began = time.monotonic()
        if began < self._count_from:
            return
        async with self._database.begin() as connection:
            counts = await messages.open_counts(connection)
        ended = time.monotonic()
        self._count_from = ended + _COUNTING_REST * (ended - began)
        metrics.open_messages_counted({status: counts.get(status.value, 0) for status in _OPEN})

    async def _take_up_bulks(
        self, overdue: Collection[UUID], by_messages: Collection[UUID], now: datetime
    ) -> Counter[_TakenUp]:
        """Have the runners of bulks look at their messages again, and start those that are gone.

        Of those that are overdue `by_messages` the messages have times of their own.
        """
        taken_up: Counter[_TakenUp] = Counter()
        for bulk_id in overdue:
            outcome = await self._take_up_bulk(bulk_id)
            taken_up[outcome] += 1
            if outcome is _TakenUp.NOT_YET:
                break
            async with self._database.begin() as connection:
                bulks.check_again(connection, bulk_id, now, now + LOOK_AGAIN)
                if bulk_id in by_messages and (bulk := await bulks.stored(connection, bulk_id)):
                    bulks.check(connection, bulk_id, now + LOOK_AGAIN)
                    bulks.take_checks(connection, extent_of(bulk))
        return taken_up

    async def _take_up_bulk(self, bulk_id: UUID) -> _TakenUp:
        public = public_id(IdPrefix.BATCH, bulk_id)
        told = await self._orchestration.tell_send(
            bulk_workflow_id(public), MessageChanged(MessageStatus.QUEUED.value, final=False)
        )
        if told is Told.NOT_RUNNING:
            started = await self._orchestration.start_bulk(public)
            return _TakenUp.RESTARTED if started else _TakenUp.NOT_YET
        return _TakenUp.REMINDED if told is Told.YES else _TakenUp.NOT_YET

    async def _take_up_all(self, overdue: Sequence[Row], now: datetime) -> Counter[_TakenUp]:
        """Take messages up until all are, or until Temporal does not answer."""
        taken_up: Counter[_TakenUp] = Counter()
        for first in range(0, len(overdue), AT_ONCE):
            some = overdue[first : first + AT_ONCE]
            taken_up.update(await asyncio.gather(*(self._take_up(row, now) for row in some)))
            if taken_up[_TakenUp.NOT_YET]:
                break  # the rest stays overdue, and is the next round's
        return taken_up

    async def _take_up(self, row: Row, now: datetime) -> _TakenUp:
        told = await self._remind(row)
        if told is Told.TEMPORAL_AWAY:
            return _TakenUp.NOT_YET
        return _TakenUp.REMINDED if told is Told.YES else await self._restart(row, now)

    async def _remind(self, row: Row) -> Told:
        """Let a runner that lives look at its message again."""
        owner = row["owner"]
        if owner is None:
            return Told.NOT_RUNNING
        told = await self._orchestration.tell_send(
            owner, MessageChanged(MessageStatus.QUEUED.value, final=False)
        )
        if told is Told.YES:
            async with self._database.begin() as connection:
                messages.push_check(connection, [row["id"]], datetime.now(UTC) + LOOK_AGAIN)
        return told

    async def _restart(self, row: Row, now: datetime) -> _TakenUp:
        """Take the message over from a runner that is gone, and start a new one."""
        message_id: UUID = row["id"]
        public = public_id(IdPrefix.MESSAGE, message_id)
        async with self._database.begin() as connection:
            epoch = await messages.take_over(
                connection, message_id, row["epoch"], send_workflow_id(public), now + LOOK_AGAIN
            )
            message = await messages.stored(connection, message_id)
            if epoch is None or message is None:
                return _TakenUp.OVER_OR_TAKEN
            events.append(
                connection,
                message_id,
                "taken_over",
                actor="reconciler",
                at=now,
                detail={"epoch": epoch},
            )
        started = await self._orchestration.start_send(
            message_id,
            epoch,
            mode=message["mode"],
            country=message["country"],
            account=message["account_id"],
        )
        if started:
            return _TakenUp.RESTARTED
        async with self._database.begin() as connection:
            messages.push_check(connection, [message_id], datetime.now(UTC) + START_GRACE)
        return _TakenUp.NOT_YET


_OPEN = (
    MessageStatus.SCHEDULED,
    MessageStatus.HELD,
    MessageStatus.QUEUED,
    MessageStatus.SENDING,
    MessageStatus.SENT,
    MessageStatus.UNKNOWN,
    MessageStatus.RETRIED,
)

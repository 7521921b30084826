"""The reconciler: whatever should have happened to a message and did not is made to happen.

Every message that is not final carries `check_by`. One past it has lost its runner (Temporal was
away when it was accepted, or lost its database), or its runner lost a signal.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.ids import IdPrefix, public_id
from domain.states import MessageStatus
from services.callbacks import Callbacks
from services.orchestration import Orchestration, Told
from services.receipts import ReceiptIntake
from store import events, idempotency, messages
from store.database import Database, Row
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.send import MessageChanged, send_workflow_id

_log = get_logger(__name__)

BATCH = 200
LOOK_AGAIN = timedelta(seconds=60)
"""When a message whose runner lives, or was just started, is looked at again."""

UNMATCHED_SINCE = timedelta(days=3)
UNMATCHED_UNTIL = timedelta(seconds=5)


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
    ) -> None:
        self._database = database
        self._orchestration = orchestration
        self._callbacks = callbacks
        self._receipts = receipts

    async def sweep(self) -> Swept:
        """One round over messages, receipts, callbacks and idempotency keys."""
        now = datetime.now(UTC)
        async with self._database.begin() as connection:
            overdue = await messages.overdue(connection, now, BATCH)
        reminded = restarted = 0
        for row in overdue:
            if await self._remind(row):
                reminded += 1
            elif await self._restart(row, now):
                restarted += 1
        matched = await self._receipts.match_late(now - UNMATCHED_SINCE, now - UNMATCHED_UNTIL)
        await self._callbacks.sweep(now)
        async with self._database.begin() as connection:
            await idempotency.expire(connection, now)
            counts = await messages.open_counts(connection)
        metrics.open_messages_counted({status: counts.get(status.value, 0) for status in _OPEN})
        if restarted or reminded:
            metrics.message_reconciled("runner_gone", restarted)
            metrics.message_reconciled("reminded", reminded)
            _log.info("reconciled", restarted=restarted, reminded=reminded)
        return Swept(reminded, restarted, matched, more=len(overdue) == BATCH)

    async def _remind(self, row: Row) -> bool:
        """Let a runner that lives look at its message again; False if there is none."""
        owner = row["owner"]
        if owner is None:
            return False
        told = await self._orchestration.tell_send(
            owner, MessageChanged(MessageStatus.QUEUED.value, final=False)
        )
        if told is Told.NOT_RUNNING:
            return False
        async with self._database.begin() as connection:
            await messages.push_check(connection, [row["id"]], datetime.now(UTC) + LOOK_AGAIN)
        return True

    async def _restart(self, row: Row, now: datetime) -> bool:
        """Take the message over from a runner that is gone, and start a new one."""
        message_id: UUID = row["id"]
        public = public_id(IdPrefix.MESSAGE, message_id)
        async with self._database.begin() as connection:
            epoch = await messages.take_over(
                connection, message_id, row["epoch"], send_workflow_id(public), now + LOOK_AGAIN
            )
            if epoch is None:
                return False
            message = await messages.stored(connection, message_id)
            if message is None:
                return False
            await events.append(
                connection,
                message_id,
                "taken_over",
                actor="reconciler",
                at=now,
                detail={"epoch": epoch},
            )
        return await self._orchestration.start_send(
            message_id,
            epoch,
            mode=message["mode"],
            country=message["country"],
            account=message["account_id"],
        )


_OPEN = (
    MessageStatus.SCHEDULED,
    MessageStatus.HELD,
    MessageStatus.QUEUED,
    MessageStatus.SENDING,
    MessageStatus.SENT,
    MessageStatus.UNKNOWN,
    MessageStatus.RETRIED,
)

"""Receipts on their way in: gathered, committed, and only then answered."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from domain.ids import IdPrefix, parse_id, public_id
from domain.numbers import InvalidNumber, parse_number
from providers.base import ReceivedReceipt
from services.announcements import Announcements
from services.meeting import GRACE, RECEIPT_ERROR_NAMES, Meeting
from services.recipients import RecipientHash
from store import receipts as store
from store.database import Database, Row
from store.receipts import Matched, Met, StoredReceipt
from store.transitions import Transition
from telemetry import metrics
from telemetry.logs import get_logger
from telemetry.tracing import SpanKind, span

_log = get_logger(__name__)

_MOST_IN_A_BATCH = 500
# Carriers give back the E.164 number that they were given; reading it anew takes ten times as long as
# all else that is done with a receipt.
_AS_ACCEPTED = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)


@dataclass
class _Waiting:
    """One provider's receipts that are not committed yet."""

    receipts: list[tuple[StoredReceipt, asyncio.Future[None]]] = field(default_factory=list)
    flusher: asyncio.Task[None] | None = None


class ReceiptIntake:
    """Stores receipts in batches: whatever came while the last batch was being written is the next.

    A quiet provider's receipt is written at once, a busy one's share a transaction.
    """

    def __init__(
        self,
        database: Database,
        announcements: Announcements,
        meeting: Meeting,
        recipient_hash: RecipientHash,
    ) -> None:
        self._database = database
        self._announcements = announcements
        self._meeting = meeting
        self._recipient_hash = recipient_hash
        self._waiting: dict[str, _Waiting] = {}

    def take(self, received: ReceivedReceipt) -> asyncio.Future[None]:
        """Done once the receipt is committed; whoever sent it may be answered then.

        Raises:
            Exception: it was not stored: the sender has to keep it and send it again.
        """
        now = datetime.now(UTC)
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._meeting.keep(received, now, partial(self._met, received, now, committed)):
            self._wait(received, now, committed)
        return committed

    def _met(
        self,
        received: ReceivedReceipt,
        at: datetime,
        committed: asyncio.Future[None],
        was_written: bool,
    ) -> None:
        if not was_written:
            self._wait(received, at, committed)
        elif not committed.done():
            committed.set_result(None)

    def _wait(
        self, received: ReceivedReceipt, at: datetime, committed: asyncio.Future[None]
    ) -> None:
        """Have a receipt written with the next ones."""
        receipt = self._to_store(received, at)
        waiting = self._waiting.setdefault(receipt.provider, _Waiting())
        waiting.receipts.append((receipt, committed))
        if waiting.flusher is None or waiting.flusher.done():
            waiting.flusher = asyncio.create_task(self._flush(receipt.provider, waiting))

    async def take_reported(self, received: ReceivedReceipt) -> None:
        """As `take`, from a carrier that may name the message by our id instead of its own.

        Such a receipt is about the whole message: every part of its last attempt there gets it.
        """
        ours = parse_id(IdPrefix.MESSAGE, received.provider_message_id)
        parts: Sequence[Row] = ()
        if ours is not None:
            async with self._database.begin() as connection:
                parts = await store.parts_at(connection, received.provider, ours)
        about = [
            replace(
                received,
                provider_message_id=part["provider_message_id"]
                or f"{received.provider_message_id}/{part['number']}",
                reference=part["reference"],
            )
            for part in parts
        ]
        await asyncio.gather(*(self.take(receipt) for receipt in about or [received]))

    async def match_late(self, since: datetime, until: datetime) -> int:
        """Look once more for the parts of receipts that met none; how many were found.

        Neither side of the race can miss the other, but a part may be in doubt when its receipt
        comes, and only be the sole candidate later.
        """
        async with self._database.begin() as connection:
            unmatched = await store.unmatched(connection, since, until)
        total = 0
        for provider, ids in unmatched.items():
            async with self._database.begin() as connection:
                found = await store.match_late(
                    connection,
                    provider,
                    ids,
                    at=datetime.now(UTC),
                    errors=RECEIPT_ERROR_NAMES,
                    recheck=GRACE,
                )
            self._announcements.tell(found.transitions)
            total += len(found.met)
        return total

    def _to_store(self, received: ReceivedReceipt, at: datetime) -> StoredReceipt:
        return StoredReceipt(
            provider=received.provider,
            provider_message_id=received.provider_message_id,
            state=received.state,
            code=received.code,
            received_at=at,
            network=received.network,
            reference=received.reference,
            sender=received.sender,
            number_hash=self._hash(received.recipient),
            done_at=received.done_at,
        )

    def _hash(self, recipient: str | None) -> bytes | None:
        if recipient is None:
            return None
        if _AS_ACCEPTED.fullmatch(recipient):
            return self._recipient_hash.of(recipient)
        try:
            return self._recipient_hash.of(parse_number(recipient).e164)
        except InvalidNumber:
            return None

    async def _flush(self, provider: str, waiting: _Waiting) -> None:
        while waiting.receipts:
            batch = waiting.receipts[:_MOST_IN_A_BATCH]
            del waiting.receipts[:_MOST_IN_A_BATCH]
            await self._meeting.until_written(
                provider, [receipt.provider_message_id for receipt, _ in batch]
            )
            try:
                ingested = await self._write(provider, [receipt for receipt, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, the senders must hear of it
                _log.warning(
                    "receipts_not_stored", provider=provider, error_type=type(error).__name__
                )
                for _, committed in batch:
                    if not committed.done():
                        committed.set_exception(ReceiptNotStored())
                continue
            for _, committed in batch:
                if not committed.done():
                    committed.set_result(None)
            self._announcements.tell(ingested.transitions)
            stored = [receipt for receipt, _ in batch]
            self._announcements.afterwards(self._look_again(provider, stored, ingested))

    async def _write(self, provider: str, batch: list[StoredReceipt]) -> Matched:
        async with self._database.begin() as connection:
            return await store.ingest(
                connection,
                provider,
                batch,
                at=datetime.now(UTC),
                errors=RECEIPT_ERROR_NAMES,
                recheck=GRACE,
            )

    async def _look_again(
        self, provider: str, batch: list[StoredReceipt], ingested: Matched
    ) -> None:
        again = await self._meeting.look_again(provider, ingested.alone)
        met, moves = (*ingested.met, *again.met), (*ingested.transitions, *again.transitions)
        self._measure(provider, batch, met, moves)

    def _measure(
        self,
        provider: str,
        batch: list[StoredReceipt],
        met: Sequence[Met],
        moves: Sequence[Transition],
    ) -> None:
        for each in met:
            metrics.receipts_came(
                provider=provider, state=each.state, matched=True, seconds=each.seconds
            )
        alone = Counter(receipt.state for receipt in batch)
        alone.subtract(each.state for each in met)
        for state in alone.elements():
            metrics.receipts_came(provider=provider, state=state, matched=False)
        for move in moves:
            if move.message_id is None:
                continue  # many moves at once are no part of one message's trace
            with span(
                "receipt",
                parent=move.traceparent,
                kind=SpanKind.SERVER,
                message_id=public_id(IdPrefix.MESSAGE, move.message_id),
                provider=provider,
                code=move.code,
            ):
                pass


class ReceiptNotStored(Exception):
    """The database did not take a receipt; the carrier keeps it and sends it again."""

    loggable = True

    def __init__(self) -> None:
        super().__init__("the receipt was not stored: send it again")

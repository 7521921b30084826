"""Receipts on their way in: gathered, committed, and only then answered."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import psycopg

from domain.ids import IdPrefix, parse_id, public_id
from domain.numbering import has_possible_length
from domain.numbers import InvalidNumber, parse_number
from domain.receipts import (
    LONGEST_ADDRESS,
    LONGEST_CODE,
    LONGEST_ID,
    ReceiptState,
    next_match_at,
    storable,
    storable_time,
)
from providers.base import ReceiptRefused, ReceivedReceipt
from services.group_commit import REFUSED, GroupCommit
from services.receipt_correlator import ReceiptCorrelator
from services.receipt_rules import ReceiptRules
from services.recipients import RecipientHash
from services.transitions import TransitionPublisher
from store.database import DATABASE_ERRORS, Connection, Database
from store.receipts import reads, unmatched
from store.receipts.apply import Met
from store.receipts.ingest import StoredReceipt, ingest
from store.receipts.match import Matched, match
from store.receipts.named import ingest_named, match_named
from store.receipts.reads import SubmittedPart
from store.receipts.unmatched import DueReceipt
from store.transitions import Transition
from telemetry import metrics
from telemetry.logs import get_logger
from telemetry.tracing import SpanKind, span

_log = get_logger(__name__)

_MOST_IN_A_COMMIT = 500
_MOST_DUE = 1000
_MOST_DUE_AT_ONCE = 250

# Values that can never be stored (`ProgramLimitExceeded`: too long for an index). Another refusal, such as
# one by a schema that is newer than this process, may be over when the receipt comes again.
_UNSTORABLE = (
    psycopg.DataError,
    psycopg.errors.ProgramLimitExceeded,
    OverflowError,
    ValueError,
)

# Carriers give back the E.164 number that they were given; reading it anew takes ten times as long as
# all else that is done with a receipt.
_AS_ACCEPTED = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)


class ReceiptIntake:
    """Stores receipts by group commit: a quiet provider's at once, a busy one's many at a time."""

    def __init__(
        self,
        database: Database,
        publisher: TransitionPublisher,
        correlator: ReceiptCorrelator,
        rules: ReceiptRules,
        recipient_hash: RecipientHash,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._correlator = correlator
        self._rules = rules
        self._recipient_hash = recipient_hash
        self._commits: dict[tuple[str, bool], GroupCommit[StoredReceipt, None]] = {}

    def take(
        self, received: ReceivedReceipt, received_at: datetime | None = None
    ) -> asyncio.Future[None]:
        """Done once the receipt is committed; whoever sent it may be answered then.

        `received_at` is when it came, where that was not just now.

        Raises:
            ReceiptRefused: it can never be stored: the sender need not send it again.
            ReceiptNotStored: it was not stored: the sender has to keep it and send it again.
        """
        receipt = self._to_store(received, received_at or datetime.now(UTC))
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._correlator.hold(receipt, partial(self._met, receipt, committed)):
            self._wait(receipt, committed)
        return committed

    def _met(
        self, receipt: StoredReceipt, committed: asyncio.Future[None], was_written: bool
    ) -> None:
        if not was_written:
            self._wait(receipt, committed)
        elif not committed.done():
            committed.set_result(None)

    def _wait(self, receipt: StoredReceipt, committed: asyncio.Future[None]) -> None:
        """Have a receipt written with the next ones of its provider."""
        # Receipts that name their part are written by statements of their own.
        key = receipt.provider, receipt.part is not None
        commits = self._commits.get(key)
        if commits is None:
            write = partial(self._write_named if key[1] else self._write, receipt.provider)
            commits = self._commits[key] = GroupCommit(write, most=_MOST_IN_A_COMMIT)
        commits.submit(receipt, committed)

    async def take_reported(self, received: ReceivedReceipt) -> None:
        """As `take`, from a carrier that may name the message by our id instead of its own.

        Such a receipt is about the whole message: every part of its last attempt there gets it.
        """
        ours = parse_id(IdPrefix.MESSAGE, received.provider_message_id)
        parts: Sequence[SubmittedPart] = ()
        if ours is not None:
            async with self._database.begin() as connection:
                parts = await reads.parts_at(connection, received.provider, ours)
        about = [
            replace(
                received,
                provider_message_id=part.provider_message_id
                or f"{received.provider_message_id}/{part.number}",
                reference=part.reference,
            )
            for part in parts
        ]
        await asyncio.gather(*(self.take(receipt) for receipt in about or [received]))

    async def match_late(self, now: datetime) -> int:
        """Match receipts again that matched no part yet and are due; how many were matched.

        Neither side of the race can miss the other, but a part may become unknown after its receipt
        came, and only then be the one that the receipt can be for.
        """
        async with self._database.begin() as connection:
            due = await unmatched.due(connection, now, _MOST_DUE)
            former = await self._former_providers(connection) if due else ()
        by_provider: dict[str, list[DueReceipt]] = {}
        for receipt in due:
            by_provider.setdefault(receipt.provider, []).append(receipt)
        total = 0
        for provider, receipts in by_provider.items():
            for first in range(0, len(receipts), _MOST_DUE_AT_ONCE):
                some = receipts[first : first + _MOST_DUE_AT_ONCE]
                total += await self._match_again(provider, some, former, now)
        return total

    async def _match_again(
        self, provider: str, receipts: Sequence[DueReceipt], former: Sequence[str], now: datetime
    ) -> int:
        """Match one provider's; what fails is logged, and its receipts wait like any others."""
        named = {each.id: each.named_message_id for each in receipts if each.named_message_id}
        others = [each for each in receipts if each.id not in named]
        names, effects = self._rules.providers(provider), self._rules.effects()
        met = 0
        if named:
            met += await self._matched(
                provider,
                lambda connection: match_named(
                    connection, names, set(named.values()), list(named), effects, at=now
                ),
            )
        if others:
            met += await self._matched(
                provider,
                lambda connection: match(
                    connection,
                    names,
                    {receipt.provider_message_id for receipt in others},
                    effects,
                    at=now,
                    former=former,
                    came=[receipt.id for receipt in others],
                ),
            )
        async with self._database.begin() as connection:
            given_up = await unmatched.put_off(
                connection,
                [(each, next_match_at(each.received_at, each.tries + 1, now)) for each in receipts],
            )
        for name, count in given_up.items():
            metrics.receipts_never_matched(name, count)
            _log.warning("receipts_never_matched", provider=name, count=count)
        return met

    async def _matched(
        self, provider: str, matching: Callable[[Connection], Awaitable[Matched]]
    ) -> int:
        """Match receipts in a transaction; how many were matched, 0 where it failed."""
        try:
            async with self._database.begin() as connection:
                matched = await matching(connection)
        except DATABASE_ERRORS as error:
            _log.error("receipts_not_matched", provider=provider, error_type=type(error).__name__)
            return 0
        self._publisher.publish(matched.transitions)
        return len(matched.met)

    async def _former_providers(self, connection: Connection) -> list[str]:
        """Providers that parts were sent by and that are declared no more: they may have a new name."""
        declared = self._rules.declared()
        return [name for name in await unmatched.providers(connection) if name not in declared]

    def _to_store(self, received: ReceivedReceipt, at: datetime) -> StoredReceipt:
        """The receipt as it is stored: whatever a carrier sends becomes something that can be."""
        sender, network = received.sender, received.network
        return StoredReceipt(
            provider=received.provider,
            provider_message_id=storable(received.provider_message_id, LONGEST_ID),
            state=received.state,
            code=storable(received.code, LONGEST_CODE),
            received_at=at,
            network=storable(network, LONGEST_CODE) if network is not None else None,
            reference=received.reference,
            sender=storable(sender, LONGEST_ADDRESS) if sender is not None else None,
            number_hash=self._hash(received.recipient),
            destination_hash=self._hash(sender) if sender and _AS_ACCEPTED.match(sender) else None,
            done_at=storable_time(received.done_at),
            error_class=received.error_class,
            part=received.part,
        )

    def _hash(self, number: str | None) -> bytes | None:
        """The hash of a number, if it is one: what is not international says nothing."""
        if number is None:
            return None
        if _AS_ACCEPTED.fullmatch(number) and has_possible_length(number[1:]):
            return self._recipient_hash.of(number)
        try:
            return self._recipient_hash.of(parse_number(number).e164)
        except InvalidNumber:
            return None

    async def _write(
        self, provider: str, receipts: Sequence[StoredReceipt]
    ) -> Sequence[Exception | None]:
        """Store receipts, when the responses that were quicker are written."""
        await self._correlator.until_written(
            provider, [each.provider_message_id for each in receipts]
        )
        ingested = await self._ingested(provider, receipts, ingest)
        if not isinstance(ingested, Matched):
            return ingested
        self._publisher.publish(ingested.transitions)
        self._publisher.afterwards(self._rematch(provider, receipts, ingested))
        return [None] * len(receipts)

    async def _write_named(
        self, provider: str, receipts: Sequence[StoredReceipt]
    ) -> Sequence[Exception | None]:
        """Store receipts that name their parts; these were claimed before, and are there."""
        ingested = await self._ingested(provider, receipts, ingest_named)
        if not isinstance(ingested, Matched):
            return ingested
        if ingested.waiting:
            _log.warning("named_part_not_found", provider=provider, count=len(ingested.waiting))
        self._publisher.publish(ingested.transitions)
        self._measure(provider, receipts, ingested.met, ingested.copies, ingested.transitions)
        return [None] * len(receipts)

    async def _ingested(
        self,
        provider: str,
        receipts: Sequence[StoredReceipt],
        store: Callable[..., Awaitable[Matched]],
    ) -> Matched | Sequence[Exception]:
        """Store receipts in a transaction; what was matched, or why each receipt was not stored."""
        try:
            async with self._database.begin() as connection:
                return await store(
                    connection,
                    self._rules.providers(provider),
                    receipts,
                    self._rules.effects(),
                    at=datetime.now(UTC),
                )
        except REFUSED as error:
            if len(receipts) > 1:
                raise
            _log.warning("receipt_refused", provider=provider, error_type=type(error).__name__)
            return [ReceiptRefused() if isinstance(error, _UNSTORABLE) else ReceiptNotStored()]
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders must hear of it
            _log.warning("receipts_not_stored", provider=provider, error_type=type(error).__name__)
            return [ReceiptNotStored() for _ in receipts]

    async def _rematch(
        self, provider: str, batch: Sequence[StoredReceipt], ingested: Matched
    ) -> None:
        again = await self._correlator.rematch(provider, ingested.alone, ingested.waiting)
        met, transitions = (*ingested.met, *again.met), (*ingested.transitions, *again.transitions)
        copies = (*ingested.copies, *again.copies)
        self._measure(provider, batch, met, copies, transitions)

    def _measure(
        self,
        provider: str,
        batch: Sequence[StoredReceipt],
        met: Sequence[Met],
        copies: Sequence[ReceiptState],
        transitions: Sequence[Transition],
    ) -> None:
        for each in met:
            metrics.receipts_came(
                provider=provider, state=each.state, matched=True, seconds=each.seconds
            )
        for state in copies:
            metrics.receipts_came(provider=provider, state=state, matched=True)
        alone = Counter(receipt.state for receipt in batch)
        alone.subtract([*(each.state for each in met), *copies])
        for state in alone.elements():
            metrics.receipts_came(provider=provider, state=state, matched=False)
        for transition in transitions:
            if transition.message_id is None:
                continue  # many moves at once are no part of one message's trace
            with span(
                "receipt",
                parent=transition.traceparent,
                kind=SpanKind.SERVER,
                message_id=public_id(IdPrefix.MESSAGE, transition.message_id),
                provider=provider,
                code=transition.code,
            ):
                pass


class ReceiptNotStored(Exception):
    """The database did not take a receipt; the carrier keeps it and sends it again."""

    loggable = True

    def __init__(self) -> None:
        super().__init__("the receipt was not stored: send it again")

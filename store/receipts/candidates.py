"""Reads the receipts that match no part yet, and the parts that they may be for; writes nothing."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from domain.error_classes import ErrorClass
from domain.receipt_matching import (
    CLOCK_SKEW,
    ID_LIFE,
    UNKNOWN_LIFE,
    CandidatePart,
    Match,
    Matcher,
    PartKey,
    ReceiptEvidence,
    Said,
    said,
)
from domain.receipts import ReceiptState
from domain.states import PartStatus
from domain.values import value
from store.database import Connection, Planner
from store.receipts.apply import PartReceipt
from store.rows import Query

ReceiptKey = tuple[date, int]
"""Day and id of a receipt's row."""


@value
class WaitingReceipt:
    """A receipt that matches no part yet."""

    day: date
    id: int
    provider: str
    provider_message_id: str
    state: ReceiptState
    code: str
    error_class: ErrorClass | None
    network: str | None
    reference: int | None
    sender: str | None
    number_hash: bytes | None
    destination_hash: bytes | None
    received_at: datetime
    done_at: datetime | None
    named_message_id: UUID | None
    named_attempt: int | None
    named_part: int | None

    @property
    def key(self) -> ReceiptKey:
        return self.day, self.id

    @property
    def part(self) -> PartKey | None:
        """The part that the receipt itself names, if it does."""
        message_id, attempt, number = self.named_message_id, self.named_attempt, self.named_part
        if message_id is None or attempt is None or number is None:
            return None
        return message_id, attempt, number


@value
class PartRow:
    """A part, with its message's columns, and the receipts that it has rows of (from `states` on)."""

    message_id: UUID
    attempt: int
    number: int
    provider: str
    provider_message_id: str | None
    status: PartStatus
    reference: int
    submitted_at: datetime
    responded_at: datetime | None
    receipt_state: ReceiptState | None
    receipt_code: str | None
    receipt_within: bool
    sender: str
    valid_until: datetime
    number_hash: bytes
    states: tuple[ReceiptState, ...] | None
    codes: tuple[str, ...] | None
    done: tuple[datetime | None, ...] | None
    days: tuple[date, ...] | None
    keys: tuple[int, ...] | None
    awaited: bool

    @property
    def key(self) -> PartKey:
        return self.message_id, self.attempt, self.number


@value
class RecipientPartRow(PartRow):
    """A part that was found by its recipient.

    `crowded` is whether the recipient got so many messages lately that not all their parts are known.
    """

    crowded: bool


_MOST_ALIKE: Final = 100
"""Parts with one id that are looked at: some SMSCs give every message the same."""
_MOST_WAITING: Final = 500
"""Receipts that are matched at once, as many as are stored at once; the new ones are the first of them."""
_MOST_IN_LOOP: Final = 2000
"""Pairs of a receipt and a part that are compared in the event loop; more are in a thread."""
_MOST_TO_RECIPIENT: Final = 200
"""Messages to one recipient that are looked at, the newest; parts with a receipt's id are found anyway."""

WAITING_COLUMNS: Final = """
day, id, provider, provider_message_id, state, code, error_class, network, reference, sender,
number_hash, destination_hash, received_at, done_at, named_message_id, named_attempt, named_part
"""
"""What `WaitingReceipt` has of a row of `receipts`."""

# The receipts with some ids that match no part yet. With `came` only these rows, and those that may be
# for the same recipients: with one id for all messages thousands may wait.
_WAITING = Query.of(
    WaitingReceipt,
    f"""
WITH numbers AS MATERIALIZED (
    SELECT unnest(ARRAY[number_hash, destination_hash]) AS number FROM receipts
    WHERE match_at IS NOT NULL AND named_message_id IS NULL
      AND provider = ANY(CAST(:receivers AS text[]))
      AND provider_message_id = ANY(CAST(:ids AS text[])) AND id = ANY(CAST(:came AS bigint[]))
)
SELECT {WAITING_COLUMNS}
FROM receipts
WHERE match_at IS NOT NULL AND named_message_id IS NULL
  AND provider = ANY(CAST(:receivers AS text[]))
  AND provider_message_id = ANY(CAST(:ids AS text[]))
  AND (CAST(:came AS bigint[]) IS NULL OR id = ANY(CAST(:came AS bigint[])) OR number_hash IS NULL
       OR number_hash IN (SELECT number FROM numbers)
       OR destination_hash IN (SELECT number FROM numbers))
ORDER BY (id = ANY(CAST(:came AS bigint[]))) IS TRUE DESC, received_at DESC, id DESC
LIMIT {_MOST_WAITING}
""",
)

OF_RECIPIENT: Final = """
recipient_id >= c.id AND recipient_id <= c.id ORDER BY recipient_id, id DESC
"""
"""Which messages are those of a recipient `c`, the newest first.

This is `recipient_id = c.id` in a form that only the index on both columns gives in order. With an
equality the planner may read all messages by their ids until it has enough of this recipient's, where
one recipient has most of them. It also needs `IN_ORDER`.
"""
IN_ORDER: Final = Planner("sort")
"""Where it expects few messages of a recipient, the planner would read and sort all of them."""

PART_COLUMNS: Final = """
p.message_id, p.attempt, p.number, p.provider, p.provider_message_id, p.status, p.reference,
p.submitted_at, p.responded_at, p.receipt_state, p.receipt_code, p.receipt_within,
m.sender, m.valid_until, c.number_hash, had.states, had.codes, had.done, had.days, had.keys,
m.verdict IS NULL AND NOT (
    SELECT a.expired FROM attempts a WHERE a.message_id = p.message_id AND a.number = p.attempt
) AS awaited
"""
"""What `PartRow` has of a part `p`, beside its message `m`, its recipient `c`, and `ITS_RECEIPTS`."""
ITS_RECEIPTS: Final = """
LEFT JOIN LATERAL (
    SELECT array_agg(r.state ORDER BY r.id) AS states, array_agg(r.code ORDER BY r.id) AS codes,
           array_agg(r.done_at ORDER BY r.id) AS done, array_agg(r.day ORDER BY r.id) AS days,
           array_agg(r.id ORDER BY r.id) AS keys
    FROM receipts r
    WHERE r.message_id = p.message_id AND r.attempt = p.attempt AND r.part = p.number
) had ON true
"""

_PARTS_BY_ID = Query.of(
    PartRow,
    f"""
SELECT {PART_COLUMNS}
FROM unnest(CAST(:ids AS text[])) AS i (id)
CROSS JOIN LATERAL (
    SELECT * FROM all_parts p
    WHERE p.provider = ANY(CAST(:providers AS text[])) AND p.provider_message_id = i.id
      AND p.submitted_at > CAST(:at AS timestamptz) - CAST(:id_life AS interval)
    LIMIT {_MOST_ALIKE}
) p
JOIN messages m ON m.id = p.message_id
JOIN recipients c ON c.id = m.recipient_id
{ITS_RECEIPTS}
""",
)

# Parts to the recipients of some receipts: those whose id is not known, those with an id of a receipt,
# and all where a receipt has none. Each recipient's messages are read once for all its receipts, and only
# the newest: a person on call may have got thousands, and each of them takes several index lookups. A
# message may have been accepted 35 days before it was submitted. OFFSET 0, so that the parts are looked
# up by their message and never otherwise.
_PARTS_BY_RECIPIENT = Query.of(
    RecipientPartRow,
    f"""
SELECT {PART_COLUMNS}, m.crowded
FROM unnest(CAST(:numbers AS bytea[]), CAST(:first AS timestamptz[]), CAST(:last AS timestamptz[]),
            CAST(:all_ids AS boolean[])) AS n (number_hash, first, last, all_ids)
JOIN recipients c ON c.number_hash = n.number_hash
CROSS JOIN LATERAL (
    SELECT m.*, count(*) OVER () = {_MOST_TO_RECIPIENT}
                AND min(m.accepted_at) OVER () > n.first - CAST(:unknown_life AS interval) AS crowded
    FROM (
        SELECT id, sender, valid_until, verdict, accepted_at FROM messages
        WHERE {OF_RECIPIENT} LIMIT {_MOST_TO_RECIPIENT}
    ) m
) m
CROSS JOIN LATERAL (
    SELECT * FROM all_parts p
    WHERE p.message_id = m.id AND p.provider = ANY(CAST(:providers AS text[]))
      AND p.status IS NOT NULL
      AND p.submitted_at BETWEEN n.first - CAST(:id_life AS interval)
                             AND n.last + CAST(:skew AS interval)
      AND (p.provider_message_id IS NULL OR n.all_ids
           OR p.provider_message_id = ANY(CAST(:ids AS text[])))
    OFFSET 0
) p
{ITS_RECEIPTS}
WHERE m.accepted_at BETWEEN n.first - interval '40 days' AND n.last + CAST(:skew AS interval)
""",
)


class WaitingReceipts(ABC):
    """Receipts that match no part yet, and the parts that they may be for."""

    def __init__(self) -> None:
        self.receipts: dict[ReceiptKey, WaitingReceipt] = {}
        self._parts: dict[PartKey, PartRow] = {}

    @abstractmethod
    async def read(self) -> dict[ReceiptKey, Match]:
        """Read what there is now, and match it; nothing is written."""

    def said(self, key: ReceiptKey) -> Said:
        """What a receipt says."""
        receipt = self.receipts[key]
        return said(receipt.state, receipt.code, receipt.done_at)

    def firsts(self) -> dict[tuple[PartKey, Said], ReceiptKey]:
        """The rows of the receipts that parts have, by what they say."""
        found: dict[tuple[PartKey, Said], ReceiptKey] = {}
        for key, part in self._parts.items():
            days, keys = part.days or (), part.keys or ()
            for its, day, each in zip(_had(part), days, keys, strict=True):
                found.setdefault((key, its), (day, each))
        return found

    def part_receipt(self, key: ReceiptKey, match: Match) -> PartReceipt:
        """A receipt with its part."""
        receipt, part = self.receipts[key], self._parts[match.part.key]
        return PartReceipt(
            part.message_id,
            part.attempt,
            part.number,
            part.provider,
            receipt.provider_message_id,
            receipt.state,
            receipt.code,
            receipt.network,
            receipt.received_at,
            part.responded_at,
            receipt.error_class,
        )


class Candidates(WaitingReceipts):
    """Receipts that name no part: those with some ids, and what may be theirs by all that they carry."""

    def __init__(
        self,
        connection: Connection,
        providers: Sequence[str],
        ids: Collection[str],
        at: datetime,
        former: Sequence[str],
        came: Sequence[int] | None,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._trusted = frozenset(providers)
        self._values = {
            "receivers": list(providers),
            "providers": [*providers, *former],
            "ids": list(dict.fromkeys(ids)),
            "at": at - CLOCK_SKEW,
            "id_life": ID_LIFE
            * 2,  # receipts may have waited; `domain.receipt_matching` has the limit
            "unknown_life": UNKNOWN_LIFE,
            "skew": CLOCK_SKEW,
            "came": None if came is None else list(came),
        }

    async def read(self) -> dict[ReceiptKey, Match]:
        waiting = _WAITING.rows(self._connection, self._values)
        by_id = _PARTS_BY_ID.rows(self._connection, self._values)
        in_order = reversed(await waiting)
        self.receipts = {receipt.key: receipt for receipt in in_order}
        if not self.receipts:
            return {}
        found: list[PartRow] = list(await by_id)
        having = Counter(part.provider_message_id for part in found)
        crowded_ids = {
            each for each, count in having.items() if each is not None and count >= _MOST_ALIKE
        }
        # Parts to these recipients may have the same ids, whose responses have not come.
        to_recipients = await self._to_recipients()
        found += to_recipients
        crowded = {part.number_hash for part in to_recipients if part.crowded}
        self._parts = {part.key: part for part in found}
        parts = [candidate(part, self._trusted) for part in self._parts.values()]
        receipts = [_evidence(each) for each in self.receipts.values()]

        def matches() -> dict[ReceiptKey, Match]:
            return Matcher(parts, crowded_ids, crowded).match(receipts)

        if len(parts) * len(receipts) <= _MOST_IN_LOOP:
            return matches()
        return await asyncio.to_thread(matches)

    async def _to_recipients(self) -> Sequence[RecipientPartRow]:
        """The parts to the recipients of the receipts, which may be theirs."""
        of_number: dict[bytes, list[WaitingReceipt]] = defaultdict(list)
        for receipt in self.receipts.values():
            if receipt.number_hash is not None:
                for number in {receipt.number_hash, receipt.destination_hash} - {None}:
                    of_number[number or b""].append(receipt)
        if not of_number:
            return ()
        values = {
            **self._values,
            "numbers": list(of_number),
            "first": [min(each.received_at for each in its) for its in of_number.values()],
            "last": [max(each.received_at for each in its) for its in of_number.values()],
            "all_ids": [
                any(not each.provider_message_id for each in its) for its in of_number.values()
            ],
        }
        return await _PARTS_BY_RECIPIENT.rows(self._connection, values, planner=IN_ORDER)


def _had(part: PartRow) -> list[Said]:
    """What the receipts say that a part has rows of."""
    had = zip(part.states or (), part.codes or (), part.done or (), strict=True)
    return [said(state, code, done) for state, code, done in had]


def _evidence(receipt: WaitingReceipt) -> ReceiptEvidence[ReceiptKey]:
    return ReceiptEvidence(
        key=receipt.key,
        provider_message_id=receipt.provider_message_id,
        state=receipt.state,
        code=receipt.code,
        received_at=receipt.received_at,
        done_at=receipt.done_at,
        recipient=receipt.number_hash,
        other=receipt.destination_hash,
        sender=receipt.sender,
        reference=receipt.reference,
        provider=receipt.provider,
    )


def candidate(part: PartRow, trusted: Collection[str]) -> CandidatePart:
    """A part as receipts are matched to it; `trusted` are the providers whose receipts may be for it."""
    receipts = set(_had(part))
    state = part.receipt_state
    if part.receipt_within and state is not None:
        receipts.add(said(state, part.receipt_code or "", None))
    return CandidatePart(
        message_id=part.message_id,
        attempt=part.attempt,
        number=part.number,
        provider_message_id=part.provider_message_id,
        status=part.status,
        recipient=part.number_hash,
        sender=part.sender,
        reference=part.reference,
        submitted_at=part.submitted_at,
        valid_until=part.valid_until,
        receipt_state=state,
        receipts=frozenset(receipts),
        trusted=part.provider in trusted,
        provider=part.provider,
        awaited=part.awaited,
    )

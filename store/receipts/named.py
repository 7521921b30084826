"""Receipts that name their part: a provider called back an address that has the attempt's token.

A claim is committed before its submit, so the part of such a receipt is there when the receipt comes.
The receipt is matched to it directly, and never to another part. The provider of the attempt has to be
one whose receipts may come from the receipt's provider: a token of another provider's attempt proves
nothing. Until a configuration allows that, the receipt waits, and is matched again as others are.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from domain.receipt_matching import Match
from domain.receipts import first_match_at
from store.database import Connection
from store.receipts.apply import Effects
from store.receipts.candidates import (
    ITS_RECEIPTS,
    PART_COLUMNS,
    WAITING_COLUMNS,
    PartRow,
    ReceiptKey,
    WaitingReceipt,
    WaitingReceipts,
    candidate,
)
from store.receipts.ingest import StoredReceipt
from store.receipts.match import Matched, assign
from store.rows import Query
from store.transitions import lock

_STORE = Query.of(
    int,
    """
INSERT INTO receipts (day, provider, provider_message_id, state, code, error_class, network,
                      reference, sender, number_hash, destination_hash, received_at, done_at,
                      named_message_id, named_attempt, named_part, match_at)
SELECT day, provider, provider_message_id, state, code, error_class, network, reference, sender,
       number_hash, destination_hash, received_at, done_at, message_id, attempt, part, match_at
FROM unnest(CAST(:days AS date[]), CAST(:providers AS text[]), CAST(:ids AS text[]),
            CAST(:states AS text[]), CAST(:codes AS text[]), CAST(:error_classes AS text[]),
            CAST(:networks AS text[]), CAST(:refs AS integer[]), CAST(:senders AS text[]),
            CAST(:hashes AS bytea[]), CAST(:others AS bytea[]), CAST(:received AS timestamptz[]),
            CAST(:done AS timestamptz[]), CAST(:message_ids AS uuid[]),
            CAST(:attempts AS smallint[]), CAST(:parts AS smallint[]),
            CAST(:match_at AS timestamptz[])) WITH ORDINALITY
     AS r (day, provider, provider_message_id, state, code, error_class, network, reference, sender,
           number_hash, destination_hash, received_at, done_at, message_id, attempt, part, match_at,
           place)
ORDER BY place
RETURNING id
""",
)

_WAITING = Query.of(
    WaitingReceipt,
    f"""
SELECT {WAITING_COLUMNS}
FROM receipts
WHERE match_at IS NOT NULL AND named_message_id = ANY(CAST(:message_ids AS uuid[]))
  AND id = ANY(CAST(:came AS bigint[])) AND provider = ANY(CAST(:providers AS text[]))
ORDER BY received_at, id
""",
)

_PARTS = Query.of(
    PartRow,
    f"""
SELECT {PART_COLUMNS}
FROM (
    SELECT DISTINCT named_message_id AS message_id, named_attempt AS attempt, named_part AS number
    FROM receipts
    WHERE match_at IS NOT NULL AND named_message_id = ANY(CAST(:message_ids AS uuid[]))
      AND id = ANY(CAST(:came AS bigint[]))
) n
CROSS JOIN LATERAL (
    SELECT * FROM all_parts p
    WHERE p.message_id = n.message_id AND p.attempt = n.attempt AND p.number = n.number
      AND p.provider = ANY(CAST(:providers AS text[])) AND p.status IS NOT NULL
    LIMIT 1
) p
JOIN messages m ON m.id = p.message_id
JOIN recipients c ON c.id = m.recipient_id
{ITS_RECEIPTS}
""",
)


async def ingest_named(
    connection: Connection,
    providers: Sequence[str],
    batch: Sequence[StoredReceipt],
    effects: Effects,
    *,
    at: datetime,
) -> Matched:
    """Store a batch of one provider's receipts that name their parts, and apply them to these.

    Arguments as those of `store.receipts.ingest.ingest`.
    """
    named = [(receipt, receipt.part) for receipt in batch if receipt.part is not None]
    ids = {part.message_id for _, part in named}
    stored = _STORE.rows(
        connection,
        {
            "days": [r.day for r, _ in named],
            "providers": [r.provider for r, _ in named],
            "ids": [r.provider_message_id for r, _ in named],
            "states": [r.state.value for r, _ in named],
            "codes": [r.code for r, _ in named],
            "error_classes": [r.error_class for r, _ in named],
            "networks": [r.network for r, _ in named],
            "refs": [r.reference for r, _ in named],
            "senders": [r.sender for r, _ in named],
            "hashes": [r.number_hash for r, _ in named],
            "others": [r.destination_hash for r, _ in named],
            "received": [r.received_at for r, _ in named],
            "done": [r.done_at for r, _ in named],
            "message_ids": [part.message_id for _, part in named],
            "attempts": [part.attempt for _, part in named],
            "parts": [part.number for _, part in named],
            "match_at": [first_match_at(r.received_at) for r, _ in named],
        },
    )
    return await match_named(connection, providers, ids, await stored, effects, at=at)


async def match_named(
    connection: Connection,
    providers: Sequence[str],
    message_ids: Collection[UUID],
    came: Sequence[int],
    effects: Effects,
    *,
    at: datetime,
) -> Matched:
    """Match the receipts of these rows, which name parts of these messages, and apply them.

    `providers` are those whose parts they may be for.
    """
    lock(connection, sorted(message_ids))
    matching = _Named(connection, providers, message_ids, came)
    return await assign(connection, matching, await matching.read(), effects, at=at, came=came)


class _Named(WaitingReceipts):
    """Receipts that name their parts, and these parts, whose messages' rows are locked."""

    def __init__(
        self,
        connection: Connection,
        providers: Sequence[str],
        message_ids: Collection[UUID],
        came: Sequence[int],
    ) -> None:
        super().__init__()
        self._connection = connection
        self._trusted = frozenset(providers)
        self._values = {
            "providers": list(providers),
            "message_ids": list(message_ids),
            "came": list(came),
        }

    async def read(self) -> dict[ReceiptKey, Match]:
        waiting = _WAITING.rows(self._connection, self._values)
        parts = _PARTS.rows(self._connection, self._values)
        self.receipts = {receipt.key: receipt for receipt in await waiting}
        self._parts = {part.key: part for part in await parts}
        candidates = {key: candidate(part, self._trusted) for key, part in self._parts.items()}
        had = {key: set(part.receipts) for key, part in candidates.items()}
        matches: dict[ReceiptKey, Match] = {}
        for key, receipt in self.receipts.items():
            if receipt.part is None or receipt.part not in candidates:
                continue
            its = self.said(key)
            matches[key] = Match(candidates[receipt.part], is_copy=its in had[receipt.part])
            had[receipt.part].add(its)
        return matches

"""Stores receipts before they are acknowledged, with their parts where these are known."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from domain.error_classes import ErrorClass
from domain.receipt_matching import CLOCK_SKEW, ID_LIFE
from domain.receipts import PartIdentity, ReceiptState, first_match_at
from domain.values import value
from store.database import Connection, PendingResult
from store.receipts.apply import Effects, PartReceipt
from store.receipts.candidates import IN_ORDER, OF_RECIPIENT
from store.receipts.match import Matched, match
from store.rows import Query


@value
class StoredReceipt:
    """A receipt as it is stored; it has the keyed hashes of numbers, and never the recipient's number.

    `number_hash` is of the number that it comes from, the recipient; `destination_hash` of the
    number that it goes to, if that is one. `part` is the part that the receipt itself names, if it does.
    """

    provider: str
    provider_message_id: str
    state: ReceiptState
    code: str
    received_at: datetime
    network: str | None = None
    reference: int | None = None
    sender: str | None = None
    number_hash: bytes | None = None
    destination_hash: bytes | None = None
    done_at: datetime | None = None
    error_class: ErrorClass | None = None
    part: PartIdentity | None = None

    @property
    def day(self) -> date:
        return self.received_at.date()


@value
class _Ingested:
    """A receipt as it was stored, with the part that it is for where only one fits."""

    id: int
    message_id: UUID | None
    attempt: int | None
    number: int | None
    provider: str | None
    provider_message_id: str
    state: ReceiptState
    code: str
    error_class: ErrorClass | None
    network: str | None
    received_at: datetime
    responded_at: datetime | None

    def with_part(self) -> PartReceipt | None:
        if (
            self.message_id is None
            or self.attempt is None
            or self.number is None
            or self.provider is None
        ):
            return None
        return PartReceipt(
            self.message_id,
            self.attempt,
            self.number,
            self.provider,
            self.provider_message_id,
            self.state,
            self.code,
            self.network,
            self.received_at,
            self.responded_at,
            self.error_class,
        )


_MOST_ALIKE: Final = 20
"""Parts with one id that are looked at when receipts are stored."""

_NOT_FINAL = ", ".join(f"'{state.value}'" for state in ReceiptState if not state.is_final)

# Most receipts are matched when they arrive: they are written with their part, and never updated. For
# this exactly one part has the id, no field of the receipt contradicts it, no earlier receipt reported
# its end, and no part to the recipient waits for its id. `domain.receipt_matching` decides the rest.
# Subqueries make Postgres look up each row in an index: for joins the planner, which takes the arrays
# for short, would choose another plan.
_STORE = Query.of(
    _Ingested,
    f"""
WITH new AS MATERIALIZED (
    SELECT nextval('receipts_id_seq') AS id, r.*, p.message_id, p.attempt, p.number,
           p.provider AS its_provider, p.responded_at
    FROM unnest(CAST(:days AS date[]), CAST(:providers AS text[]), CAST(:ids AS text[]),
                CAST(:states AS text[]), CAST(:codes AS text[]), CAST(:networks AS text[]),
                CAST(:refs AS integer[]), CAST(:senders AS text[]), CAST(:hashes AS bytea[]),
                CAST(:others AS bytea[]), CAST(:received AS timestamptz[]),
                CAST(:done AS timestamptz[]), CAST(:match_at AS timestamptz[]),
                CAST(:several AS boolean[]), CAST(:error_classes AS text[])) WITH ORDINALITY
         AS r (day, provider, provider_message_id, state, code, network, reference, sender,
               number_hash, destination_hash, received_at, done_at, match_at, several, error_class,
               place)
    LEFT JOIN LATERAL (
        SELECT f.*, count(*) OVER () AS alike, count(*) FILTER (WHERE f.fits) OVER () AS fitting
        FROM (
            SELECT p.message_id, p.attempt, p.number, p.provider, p.responded_at, p.receipt_state,
                   p.submitted_at,
                   p.submitted_at <= r.received_at + CAST(:skew AS interval)
                   AND (r.reference IS NULL OR r.reference = p.reference)
                   AND (r.number_hash IS NULL OR (
                        SELECT c.number_hash FROM recipients c WHERE c.id = (
                            SELECT m.recipient_id FROM messages m WHERE m.id = p.message_id)
                        ) IN (r.number_hash, r.destination_hash)) IS TRUE AS fits
            FROM all_parts p
            WHERE p.provider = ANY(CAST(:names AS text[]))
              AND p.provider_message_id = r.provider_message_id
              AND p.submitted_at > r.received_at - CAST(:id_life AS interval)
            LIMIT {_MOST_ALIKE}
        ) f
        ORDER BY f.fits DESC LIMIT 1
    ) p ON NOT r.several AND p.fits AND p.fitting = 1 AND p.alike < {_MOST_ALIKE}
       AND (p.receipt_state IS NULL
            OR (p.receipt_state IN ({_NOT_FINAL}) AND r.state NOT IN ({_NOT_FINAL})))
       AND (r.number_hash IS NULL OR NOT EXISTS (
            SELECT FROM recipients c
            CROSS JOIN LATERAL (
                SELECT id FROM messages WHERE {OF_RECIPIENT} LIMIT {_MOST_ALIKE}
            ) m
            CROSS JOIN LATERAL (
                SELECT q.status, q.submitted_at FROM all_parts q
                WHERE q.message_id = m.id AND m.id <> p.message_id
                  AND q.provider = ANY(CAST(:names AS text[])) AND q.provider_message_id IS NULL
                  AND q.receipt_state IS NULL OFFSET 0
            ) q
            WHERE c.number_hash IN (r.number_hash, r.destination_hash)
              AND (q.status = 'submitting'
                   OR (q.status IN ('unknown', 'accepted') AND q.submitted_at > p.submitted_at))))
), stored AS (
    INSERT INTO receipts (id, day, provider, provider_message_id, state, code, error_class, network,
                          reference, sender, number_hash, destination_hash, received_at, done_at,
                          message_id, attempt, part, match_at)
    OVERRIDING SYSTEM VALUE
    SELECT id, day, provider, provider_message_id, state, code, error_class, network, reference,
           sender, number_hash, destination_hash, received_at, done_at, message_id, attempt, number,
           CASE WHEN message_id IS NULL THEN match_at END
    FROM new ORDER BY place
)
SELECT id, message_id, attempt, number, its_provider AS provider, provider_message_id, state, code,
       error_class, network, received_at, responded_at
FROM new ORDER BY received_at, place
""",
)


async def ingest(
    connection: Connection,
    providers: Sequence[str],
    batch: Sequence[StoredReceipt],
    effects: Effects,
    *,
    at: datetime,
) -> Matched:
    """Store a batch of one provider's receipts and let those that can be matched move messages.

    Receipts that name their part themselves are stored by `store.receipts.named` instead.

    Args:
        connection: a fresh transaction; its commit is what allows the acknowledgements.
        providers: whose parts they may be for: the provider, and those of its receipt group.
        batch: at least one.
        effects: of those that are matched.
        at: when they came.
    """
    known = await _store(connection, providers, batch)
    fresh = [receipt for each in known if (receipt := each.with_part()) is not None]
    alone = [each.provider_message_id for each in known if each.message_id is None]
    came = [each.id for each in known if each.message_id is None]
    return await match(connection, providers, alone, effects, at=at, fresh=fresh, came=came)


def _store(
    connection: Connection, providers: Sequence[str], batch: Sequence[StoredReceipt]
) -> PendingResult[Sequence[_Ingested]]:
    """Write receipts, those that only one part fits with their part."""
    together = Counter((r.provider_message_id, r.state.is_final) for r in batch)
    return _STORE.rows(
        connection,
        {
            "names": list(providers),
            "id_life": ID_LIFE,
            "skew": CLOCK_SKEW,
            "days": [r.day for r in batch],
            "providers": [r.provider for r in batch],
            "ids": [r.provider_message_id for r in batch],
            "states": [r.state.value for r in batch],
            "codes": [r.code for r in batch],
            "error_classes": [r.error_class for r in batch],
            "networks": [r.network for r in batch],
            "refs": [r.reference for r in batch],
            "senders": [r.sender for r in batch],
            "hashes": [r.number_hash for r in batch],
            "others": [r.destination_hash for r in batch],
            "received": [r.received_at for r in batch],
            "done": [r.done_at for r in batch],
            "match_at": [first_match_at(r.received_at) for r in batch],
            "several": [
                not r.provider_message_id or together[r.provider_message_id, r.state.is_final] > 1
                for r in batch
            ],
        },
        planner=IN_ORDER,
    )

"""Batches: what one request asked for, the messages that came of it, and how far they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from store.bulk_messages import NewKind
from store.database import Connection, Row, sql
from store.transitions import OPEN

_INSERT = sql("""
INSERT INTO batches (id, account_id, environment, mode, sender, recipients, accepted, created_by,
                     created_at)
VALUES (:id, :account_id, :environment, :mode, :sender, :recipients, :accepted, :created_by, :at)
""")

_REFUSALS = sql("""
INSERT INTO batch_refusals (batch_id, position, field, reason, sentence)
SELECT :batch_id, * FROM unnest(CAST(:positions AS integer[]), CAST(:fields AS text[]),
                                CAST(:reasons AS text[]), CAST(:sentences AS text[]))
""")

_VIEW = """
SELECT b.id, b.mode, b.sender, b.recipients, b.accepted, b.created_by, b.created_at, b.environment,
       k.paused_at, k.canceled_at, k.first_id, k.last_id
FROM batches b JOIN bulks k ON k.id = b.id
WHERE b.account_id = :account_id AND b.environment = :environment
"""
_ONE = sql(_VIEW + "AND b.id = :id")
_LIST = sql(
    _VIEW + "AND (CAST(:before AS uuid) IS NULL OR b.id < :before) ORDER BY b.id DESC LIMIT :limit"
)

_COUNTS = sql(f"""
SELECT m.status, m.reason, {OPEN} AS open, count(*) AS messages
FROM messages m
WHERE m.id BETWEEN :first_id AND :last_id AND m.bulk_id = :bulk_id
GROUP BY m.status, m.reason, {OPEN}
""")

_RESULTS = sql("""
SELECT position, id, encoding, segments FROM messages
WHERE id BETWEEN :first_id AND :last_id AND bulk_id = :bulk_id
ORDER BY position
""")
_REFUSED = sql("""
SELECT position, field, reason, sentence FROM batch_refusals WHERE batch_id = :id
ORDER BY position, field
""")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a recipient of a batch got no message; no number, no text."""

    position: int
    field: str
    reason: str
    sentence: str


def insert(
    connection: Connection,
    batch: NewKind,
    refusals: Sequence[Refusal],
    *,
    recipients: int,
    accepted: int,
) -> None:
    """Write a batch, whose bulk was written before, and whom it refused."""
    connection.send(
        _INSERT,
        {
            "id": batch.extent.bulk_id,
            "account_id": batch.account_id,
            "environment": batch.environment,
            "mode": batch.mode,
            "sender": batch.sender,
            "recipients": recipients,
            "accepted": accepted,
            "created_by": batch.actor,
            "at": batch.accepted_at,
        },
    )
    if refusals:
        connection.send(
            _REFUSALS,
            {
                "batch_id": batch.extent.bulk_id,
                "positions": [refusal.position for refusal in refusals],
                "fields": [refusal.field for refusal in refusals],
                "reasons": [refusal.reason for refusal in refusals],
                "sentences": [refusal.sentence for refusal in refusals],
            },
        )


async def one(
    connection: Connection, account_id: str, environment: str, batch_id: UUID
) -> Row | None:
    """A batch as its account sees it."""
    return await connection.row(
        _ONE, {"account_id": account_id, "environment": environment, "id": batch_id}
    )


async def listed(
    connection: Connection, account_id: str, environment: str, before: UUID | None, limit: int
) -> Sequence[Row]:
    """An account's batches, newest first."""
    return await connection.rows(
        _LIST,
        {
            "account_id": account_id,
            "environment": environment,
            "before": before,
            "limit": limit,
        },
    )


async def counts(connection: Connection, batch: Row) -> Sequence[Row]:
    """How many messages of a batch there are, by status, reason and whether they are open."""
    return await connection.rows(
        _COUNTS,
        {"bulk_id": batch["id"], "first_id": batch["first_id"], "last_id": batch["last_id"]},
    )


async def results(connection: Connection, batch: Row) -> tuple[Sequence[Row], Sequence[Row]]:
    """The messages of a batch (position, id, encoding, segments), and its refusals."""
    key = {"bulk_id": batch["id"], "first_id": batch["first_id"], "last_id": batch["last_id"]}
    accepted = connection.rows(_RESULTS, key)
    refused = await connection.rows(_REFUSED, {"id": batch["id"]})
    return await accepted, refused

"""Batches: what one request asked for, the messages that came of it, and how far they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.configuration import Environment
from domain.modes import Mode
from domain.states import MessageStatus
from domain.values import value
from store.bulk_messages import NewKind
from store.database import Connection, sql
from store.rows import Query
from store.transitions import OPEN


@value
class Refusal:
    """Why a recipient of a batch got no message; no number, no text."""

    position: int
    field: str
    reason: str
    sentence: str


@value
class BatchResult:
    """A message of a batch, by its position in the request."""

    position: int
    id: UUID
    encoding: str
    segments: int


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as its account sees it; the last four columns are those of its bulk."""

    id: UUID
    mode: Mode
    sender: str
    recipients: int
    accepted: int
    created_by: str
    created_at: datetime
    environment: Environment
    paused_at: datetime | None
    canceled_at: datetime | None
    first_id: UUID
    last_id: UUID


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many messages of a batch have a status for a reason, and whether these are open."""

    status: MessageStatus
    reason: str | None
    open: bool
    messages: int


@dataclass(frozen=True, slots=True)
class _CountOfBatch(StatusCount):
    batch_id: UUID


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
_ONE = Query.of(StoredBatch, _VIEW + "AND b.id = :id")
_LIST = Query.of(
    StoredBatch,
    _VIEW + "AND (CAST(:before AS uuid) IS NULL OR b.id < :before) ORDER BY b.id DESC LIMIT :limit",
)

_COUNTS = Query.of(
    _CountOfBatch,
    f"""
SELECT counted.status, counted.reason, counted.open, counted.messages, b.id AS batch_id
FROM unnest(CAST(:ids AS uuid[]), CAST(:first_ids AS uuid[]), CAST(:last_ids AS uuid[]))
     AS b (id, first_id, last_id)
CROSS JOIN LATERAL (
    SELECT m.status, m.reason, {OPEN} AS open, count(*) AS messages
    FROM messages m
    WHERE m.id BETWEEN b.first_id AND b.last_id AND m.bulk_id = b.id
    GROUP BY m.status, m.reason, {OPEN}) counted
""",
)

_RESULTS = Query.of(
    BatchResult,
    """
SELECT position, id, encoding, segments FROM messages
WHERE id BETWEEN :first_id AND :last_id AND bulk_id = :bulk_id
ORDER BY position
""",
)
_REFUSED = Query.of(
    Refusal,
    """
SELECT position, field, reason, sentence FROM batch_refusals WHERE batch_id = :id
ORDER BY position, field
""",
)


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
            "id": batch.id_range.bulk_id,
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
                "batch_id": batch.id_range.bulk_id,
                "positions": [refusal.position for refusal in refusals],
                "fields": [refusal.field for refusal in refusals],
                "reasons": [refusal.reason for refusal in refusals],
                "sentences": [refusal.sentence for refusal in refusals],
            },
        )


async def one(
    connection: Connection, account_id: str, environment: str, batch_id: UUID
) -> StoredBatch | None:
    """A batch of an account."""
    return await _ONE.row(
        connection, {"account_id": account_id, "environment": environment, "id": batch_id}
    )


async def listed(
    connection: Connection, account_id: str, environment: str, before: UUID | None, limit: int
) -> Sequence[StoredBatch]:
    """An account's batches, newest first."""
    return await _LIST.rows(
        connection,
        {
            "account_id": account_id,
            "environment": environment,
            "before": before,
            "limit": limit,
        },
    )


async def counts(
    connection: Connection, batches: Sequence[StoredBatch]
) -> Mapping[UUID, Sequence[StatusCount]]:
    """How many messages of batches there are, by status, reason and whether they are open."""
    counted: dict[UUID, list[StatusCount]] = {batch.id: [] for batch in batches}
    found = await _COUNTS.rows(
        connection,
        {
            "ids": list(counted),
            "first_ids": [batch.first_id for batch in batches],
            "last_ids": [batch.last_id for batch in batches],
        },
    )
    for row in found:
        counted[row.batch_id].append(row)
    return counted


async def results(
    connection: Connection, batch: StoredBatch
) -> tuple[Sequence[BatchResult], Sequence[Refusal]]:
    """The messages of a batch, and its refusals."""
    key = {"bulk_id": batch.id, "first_id": batch.first_id, "last_id": batch.last_id}
    accepted = _RESULTS.rows(connection, key)
    refused = await _REFUSED.rows(connection, {"id": batch.id})
    return await accepted, refused

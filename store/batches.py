"""Batches: what one request asked for, the messages that came of it, and how far they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from store.bulks import Extent
from store.database import Connection, Row, sql

# Known recipients are only read; of new ones, two requests may add the same at the same moment.
_ADD_RECIPIENTS = sql("""
INSERT INTO recipients (id, account_id, hash_version, number_hash, number, country)
SELECT n.id, :account_id, :hash_version, n.number_hash, n.number, n.country
FROM unnest(CAST(:recipient_ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:numbers AS text[]),
            CAST(:countries AS text[])) AS n (id, number_hash, number, country)
WHERE NOT EXISTS (SELECT FROM recipients r
                  WHERE r.account_id = :account_id AND r.hash_version = :hash_version
                    AND r.number_hash = n.number_hash AND r.number IS NOT NULL)
ORDER BY n.number_hash
ON CONFLICT (account_id, hash_version, number_hash) DO UPDATE SET number = excluded.number
""")

_INSERT_MESSAGES = sql("""
INSERT INTO messages (id, account_id, environment, mode, priority, status, verdict, sender,
    recipient_id, country, body, encoding, segments, metadata, callback_url, callback_lane_id,
    accepted_at, scheduled_at, validity, valid_until, since, moved_at, owner, check_by,
    config_version, traceparent, bulk_id, position)
SELECT n.id, :account_id, :environment, :mode, :priority, :status, :verdict, :sender,
    r.id, n.country, n.body, n.encoding, n.segments, coalesce(n.metadata, '{}'), :callback_url,
    :callback_lane_id, :at, :scheduled_at, :validity, :valid_until, :at, :at, :owner, :check_by,
    :config_version, :traceparent, :bulk_id, n.position
FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:countries AS text[]),
            CAST(:bodies AS text[]), CAST(:encodings AS text[]), CAST(:segments AS smallint[]),
            CAST(:metadata AS jsonb[]), CAST(:positions AS integer[]))
     AS n (id, number_hash, country, body, encoding, segments, metadata, position)
JOIN recipients r ON r.account_id = :account_id AND r.hash_version = :hash_version
                 AND r.number_hash = n.number_hash AND r.number_hash = ANY(:hashes)
""")

_TELL_ACCEPTED = sql("""
INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, detail)
SELECT :bulk_id, array_agg(id), :at, 'accepted', :actor, :status,
       jsonb_build_object('encoding', encoding, 'segments', segments,
                          'configuration', CAST(:config_version AS integer))
FROM unnest(CAST(:ids AS uuid[]), CAST(:encodings AS text[]), CAST(:segments AS smallint[]))
     AS n (id, encoding, segments)
GROUP BY encoding, segments
""")

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

_COUNTS = sql("""
SELECT status, reason, check_by IS NOT NULL AS open, count(*) AS messages
FROM messages
WHERE id BETWEEN :first_id AND :last_id AND bulk_id = :bulk_id
GROUP BY status, reason, check_by IS NOT NULL
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
class NewBatch:
    """What the messages of a batch have in common; times are of the accepting process, in UTC."""

    extent: Extent
    account_id: str
    environment: str
    mode: str
    priority: str
    sender: str
    callback_url: str | None
    callback_lane_id: UUID | None
    accepted_at: datetime
    scheduled_at: datetime | None
    validity: timedelta
    valid_until: datetime
    check_by: datetime
    config_version: int | None
    traceparent: str | None
    hash_version: int


@dataclass(slots=True)
class NewMessages:
    """The messages of a batch, column by column, all of equal length."""

    ids: list[UUID] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    countries: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    encodings: list[str] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    metadata: list[Jsonb | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a recipient of a batch got no message; no number, no text."""

    position: int
    field: str
    reason: str
    sentence: str


def insert_messages(
    connection: Connection, batch: NewBatch, new: NewMessages, *, actor: str
) -> None:
    """Write the recipients that are new, the messages, and that they were accepted."""
    scheduled = batch.scheduled_at is not None
    once = {number_hash: place for place, number_hash in enumerate(new.hashes)}
    places = list(once.values())
    shared = {
        "account_id": batch.account_id,
        "hash_version": batch.hash_version,
        "bulk_id": batch.extent.bulk_id,
        "at": batch.accepted_at,
        "config_version": batch.config_version,
        "status": "scheduled" if scheduled else "queued",
    }
    connection.send(
        _ADD_RECIPIENTS,
        {
            **shared,
            "recipient_ids": [uuid7() for _ in places],
            "hashes": [new.hashes[place] for place in places],
            "numbers": [new.numbers[place] for place in places],
            "countries": [new.countries[place] for place in places],
        },
    )
    connection.send(
        _INSERT_MESSAGES,
        {
            **shared,
            "environment": batch.environment,
            "mode": batch.mode,
            "priority": batch.priority,
            "verdict": "scheduled" if scheduled else None,
            "sender": batch.sender,
            "callback_url": batch.callback_url,
            "callback_lane_id": batch.callback_lane_id,
            "scheduled_at": batch.scheduled_at,
            "validity": batch.validity,
            "valid_until": batch.valid_until,
            "owner": batch.extent.owner,
            "check_by": batch.check_by,
            "traceparent": batch.traceparent,
            "ids": new.ids,
            "hashes": new.hashes,
            "countries": new.countries,
            "bodies": new.bodies,
            "encodings": new.encodings,
            "segments": new.segments,
            "metadata": new.metadata,
            "positions": new.positions,
        },
    )
    connection.send(
        _TELL_ACCEPTED,
        {
            **shared,
            "actor": actor,
            "ids": new.ids,
            "encodings": new.encodings,
            "segments": new.segments,
        },
    )


def insert(
    connection: Connection,
    batch: NewBatch,
    refusals: Sequence[Refusal],
    *,
    recipients: int,
    accepted: int,
    created_by: str,
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
            "created_by": created_by,
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

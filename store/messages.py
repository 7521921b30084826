"""Messages: accepted, read, owned, decided upon, listed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from domain.delivery import AttemptFacts, MessageFacts
from domain.errors import ErrorClass
from domain.states import AttemptStatus, Verdict
from store.database import Answer, Connection, Row, sql
from store.transitions import OPEN


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is being accepted; times are of the accepting process, in UTC."""

    id: UUID
    account_id: str
    environment: str
    mode: str
    priority: str
    sender: str
    recipient_id: UUID
    country: str
    network: str
    body: str
    encoding: str
    segments: int
    accepted_at: datetime
    scheduled_at: datetime | None
    validity: timedelta
    valid_until: datetime
    owner: str
    check_by: datetime
    config_version: int | None
    callback_url: str | None = None
    callback_lane_id: UUID | None = None
    callback_final_only: bool = False
    traceparent: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


_RECIPIENT = sql("""
WITH known AS (
    SELECT id FROM recipients
    WHERE account_id = :account_id AND hash_version = :hash_version AND number_hash = :number_hash
      AND number IS NOT NULL
), added AS (
    INSERT INTO recipients (id, account_id, hash_version, number_hash, number, country)
    SELECT :id, :account_id, :hash_version, :number_hash, :number, :country
    WHERE NOT EXISTS (SELECT FROM known)
    ON CONFLICT (account_id, hash_version, number_hash) DO UPDATE SET number = excluded.number
    RETURNING id
)
SELECT id FROM known UNION ALL SELECT id FROM added
""")

_INSERT = sql("""
INSERT INTO messages (id, account_id, environment, mode, priority, status, verdict, sender,
    recipient_id, country, network, body, encoding, segments, metadata, callback_url,
    callback_lane_id, callback_final_only, accepted_at, scheduled_at, validity, valid_until, since,
    moved_at, owner, check_by, config_version, traceparent)
VALUES (:id, :account_id, :environment, :mode, :priority,
    CASE WHEN CAST(:scheduled_at AS timestamptz) IS NULL THEN 'queued' ELSE 'scheduled' END,
    CASE WHEN CAST(:scheduled_at AS timestamptz) IS NULL THEN NULL ELSE 'scheduled' END,
    :sender, :recipient_id, :country, :network, :body, :encoding, :segments, :metadata,
    :callback_url, :callback_lane_id, :callback_final_only, :accepted_at, :scheduled_at, :validity,
    :valid_until, :accepted_at, :accepted_at, :owner, :check_by, :config_version, :traceparent)
""")

_FACTS = """
SELECT id, account_id, environment, mode, priority, status, verdict, reason, sender, country,
       network, epoch, first_attempt, owner, since, valid_until, scheduled_at, cancel_requested_at, waiting_for,
       check_by, config_version, traceparent, segments, accepted_at
FROM messages WHERE id = :id
"""
_READ = sql(_FACTS)
_READ_LOCKED = sql(_FACTS + "FOR UPDATE")

# What goes to the provider: the only read that brings number and body together.
_CONTENT = sql("""
SELECT m.id, m.sender, r.number AS recipient, m.body, m.encoding, m.priority, m.mode,
       m.valid_until, m.accepted_at, m.traceparent
FROM messages m JOIN recipients r ON r.id = m.recipient_id
WHERE m.id = :id
""")

# No status here: `settle` moves it, and tells of the move. What ends as it was, sent, moves no more.
_VERDICT = sql("""
UPDATE messages
SET verdict = :verdict, reason = :reason,
    check_by = CASE WHEN CAST(:verdict AS text) = 'sent' THEN NULL ELSE check_by END
WHERE id = :id AND epoch = :epoch
""")

_WAITS = sql("""
UPDATE messages SET waiting_for = :waiting_for, check_by = :check_by
WHERE id = :id AND epoch = :epoch
  AND (verdict IS NULL OR verdict IN ('scheduled', 'held')) AND status <> 'delivered'
""")

_REQUEST_CANCEL = sql("""
UPDATE messages SET cancel_requested_at = coalesce(cancel_requested_at, :at)
WHERE id = :id AND account_id = :account_id AND environment = :environment
  AND (verdict IS NULL OR verdict IN ('scheduled', 'held')) AND status <> 'delivered'
RETURNING id
""")

# One that has ended meanwhile needs no runner any more, and no check.
_TAKE_OVER = sql("""
UPDATE messages SET epoch = epoch + 1, owner = :owner, check_by = :check_by
WHERE id = :id AND epoch = :epoch AND check_by IS NOT NULL
RETURNING epoch
""")

_GIVE_RUNNERS = sql("""
UPDATE messages m SET owner = n.owner
FROM unnest(CAST(:ids AS uuid[]), CAST(:owners AS text[])) AS n (id, owner)
WHERE m.id = n.id
""")

_OVERDUE = sql("""
SELECT id, epoch, owner, bulk_id FROM messages WHERE check_by < :at ORDER BY check_by LIMIT :limit
""")
_PUSH = sql(
    "UPDATE messages SET check_by = :check_by WHERE id = ANY(:ids) AND check_by IS NOT NULL"
)
_DOUBT = sql("""
WITH doubted AS (UPDATE messages SET check_by = :at WHERE check_by > :at RETURNING 1)
SELECT count(*) AS messages FROM doubted
""")

VIEW = """
SELECT m.id, m.account_id, m.environment, m.mode, m.priority, m.status, m.verdict, m.reason,
       m.sender, r.number AS recipient, m.body, m.encoding, m.segments, m.country, m.network,
       m.metadata, m.callback_url, m.accepted_at, m.scheduled_at, m.valid_until, m.moved_at,
       m.cancel_requested_at, m.waiting_for, m.epoch, m.owner, m.config_version, m.check_by,
       m.bulk_id, m.position, latest.provider, latest.number AS attempts
FROM messages m
JOIN recipients r ON r.id = m.recipient_id
LEFT JOIN LATERAL (SELECT provider, number FROM attempts a WHERE a.message_id = m.id
                   ORDER BY number DESC LIMIT 1) latest ON true
WHERE m.account_id = :account_id AND m.environment = :environment
"""
"""A message as its account sees it; every read of an account's messages begins with this."""

_ONE = sql(VIEW + "AND m.id = :id")
_LIST = sql(
    VIEW
    + """
  AND (CAST(:status AS text) IS NULL OR m.status = :status)
  AND (CAST(:mode AS text) IS NULL OR m.mode = :mode)
  AND (CAST(:sender AS text) IS NULL OR m.sender = :sender)
  AND (CAST(:number_hash AS bytea) IS NULL OR m.recipient_id IN (
        SELECT id FROM recipients
        WHERE account_id = :account_id AND number_hash = CAST(:number_hash AS bytea)))
  AND (CAST(:provider AS text) IS NULL OR EXISTS (
        SELECT FROM attempts a WHERE a.message_id = m.id AND a.provider = :provider))
  AND (CAST(:since AS timestamptz) IS NULL OR m.accepted_at >= :since)
  AND (CAST(:until AS timestamptz) IS NULL OR m.accepted_at < :until)
  AND (CAST(:before AS uuid) IS NULL OR m.id < :before)
ORDER BY m.id DESC LIMIT :limit
"""
)

# Those of a bulk by their bulk, each of which is a range of ids.
_OPEN_COUNTS = sql(f"""
SELECT status, sum(messages)::bigint AS messages
FROM (
    SELECT status, count(*) AS messages FROM messages WHERE check_by IS NOT NULL GROUP BY status
    UNION ALL
    SELECT of_bulk.status, of_bulk.messages
    FROM bulks b CROSS JOIN LATERAL (
        SELECT m.status, count(*) AS messages FROM messages m
        WHERE m.id BETWEEN b.first_id AND b.last_id AND m.bulk_id = b.id AND m.check_by IS NULL
          AND {OPEN}
        GROUP BY m.status
    ) of_bulk
    WHERE b.check_by IS NOT NULL
) counted
GROUP BY status
""")


async def recipient(
    connection: Connection,
    account_id: str,
    number: str,
    number_hash: bytes,
    hash_version: int,
    country: str,
) -> UUID:
    """The id of a recipient, who is added if new."""
    found = await connection.row(
        _RECIPIENT,
        {
            "id": uuid7(),
            "account_id": account_id,
            "hash_version": hash_version,
            "number_hash": number_hash,
            "number": number,
            "country": country,
        },
    )
    if found is None:
        message = "a recipient was neither found nor added"
        raise LookupError(message)
    return UUID(str(found["id"]))


def insert(connection: Connection, message: NewMessage) -> None:
    """Write an accepted message."""
    values = {name: getattr(message, name) for name in NewMessage.__slots__}
    connection.send(_INSERT, {**values, "metadata": Jsonb(dict(message.metadata))})


def stored(connection: Connection, message_id: UUID, *, locked: bool = False) -> Answer[Row | None]:
    """A message's row without number and body, locked until the end of the transaction if asked."""
    return connection.row(_READ_LOCKED if locked else _READ, {"id": message_id})


def facts(message: Row, attempts: Sequence[Row]) -> MessageFacts:
    """A message and its attempts, as decisions see them."""
    return MessageFacts(
        first_attempt=message["first_attempt"],
        verdict=Verdict(message["verdict"]) if message["verdict"] else None,
        reason=message["reason"],
        since=message["since"],
        valid_until=message["valid_until"],
        scheduled_at=message["scheduled_at"],
        cancel_requested=message["cancel_requested_at"] is not None,
        attempts=tuple(
            AttemptFacts(
                number=attempt["number"],
                provider=attempt["provider"],
                status=AttemptStatus(attempt["status"]),
                answer_by=attempt["answer_by"],
                settled_at=attempt["settled_at"],
                receipt_by=attempt["receipt_by"],
                error_class=ErrorClass(attempt["error_class"]) if attempt["error_class"] else None,
                recalled=attempt["recalled"],
                retry_after=attempt["retry_after"],
                tries=attempt["tries"],
            )
            for attempt in attempts
        ),
    )


def content(connection: Connection, message_id: UUID) -> Answer[Row | None]:
    """What a provider is handed: sender, recipient, body; None if there is no such message."""
    return connection.row(_CONTENT, {"id": message_id})


def judge(
    connection: Connection,
    message_id: UUID,
    epoch: int,
    verdict: Verdict | None,
    reason: str | None,
) -> None:
    """Store what was decided about a message; `store.transitions.settle` then moves it."""
    connection.send(
        _VERDICT,
        {"id": message_id, "epoch": epoch, "verdict": verdict, "reason": reason},
    )


def waits(
    connection: Connection,
    message_id: UUID,
    epoch: int,
    waiting_for: str | None,
    check_by: datetime,
) -> None:
    """Note what an open message waits for, and when the reconciler should miss its runner."""
    connection.send(
        _WAITS,
        {"id": message_id, "epoch": epoch, "waiting_for": waiting_for, "check_by": check_by},
    )


async def request_cancel(
    connection: Connection, account_id: str, environment: str, message_id: UUID, at: datetime
) -> bool:
    """Forbid every further submit of a message; False if it is over, or not this account's."""
    found = await connection.row(
        _REQUEST_CANCEL,
        {"id": message_id, "account_id": account_id, "environment": environment, "at": at},
    )
    return found is not None


async def take_over(
    connection: Connection, message_id: UUID, epoch: int, owner: str, check_by: datetime
) -> int | None:
    """Become a message's runner; returns the new epoch, or None if it ended or has another one.

    Whoever still runs it with the old epoch can write nothing from now on.
    """
    taken = await connection.row(
        _TAKE_OVER,
        {"id": message_id, "epoch": epoch, "owner": owner, "check_by": check_by},
    )
    return None if taken is None else int(taken["epoch"])


def give_runners(connection: Connection, owners: Mapping[UUID, str]) -> None:
    """Say whose workflows run messages from now on, whoever ran them before."""
    connection.send(_GIVE_RUNNERS, {"ids": list(owners), "owners": list(owners.values())})


async def overdue(connection: Connection, at: datetime, limit: int) -> Sequence[Row]:
    """Open messages of which nothing was heard by their `check_by`: id, epoch, owner, bulk_id.

    Those of a bulk have none, but for such as were accepted by versions up to the schema 0013.
    """
    return await connection.rows(_OVERDUE, {"at": at, "limit": limit})


def push_check(connection: Connection, ids: Sequence[UUID], check_by: datetime) -> None:
    """Look at these messages again later."""
    connection.send(_PUSH, {"ids": list(ids), "check_by": check_by})


async def doubt_all(connection: Connection, at: datetime) -> int:
    """Let the reconciler look at every open message from `at` on; how many that brings forward."""
    doubted = await connection.row(_DOUBT, {"at": at})
    return int(doubted["messages"]) if doubted else 0


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Which messages to list; None matches all. `before` is the id below which to continue."""

    status: str | None = None
    mode: str | None = None
    sender: str | None = None
    number_hash: bytes | None = None
    provider: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = 50


async def one(
    connection: Connection, account_id: str, environment: str, message_id: UUID
) -> Row | None:
    """A message as its account sees it, number and body included."""
    return await connection.row(
        _ONE,
        {"account_id": account_id, "environment": environment, "id": message_id},
    )


async def listed(
    connection: Connection, account_id: str, environment: str, wanted: MessageFilter
) -> Sequence[Row]:
    """An account's messages, newest first."""
    values: dict[str, Any] = {name: getattr(wanted, name) for name in MessageFilter.__slots__}
    return await connection.rows(
        _LIST, {"account_id": account_id, "environment": environment, **values}
    )


async def open_counts(connection: Connection) -> dict[str, int]:
    """How many messages are open, by status."""
    return {r["status"]: r["messages"] for r in await connection.rows(_OPEN_COUNTS)}

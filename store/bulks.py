"""Bulks: messages that one runner takes to their ends; read, claimed and judged many at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from domain.states import Verdict
from store.database import Answer, Connection, Planner, Row, sql
from store.transitions import MOVED, OPEN, TELL, ByCount, Transition, move

_OF_MOVE = frozenset({"ids", "at"})

_INSERT = sql("""
INSERT INTO bulks (id, first_id, last_id, messages, created_at, check_by)
VALUES (:id, :first_id, :last_id, :messages, :at, :check_by)
""")

_EXTEND = sql("""
UPDATE bulks SET last_id = :last_id, messages = messages + :messages WHERE id = :id
""")

_STORED = sql("""
SELECT id, first_id, last_id, messages, created_at, paused_at, canceled_at FROM bulks WHERE id = :id
""")

_CHECK = sql("UPDATE bulks SET check_by = :check_by WHERE id = :id")
_CHECK_BY_THEN = sql("UPDATE bulks SET check_by = :at WHERE id = :id AND check_by > :at")
_CHECK_AGAIN = sql("UPDATE bulks SET check_by = :check_by WHERE id = :id AND check_by < :at")
_OVERDUE = sql("SELECT id FROM bulks WHERE check_by < :at ORDER BY check_by LIMIT :limit")
_DOUBT = sql("UPDATE bulks SET check_by = :at WHERE check_by > :at RETURNING messages")

_PAUSE = sql("UPDATE bulks SET paused_at = coalesce(paused_at, :at) WHERE id = :id")
_RESUME = sql("UPDATE bulks SET paused_at = NULL WHERE id = :id")
_CANCEL = sql("UPDATE bulks SET canceled_at = coalesce(canceled_at, :at) WHERE id = :id")

_OWNED = """
    m.id BETWEEN :first_id AND :last_id AND m.bulk_id = :bulk_id AND m.owner = :owner
"""

_LATEST = """
LEFT JOIN LATERAL (
    SELECT a.answer_by, a.receipt_by FROM attempts a
    WHERE a.message_id = m.id AND m.status IN ('sending', 'sent')
    ORDER BY a.number DESC LIMIT 1
) latest ON true
"""

_UNTRIED = """
    m.status IN ('queued', 'scheduled') AND m.first_attempt = 1
    AND m.cancel_requested_at IS NULL AND m.valid_until > :at
"""
_RELEASED = "m.verdict = 'scheduled' AND m.scheduled_at <= :at AND m.cancel_requested_at IS NULL"

# What needs a decision of its own: something was tried, asked for, or waited for long enough.
_EXCEPTIONAL = """
    m.status IN ('retried', 'unknown')
    OR m.cancel_requested_at IS NOT NULL
    OR (m.status = 'queued' AND (m.valid_until <= :at OR m.first_attempt > 1))
    OR (m.status = 'sending' AND latest.answer_by <= :at)
    OR (m.status = 'sent' AND (latest.receipt_by <= :at OR :without_receipts))
"""

# One row for each kind of message that routes and policies can tell apart.
_KINDS = sql(f"""
SELECT m.environment, m.country, m.mode, m.sender, m.network, m.account_id, m.priority,
       m.scheduled_at, count(*) AS messages,
       count(*) FILTER (WHERE {_UNTRIED}) AS untried,
       min(m.since) FILTER (WHERE {_UNTRIED}) AS since,
       min(m.valid_until) FILTER (WHERE {_UNTRIED}) AS valid_until,
       count(*) FILTER (WHERE {_RELEASED}) AS released,
       count(*) FILTER (WHERE {_EXCEPTIONAL}) AS exceptional,
       min(CASE WHEN m.status = 'sending' THEN latest.answer_by
                WHEN m.status = 'sent' THEN latest.receipt_by END) AS due
FROM messages m {_LATEST}
WHERE {_OWNED} AND {OPEN}
GROUP BY m.environment, m.country, m.mode, m.sender, m.network, m.account_id, m.priority,
         m.scheduled_at
""")

_UNTRIED_IDS = sql(f"""
SELECT m.id FROM messages m
WHERE {_OWNED} AND {_UNTRIED} AND m.status = 'queued'
  AND m.environment = :environment AND m.country = :country AND m.mode = :mode
  AND m.sender = :sender AND m.network = :network AND m.account_id = :account_id
  AND m.priority = :priority
""")

_UNSCHEDULE = sql(f"""
UPDATE messages m SET verdict = NULL
WHERE {_OWNED} AND {_RELEASED}
RETURNING m.id
""")

_EXCEPTIONS = sql(f"""
SELECT m.id, m.account_id, m.environment, m.mode, m.priority, m.status, m.verdict, m.reason,
       m.sender, m.country, m.network, m.epoch, m.first_attempt, m.since, m.valid_until,
       m.scheduled_at, m.cancel_requested_at
FROM messages m {_LATEST}
WHERE {_OWNED} AND {OPEN} AND ({_EXCEPTIONAL})
ORDER BY m.id LIMIT :limit
""")

# Number and body together: what goes to the provider. Read as the ids stand in their index, and no
# further than the page: sorted, each page would be all of the bulk.
_IN_ORDER = Planner("sort", "bitmapscan")
_READY = sql(f"""
SELECT m.id, m.account_id, m.environment, m.mode, m.priority, m.verdict, m.reason, m.sender,
       m.country, m.network, m.status, m.epoch, m.first_attempt, m.since, m.valid_until,
       m.scheduled_at, m.cancel_requested_at, m.accepted_at, r.number AS recipient, m.body
FROM messages m JOIN recipients r ON r.id = m.recipient_id
WHERE {_OWNED} AND m.id > :after AND m.status IN ('queued', 'retried', 'unknown')
  AND m.cancel_requested_at IS NULL AND m.valid_until > :at
  AND m.body IS NOT NULL AND r.number IS NOT NULL
ORDER BY m.id LIMIT :limit
""")

_ATTEMPTS = sql("""
SELECT message_id, number, provider, status, error_class, tries, answer_by, settled_at, receipt_by,
       recalled, retry_after
FROM attempts WHERE message_id = ANY(:ids) ORDER BY message_id, number
""")

# As `store.attempts.claim`, for many: the last look at everything that could forbid a submit, and
# the attempts, in one statement.
_CLAIM = ByCount.of(f"""
WITH wanted AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:epochs AS integer[]),
                         CAST(:numbers AS smallint[]), CAST(:parts AS smallint[]),
                         CAST(:refs AS integer[]), CAST(:receipt_bys AS timestamptz[]),
                         CAST(:kinds AS integer[]))
         AS w (id, epoch, number, parts, reference, receipt_by, kind)
), allowed AS (
    SELECT w.*, m.status AS previous FROM wanted w JOIN messages m ON m.id = w.id AND m.epoch = w.epoch
    WHERE m.id = ANY(:ids) AND m.owner = :owner AND m.verdict IS NULL
      AND m.cancel_requested_at IS NULL AND m.valid_until > :at
      AND (m.scheduled_at IS NULL OR m.scheduled_at <= :at)
      AND m.status IN ('queued', 'retried', 'unknown')
      AND EXISTS (SELECT FROM bulks b
                  WHERE b.id = :bulk_id AND b.paused_at IS NULL AND b.canceled_at IS NULL)
    ORDER BY m.id
    FOR UPDATE OF m
), attempt AS (
    INSERT INTO attempts (message_id, number, epoch, provider, status, part_status, part_method,
                          reference, started_at, answer_by, settled_at, receipt_by, config_version)
    SELECT id, number, epoch, :provider, 'submitting', CASE WHEN parts = 1 THEN 'submitting' END,
           :part_method, reference, :at, :answer_by, :at, receipt_by, :config_version
    FROM allowed
    ON CONFLICT (message_id, number) DO NOTHING
    RETURNING message_id, number
), written AS (
    INSERT INTO parts (message_id, attempt, number, provider, status, reference, submitted_at)
    SELECT a.id, a.number, part, :provider, 'submitting', (a.reference + part - 1) % 65536, :at
    FROM allowed a JOIN attempt ON attempt.message_id = a.id
    CROSS JOIN LATERAL generate_series(1, a.parts) AS part
    WHERE a.parts > 1
), claimed AS (
    UPDATE messages m SET status = 'sending', moved_at = :at, waiting_for = NULL
    FROM allowed a JOIN attempt ON attempt.message_id = a.id
    WHERE m.id = a.id AND m.id = ANY(:ids)
    RETURNING {MOVED}, a.previous, a.number AS attempt, CAST(:provider AS text) AS provider,
              '' AS code, a.kind
), decided AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, attempt, provider, reason,
                                detail)
    SELECT c.bulk_id, array_agg(c.id), :at, 'decided', :actor, c.attempt, c.provider, 'submit',
           d.detail
    FROM claimed c
    JOIN unnest(CAST(:details AS jsonb[])) WITH ORDINALITY AS d (detail, kind) ON d.kind = c.kind
    GROUP BY c.bulk_id, c.attempt, c.provider, d.kind, d.detail
    RETURNING 1
), moved AS (
    -- Told of only when the decisions were.
    SELECT * FROM claimed WHERE (SELECT count(*) FROM decided) > 0
), {TELL}
""")

_JUDGE = sql("""
UPDATE messages SET verdict = :verdict, reason = :reason
WHERE id = ANY(:ids) AND owner = :owner AND (verdict IS NULL OR verdict IN ('scheduled', 'held'))
""")

# What a provider has, or may have, is not taken back here.
_CANCEL_MESSAGES = sql(f"""
UPDATE messages m
SET cancel_requested_at = coalesce(m.cancel_requested_at, :at), verdict = 'canceled',
    reason = 'canceled'
WHERE {_OWNED} AND (m.verdict IS NULL OR m.verdict IN ('scheduled', 'held'))
  AND m.status IN ('queued', 'scheduled', 'held', 'retried')
RETURNING m.id
""")

_LEAVE = sql(f"""
UPDATE messages m SET epoch = m.epoch + 1, check_by = :check_by, owner = n.owner
FROM unnest(CAST(:ids AS uuid[]), CAST(:owners AS text[])) AS n (id, owner)
WHERE m.id = n.id AND m.owner = :owner AND {OPEN}
RETURNING m.id, m.epoch, m.mode, m.country, m.account_id
""")

_TAKE_CHECKS = sql(f"""
UPDATE messages m SET check_by = NULL WHERE {_OWNED} AND m.check_by IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class Extent:
    """Which messages a bulk has: those from `first_id` to `last_id` that are its own."""

    bulk_id: UUID
    first_id: UUID
    last_id: UUID
    owner: str

    def values(self) -> dict[str, object]:
        """As statements take it."""
        return {
            "bulk_id": self.bulk_id,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "owner": self.owner,
        }


@dataclass(frozen=True, slots=True)
class ClaimOfMany:
    """The right to hand messages to one provider; the lists are of equal length.

    What is not a list is as in `store.attempts.Claim`. `kinds` says by which of `details` each was
    decided, from 1.
    """

    bulk_id: UUID
    owner: str
    provider: str
    part_method: str
    at: datetime
    answer_by: datetime
    config_version: int | None
    ids: Sequence[UUID]
    epochs: Sequence[int]
    numbers: Sequence[int]
    parts: Sequence[int]
    refs: Sequence[int]
    receipt_bys: Sequence[datetime]
    kinds: Sequence[int]
    details: Sequence[Mapping[str, Any]]


def insert(
    connection: Connection, extent: Extent, messages: int, at: datetime, *, check_by: datetime
) -> None:
    """Write a bulk, which the reconciler asks after at `check_by`.

    Its messages are written in the same transaction.
    """
    connection.send(
        _INSERT,
        {
            "id": extent.bulk_id,
            "first_id": extent.first_id,
            "last_id": extent.last_id,
            "messages": messages,
            "at": at,
            "check_by": check_by,
        },
    )


def extend(connection: Connection, extent: Extent, messages: int) -> None:
    """Add messages up to the extent's `last_id` to a bulk that nobody runs yet."""
    connection.send(
        _EXTEND, {"id": extent.bulk_id, "last_id": extent.last_id, "messages": messages}
    )


def stored(connection: Connection, bulk_id: UUID) -> Answer[Row | None]:
    """A bulk's row."""
    return connection.row(_STORED, {"id": bulk_id})


def check(connection: Connection, bulk_id: UUID, check_by: datetime | None) -> None:
    """Have the reconciler ask after a bulk then; None where there is nothing more to ask after."""
    connection.send(_CHECK, {"id": bulk_id, "check_by": check_by})


def check_sooner(connection: Connection, bulk_id: UUID, at: datetime) -> None:
    """Have the reconciler ask after an open bulk at that time, if it would only do so later."""
    connection.send(_CHECK_BY_THEN, {"id": bulk_id, "at": at})


def check_again(
    connection: Connection, bulk_id: UUID, overdue_at: datetime, check_by: datetime
) -> None:
    """Ask again after a bulk that was overdue, unless its runner has looked at it meanwhile."""
    connection.send(_CHECK_AGAIN, {"id": bulk_id, "at": overdue_at, "check_by": check_by})


async def overdue(connection: Connection, at: datetime, limit: int) -> list[UUID]:
    """Bulks whose runners have said nothing by their `check_by`."""
    return await connection.rows(_OVERDUE, {"at": at, "limit": limit}).then(_ids)


async def doubt_all(connection: Connection, at: datetime) -> int:
    """Let the reconciler ask after every open bulk from `at` on; how many messages those have."""
    return sum(row["messages"] for row in await connection.rows(_DOUBT, {"at": at}))


def take_checks(connection: Connection, extent: Extent) -> None:
    """Ask after the bulk alone from now on, where its messages have times of their own."""
    connection.send(_TAKE_CHECKS, extent.values())


def pause(connection: Connection, bulk_id: UUID, at: datetime) -> None:
    """Forbid every further claim until it is resumed."""
    connection.send(_PAUSE, {"id": bulk_id, "at": at})


def resume(connection: Connection, bulk_id: UUID) -> None:
    """Allow claims again."""
    connection.send(_RESUME, {"id": bulk_id})


def cancel(connection: Connection, extent: Extent, at: datetime) -> Answer[list[UUID]]:
    """Forbid every further claim for good; the messages that no provider has, for `settle`."""
    connection.send(_CANCEL, {"id": extent.bulk_id, "at": at})
    return connection.rows(_CANCEL_MESSAGES, {**extent.values(), "at": at}).then(_ids)


def kinds(
    connection: Connection, extent: Extent, at: datetime, *, without_receipts: bool
) -> Answer[Sequence[Row]]:
    """Open messages, counted by what routes and policies look at.

    Of each kind `messages` are open, of which `untried` were never given to a provider, `released`
    were scheduled for a time that has come, and `exceptional` need a decision of their own; the
    first answer or receipt of the others is `due`. `since` and `valid_until` are the earliest of
    those untried. `without_receipts` counts what was accepted as exceptional: a provider of the
    configuration gives no receipts.
    """
    return connection.rows(
        _KINDS, {**extent.values(), "at": at, "without_receipts": without_receipts}
    )


async def untried_ids(
    connection: Connection, extent: Extent, kind: Row, at: datetime
) -> list[UUID]:
    """The untried messages of one row of `kinds` that are not scheduled any more."""
    return await connection.rows(_UNTRIED_IDS, {**kind, **extent.values(), "at": at}).then(_ids)


async def unschedule(connection: Connection, extent: Extent, at: datetime) -> list[UUID]:
    """Let messages go whose time has come; `store.transitions.settle` then moves them."""
    return await connection.rows(_UNSCHEDULE, {**extent.values(), "at": at}).then(_ids)


def exceptional(
    connection: Connection, extent: Extent, at: datetime, limit: int, *, without_receipts: bool
) -> Answer[Sequence[Row]]:
    """The `exceptional` messages of `kinds`, as `store.messages.facts` takes them."""
    return connection.rows(
        _EXCEPTIONS,
        {**extent.values(), "at": at, "limit": limit, "without_receipts": without_receipts},
    )


async def ready(
    connection: Connection, extent: Extent, after: UUID, at: datetime, limit: int
) -> Sequence[Row]:
    """Messages behind `after` that may be sent now, with all that a decision and a submit need."""
    return await connection.rows(
        _READY, {**extent.values(), "after": after, "at": at, "limit": limit}, planner=_IN_ORDER
    )


async def attempts_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """The attempts of messages, in order."""
    found: dict[UUID, list[Row]] = {}
    if ids:
        for attempt in await connection.rows(_ATTEMPTS, {"ids": list(ids)}):
            found.setdefault(attempt["message_id"], []).append(attempt)
    return found


def claim(connection: Connection, wanted: ClaimOfMany, *, actor: str) -> Answer[list[Transition]]:
    """Write the attempts that nothing forbids, and the decisions for them; what moved may be sent."""
    values = {name: getattr(wanted, name) for name in ClaimOfMany.__slots__ if name not in _OF_MOVE}
    values["details"] = [Jsonb(detail) for detail in wanted.details]
    return move(
        connection,
        _CLAIM,
        wanted.ids,
        actor=actor,
        at=wanted.at,
        check_by=None,
        **values,
    )


def judge(
    connection: Connection, owner: str, ids: Sequence[UUID], verdict: Verdict, reason: str
) -> None:
    """Store what was decided about messages; `store.transitions.settle` then moves them."""
    connection.send(
        _JUDGE, {"ids": list(ids), "owner": owner, "verdict": verdict, "reason": reason}
    )


async def leave(
    connection: Connection, owner: str, owners: Mapping[UUID, str], check_by: datetime
) -> Sequence[Row]:
    """Give messages to runners of their own: id, epoch, mode, country, account_id of each."""
    return await connection.rows(
        _LEAVE,
        {
            "ids": list(owners),
            "owners": list(owners.values()),
            "owner": owner,
            "check_by": check_by,
        },
    )


def _ids(rows: Sequence[Row]) -> list[UUID]:
    return [row["id"] for row in rows]

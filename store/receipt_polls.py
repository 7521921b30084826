"""Parts whose receipts did not come, and when they are requested from their providers.

`receipt_polls` has a row for each such part. A scan of what is open adds them, so that submits
and receipts need no statement and no index for it. Its times are those of the database's clock, which all
workers share.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from domain.receipts import PartIdentity
from domain.values import value
from store.database import Connection, Planner, sql
from store.rows import Query
from store.transitions import OPEN


@value
class DuePart:
    """A part whose receipt is due to be requested.

    Attributes:
        polls: how many requests there were before.
        provider_message_id: in the form in which the provider gave it; None if the part is gone.
        sender: of its message.
        receipt_by: until when its receipt is waited for.
        wanted: whether its receipt is still waited for; if not, the row is of no more use.
    """

    message_id: UUID
    attempt: int
    number: int
    polls: int
    provider_message_id: str | None
    sender: str | None
    receipt_by: datetime | None
    wanted: bool

    @property
    def part(self) -> PartIdentity:
        return PartIdentity(self.message_id, self.attempt, self.number)


@dataclass(frozen=True, slots=True)
class BulkRange:
    """The ids of the messages of a bulk that is open; both ends are included."""

    first_id: UUID
    last_id: UUID


@dataclass(frozen=True, slots=True)
class ScannedMessages:
    """A page of open messages: the last `check_by`, how many they were, and how many parts were added."""

    check_by: datetime | None
    messages: int
    added: int


@dataclass(frozen=True, slots=True)
class ScannedAttempts:
    """A page of attempts: the last one, how many they were, and how many parts were added."""

    message_id: UUID | None
    number: int | None
    attempts: int
    added: int


@dataclass(frozen=True, slots=True)
class _PartPolls:
    attempt: int
    polls: int


FIRST_CHECK_BY: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Before that of any message: a scan begins here."""

# A part whose receipt is waited for: of an attempt `a`, as its only part or as the part `p`, of a message
# `m`. A part with a final receipt has another status.
_WANTED = f"""
coalesce(a.part_status, p.status) IN ('accepted', 'unknown')
AND coalesce(a.provider_message_id, p.provider_message_id) IS NOT NULL
AND NOT a.expired AND a.receipt_by > now() AND a.started_at > now() - CAST(:longest AS interval)
AND {OPEN}
"""

# The missing ones among the parts of a page `a` of attempts.
_ADD = f"""
added AS (
    INSERT INTO receipt_polls (message_id, attempt, number, provider, poll_at)
    SELECT a.message_id, a.number, coalesce(p.number, 1), a.provider,
           coalesce(p.submitted_at, a.started_at) + polled.poll_after
    FROM page a
    JOIN unnest(CAST(:providers AS text[]), CAST(:poll_after AS interval[]))
         AS polled (provider, poll_after) ON polled.provider = a.provider
    LEFT JOIN LATERAL (
        SELECT * FROM parts p
        WHERE a.part_status IS NULL AND p.message_id = a.message_id AND p.attempt = a.number
        OFFSET 0
    ) p ON true
    CROSS JOIN LATERAL (
        SELECT m.status, m.verdict FROM messages m WHERE m.id = a.message_id OFFSET 0
    ) m
    WHERE {_WANTED} AND coalesce(p.submitted_at, a.started_at) <= now() - polled.poll_after
    ON CONFLICT DO NOTHING
    RETURNING 1
)
"""

# Open messages that no bulk runs, in the order of their index. All with the same time are in one page.
_SCAN_MESSAGES = Query.of(
    ScannedMessages,
    f"""
WITH looked AS MATERIALIZED (
    SELECT id, status, check_by FROM messages WHERE check_by > :after
    ORDER BY check_by FETCH FIRST (CAST(:limit AS integer)) ROWS WITH TIES
), page AS (
    SELECT a.* FROM looked m
    CROSS JOIN LATERAL (SELECT * FROM attempts a WHERE a.message_id = m.id OFFSET 0) a
    WHERE m.status NOT IN ('scheduled', 'queued')
), {_ADD}
SELECT max(check_by) AS check_by, count(*) AS messages, (SELECT count(*) FROM added) AS added
FROM looked
""",
)

_OPEN_BULKS = Query.of(
    BulkRange, "SELECT first_id, last_id FROM bulks WHERE check_by IS NOT NULL ORDER BY first_id"
)

_SCAN_ATTEMPTS = Query.of(
    ScannedAttempts,
    f"""
WITH page AS MATERIALIZED (
    SELECT * FROM attempts
    WHERE (message_id, number) > (CAST(:after_id AS uuid), CAST(:after_number AS smallint))
      AND message_id <= :last_id
    ORDER BY message_id, number LIMIT :limit
), {_ADD}, last AS (
    SELECT message_id, number FROM page ORDER BY message_id DESC, number DESC LIMIT 1
)
SELECT (SELECT message_id FROM last) AS message_id, (SELECT number FROM last) AS number,
       (SELECT count(*) FROM page) AS attempts, (SELECT count(*) FROM added) AS added
""",
)

# One worker scans, for all providers; the next one may begin when the time of this one is over.
_BEGIN_SCAN = Query.of(
    bool,
    """
INSERT INTO receipt_poll_scans (one, next_at) VALUES (true, now() + CAST(:lease AS interval))
ON CONFLICT (one) DO UPDATE SET next_at = excluded.next_at
WHERE receipt_poll_scans.next_at <= now()
RETURNING true AS began
""",
)
_NEXT_SCAN = sql("UPDATE receipt_poll_scans SET next_at = now() + CAST(:after AS interval)")

# What another worker has just claimed is skipped: its row is locked, or no longer due.
_DUE = Query.of(
    DuePart,
    f"""
WITH due AS MATERIALIZED (
    SELECT message_id, attempt, number, polls, poll_at FROM receipt_polls
    WHERE provider = :provider AND poll_at <= now()
    ORDER BY poll_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
SELECT d.message_id, d.attempt, d.number, d.polls,
       coalesce(a.provider_message_id_given, a.provider_message_id, p.provider_message_id_given,
                p.provider_message_id) AS provider_message_id,
       m.sender, a.receipt_by, ({_WANTED}) IS TRUE AS wanted
FROM due d
LEFT JOIN LATERAL (
    SELECT * FROM attempts a WHERE a.message_id = d.message_id AND a.number = d.attempt OFFSET 0
) a ON true
LEFT JOIN LATERAL (
    SELECT * FROM parts p
    WHERE p.message_id = d.message_id AND p.attempt = d.attempt AND p.number = d.number OFFSET 0
) p ON true
LEFT JOIN LATERAL (SELECT * FROM messages m WHERE m.id = d.message_id OFFSET 0) m ON true
""",
)
_IN_ORDER = Planner("sort", "bitmapscan")
"""Where it expects few parts to be due, the planner would read and sort all that are."""

_OF_ROWS = """
FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[]), CAST(:numbers AS smallint[]){more})
     AS d (message_id, attempt, number{names})
WHERE r.message_id = d.message_id AND r.attempt = d.attempt AND r.number = d.number
"""
_CLAIM = sql(
    "UPDATE receipt_polls r SET polls = r.polls + 1, poll_at = now() + d.after"
    + _OF_ROWS.format(more=", CAST(:after AS interval[])", names=", after")
)
_REMOVE = sql(
    "DELETE FROM receipt_polls r USING" + _OF_ROWS.format(more="", names="").removeprefix("\nFROM")
)
_POLLS = Query.of(
    _PartPolls,
    """
SELECT attempt, max(polls) AS polls FROM receipt_polls
WHERE message_id = :message_id AND polls > 0 GROUP BY attempt
""",
)


async def begin_scan(connection: Connection, lease: timedelta) -> bool:
    """Whether this worker may scan now: nobody else does within `lease`."""
    return await _BEGIN_SCAN.row(connection, {"lease": lease}) is not None


def next_scan_after(connection: Connection, after: timedelta) -> None:
    """Let no scan begin before that time has passed."""
    connection.send(_NEXT_SCAN, {"after": after})


async def scan_messages(
    connection: Connection,
    polled: Mapping[str, timedelta],
    *,
    longest: timedelta,
    after: datetime,
    limit: int,
) -> ScannedMessages:
    """Add the parts of open messages that no bulk runs, from those whose `check_by` is later than `after`.

    Args:
        connection: a transaction.
        polled: how long after the submit receipts are requested, by provider.
        longest: how long after the submit requests end.
        after: that of the page before.
        limit: about how many messages.
    """
    values = {**_polled(polled), "longest": longest, "after": after, "limit": limit}
    found = await _SCAN_MESSAGES.row(connection, values)
    return found or ScannedMessages(None, 0, 0)


async def open_bulks(connection: Connection) -> Sequence[BulkRange]:
    """The bulks that have a runner."""
    return await _OPEN_BULKS.rows(connection)


async def scan_attempts(
    connection: Connection,
    polled: Mapping[str, timedelta],
    *,
    longest: timedelta,
    after: tuple[UUID, int],
    last_id: UUID,
    limit: int,
) -> ScannedAttempts:
    """Add the parts of attempts behind `after`, in the order of their messages, up to the message `last_id`.

    The others as for `scan_messages`.
    """
    values = {
        **_polled(polled),
        "longest": longest,
        "after_id": after[0],
        "after_number": after[1],
        "last_id": last_id,
        "limit": limit,
    }
    found = await _SCAN_ATTEMPTS.row(connection, values)
    return found or ScannedAttempts(None, None, 0, 0)


async def due(
    connection: Connection, provider: str, *, longest: timedelta, limit: int
) -> Sequence[DuePart]:
    """A provider's parts that are due; no other worker gets them until the end of the transaction."""
    values = {"provider": provider, "longest": longest, "limit": limit}
    return await _DUE.rows(connection, values, planner=_IN_ORDER)


def claim(connection: Connection, parts: Sequence[tuple[DuePart, timedelta]]) -> None:
    """Count a request for each of these; they are due again when the time with each has passed."""
    if parts:
        after = [wait for _, wait in parts]
        connection.send(_CLAIM, {**_keys([part for part, _ in parts]), "after": after})


def remove(connection: Connection, parts: Collection[DuePart]) -> None:
    """End the requests for these."""
    if parts:
        connection.send(_REMOVE, _keys(parts))


async def of_message(connection: Connection, message_id: UUID) -> dict[int, int]:
    """How often receipts of a message were requested, by the numbers of its attempts."""
    found = await _POLLS.rows(connection, {"message_id": message_id})
    return {each.attempt: each.polls for each in found}


def _polled(polled: Mapping[str, timedelta]) -> dict[str, object]:
    return {"providers": list(polled), "poll_after": list(polled.values())}


def _keys(parts: Collection[DuePart]) -> dict[str, object]:
    return {
        "message_ids": [part.message_id for part in parts],
        "attempts": [part.attempt for part in parts],
        "numbers": [part.number for part in parts],
    }

"""Receipts that match no part yet: which are matched again, when, and how many there are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from store.database import Connection
from store.rows import Query
from store.transitions import SizedQuery


@dataclass(frozen=True, slots=True)
class DueReceipt:
    """A receipt that matches no part yet, and is to be matched again."""

    day: date
    id: int
    provider: str
    provider_message_id: str
    received_at: datetime
    tries: int
    named_message_id: UUID | None
    """The message that the receipt itself names, if it does."""


@dataclass(frozen=True, slots=True)
class _PutOff:
    provider: str
    match_at: datetime | None


@dataclass(frozen=True, slots=True)
class UnmatchedCounts:
    """Receipts of one provider that match no part: those that are still tried, and those that are not."""

    provider: str
    waiting: int = 0
    never_matched: int = 0


STILL_WAITS = """
r.day = p.day AND r.id = p.id AND r.match_at IS NOT NULL
AND r.day = ANY(CAST(:days AS date[])) AND r.id = ANY(CAST(:keys AS bigint[]))
"""
"""Whether `r` is one of the rows `p`, and matches no part still: a concurrent transaction may have
matched it."""

_WAITING_IDS = Query.of(
    str,
    """
SELECT provider_message_id FROM receipts
WHERE provider = ANY(CAST(:providers AS text[])) AND match_at IS NOT NULL
  AND named_message_id IS NULL
LIMIT :limit
""",
)

# The newest first: what never matches is not to hold up what may.
_DUE = Query.of(
    DueReceipt,
    """
SELECT day, id, provider, provider_message_id, received_at, tries, named_message_id FROM receipts
WHERE match_at <= :at ORDER BY match_at DESC LIMIT :limit
""",
)

_PUT_OFF = SizedQuery.of(
    _PutOff,
    f"""
UPDATE receipts r SET tries = r.tries + 1, match_at = p.match_at
FROM unnest(CAST(:days AS date[]), CAST(:keys AS bigint[]), CAST(:match_at AS timestamptz[]))
     AS p (day, id, match_at)
WHERE {STILL_WAITS}
RETURNING r.provider, r.match_at
""",
)

_UNMATCHED_COUNTS = Query.of(
    UnmatchedCounts,
    """
SELECT provider, count(*) FILTER (WHERE waits) AS waiting,
       count(*) FILTER (WHERE NOT waits) AS never_matched
FROM (
    SELECT provider, true AS waits FROM receipts WHERE match_at IS NOT NULL
    UNION ALL
    SELECT provider, false FROM receipts
    WHERE message_id IS NULL AND match_at IS NULL AND received_at > :since
) AS unmatched
GROUP BY provider
""",
)

# One step in the index for each provider.
_PROVIDERS = Query.of(
    str,
    """
WITH RECURSIVE found AS (
    (SELECT provider FROM attempts WHERE provider_message_id IS NOT NULL ORDER BY provider LIMIT 1)
    UNION ALL
    SELECT (SELECT a.provider FROM attempts a
            WHERE a.provider_message_id IS NOT NULL AND a.provider > found.provider
            ORDER BY a.provider LIMIT 1)
    FROM found WHERE found.provider IS NOT NULL
)
SELECT provider FROM found WHERE provider IS NOT NULL
""",
)


async def due(connection: Connection, at: datetime, limit: int) -> Sequence[DueReceipt]:
    """Receipts that are to be matched again, the newest first."""
    return await _DUE.rows(connection, {"at": at, "limit": limit})


async def put_off(
    connection: Connection, receipts: Sequence[tuple[DueReceipt, datetime | None]]
) -> Counter[str]:
    """Match those that still wait again at these times, or, where that is None, never more.

    Returns how many are not tried any more, by provider.
    """
    put_off = await _PUT_OFF.rows(
        connection,
        {
            "days": [receipt.day for receipt, _ in receipts],
            "keys": [receipt.id for receipt, _ in receipts],
            "match_at": [at for _, at in receipts],
        },
        count=len(receipts),
    )
    return Counter(each.provider for each in put_off if each.match_at is None)


async def providers(connection: Connection) -> Sequence[str]:
    """All providers that ever accepted a message of one part."""
    return await _PROVIDERS.rows(connection)


async def unmatched_counts(connection: Connection, since: datetime) -> dict[str, UnmatchedCounts]:
    """By provider, the receipts that match no part; those that are not tried any more since then."""
    found = await _UNMATCHED_COUNTS.rows(connection, {"since": since})
    return {counts.provider: counts for counts in found}


async def waiting(connection: Connection, providers: Sequence[str], limit: int) -> set[str] | None:
    """The ids of receipts that name no part and match none yet; None if there are `limit` or more."""
    values = {"providers": list(providers), "limit": limit}
    found = await _WAITING_IDS.rows(connection, values)
    return set(found) if len(found) < limit else None

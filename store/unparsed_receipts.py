"""Receipts that could not be parsed, as the octets that came."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from store.database import Connection, sql
from store.rows import Query

MOST_COUNTED = 10_000
"""How many of a provider's unparsed receipts are counted; a backlog may be any number."""


@dataclass(frozen=True, slots=True)
class UnparsedReceipt:
    """A receipt that could not be parsed: the octets of its PDU."""

    id: int
    received_at: datetime
    frame: bytes


@dataclass(frozen=True, slots=True)
class _ProviderCount:
    provider: str
    receipts: int


_ADD = sql("""
INSERT INTO unparsed_receipts (provider, received_at, reason, frame)
VALUES (:provider, :received_at, :reason, :frame)
""")
_COUNTS = Query.of(
    _ProviderCount,
    """
SELECT p.provider, n.receipts
FROM unnest(CAST(:providers AS text[])) AS p (provider)
CROSS JOIN LATERAL (
    SELECT count(*) AS receipts FROM (
        SELECT FROM unparsed_receipts u WHERE u.provider = p.provider LIMIT :limit
    ) AS counted
) AS n
""",
)
_AFTER = Query.of(
    UnparsedReceipt,
    """
SELECT id, received_at, frame FROM unparsed_receipts
WHERE provider = :provider AND id > :after ORDER BY id LIMIT :limit
""",
)
_REMOVE = sql("DELETE FROM unparsed_receipts WHERE id = ANY(CAST(:ids AS bigint[]))")


def add(
    connection: Connection, provider: str, *, received_at: datetime, reason: str, frame: bytes
) -> None:
    """Store one."""
    connection.send(
        _ADD, {"provider": provider, "received_at": received_at, "reason": reason, "frame": frame}
    )


async def counts(connection: Connection, providers: Collection[str]) -> Mapping[str, int]:
    """How many are stored of each provider, at most `MOST_COUNTED`."""
    found = await _COUNTS.rows(connection, {"providers": list(providers), "limit": MOST_COUNTED})
    return {each.provider: each.receipts for each in found}


async def after(
    connection: Connection, provider: str, after: int, limit: int
) -> Sequence[UnparsedReceipt]:
    """A provider's, in the order in which they came."""
    return await _AFTER.rows(connection, {"provider": provider, "after": after, "limit": limit})


def remove(connection: Connection, ids: Sequence[int]) -> None:
    """Delete those that were parsed meanwhile."""
    connection.send(_REMOVE, {"ids": list(ids)})

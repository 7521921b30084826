"""Dead letters, listed and taken up again."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from store.database import Connection, Row, sql
from store.messages import VIEW

_LAST_PROVIDER = """(
    CAST(:provider AS text) IS NULL OR :provider = (
        SELECT a.provider FROM attempts a WHERE a.message_id = m.id
        ORDER BY a.number DESC LIMIT 1))"""

_LIST = sql(
    VIEW
    + """
  AND m.verdict = 'dead_letter' AND m.status = 'dead_letter'
  AND """
    + _LAST_PROVIDER
    + """
  AND (CAST(:before AS uuid) IS NULL OR m.id < :before)
ORDER BY m.id DESC LIMIT :limit
"""
)

# The locked rows are read again after the wait, so that what a late receipt has delivered
# meanwhile is no dead letter any more.
_TAKE = sql(
    """
WITH chosen AS (
    SELECT m.id FROM messages m
    WHERE m.account_id = :account_id AND m.environment = :environment
      AND m.verdict = 'dead_letter' AND m.status = 'dead_letter'
      AND (CAST(:ids AS uuid[]) IS NULL OR m.id = ANY(CAST(:ids AS uuid[])))
      AND """
    + _LAST_PROVIDER
    + """
    ORDER BY m.id LIMIT :limit
    FOR UPDATE OF m
)
UPDATE messages m
SET verdict = NULL, reason = NULL, epoch = m.epoch + 1, since = :at,
    first_attempt = 1 + coalesce((SELECT max(number) FROM attempts WHERE message_id = m.id), 0),
    valid_until = CAST(:at AS timestamptz) + m.validity, scheduled_at = NULL,
    cancel_requested_at = NULL, check_by = :check_by
FROM chosen
WHERE m.id = chosen.id
RETURNING m.id, m.epoch, m.mode, m.country, m.account_id
"""
)


async def listed(
    connection: Connection,
    account_id: str,
    environment: str,
    *,
    provider: str | None,
    before: UUID | None,
    limit: int,
) -> Sequence[Row]:
    """An account's dead letters, newest first."""
    return await connection.rows(
        _LIST,
        {
            "account_id": account_id,
            "environment": environment,
            "provider": provider,
            "before": before,
            "limit": limit,
        },
    )


async def take(
    connection: Connection,
    account_id: str,
    environment: str,
    *,
    ids: Sequence[UUID] | None,
    provider: str | None,
    limit: int,
    at: datetime,
    check_by: datetime,
) -> Sequence[Row]:
    """Give dead letters a new epoch and their whole validity, oldest first; those taken."""
    return await connection.rows(
        _TAKE,
        {
            "account_id": account_id,
            "environment": environment,
            "ids": None if ids is None else list(ids),
            "provider": provider,
            "limit": limit,
            "at": at,
            "check_by": check_by,
        },
    )

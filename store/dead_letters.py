"""Dead letters, listed and taken up again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from store.database import Connection
from store.messages import VIEW, AccountMessage, RunnableMessage
from store.rows import Query


@dataclass(frozen=True, slots=True)
class ProviderCount:
    """Dead letters that a provider had or was offered; None: no route takes them."""

    provider: str | None
    messages: int


# A provider's dead letters are those that it was tried for, and those that it could not be tried for
# because it was down.
_OF_PROVIDER = """(
    CAST(:provider AS text) IS NULL OR :provider = ANY(m.offered) OR EXISTS (
        SELECT FROM attempts a WHERE a.message_id = m.id AND a.provider = :provider))"""

_BY_PROVIDER = Query.of(
    ProviderCount,
    """
WITH dead AS (
    SELECT m.id, m.offered FROM messages m
    WHERE m.account_id = :account_id AND m.environment = :environment
      AND m.verdict = 'dead_letter' AND m.status = 'dead_letter'
    ORDER BY m.id DESC LIMIT :most
)
SELECT p.provider, count(*) AS messages
FROM dead LEFT JOIN LATERAL (
    SELECT unnest(dead.offered) AS provider
    UNION
    SELECT a.provider FROM attempts a WHERE a.message_id = dead.id
) p ON true
GROUP BY p.provider ORDER BY messages DESC, p.provider
""",
)

_LIST = Query.of(
    AccountMessage,
    VIEW
    + """
  AND m.verdict = 'dead_letter' AND m.status = 'dead_letter'
  AND """
    + _OF_PROVIDER
    + """
  AND (CAST(:before AS uuid) IS NULL OR m.id < :before)
ORDER BY m.id DESC LIMIT :limit
""",
)

# The locked rows are read again after the wait, so that what a late receipt has delivered
# meanwhile is no dead letter any more.
_TAKE = Query.of(
    RunnableMessage,
    """
WITH chosen AS (
    SELECT m.id FROM messages m
    WHERE m.account_id = :account_id AND m.environment = :environment
      AND m.verdict = 'dead_letter' AND m.status = 'dead_letter'
      AND (CAST(:ids AS uuid[]) IS NULL OR m.id = ANY(CAST(:ids AS uuid[])))
      AND NOT EXISTS (SELECT FROM bulks b WHERE b.id = m.bulk_id AND b.canceled_at IS NOT NULL)
      AND """
    + _OF_PROVIDER
    + """
    ORDER BY m.id LIMIT :limit
    FOR UPDATE OF m
)
UPDATE messages m
SET verdict = NULL, reason = NULL, epoch = m.epoch + 1, since = :at,
    first_attempt = 1 + coalesce((SELECT max(number) FROM attempts WHERE message_id = m.id), 0),
    valid_until = CAST(:at AS timestamptz) + m.validity, scheduled_at = NULL,
    cancel_requested_at = NULL, offered = NULL, check_by = :check_by
FROM chosen
WHERE m.id = chosen.id
RETURNING m.id, m.epoch, m.mode, m.country, m.account_id, m.priority
""",
)


async def listed(
    connection: Connection,
    account_id: str,
    environment: str,
    *,
    provider: str | None,
    before: UUID | None,
    limit: int,
) -> Sequence[AccountMessage]:
    """An account's dead letters, newest first."""
    return await _LIST.rows(
        connection,
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
) -> Sequence[RunnableMessage]:
    """Give dead letters a new epoch and their whole validity, oldest first; those taken."""
    return await _TAKE.rows(
        connection,
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


async def by_provider(
    connection: Connection, account_id: str, environment: str, *, most: int
) -> Sequence[ProviderCount]:
    """How many dead letters each provider had or was offered, of the newest `most`.

    One that several providers were offered counts for each of them.
    """
    return await _BY_PROVIDER.rows(
        connection, {"account_id": account_id, "environment": environment, "most": most}
    )

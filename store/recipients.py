"""Recipients of whom no message is left: their rows hold numbers, and go with the last message.

Whoever accepts a message finds its recipient first and refers to it then, without a lock. So a
recipient is not just deleted: it is set aside, where nobody finds it any more (who sends to the
number again adds another row); then one waits until all are gone who may have found it before; and
only if there is no message of it even then, it is deleted.
"""

from collections.abc import Sequence
from uuid import UUID

from store.database import Database, sql

# Set aside is who has a version of the hash that no key has.
# Nobody who accepts messages is waited for here, since they may wait for us.
_ASIDE = sql("""
WITH free AS (
    SELECT r.id FROM recipients r
    WHERE r.id = ANY(:ids) AND r.hash_version > 0
      AND NOT EXISTS (SELECT FROM messages m WHERE m.recipient_id = r.id)
      AND NOT EXISTS (SELECT FROM recipients o
                      WHERE o.account_id = r.account_id AND o.hash_version = -r.hash_version
                        AND o.number_hash = r.number_hash)
    FOR UPDATE OF r SKIP LOCKED
), aside AS (
    UPDATE recipients r SET hash_version = -r.hash_version FROM free WHERE r.id = free.id
    RETURNING 1
)
SELECT count(*) AS recipients FROM aside
""")

_DELETE = sql("""
WITH gone AS (
    DELETE FROM recipients r
    WHERE r.id = ANY(:ids) AND r.hash_version < 0
      AND NOT EXISTS (SELECT FROM messages m WHERE m.recipient_id = r.id)
    RETURNING 1
)
SELECT count(*) AS recipients FROM gone
""")

# Every transaction that has read or written recipients holds one of these locks until its end.
_USERS = sql("""
SELECT DISTINCT virtualtransaction AS name FROM pg_locks
WHERE relation = 'recipients'::regclass
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND pid <> pg_backend_pid()
  AND mode IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
""")


async def of_table(database: Database, name: str, after: UUID, limit: int) -> Sequence[UUID]:
    """Recipients of the messages of a detached partition, in order, those behind `after`."""
    found = await database.rows(
        sql(
            f"SELECT DISTINCT recipient_id FROM {name} WHERE recipient_id > :after"
            " ORDER BY recipient_id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [row["recipient_id"] for row in found]


async def set_aside(database: Database, ids: Sequence[UUID]) -> int:
    """Have those of recipients that have no message be found no more; how many that changed."""
    (found,) = await database.rows(_ASIDE, {"ids": list(ids)})
    return int(found["recipients"])


async def users(database: Database) -> set[str]:
    """The transactions of this moment that have anything to do with recipients."""
    return {row["name"] for row in await database.rows(_USERS)}


async def delete(database: Database, ids: Sequence[UUID]) -> int:
    """Delete those of recipients that are set aside and still have no message; how many."""
    (found,) = await database.rows(_DELETE, {"ids": list(ids)})
    return int(found["recipients"])

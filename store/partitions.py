"""Partitions of what is only added to and read: events, by the month in which their message was accepted.

Each table is partitioned by ranges of ids. Ids are UUIDv7 (RFC 9562, 5.7), so these are ranges of time.
A last partition takes all other rows. Decision 0015 explains why no other table is partitioned.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

from store.database import Connection, sql
from store.rows import Query

Table = Literal["events", "events_of_many"]
TABLES: Final[tuple[Table, ...]] = ("events", "events_of_many")


@dataclass(frozen=True, slots=True)
class _Bounds:
    name: str
    bounds: str


_BOUNDS = Query.of(
    _Bounds,
    """
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = CAST(:table AS text)::regclass
""",
)
_UNTIL: Final = re.compile(r"TO \('([0-9a-f-]{36})'\)")

# Whoever waits for a table's exclusive lock holds up all who come after: no writer is to wait for longer
# than this. (DETACH … CONCURRENTLY would wait for nobody, but not where there is a default partition.)
_WAIT_BRIEFLY = sql("SET LOCAL lock_timeout = '50ms'")

# Functions that run with the rights of the tables' owner: store/migrations/baseline/09_events.sql.
_MAKE = sql("SELECT make_partition(:table, :name, CAST(:since AS uuid), CAST(:until AS uuid))")
_DROP = sql("SELECT drop_partition(:name)")

# Whoever explains a message finds its bulk by it; a bulk goes with the last of its messages.
_IS_NEEDED = Query.of(
    bool,
    """
SELECT EXISTS (SELECT FROM messages WHERE id < :until)
    OR EXISTS (SELECT FROM bulks WHERE id < :until) AS needed
""",
)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of `table`, with all rows whose id is smaller than `until` and in no earlier one."""

    table: Table
    name: str
    until: UUID


def first_id(moment: datetime) -> UUID:
    """No id that was made at this moment, or later, is smaller."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def moment_of(first: UUID) -> datetime:
    """The moment whose `first_id` this is."""
    return datetime.fromtimestamp((first.int >> 80) / 1000, UTC)


async def stored(connection: Connection, table: Table) -> list[Partition]:
    """A table's partitions, the oldest first; all but the one for what no other takes."""
    found = [
        Partition(table, partition.name, UUID(bounds[1]))
        for partition in await _BOUNDS.rows(connection, {"table": table})
        if (bounds := _UNTIL.search(partition.bounds)) is not None
    ]
    return sorted(found, key=lambda partition: partition.until)


async def make(connection: Connection, table: Table, since: datetime, until: datetime) -> None:
    """Make the partition for ids of a time, which no other partition has.

    Who adds events of this time, or of a later one, waits for 50 ms at most.

    Raises:
        psycopg.errors.CheckViolation: the last partition has taken such rows already.
        TransactionLost: a transaction uses the table just now; try again.
    """
    connection.send(_WAIT_BRIEFLY)
    connection.send(
        _MAKE,
        {
            "table": table,
            "name": f"{table}_{since:%Y%m}",
            "since": first_id(since),
            "until": first_id(until),
        },
    )
    await connection.flush()


async def is_needed(connection: Connection, partition: Partition) -> bool:
    """Whether there still is a message, or a bulk, that one of its events may be about."""
    needed = await _IS_NEEDED.row(connection, {"until": partition.until})
    return needed is not False


async def drop(connection: Connection, partition: Partition) -> None:
    """Drop a partition, with all events in it; who adds events waits for 50 ms at most.

    Raises:
        TransactionLost: a transaction uses the table just now; try again.
    """
    connection.send(_WAIT_BRIEFLY)
    connection.send(_DROP, {"name": partition.name})
    await connection.flush()

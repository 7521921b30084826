"""Partitions of what is only added to and read: events, by the month in which their message was accepted.

Each table is in ranges of ids, which are UUIDv7 (RFC 9562, 5.7), so of times; a last partition takes
what no other does. Decision 0015 tells why no other table is partitioned.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

from store.database import Connection, sql

Table = Literal["events", "events_of_many"]
TABLES: Final[tuple[Table, ...]] = ("events", "events_of_many")

_BOUNDS = sql("""
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = CAST(:table AS text)::regclass
""")
_UNTIL: Final = re.compile(r"TO \('([0-9a-f-]{36})'\)")

_WAIT_A_SECOND = sql("SET LOCAL lock_timeout = '1s'")

# Whoever explains a message finds its bulk by it; a bulk goes with the last of its messages.
_IS_NEEDED = sql("""
SELECT EXISTS (SELECT FROM messages WHERE id < :until)
    OR EXISTS (SELECT FROM bulks WHERE id < :until) AS needed
""")


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
        Partition(table, row["name"], UUID(bounds[1]))
        for row in await connection.rows(_BOUNDS, {"table": table})
        if (bounds := _UNTIL.search(row["bounds"])) is not None
    ]
    return sorted(found, key=lambda partition: partition.until)


async def make(connection: Connection, table: Table, since: datetime, until: datetime) -> None:
    """Make the partition for ids of a time, which no other partition has.

    Nobody who adds events waits for it.

    Raises:
        psycopg.errors.CheckViolation: the last partition has taken such rows already.
        DatabaseAway: somebody has the table for more than a second.
    """
    name = f"{table}_{since:%Y%m}"
    connection.send(_WAIT_A_SECOND)
    connection.send(sql(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING INDEXES)"))
    connection.send(
        sql(
            f"ALTER TABLE {table} ATTACH PARTITION {name}"
            f" FOR VALUES FROM ('{first_id(since)}') TO ('{first_id(until)}')"
        )
    )
    await connection.flush()


async def is_needed(connection: Connection, partition: Partition) -> bool:
    """Whether there still is a message, or a bulk, that one of its events may be about."""
    row = await connection.row(_IS_NEEDED, {"until": partition.until})
    return row is None or bool(row["needed"])


async def drop(connection: Connection, partition: Partition) -> None:
    """Drop a partition, with all events in it.

    Raises:
        DatabaseAway: somebody has the table for more than a second.
    """
    connection.send(_WAIT_A_SECOND)
    connection.send(sql(f"DROP TABLE {partition.name}"))
    await connection.flush()

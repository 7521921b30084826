"""Tables cut by time: messages, what belongs to them by their id, and receipts by their day.

Partitions follow each other without a gap. The first one has no beginning until it is dropped, the
last one no end: should nobody cut new ones in time, it takes what comes. Every cut is a transaction
that has its table for itself for a moment, and lets go if it does not get it at once.

What must be, and when, is said by `services.partitions`.
"""

import re
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from psycopg.errors import (
    CheckViolation,
    DuplicateTable,
    InvalidObjectDefinition,
    LockNotAvailable,
    UndefinedTable,
)

from domain.partitions import first_id_at, moment_of
from store.database import Connection, Database, DatabaseAway, Row, sql

MESSAGES: Final = "messages"
CALLBACKS: Final = "callback_events"

CUT_BY: Final = {
    MESSAGES: "id",
    "attempts": "message_id",
    "parts": "message_id",
    "events": "message_id",
    CALLBACKS: "message_id",
    "events_of_many": "bulk_id",
    "receipts": "day",
}
"""The tables that are cut, and by which column."""

_NONE: Final = UUID(int=0)
_REST: Final = "_rest"

# How long a cut stands in the way of all who send, at most, before it gives up.
_AT_MOST: Final = sql("SET LOCAL lock_timeout = '200ms'")
_SOON: Final = sql("SET LOCAL lock_timeout = '3s'")
# Detaching stands in nobody's way, and waits for those who may still see the partition.
_PATIENCE: Final = timedelta(seconds=5)

_CHANGED_MEANWHILE: Final = (DuplicateTable, InvalidObjectDefinition, UndefinedTable)


class TableBusy(Exception):
    """Somebody had the table for longer than one waits for it; to be tried again."""

    loggable = True


class RowsBeyond(Exception):
    """There are rows where none should be yet; `close_rest` makes room for those of the present."""

    loggable = True


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a table, from `begin` (included) to `end`; None has no bound.

    `leaving` tells that a process died while it detached it.
    """

    table: str
    name: str
    begin: datetime | None
    end: datetime | None
    bounds: str
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Detached:
    """A former partition whose rows nobody needs any more; `bounds` are those that it had."""

    table: str
    name: str
    bounds: str


def reach(ids: Collection[UUID]) -> dict[str, UUID]:
    """The first and the last of ids, as `low` and `high`.

    Statements about `id = ANY(:ids)` say `id BETWEEN :low AND :high` too: Postgres passes over
    partitions by bounds that it is given, but not by what lies in an array.
    """
    return {"low": min(ids, default=_NONE), "high": max(ids, default=_NONE)}


_ATTACHED = sql("""
SELECT p.relname AS table, c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds,
       i.inhdetachpending AS leaving
FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid
WHERE p.relkind = 'p' AND p.relname = ANY(CAST(:tables AS text[])) AND pg_table_is_visible(p.oid)
""")

# What is detached is told apart from anybody's other tables by a remark, which keeps its bounds.
_REMARK: Final = "no partition any more, was "
_DETACHED = sql("""
SELECT c.relname AS name, obj_description(c.oid, 'pg_class') AS remark
FROM pg_class c
WHERE c.relkind = 'r' AND NOT c.relispartition AND pg_table_is_visible(c.oid)
  AND starts_with(obj_description(c.oid, 'pg_class'), :remark)
ORDER BY c.relname
""")

_OPTIONS = sql("""
SELECT coalesce(' WITH (' || array_to_string(reloptions, ', ') || ')', '') AS options
FROM pg_class WHERE oid = to_regclass(:name)
""")

_CLOCK = sql("SELECT clock_timestamp() AS now")

# By the indexes of what is open and of what is pending, which are small.
_OPEN = sql("""
SELECT (SELECT check_by FROM messages WHERE id < :before AND check_by < 'infinity'
        ORDER BY check_by LIMIT 1) IS NOT NULL
    OR (SELECT message_id FROM callback_events
        WHERE message_id < :before AND state = 'pending'
        ORDER BY message_id, position LIMIT 1) IS NOT NULL AS is_open
""")


async def attached(database: Database) -> Sequence[Partition]:
    """The partitions of all tables, each table's in the order of time."""
    found = await database.rows(_ATTACHED, {"tables": list(CUT_BY)})
    earliest = datetime.min.replace(tzinfo=UTC)
    return sorted(
        (_partition(row) for row in found), key=lambda each: (each.table, each.begin or earliest)
    )


def _partition(row: Row) -> Partition:
    bounds = re.fullmatch(r"FOR VALUES FROM \((.+)\) TO \((.+)\)", row["bounds"])
    if bounds is None:
        message = f"the partition {row['name']} is not a range of time"
        raise LookupError(message)
    begin, end = (_moment(row["table"], bound) for bound in bounds.groups())
    return Partition(row["table"], row["name"], begin, end, row["bounds"], row["leaving"])


def _moment(table: str, bound: str) -> datetime | None:
    if bound in {"MINVALUE", "MAXVALUE"}:
        return None
    value = bound.strip("'")
    if CUT_BY[table] == "day":
        return datetime.combine(date.fromisoformat(value), time(), UTC)
    return moment_of(UUID(value))


def _bound(table: str, moment: datetime) -> str:
    return moment.date().isoformat() if CUT_BY[table] == "day" else str(first_id_at(moment))


async def clock(database: Database) -> datetime:
    """The time of the database."""
    (found,) = await database.rows(_CLOCK)
    now: datetime = found["now"]
    return now


async def is_empty(database: Database, partition: Partition) -> bool:
    """Whether a partition has no row."""
    found = await database.rows(sql(f"SELECT FROM {partition.name} LIMIT 1"))
    return not found


async def cut_rest(database: Database, rest: Partition, end: datetime) -> Partition:
    """Cut a partition up to `end` off the last one, which is empty.

    Raises:
        TableBusy: see there.
        RowsBeyond: the last one is not empty.
    """
    table, name = rest.table, _name(rest)
    options = await _options(database, rest.name)
    bounds = f"FOR VALUES FROM ('{_bound(table, _begin(rest))}') TO ('{_bound(table, end)}')"
    async with _cutting(database, table, rest.name) as connection:
        _make(connection, table, name, options)
        _ddl(connection, f"ALTER TABLE {table} DETACH PARTITION {rest.name}")
        _ddl(connection, f"ALTER TABLE {table} ATTACH PARTITION {name} {bounds}")
        _attach_rest(connection, table, end)
    return Partition(table, name, rest.begin, end, bounds)


async def close_rest(database: Database, rest: Partition, end: datetime) -> Partition:
    """Let the last partition, which has rows, end at `end`, and begin an empty one behind it.

    No row is moved: that they all lie before `end` is proved beside the work.

    Raises:
        TableBusy: see there.
        RowsBeyond: there are rows behind `end`: the clock of whoever made their ids is ahead.
    """
    table, column, name = rest.table, CUT_BY[rest.table], _name(rest)
    options = await _options(database, rest.name)
    low, high = _bound(table, _begin(rest)), _bound(table, end)
    proof = f"{table}_proof"
    bounds = f"FOR VALUES FROM ('{low}') TO ('{high}')"
    async with _cutting(database, rest.name) as connection:
        _ddl(connection, f"ALTER TABLE {rest.name} DROP CONSTRAINT IF EXISTS {proof}")
        _ddl(
            connection,
            f"ALTER TABLE {rest.name} ADD CONSTRAINT {proof}"
            f" CHECK ({column} >= '{low}' AND {column} < '{high}') NOT VALID",
        )
    try:
        try:
            await database.rows(sql(f"ALTER TABLE {rest.name} VALIDATE CONSTRAINT {proof}"))
        except CheckViolation as error:
            raise RowsBeyond(rest.name) from error
        async with _cutting(database, table, rest.name) as connection:
            _ddl(connection, f"ALTER TABLE {table} DETACH PARTITION {rest.name}")
            _ddl(connection, f"ALTER TABLE {rest.name} RENAME TO {name}")
            _ddl(connection, f"ALTER TABLE {table} ATTACH PARTITION {name} {bounds}")
            _ddl(connection, f"ALTER TABLE {name} DROP CONSTRAINT {proof}")
            _make(connection, table, rest.name, options)
            _attach_rest(connection, table, end)
    except BaseException:
        # Left there, it would refuse rows some day.
        async with _cutting(database, rest.name) as connection:
            _ddl(connection, f"ALTER TABLE {rest.name} DROP CONSTRAINT IF EXISTS {proof}")
        raise
    return Partition(table, name, rest.begin, end, bounds)


async def detach(database: Database, partition: Partition) -> Detached:
    """Take a partition out of its table, beside the work, or finish what somebody began.

    Raises:
        TableBusy: somebody may see it for a while yet; done in part, and to be tried again.
    """
    table, name = partition.table, partition.name
    remark = (
        f"COMMENT ON TABLE {name} IS '{_REMARK}{partition.bounds.replace(chr(39), chr(39) * 2)}'"
    )
    await database.rows(sql(remark))
    how = "FINALIZE" if partition.leaving else "CONCURRENTLY"
    with _busy():
        await database.apart(
            sql(f"ALTER TABLE {table} DETACH PARTITION {name} {how}"), lock_timeout=_PATIENCE
        )
    return Detached(table, name, partition.bounds)


async def attach_again(database: Database, former: Detached) -> None:
    """Make a detached table a partition again: its rows are needed after all."""
    async with _cutting(database) as connection:
        _ddl(
            connection, f"ALTER TABLE {former.table} ATTACH PARTITION {former.name} {former.bounds}"
        )
        _ddl(connection, f"COMMENT ON TABLE {former.name} IS NULL")


async def detached(database: Database) -> Sequence[Detached]:
    """Former partitions that are not dropped yet."""
    found = await database.rows(_DETACHED, {"remark": _REMARK})
    return [
        Detached(_table_of(row["name"]), row["name"], row["remark"].removeprefix(_REMARK))
        for row in found
    ]


async def drop(database: Database, former: Detached) -> None:
    """Drop a table that is no partition any more."""
    async with _cutting(database) as connection:
        _ddl(connection, f"DROP TABLE {former.name}")


async def anything_open(database: Database, before: datetime) -> bool:
    """Whether messages of the time before are not final, or have callbacks that wait."""
    (found,) = await database.rows(_OPEN, {"before": first_id_at(before)})
    return bool(found["is_open"])


async def anything_open_in(database: Database, former: Detached) -> bool:
    """The same for a detached partition of messages."""
    found = await database.rows(
        sql(f"SELECT FROM {former.name} WHERE check_by < 'infinity' ORDER BY check_by LIMIT 1")
    )
    return bool(found)


def _name(rest: Partition) -> str:
    return f"{rest.table}_{_begin(rest):%Y%m%d}"


def _begin(rest: Partition) -> datetime:
    if rest.begin is None or rest.end is not None:
        message = f"{rest.name} is not the last partition of {rest.table}"
        raise ValueError(message)
    return rest.begin


def _table_of(name: str) -> str:
    return next(table for table in CUT_BY if re.fullmatch(rf"{table}_(first|\d{{8}})", name))


async def _options(database: Database, name: str) -> str:
    """How a table is stored, which no partition inherits; that of the last one goes on."""
    (found,) = await database.rows(_OPTIONS, {"name": name})
    return str(found["options"])


def _make(connection: Connection, table: str, name: str, options: str) -> None:
    _ddl(
        connection,
        f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
        f" INCLUDING STORAGE INCLUDING COMPRESSION){options}",
    )


def _attach_rest(connection: Connection, table: str, begin: datetime) -> None:
    _ddl(
        connection,
        f"ALTER TABLE {table} ATTACH PARTITION {table}{_REST}"
        f" FOR VALUES FROM ('{_bound(table, begin)}') TO (MAXVALUE)",
    )


def _ddl(connection: Connection, statement: str) -> None:
    connection.send(sql(statement))


@asynccontextmanager
async def _cutting(database: Database, *names: str) -> AsyncIterator[Connection]:
    """A transaction that changes tables, and gives up rather than stand in the way.

    A vacuum lets go of a table only when somebody has waited for it for a second. So it is sent away
    first, by a lock that hinders nobody else.
    """
    with _busy():
        async with database.begin() as connection:
            connection.send(_SOON)
            for name in names:
                _ddl(connection, f"LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE")
            connection.send(_AT_MOST)
            yield connection


@contextmanager
def _busy() -> Iterator[None]:
    try:
        yield
    except CheckViolation as error:
        raise RowsBeyond("a partition has rows that do not belong into it") from error
    except _CHANGED_MEANWHILE as error:
        raise TableBusy("another process has cut it") from error
    except DatabaseAway as error:
        if isinstance(error.__cause__, LockNotAvailable):
            raise TableBusy("somebody has it for too long") from error
        raise

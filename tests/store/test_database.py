"""Transactions whose statements travel together."""

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID

import psycopg
import pytest

from store.database import Database, DatabaseAway, sql
from store.rows import Query
from tests.rows import rows_of

MAKE = sql("CREATE TABLE things (name text PRIMARY KEY, size integer CHECK (size > 0))")
ADD = sql("INSERT INTO things VALUES (:name, :size)")
NAMES = sql("SELECT name FROM things ORDER BY name")
SIZE = Query.of(int, "SELECT size FROM things WHERE name = :name")
BACKEND = sql("SELECT pg_backend_pid() AS pid")


@pytest.fixture
async def database(database_url):
    database = Database.connect(database_url, pool_size=1)
    async with database.begin() as connection:
        connection.send(MAKE)
    yield database
    await database.close()


async def add(database, *things):
    async with database.begin() as connection:
        for name, size in things:
            connection.send(ADD, {"name": name, "size": size})


async def names(database):
    return [row["name"] for row in await rows_of(database, NAMES)]


async def test_what_was_sent_is_committed_though_nobody_awaited_it(database):
    async with database.begin() as connection:
        connection.send(ADD, {"name": "a", "size": 1})
        connection.send(ADD, {"name": "b", "size": 2})
    assert await names(database) == ["a", "b"]


async def test_statements_run_in_the_order_in_which_they_were_sent(database):
    async with database.begin() as connection:
        before = rows_of(connection, NAMES)
        connection.send(ADD, {"name": "a", "size": 1})
        after = rows_of(connection, NAMES)
        assert [row["name"] for row in await after] == ["a"]
        assert list(await before) == []


async def test_an_answer_may_be_awaited_after_the_commit_and_more_than_once(database):
    async with database.begin() as connection:
        connection.send(ADD, {"name": "a", "size": 7})
        size = SIZE.row(connection, {"name": "a"})
    assert (await size, await size) == (7, 7)


async def test_of_a_transaction_in_which_a_statement_is_refused_nothing_holds(database):
    with pytest.raises(psycopg.errors.CheckViolation):
        await add(database, ("a", 1), ("b", 0), ("c", 3))
    assert await names(database) == []


async def test_a_refusal_that_is_caught_still_fails_the_transaction(database):
    await add(database, ("a", 1))

    async def catches_a_refusal():
        async with database.begin() as connection:
            connection.send(ADD, {"name": "b", "size": 1})
            await connection.flush()
            again = rows_of(connection, ADD, {"name": "a", "size": 1})
            with pytest.raises(psycopg.errors.UniqueViolation):
                await again
            with pytest.raises(LookupError, match="failed"):
                await again

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        await catches_a_refusal()
    assert await names(database) == ["a"]


async def test_an_exception_in_the_block_undoes_what_was_sent_and_what_was_not(database):
    async def stumbles():
        async with database.begin() as connection:
            connection.send(ADD, {"name": "a", "size": 1})
            await connection.flush()
            connection.send(ADD, {"name": "b", "size": 2})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stumbles()
    assert await names(database) == []


async def test_a_connection_that_was_ended_is_raised_as_database_away_and_replaced(
    database, database_url
):
    async def ended_in_the_middle():
        async with database.begin() as connection:
            (first,) = await rows_of(connection, BACKEND)
            async with await psycopg.AsyncConnection.connect(
                database_url, autocommit=True
            ) as other:
                await other.execute("SELECT pg_terminate_backend(%s)", [first["pid"]])
            await rows_of(connection, NAMES)

    with pytest.raises(DatabaseAway):
        await ended_in_the_middle()
    assert await names(database) == []


async def test_connections_that_were_ended_while_nobody_used_them_are_met_by_nobody(database_url):
    database = Database.connect(database_url, pool_size=4)
    killer = Database.connect(database_url, pool_size=1)
    try:
        await asyncio.gather(*[rows_of(database, sql("SELECT pg_sleep(0.3)")) for _ in range(4)])
        ended = await rows_of(
            killer,
            sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ),
        )
        assert len(ended) == 4
        await asyncio.sleep(0.3)
        found = await asyncio.gather(*[rows_of(database, BACKEND) for _ in range(8)])
        assert len(found) == 8
    finally:
        await database.close()
        await killer.close()


async def test_an_unreachable_database_is_raised_as_database_away():
    database = Database.connect("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseAway, match="does not answer"):
        await rows_of(database, NAMES)


async def test_a_pool_without_a_free_connection_is_raised_as_database_away(database_url):
    database = Database.connect(database_url, pool_size=1)
    database.engine.pool._timeout = 0.1
    try:
        async with database.begin() as connection:
            await rows_of(connection, BACKEND)
            with pytest.raises(DatabaseAway):
                await rows_of(database, BACKEND)
    finally:
        await database.close()


async def test_a_task_that_is_cancelled_in_the_middle_leaves_the_pool_usable(database):
    async def waits():
        async with database.begin() as connection:
            connection.send(ADD, {"name": "a", "size": 1})
            connection.send(sql("SELECT pg_sleep(30)"))
            await rows_of(connection, NAMES)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        assert await names(database) == []


async def test_percent_signs_and_casts_reach_the_database_as_they_were_written(database):
    found = await rows_of(
        database, sql("SELECT CAST(:n AS integer) % 7 AS rest, 'a:b' AS colon"), {"n": 10}
    )
    assert dict(found[0]) == {"rest": 3, "colon": "a:b"}


_AWKWARD = ["", "NULL", "a,b", "{a}", 'a "quoted" one', "back\\slash", '","', "' %s :n", "é\n😀"]
_LISTS = {
    "text": [_AWKWARD, ["same", "same"], ["a", None, 'b"'], [None, "a"], ['"', '"']],
    "integer": [[1, -2, 3], [7, 7, 7], [0, None]],
    "uuid": [
        [UUID(int=1), UUID(int=2)],
        [UUID(int=1)] * 2,
        [None, UUID(int=2)],
        [UUID(int=3), None, UUID(int=3)],
    ],
    "bytea": [[b"\x00\xff", b"a"], [b"", b""], [b"a", None]],
    "timestamptz": [
        [datetime(2026, 11, 23, 1, 2, 3, 4, tzinfo=UTC), datetime(1999, 1, 1, tzinfo=UTC)],
        [datetime(2026, 11, 23, tzinfo=UTC)] * 3,
        [None, datetime(2026, 11, 23, tzinfo=UTC)],
        [datetime(2026, 11, 23, 1, tzinfo=timezone(timedelta(hours=-3)))],
    ],
    "date": [[date(2026, 1, 1), date(2026, 1, 2)], [date(2026, 1, 1), None]],
    "boolean": [[True, False], [True, True]],
}


@pytest.mark.parametrize("kind", _LISTS)
async def test_lists_reach_the_database_as_they_are(database, kind):
    echo = sql(f"SELECT CAST(:list AS {kind}[]) AS list")
    for given in (*_LISTS[kind], [], [None], [None, None]):
        found = await rows_of(database, echo, {"list": given})
        assert found[0]["list"] == given

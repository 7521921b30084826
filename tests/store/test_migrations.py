"""Migrations on a database with data: what was there is there afterwards, and goes on."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import IntegrityError
from sqlalchemy.exc import ProgrammingError
from uuid_utils.compat import uuid7

from store.database import Database, sql
from store.schema import migrate, newest_version
from store.transitions import settle
from tests.store.test_folds import add_attempt, add_message

pytestmark = pytest.mark.stack


@pytest.fixture
async def database(empty_database_url):
    database = Database.connect(empty_database_url)
    yield database
    await database.close()


async def status_of(database, message_id):
    (row,) = await database.rows(
        sql("SELECT status FROM messages WHERE id = :id"), {"id": message_id}
    )
    return row["status"]


async def test_messages_of_the_first_schema_go_on_with_the_newest(database):
    assert await migrate(database, "0001") == "0001"
    async with database.begin() as connection:
        sent = add_message(connection, status="sent")
        add_attempt(connection, sent, 1, ["accepted"], "accepted")
        queued = add_message(connection)
        connection.send(
            sql("INSERT INTO events (message_id, at, kind, actor) VALUES (:m, now(), 'x', 'x')"),
            {"m": sent},
        )
    assert await migrate(database) == newest_version()
    assert [await status_of(database, each) for each in (sent, queued)] == ["sent", "queued"]
    async with database.begin() as connection:
        connection.send(
            sql("UPDATE parts SET status = 'delivered' WHERE message_id = :m"), {"m": sent}
        )
        connection.send(
            sql("UPDATE attempts SET status = 'delivered' WHERE message_id = :m"), {"m": sent}
        )
        moved = await settle(connection, [sent, queued], actor="test", at=datetime.now(UTC))
    assert [(move.message_id, move.status) for move in moved] == [(sent, "delivered")]
    events = await database.rows(
        sql("SELECT kind FROM events WHERE message_id = :m ORDER BY seq"), {"m": sent}
    )
    assert [event["kind"] for event in events] == ["x", "moved"]
    with pytest.raises(IntegrityError, match="make it queued"):
        async with database.begin() as connection:
            connection.send(sql("UPDATE messages SET status = 'sent' WHERE id = :m"), {"m": queued})


async def test_events_of_whole_tables_go_on_in_partitions(database):
    await migrate(database, "0014")
    add = sql(
        "INSERT INTO events (message_id, at, kind, actor) VALUES (:id, now(), :kind, 'x')"
        " RETURNING seq"
    )
    add_to_many = sql(
        "INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor)"
        " VALUES (:id, '{}', now(), :kind, 'x') RETURNING seq"
    )
    ids = [uuid7() for _ in range(3)]
    numbers = []
    for number, message_id in enumerate([*ids, *ids]):
        if number == 3:
            assert await migrate(database) == newest_version()
        for statement in (add, add_to_many):
            found = await database.rows(statement, {"id": message_id, "kind": f"no {number}"})
            numbers.append(found[0]["seq"])
    assert numbers == sorted(set(numbers))
    of_one = sql("SELECT kind FROM events WHERE message_id = :id ORDER BY seq")
    for number, message_id in enumerate(ids):
        kinds = [row["kind"] for row in await database.rows(of_one, {"id": message_id})]
        assert kinds == [f"no {number}", f"no {number + 3}"]


async def test_a_migration_of_events_that_was_interrupted_goes_on_where_it_was(database):
    await migrate(database)
    await database.rows(sql("UPDATE alembic_version SET version_num = '0014'"))
    assert await migrate(database) == newest_version()


async def test_a_migration_that_fails_leaves_nothing_behind(database):
    await migrate(database, "0001")
    stands_in_the_way = sql(
        "CREATE FUNCTION message_folds(of_messages uuid[]) RETURNS integer LANGUAGE sql"
        " AS 'SELECT 1'"
    )
    await database.rows(stands_in_the_way)
    with pytest.raises(ProgrammingError, match="message_folds"):
        await migrate(database)
    (found,) = await database.rows(sql("SELECT to_regclass('bulks') AS made"))
    assert found["made"] is None
    await database.rows(sql("DROP FUNCTION message_folds(uuid[])"))
    assert await migrate(database) == newest_version()


async def test_two_that_migrate_at_once_take_turns(empty_database_url):
    databases = [Database.connect(empty_database_url) for _ in range(2)]
    try:
        versions = await asyncio.gather(*(migrate(each) for each in databases))
    finally:
        for each in databases:
            await each.close()
    assert versions == [newest_version()] * 2


async def test_a_migration_that_is_done_already_does_nothing(database):
    began = datetime.now(UTC)
    assert await migrate(database) == await migrate(database) == newest_version()
    assert datetime.now(UTC) - began < timedelta(minutes=1)


async def test_a_migration_that_waits_for_a_table_holds_nobody_up(database):
    await migrate(database, "0001")
    account = sql("INSERT INTO accounts (id, callback_secret) VALUES (:id, 'x')")
    async with database.begin() as reader:
        # As a report or a backup does, for as long as it takes.
        await reader.rows(sql("SELECT count(*) FROM messages"))
        migrating = asyncio.create_task(migrate(database))
        slowest = 0.0
        for number in range(25):
            began = time.monotonic()
            async with database.begin() as sender:
                add_message(sender)
                sender.send(account, {"id": f"account {number}"})
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.1)
        assert not migrating.done()
        assert slowest < 1.5
    assert await asyncio.wait_for(migrating, 30) == newest_version()

"""Migrations: the baseline on an empty database, and later ones on a database with data in use.

The later ones are samples, in `tests/store/migrations`: they show how one is written, and every rule
holds for each that a release adds.
"""

import asyncio
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import IntegrityError
from sqlalchemy.exc import OperationalError, ProgrammingError

from domain.callbacks.signatures import signed_headers
from store import partitions, schema
from store.database import Database, sql
from store.schema import current_version, migrate, newest_version, serves
from store.transitions import refresh_status
from tests.rows import rows_of
from tests.store.test_folds import add_attempt, add_message

pytestmark = pytest.mark.stack

FOREVER = 120

# The newest migration of this code, without the samples.
OURS = newest_version()


@pytest.fixture
async def database(empty_database_url):
    database = Database.connect(empty_database_url)
    yield database
    await database.close()


async def column(database, statement, **values):
    """The only column of what a statement returns."""
    rows = await rows_of(database, sql(statement), values)
    return [next(iter(dict(row).values())) for row in rows]


# The files


def revisions():
    """All migrations, the oldest first."""
    directory = ScriptDirectory.from_config(schema._config())
    return list(directory.walk_revisions())[::-1]


def test_migrations_are_numbered_in_the_order_in_which_they_run():
    """`serves` compares the numbers of a process and of its database."""
    numbers = [each.revision for each in revisions()]
    assert numbers == [f"{number + 1:04}" for number in range(len(numbers))]
    assert [each.down_revision for each in revisions()] == [None, *numbers[:-1]]
    for each in revisions():
        assert re.fullmatch(rf"{each.revision}_[a-z0-9_]+\.py", Path(each.path).name)


def test_migrations_go_forward_only():
    assert [each.revision for each in revisions() if hasattr(each.module, "downgrade")] == []


# The baseline


async def test_a_baseline_that_fails_leaves_nothing_behind(database):
    await rows_of(database, sql("CREATE TABLE provider_states (is_in_the_way boolean)"))
    with pytest.raises(ProgrammingError, match="provider_states"):
        await migrate(database)
    assert await column(database, "SELECT to_regclass('accounts')::text") == [None]
    assert not serves(await current_version(database))
    await rows_of(database, sql("DROP TABLE provider_states"))
    assert await migrate(database) == OURS


async def test_the_first_partitions_of_events_last_until_the_end_of_the_next_month(database):
    def month_after_next():
        months = (now := datetime.now(UTC)).month + 1
        return datetime(now.year + months // 12, months % 12 + 1, 1, tzinfo=UTC)

    before = month_after_next()
    await migrate(database)
    for table in partitions.TABLES:
        async with database.begin() as connection:
            (first,) = await partitions.stored(connection, table)
        assert first.name == f"{table}_first"
        assert partitions.moment_of(first.until) in {before, month_after_next()}


async def test_every_account_gets_a_secret_of_its_own_for_callbacks_of_the_test_environment(
    database,
):
    await migrate(database)
    add = sql("INSERT INTO accounts (id, name, callback_secret) VALUES (:id, :id, 'whsec_live')")
    for account in ("shop", "depot"):
        await rows_of(database, add, {"id": account})
    secrets = await column(database, "SELECT test_callback_secret FROM accounts")
    assert len(set(secrets)) == 2
    for secret in secrets:
        assert signed_headers(secret, "cb_1", datetime.now(UTC), b"")


# A later migration, on a database with data


async def status_of(database, message_id):
    (status,) = await column(database, "SELECT status FROM messages WHERE id = :id", id=message_id)
    return status


async def test_messages_of_the_version_before_go_on_with_the_newest(database, sample_migrations):
    assert await migrate(database, OURS) == OURS
    add_event = sql("INSERT INTO events (message_id, at, kind, actor) VALUES (:m, now(), 'x', 'x')")
    async with database.begin() as connection:
        sent = add_message(connection, status="sent")
        add_attempt(connection, sent, 1, ["accepted"], "accepted")
        queued = add_message(connection)
        connection.send(add_event, {"m": sent})
    assert await migrate(database) == newest_version() != OURS
    assert [await status_of(database, each) for each in (sent, queued)] == ["sent", "queued"]
    assert sorted(await column(database, "SELECT samples(:ids)", ids=[sent, queued])) == [
        "new",
        "rewritten",
    ]
    async with database.begin() as connection:
        for table in ("parts", "attempts"):
            connection.send(
                sql(f"UPDATE {table} SET status = 'delivered' WHERE message_id = :m"), {"m": sent}
            )
        moved = await refresh_status(connection, [sent, queued], actor="test", at=datetime.now(UTC))
    assert [(transition.message_id, transition.status) for transition in moved] == [
        (sent, "delivered")
    ]
    kinds = "SELECT kind FROM events WHERE message_id = :m ORDER BY seq"
    assert await column(database, kinds, m=sent) == ["x", "moved"]
    with pytest.raises(IntegrityError, match="make it queued"):
        async with database.begin() as connection:
            connection.send(sql("UPDATE messages SET status = 'sent' WHERE id = :m"), {"m": queued})


async def test_a_process_serves_a_newer_schema_and_not_an_older_one(database, sample_migrations):
    await migrate(database, OURS)
    assert not serves(await current_version(database))
    newest = await migrate(database)
    assert serves(newest)
    assert serves("9999")
    assert not serves(None)


async def test_a_migration_that_fails_leaves_nothing_behind(database, sample_migrations):
    await migrate(database, OURS)
    await rows_of(
        database, sql("CREATE FUNCTION samples(uuid[]) RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    )
    with pytest.raises(ProgrammingError, match="samples"):
        await migrate(database)
    assert await current_version(database) == OURS
    added = "SELECT count(*) FROM pg_attribute WHERE attname = 'sample'"
    assert await column(database, added) == [0]
    await rows_of(database, sql("DROP FUNCTION samples(uuid[])"))
    assert await migrate(database) == newest_version()


async def test_a_migration_that_is_done_already_does_nothing(database, sample_migrations):
    assert await migrate(database) == newest_version()
    tables = (
        "SELECT xmin::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY oid"
    )
    before = await column(database, tables)
    assert await migrate(database) == newest_version()
    assert await column(database, tables) == before


async def test_two_processes_that_migrate_at_once_take_turns(empty_database_url, sample_migrations):
    """None waits within a statement: an index that the other builds would wait for it in turn."""
    databases = [Database.connect(empty_database_url) for _ in range(2)]
    try:
        versions = await asyncio.gather(*(migrate(each) for each in databases))
    finally:
        for each in databases:
            await each.close()
    assert versions == [newest_version()] * 2


async def test_a_migration_that_waits_for_a_table_holds_nobody_up(database, sample_migrations):
    await migrate(database, OURS)
    account = sql("INSERT INTO accounts (id, name, callback_secret) VALUES (:id, :id, 'x')")
    async with database.begin() as reader:
        # As a report or a backup does, for as long as it takes.
        await rows_of(reader, sql("SELECT count(*) FROM messages"))
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
        assert slowest < 5  # a second, with room for a busy machine
    assert await asyncio.wait_for(migrating, FOREVER) == newest_version()


# A later migration, concurrent with senders

_UNDER_WAY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE :query
"""


async def is_under_way(database, statement):
    """Wait until a statement that begins so waits for others."""
    async with asyncio.timeout(FOREVER):
        while await column(database, _UNDER_WAY, query=f"{statement}%") != [1]:
            await asyncio.sleep(0.05)


async def with_messages(database, count):
    """Bring the database to the version before, with messages that were sent."""
    await migrate(database, "9001")
    async with database.begin() as connection:
        ids = [add_message(connection, status="sent") for _ in range(count)]
        for message_id in ids:
            add_attempt(connection, message_id, 1, ["accepted"], "accepted")
    return ids


async def an_older_transaction(url):
    """One that a concurrent index build waits for."""
    older = await psycopg.AsyncConnection.connect(url)
    await older.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await older.execute("SELECT 1")
    return older


async def test_senders_write_while_a_migration_builds_an_index_and_rewrites_rows(
    database, empty_database_url, sample_migrations
):
    ids = await with_messages(database, 35)
    async with await an_older_transaction(empty_database_url) as older:
        migrating = asyncio.create_task(migrate(database))
        await is_under_way(database, "CREATE INDEX CONCURRENTLY")
        async with database.begin() as sender:
            queued = add_message(sender)
            sender.send(sql("UPDATE messages SET network = 'x' WHERE id = ANY(:ids)"), {"ids": ids})
        assert not migrating.done()
        await older.rollback()
    while not migrating.done():
        async with database.begin() as sender:
            lock = sql("SELECT FROM messages WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")
            sender.send(lock, {"ids": ids})
            sender.send(sql("UPDATE messages SET reason = 'x' WHERE id = ANY(:ids)"), {"ids": ids})
        await asyncio.sleep(0.01)
    assert await migrating == newest_version()
    rewritten = "SELECT DISTINCT sample || network FROM messages WHERE id = ANY(:ids)"
    assert await column(database, rewritten, ids=ids) == ["rewrittenx"]
    assert await column(database, "SELECT samples(:ids)", ids=[queued]) == ["new"]


_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('messages_sample')"


async def test_a_migration_that_was_interrupted_continues(
    database, empty_database_url, sample_migrations
):
    ids = await with_messages(database, 1)
    async with await an_older_transaction(empty_database_url) as older:
        migrating = asyncio.create_task(migrate(database))
        await is_under_way(database, "CREATE INDEX CONCURRENTLY")
        await older.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%'"
        )
        with pytest.raises(OperationalError, match="canceling statement"):
            await migrating
    assert await current_version(database) == "9001"
    assert await column(database, _VALID) == [False]
    assert await migrate(database) == newest_version()
    assert await column(database, _VALID) == [True]
    assert await column(database, "SELECT samples(:ids)", ids=ids) == ["rewritten"]


async def test_a_migration_whose_end_was_not_recorded_runs_again(database, sample_migrations):
    await with_messages(database, 1)
    await migrate(database)
    await rows_of(database, sql("UPDATE alembic_version SET version_num = '9001'"))
    assert await migrate(database) == newest_version()
    assert await column(database, _VALID) == [True]


async def test_a_database_that_a_later_release_has_migrated_stays_as_it_is(database):
    await migrate(database)
    await rows_of(database, sql("UPDATE alembic_version SET version_num = '9999' RETURNING 1"))
    assert await migrate(database) == "9999"
    assert serves(await current_version(database))


@pytest.mark.parametrize("revision", ["feature-x", "0000", "99999"])
async def test_a_database_with_a_revision_of_no_release_is_refused(database, revision):
    await migrate(database)
    await rows_of(
        database,
        sql("UPDATE alembic_version SET version_num = :revision RETURNING 1"),
        {"revision": revision},
    )
    with pytest.raises(schema.UnknownRevision, match=revision):
        await migrate(database)

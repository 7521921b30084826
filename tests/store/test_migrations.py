"""Migrations on a database with data: what was there is there afterwards, and goes on."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import IntegrityError
from sqlalchemy.exc import ProgrammingError

from local.postgres import free_database_name
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


# As processes of the version before have it prepared, and go on to use it until they are replaced.
_RECEIPT_BEFORE = sql("""
INSERT INTO receipts (day, provider, provider_message_id, state, code, received_at)
VALUES (:day, 'p', :id, 'delivered', '', now())
ON CONFLICT (day, provider, provider_message_id, state, code)
DO UPDATE SET copies = receipts.copies + excluded.copies
RETURNING copies, xmax = 0 AS first
""")
_EVENT_OF_MANY = sql("""
INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor)
VALUES (:id, ARRAY[CAST(:id AS uuid)], now(), 'x', 'x') RETURNING seq
""")
_EVENT = sql("""
INSERT INTO events (message_id, at, kind, actor) VALUES (:id, now(), 'x', 'x') RETURNING seq
""")
_FOLDED_BEFORE = sql("""
SELECT f.status, a.status AS attempt
FROM message_folds(CAST(:ids AS uuid[])) f, attempt_folds(CAST(:ids AS uuid[])) a
""")


class Sender:
    """A process of the version before, which sends one message after the other."""

    def __init__(self, database):
        self._database = database
        self.sent = []
        self.numbers = []
        self.slowest = 0.0

    async def send(self):
        began = time.monotonic()
        today = datetime.now(UTC).date()
        async with self._database.begin() as connection:
            message = add_message(connection, status="sent")
            add_attempt(connection, message, 1, ["accepted"], "accepted")
            for statement in (_EVENT, _EVENT_OF_MANY):
                self.numbers.append((await connection.row(statement, {"id": message}))["seq"])
            folded = await connection.row(_FOLDED_BEFORE, {"ids": [message]})
            for copies in (1, 2):
                stored = await connection.row(_RECEIPT_BEFORE, {"day": today, "id": str(message)})
                assert stored == {"copies": copies, "first": copies == 1}
        assert folded == {"status": "sent", "attempt": "accepted"}
        self.sent.append(message)
        self.slowest = max(self.slowest, time.monotonic() - began)

    async def until(self, done):
        while not done.is_set():
            await self.send()
            await asyncio.sleep(0)


async def test_processes_of_before_go_on_while_tables_are_cut_by_time_and_after(
    database, empty_database_url
):
    await migrate(database, "0007")
    other = Database.connect(empty_database_url, pool_size=1)
    sender, done = Sender(other), asyncio.Event()
    try:
        for _ in range(10):
            await sender.send()
        sending = asyncio.create_task(sender.until(done))
        assert await migrate(database) == newest_version()
        before = len(sender.sent)
        while len(sender.sent) < before + 10 and not sending.done():
            await asyncio.sleep(0.01)
        done.set()
        await sending
    finally:
        await other.close()
    # Numbers of events go on where they were, in both tables.
    assert sender.numbers == sorted(set(sender.numbers))
    assert sender.slowest < 1.5
    for table, of_each in (("messages", 1), ("attempts", 1), ("parts", 1), ("receipts", 1)):
        (found,) = await database.rows(sql(f"SELECT count(*) AS n FROM {table}"))
        assert found["n"] == of_each * len(sender.sent)


async def test_a_cut_that_was_interrupted_is_finished_and_does_not_refuse_rows_in_between(database):
    await migrate(database, "0007")
    async with database.begin() as connection:
        for table, column in (("messages", "id"), ("attempts", "message_id")):
            # Long ago, somebody began: it would refuse messages of today.
            connection.send(
                sql(
                    f"ALTER TABLE {table} ADD CONSTRAINT {table}_cut"
                    f" CHECK ({column} < '01900000-0000-0000-0000-000000000000') NOT VALID"
                )
            )
    assert await migrate(database) == newest_version()
    async with database.begin() as connection:
        message = add_message(connection, status="sent")
        add_attempt(connection, message, 1, ["accepted"], "accepted")
    assert await status_of(database, message) == "sent"


async def test_rights_that_others_were_given_stay_theirs(database):
    await migrate(database, "0007")
    role = free_database_name("reader")
    await database.rows(sql(f"CREATE ROLE {role}"))
    try:
        await database.rows(sql(f"GRANT SELECT ON messages TO {role}"))
        await migrate(database)
        (found,) = await database.rows(
            sql(f"SELECT has_table_privilege('{role}', 'messages', 'SELECT') AS may")
        )
        assert found["may"]
        await database.rows(sql(f"DROP OWNED BY {role}"))
    finally:
        await database.rows(sql(f"DROP ROLE {role}"))

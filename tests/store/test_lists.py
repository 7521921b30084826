"""What lists read, on tables with hundreds of thousands of rows: a page, or the time that was asked for."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from domain.callbacks.events import CallbackState
from store import batches, callbacks, dead_letters, events, messages
from store.database import Connection, Database
from store.events import Position
from store.messages import MessageFilter
from store.partitions import first_id
from tests.store.test_reads import counted

pytestmark = pytest.mark.stack

MANY = 200_000
"""Messages of the large account, one each 100 ms; another account has a few among them."""
BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
STEP = timedelta(milliseconds=100)
LIMIT = 50
FEW = 20
AGAIN = 8
"""Plans are made for the parameters at first, and for any after some runs."""

ID = "lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 20, '0')"
FILL = f"""
SET session_replication_role = replica;  -- no triggers: what they check is not what is read here
CREATE TEMP TABLE made AS
SELECT n, at, ({ID})::uuid AS id,
       CASE WHEN n % {MANY // FEW} = 7 THEN 'small' ELSE 'large' END AS account_id
FROM (SELECT n, timestamptz '{BEGAN.isoformat()}' + n * interval '100 ms' AS at
      FROM generate_series(1, {MANY}) AS n) numbered;
INSERT INTO accounts (id, name, callback_secret) VALUES ('large', 'large', 'x'), ('small', 'small', 'x');
INSERT INTO recipients (id, account_id, hash_version, number_hash, number, country)
SELECT id, account_id, 1, int4send(n), '+447700900123', 'GB' FROM made;
INSERT INTO messages (id, account_id, environment, mode, priority, status, verdict, sender,
    recipient_id, country, body, encoding, segments, accepted_at, validity, valid_until, since,
    transitioned_at, bulk_id, position)
SELECT id, account_id, 'live', CASE WHEN n = 77 THEN 'alert' ELSE 'transactional' END, 'normal',
    CASE WHEN n % 50000 = 9 THEN 'dead_letter' ELSE 'delivered' END,
    CASE WHEN n % 50000 = 9 THEN 'dead_letter' END,
    CASE WHEN n = 77 THEN 'RARE' ELSE 'ACME' END, id, 'GB', 'x', 'gsm7', 1, at, '1 day', at, at, at,
    CASE WHEN n <= 1000 THEN '{UUID(int=1)}'::uuid END, n
FROM made;
INSERT INTO attempts (message_id, number, epoch, provider, status, part_method, reference,
    started_at, response_by, settled_at, receipt_by)
SELECT id, 1, 1, CASE WHEN n = 77 THEN 'rare' ELSE 'primary' END, 'delivered', 'udh', 1, at, at, at, at
FROM made;
INSERT INTO events (message_id, at, kind, actor, status)
SELECT id, at, 'accepted', 'test', 'queued' FROM made ORDER BY at;
INSERT INTO endpoints (id, account_id, origin) VALUES ('{UUID(int=1)}', 'large', 'https://x');
INSERT INTO outbox (id, lane_id, account_id, environment, subject_id, target, status,
    occurred_at, state, next_at)
SELECT id, '{UUID(int=1)}', account_id, 'live', id, 'https://x', 'delivered', at,
       CASE WHEN n % 50000 = 9 THEN 'failed' ELSE 'delivered' END, at
FROM made;
INSERT INTO bulks (id, first_id, last_id, created_at, messages)
SELECT '{UUID(int=1)}', (array_agg(id ORDER BY id))[1], (array_agg(id ORDER BY id DESC))[1], min(at), 1000 FROM made WHERE n <= 1000;
INSERT INTO batches (id, account_id, environment, mode, sender, recipients, accepted, created_by,
    created_at)
VALUES ('{UUID(int=1)}', 'large', 'live', 'transactional', 'ACME', 1000, 1000, 'test', now());
ANALYZE;
"""

Listed = Callable[[Connection], Awaitable[Sequence[Any]]]


@pytest.fixture(scope="module")
def filled(postgres_server, migrated_template):
    name = "lists_of_many"
    url = postgres_server.create_database(name, template=migrated_template)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL)
    yield url
    postgres_server.drop_database(name)


@pytest.fixture
async def database(filled) -> AsyncIterator[Database]:
    database = Database.connect(filled, pool_size=1, statement_timeout=timedelta(minutes=5))
    yield database
    await database.close()


def of(account: str = "large", **wanted: object) -> Listed:
    return lambda connection: messages.listed(
        connection, account, "live", MessageFilter(**wanted, limit=LIMIT)
    )


def page(**wanted: object) -> Listed:
    given = {"state": None, "message_id": None, "before": None, **wanted}
    return lambda connection: callbacks.page(
        connection, account_id="large", environment="live", limit=LIMIT, **given
    )


def at(number: int) -> datetime:
    return BEGAN + number * STEP


def id_of(number: int) -> UUID:
    return UUID(int=first_id(at(number)).int + number)


def within(number: int) -> dict[str, datetime]:
    """A minute and a half around a message."""
    return {"since": at(number) - timedelta(seconds=30), "until": at(number) + timedelta(minutes=1)}


AROUND = 900 + 2 * 600
"""Messages of a minute and a half, and of a minute before and after it."""


@pytest.mark.parametrize(
    ("listed", "found", "most"),
    [
        (of(), LIMIT, LIMIT),
        (of("small"), FEW, FEW),
        (of("small", status="queued"), 0, FEW),
        (of(before=id_of(1000)), LIMIT, LIMIT + 1),
        (of(number_hash=(77).to_bytes(4, "big")), 1, 2),
        (of(number_hash=(77).to_bytes(4, "big"), mode="transactional"), 0, 2),
        (of(number_hash=b"nobody"), 0, 0),
        (of(status="dead_letter", **within(50_009)), 1, AROUND),
        (of(mode="alert", **within(77)), 1, AROUND),
        (of(sender="RARE", **within(77)), 1, AROUND),
        (of(provider="rare", **within(77)), 1, AROUND),
        (of(provider="primary"), LIMIT, LIMIT),
    ],
)
async def test_a_list_of_messages_reads_a_page_or_the_time_that_is_asked_for(
    database, listed, found, most
):
    for _ in range(AGAIN):
        async with database.begin() as connection:
            before = await counted(connection, "messages", "idx_tup_fetch", "seq_tup_read")
            rows = await listed(connection)
            after = await counted(connection, "messages", "idx_tup_fetch", "seq_tup_read")
        assert len(rows) == found
        assert rows == sorted(rows, key=lambda row: row.id, reverse=True)
        fetched, in_sequence = (a - b for a, b in zip(after, before, strict=True))
        assert (fetched <= most, in_sequence) == (True, 0), fetched


async def test_dead_letters_are_listed_without_reading_what_is_none(database):
    for provider, found in ((None, 4), ("primary", 4), ("rare", 0)):
        for _ in range(AGAIN):
            async with database.begin() as connection:
                before = await counted(connection, "messages", "idx_tup_fetch")
                rows = await dead_letters.listed(
                    connection, "large", "live", provider=provider, before=None, limit=LIMIT
                )
                after = await counted(connection, "messages", "idx_tup_fetch")
            assert len(rows) == found
            assert after[0] - before[0] <= 8


@pytest.mark.parametrize(
    ("listed", "found", "most"),
    [
        (page(), LIMIT, LIMIT),
        (page(before=id_of(1000)), LIMIT, LIMIT + 1),
        (page(state=CallbackState.FAILED), 4, 4),
        (page(state=CallbackState.DELIVERED), LIMIT, LIMIT + 4),
        (page(message_id=id_of(77)), 1, 1),
        (page(message_id=id_of(77), state=CallbackState.FAILED), 0, 4),
        (lambda connection: callbacks.of_message(connection, id_of(77)), 1, 1),
    ],
)
async def test_a_list_of_callbacks_reads_no_more_than_it_shows(database, listed, found, most):
    for _ in range(AGAIN):
        async with database.begin() as connection:
            before = await counted(connection, "outbox", "idx_tup_fetch", "seq_tup_read")
            rows = await listed(connection)
            after = await counted(connection, "outbox", "idx_tup_fetch", "seq_tup_read")
        assert len(rows) == found
        fetched, in_sequence = (a - b for a, b in zip(after, before, strict=True))
        assert (fetched <= most, in_sequence) == (True, 0), fetched


async def test_batches_are_counted_without_reading_other_messages(database):
    for _ in range(AGAIN):
        async with database.begin() as connection:
            before = await counted(connection, "messages", "idx_tup_fetch", "seq_tup_read")
            rows = await batches.listed(connection, "large", "live", None, LIMIT)
            counts = await batches.counts(connection, rows)
            after = await counted(connection, "messages", "idx_tup_fetch", "seq_tup_read")
        assert [row.messages for row in counts[UUID(int=1)]] == [1, 999]
        fetched, in_sequence = (a - b for a, b in zip(after, before, strict=True))
        assert (fetched <= 1000, in_sequence) == (True, 0), fetched


@pytest.mark.parametrize(
    ("account", "steps", "most"),
    [("nobody", 0, 0), ("large", 0, 2100), ("large", MANY // 2, 2100), ("small", 0, 4100)],
)
async def test_a_page_of_events_reads_a_bounded_number_of_them(database, account, steps, most):
    """Each of the events is in the index and in the table."""
    after = Position(BEGAN + steps * STEP, 0, 0) if steps else None
    tables = ("events_first", "events_last", "messages")
    for _ in range(AGAIN):
        async with database.begin() as connection:
            before = [await counted(connection, t, "idx_tup_fetch", "seq_tup_read") for t in tables]
            page = await events.of_account(
                connection, account, "live", status=None, since=BEGAN, after=after, limit=LIMIT
            )
            now = [await counted(connection, t, "idx_tup_fetch", "seq_tup_read") for t in tables]
        read = [sum(b) - sum(a) for a, b in zip(before, now, strict=True)]
        assert (max(read) <= 2 * most, sum(read) <= 3 * most + 1) == (True, True), read
        assert len(page.events) == (LIMIT if account == "large" else 0 if most == 0 else 1)
        assert (page.next is None) == (account == "nobody")

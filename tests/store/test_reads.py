"""What statements read: no more rows than they are about, however many others there are."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from domain.states import MessageStatus
from store import bulk_messages, bulks, receipts
from store.attempts import AttemptChange, PartRecord
from store.bulk_messages import NewKind, NewMessages
from store.bulks import ClaimOfMany, Extent
from store.database import Connection, Database, sql
from store.receipts import EarlyReceipt
from tests.store.test_folds import database

__all__ = ["database"]

pytestmark = pytest.mark.stack

NOW = datetime.now(UTC)
MANY = 3000
OWNER = "bulk/bat_test"
TABLES = ("messages", "recipients")
AGAIN = 8
"""Plans are made for the parameters at first, and for any after some runs."""


@pytest.fixture
async def bulk(database: Database) -> Extent:
    async with database.begin() as connection:
        connection.send(sql("INSERT INTO accounts VALUES ('default', now(), 'whsec_x')"))
        connection.send(
            sql(
                "INSERT INTO recipients (id, account_id, hash_version, number_hash, number, country)"
                " SELECT lpad(to_hex(n), 32, '0')::uuid, 'default', 1, int4send(n),"
                " '+447700900123', 'GB' FROM generate_series(1, :many) AS n"
            ),
            {"many": MANY},
        )
        connection.send(
            sql(
                "INSERT INTO messages (id, account_id, environment, mode, priority, status, sender,"
                " recipient_id, country, body, encoding, segments, accepted_at, validity,"
                " valid_until, since, moved_at, owner, bulk_id)"
                " SELECT lpad(to_hex(n), 32, '0')::uuid, 'default', 'live', 'transactional',"
                " 'normal', 'queued', 'T', lpad(to_hex(n), 32, '0')::uuid, 'GB', 'x', 'gsm7', 1,"
                " :now, '1 day', :until, :now, :now, :owner, :bulk"
                " FROM generate_series(1, :many) AS n"
            ),
            {
                "many": MANY,
                "now": NOW,
                "until": NOW + timedelta(days=1),
                "owner": OWNER,
                "bulk": UUID(int=1),
            },
        )
    return Extent(UUID(int=1), UUID(int=1), UUID(int=MANY), OWNER)


async def counted(connection: Connection, table: str, *counters: str) -> list[int]:
    """What this session has done with the rows of a table and not reported yet."""
    row = await connection.row(
        sql("SELECT * FROM pg_stat_xact_user_tables WHERE relname = :table"), {"table": table}
    )
    return [int(row[counter]) if row is not None else 0 for counter in counters]


async def fetched(connection: Connection, table: str) -> int:
    """Rows read by indexes."""
    return (await counted(connection, table, "idx_tup_fetch"))[0]


async def moved_and_in_place(connection: Connection) -> list[int]:
    """Messages that were changed, and how many of them in their pages."""
    return await counted(connection, "messages", "n_tup_upd", "n_tup_hot_upd")


async def test_a_page_of_a_bulk_reads_no_more_than_the_page(database, bulk):
    for _ in range(AGAIN):
        async with database.begin() as connection:
            before = [await fetched(connection, table) for table in TABLES]
            rows = await bulks.ready(connection, bulk, UUID(int=500), NOW, 100)
            after = [await fetched(connection, table) for table in TABLES]
        assert [row["id"].int for row in rows] == list(range(501, 601))
        assert [a - b for a, b in zip(after, before, strict=True)] == [100, 100]


async def test_a_batch_to_a_few_does_not_read_all_that_the_account_has_written_to(database, bulk):
    kind = NewKind(
        extent=Extent(UUID(int=2), UUID(int=MANY + 1), UUID(int=MANY + 30), OWNER),
        account_id="default",
        environment="live",
        mode="transactional",
        priority="normal",
        sender="T",
        callback_url=None,
        callback_lane_id=None,
        callback_final_only=False,
        accepted_at=NOW,
        scheduled_at=None,
        validity=timedelta(days=1),
        valid_until=NOW + timedelta(days=1),
        config_version=None,
        actor="test",
    )
    for run in range(AGAIN):
        new = NewMessages(
            ids=[UUID(int=MANY + 1 + run * 30 + n) for n in range(30)],
            positions=list(range(30)),
            numbers=["+447700900123"] * 30,
            hashes=[n.to_bytes(4, "big") for n in range(1, 31)],
            countries=["GB"] * 30,
            bodies=["x"] * 30,
            encodings=["gsm7"] * 30,
            segments=[1] * 30,
            metadata=[None] * 30,
            traceparents=[None] * 30,
        )
        async with database.begin() as connection:
            before = await fetched(connection, "recipients")
            await bulk_messages.insert(connection, [(kind, new)], hash_version=1)
            assert await fetched(connection, "recipients") - before == 60


async def test_the_moves_of_messages_of_a_bulk_need_no_new_entries_in_their_indexes(database, bulk):
    ids = [UUID(int=n) for n in range(1, 501)]
    async with database.begin() as connection:
        bulks.insert(connection, bulk, MANY, NOW, check_by=NOW)
    async with database.begin() as connection:
        before = await moved_and_in_place(connection)
        await bulks.claim(connection, claim_of(bulk, ids), actor="test")
        after = await moved_and_in_place(connection)
    assert [a - b for a, b in zip(after, before, strict=True)] == [500, 500]
    changes = [
        AttemptChange(m, 1, [PartRecord(1, "accepted", str(m), None, "")], code="") for m in ids
    ]
    kept = {str(m): EarlyReceipt("000", NOW) for m in ids}
    async with database.begin() as connection:
        before = await moved_and_in_place(connection)
        moves = await receipts.record_delivered(connection, changes, kept, actor="test", at=NOW)
        after = await moved_and_in_place(connection)
    assert {move.status for move in moves} == {MessageStatus.SENT, MessageStatus.DELIVERED}
    assert [a - b for a, b in zip(after, before, strict=True)] == [500, 500]


def claim_of(bulk: Extent, ids: list[UUID]) -> ClaimOfMany:
    count = len(ids)
    return ClaimOfMany(
        bulk_id=bulk.bulk_id,
        owner=OWNER,
        provider="p",
        part_method="udh",
        at=NOW,
        answer_by=NOW,
        config_version=None,
        ids=ids,
        epochs=[1] * count,
        numbers=[1] * count,
        parts=[1] * count,
        refs=[1] * count,
        receipt_bys=[NOW] * count,
        kinds=[1] * count,
        details=[{}],
    )

"""What statements read: no more rows than they are about, however many others there are."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from domain.modes import Priority
from domain.receipts import ReceiptState
from domain.states import MessageStatus
from store import bulk_messages, bulks
from store.attempts import AttemptChange, PartRecord, record_and_refresh
from store.bulk_messages import NewKind, NewMessages
from store.bulks import ClaimOfMany, IdRange
from store.database import Connection, Database, sql
from store.receipts.ingest import StoredReceipt, ingest
from store.receipts.with_response import EarlyReceipt, record_delivered
from tests.rows import row_of
from tests.store.test_folds import database
from tests.store.test_receipts import EFFECTS

__all__ = ["database"]

pytestmark = pytest.mark.stack

NOW = datetime.now(UTC)
MANY = 3000
OWNER = "bulk/bat_test"
TABLES = ("messages", "recipients")
AGAIN = 8
"""Plans are made for the parameters at first, and for any after some runs."""


@pytest.fixture
async def bulk(database: Database) -> IdRange:
    async with database.begin() as connection:
        connection.send(
            sql(
                "INSERT INTO accounts (id, name, callback_secret) VALUES ('default', 'default', 'whsec_x')"
            )
        )
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
                " valid_until, since, transitioned_at, owner, bulk_id)"
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
    return IdRange(UUID(int=1), UUID(int=1), UUID(int=MANY), OWNER)


async def counted(connection: Connection, table: str, *counters: str) -> list[int]:
    """What this session has done with the rows of a table and not reported yet."""
    row = await row_of(
        connection,
        sql("SELECT * FROM pg_stat_xact_user_tables WHERE relname = :table"),
        {"table": table},
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
        assert [row.id.int for row in rows] == list(range(501, 601))
        assert [a - b for a, b in zip(after, before, strict=True)] == [100, 100]


async def test_a_batch_to_a_few_does_not_read_all_that_the_account_has_written_to(database, bulk):
    kind = NewKind(
        id_range=IdRange(UUID(int=2), UUID(int=MANY + 1), UUID(int=MANY + 30), OWNER),
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
        bulks.insert(connection, bulk, MANY, NOW, priority=Priority.NORMAL, check_by=NOW)
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
        transitions = await record_delivered(connection, ["p"], changes, kept, actor="test", at=NOW)
        after = await moved_and_in_place(connection)
    assert {transition.status for transition in transitions} == {
        MessageStatus.SENT,
        MessageStatus.DELIVERED,
    }
    assert [a - b for a, b in zip(after, before, strict=True)] == [500, 500]


async def test_receipts_read_a_few_messages_of_their_recipients_and_no_others(database, bulk):
    ids = [UUID(int=n) for n in range(1, 501)]
    changes = [
        AttemptChange(m, 1, [PartRecord(1, "accepted", str(m), None, "")], code="") for m in ids
    ]
    async with database.begin() as connection:
        bulks.insert(connection, bulk, MANY, NOW, priority=Priority.NORMAL, check_by=NOW)
    async with database.begin() as connection:
        await bulks.claim(connection, claim_of(bulk, ids), actor="test")
    async with database.begin() as connection:
        await record_and_refresh(
            connection, changes, actor="test", at=NOW, check_by=None, unknown_until=NOW
        )
    async with database.begin() as connection:  # some 60 messages to each of 50 recipients
        connection.send(
            sql(
                "UPDATE messages SET recipient_id = r.id FROM recipients r"
                " WHERE r.number_hash = int4send(1 + ('x' || right(messages.id::text, 8))::bit(32)::int % 50)"
            )
        )
        connection.send(sql("ANALYZE messages, attempts, recipients"))
    for message_id in ids[:AGAIN]:
        receipt = StoredReceipt(
            "p",
            str(message_id),
            ReceiptState.DELIVERED,
            "000",
            NOW,
            number_hash=(1 + message_id.int % 50).to_bytes(4, "big"),
        )
        async with database.begin() as connection:
            before = await fetched(connection, "messages")
            matched = await ingest(connection, ["p"], [receipt], EFFECTS, at=NOW)
            assert await fetched(connection, "messages") - before < 40
        assert [each.status for each in matched.transitions] == [MessageStatus.DELIVERED]
        foreign = replace(receipt, provider_message_id="no part's", reference=2)
        async with database.begin() as connection:
            before = await fetched(connection, "messages")
            await ingest(connection, ["p"], [foreign], EFFECTS, at=NOW)
            assert await fetched(connection, "messages") - before < 240, "60 to the recipient"


async def test_receipts_of_a_recipient_with_thousands_of_messages_read_the_newest_only(
    database, bulk
):
    await send_all_to_one(database, in_flight=1)
    known = StoredReceipt(
        "p", "x", ReceiptState.DELIVERED, "000", NOW, number_hash=RECIPIENT, sender="T"
    )
    of_an_old_one = replace(known, provider_message_id="7")
    for batch, most in (
        ([replace(known, provider_message_id="2999")], 1),
        ([of_an_old_one], 1),
        ([replace(known, provider_message_id="no part's")], 1),
        ([replace(known, provider_message_id="")], 1),
        # Messages are read once for all receipts, but for those that the first statement reads.
        ([replace(known, provider_message_id=f"no part's {n}") for n in range(20)], 20),
    ):
        for _ in range(AGAIN):
            async with database.begin() as connection:
                before = await read(connection)
                await ingest(connection, ["p"], batch, EFFECTS, at=NOW)
                rows = await read(connection) - before
            assert rows < 2 * NEWEST_ROWS + 100 * most


async def test_receipts_of_a_recipient_with_one_message_read_none_of_the_many_to_another(
    database, bulk
):
    await send_all_to_one(database, in_flight=0)
    its = StoredReceipt("p", "x", ReceiptState.DELIVERED, "000", NOW, number_hash=OTHER)
    for its_id in ("no part's", "", "2") * 4:
        async with database.begin() as connection:
            before = await read(connection)
            receipt = replace(its, provider_message_id=its_id)
            await ingest(connection, ["p"], [receipt], EFFECTS, at=NOW)
            assert await read(connection) - before < 40


async def test_a_receipt_with_an_id_finds_its_message_behind_thousands_of_newer_ones(
    database, bulk
):
    await send_all_to_one(database, in_flight=0)
    old = StoredReceipt("p", "7", ReceiptState.DELIVERED, "000", NOW, number_hash=RECIPIENT)
    async with database.begin() as connection:
        # Two receipts with one id are not stored with their part at once.
        matched = await ingest(connection, ["p"], [old, old], EFFECTS, at=NOW)
    assert [each.ids for each in matched.transitions] == [(UUID(int=7),)]


@pytest.mark.parametrize(("reference", "matched"), [(None, 0), (70, 1)])
async def test_of_parts_without_an_id_not_all_of_which_are_read_only_a_reference_identifies_one(
    database, bulk, reference, matched
):
    await send_all_to_one(database, in_flight=0)
    async with database.begin() as connection:  # the one whose response was lost, and one in flight
        connection.send(
            sql(
                "UPDATE attempts SET provider_message_id = NULL, status = s, part_status = s,"
                " reference = 70 FROM (VALUES (2990, 'unknown'), (7, 'submitting')) AS t (n, s)"
                " WHERE message_id = lpad(to_hex(n), 32, '0')::uuid"
            )
        )
        connection.send(
            sql(
                "UPDATE messages SET status = s"
                " FROM (VALUES (2990, 'unknown'), (7, 'sending')) AS t (n, s)"
                " WHERE id = lpad(to_hex(n), 32, '0')::uuid"
            )
        )
    its = StoredReceipt(
        "p",
        "x",
        ReceiptState.DELIVERED,
        "000",
        NOW,
        number_hash=RECIPIENT,
        sender="T",
        reference=reference,
    )
    async with database.begin() as connection:
        found = await ingest(connection, ["p"], [its], EFFECTS, at=NOW)
    assert len(found.met) == matched


RECIPIENT, OTHER = (1).to_bytes(4, "big"), (2).to_bytes(4, "big")
NEWEST_ROWS = 200 * 3
"""Those of the newest messages, their attempts, and again some attempts."""


async def read(connection: Connection) -> int:
    """Rows of messages, attempts and parts that were read, by indexes or not."""
    counts = [
        await counted(connection, table, "idx_tup_fetch", "seq_tup_read")
        for table in ("messages", "attempts", "parts", "recipients")
    ]
    return sum(sum(each) for each in counts)


async def send_all_to_one(database: Database, *, in_flight: int) -> None:
    """All messages but one went to one recipient; each but the last has its number as its id."""
    async with database.begin() as connection:
        connection.send(
            sql(
                "UPDATE messages SET status = 'sent', recipient_id = CASE"
                " WHEN id = lpad('2', 32, '0')::uuid THEN id ELSE lpad('1', 32, '0')::uuid END"
            )
        )
        connection.send(
            sql(
                "INSERT INTO attempts (message_id, number, epoch, provider, status, part_status,"
                " provider_message_id, part_method, reference, started_at, response_by,"
                " settled_at, receipt_by)"
                " SELECT lpad(to_hex(n), 32, '0')::uuid, 1, 1, 'p', s, s,"
                " CASE WHEN s = 'accepted' THEN n::text END, 'udh8', 1, :now, :now, :now, :now"
                " FROM (SELECT n, CASE WHEN n > :known THEN 'submitting' ELSE 'accepted' END AS s"
                " FROM generate_series(1, :many) AS n) AS n"
            ),
            {"known": MANY - in_flight, "many": MANY, "now": NOW - timedelta(seconds=2)},
        )
        connection.send(
            sql(
                "UPDATE messages SET status = 'sending' WHERE id > lpad(to_hex(CAST(:known AS int)), 32, '0')::uuid"
            ),
            {"known": MANY - in_flight},
        )
    async with database.begin() as connection:
        connection.send(sql("ANALYZE messages, attempts, recipients"))


def claim_of(bulk: IdRange, ids: list[UUID]) -> ClaimOfMany:
    count = len(ids)
    return ClaimOfMany(
        bulk_id=bulk.bulk_id,
        owner=OWNER,
        provider="p",
        at=NOW,
        config_version=None,
        ids=ids,
        epochs=[1] * count,
        numbers=[1] * count,
        parts=[1] * count,
        methods=["udh8"] * count,
        refs=[1] * count,
        response_bys=[NOW] * count,
        receipt_bys=[NOW] * count,
        kinds=[1] * count,
        details=[{}],
    )

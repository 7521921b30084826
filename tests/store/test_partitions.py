"""Tables cut by time: nothing is lost or refused, nobody is held up, and statements keep to theirs."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from psycopg import IntegrityError
from uuid_utils.compat import uuid7

from domain.partitions import PartitionWidth, cut_after, first_id_at
from domain.receipts import ReceiptState
from services.partitions import Partitions
from store import attempts, bulks, partitions, receipts
from store.attempts import AttemptChange, PartRecord
from store.database import Database, sql
from store.partitions import CUT_BY
from store.receipts import StoredReceipt
from store.transitions import lock, settle
from tests.store import test_folds
from tests.store.plans import explained, touched
from tests.store.test_folds import add_attempt, add_message, database

__all__ = ["database"]

pytestmark = pytest.mark.stack

NOW = datetime.now(UTC)
MONTH = timedelta(days=31)


def monthly(database: Database, retention: timedelta | None = None) -> Partitions:
    return Partitions(database, PartitionWidth.MONTH, retention)


async def of(database: Database, table: str):
    return [each for each in await partitions.attached(database) if each.table == table]


async def count(database: Database, table: str) -> int:
    (found,) = await database.rows(sql(f"SELECT count(*) AS n FROM {table}"))
    return found["n"]


async def add(database: Database, at: datetime, **more) -> UUID:
    """A message that was delivered, with all that belongs to it, by an id of that time."""
    message = UUID(int=first_id_at(at).int + uuid7().int % 2**64)
    async with database.begin() as connection:
        made = add_message(connection, status="delivered")
        add_attempt(connection, made, 1, ["delivered"], "delivered")
    async with database.begin() as connection:
        for table, column in CUT_BY.items():
            if table in {"messages", "attempts", "parts"}:
                # As nobody does: the row goes to the partition of its new id.
                connection.send(
                    sql(f"UPDATE {table} SET {column} = :to WHERE {column} = :made"),
                    {"to": message, "made": made},
                )
        for name, value in more.items():
            connection.send(
                sql(f"UPDATE messages SET {name} = :value WHERE id = :id"),
                {"value": value, "id": message},
            )
        connection.send(
            sql("INSERT INTO events (message_id, at, kind, actor) VALUES (:m, :at, 'x', 'x')"),
            {"m": message, "at": at},
        )
        connection.send(
            sql(
                "INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor)"
                " VALUES (:m, ARRAY[CAST(:m AS uuid)], :at, 'x', 'x')"
            ),
            {"m": message, "at": at},
        )
        connection.send(
            sql(
                "INSERT INTO receipts (day, provider, provider_message_id, state, code, received_at,"
                " message_id) VALUES (:day, 'p', :id, 'delivered', '', :at, :m)"
            ),
            {"day": at.date(), "id": str(message), "at": at, "m": message},
        )
        connection.send(
            sql(
                "INSERT INTO callback_events (id, lane_id, account_id, environment, message_id, url,"
                " status, occurred_at, state, next_at)"
                " VALUES (:id, :id, 'default', 'live', :m, 'x', 'delivered', :at, 'delivered', :at)"
            ),
            {"id": uuid7(), "m": message, "at": at},
        )
    return message


def ids_of(moment: datetime, monkeypatch) -> None:
    """Messages that are added from now on were accepted then."""
    made = first_id_at(moment).int
    monkeypatch.setattr(test_folds, "uuid7", lambda: UUID(int=made + uuid7().int % 2**64))


# --- ahead -------------------------------------------------------------------------------------


async def test_two_partitions_are_cut_ahead_and_then_nothing_is_left_to_do(database):
    keeper = monthly(database)
    assert (await keeper.keep(NOW)).cut == 2 * len(CUT_BY)
    assert (await keeper.keep(NOW)).cut == 0
    for table in CUT_BY:
        found = await of(database, table)
        assert [each.end for each in found][:-1] == [each.begin for each in found][1:]
        assert found[0].begin is found[-1].end is None
        assert len([each for each in found if each.begin and each.begin > NOW and each.end]) == 2


async def test_the_width_may_change_and_cuts_go_on_where_the_last_one_ended(database):
    await monthly(database).keep(NOW)
    before = await of(database, "messages")
    later = before[-1].begin + timedelta(days=1)
    await Partitions(database, PartitionWidth.WEEK).keep(later)
    found = await of(database, "messages")
    first_monday = cut_after(later, PartitionWidth.WEEK)
    assert [each.begin for each in found][len(before) - 1 :] == [
        before[-1].begin,
        first_monday,
        first_monday + timedelta(days=7),
        first_monday + timedelta(days=14),
    ]


async def test_partitions_are_stored_as_those_before_them_with_the_same_indexes(database):
    await database.rows(sql("ALTER TABLE messages_rest SET (autovacuum_vacuum_threshold = 77)"))
    await monthly(database).keep(NOW)
    stored = await database.rows(
        sql("""
        SELECT c.relname, (c.reloptions @> ARRAY['fillfactor=60', 'autovacuum_vacuum_threshold=77',
                           'autovacuum_vacuum_scale_factor=0.05']) AS alike,
               (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid) AS indexes
        FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
        WHERE h.inhparent = 'messages'::regclass AND c.relname <> 'messages_first'
        """)
    )
    assert len(stored) == 3
    assert {(each["alike"], each["indexes"]) for each in stored} == {(True, 5)}


async def test_what_comes_when_nobody_cut_in_time_is_kept_and_gets_a_partition_as_it_lies(database):
    late = (await of(database, "messages"))[-1].begin + timedelta(days=50)
    messages = [await add(database, late), await add(database, late + timedelta(hours=1))]
    kept = await monthly(database).keep(late + timedelta(days=1))
    assert not kept.left
    for table in CUT_BY:
        found = await of(database, table)
        (its,) = [each for each in found[:-1] if each.end > late and (each.begin or late) <= late]
        assert await count(database, its.name) == 2
        assert await partitions.is_empty(database, found[-1])
        assert len([each for each in found if each.begin and each.begin > late and each.end]) >= 2
    async with database.begin() as connection:
        for message in messages:
            assert len(await attempts.of_message(connection, message)) == 1
            assert len(await receipts.of_message(connection, message)) == 1


async def test_rows_of_a_clock_far_ahead_are_kept_and_refuse_nothing_later(database):
    rest = (await of(database, "messages"))[-1]
    await add(database, rest.begin + timedelta(days=4000))
    assert (await monthly(database).keep(NOW)).left
    await add(database, rest.begin + timedelta(days=2000))
    assert await count(database, rest.name) == 2


async def test_a_table_that_is_busy_is_left_and_cut_the_next_time(database):
    async with database.begin() as reader:
        await reader.rows(sql("SELECT count(*) FROM messages"))
        began = time.monotonic()
        kept = await monthly(database).keep(NOW)
        assert kept.left
        assert kept.cut == 2 * (len(CUT_BY) - 1)
        assert time.monotonic() - began < 5
    assert (await monthly(database).keep(NOW)).cut == 2


async def test_senders_go_on_while_partitions_are_cut_and_dropped(database, monkeypatch):
    await monthly(database).keep(NOW)
    later = NOW + timedelta(days=400)
    await add(database, NOW)
    for months in (1, 2):
        await add(database, NOW + months * MONTH)
    slowest, done = 0.0, asyncio.Event()

    async def send():
        nonlocal slowest
        sent = 0
        while not done.is_set():
            began = time.monotonic()
            async with database.begin() as connection:
                message = add_message(connection)
                add_attempt(connection, message, 1, ["accepted"], "accepted")
                await settle(connection, [message], actor="test", at=NOW)
            slowest = max(slowest, time.monotonic() - began)
            sent += 1
        return sent

    ids_of(later, monkeypatch)
    sender = asyncio.create_task(send())
    keeper = monthly(database, timedelta(days=200))
    while (await keeper.keep(later)).left:
        await asyncio.sleep(0.1)
    done.set()
    sent = await sender
    assert sent > 20
    assert slowest < 1
    assert await count(database, "messages") == sent


# --- behind ------------------------------------------------------------------------------------


async def aged(database: Database, **more):
    """Two months of messages before now, seen from a time when the first is over; its messages."""
    await monthly(database).keep(NOW)
    end = (await of(database, "messages"))[0].end
    old = [await add(database, NOW, **more) for _ in range(3)]
    young = await add(database, end + timedelta(days=1))
    return old, young, end + timedelta(days=91)


async def test_nothing_is_dropped_unless_a_retention_is_set(database):
    _, _, later = await aged(database)
    assert (await monthly(database).keep(later + 100 * MONTH)).dropped == 0
    assert await count(database, "messages") == 4


async def test_a_partition_is_dropped_when_all_in_it_is_old_with_all_that_belongs_to_it(database):
    old, young, later = await aged(database)
    keeper = monthly(database, timedelta(days=90))
    assert (await keeper.keep(later - timedelta(days=2))).dropped == 0
    kept = await keeper.keep(later)
    assert not kept.left
    # A bulk begins before its messages, which may lie behind the next cut.
    counts = {table: await count(database, table) for table in CUT_BY}
    assert counts == dict.fromkeys(CUT_BY, 1) | {"events_of_many": 4}
    async with database.begin() as connection:
        assert await attempts.of_message(connection, old[0]) == []
        assert len(await attempts.of_message(connection, young)) == 1
    await keeper.keep(later + MONTH)
    assert {table: await count(database, table) for table in CUT_BY} == dict.fromkeys(CUT_BY, 0) | {
        "events_of_many": 1
    }


@pytest.mark.parametrize("what", ["message", "callback"])
async def test_nothing_is_dropped_as_long_as_something_in_it_is_open(database, what):
    old, _, later = await aged(database)
    opened = {
        "message": "UPDATE messages SET check_by = now() WHERE id = :id",
        "callback": "UPDATE callback_events SET state = 'pending' WHERE message_id = :id",
    }[what]
    await database.rows(sql(opened), {"id": old[0]})
    keeper = monthly(database, timedelta(days=90))
    assert (await keeper.keep(later)).dropped == 0
    closed = {
        "message": "UPDATE messages SET check_by = NULL",
        "callback": "UPDATE callback_events SET state = 'failed'",
    }[what]
    await database.rows(sql(closed))
    assert (await keeper.keep(later)).dropped > 0


async def test_a_message_that_is_taken_up_again_in_the_last_moment_comes_back(database):
    old, _, later = await aged(database)
    first = (await of(database, "messages"))[0]
    former = await partitions.detach(database, first)
    await database.rows(
        sql(f"UPDATE {former.name} SET check_by = now() WHERE id = :id"), {"id": old[0]}
    )
    assert (await monthly(database, timedelta(days=90)).keep(later)).dropped == 0
    assert await count(database, "messages") == 4
    assert (await of(database, "messages"))[0] == first


async def test_who_died_while_dropping_is_followed_by_somebody_who_finishes_it(database):
    _, _, later = await aged(database)
    for table in ("messages", "parts"):
        await partitions.detach(database, (await of(database, table))[0])
    kept = await monthly(database, timedelta(days=90)).keep(later)
    assert not kept.left
    assert await partitions.detached(database) == []
    assert await count(database, "parts") == 1


async def test_a_long_report_puts_off_what_is_dropped_and_holds_up_nothing_else(
    database, monkeypatch
):
    _, young, later = await aged(database)
    keeper = monthly(database, timedelta(days=90))
    await keeper.keep(later - timedelta(days=2))
    monkeypatch.setattr(partitions, "_PATIENCE", timedelta(seconds=0.2))
    async with database.begin() as report:
        assert len(await report.rows(sql("SELECT id FROM messages"))) == 4
        assert (await keeper.keep(later)).left
        moved = sql("UPDATE messages SET moved_at = now() WHERE id = :id RETURNING id")
        assert await database.rows(moved, {"id": young})
    kept = await keeper.keep(later)
    assert not kept.left
    assert await count(database, "messages") == 1


async def test_recipients_lose_their_row_with_their_last_message(database):
    _, young, later = await aged(database)
    stays = await database.rows(
        sql("SELECT recipient_id FROM messages WHERE id = :id"), {"id": young}
    )
    await monthly(database, timedelta(days=90)).keep(later)
    left = await database.rows(sql("SELECT id FROM recipients"))
    assert [each["id"] for each in left] == [each["recipient_id"] for each in stays]


async def test_a_recipient_who_is_written_to_while_its_last_message_goes_keeps_its_row(
    database, monkeypatch
):
    old, _, later = await aged(database)
    (found,) = await database.rows(
        sql("SELECT recipient_id FROM messages WHERE id = :id"), {"id": old[0]}
    )
    async with database.begin() as accepting:
        # It is found, and referred to only when its old messages are gone.
        await accepting.rows(
            sql("SELECT number FROM recipients WHERE id = :id"), {"id": found["recipient_id"]}
        )
        dropping = asyncio.create_task(monthly(database, timedelta(days=90)).keep(later))
        await asyncio.sleep(0.5)
        ids_of(later, monkeypatch)
        message = add_message(accepting)
        accepting.send(
            sql("UPDATE messages SET recipient_id = :r WHERE id = :m"),
            {"r": found["recipient_id"], "m": message},
        )
    await dropping
    number = await database.rows(
        sql("SELECT number FROM recipients WHERE id = :id"), {"id": found["recipient_id"]}
    )
    assert [each["number"] for each in number] == ["+447700900123"]


async def test_batches_go_with_their_messages(database):
    old, young, later = await aged(database)
    async with database.begin() as connection:
        for bulk_id, last_id in ((old[0], old[2]), (old[1], young)):
            extent = bulks.Extent(bulk_id, min(bulk_id, last_id), max(bulk_id, last_id), "x")
            bulks.insert(connection, extent, 3, NOW)
            connection.send(
                sql(
                    "INSERT INTO batches VALUES (:id, 'default', 'live', 'x', 'x', 1, 1, 'x', now())"
                ),
                {"id": bulk_id},
            )
            connection.send(
                sql("INSERT INTO batch_refusals VALUES (:id, 1, 'to', 'x', 'x')"), {"id": bulk_id}
            )
    await monthly(database, timedelta(days=90)).keep(later)
    for table in ("bulks", "batches", "batch_refusals"):
        assert await count(database, table) == 1


# --- what holds for all partitions -------------------------------------------------------------


async def test_events_of_every_partition_are_append_only_and_statuses_follow_from_rows(database):
    await monthly(database).keep(NOW)
    later = NOW + 2 * MONTH
    message = await add(database, later)
    for table in ("events", "events_of_many"):
        with pytest.raises(IntegrityError, match="append-only"):
            await database.rows(sql(f"UPDATE {table} SET kind = 'y'"))
    with pytest.raises(IntegrityError, match="make it delivered"):
        await database.rows(
            sql("UPDATE messages SET status = 'failed' WHERE id = :id"), {"id": message}
        )


async def test_a_receipt_finds_the_part_of_a_message_that_was_accepted_long_before(database):
    await monthly(database).keep(NOW)
    async with database.begin() as connection:
        made = add_message(connection, status="sent")
        add_attempt(connection, made, 1, ["accepted"], "accepted")
    old = UUID(int=first_id_at(NOW - timedelta(days=36)).int + 1)
    async with database.begin() as connection:
        for table, column in (
            ("messages", "id"),
            ("attempts", "message_id"),
            ("parts", "message_id"),
        ):
            connection.send(
                sql(f"UPDATE {table} SET {column} = :to WHERE {column} = :made"),
                {"to": old, "made": made},
            )
        connection.send(
            sql("UPDATE parts SET provider_message_id = 'its id', submitted_at = :now"),
            {"now": NOW},
        )
    async with database.begin() as connection:
        met = await receipts.ingest(
            connection,
            "p",
            [StoredReceipt("p", "its id", ReceiptState.DELIVERED, "000", NOW)],
            at=NOW,
            errors={},
            recheck=timedelta(minutes=1),
        )
    assert len(met.met) == 1


@pytest.mark.parametrize("messages", [2, 60])
async def test_the_statements_of_a_batch_touch_one_partition_of_six(database, messages):
    daily = Partitions(database, PartitionWidth.DAY)
    await daily.keep(NOW)
    await daily.keep((await of(database, "messages"))[-1].begin)
    assert len(await of(database, "messages")) >= 6
    bulk_id, owner = uuid7(), "bulk/test"
    async with database.begin() as connection:
        ids = [add_message(connection) for _ in range(messages)]
        connection.send(
            sql(
                "UPDATE messages SET owner = :owner, bulk_id = :bulk, check_by = now(),"
                " valid_until = now() + interval '9 days'"
            ),
            {"owner": owner, "bulk": bulk_id},
        )
        extent = bulks.Extent(bulk_id, ids[0], ids[-1], owner)
        bulks.insert(connection, extent, messages, NOW)
    ones = [1] * messages
    provider_ids = [f"id {number}" for number in range(messages)]
    how = {"at": NOW, "errors": {}, "recheck": timedelta(minutes=1)}
    async with database.begin() as connection:
        with explained(connection) as plans:
            await bulks.ready(connection, extent, UUID(int=0), NOW, messages)
            await bulks.untried(connection, extent, NOW)
            await bulks.exceptional(connection, extent, NOW, 100, without_receipts=True)
            await bulks.still_open(connection, extent)
            await bulks.attempts_of(connection, ids)
            claimed = await bulks.claim(
                connection,
                bulks.ClaimOfMany(
                    *(bulk_id, owner, "p", "udh8", NOW, NOW, None, ids, ones, ones, ones),
                    *([0] * messages, [NOW] * messages, ones, [{}]),
                ),
                actor="test",
            )
            lock(connection, ids)
            sent = await attempts.record_and_settle(
                connection,
                [
                    AttemptChange(m, 1, [PartRecord(1, "accepted", its, None, "")], code="")
                    for m, its in zip(ids, provider_ids, strict=True)
                ],
                actor="test",
                at=NOW,
                check_by=None,
                doubt_until=NOW,
            )
            await receipts.match(connection, "p", provider_ids, **how)
            came = [
                StoredReceipt("p", its, ReceiptState.DELIVERED, "000", NOW) for its in provider_ids
            ]
            delivered = await receipts.ingest(connection, "p", came, **how)
            await settle(connection, ids, actor="test", at=NOW)
            bulks.push_check(connection, extent, NOW, timedelta(0))
    assert sum(each.messages for each in (*claimed, *sent, *delivered.transitions)) == 3 * messages
    assert len(plans) >= 13
    for statement, plan in plans:
        of_tables = [name for name in touched(plan) if name.startswith(tuple(CUT_BY))]
        assert all(name.endswith("_first") for name in of_tables), statement

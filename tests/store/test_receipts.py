"""Receipts and answers that race each other, in transactions that overlap."""

import asyncio
from dataclasses import asdict, replace
from datetime import timedelta

import pytest
from uuid_utils.compat import uuid7

from domain.deadlines import receipt_by_after_enroute
from domain.error_classes import RECEIPT_ERRORS
from domain.receipts import ReceiptState
from store import attempts
from store.attempts import AttemptChange, PartRecord
from store.database import Database, sql
from store.receipts import reads
from store.receipts.apply import Effects
from store.receipts.ingest import StoredReceipt, ingest
from store.receipts.match import Matched, match
from store.receipts.with_response import EarlyReceipt, record_delivered
from store.transitions import lock
from tests.rows import rows_of
from tests.store.test_folds import NOW, add_attempt, add_message, database

__all__ = ["database"]

pytestmark = pytest.mark.stack

EFFECTS = Effects(
    errors={state: error.value for state, error in RECEIPT_ERRORS.items()},
    recheck=timedelta(minutes=1),
    receipt_by=lambda _provider, _mode, _policy, receipt_by, at, valid_until: (
        receipt_by_after_enroute(receipt_by, at, timedelta(minutes=30), valid_until)
    ),
)
HOW = {"at": NOW, "effects": EFFECTS}


def receipt(its_id, *, state=ReceiptState.DELIVERED):
    return StoredReceipt(
        provider="p",
        provider_message_id=its_id,
        state=state,
        code="000",
        received_at=NOW + timedelta(seconds=1),
    )


async def submitted(database: Database, count: int, *, inside: bool = True):
    async with database.begin() as connection:
        messages = [add_message(connection, status="sending") for _ in range(count)]
        for message in messages:
            add_attempt(connection, message, 1, ["submitting"], "submitting", inside=inside)
    return messages


async def record(connection, messages, its_id):
    lock(connection, sorted(messages))
    await attempts.record_and_refresh(
        connection,
        [
            AttemptChange(m, 1, [PartRecord(1, "accepted", its_id(n), None, "")], code="")
            for n, m in enumerate(messages)
        ],
        actor="test",
        at=NOW,
        check_by=None,
        unknown_until=NOW,
    )


async def hash_of(database: Database, message):
    (found,) = await rows_of(
        database,
        sql(
            "SELECT r.number_hash FROM recipients r JOIN messages m ON m.recipient_id = r.id"
            " WHERE m.id = :message"
        ),
        {"message": message},
    )
    return found["number_hash"]


async def statuses(database: Database):
    rows = await rows_of(database, sql("SELECT status, count(*) FROM messages GROUP BY status"))
    return {row["status"]: row["count"] for row in rows}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("count", [1, 60])
async def test_a_receipt_and_an_answer_that_miss_each_other_meet_once_at_the_second_look(
    database, count, inside
):
    messages = await submitted(database, count, inside=inside)
    ids = [f"id {n}" for n in range(count)]
    async with database.begin() as responding:
        await record(responding, messages, ids.__getitem__)
        async with database.begin() as receiving:
            first = await ingest(receiving, ["p"], [receipt(i) for i in ids], **HOW)
        assert first.met == ()
        assert sorted(first.alone) == sorted(ids)
    assert await statuses(database) == {"sent": count}

    async def rematch():
        async with database.begin() as connection:
            return await match(connection, ["p"], ids, **HOW)

    both = await asyncio.gather(rematch(), rematch())
    assert sum(len(each.met) for each in both) == count
    assert await statuses(database) == {"delivered": count}
    events = await rows_of(database, sql("SELECT kind FROM events WHERE kind = 'receipt'"))
    assert len(events) == count
    assigned = await rows_of(database, sql("SELECT 1 FROM receipts WHERE message_id IS NOT NULL"))
    assert len(assigned) == count


@pytest.mark.parametrize("inside", [True, False])
async def test_a_receipt_whose_part_is_known_is_written_with_it(database, inside):
    messages = await submitted(database, 30, inside=inside)
    async with database.begin() as connection:
        await record(connection, messages, "id {}".format)
    async with database.begin() as connection:
        batch = [receipt(f"id {n}") for n in range(30)]
        found = await ingest(connection, ["p"], [*batch, batch[0]], **HOW)
    assert len(found.met) == 30
    assert found.alone == ()
    rows = await rows_of(
        database, sql("SELECT message_id, attempt, part, copies FROM receipts ORDER BY id")
    )
    assert {row["message_id"] for row in rows} == set(messages)
    assert [row["copies"] for row in rows] == [2] + [1] * 29


async def test_a_copy_that_comes_later_is_counted_and_moves_nothing(database):
    messages = await submitted(database, 1)
    async with database.begin() as connection:
        await record(connection, messages, "id {}".format)
    found = []
    for _ in range(2):
        async with database.begin() as connection:
            found.append(await ingest(connection, ["p"], [receipt("id 0")], **HOW))
    assert [len(each.met) for each in found] == [1, 0]
    assert found[1].alone == ()
    events = await rows_of(database, sql("SELECT 1 FROM events WHERE kind = 'receipt'"))
    assert len(events) == 1


async def test_a_receipt_that_meets_nobody_says_so(database):
    async with database.begin() as connection:
        found = await ingest(connection, ["p"], [receipt("nobody's")], **HOW)
    assert found.alone == ("nobody's",)


@pytest.mark.parametrize("inside", [True, False])
async def test_a_receipt_that_is_quicker_than_its_answer_is_not_an_older_messages(database, inside):
    async with database.begin() as connection:
        unknown = add_message(connection, status="unknown")
        add_attempt(connection, unknown, 1, ["unknown"], "unknown", inside=inside)
        recent = add_message(connection, status="sending")
        add_attempt(connection, recent, 1, ["submitting"], "submitting", inside=inside)
        same = sql(
            "UPDATE messages SET recipient_id ="
            " (SELECT recipient_id FROM messages WHERE id = :unknown) WHERE id = :recent"
        )
        connection.send(same, {"unknown": unknown, "recent": recent})
    quick = replace(receipt("id 0"), sender="T", number_hash=await hash_of(database, recent))
    async with database.begin() as connection:
        found = await ingest(connection, ["p"], [quick], **HOW)
    assert found.alone == ("id 0",)
    async with database.begin() as connection:
        await record(connection, [recent], "id {}".format)
    async with database.begin() as connection:
        await match(connection, ["p"], ["id 0"], **HOW)
    assert await statuses(database) == {"unknown": 1, "delivered": 1}
    later = replace(quick, provider_message_id="lost")
    async with database.begin() as connection:
        found = await ingest(connection, ["p"], [later], **HOW)
    assert len(found.met) == 1, "nothing is in flight any more: only the unknown one can be it"
    assert await statuses(database) == {"delivered": 2}


async def test_a_receipt_that_knows_its_part_by_reference_may_wait_for_the_answer(database):
    (message,) = await submitted(database, 1)
    by_reference = replace(
        receipt("id 0"), reference=0, number_hash=await hash_of(database, message)
    )

    async def receive():
        async with database.begin() as connection:
            return await ingest(connection, ["p"], [by_reference], **HOW)

    async with database.begin() as responding:
        await record(responding, [message], "id {}".format)
        receiving = asyncio.create_task(receive())
        await asyncio.sleep(0.5)
        assert not receiving.done(), "the response has the message's row"
    assert len((await receiving).met) == 1
    assert await statuses(database) == {"delivered": 1}


# --- a response and its receipt in one change ---------------------------------------------------


async def in_a_bulk(database: Database, messages, *, final_only=False):
    """Make messages those of a bulk, whose callbacks somebody wants."""
    bulk, lane = uuid7(), uuid7()
    async with database.begin() as connection:
        connection.send(
            sql("INSERT INTO bulks VALUES (:bulk, :first, :last, :count, :now)"),
            {
                "bulk": bulk,
                "first": messages[0],
                "last": messages[-1],
                "count": len(messages),
                "now": NOW,
            },
        )
        connection.send(
            sql("INSERT INTO endpoints (id, account_id, origin) VALUES (:lane, 'default', :o)"),
            {"lane": lane, "o": f"https://{lane.hex}.example.com"},
        )
        connection.send(
            sql(
                "UPDATE messages SET bulk_id = :bulk, owner = 'bulk/bat_1', check_by = NULL,"
                " callback_lane_id = :lane, callback_url = 'https://example.com/',"
                " callback_final_only = :final WHERE id = ANY(:ids)"
            ),
            {"bulk": bulk, "lane": lane, "final": final_only, "ids": messages},
        )


def accepted_as(messages, its_id):
    return [
        AttemptChange(m, 1, [PartRecord(1, "accepted", its_id(n), None, "")], code="", bind="p/1")
        for n, m in enumerate(messages)
    ]


EARLY = EarlyReceipt("000", NOW + timedelta(seconds=1))


async def record_together(database, changes, kept):
    async with database.begin() as connection:
        lock(connection, sorted(change.message_id for change in changes))
        return await record_delivered(connection, ["p"], changes, kept, actor="test", at=NOW)


NOBODYS = {
    "id",
    "seq",
    "message_id",
    "subject_id",
    "message_ids",
    "bulk_id",
    "lane_id",
    "recipient_id",
}
NOBODYS |= {"provider_message_id", "callback_lane_id", "position"}
NOBODYS |= {"receipt_within", "receipt_done_at"}


TABLES = {
    "messages": "id = ANY(:ids) ORDER BY id",
    "attempts": "message_id = ANY(:ids) ORDER BY message_id",
    "events_of_many": "message_ids <@ :ids ORDER BY seq",
    "outbox": "subject_id = ANY(:ids) ORDER BY subject_id, position",
    "events": "message_id = ANY(:ids) ORDER BY seq",
}


async def written(database: Database, messages):
    """All that is written of messages, but for names: in the order in which it was written."""
    found = {}
    for table, where in TABLES.items():
        rows = await rows_of(
            database, sql(f"SELECT * FROM {table} WHERE {where}"), {"ids": messages}
        )
        found[table] = [{k: v for k, v in row.items() if k not in NOBODYS} for row in rows]
    found["receipts"] = [
        {k: v for k, v in asdict(row).items() if k not in NOBODYS}
        for message in messages
        for row in await receipts_of(database, message)
    ]
    return found


async def receipts_of(database: Database, message):
    async with database.begin() as connection:
        return await reads.of_message(connection, message)


@pytest.mark.parametrize("final_only", [False, True])
@pytest.mark.parametrize("count", [1, 60])
async def test_an_answer_and_its_receipt_together_leave_what_they_leave_one_by_one(
    database, count, final_only
):
    apart = await submitted(database, count, inside=True)
    await in_a_bulk(database, apart, final_only=final_only)
    async with database.begin() as connection:
        lock(connection, sorted(apart))
        await attempts.record_and_refresh(
            connection,
            accepted_as(apart, "apart {}".format),
            actor="test",
            at=NOW,
            check_by=None,
            unknown_until=NOW,
        )
    async with database.begin() as connection:
        batch = [receipt(f"apart {n}") for n in range(count)]
        await ingest(connection, ["p"], batch, **HOW)

    together = await submitted(database, count, inside=True)
    await in_a_bulk(database, together, final_only=final_only)
    transitions = await record_together(
        database,
        accepted_as(together, "together {}".format),
        {f"together {n}": EARLY for n in range(count)},
    )
    assert [(m.previous.value, m.status.value, m.messages) for m in transitions] == [
        ("sending", "sent", count),
        ("sent", "delivered", count),
    ]
    one, other = await written(database, apart), await written(database, together)
    assert one == other
    assert len(one["receipts"]) == count, "each has its receipt"
    emitted = [row["status"] for row in other["outbox"]]
    assert emitted == ["delivered"] * count if final_only else ["sent", "delivered"] * count


@pytest.mark.parametrize(
    "unusual",
    [
        "UPDATE messages SET epoch = 2 WHERE id = :one",
        "UPDATE messages SET owner = 'send/1' WHERE id = :one",
        "UPDATE attempts SET expired = true WHERE message_id = :one",
        "UPDATE attempts SET provider_message_id = 'another' WHERE message_id = :one",
    ],
)
async def test_what_is_not_as_it_usually_is_is_left_as_it_was(database, unusual):
    messages = await submitted(database, 3, inside=True)
    await in_a_bulk(database, messages)
    async with database.begin() as connection:
        connection.send(sql(unusual), {"one": messages[1]})
    before = await written(database, [messages[1]])
    kept = {f"id {n}": EARLY for n in range(3)}
    transitions = await record_together(database, accepted_as(messages, "id {}".format), kept)
    assert {i for transition in transitions for i in transition.ids} == {messages[0], messages[2]}
    assert await written(database, [messages[1]]) == before
    have = [len(await receipts_of(database, message)) for message in messages]
    assert have == [1, 0, 1]


@pytest.mark.parametrize("when", ["before its response", "afterwards"])
async def test_a_copy_of_a_receipt_that_was_written_with_its_answer_is_counted_and_no_more(
    database, when
):
    (message,) = await submitted(database, 1, inside=True)
    await in_a_bulk(database, [message])
    copies = [replace(receipt("id 0"), received_at=NOW + timedelta(seconds=n)) for n in (1, 2)]

    async def come():
        for copy in copies:
            async with database.begin() as connection:
                await ingest(connection, ["p"], [copy], **HOW)

    if when == "before its response":
        await come()
    changes = accepted_as([message], "id {}".format)
    await record_together(database, changes, {"id 0": EarlyReceipt("000", NOW, done_at=NOW)})
    if when == "afterwards":
        await come()
    before = await written(database, [message])
    async with database.begin() as connection:
        assert await match(connection, ["p"], ["id 0"], **HOW) == Matched(
            alone=() if when == "before its response" else ("id 0",),
            copies=(ReceiptState.DELIVERED,) * 2 if when == "before its response" else (),
        )
    (came,) = await receipts_of(database, message)
    assert (came.copies, came.received_at, came.done_at) == (3, NOW, NOW)
    after = await written(database, [message])
    assert [row["kind"] for row in after["events_of_many"]].count("receipt") == 1
    del before["receipts"], after["receipts"]
    assert before == after
    assert await statuses(database) == {"delivered": 1}


async def test_of_two_messages_that_got_one_id_none_is_written_with_one_receipt(database):
    messages = await submitted(database, 2, inside=True)
    await in_a_bulk(database, messages)
    await record_together(database, accepted_as(messages, lambda _: "same"), {"same": EARLY})
    assert await statuses(database) == {"sending": 2}

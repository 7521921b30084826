"""Receipts that name their part are for this part or for none."""

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest
from uuid_utils.compat import uuid7

from domain.error_classes import ErrorClass
from domain.receipts import PartIdentity, ReceiptState
from store import attempts
from store.attempts import AttemptChange, PartRecord
from store.database import sql
from store.receipts import reads, unmatched
from store.receipts.ingest import StoredReceipt, ingest
from store.receipts.match import match
from store.receipts.named import ingest_named, match_named
from store.transitions import lock
from tests.rows import rows_of
from tests.store.test_folds import NOW, add_attempt, add_message, database
from tests.store.test_receipts import EFFECTS, HOW, hash_of, record, statuses, submitted

__all__ = ["database"]

pytestmark = pytest.mark.stack

DELIVERED, FAILED, ENROUTE = (
    ReceiptState.DELIVERED,
    ReceiptState.UNDELIVERABLE,
    ReceiptState.ENROUTE,
)


def naming(message, *, attempt=1, number=1, state=DELIVERED, **what):
    return StoredReceipt(
        provider=what.pop("provider", "p"),
        provider_message_id=what.pop("its_id", ""),
        state=state,
        code=what.pop("code", "0"),
        received_at=what.pop("received_at", NOW + timedelta(seconds=1)),
        part=PartIdentity(message, attempt, number),
        **what,
    )


async def receive(database, *batch, providers=("p",)):
    async with database.begin() as connection:
        return await ingest_named(connection, list(providers), batch, **HOW)


async def attempt_of(database, message, number=1):
    (row,) = await rows_of(
        database,
        sql("SELECT * FROM attempts WHERE message_id = :m AND number = :n"),
        {"m": message, "n": number},
    )
    return row


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("responded", [True, False])
async def test_a_part_is_found_by_its_identity_whether_its_response_came_or_not(
    database, inside, responded
):
    messages = await submitted(database, 20, inside=inside)
    if responded:
        async with database.begin() as connection:
            await record(connection, messages, "id {}".format)
    found = await receive(database, *[naming(message) for message in messages])
    assert len(found.met) == 20
    assert found.waiting == ()
    assert await statuses(database) == {"delivered": 20}
    if not responded:  # the responses come after the receipts
        async with database.begin() as connection:
            await record(connection, messages, "id {}".format)
        assert await statuses(database) == {"delivered": 20}


async def test_one_provider_id_for_all_messages_confuses_no_receipt(database):
    messages = await submitted(database, 6)
    async with database.begin() as connection:
        await record(connection, messages, lambda _: "the same")
    some = [naming(message, its_id="the same") for message in messages[:3]]
    found = await receive(database, *some)
    assert len(found.met) == 3
    rows = await rows_of(database, sql("SELECT id FROM messages WHERE status = 'delivered'"))
    assert {row["id"] for row in rows} == set(messages[:3])


@pytest.mark.parametrize("names", ["another message", "another attempt", "another part"])
async def test_a_receipt_that_names_no_part_of_ours_matches_no_other_however_much_fits(
    database, names
):
    (message,) = await submitted(database, 1)
    async with database.begin() as connection:
        await record(connection, [message], "id {}".format)
    wrong = {
        "another message": naming(uuid7()),
        "another attempt": naming(message, attempt=2),
        "another part": naming(message, number=2),
    }[names]
    its_hash = await hash_of(database, message)
    wrong = replace(wrong, provider_message_id="id 0", number_hash=its_hash, sender="T")
    found = await receive(database, wrong)
    assert (found.met, len(found.waiting)) == ((), 1)
    # Nor does it by what else it carries, when receipts are matched again.
    async with database.begin() as connection:
        (due,) = await unmatched.due(connection, NOW + timedelta(minutes=1), 10)
        again = await match(connection, ["p"], ["id 0", ""], came=[due.id], **HOW)
    assert again.met == ()
    async with database.begin() as connection:
        again = await match_named(
            connection, ["p"], [due.named_message_id], [due.id], EFFECTS, at=NOW
        )
    assert again.met == ()
    assert await statuses(database) == {"sent": 1}


async def test_a_receipt_that_names_no_attempt_is_still_matched_beside_one_that_does(database):
    messages = await submitted(database, 2)
    async with database.begin() as connection:
        await record(connection, messages, "id {}".format)
    await receive(database, naming(messages[0], attempt=7, its_id="id 1"))
    plain = replace(naming(messages[1], its_id="id 1"), part=None)
    async with database.begin() as connection:
        found = await ingest(connection, ["p"], [plain], **HOW)
    assert len(found.met) == 1
    assert (await attempt_of(database, messages[1]))["status"] == "delivered"


async def test_the_attempts_provider_has_to_be_the_receipts_or_of_its_group(database):
    (message,) = await submitted(database, 1)
    receipt = naming(message, provider="other")
    found = await receive(database, receipt, providers=["other"])
    assert (found.met, len(found.waiting)) == ((), 1)
    assert await statuses(database) == {"sending": 1}
    found = await receive(database, receipt, providers=["other", "p"])
    assert len(found.met) == 1
    assert await statuses(database) == {"delivered": 1}


async def test_a_receipt_that_waited_is_matched_once_a_configuration_allows_its_provider(database):
    (message,) = await submitted(database, 1)
    await receive(database, naming(message, provider="renamed"), providers=["renamed"])
    async with database.begin() as connection:
        (due,) = await unmatched.due(connection, NOW + timedelta(minutes=1), 10)
        found = await match_named(
            connection, ["renamed", "p"], [due.named_message_id], [due.id], EFFECTS, at=NOW
        )
    assert len(found.met) == 1
    assert await statuses(database) == {"delivered": 1}


@pytest.mark.parametrize("together", [True, False])
async def test_a_receipt_that_comes_again_is_a_copy_that_is_counted_and_moves_nothing(
    database, together
):
    (message,) = await submitted(database, 1)
    if together:
        found = [await receive(database, naming(message), naming(message), naming(message))]
    else:
        found = [await receive(database, naming(message)) for _ in range(3)]
    assert sum(len(each.met) for each in found) == 1
    assert sum(len(each.copies) for each in found) == 2
    async with database.begin() as connection:
        (stored,) = await reads.of_message(connection, message)
    assert (stored.copies, stored.attempt, stored.part) == (3, 1, 1)
    events = await rows_of(database, sql("SELECT 1 FROM events WHERE kind = 'receipt'"))
    assert len(events) == 1


@pytest.mark.parametrize("order", list(permutations([DELIVERED, FAILED, ENROUTE])))
async def test_receipts_of_a_part_in_any_order_leave_it_delivered(database, order):
    (message,) = await submitted(database, 1)
    for seconds, state in enumerate(order, start=1):
        at = NOW + timedelta(seconds=seconds)
        error = ErrorClass.BLOCKED if state is FAILED else None
        await receive(database, naming(message, state=state, received_at=at, error_class=error))
    row = await attempt_of(database, message)
    assert (row["status"], row["receipt_state"]) == ("delivered", "delivered")
    assert (row["error_class"], row["receipt_error_class"]) == (None, None)


@pytest.mark.parametrize("inside", [True, False])
async def test_the_error_class_of_a_receipt_counts_before_that_of_its_state(database, inside):
    messages = await submitted(database, 2, inside=inside)
    await receive(
        database,
        naming(messages[0], state=FAILED, code="30007", error_class=ErrorClass.BLOCKED),
        naming(messages[1], state=FAILED, code="30008"),
    )
    rows = [await attempt_of(database, message) for message in messages]
    assert [row["error_class"] for row in rows] == ["blocked", "undelivered"]
    async with database.begin() as connection:
        (stored,) = await reads.of_message(connection, messages[0])
    assert stored.error_class is ErrorClass.BLOCKED


async def test_each_part_of_an_attempt_has_its_own_receipt_and_the_worst_state_decides(database):
    async with database.begin() as connection:
        message = add_message(connection, status="sending")
        add_attempt(connection, message, 1, ["submitting"] * 3, "submitting")
    await receive(
        database,
        naming(message, number=3, state=FAILED, error_class=ErrorClass.TEMPORARY),
        naming(message, number=1),
        naming(message, number=2, state=ReceiptState.REJECTED, error_class=ErrorClass.BLOCKED),
    )
    row = await attempt_of(database, message)
    assert (row["status"], row["error_class"]) == ("undelivered", "blocked")


async def test_a_late_receipt_of_an_old_attempt_fails_no_newer_one(database):
    async with database.begin() as connection:
        message = add_message(connection, status="sending")
        add_attempt(connection, message, 1, ["unknown"], "unknown", inside=True)
        add_attempt(connection, message, 2, ["submitting"], "submitting", inside=True)
    await receive(database, naming(message, attempt=1, state=FAILED))
    assert (await attempt_of(database, message, 1))["status"] == "undelivered"
    assert (await attempt_of(database, message, 2))["status"] == "submitting"
    assert await statuses(database) == {"sending": 1}


async def test_the_provider_id_of_a_receipt_becomes_that_of_a_part_whose_response_was_lost(
    database,
):
    (message,) = await submitted(database, 1)
    await receive(database, naming(message, its_id="SM1", state=ENROUTE))
    row = await attempt_of(database, message)
    assert (row["status"], row["provider_message_id"]) == ("accepted", "SM1")
    async with database.begin() as connection:
        lock(connection, [message])
        change = AttemptChange(message, 1, [PartRecord(1, "accepted", "SM1", None, "")], code="")
        attempts.record(connection, [change], at=NOW, unknown_until=None)
    assert (await attempt_of(database, message))["status"] == "accepted"


@pytest.mark.parametrize(
    ("error_class", "out_of_time"),
    [(None, True), (ErrorClass.UNDELIVERED, True), (ErrorClass.BLOCKED, False)],
)
async def test_an_expired_receipt_with_another_cause_does_not_count_as_out_of_time(
    database, error_class, out_of_time
):
    (message,) = await submitted(database, 1)
    expired = naming(message, state=ReceiptState.EXPIRED, error_class=error_class)
    await receive(database, expired)
    async with database.begin() as connection:
        (attempt,) = await attempts.of_message(connection, message)
    assert attempt.out_of_time is out_of_time

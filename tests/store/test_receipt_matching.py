"""Receipts on real Postgres: ids that come again, parts that share one, other hosts, unmatched ones."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from domain.receipts import ReceiptState, first_match_at, next_match_at
from store import attempts
from store.attempts import AttemptChange, PartRecord
from store.database import Database, sql
from store.receipts import candidates, reads, unmatched
from store.receipts.ingest import StoredReceipt, ingest
from store.receipts.match import match
from store.receipts.unmatched import unmatched_counts
from store.transitions import lock, refresh_status
from tests.rows import rows_of
from tests.store.test_folds import NOW, add_attempt, add_message, database
from tests.store.test_receipts import EFFECTS, HOW, hash_of, statuses

__all__ = ["database"]

pytestmark = pytest.mark.stack

SECOND = timedelta(seconds=1)


def came(its_id, *, state=ReceiptState.DELIVERED, after=1, **more) -> StoredReceipt:
    return StoredReceipt(
        provider=more.pop("provider", "p"),
        provider_message_id=its_id,
        state=state,
        code=more.pop("code", "000"),
        received_at=NOW + after * SECOND,
        **more,
    )


async def sent(database: Database, *ids, inside=False, at=NOW, like=None):
    """A message of as many parts that were answered with these ids, to the recipient of another."""
    async with database.begin() as connection:
        message = add_message(connection, status="sending")
        add_attempt(connection, message, 1, ["submitting"] * len(ids), "submitting", inside=inside)
        connection.send(
            sql(
                "UPDATE parts SET submitted_at = :at, reference = number - 1 WHERE message_id = :m"
            ),
            {"m": message, "at": at},
        )
        connection.send(
            sql("UPDATE attempts SET started_at = :at WHERE message_id = :m"),
            {"m": message, "at": at},
        )
        if like is not None:
            connection.send(
                sql(
                    "UPDATE messages SET recipient_id ="
                    " (SELECT recipient_id FROM messages WHERE id = :like) WHERE id = :m"
                ),
                {"m": message, "like": like},
            )
    parts = [PartRecord(n, "accepted", i, None, "") for n, i in enumerate(ids, start=1)]
    async with database.begin() as connection:
        lock(connection, [message])
        await attempts.record_and_refresh(
            connection,
            [AttemptChange(message, 1, parts, code="")],
            actor="test",
            at=at,
            check_by=None,
            unknown_until=at,
        )
    return message


async def in_flight(database: Database, like, status, *, at):
    """A message to the recipient of another whose response has not come, or is lost."""
    async with database.begin() as connection:
        message = add_message(connection, status="sending" if status == "submitting" else "unknown")
        add_attempt(connection, message, 1, [status], status, inside=True)
        connection.send(
            sql(
                "UPDATE messages SET recipient_id ="
                " (SELECT recipient_id FROM messages WHERE id = :like) WHERE id = :m"
            ),
            {"m": message, "like": like},
        )
        connection.send(
            sql("UPDATE attempts SET started_at = :at WHERE message_id = :m"),
            {"m": message, "at": at},
        )
    return message


async def respond(database: Database, message, its_id):
    change = AttemptChange(message, 1, [PartRecord(1, "accepted", its_id, None, "")], code="")
    async with database.begin() as connection:
        lock(connection, [message])
        await attempts.record_and_refresh(
            connection, [change], actor="test", at=NOW, check_by=None, unknown_until=NOW
        )


async def expire(database: Database, message):
    """Give up the wait for the receipts of its attempt."""
    async with database.begin() as connection:
        lock(connection, [message])
        connection.send(
            sql("UPDATE attempts SET expired = true WHERE message_id = :m"), {"m": message}
        )
        attempts.refold(connection, [AttemptChange(message, 1)], at=NOW)
        await refresh_status(connection, [message], actor="test", at=NOW)


async def receive(database: Database, *batch, providers=("p",)):
    async with database.begin() as connection:
        return await ingest(connection, providers, batch, **HOW)


async def status_of(database: Database, *messages):
    rows = await rows_of(
        database,
        sql("SELECT id, status FROM messages WHERE id = ANY(:ids)"),
        {"ids": list(messages)},
    )
    by_id = {row["id"]: row["status"] for row in rows}
    return [by_id[message] for message in messages]


async def receipts_of(database: Database, message):
    async with database.begin() as connection:
        return await reads.of_message(connection, message)


# --- ids that come again -------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("recipient", ["the same", "another", "not given"])
async def test_an_id_that_comes_again_the_same_day_delivers_each_of_its_messages(
    database, inside, recipient
):
    delivered = []
    for again in range(4):
        like = delivered[0] if delivered and recipient == "the same" else None
        message = await sent(database, "1", inside=inside, at=NOW + again * 60 * SECOND, like=like)
        number_hash = None if recipient == "not given" else await hash_of(database, message)
        its = came("1", after=60 * again + 30, number_hash=number_hash, sender="T", done_at=NOW)
        assert len((await receive(database, its)).met) == 1
        delivered.append(message)
        assert await status_of(database, *delivered) == ["delivered"] * len(delivered)
    assert [len(await receipts_of(database, message)) for message in delivered] == [1] * 4


@pytest.mark.parametrize("together", [True, False])
async def test_two_messages_in_flight_with_one_id_are_distinguished_by_their_recipients(
    database, together
):
    first, second = await sent(database, "1"), await sent(database, "1")
    failed = came(
        "1",
        state=ReceiptState.UNDELIVERABLE,
        code="011",
        number_hash=await hash_of(database, first),
    )
    arrived = came("1", number_hash=await hash_of(database, second))
    for batch in [[arrived, failed]] if together else [[arrived], [failed]]:
        await receive(database, *batch)
    assert await status_of(database, first, second) == ["retried", "delivered"]


async def test_a_receipt_for_one_of_two_indistinguishable_messages_waits_for_the_other_receipt(
    database,
):
    first = await sent(database, "1")
    second = await sent(database, "1", like=first)
    its = came("1", number_hash=await hash_of(database, first), sender="T", done_at=NOW)
    assert (await receive(database, its)).alone == ("1",)
    assert await status_of(database, first, second) == ["sent", "sent"]
    assert len((await receive(database, its)).met) == 2
    assert await status_of(database, first, second) == ["delivered", "delivered"]


@pytest.mark.parametrize("groups", [[2], [1, 1]])
@pytest.mark.parametrize("parts", [2, 3])
async def test_parts_that_share_an_id_have_a_receipt_each(database, groups, parts):
    message = await sent(database, *["7001"] * parts)
    its = came("7001", number_hash=await hash_of(database, message), sender="T", done_at=NOW)
    for count in groups:
        await receive(database, *[its] * count)
    if parts > sum(groups):
        assert await status_of(database, message) == ["sent"]
        await receive(database, its)
    assert await status_of(database, message) == ["delivered"]
    assert [each.part for each in await receipts_of(database, message)] == [*range(1, parts + 1)]


@pytest.mark.parametrize(
    ("old", "new", "waits"),
    [
        ("sent", "submitting", True),
        ("sent", "unknown", False),
        ("retried", "submitting", True),
        ("retried", "unknown", True),
        ("expired", "submitting", True),
        ("expired", "unknown", True),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
async def test_a_receipt_waits_while_it_may_be_for_a_message_whose_response_is_not_known(
    database, old, new, waits, inside
):
    first = await sent(database, "1", inside=inside)
    hash_ = await hash_of(database, first)
    if old == "retried":
        failed = came("1", state=ReceiptState.UNDELIVERABLE, code="001", number_hash=hash_)
        await receive(database, failed)
    elif old == "expired":
        await expire(database, first)
    before = await status_of(database, first)
    second = await in_flight(database, first, new, at=NOW + 30 * SECOND)
    its = came("1", after=60, number_hash=hash_, sender="T")
    await receive(database, its)
    assert await status_of(database, first) == (before if waits else ["delivered"])
    if new == "submitting":
        await respond(database, second, "1" if old != "sent" else "2")
        async with database.begin() as connection:
            await match(connection, ["p"], ["1"], **HOW)
        of_both = ["delivered", "sent"] if old == "sent" else [*before, "delivered"]
        assert await status_of(database, first, second) == of_both


async def test_two_hosts_that_give_one_id_to_two_attempts_of_a_message_deliver_it(database):
    message = await sent(database, "1", inside=True)
    await expire(database, message)
    async with database.begin() as connection:
        lock(connection, [message])
        add_attempt(connection, message, 2, ["accepted"], "accepted", inside=True)
        connection.send(
            sql(
                "UPDATE attempts SET provider = 'q', provider_message_id = '1', started_at = :at"
                " WHERE number = 2"
            ),
            {"at": NOW + 30 * SECOND},
        )
        await refresh_status(connection, [message], actor="test", at=NOW)
    hash_ = await hash_of(database, message)
    its = came("1", provider="q", after=60, number_hash=hash_, sender="T")
    assert len((await receive(database, its, providers=("q", "p"))).met) == 1
    assert [each.attempt for each in await receipts_of(database, message)] == [2]
    assert await status_of(database, message) == ["delivered"]


@pytest.mark.parametrize("due", [False, True])
async def test_receipts_are_matched_without_all_others_that_wait_with_their_id(
    database, monkeypatch, due
):
    message = await sent(database, "1")
    strange = [came("1", number_hash=b"%d" % n) for n in range(600)]
    for first in range(0, 600, 200):
        await receive(database, *strange[first : first + 200])
    compared = []

    def counted(matcher, some):
        compared.append(len(some := list(some)))
        return match_all(matcher, some)

    match_all = candidates.Matcher.match
    monkeypatch.setattr(candidates.Matcher, "match", counted)
    its = came("1", number_hash=await hash_of(database, message))
    strange_too = came("1", number_hash=b"somebody else")
    if due:
        rows = await rows_of(database, sql("SELECT id FROM receipts ORDER BY id LIMIT 2"))
        async with database.begin() as connection:
            some = [row["id"] for row in rows]
            await match(connection, ["p"], ["1"], **HOW, came=some)
    else:
        await receive(database, its, strange_too)
        assert await status_of(database, message) == ["delivered"]
    assert max(compared) == 2


async def test_a_receipt_for_somebody_else_delivers_nothing(database):
    message = await sent(database, "1")
    assert (await receive(database, came("1", number_hash=b"somebody else"))).alone == ("1",)
    assert await status_of(database, message) == ["sent"]


async def test_a_receipt_of_an_id_that_thousands_have_finds_its_recipients_message(database):
    messages = [await sent(database, "1", inside=True) for _ in range(3)]
    async with database.begin() as connection:
        for _ in range(120):
            other = add_message(connection, status="sent")
            add_attempt(connection, other, 1, ["accepted"], "accepted", inside=True)
            connection.send(
                sql("UPDATE attempts SET provider_message_id = '1' WHERE message_id = :m"),
                {"m": other},
            )
    await receive(database, came("1"))
    assert (await statuses(database))["sent"] == 123, "without a recipient it may be anybody's"
    for message in messages:
        await receive(database, came("1", number_hash=await hash_of(database, message)))
    assert await status_of(database, *messages) == ["delivered"] * 3


# --- no id, other hosts, other names -------------------------------------------------------------


@pytest.mark.parametrize("reference", [0, None])
async def test_a_message_that_was_answered_without_an_id_is_found_by_its_recipient(
    database, reference
):
    message = await sent(database, None, inside=True)
    its = came(
        "7008", number_hash=await hash_of(database, message), sender="T", reference=reference
    )
    assert len((await receive(database, its)).met) == 1
    assert await status_of(database, message) == ["delivered"]
    assert (await receive(database, its)).copies == (ReceiptState.DELIVERED,)
    assert [each.copies for each in await receipts_of(database, message)] == [2]


async def test_a_receipt_without_an_id_is_for_the_only_message_that_waits_for_one(database):
    message = await sent(database, "7001", inside=True)
    its = came("", number_hash=await hash_of(database, message), sender="T")
    await receive(database, its)
    assert await status_of(database, message) == ["delivered"]


async def test_a_receipt_over_another_host_of_the_account_is_matched_within_the_group_only(
    database,
):
    message = await sent(database, "1", inside=True)
    over_another = came("1", provider="q", number_hash=await hash_of(database, message))
    assert (await receive(database, over_another, providers=("q",))).alone == ("1",)
    assert len((await receive(database, over_another, providers=("q", "p"))).met) >= 1
    assert await status_of(database, message) == ["delivered"]


@pytest.mark.parametrize("names_recipient", [True, False])
async def test_a_renamed_providers_receipts_are_matched_later_if_they_name_the_recipient(
    database, names_recipient
):
    message = await sent(database, "1", inside=True)
    number_hash = await hash_of(database, message) if names_recipient else None
    await receive(database, came("1", provider="new", number_hash=number_hash), providers=("new",))
    async with database.begin() as connection:
        assert await unmatched.providers(connection) == ["p"]
        await match(connection, ["new"], ["1"], **HOW, former=["p"])
    assert await status_of(database, message) == ["delivered" if names_recipient else "sent"]


# --- receipts that match nothing -----------------------------------------------------------------


async def match_due(database: Database, now, limit=1000):
    """What a sweep does; how many receipts were due, and those of the newest."""
    async with database.begin() as connection:
        due = await unmatched.due(connection, now, limit)
    async with database.begin() as connection:
        ids = [each.provider_message_id for each in due]
        found = await match(connection, ["p"], ids, at=now, effects=EFFECTS)
        later = [(each, next_match_at(each.received_at, each.tries + 1, now)) for each in due]
        given_up = await unmatched.put_off(connection, later)
    return due, found, given_up


async def test_thousands_of_receipts_that_match_nothing_hold_up_none_that_does(database):
    strange = [came(f"strange {n}") for n in range(1500)]
    for first in range(0, 1500, 500):
        await receive(database, *strange[first : first + 500])
    late = came("late", after=60)
    await receive(database, late)
    message = await sent(database, "late", at=NOW)
    now = first_match_at(late.received_at)
    due, found, _ = await match_due(database, now)
    assert due[0].provider_message_id == "late"
    assert len(due) == 1000
    assert len(found.met) == 1
    assert await status_of(database, message) == ["delivered"]
    due, _, _ = await match_due(database, now)
    assert len(due) == 501, "those that were tried wait, the rest is tried now"
    due, _, _ = await match_due(database, now)
    assert due == []


async def test_a_receipt_that_matches_nothing_is_tried_for_three_days_and_then_counted(database):
    await receive(database, came("nobody's"))
    now, given_up, tries = first_match_at(NOW + SECOND), Counter(), 0
    while not given_up:
        due, _, given_up = await match_due(database, now)
        tries += len(due)
        async with database.begin() as connection:
            counts = await unmatched_counts(connection, NOW)
        assert (counts["p"].waiting, counts["p"].never_matched) == ((0, 1) if given_up else (1, 0))
        rows = await rows_of(database, sql("SELECT match_at FROM receipts"))
        now = rows[0]["match_at"] or now
    assert given_up == {"p": 1}
    assert now == NOW + SECOND + timedelta(days=3)
    assert tries < 15
    assert (await match_due(database, now + timedelta(days=9)))[0] == []


# --- what receipts change ------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("groups", [[3], [1, 1, 1], [2, 1]])
async def test_the_worst_receipt_of_an_attempt_is_its_error_however_they_are_grouped(
    database, order, groups
):
    message = await sent(database, "a", "b", "c")
    states = [ReceiptState.DELIVERED, ReceiptState.REJECTED, ReceiptState.UNDELIVERABLE]
    all_three = [came("abc"[n], state=states[n]) for n in order]
    for count in groups:
        batch, all_three = all_three[:count], all_three[count:]
        await receive(database, *batch)
    (attempt,) = await rows_of(database, sql("SELECT status, error_class FROM attempts"))
    assert (attempt["status"], attempt["error_class"]) == ("undelivered", "route")
    assert await status_of(database, message) == ["retried"]


@pytest.mark.parametrize("state", [ReceiptState.ENROUTE, ReceiptState.ACCEPTED])
async def test_news_that_a_message_is_on_its_way_extends_its_deadline_by_one_deadline(
    database, state
):
    await sent(database, "1", inside=True)
    await rows_of(
        database, sql("UPDATE attempts SET receipt_by = started_at + interval '30 minutes'")
    )
    for minute in (10, 20, 30):
        done_at = NOW + minute * 60 * SECOND
        await receive(database, came("1", state=state, after=minute * 60, done_at=done_at))
        (attempt,) = await rows_of(database, sql("SELECT receipt_by FROM attempts"))
        assert attempt["receipt_by"] == done_at + timedelta(minutes=30)


@pytest.mark.parametrize("grouped", [True, False])
async def test_news_never_hides_an_end_that_came_before_it(database, grouped):
    await sent(database, "1", inside=True)
    both = [came("1", state=ReceiptState.EXPIRED), came("1", state=ReceiptState.ENROUTE, after=2)]
    for batch in [both] if grouped else [[each] for each in both]:
        await receive(database, *batch)
    (attempt,) = await rows_of(database, sql("SELECT status, receipt_state FROM attempts"))
    assert (attempt["status"], attempt["receipt_state"]) == ("undelivered", "expired")


async def test_what_a_process_of_the_version_before_has_stored_is_matched(database):
    message = await sent(database, "1", inside=True)
    its = replace(came("1"), number_hash=await hash_of(database, message))
    await rows_of(
        database,
        sql(
            "INSERT INTO receipts (day, provider, provider_message_id, state, code, number_hash,"
            " received_at, match_at) VALUES (:day, 'p', '1', 'delivered', '000', :hash, :at, :at)"
        ),
        {"day": its.day, "hash": its.number_hash, "at": its.received_at},
    )
    await match_due(database, its.received_at)
    assert await status_of(database, message) == ["delivered"]

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from domain.callbacks.events import CallbackState
from domain.callbacks.retries import Trouble
from domain.callbacks.signatures import sign
from domain.configuration import Environment
from domain.outbox import Transport
from domain.states import MessageStatus, Verdict
from store import callbacks, messages
from store.callbacks import TakenLane, TriedCallbacks
from store.database import Database
from store.transitions import refresh_status
from tests.outbox import ACCOUNT, NUMBER, SECRET, Outbox, ids_of

pytestmark = pytest.mark.stack

URL = "https://hooks.example.com/sms"
SENT, DELIVERED, FAILED = MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.FAILED
NOW = datetime.now(UTC)
LATER = NOW + timedelta(minutes=5)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database.connect(database_url, pool_size=4)
    yield database
    await database.close()


@pytest.fixture
async def outbox(database: Database) -> Outbox:
    outbox = Outbox(database, NOW)  # the tests may run long after this module was imported
    await outbox.account()
    return outbox


async def due_in(database: Database, lane: UUID, at: datetime = NOW, **options):
    async with database.begin() as connection:
        due = await callbacks.due(connection, lane, at, **{"limit": 100, **options})
    return [[callback.event.id for callback in of_message] for of_message in due]


async def all_due_in(database: Database, lane: UUID, at: datetime = NOW):
    async with database.begin() as connection:
        due = await callbacks.due(connection, lane, at, limit=100)
    return [callback for of_message in due for callback in of_message]


async def next_in(database: Database, lane: UUID, at: datetime = NOW):
    async with database.begin() as connection:
        return await callbacks.next_due(connection, lane, at)


def tried(callback_id: UUID, state=CallbackState.DELIVERED, *, before=0, next_at=NOW, **rest):
    values = {"status": 204, "trouble": None, "at": NOW, **rest}
    return TriedCallbacks([callback_id], before, state, next_at, **values)


async def record(database: Database, *outcomes: TriedCallbacks):
    async with database.begin() as connection:
        callbacks.record(connection, outcomes)


# --- lanes -------------------------------------------------------------------------------------


async def test_an_account_has_one_lane_for_each_origin(outbox):
    await outbox.account("other")
    lane = await outbox.lane(URL)
    assert await outbox.lane("https://hooks.example.com:443/elsewhere") == lane
    assert await outbox.lane("https://hooks.example.com:8443/") != lane
    assert await outbox.lane(URL, account="other") != lane


async def test_two_processes_that_need_a_new_lane_at_once_get_the_same_one(outbox, database):
    begun = asyncio.Event()

    async def first() -> UUID:
        async with database.begin() as connection:
            lane = await callbacks.lane(connection, ACCOUNT, "https://new.example.com")
            begun.set()
            await asyncio.sleep(0.2)
            return lane

    async def second() -> UUID:
        await begun.wait()
        async with database.begin() as connection:
            return await callbacks.lane(connection, ACCOUNT, "https://new.example.com")

    one, two = await asyncio.gather(first(), second())
    assert one == two


async def test_only_a_lane_that_nobody_looks_at_is_woken(outbox, database):
    lane = await outbox.lane(URL)
    async with database.begin() as connection:
        (woken,) = await callbacks.wake(connection, [lane, uuid7()])
        assert (woken.id, woken.account_id) == (lane, ACCOUNT)
        assert await callbacks.wake(connection, [lane]) == []
        callbacks.leave(connection, lane)
        assert [again.id for again in await callbacks.wake(connection, [lane])] == [lane]


async def test_taking_a_lane_returns_its_account_and_transport(outbox, database):
    lane = await outbox.lane(URL)
    async with database.begin() as connection:
        assert await callbacks.take(connection, lane) == TakenLane(ACCOUNT, Transport.WEBHOOK)
        assert await callbacks.wake(connection, [lane]) == []
        assert await callbacks.take(connection, uuid7()) is None


async def test_each_environment_of_an_account_has_a_secret_of_its_own(outbox, database):
    async with database.begin() as connection:
        assert await callbacks.secret(connection, ACCOUNT, Environment.LIVE) == SECRET
        assert await callbacks.secret(connection, "nobody", Environment.LIVE) is None
        of_test = await callbacks.secret(connection, ACCOUNT, Environment.TEST)
    assert of_test is not None
    assert of_test != SECRET
    sign(of_test, "", 0, b"")
    await outbox.account("other")
    async with database.begin() as connection:
        assert await callbacks.secret(connection, "other", Environment.TEST) != of_test


# --- what is due -------------------------------------------------------------------------------


async def test_the_callback_of_a_transition_is_due_with_all_that_its_delivery_needs(
    outbox, database
):
    message = await outbox.message(URL)
    async with database.begin() as connection:
        messages.set_verdict(connection, message, 1, Verdict.FAILED, "no_route")
        (transition,) = await refresh_status(connection, [message], actor="test", at=NOW)
    lane = await outbox.lane(URL)
    assert transition.callback_lane_id == lane
    (callback,) = await all_due_in(database, lane)
    assert (callback.target, callback.tries) == (URL, 0)
    event = callback.event
    assert (event.kind, event.subject_id, event.status) == ("message.status", message, FAILED)
    assert event.occurred_at == NOW
    async with database.begin() as connection:
        assert await messages.numbers(connection, [message]) == {message: NUMBER}


async def test_callbacks_of_a_message_are_due_together_in_the_order_of_its_moves(outbox, database):
    message, other = await outbox.message(URL), await outbox.message(URL)
    first, second, third = await outbox.emit(message, SENT, FAILED, DELIVERED)
    (alone,) = await outbox.emit(other, SENT)
    lane = await outbox.lane(URL)
    assert await due_in(database, lane) == [[first, second, third], [alone]]
    await record(database, tried(first))
    assert await due_in(database, lane) == [[second, third], [alone]]


async def test_a_later_callback_that_waits_for_its_time_is_not_due_with_its_message(
    outbox, database
):
    first, second, third = await outbox.emit(await outbox.message(URL), SENT, FAILED, DELIVERED)
    lane = await outbox.lane(URL)
    await record(database, tried(second, CallbackState.PENDING, next_at=LATER))
    assert await due_in(database, lane) == [[first]]
    await record(database, tried(first))
    assert await due_in(database, lane) == []
    assert await due_in(database, lane, LATER) == [[second, third]]


async def test_what_follows_a_callback_that_is_under_way_is_not_due(outbox, database):
    first, second, third = await outbox.emit(await outbox.message(URL), SENT, FAILED, DELIVERED)
    lane = await outbox.lane(URL)
    assert await due_in(database, lane, under_way=[first]) == []
    # One that was delivered long ago, and is replayed while its successor is under way.
    assert await due_in(database, lane, under_way=[second, third]) == [[first]]


async def test_a_look_goes_on_where_the_one_before_has_ended(outbox, database):
    ids = []
    for minutes in (3, 2, 1):
        at = NOW - timedelta(minutes=minutes)
        ids += await outbox.emit(await outbox.message(URL), SENT, at=at)
    lane = await outbox.lane(URL)
    since = NOW - timedelta(minutes=2)
    assert await due_in(database, lane, since=since) == [[ids[1]], [ids[2]]]
    await record(database, tried(ids[1], CallbackState.PENDING, next_at=NOW))
    assert await due_in(database, lane, since=since) == [[ids[2]], [ids[1]]]


async def test_a_callback_that_waits_for_a_retry_holds_back_its_message_and_no_other(
    outbox, database
):
    stuck, free = await outbox.message(URL), await outbox.message(URL)
    first, second = await outbox.emit(stuck, SENT, DELIVERED)
    (other,) = await outbox.emit(free, SENT)
    lane = await outbox.lane(URL)
    await record(
        database, tried(first, CallbackState.PENDING, next_at=LATER, trouble=Trouble.TIMEOUT)
    )
    assert await due_in(database, lane) == [[other]]
    await record(database, tried(other))
    assert await due_in(database, lane) == []
    assert await next_in(database, lane) == LATER
    assert await due_in(database, lane, LATER) == [[first, second]]
    await record(database, tried(first, CallbackState.FAILED, before=1))
    assert await due_in(database, lane) == [[second]]


async def test_what_was_never_tried_is_due_whatever_the_clocks_say(outbox, database):
    (callback,) = await outbox.emit(await outbox.message(URL), SENT, at=LATER)
    lane = await outbox.lane(URL)
    assert await due_in(database, lane) == [[callback]]
    assert await next_in(database, lane) == NOW


async def test_what_is_due_longest_comes_first_and_what_is_under_way_is_left_out(outbox, database):
    ids = []
    for minutes in (3, 1, 2):
        message = await outbox.message(URL)
        ids += await outbox.emit(message, SENT, at=NOW - timedelta(minutes=minutes))
    lane = await outbox.lane(URL)
    assert await due_in(database, lane) == [[ids[0]], [ids[2]], [ids[1]]]
    assert await due_in(database, lane, limit=1, under_way=[ids[0]]) == [[ids[2]]]


async def test_what_waits_behind_another_waits_for_its_time_and_goes_with_it(outbox, database):
    message = await outbox.message(URL)
    lane = await outbox.lane(URL)
    (first,) = await outbox.emit(message, SENT, at=NOW)
    await record(database, tried(first, CallbackState.PENDING, next_at=LATER))
    (second,) = await outbox.emit(message, DELIVERED, at=NOW)
    (other,) = await outbox.emit(await outbox.message(URL), SENT, at=NOW)
    async with database.begin() as connection:
        callbacks.put_back(connection, lane, NOW)
    assert (await outbox.callback(second))["next_at"] == LATER
    assert (await outbox.callback(other))["next_at"] == NOW
    assert await due_in(database, lane) == [[other]]
    await record(database, tried(other))
    assert await next_in(database, lane) == LATER
    # A replay of the first one brings the other one with it.
    await replay(database, first, at=NOW)
    assert await due_in(database, lane) == [[first, second]]
    await record(database, tried(first, before=1))
    assert await due_in(database, lane) == [[second]]


async def test_a_lane_knows_nothing_of_others(outbox, database):
    await outbox.emit(await outbox.message(URL), SENT)
    other = await outbox.lane("https://other.example.com/")
    assert await due_in(database, other) == []
    assert await next_in(database, other) is None


async def test_an_event_is_not_behind_those_of_its_message_in_another_lane(outbox, database):
    message = await outbox.message(URL, listener="escalation/7")
    await outbox.emit(message, SENT)
    async with database.begin() as connection:
        messages.set_verdict(connection, message, 1, Verdict.FAILED, "no_route")
        await refresh_status(connection, [message], actor="test", at=NOW)
        listeners = await callbacks.listener_lane(connection, ACCOUNT)
    (report,) = await all_due_in(database, listeners)
    assert (report.event.kind, report.target) == ("message.report", "escalation/7")
    assert len(await all_due_in(database, await outbox.lane(URL))) == 2


async def test_the_number_of_a_message_is_not_found_once_it_is_erased(outbox, database):
    message = await outbox.message(URL)
    await outbox.erase_number()
    async with database.begin() as connection:
        assert await messages.numbers(connection, [message]) == {}


# --- what came of tries ------------------------------------------------------------------------


async def test_what_came_of_a_try_is_stored(outbox, database):
    first, second = [(await outbox.emit(await outbox.message(URL), SENT))[0] for _ in range(2)]
    await record(
        database,
        tried(first),
        tried(
            second,
            CallbackState.PENDING,
            next_at=LATER,
            status=None,
            trouble=Trouble.UNREACHABLE,
        ),
    )
    done, waiting = await outbox.callback(first), await outbox.callback(second)
    assert (done["state"], done["tries"], done["last_status"]) == ("delivered", 1, 204)
    assert (done["responded_at"], done["last_error"]) == (NOW, None)
    assert (waiting["state"], waiting["tries"], waiting["next_at"]) == ("pending", 1, LATER)
    assert (waiting["responded_at"], waiting["last_status"]) == (None, None)
    assert waiting["last_error"] == "unreachable"


async def test_a_worker_that_comes_back_from_the_dead_overwrites_nothing(outbox, database):
    (callback,) = await outbox.emit(await outbox.message(URL), SENT)
    once = tried(callback, CallbackState.PENDING, next_at=LATER, trouble=Trouble.TIMEOUT)
    await record(database, once)
    await record(database, tried(callback, CallbackState.FAILED))
    assert (await outbox.callback(callback))["state"] == "pending"
    await record(database, tried(callback, before=1))
    await record(database, tried(callback, CallbackState.FAILED, before=2))
    stored = await outbox.callback(callback)
    assert (stored["state"], stored["tries"]) == ("delivered", 2)


# --- the sweep ---------------------------------------------------------------------------------


async def test_lanes_with_callbacks_long_due_are_overdue_active_or_not(outbox, database):
    for host in ("a", "b", "c"):
        message = await outbox.message(f"https://{host}.example.com/")
        await outbox.emit(message, SENT, at=NOW - timedelta(seconds=10 if host == "c" else 20))
    lane_a = await outbox.lane("https://a.example.com/")
    lane_b = await outbox.lane("https://b.example.com/")
    async with database.begin() as connection:
        await callbacks.take(connection, lane_a)
        overdue = await callbacks.overdue(connection, NOW, by=timedelta(seconds=15))
    assert {lane.id for lane in overdue} == {lane_a, lane_b}
    assert {lane.account_id for lane in overdue} == {ACCOUNT}


async def test_a_callback_that_waits_behind_another_is_not_overdue(outbox, database):
    first, _ = await outbox.emit(
        await outbox.message(URL), SENT, DELIVERED, at=NOW - timedelta(seconds=20)
    )
    waiting = tried(first, CallbackState.PENDING, next_at=LATER, trouble=Trouble.TIMEOUT)
    await record(database, waiting)
    async with database.begin() as connection:
        assert await callbacks.overdue(connection, NOW, by=timedelta(seconds=15)) == []


# --- lists and replays -------------------------------------------------------------------------


async def page(database: Database, **options):
    wanted = {
        "account_id": ACCOUNT,
        "environment": "live",
        "state": None,
        "message_id": None,
        "before": None,
        "limit": 50,
        **options,
    }
    async with database.begin() as connection:
        return await callbacks.page(connection, **wanted)


async def test_callbacks_are_listed_newest_first_page_by_page(outbox, database):
    ids = await outbox.emit(await outbox.message(URL), SENT, FAILED, DELIVERED)
    first = ids_of(await page(database, limit=2))
    assert first == [ids[2], ids[1]]
    assert ids_of(await page(database, limit=2, before=first[-1])) == [ids[0]]


async def test_callbacks_are_listed_by_state_and_message(outbox, database):
    message = await outbox.message(URL)
    sent, delivered = await outbox.emit(message, SENT, DELIVERED)
    await outbox.emit(await outbox.message(URL), SENT)
    await record(database, tried(sent))
    assert ids_of(await page(database, message_id=message)) == [delivered, sent]
    assert ids_of(await page(database, state=CallbackState.DELIVERED)) == [sent]
    async with database.begin() as connection:
        assert ids_of(await callbacks.of_message(connection, message)) == [sent, delivered]


async def test_nothing_is_seen_or_replayed_across_accounts_and_environments(outbox, database):
    (callback,) = await outbox.emit(await outbox.message(URL), SENT)
    for account, environment in ((ACCOUNT, "test"), ("other", "live")):
        assert await page(database, account_id=account, environment=environment) == []
        key = {"account_id": account, "environment": environment, "at": NOW}
        async with database.begin() as connection:
            assert await callbacks.replay(connection, callback, **key) is None
            replayed = await callbacks.replay_many(
                connection, state=CallbackState.PENDING, limit=10, **key
            )
            assert replayed == []


async def replay(database: Database, callback_id: UUID, at: datetime = LATER):
    async with database.begin() as connection:
        return await callbacks.replay(
            connection, callback_id, account_id=ACCOUNT, environment="live", at=at
        )


@pytest.mark.parametrize("state", [CallbackState.DELIVERED, CallbackState.FAILED])
async def test_a_callback_that_ended_begins_its_schedule_anew(outbox, database, state):
    (callback,) = await outbox.emit(await outbox.message(URL), SENT)
    await record(database, tried(callback, state))
    lane = await outbox.lane(URL)
    replayed = await replay(database, callback)
    assert (replayed.lane_id, replayed.state) == (lane, "pending")
    (again,) = await all_due_in(database, lane, LATER)
    assert (again.event.id, again.tries) == (callback, 0)


async def test_a_callback_that_waits_is_tried_at_once_and_keeps_its_count(outbox, database):
    (callback,) = await outbox.emit(await outbox.message(URL), SENT)
    waiting = tried(callback, CallbackState.PENDING, next_at=LATER, trouble=Trouble.TIMEOUT)
    await record(database, waiting)
    lane = await outbox.lane(URL)
    assert await due_in(database, lane) == []
    await replay(database, callback, at=NOW)
    (again,) = await all_due_in(database, lane)
    assert again.tries == 1


async def test_a_callback_that_is_replayed_while_it_is_tried_is_still_recorded(outbox, database):
    (callback,) = await outbox.emit(await outbox.message(URL), SENT)
    await replay(database, callback)
    await record(database, tried(callback))
    assert (await outbox.callback(callback))["state"] == "delivered"


async def test_many_are_replayed_the_oldest_first(outbox, database):
    ids = []
    for _ in range(3):
        ids += await outbox.emit(await outbox.message(URL), SENT)
    await record(database, *(tried(callback, CallbackState.FAILED) for callback in ids))
    async with database.begin() as connection:
        lanes = await callbacks.replay_many(
            connection,
            account_id=ACCOUNT,
            environment="live",
            state=CallbackState.FAILED,
            limit=2,
            at=LATER,
        )
    lane = await outbox.lane(URL)
    assert lanes == [lane, lane]
    due = await due_in(database, lane, LATER)
    assert {callback for of_message in due for callback in of_message} == set(ids[:2])

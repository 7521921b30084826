import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from temporalio.client import Client
from uuid_utils.compat import uuid7

from connectors.webhooks import Webhooks
from domain.callbacks import CallbackState, secret_of
from domain.configuration import AccountPolicy, CallbackPolicy, Configuration, Environment
from domain.states import MessageStatus
from local.processes import free_port
from services.callbacks import AT_ONCE, Callbacks, LaneDrain, TemporalLanes, UnusableSecret
from settings.secrets import SecretMissing
from store import callbacks as store
from store.database import Database
from tests.fakes.callback_receiver import CallbackReceiver, Reply, is_signed_with
from tests.outbox import ACCOUNT, NUMBER, SECRET, Outbox, ids_of, public

pytestmark = pytest.mark.stack

LIVE = Environment.LIVE
SENT, DELIVERED, FAILED = MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.FAILED


def declared(
    *delays: float, secret: str | None = None, private: bool = True, events: int = 1
) -> Configuration:
    """A configuration whose retries wait for so many seconds."""
    return Configuration(
        providers={},
        routes=(),
        accounts={
            ACCOUNT: AccountPolicy(callback_secret=secret, callback_events_per_request=events)
        },
        callbacks=CallbackPolicy(
            allow_private_addresses=private,
            retry_delays=tuple(timedelta(seconds=delay) for delay in delays),
            timeout=timedelta(seconds=5),
        ),
    )


class Lanes:
    """Remembers which lanes were started; `away` is Temporal that does not answer."""

    def __init__(self) -> None:
        self.started: list[UUID] = []
        self.away = False

    async def start(self, lane_id: UUID, account_id: str) -> bool:
        assert account_id == ACCOUNT
        if not self.away:
            self.started.append(lane_id)
        return not self.away


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database.connect(database_url, pool_size=4)
    yield database
    await database.close()


@pytest.fixture
async def outbox(database: Database) -> Outbox:
    outbox = Outbox(database)
    await outbox.account()
    return outbox


@pytest.fixture
async def receiver() -> AsyncIterator[CallbackReceiver]:
    async with CallbackReceiver() as receiver:
        yield receiver


class Drains:
    """Drains lanes under a configuration that the test may change, at a time that it may move."""

    def __init__(self, database: Database, webhooks: Webhooks) -> None:
        self._drain = LaneDrain(database, webhooks, lambda: self.configuration)
        self.configuration = declared(60.0)
        self.stopping = False
        self.beats = 0

    async def __call__(self, lane_id: UUID, *, later: float = 0.0, was_down: bool = False):
        def beat() -> None:
            self.beats += 1

        return await self._drain.drain(
            lane_id,
            now=datetime.now(UTC) + timedelta(seconds=later),
            beat=beat,
            stopping=lambda: self.stopping,
            was_down=was_down,
        )


@pytest.fixture
async def drain(database: Database) -> AsyncIterator[Drains]:
    def private() -> bool:
        return drains.configuration.callbacks.allow_private_addresses

    async with Webhooks(allow_private=private) as webhooks:
        drains = Drains(database, webhooks)
        yield drains


# --- delivering --------------------------------------------------------------------------------


async def test_everything_due_is_delivered_signed_and_in_order_for_each_message(
    outbox, receiver, drain
):
    told = [SENT, FAILED, DELIVERED]
    ids = [await outbox.message(receiver.url()) for _ in range(20)]
    for message in ids:
        await outbox.tell(message, *told)
    lane = await outbox.lane(receiver.url())
    result = await drain(lane)
    assert (result.next_at, result.delivered, result.failed) == (None, 60, 0)
    for message in ids:
        assert receiver.statuses_of(public(message)) == [status.upper() for status in told]
    assert all(is_signed_with(SECRET, request) for request in receiver.requests)
    assert {request.content["to"] for request in receiver.requests} == {NUMBER}
    assert await outbox.states(lane) == {"delivered": 60}
    assert not await outbox.active(lane)


async def test_several_messages_go_at_once_over_kept_connections(outbox, receiver, drain):
    receiver.always_answers(Reply(delay=0.05))
    for _ in range(3 * AT_ONCE):
        await outbox.tell(await outbox.message(receiver.url()), SENT)
    await drain(await outbox.lane(receiver.url()))
    assert len(receiver.requests) == 3 * AT_ONCE
    assert receiver.most_at_once == AT_ONCE
    assert receiver.connections == AT_ONCE


async def test_a_failed_try_is_repeated_when_its_time_has_come(outbox, receiver, drain):
    drain.configuration = declared(60.0, 600.0)
    receiver.will_answer(500, 503, 204)
    (callback,) = await outbox.tell(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    began = datetime.now(UTC)

    first = await drain(lane)
    assert first.next_at is not None
    assert 60 <= (first.next_at - began).total_seconds() < 65
    assert (first.delivered, first.failed, first.failing) == (0, 1, False)
    stored = await outbox.callback(callback)
    assert (stored["state"], stored["tries"], stored["last_status"]) == ("pending", 1, 500)
    assert stored["last_error"] == "refused"
    assert not await outbox.active(lane)

    assert (await drain(lane)).next_at == first.next_at
    assert len(receiver.requests) == 1

    second = await drain(lane, later=70)
    assert second.next_at is not None
    assert 670 <= (second.next_at - began).total_seconds() < 680

    third = await drain(lane, later=700)
    assert (third.next_at, third.delivered) == (None, 1)
    ids = {request.webhook_id for request in receiver.requests}
    times = [int(request.headers["webhook-timestamp"]) for request in receiver.requests]
    assert len(ids) == 1
    assert times == sorted(set(times))


async def test_a_receiver_that_wants_no_more_is_not_asked_again(outbox, receiver, drain):
    receiver.will_answer(410)
    first, second = await outbox.tell(await outbox.message(receiver.url()), SENT, DELIVERED)
    result = await drain(await outbox.lane(receiver.url()))
    assert result.next_at is None
    assert (await outbox.callback(first))["state"] == "failed"
    assert (await outbox.callback(first))["last_error"] == "gone"
    assert (await outbox.callback(second))["state"] == "delivered"


async def test_the_last_try_ends_in_failure_and_lets_the_next_callback_go(outbox, receiver, drain):
    drain.configuration = declared()
    receiver.will_answer(404)
    first, second = await outbox.tell(await outbox.message(receiver.url()), SENT, DELIVERED)
    await drain(await outbox.lane(receiver.url()))
    assert (await outbox.callback(first))["state"] == "failed"
    assert (await outbox.callback(second))["state"] == "delivered"


async def test_a_slow_answer_holds_up_its_message_only_even_what_is_told_meanwhile(
    outbox, receiver, drain
):
    receiver.always_answers(Reply(delay=3.0), path="/slow")
    slow = await outbox.message(receiver.url("/slow"))
    await outbox.tell(slow, SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())
    draining = asyncio.create_task(drain(lane))
    await receiver.received(1)
    quick = await outbox.message(receiver.url("/quick"))
    await outbox.tell(quick, SENT, DELIVERED)
    await receiver.received(3, within=2.5)
    assert receiver.statuses_of(public(quick)) == ["SENT", "DELIVERED"]
    assert receiver.statuses_of(public(slow)) == ["SENT"]
    drain.stopping = True
    await draining
    assert drain.beats >= 3


async def test_an_origin_that_is_down_is_left_alone_after_some_tries(outbox, receiver, drain):
    await receiver.stop()
    for _ in range(4 * AT_ONCE):
        await outbox.tell(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    result = await drain(lane)
    assert result.failing
    assert AT_ONCE <= result.failed <= 2 * AT_ONCE
    assert await outbox.active(lane)
    await receiver.start()
    again = await drain(lane)
    assert not again.failing
    assert again.delivered == 4 * AT_ONCE - result.failed


async def test_callbacks_that_are_not_wanted_do_not_make_an_origin_look_down(
    outbox, receiver, drain
):
    receiver.always_answers(404)
    for _ in range(2 * AT_ONCE):
        await outbox.tell(await outbox.message(receiver.url()), SENT)
    result = await drain(await outbox.lane(receiver.url()))
    assert (result.failed, result.failing) == (2 * AT_ONCE, False)


async def test_a_lane_that_is_unknown_holds_nothing(drain):
    assert (await drain(uuid7())).next_at is None


async def test_where_private_networks_are_not_allowed_nothing_goes_there(outbox, receiver, drain):
    drain.configuration = declared(60.0, private=False)
    (callback,) = await outbox.tell(await outbox.message(receiver.url()), SENT)
    await drain(await outbox.lane(receiver.url()))
    stored = await outbox.callback(callback)
    assert (stored["state"], stored["last_error"]) == ("pending", "address_refused")
    assert receiver.connections == 0


async def test_the_number_is_read_at_delivery_and_gone_once_it_is_erased(outbox, receiver, drain):
    await outbox.tell(await outbox.message(receiver.url()), SENT)
    await outbox.erase_number()
    await drain(await outbox.lane(receiver.url()))
    assert receiver.requests[0].content["to"] is None


async def test_a_configured_secret_signs_instead_of_the_accounts_own(
    outbox, receiver, drain, monkeypatch
):
    configured = secret_of(b"another key, this one of 32 byte")
    monkeypatch.setenv("ACME_SECRET", configured)
    drain.configuration = declared(secret="env:ACME_SECRET")
    await outbox.tell(await outbox.message(receiver.url()), SENT)
    await drain(await outbox.lane(receiver.url()))
    assert is_signed_with(configured, receiver.requests[0])
    assert not is_signed_with(SECRET, receiver.requests[0])


async def test_nothing_is_sent_or_counted_as_a_try_while_the_secret_is_missing(
    outbox, receiver, drain, monkeypatch
):
    drain.configuration = declared(secret="env:ACME_SECRET")
    (callback,) = await outbox.tell(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    with pytest.raises(SecretMissing, match="ACME_SECRET"):
        await drain(lane)
    monkeypatch.setenv("ACME_SECRET", "swordfish")
    with pytest.raises(UnusableSecret, match=ACCOUNT) as refused:
        await drain(lane)
    assert "swordfish" not in str(refused.value)
    assert receiver.connections == 0
    assert (await outbox.callback(callback))["tries"] == 0


async def test_a_process_that_ends_begins_nothing_new(outbox, receiver, drain):
    drain.stopping = True
    await outbox.tell(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    result = await drain(lane)
    assert result.next_at is not None
    assert result.next_at <= datetime.now(UTC)
    assert receiver.requests == []
    assert await outbox.active(lane)


async def test_a_slice_that_is_cut_off_leaves_its_callback_to_the_next(outbox, receiver, drain):
    receiver.will_answer(Reply(delay=30))
    (callback,) = await outbox.tell(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    draining = asyncio.create_task(drain(lane))
    await receiver.received(1)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert (await outbox.callback(callback))["tries"] == 0
    assert (await drain(lane)).delivered == 1
    assert len({request.webhook_id for request in receiver.requests}) == 1


async def test_what_is_told_while_a_lane_is_being_left_is_found_or_wakes_it(
    outbox, database, receiver, drain, monkeypatch
):
    lane = await outbox.lane(receiver.url())
    leave, next_due = LaneDrain._leave, store.next_due
    woken: list[UUID] = []

    async def tell() -> None:
        await outbox.tell(await outbox.message(receiver.url()), SENT)
        async with database.begin() as connection:
            woken.extend(found.id for found in await store.wake(connection, [lane]))

    async def told_before_the_mark_goes(self, lane_id, now):
        monkeypatch.setattr(LaneDrain, "_leave", leave)
        await tell()
        return await leave(self, lane_id, now)

    async def told_after_the_look(connection, lane_id, at):
        monkeypatch.setattr(store, "next_due", next_due)
        found = await next_due(connection, lane_id, at)
        await tell()
        return found

    monkeypatch.setattr(LaneDrain, "_leave", told_before_the_mark_goes)
    assert (await drain(lane)).delivered == 1
    assert woken == []

    monkeypatch.setattr(store, "next_due", told_after_the_look)
    assert (await drain(lane)).delivered == 0
    assert woken == [lane]


# --- many events in a request ------------------------------------------------------------------


async def told(outbox: Outbox, url: str, messages: int, *statuses: MessageStatus) -> list[UUID]:
    """Messages of which so much is to be told; their ids."""
    ids = [await outbox.message(url) for _ in range(messages)]
    for message in ids:
        await outbox.tell(message, *statuses or (SENT,))
    return ids


async def test_where_an_account_prefers_it_many_events_travel_in_one_request(
    outbox, receiver, drain
):
    drain.configuration = declared(events=10)
    messages = await told(outbox, receiver.url(), 25)
    lane = await outbox.lane(receiver.url())
    result = await drain(lane)
    assert (result.delivered, result.failed) == (25, 0)
    sizes = sorted(len(request.content["events"]) for request in receiver.requests)
    assert sizes == [5, 10, 10]
    assert all(is_signed_with(SECRET, request) for request in receiver.requests)
    events = [event for request in receiver.requests for event in request.events]
    assert {event["message_id"] for event in events} == {public(message) for message in messages}
    assert {event["to"] for event in events} == {NUMBER}
    assert len({event["id"] for event in events}) == 25
    assert len({request.webhook_id for request in receiver.requests}) == 3
    assert await outbox.states(lane) == {"delivered": 25}


async def test_a_lone_event_comes_at_once_and_as_a_list_too(outbox, receiver, drain):
    drain.configuration = declared(events=100)
    (callback,) = await outbox.tell(await outbox.message(receiver.url()), SENT)
    began = asyncio.get_running_loop().time()
    await drain(await outbox.lane(receiver.url()))
    (request,) = receiver.requests
    assert [event["id"] for event in request.content["events"]] == [f"cb_{callback.hex}"]
    assert request.began - began < 0.5


@pytest.mark.parametrize("events", [2, 3, 5, 100])
async def test_no_event_overtakes_an_earlier_one_of_its_message(outbox, receiver, drain, events):
    drain.configuration = declared(events=events)
    receiver.always_answers(Reply(delay=0.02))
    messages = await told(outbox, receiver.url(), 30, SENT, FAILED, DELIVERED)
    await drain(await outbox.lane(receiver.url()))
    assert max(len(request.events) for request in receiver.requests) == min(events, 90)
    for message in messages:
        assert receiver.statuses_of(public(message)) == ["SENT", "FAILED", "DELIVERED"]


async def test_an_event_waits_while_an_earlier_one_of_its_message_is_on_its_way(
    outbox, receiver, drain
):
    drain.configuration = declared(events=2)
    receiver.will_answer(Reply(delay=0.5))
    (message,) = await told(outbox, receiver.url(), 1, SENT, FAILED, DELIVERED)
    draining = asyncio.create_task(drain(await outbox.lane(receiver.url())))
    await receiver.received(1)
    await asyncio.sleep(0.3)
    assert receiver.statuses_of(public(message)) == ["SENT", "FAILED"]
    await draining
    assert receiver.statuses_of(public(message)) == ["SENT", "FAILED", "DELIVERED"]


@pytest.mark.parametrize("events", [1, 2])
async def test_what_was_read_with_a_failed_event_of_its_message_waits_with_it(
    outbox, receiver, drain, events
):
    drain.configuration = declared(60.0, events=events)
    receiver.will_answer(500)
    (message,) = await told(outbox, receiver.url(), 1, SENT, FAILED, DELIVERED)
    lane = await outbox.lane(receiver.url())
    assert (await drain(lane)).delivered == 0
    assert len(receiver.requests) == 1
    assert (await drain(lane, later=70)).delivered == 3
    statuses = ["SENT", "FAILED", "DELIVERED"]
    assert receiver.statuses_of(public(message)) == statuses[:events] + statuses


async def test_only_events_for_the_same_url_travel_together(outbox, receiver, drain):
    drain.configuration = declared(events=100)
    for number in range(12):
        await told(outbox, receiver.url("/even" if number % 2 == 0 else "/odd"), 1)
    await drain(await outbox.lane(receiver.url()))
    assert sorted(len(request.events) for request in receiver.requests) == [6, 6]
    assert {request.path for request in receiver.requests} == {"/even", "/odd"}


async def test_a_batch_that_failed_counts_as_a_try_of_each_and_is_repeated_under_its_id(
    outbox, receiver, drain
):
    drain.configuration = declared(60.0, 600.0, events=100)
    receiver.will_answer(500)
    (message,) = await told(outbox, receiver.url(), 1, SENT, DELIVERED)
    await told(outbox, receiver.url(), 4)
    lane = await outbox.lane(receiver.url())
    began = datetime.now(UTC)
    first = await drain(lane)
    assert (first.delivered, first.failed) == (0, 6)
    assert first.next_at is not None
    assert 60 <= (first.next_at - began).total_seconds() < 65
    assert (await drain(lane)).next_at == first.next_at
    assert (await drain(lane, later=70)).delivered == 6
    one, two = receiver.requests
    assert (one.webhook_id, one.body) == (two.webhook_id, two.body)
    assert int(two.headers["webhook-timestamp"]) > int(one.headers["webhook-timestamp"])
    assert receiver.statuses_of(public(message)) == ["SENT", "DELIVERED"] * 2


async def test_an_event_that_comes_later_waits_behind_the_failed_batch_of_its_message(
    outbox, receiver, drain
):
    drain.configuration = declared(60.0, events=100)
    receiver.will_answer(500)
    stuck, _ = await told(outbox, receiver.url(), 2)
    lane = await outbox.lane(receiver.url())
    await drain(lane)
    await outbox.tell(stuck, DELIVERED)
    await told(outbox, receiver.url(), 1)
    assert (await drain(lane)).delivered == 1
    assert (await drain(lane, later=70)).delivered == 3
    assert receiver.statuses_of(public(stuck)) == ["SENT", "SENT", "DELIVERED"]


async def test_a_receiver_that_wants_no_batch_any_more_gets_none_of_it_again(
    outbox, receiver, drain
):
    drain.configuration = declared(60.0, events=100)
    receiver.will_answer(410)
    await told(outbox, receiver.url(), 3, SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())
    assert (await drain(lane)).next_at is None
    assert await outbox.states(lane) == {"failed": 6}
    assert len(receiver.requests) == 1


async def test_one_event_of_a_batch_is_replayed_alone_under_its_own_id(
    outbox, callbacks, receiver, drain
):
    drain.configuration = declared(events=100)
    message = await outbox.message(receiver.url())
    _, callback = await outbox.tell(message, SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())
    await drain(lane)
    await callbacks.replay(callback, ACCOUNT, LIVE, now=datetime.now(UTC))
    await drain(lane)
    together, again = receiver.requests
    assert again.events == together.events[1:]
    assert again.events[0]["id"] == f"cb_{callback.hex}"
    assert again.webhook_id != together.webhook_id


async def test_an_erased_number_is_in_no_batch(outbox, receiver, drain):
    drain.configuration = declared(events=100)
    await told(outbox, receiver.url(), 3)
    await outbox.erase_number()
    await drain(await outbox.lane(receiver.url()))
    assert {event["to"] for event in receiver.requests[0].events} == {None}


async def test_a_number_that_is_erased_while_the_receiver_is_slow_is_not_told_any_more(
    outbox, receiver, drain
):
    receiver.always_answers(Reply(delay=1.1))
    await told(outbox, receiver.url(), AT_ONCE + 4)
    draining = asyncio.create_task(drain(await outbox.lane(receiver.url())))
    await receiver.received(AT_ONCE)
    await outbox.erase_number()
    await draining
    numbers = [request.content["to"] for request in receiver.requests]
    assert numbers == [NUMBER] * AT_ONCE + [None] * 4


async def test_a_process_that_dies_between_answer_and_record_sends_the_same_again(
    outbox, receiver, drain, monkeypatch
):
    drain.configuration = declared(events=100)
    messages = await told(outbox, receiver.url(), 5, SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())

    def dies(*_: object) -> None:
        raise SystemError

    record = store.record
    monkeypatch.setattr(store, "record", dies)
    with pytest.raises(SystemError):
        await drain(lane)
    monkeypatch.setattr(store, "record", record)
    assert await outbox.states(lane) == {"pending": 10}
    assert (await drain(lane)).delivered == 10
    one, two = receiver.requests
    assert (one.webhook_id, one.body) == (two.webhook_id, two.body)
    assert receiver.statuses_of(public(messages[0])) == ["SENT", "DELIVERED"] * 2


async def test_a_preference_holds_from_the_next_request_on(outbox, receiver, drain):
    receiver.always_answers(Reply(delay=0.3))
    await told(outbox, receiver.url(), AT_ONCE + 10)
    draining = asyncio.create_task(drain(await outbox.lane(receiver.url())))
    await receiver.received(AT_ONCE)
    drain.configuration = declared(events=100)
    await draining
    sizes = [len(request.events) for request in receiver.requests]
    assert sizes == [1] * AT_ONCE + [10]
    assert ["events" in request.content for request in receiver.requests][-2:] == [False, True]


async def test_what_is_told_while_a_busy_lane_is_drained_follows_at_once(outbox, receiver, drain):
    drain.configuration = declared(events=100)
    await told(outbox, receiver.url(), 30)
    draining = asyncio.create_task(drain(await outbox.lane(receiver.url())))
    await receiver.received(1)
    await asyncio.sleep(0.3)  # everything is delivered by now
    await told(outbox, receiver.url(), 1)
    await receiver.received(2, within=0.5)
    assert (await draining).delivered == 31


async def test_an_origin_that_was_down_is_asked_once_before_everything_goes_there(
    outbox, receiver, drain
):
    await told(outbox, receiver.url(), 2 * AT_ONCE)
    lane = await outbox.lane(receiver.url())
    receiver.will_answer(503)
    first = await drain(lane, was_down=True)
    assert (first.failed, first.failing) == (1, True)
    second = await drain(lane, was_down=True)
    assert (second.delivered, second.failing) == (2 * AT_ONCE - 1, False)


# --- waking and sweeping -----------------------------------------------------------------------


@pytest.fixture
def lanes() -> Lanes:
    return Lanes()


@pytest.fixture
def callbacks(database: Database, lanes: Lanes) -> Callbacks:
    return Callbacks(database, lanes, declared)


URL = "https://hooks.example.com/"


async def test_a_lane_is_started_when_it_is_woken_and_not_again_while_it_is_looked_at(
    outbox, callbacks, lanes
):
    lane = await outbox.lane(URL)
    await callbacks.wake([lane])
    await callbacks.wake([lane, lane])
    await callbacks.wake([])
    assert lanes.started == [lane]


async def test_neither_temporal_nor_the_database_being_away_disturbs_who_wakes(
    outbox, callbacks, lanes
):
    lanes.away = True
    await callbacks.wake([await outbox.lane(URL)])
    nowhere = Database.connect(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    await Callbacks(nowhere, lanes, declared).wake([uuid7()])
    await nowhere.close()
    assert lanes.started == []


async def test_the_sweep_starts_lanes_that_were_never_started(outbox, callbacks, lanes):
    now = datetime.now(UTC)
    await outbox.tell(await outbox.message(URL), SENT, at=now - timedelta(seconds=20))
    lane = await outbox.lane(URL)
    lanes.away = True
    await callbacks.wake([lane])
    assert await callbacks.sweep(now) == 1
    lanes.away = False
    assert await callbacks.sweep(now) == 1
    assert lanes.started == [lane]


async def test_the_sweep_rouses_a_slow_lane_once_a_minute_and_leaves_others_alone(
    outbox, callbacks, lanes
):
    now = datetime.now(UTC)
    await outbox.tell(await outbox.message(URL), SENT, at=now - timedelta(seconds=20))
    fresh = "https://fresh.example.com/"
    await outbox.tell(await outbox.message(fresh), SENT, at=now)
    swept = [await callbacks.sweep(now + timedelta(seconds=s)) for s in (0, 5, 10, 61)]
    assert swept[:3] == [1, 0, 0]
    assert lanes.started.count(await outbox.lane(URL)) == 2
    assert lanes.started.count(await outbox.lane(fresh)) == 1  # it is overdue too by then


async def test_temporal_that_is_away_is_not_asked_for_every_lane(outbox, database):
    asked = 0

    class Away:
        async def start(self, lane_id: UUID, account_id: str) -> bool:
            nonlocal asked
            asked += 1
            return False

    ids = [await outbox.lane(f"https://host-{number}.example.com/") for number in range(45)]
    await Callbacks(database, Away(), declared).wake(ids)
    assert asked == 20


# --- lists, replays, secrets -------------------------------------------------------------------


async def test_the_list_goes_on_where_a_page_ends(outbox, callbacks):
    ids = await outbox.tell(await outbox.message(URL), SENT, FAILED, DELIVERED)
    first = await callbacks.page(ACCOUNT, LIVE, limit=2)
    assert ids_of(first.items) == [ids[2], ids[1]]
    last = await callbacks.page(ACCOUNT, LIVE, limit=2, before=first.next_before)
    assert ids_of(last.items) == [ids[0]]
    assert last.next_before is None


async def test_a_replay_delivers_once_more_under_the_same_id(
    outbox, callbacks, lanes, receiver, drain
):
    (callback,) = await outbox.tell(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    await drain(lane)
    replayed = await callbacks.replay(callback, ACCOUNT, LIVE, now=datetime.now(UTC))
    assert (replayed["id"], replayed["state"]) == (callback, "pending")
    assert lanes.started == [lane]
    await drain(lane)
    one, two = receiver.requests
    assert one.webhook_id == two.webhook_id
    assert await callbacks.replay(uuid7(), ACCOUNT, LIVE, now=datetime.now(UTC)) is None


async def test_all_that_failed_is_replayed_at_once(outbox, callbacks, lanes, receiver, drain):
    drain.configuration = declared()
    receiver.will_answer(500, 500)
    for _ in range(3):
        await outbox.tell(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    await drain(lane)
    replayed = await callbacks.replay_many(
        ACCOUNT, LIVE, state=CallbackState.FAILED, limit=100, now=datetime.now(UTC)
    )
    assert replayed == 2
    assert lanes.started == [lane]
    await drain(lane)
    assert await outbox.states(lane) == {"delivered": 3}


async def test_the_secret_is_the_configured_one_or_the_accounts_own(
    outbox, database, lanes, monkeypatch
):
    assert await Callbacks(database, lanes, declared).secret(ACCOUNT) == SECRET
    assert await Callbacks(database, lanes, declared).secret("nobody") is None
    monkeypatch.setenv("ACME_SECRET", "whsec_x")
    referring = Callbacks(database, lanes, lambda: declared(secret="env:ACME_SECRET"))
    assert await referring.secret(ACCOUNT) == "whsec_x"


# --- Temporal away -----------------------------------------------------------------------------


async def test_a_lane_is_not_started_while_temporal_is_away():
    async def not_connected() -> None:
        return None

    async def connected_once() -> Client:
        return await Client.connect(f"127.0.0.1:{free_port()}", lazy=True)

    assert not await TemporalLanes(not_connected).start(uuid7(), ACCOUNT)
    assert not await TemporalLanes(connected_once).start(uuid7(), ACCOUNT)

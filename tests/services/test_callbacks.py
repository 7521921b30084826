import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from temporalio.client import Client
from uuid_utils.compat import uuid7

from connectors.webhooks import Webhooks
from domain.callbacks.events import CallbackState
from domain.callbacks.signatures import secret_of
from domain.configuration import AccountPolicy, CallbackPolicy, Configuration, Environment
from domain.outbox import EventBody, OutboxEvent, Transport
from domain.secrets import AllowedSecrets
from domain.states import MessageStatus, Verdict
from local.processes import free_port
from services.callbacks.drain import LaneDrain
from services.callbacks.lanes import TemporalLanes
from services.callbacks.management import Callbacks, SecretConfigured
from services.callbacks.slice import AT_ONCE
from services.event_kinds import EVENT_KINDS, EventKind
from services.workflow_client import SignalResult
from store import callbacks as store
from store import messages
from store.database import Connection, Database
from store.transitions import refresh_status
from tests.fakes.callback_receiver import CallbackReceiver, Reply, is_signed_with
from tests.outbox import ACCOUNT, NUMBER, SECRET, Outbox, ids_of, public

pytestmark = pytest.mark.stack

LIVE = Environment.LIVE
ALLOWED = AllowedSecrets(("SMSGATEWAY_SECRET_",), ("/run/secrets",))
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


class Listeners:
    """Remembers signals; `result` is what becomes of the next ones."""

    def __init__(self) -> None:
        self.signals: list[tuple[str, str, dict[str, Any]]] = []
        self.result = SignalResult.YES

    async def signal_listener(
        self, workflow_id: str, name: str, report: Mapping[str, Any]
    ) -> SignalResult:
        self.signals.append((workflow_id, name, dict(report)))
        return self.result


async def _phones(_: Connection, events: Sequence[OutboxEvent]) -> Sequence[EventBody]:
    return [
        EventBody(event.id, f'"phone":"{event.subject_id}","status":"{event.status}"')
        for event in events
    ]


PHONE_CHANGED = EventKind(
    "phone.changed", version=3, subscribers=frozenset({Transport.WEBHOOK}), bodies=_phones
)
"""A second kind, which exists in these tests only."""
WEATHER_CHANGED = replace(PHONE_CHANGED, name="weather.changed")
"""A kind that the worker of these tests does not know."""


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
        self.listeners = Listeners()
        self._drain = LaneDrain(
            database,
            webhooks,
            lambda: self.configuration,
            self.listeners,
            kinds=EVENT_KINDS.and_also(PHONE_CHANGED),
            allowed_secrets=ALLOWED,
        )
        self.configuration = declared(60.0)
        self.stopping = False
        self.heartbeats = 0

    async def __call__(
        self,
        lane_id: UUID,
        *,
        later: float = 0.0,
        was_down: bool = False,
        was_hanging: bool = False,
    ):
        def heartbeat() -> None:
            self.heartbeats += 1

        return await self._drain.drain(
            lane_id,
            now=datetime.now(UTC) + timedelta(seconds=later),
            heartbeat=heartbeat,
            stopping=lambda: self.stopping,
            was_down=was_down,
            was_hanging=was_hanging,
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
    statuses = [SENT, FAILED, DELIVERED]
    ids = [await outbox.message(receiver.url()) for _ in range(20)]
    for message in ids:
        await outbox.emit(message, *statuses)
    lane = await outbox.lane(receiver.url())
    result = await drain(lane)
    assert (result.next_at, result.delivered, result.failed) == (None, 60, 0)
    for message in ids:
        assert receiver.statuses_of(public(message)) == [status.upper() for status in statuses]
    assert all(is_signed_with(SECRET, request) for request in receiver.requests)
    assert {request.content["to"] for request in receiver.requests} == {NUMBER}
    assert await outbox.states(lane) == {"delivered": 60}
    assert not await outbox.active(lane)


async def test_several_messages_go_at_once_over_kept_connections(outbox, receiver, drain):
    receiver.always_responds(Reply(delay=0.05))
    for _ in range(3 * AT_ONCE):
        await outbox.emit(await outbox.message(receiver.url()), SENT)
    await drain(await outbox.lane(receiver.url()))
    assert len(receiver.requests) == 3 * AT_ONCE
    assert receiver.most_at_once == AT_ONCE
    assert receiver.connections == AT_ONCE


async def test_a_failed_try_is_repeated_when_its_time_has_come(outbox, receiver, drain):
    drain.configuration = declared(60.0, 600.0)
    receiver.will_respond(500, 503, 204)
    (callback,) = await outbox.emit(await outbox.message(receiver.url()), SENT)
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
    receiver.will_respond(410)
    first, second = await outbox.emit(await outbox.message(receiver.url()), SENT, DELIVERED)
    result = await drain(await outbox.lane(receiver.url()))
    assert result.next_at is None
    assert (await outbox.callback(first))["state"] == "failed"
    assert (await outbox.callback(first))["last_error"] == "gone"
    assert (await outbox.callback(second))["state"] == "delivered"


async def test_the_last_try_ends_in_failure_and_lets_the_next_callback_go(outbox, receiver, drain):
    drain.configuration = declared()
    receiver.will_respond(404)
    first, second = await outbox.emit(await outbox.message(receiver.url()), SENT, DELIVERED)
    await drain(await outbox.lane(receiver.url()))
    assert (await outbox.callback(first))["state"] == "failed"
    assert (await outbox.callback(second))["state"] == "delivered"


async def test_a_slow_response_holds_up_its_message_only_and_not_callbacks_added_meanwhile(
    outbox, receiver, drain
):
    receiver.always_responds(Reply(delay=10.0), path="/slow")
    slow = await outbox.message(receiver.url("/slow"))
    await outbox.emit(slow, SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())
    draining = asyncio.create_task(drain(lane))
    await receiver.received(1)
    quick = await outbox.message(receiver.url("/quick"))
    await outbox.emit(quick, SENT, DELIVERED)
    await receiver.received(3, within=9)
    assert receiver.statuses_of(public(quick)) == ["SENT", "DELIVERED"]
    assert receiver.statuses_of(public(slow)) == ["SENT"]
    drain.stopping = True
    await draining
    assert drain.heartbeats >= 3


async def test_an_origin_that_is_down_is_left_alone_after_some_tries(outbox, receiver, drain):
    await receiver.stop()
    for _ in range(4 * AT_ONCE):
        await outbox.emit(await outbox.message(receiver.url()), SENT)
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
    receiver.always_responds(404)
    for _ in range(2 * AT_ONCE):
        await outbox.emit(await outbox.message(receiver.url()), SENT)
    result = await drain(await outbox.lane(receiver.url()))
    assert (result.failed, result.failing) == (2 * AT_ONCE, False)


async def test_a_lane_that_is_unknown_holds_nothing(drain):
    assert (await drain(uuid7())).next_at is None


async def test_where_private_networks_are_not_allowed_nothing_goes_there(outbox, receiver, drain):
    drain.configuration = declared(60.0, private=False)
    (callback,) = await outbox.emit(await outbox.message(receiver.url()), SENT)
    await drain(await outbox.lane(receiver.url()))
    stored = await outbox.callback(callback)
    assert (stored["state"], stored["last_error"]) == ("pending", "address_refused")
    assert receiver.connections == 0


async def test_the_number_is_read_at_delivery_and_gone_once_it_is_erased(outbox, receiver, drain):
    await outbox.emit(await outbox.message(receiver.url()), SENT)
    await outbox.erase_number()
    await drain(await outbox.lane(receiver.url()))
    assert receiver.requests[0].content["to"] is None


async def test_a_configured_secret_signs_instead_of_the_accounts_own(
    outbox, receiver, drain, monkeypatch
):
    configured = secret_of(b"another key, this one of 32 byte")
    monkeypatch.setenv("SMSGATEWAY_SECRET_ACME", configured)
    drain.configuration = declared(secret="env:SMSGATEWAY_SECRET_ACME")
    await outbox.emit(await outbox.message(receiver.url()), SENT)
    await drain(await outbox.lane(receiver.url()))
    assert is_signed_with(configured, receiver.requests[0])
    assert not is_signed_with(SECRET, receiver.requests[0])


@pytest.mark.parametrize("events", [1, 10])
async def test_callbacks_of_each_environment_are_signed_with_its_own_secret(
    database, outbox, receiver, drain, events
):
    drain.configuration = declared(events=events)
    for environment in ("live", "test", "live", "test"):
        await outbox.emit(await outbox.message(receiver.url(), environment=environment), SENT)
    await drain(await outbox.lane(receiver.url()))
    async with database.begin() as connection:
        of_test = await store.secret(connection, ACCOUNT, Environment.TEST)
    signed = [
        (is_signed_with(SECRET, request), is_signed_with(of_test, request))
        for request in receiver.requests
    ]
    half = 2 if events == 1 else 1
    assert sorted(signed) == [(False, True)] * half + [(True, False)] * half


@pytest.mark.parametrize("reference", ["env:DATABASE_URL", "file:/etc/hostname", "env:PATH"])
async def test_nothing_is_signed_with_what_the_server_does_not_allow(
    outbox, receiver, drain, monkeypatch, reference
):
    monkeypatch.setenv("DATABASE_URL", secret_of(b"another key, this one of 32 byte"))
    drain.configuration = declared(secret=reference)
    await outbox.emit(await outbox.message(receiver.url()), SENT)
    with capture_logs() as logs:
        await drain(await outbox.lane(receiver.url()))
    assert receiver.connections == 0
    (logged,) = [entry for entry in logs if entry["event"] == "callback_secret_unusable"]
    assert "SMSGATEWAY_ALLOWED_SECRET_" in str(logged["exc_info"])


@pytest.mark.parametrize("secret", [None, "swordfish"], ids=["missing", "no signing secret"])
@pytest.mark.parametrize("events", [1, 10])
async def test_callbacks_whose_secret_cannot_be_used_wait_with_that_error_and_others_go_on(
    outbox, receiver, drain, monkeypatch, secret, events
):
    if secret is not None:
        monkeypatch.setenv("SMSGATEWAY_SECRET_ACME", secret)
    drain.configuration = declared(secret="env:SMSGATEWAY_SECRET_ACME", events=events)
    waiting = await outbox.emit(await outbox.message(receiver.url()), SENT, DELIVERED)
    await outbox.emit(await outbox.message(receiver.url(), environment="test"), SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())
    before = await outbox.states(lane)
    with capture_logs() as logs:
        result = await drain(lane)
    assert result.delivered == 2, before
    assert not result.failing
    assert await outbox.states(lane) == {"delivered": 2, "pending": 2}
    first = await outbox.callback(waiting[0])
    assert (first["tries"], first["last_error"]) == (0, "secret_unusable")
    (logged,) = [entry for entry in logs if entry["event"] == "callback_secret_unusable"]
    assert (logged["account_id"], logged["environment"]) == (ACCOUNT, "live")
    assert "swordfish" not in str(logged)
    # It is not tried again at once, but when it is due again, with the secret that is there then.
    sent = len(receiver.requests)
    await drain(lane)
    assert len(receiver.requests) == sent
    monkeypatch.setenv("SMSGATEWAY_SECRET_ACME", SECRET)
    await drain(lane, later=16 * 60)
    assert await outbox.states(lane) == {"delivered": 4}
    assert (await outbox.callback(waiting[0]))["tries"] == 1


async def test_a_process_that_ends_begins_nothing_new(outbox, receiver, drain):
    drain.stopping = True
    await outbox.emit(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    result = await drain(lane)
    assert result.next_at is not None
    assert result.next_at <= datetime.now(UTC)
    assert receiver.requests == []
    assert await outbox.active(lane)


async def test_a_slice_that_is_cut_off_leaves_its_callback_to_the_next(outbox, receiver, drain):
    receiver.will_respond(Reply(delay=30))
    (callback,) = await outbox.emit(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    draining = asyncio.create_task(drain(lane))
    await receiver.received(1)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert (await outbox.callback(callback))["tries"] == 0
    assert (await drain(lane)).delivered == 1
    assert len({request.webhook_id for request in receiver.requests}) == 1


async def test_a_callback_added_while_a_lane_is_being_left_is_found_or_wakes_it(
    outbox, database, receiver, drain, monkeypatch
):
    lane = await outbox.lane(receiver.url())
    leave, next_due = LaneDrain._leave, store.next_due
    woken: list[UUID] = []

    async def emit() -> None:
        await outbox.emit(await outbox.message(receiver.url()), SENT)
        async with database.begin() as connection:
            woken.extend(found.id for found in await store.wake(connection, [lane]))

    async def emit_before_the_mark_goes(self, lane_id, now):
        monkeypatch.setattr(LaneDrain, "_leave", leave)
        await emit()
        return await leave(self, lane_id, now)

    async def emit_after_the_look(connection, lane_id, at):
        monkeypatch.setattr(store, "next_due", next_due)
        found = await next_due(connection, lane_id, at)
        await emit()
        return found

    monkeypatch.setattr(LaneDrain, "_leave", emit_before_the_mark_goes)
    assert (await drain(lane)).delivered == 1
    assert woken == []

    monkeypatch.setattr(store, "next_due", emit_after_the_look)
    assert (await drain(lane)).delivered == 0
    assert woken == [lane]


# --- other kinds -------------------------------------------------------------------------------


async def phone_changed(
    database: Database, receiver: CallbackReceiver, lane: UUID, phone: UUID, *statuses: str
) -> list[bool]:
    """Whether events of a phone were written to a lane."""
    written = []
    for status in statuses:
        event = OutboxEvent(uuid7(), PHONE_CHANGED.name, phone, status, "", datetime.now(UTC))
        async with database.begin() as connection:
            written.append(await store.add(connection, lane, receiver.url(), event, LIVE))
    return written


async def subscribed(database: Database, lane: UUID, *kinds: str) -> None:
    known = EVENT_KINDS.and_also(PHONE_CHANGED, WEATHER_CHANGED)
    async with database.begin() as connection:
        known.subscribe(connection, lane, Transport.WEBHOOK, kinds)


@pytest.mark.parametrize("kind", ["message.report", "weather.changed"])
async def test_an_endpoint_cannot_subscribe_to_what_is_not_for_it_or_unknown(
    database, outbox, receiver, kind
):
    lane = await outbox.lane(receiver.url())
    async with database.begin() as connection:
        with pytest.raises(ValueError, match=kind):
            EVENT_KINDS.subscribe(connection, lane, Transport.WEBHOOK, [kind])


@pytest.mark.parametrize("events", [1, 10])
async def test_a_second_kind_is_delivered_signed_retried_and_in_order_as_messages_are(
    database, outbox, receiver, drain, events
):
    drain.configuration = declared(60.0, events=events)
    message, phone = await outbox.message(receiver.url()), uuid7()
    lane = await outbox.lane(receiver.url())
    await subscribed(database, lane, "message.status", PHONE_CHANGED.name)
    await outbox.emit(message, SENT)
    assert await phone_changed(database, receiver, lane, phone, "on", "off", "on") == [True] * 3
    await outbox.emit(message, DELIVERED)
    failing = 2 if events == 1 else 1
    receiver.will_respond(*[500] * failing)
    assert (await drain(lane)).failed >= 2
    await drain(lane, later=70)
    assert await outbox.states(lane) == {"delivered": 5}
    assert all(is_signed_with(SECRET, request) for request in receiver.requests)
    events_received = [
        event
        for request in receiver.requests[failing:]
        for event in request.content.get("events", [request.content])
    ]
    phones = [event for event in events_received if event.get("phone") == str(phone)]
    assert [event["status"] for event in phones] == ["on", "off", "on"]
    assert {(event["type"], event["version"]) for event in phones} == {("phone.changed", 3)}
    messages = [event for event in events_received if event.get("message_id") == public(message)]
    assert [event["status"] for event in messages] == ["SENT", "DELIVERED"]
    assert not any("type" in event for event in messages)


async def test_an_endpoint_gets_no_event_of_a_kind_that_it_does_not_subscribe_to(
    database, outbox, receiver, drain
):
    message = await outbox.message(receiver.url())
    lane = await outbox.lane(receiver.url())
    assert await phone_changed(database, receiver, lane, uuid7(), "on") == [False]
    await subscribed(database, lane, PHONE_CHANGED.name)
    await moved(database, message, Verdict.CANCELED)
    assert await phone_changed(database, receiver, lane, uuid7(), "on") == [True]
    await drain(lane)
    assert [request.content["status"] for request in receiver.requests] == ["on"]


async def test_an_event_that_this_worker_does_not_know_waits_and_others_go_on(
    database, outbox, receiver, drain
):
    lane = await outbox.lane(receiver.url())
    await subscribed(database, lane, "message.status", "weather.changed")
    event = OutboxEvent(uuid7(), "weather.changed", uuid7(), "rain", "", datetime.now(UTC))
    async with database.begin() as connection:
        assert await store.add(connection, lane, receiver.url(), event, LIVE)
    await outbox.emit(await outbox.message(receiver.url()), SENT)
    with capture_logs() as logs:
        await drain(lane)
    assert await outbox.states(lane) == {"delivered": 1, "pending": 1}
    waiting = await outbox.callback(event.id)
    assert (waiting["tries"], waiting["last_error"]) == (0, "kind_unknown")
    unknown = [each["event_kind"] for each in logs if each["event"] == "event_kind_unknown"]
    assert unknown == ["weather.changed"]


# --- listeners ---------------------------------------------------------------------------------


async def test_each_final_status_of_a_message_is_signalled_once_to_its_listener(
    database, outbox, receiver, drain
):
    message = await outbox.message(receiver.url(), listener="escalation/7")
    await moved(database, message, Verdict.CANCELED)
    async with database.begin() as connection:
        lane = await store.listener_lane(connection, ACCOUNT)
    assert (await drain(lane)).delivered == 1
    assert (await drain(lane)).delivered == 0
    ((workflow, name, report),) = drain.listeners.signals
    assert (workflow, name) == ("escalation/7", "message.report")
    assert (report["message_id"], report["status"]) == (public(message), "canceled")
    assert receiver.requests == [], "callbacks have a lane of their own"


async def test_a_listener_is_signalled_again_until_temporal_takes_it(
    database, outbox, receiver, drain
):
    message = await outbox.message(receiver.url(), listener="escalation/7")
    await moved(database, message, Verdict.CANCELED)
    async with database.begin() as connection:
        lane = await store.listener_lane(connection, ACCOUNT)
    drain.configuration = declared()  # callbacks would be given up at once
    drain.listeners.result = SignalResult.TEMPORAL_AWAY
    for later in range(0, 6000, 400):
        assert (await drain(lane, later=later)).next_at is not None
    drain.listeners.result = SignalResult.YES
    assert (await drain(lane, later=6000)).delivered == 1
    assert len({report["id"] for _, _, report in drain.listeners.signals}) == 1
    assert await outbox.states(lane) == {"delivered": 1}


async def test_a_listener_that_is_gone_ends_the_delivery_with_a_log_line(
    database, outbox, receiver, drain
):
    message = await outbox.message(receiver.url(), listener="escalation/7")
    await moved(database, message, Verdict.CANCELED)
    async with database.begin() as connection:
        lane = await store.listener_lane(connection, ACCOUNT)
    drain.listeners.result = SignalResult.NOT_RUNNING
    with capture_logs() as logs:
        assert (await drain(lane)).next_at is None
    assert [each["workflow_id"] for each in logs if each["event"] == "listener_gone"] == [
        "escalation/7"
    ]
    assert await outbox.states(lane) == {"delivered": 1}


async def test_accounts_see_no_reports_among_their_callbacks(database, outbox, receiver, drain):
    message = await outbox.message(receiver.url(), listener="escalation/7")
    await moved(database, message, Verdict.CANCELED)
    async with database.begin() as connection:
        listed = await store.page(
            connection,
            account_id=ACCOUNT,
            environment="live",
            state=None,
            message_id=None,
            before=None,
            limit=10,
        )
        of_message = await store.of_message(connection, message)
    assert [row.url for row in listed] == [receiver.url()]
    assert [row.url for row in of_message] == [receiver.url()]


async def moved(database: Database, message: UUID, verdict: Verdict) -> None:
    async with database.begin() as connection:
        messages.set_verdict(connection, message, 1, verdict, verdict.value)
        await refresh_status(connection, [message], actor="test", at=datetime.now(UTC))


# --- many events in a request ------------------------------------------------------------------


async def emitted(outbox: Outbox, url: str, messages: int, *statuses: MessageStatus) -> list[UUID]:
    """New messages, each with callbacks of these statuses; their ids."""
    ids = [await outbox.message(url) for _ in range(messages)]
    for message in ids:
        await outbox.emit(message, *statuses or (SENT,))
    return ids


async def test_where_an_account_prefers_it_many_events_travel_in_one_request(
    outbox, receiver, drain
):
    drain.configuration = declared(events=10)
    messages = await emitted(outbox, receiver.url(), 25)
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
    (callback,) = await outbox.emit(await outbox.message(receiver.url()), SENT)
    began = asyncio.get_running_loop().time()
    await drain(await outbox.lane(receiver.url()))
    (request,) = receiver.requests
    assert [event["id"] for event in request.content["events"]] == [f"cb_{callback.hex}"]
    assert request.began - began < 0.5


@pytest.mark.parametrize("events", [2, 3, 5, 100])
async def test_no_event_overtakes_an_earlier_one_of_its_message(outbox, receiver, drain, events):
    drain.configuration = declared(events=events)
    receiver.always_responds(Reply(delay=0.02))
    messages = await emitted(outbox, receiver.url(), 30, SENT, FAILED, DELIVERED)
    await drain(await outbox.lane(receiver.url()))
    assert max(len(request.events) for request in receiver.requests) == min(events, 90)
    for message in messages:
        assert receiver.statuses_of(public(message)) == ["SENT", "FAILED", "DELIVERED"]


async def test_an_event_waits_while_an_earlier_one_of_its_message_is_on_its_way(
    outbox, receiver, drain
):
    drain.configuration = declared(events=2)
    receiver.will_respond(Reply(delay=0.5))
    (message,) = await emitted(outbox, receiver.url(), 1, SENT, FAILED, DELIVERED)
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
    receiver.will_respond(500)
    (message,) = await emitted(outbox, receiver.url(), 1, SENT, FAILED, DELIVERED)
    lane = await outbox.lane(receiver.url())
    assert (await drain(lane)).delivered == 0
    assert len(receiver.requests) == 1
    assert (await drain(lane, later=70)).delivered == 3
    statuses = ["SENT", "FAILED", "DELIVERED"]
    assert receiver.statuses_of(public(message)) == statuses[:events] + statuses


async def test_only_events_for_the_same_url_travel_together(outbox, receiver, drain):
    drain.configuration = declared(events=100)
    for number in range(12):
        await emitted(outbox, receiver.url("/even" if number % 2 == 0 else "/odd"), 1)
    await drain(await outbox.lane(receiver.url()))
    assert sorted(len(request.events) for request in receiver.requests) == [6, 6]
    assert {request.path for request in receiver.requests} == {"/even", "/odd"}


async def test_a_batch_that_failed_counts_as_a_try_of_each_and_is_repeated_under_its_id(
    outbox, receiver, drain
):
    drain.configuration = declared(60.0, 600.0, events=100)
    receiver.will_respond(500)
    (message,) = await emitted(outbox, receiver.url(), 1, SENT, DELIVERED)
    await emitted(outbox, receiver.url(), 4)
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
    receiver.will_respond(500)
    stuck, _ = await emitted(outbox, receiver.url(), 2)
    lane = await outbox.lane(receiver.url())
    await drain(lane)
    await outbox.emit(stuck, DELIVERED)
    await emitted(outbox, receiver.url(), 1)
    assert (await drain(lane)).delivered == 1
    assert (await drain(lane, later=70)).delivered == 3
    assert receiver.statuses_of(public(stuck)) == ["SENT", "SENT", "DELIVERED"]


async def test_a_receiver_that_wants_no_batch_any_more_gets_none_of_it_again(
    outbox, receiver, drain
):
    drain.configuration = declared(60.0, events=100)
    receiver.will_respond(410)
    await emitted(outbox, receiver.url(), 3, SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())
    assert (await drain(lane)).next_at is None
    assert await outbox.states(lane) == {"failed": 6}
    assert len(receiver.requests) == 1


async def test_one_event_of_a_batch_is_replayed_alone_under_its_own_id(
    outbox, callbacks, receiver, drain
):
    drain.configuration = declared(events=100)
    message = await outbox.message(receiver.url())
    _, callback = await outbox.emit(message, SENT, DELIVERED)
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
    await emitted(outbox, receiver.url(), 3)
    await outbox.erase_number()
    await drain(await outbox.lane(receiver.url()))
    assert {event["to"] for event in receiver.requests[0].events} == {None}


async def test_a_number_that_is_erased_while_the_receiver_is_slow_is_not_sent_any_more(
    outbox, receiver, drain
):
    receiver.will_respond(204)
    receiver.always_responds(Reply(delay=1.1))
    await emitted(outbox, receiver.url(), 1 + AT_ONCE + 4)
    draining = asyncio.create_task(drain(await outbox.lane(receiver.url())))
    await receiver.received(1 + AT_ONCE)
    await outbox.erase_number()
    await draining
    numbers = [request.content["to"] for request in receiver.requests]
    assert numbers == [NUMBER] * (1 + AT_ONCE) + [None] * 4


async def test_a_process_that_dies_between_answer_and_record_sends_the_same_again(
    outbox, receiver, drain, monkeypatch
):
    drain.configuration = declared(events=100)
    messages = await emitted(outbox, receiver.url(), 5, SENT, DELIVERED)
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
    receiver.will_respond(204)
    receiver.always_responds(Reply(delay=0.3))
    await emitted(outbox, receiver.url(), 1 + AT_ONCE + 10)
    draining = asyncio.create_task(drain(await outbox.lane(receiver.url())))
    await receiver.received(1 + AT_ONCE)
    drain.configuration = declared(events=100)
    await draining
    sizes = [len(request.events) for request in receiver.requests]
    assert sum(sizes) == 1 + AT_ONCE + 10
    assert sizes[: 1 + AT_ONCE] == [1] * (1 + AT_ONCE)
    assert ["events" in request.content for request in receiver.requests][-2:] == [False, True]


async def test_a_callback_added_while_a_busy_lane_is_drained_follows_at_once(
    outbox, receiver, drain
):
    drain.configuration = declared(events=100)
    await emitted(outbox, receiver.url(), 30)
    draining = asyncio.create_task(drain(await outbox.lane(receiver.url())))
    await receiver.received(1)
    await asyncio.sleep(0.3)  # everything is delivered by now
    await emitted(outbox, receiver.url(), 1)
    await receiver.received(2)
    assert (await draining).delivered == 31


async def test_an_origin_that_was_down_is_asked_once_before_everything_goes_there(
    outbox, receiver, drain
):
    await emitted(outbox, receiver.url(), 2 * AT_ONCE)
    lane = await outbox.lane(receiver.url())
    receiver.will_respond(503)
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
    await outbox.emit(await outbox.message(URL), SENT, at=now - timedelta(seconds=20))
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
    await outbox.emit(await outbox.message(URL), SENT, at=now - timedelta(seconds=20))
    fresh = "https://fresh.example.com/"
    await outbox.emit(await outbox.message(fresh), SENT, at=now)
    swept = [await callbacks.sweep(now + timedelta(seconds=s)) for s in (0, 5, 10, 61)]
    assert swept[:3] == [1, 0, 0]
    assert lanes.started.count(await outbox.lane(URL)) == 2
    assert lanes.started.count(await outbox.lane(fresh)) == 1  # it is overdue too by then


async def test_temporal_that_is_away_is_not_asked_for_every_lane(outbox, database):
    submission = 0

    class Away:
        async def start(self, lane_id: UUID, account_id: str) -> bool:
            nonlocal submission
            submission += 1
            return False

    ids = [await outbox.lane(f"https://host-{number}.example.com/") for number in range(45)]
    await Callbacks(database, Away(), declared).wake(ids)
    assert submission == 20


# --- lists, replays, secrets -------------------------------------------------------------------


async def test_the_list_goes_on_where_a_page_ends(outbox, callbacks):
    ids = await outbox.emit(await outbox.message(URL), SENT, FAILED, DELIVERED)
    first = await callbacks.page(ACCOUNT, LIVE, limit=2)
    assert ids_of(first.items) == [ids[2], ids[1]]
    last = await callbacks.page(ACCOUNT, LIVE, limit=2, before=first.next_before)
    assert ids_of(last.items) == [ids[0]]
    assert last.next_before is None


async def test_a_replay_delivers_once_more_under_the_same_id(
    outbox, callbacks, lanes, receiver, drain
):
    (callback,) = await outbox.emit(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    await drain(lane)
    replayed = await callbacks.replay(callback, ACCOUNT, LIVE, now=datetime.now(UTC))
    assert (replayed.id, replayed.state) == (callback, "pending")
    assert lanes.started == [lane]
    await drain(lane)
    one, two = receiver.requests
    assert one.webhook_id == two.webhook_id
    assert await callbacks.replay(uuid7(), ACCOUNT, LIVE, now=datetime.now(UTC)) is None


async def test_all_that_failed_is_replayed_at_once(outbox, callbacks, lanes, receiver, drain):
    drain.configuration = declared()
    receiver.will_respond(500, 500)
    for _ in range(3):
        await outbox.emit(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    await drain(lane)
    replayed = await callbacks.replay_many(
        ACCOUNT, LIVE, state=CallbackState.FAILED, limit=100, now=datetime.now(UTC)
    )
    assert replayed == 2
    assert lanes.started == [lane]
    await drain(lane)
    assert await outbox.states(lane) == {"delivered": 3}


async def test_only_generated_secrets_are_shown_and_never_one_that_a_reference_names(
    outbox, database, lanes, monkeypatch
):
    generated = Callbacks(database, lanes, declared)
    assert await generated.secret(ACCOUNT, Environment.LIVE) == SECRET
    assert await generated.secret("nobody", Environment.LIVE) is None
    monkeypatch.setenv("SMSGATEWAY_SECRET_ACME", secret_of(b"another key, this one of 32 byte"))
    referring = Callbacks(database, lanes, lambda: declared(secret="env:SMSGATEWAY_SECRET_ACME"))
    with pytest.raises(SecretConfigured):
        await referring.secret(ACCOUNT, Environment.LIVE)
    of_test = await referring.secret(ACCOUNT, Environment.TEST)
    assert of_test == await generated.secret(ACCOUNT, Environment.TEST) != SECRET


# --- Temporal away -----------------------------------------------------------------------------


async def test_a_lane_is_not_started_while_temporal_is_away():
    async def not_connected() -> None:
        return None

    async def connected_once() -> Client:
        return await Client.connect(f"127.0.0.1:{free_port()}", lazy=True)

    assert not await TemporalLanes(not_connected).start(uuid7(), ACCOUNT)
    assert not await TemporalLanes(connected_once).start(uuid7(), ACCOUNT)


# --- receivers that hang -----------------------------------------------------------------------


async def test_an_origin_that_never_answered_holds_two_connections(outbox, receiver, drain):
    receiver.always_responds(Reply(delay=600))
    await emitted(outbox, receiver.url(), 3 * AT_ONCE)
    lane = await outbox.lane(receiver.url())
    drain.configuration = with_timeout(0.5)
    assert (await drain(lane)).hanging
    assert len(receiver.requests) == 2
    assert (await drain(lane, was_hanging=True)).hanging
    assert len(receiver.requests) == 3, "then a single one tries it"


async def test_a_lane_remembers_that_its_last_request_hung(outbox, receiver, drain, monkeypatch):
    monkeypatch.setattr("services.callbacks.slice._HANGS_FROM_SECONDS", 0.3)
    drain.configuration = with_timeout(0.4)
    lane = await outbox.lane(receiver.url())
    await emitted(outbox, receiver.url(), 1)
    receiver.will_respond(Reply(delay=600))
    assert (await drain(lane)).hanging
    assert (await drain(lane, was_hanging=True)).hanging, "nothing was due, so nothing was learned"
    receiver.will_respond(503)
    assert not (await drain(lane, later=61, was_hanging=True)).hanging, "it failed at once"


async def test_a_lane_that_hung_is_tried_by_a_single_request(outbox, receiver, drain):
    receiver.always_responds(Reply(delay=600))
    drain.configuration = with_timeout(0.5)
    await emitted(outbox, receiver.url(), 8)
    result = await drain(await outbox.lane(receiver.url()), was_hanging=True)
    assert (result.failed, result.failing) == (1, True)
    assert len(receiver.requests) == 1


async def test_a_lane_that_hangs_reads_the_database_less_and_less(
    outbox, receiver, drain, monkeypatch
):
    looks = []
    due = store.due

    async def counted(*args, **options):
        looks.append(time.monotonic())
        return await due(*args, **options)

    monkeypatch.setattr(store, "due", counted)
    monkeypatch.setattr("services.callbacks.slice._LOOK_AGAIN_SECONDS", 0.1)
    receiver.always_responds(Reply(delay=600))
    drain.configuration = with_timeout(5)
    await emitted(outbox, receiver.url(), 1)
    await drain(await outbox.lane(receiver.url()))
    assert len(looks) <= 12, "50 of them, if each look were as far from the one before"


def with_timeout(seconds: float) -> Configuration:
    usual = declared(60.0)
    policy = usual.callbacks.model_copy(update={"timeout": timedelta(seconds=seconds)})
    return usual.model_copy(update={"callbacks": policy})

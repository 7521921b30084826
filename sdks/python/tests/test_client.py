import inspect
import json
from datetime import UTC, datetime, timedelta

import pytest
from sdks.python.tests.fakes.gateway import InjectedFault

from smsgateway import (
    AsyncClient,
    BatchStatus,
    CallbackState,
    Client,
    Conflict,
    Environment,
    MessageStatus,
    Mode,
    NotEnded,
    NotFound,
    Priority,
    Recipient,
    Unavailable,
    UnexpectedResponse,
    ValidationFailed,
    __version__,
    calls,
)
from smsgateway.exchange import Pause
from smsgateway.polling import poll

TO = "+447700900123"
DEAD = "+447700900199"
TABLE = "Hello {name}, your table is ready."


def send(client, to=TO, **more):
    return client.send(to=to, sender="Acme", body="Your table is ready.", **more)


def test_a_sent_message_is_accepted_and_then_delivered(client):
    accepted = send(client)
    assert accepted.message_id.startswith("msg_")
    assert (accepted.status, accepted.encoding, accepted.segments) == ("queued", "gsm7", 1)
    assert not accepted.replayed
    while not (message := client.message(accepted.message_id)).has_ended:
        pass
    assert message.status is MessageStatus.DELIVERED
    assert (message.sender, message.to) == ("Acme", TO)


def test_a_message_is_waited_for_until_it_ends(client, gateway):
    message_id = send(client).message_id
    gateway.faults += [InjectedFault(503), InjectedFault(503)]
    message = client.wait(message_id)
    assert message.status is MessageStatus.DELIVERED
    assert client.wait(message_id, timeout=0) == message


def test_a_message_that_ended_without_a_receipt_is_not_waited_for(client):
    message = client.wait(send(client, "+447700900196").message_id)
    assert (message.status, message.has_ended) == (MessageStatus.SENT, True)


def test_a_wait_that_times_out_raises_with_the_current_status(client):
    message_id = send(client, "+447700900198").message_id
    with pytest.raises(NotEnded, match=r"still sent\.") as not_ended:
        client.wait(message_id, timeout=0.3)
    assert (not_ended.value.message_id, not_ended.value.status) == (message_id, "sent")
    assert isinstance(not_ended.value, TimeoutError)


def test_waiting_for_a_message_that_is_not_there_ends_at_once(client):
    with pytest.raises(NotFound):
        client.wait("msg_none")


def test_waiting_for_an_unavailable_gateway_raises_at_the_timeout(client, gateway):
    gateway.faults += [InjectedFault(503)] * 50
    with pytest.raises(Unavailable):
        client.wait("msg_none", timeout=0.2)


async def test_the_awaiting_client_waits_too(async_client):
    message_id = (await send(async_client)).message_id
    assert (await async_client.wait(message_id)).status is MessageStatus.DELIVERED
    message_id = (await send(async_client, "+447700900198")).message_id
    with pytest.raises(NotEnded):
        await async_client.wait(message_id, timeout=0.2)


def test_looks_are_further_and_further_apart_and_end_in_time(client):
    message = client.message(send(client, "+447700900198").message_id)
    clock = 0.0
    polling = poll(30, lambda: clock)
    pauses = []
    next(polling)
    while clock < 30:
        step = polling.send(message)
        assert isinstance(step, Pause)
        pauses.append(step.seconds)
        clock += step.seconds
        polling.send(None)
    with pytest.raises(NotEnded):
        polling.send(message)
    assert pauses[0] == 0.2
    assert pauses[:-1] == sorted(pauses[:-1])
    assert max(pauses) == 2
    assert clock == pytest.approx(30)


def test_a_preview_takes_what_a_send_takes_and_sends_nothing(client, gateway):
    preview = client.preview(to=TO, sender="Acme", body="It\u2019s ready", mode=Mode.ALERT)
    assert (preview.encoding, preview.segments, preview.body) == ("gsm7", 1, "It's ready")
    assert preview.route == 0
    assert [(each.provider, each.up) for each in preview.providers] == [
        ("primary", True),
        ("backup", False),
    ]
    assert not gateway.messages
    assert "idempotency-key" not in gateway.exchanges[-1].headers
    parameters = set(inspect.signature(calls.send).parameters) - {"idempotency_key"}
    assert set(inspect.signature(calls.preview).parameters) == parameters
    with pytest.raises(ValidationFailed):
        client.preview(to="nobody", sender="Acme", body="Hello")


def test_everything_that_a_send_can_say_reaches_the_gateway(client, gateway):
    at = datetime.now(UTC) + timedelta(hours=1)
    accepted = client.send(
        to=TO,
        sender="Acme",
        body="It\u2019s ready",
        mode=Mode.ALERT,
        priority=Priority.HIGH,
        callback_url="https://shop.example.com/sms",
        validity_period=600,
        receipt_deadline=45,
        missing_receipt="expire",
        scheduled_at=at,
        metadata={"order": "17"},
        parameters={"dlt_entity_id": "1001"},
        smart_encoding=True,
        idempotency_key="order-17",
    )
    assert [r.count for r in accepted.replacements] == [1]
    asked = gateway.messages[accepted.message_id].asked
    assert asked.model_dump(by_alias=True) == {
        "to": TO,
        "from": "Acme",
        "body": "It\u2019s ready",
        "mode": "alert",
        "priority": "high",
        "callback_url": "https://shop.example.com/sms",
        "validity_period": 600,
        "receipt_deadline": 45,
        "missing_receipt": "expire",
        "scheduled_at": at,
        "metadata": {"order": "17"},
        "parameters": {"dlt_entity_id": "1001"},
        "smart_encoding": True,
    }
    assert gateway.exchanges[-1].headers["idempotency-key"] == "order-17"


def test_a_send_generates_its_idempotency_key_unless_the_caller_passes_none(client, gateway):
    send(client)
    send(client)
    send(client, idempotency_key=None)
    first, second, third = (e.headers.get("idempotency-key") for e in gateway.exchanges)
    assert first
    assert second
    assert first != second
    assert third is None


def test_a_repeated_idempotency_key_is_one_message(client, gateway):
    first = send(client, idempotency_key="order-17")
    again = send(client, idempotency_key="order-17")
    assert again.replayed
    assert again.message_id == first.message_id
    assert len(gateway.messages) == 1


@pytest.mark.parametrize("key", ["", "two words", "n\u00e4h", "a" * 256, "line\nbreak"])
def test_an_idempotency_key_that_no_header_can_hold_is_refused_before_sending(client, gateway, key):
    with pytest.raises(ValueError, match="visible ASCII"):
        send(client, idempotency_key=key)
    assert not gateway.exchanges


def test_a_time_without_its_offset_is_refused_before_sending(client):
    with pytest.raises(ValueError, match="offset"):
        send(client, scheduled_at=datetime(2026, 12, 1, 9))  # noqa: DTZ001  # that is the point


def test_a_listing_is_followed_over_all_its_pages(client, gateway):
    sent = [send(client).message_id for _ in range(5)]
    listed = [message.message_id for message in client.each_message(limit=2)]
    assert listed == sent[::-1]
    listings = [e for e in gateway.exchanges if e.path == "/api/v1/sms"]
    assert len(listings) == 3


def test_a_page_has_the_cursor_of_the_next_one(client):
    sent = [send(client).message_id for _ in range(3)]
    first = client.messages(limit=2)
    rest = client.messages(limit=2, cursor=first.next_cursor)
    assert [m.message_id for m in (*first.items, *rest.items)] == sent[::-1]
    assert rest.next_cursor is None


def test_a_listing_that_never_ends_is_given_up(client, gateway):
    page = b'{"items": [], "next_cursor": "MA=="}'
    gateway.faults += [InjectedFault(200, {"content-type": "application/json"}, page)] * 2
    with pytest.raises(UnexpectedResponse, match="same page twice"):
        list(client.each_message())


def test_every_filter_of_a_listing_is_applied(client):
    old = send(client, to=DEAD, mode="alert")
    boundary = datetime.now(UTC)
    send(client)
    kept = client.messages(mode=Mode.ALERT, to=DEAD, sender="Acme", until=boundary)
    assert [m.message_id for m in kept.items] == [old.message_id]
    assert client.messages(since=boundary, to=DEAD).items == ()
    assert client.messages(status=MessageStatus.CANCELED).items == ()
    assert client.messages(provider="nobody").items == ()


def test_events_are_listed_in_order(client):
    message_id = send(client).message_id
    while not client.message(message_id).has_ended:
        pass
    events = client.events(message_id)
    assert [event.status for event in events] == ["queued", "sending", "sent", "delivered"]
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert events[1].provider == "primary"


def test_an_explanation_holds_attempts_parts_receipts_callbacks_and_sentences(client, gateway):
    message_id = send(client).message_id
    gateway.add_callback(message_id)
    while not client.message(message_id).has_ended:
        pass
    explained = client.explain(message_id)
    assert explained.message.message_id == message_id
    assert explained.attempts[0].parts[0].receipt_state == "delivered"
    assert explained.receipts[0].network == "23415"
    assert explained.callbacks[0].last_status == 500
    assert explained.summary[0] == "The message is delivered."


def test_a_message_that_has_not_left_can_be_canceled(client):
    message_id = send(client, scheduled_at=datetime.now(UTC) + timedelta(days=1)).message_id
    assert client.cancel(message_id).status is MessageStatus.CANCELED


ANN = Recipient(TO, {"name": "Ann"})
BEN = Recipient("+447700900124", {"name": "Ben"})


def send_batch(client, *recipients, **more):
    return client.send_batch(sender="Acme", body=TABLE, recipients=recipients, **more)


def test_a_batch_is_accepted_with_a_message_for_each_recipient_and_then_finished(client):
    accepted = send_batch(client, ANN, BEN)
    assert accepted.batch_id.startswith("bat_")
    assert (accepted.recipients, accepted.accepted, accepted.refused) == (2, 2, 0)
    assert [result.index for result in accepted.results] == [0, 1]
    assert not accepted.replayed
    bodies = [client.message(result.message_id).body for result in accepted.results]
    assert bodies == ["Hello Ann, your table is ready.", "Hello Ben, your table is ready."]
    while not (batch := client.batch(accepted.batch_id)).has_ended:
        pass
    assert batch.status is BatchStatus.FINISHED
    assert (batch.sender, batch.open, batch.by_status) == ("Acme", 0, {"delivered": 2})


def test_everything_that_a_batch_can_say_reaches_the_gateway(client, gateway):
    at = datetime.now(UTC) + timedelta(hours=1)
    send_batch(
        client,
        ANN,
        Recipient(BEN.to, body="{A} text of its own", metadata={"order": "17"}),
        mode=Mode.PROMOTIONAL,
        priority=Priority.LOW,
        callback_url="https://shop.example.com/sms",
        validity_period=600,
        receipt_deadline=45,
        missing_receipt="expire",
        scheduled_at=at,
        smart_encoding=False,
        idempotency_key="news-17",
    )
    sent = gateway.exchanges[-1]
    assert json.loads(sent.body) == {
        "from": "Acme",
        "body": TABLE,
        "recipients": [
            {"to": TO, "variables": {"name": "Ann"}},
            {"to": BEN.to, "body": "{A} text of its own", "metadata": {"order": "17"}},
        ],
        "mode": "promotional",
        "priority": "low",
        "callback_url": "https://shop.example.com/sms",
        "validity_period": 600,
        "receipt_deadline": 45,
        "missing_receipt": "expire",
        "scheduled_at": at.isoformat(),
        "smart_encoding": False,
    }
    assert sent.headers["idempotency-key"] == "news-17"


def test_a_recipient_that_is_refused_keeps_nobody_else_from_the_message(client):
    nameless = Recipient("+447700900125")
    accepted = send_batch(client, Recipient("4477", {"name": "Cy"}), nameless, ANN, ANN)
    reasons = [result.error and result.error.reason for result in accepted.results]
    assert reasons == ["invalid_number", "missing_variable", None, "duplicate_recipient"]
    assert (accepted.accepted, accepted.refused) == (1, 3)
    assert accepted.results[0].message_id is None
    assert accepted.results[2].segments == 1


def test_a_batch_of_which_nothing_can_be_sent_is_refused_and_names_the_recipients(client, gateway):
    with pytest.raises(ValidationFailed) as refused:
        send_batch(client, Recipient("4477", {"name": "Cy"}))
    assert [error.field for error in refused.value.errors] == ["recipients.0.to"]
    assert not gateway.batches


def test_a_repeated_idempotency_key_is_one_batch(client, gateway):
    first = send_batch(client, ANN, idempotency_key="news-17")
    again = send_batch(client, ANN, idempotency_key="news-17")
    assert again.replayed
    assert (again.batch_id, again.results) == (first.batch_id, first.results)
    assert len(gateway.messages) == 1


def test_a_batch_generates_its_idempotency_key_unless_the_caller_passes_none(client, gateway):
    send_batch(client, ANN)
    send_batch(client, ANN, idempotency_key=None)
    first, second = (e.headers.get("idempotency-key") for e in gateway.exchanges)
    assert first
    assert second is None


def test_the_results_of_a_batch_can_be_had_again(client):
    accepted = send_batch(client, ANN, Recipient("4477", {"name": "Cy"}))
    assert client.batch_results(accepted.batch_id).results == accepted.results


def test_batches_are_listed_over_all_pages_the_newest_first(client):
    sent = [send_batch(client, ANN).batch_id for _ in range(3)]
    assert [batch.batch_id for batch in client.each_batch(limit=2)] == sent[::-1]
    assert [batch.batch_id for batch in client.batches(limit=1).items] == sent[:1:-1]


def test_a_batch_is_paused_resumed_and_canceled(client):
    at = datetime.now(UTC) + timedelta(days=1)
    batch_id = send_batch(client, ANN, BEN, scheduled_at=at).batch_id
    paused = client.pause_batch(batch_id)
    assert (paused.status, paused.open, paused.has_ended) == (BatchStatus.PAUSED, 2, False)
    assert client.resume_batch(batch_id).status is BatchStatus.RUNNING
    canceled = client.cancel_batch(batch_id)
    assert (canceled.status, canceled.has_ended) == (BatchStatus.CANCELED, True)
    assert canceled.by_status == {"canceled": 2}
    with pytest.raises(Conflict):
        client.resume_batch(batch_id)


def dead_letter(client, gateway):
    message_id = send(client, to=DEAD).message_id
    while not client.message(message_id).has_ended:
        pass
    return message_id


def test_dead_letters_are_listed_and_replayed(client, gateway):
    first, second = (dead_letter(client, gateway) for _ in range(2))
    assert [m.message_id for m in client.each_dead_letter(limit=1)] == [second, first]
    done = client.replay_dead_letters(message_ids=[first, "msg_none"])
    assert done.replayed == (first,)
    assert [(s.message_id, bool(s.detail)) for s in done.skipped] == [("msg_none", True)]
    assert client.replay_dead_letter(second).status == "queued"
    assert client.dead_letters(provider="primary").items == ()


def test_dead_letters_can_be_replayed_by_number_of_them(client, gateway):
    for _ in range(3):
        dead_letter(client, gateway)
    assert len(client.replay_dead_letters(limit=2).replayed) == 2


def test_providers_are_shown_with_their_figures(client):
    assert {p.name: p.state for p in client.providers()} == {"primary": "up", "backup": "down"}
    assert client.provider("primary").recent.accept_p50_ms == 4.2
    assert client.provider("backup").unparsed_receipts == 700


def test_receipts_are_parsed_again_from_where_the_call_before_ended(operator):
    first = operator.reparse_receipts("backup")
    assert (first.parsed, first.unparsed, first.next_after) == (498, 2, 500)
    last = operator.reparse_receipts("backup", after=first.next_after)
    assert (last.parsed, last.unparsed, last.next_after) == (199, 1, None)


def test_a_key_works_from_its_making_to_its_revoking(client, gateway):
    made = client.create_key(
        name="shop",
        environment=Environment.TEST,
        scopes=["messages:read"],
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )
    assert made.key not in repr(made)
    with Client(gateway.url, made.key) as other:
        assert other.messages().items == ()
    listed = client.keys()
    assert [key.name for key in listed] == ["admin", "shop"]
    client.revoke_key(made.id)
    assert client.keys()[-1].revoked_at is not None


def test_a_configuration_is_checked_applied_and_read(operator):
    good = "[providers.backup]\ntype = 'smpp'\n"
    wrong = operator.check_configuration("[providers.backup]\ntype = 'pigeon'\n")
    assert not wrong.ok
    assert (wrong.mistakes[0].line, wrong.mistakes[0].path) == (2, "providers.backup.type")
    assert operator.check_configuration(good).ok
    assert operator.apply_configuration(good).changed
    assert not operator.apply_configuration(good).changed
    assert operator.configuration().content == good
    with pytest.raises(ValidationFailed) as refused:
        operator.apply_configuration("[")
    assert refused.value.errors[0].line == 1


def test_an_account_is_created_given_a_key_suspended_and_resumed(operator, gateway):
    made = operator.create_account("Acme Logistics")
    assert operator.accounts()[-1] == operator.account(made.id) == made
    key = operator.create_account_key(made.id, name="admin", environment="live", scopes=["admin"])
    assert (key.account_id, key.parent_id) == (made.id, None)
    assert key.key not in repr(key)
    assert operator.suspend_account(made.id).suspended_at is not None
    assert operator.resume_account(made.id).suspended_at is None
    with pytest.raises(Conflict):
        operator.create_account("Acme Logistics")


async def test_accounts_are_managed_by_awaiting_too(async_operator):
    made = await async_operator.create_account("Acme Logistics")
    assert (await async_operator.suspend_account(made.id)).suspended_at is not None
    assert (await async_operator.resume_account(made.id)).suspended_at is None
    assert made in await async_operator.accounts()
    assert await async_operator.account(made.id) == made


def test_an_operators_key_is_made_listed_and_revoked(operator):
    made = operator.create_operator_key(name="ci", scopes=["config:manage"])
    assert made.key.startswith("sg_operator_")
    assert made.key not in repr(made)
    assert [key.name for key in operator.operator_keys()] == ["operator", "ci"]
    operator.revoke_operator_key(made.id)
    assert operator.operator_keys()[-1].revoked_at is not None


def test_callbacks_are_listed_and_replayed(client, gateway):
    message_id = send(client).message_id
    ids = [gateway.add_callback(message_id) for _ in range(3)]
    assert [c.id for c in client.each_callback(state=CallbackState.FAILED, limit=2)] == ids[::-1]
    client.replay_callback(ids[0])
    listed = client.callbacks(state="failed", message_id=message_id)
    assert [c.id for c in listed.items] == ids[:0:-1]
    assert client.replay_callbacks(state="failed", limit=1).replayed == 1


def test_the_secret_of_callbacks_can_be_had_and_is_not_shown_by_accident(client):
    secret = client.callback_secret()
    assert secret.secret.startswith("whsec_")
    assert secret.secret not in repr(secret)


def test_not_being_ready_is_an_answer_and_not_an_error(client, gateway):
    assert client.readiness().ready
    gateway.now_down = True
    readiness = client.readiness()
    assert not readiness.ready
    assert readiness.database == "down"


@pytest.mark.parametrize("nothing", ["", ".", ".."])
def test_an_empty_id_asks_for_nothing_else(client, gateway, nothing):
    with pytest.raises(ValueError, match="must not be empty"):
        client.revoke_key(nothing)
    assert not gateway.exchanges


def test_an_id_cannot_reach_another_address():
    assert calls.message("../keys?x=1#y").path == "/api/v1/sms/..%2Fkeys%3Fx%3D1%23y"


def test_what_a_newer_gateway_says_is_kept(client, gateway):
    message_id = send(client).message_id
    shown = gateway.messages[message_id].shown()
    newer = {**shown, "status": "teleporting", "price": "0.04"}
    gateway.faults.append(json_error(newer))
    message = client.message(message_id)
    assert message.status == "teleporting"
    assert not message.has_ended
    assert message.model_dump(by_alias=True)["price"] == "0.04"
    assert message.model_dump(by_alias=True)["from"] == "Acme"


def json_error(content):
    return InjectedFault(200, {"content-type": "application/json"}, json.dumps(content).encode())


@pytest.mark.parametrize(
    ("status", "reason", "ended"),
    [
        ("delivered", "delivered", True),
        ("sent", None, False),
        ("sent", "provider_gives_no_receipts", True),
        ("unknown", None, False),
        ("dead_letter", "no_route", True),
    ],
)
def test_a_message_has_ended_when_nothing_more_will_happen(client, gateway, status, reason, ended):
    message_id = send(client).message_id
    shown = gateway.messages[message_id].shown()
    gateway.faults.append(json_error({**shown, "status": status, "reason": reason}))
    assert client.message(message_id).has_ended is ended


def test_the_user_agent_names_the_program_and_the_library(gateway):
    with Client(gateway.url, gateway.key, user_agent="shop/2.1") as client:
        client.messages()
    agent = gateway.exchanges[-1].headers["user-agent"]
    assert agent.startswith(f"shop/2.1 smsgateway-python/{__version__} python/3.")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "sms.example.com",
        "ftp://sms.example.com",
        "http://",
        "http://u:p@h",
        "http://h:x",
        "h?a",
    ],
)
def test_an_address_that_cannot_be_one_is_refused_without_repeating_it(address):
    with pytest.raises(ValueError, match="address of the API is") as refused:
        Client(address, "key")
    assert "u:p" not in str(refused.value)


def test_an_address_may_have_a_path_and_a_slash():
    with Client("https://example.com/sms/ ", "key") as client:
        assert client.api == "https://example.com/sms"
        assert "key" not in repr(client)


@pytest.mark.parametrize("end", ["", "/", "//", "/api/v1", "/api/v1/", "/api/v1// "])
@pytest.mark.parametrize("prefix", ["", "/sms"])
def test_an_address_may_be_given_with_the_version_of_the_api(prefix, end):
    with Client(f"https://example.com{prefix}{end}", "key") as client:
        assert client.api == f"https://example.com{prefix}"


@pytest.mark.parametrize("end", ["/api/v1", "/api/v1/"])
async def test_both_clients_reach_the_gateway_by_an_address_with_the_version(gateway, end):
    with Client(gateway.url + end, gateway.key) as client:
        message_id = send(client).message_id
        assert client.readiness().ready
    async with AsyncClient(gateway.url + end, gateway.key) as async_client:
        assert (await async_client.message(message_id)).message_id == message_id


@pytest.mark.parametrize("key", ["", "a b", "a\n", "schl\u00fcssel"])
def test_a_key_that_cannot_be_one_is_refused_without_repeating_it(key):
    with pytest.raises(ValueError, match="visible ASCII") as refused:
        Client("http://h", key)
    assert "schl" not in str(refused.value)


async def test_the_awaiting_client_does_the_same(async_client, gateway):
    accepted = await send(async_client)
    while not (message := await async_client.message(accepted.message_id)).has_ended:
        pass
    assert message.status is MessageStatus.DELIVERED
    for _ in range(2):
        await send(async_client)
    assert len([m async for m in async_client.each_message(limit=1)]) == 3
    with pytest.raises(ValidationFailed):
        await send(async_client, to="nobody")
    batch_id = (await send_batch(async_client, ANN)).batch_id
    assert [batch.batch_id async for batch in async_client.each_batch()] == [batch_id]


def test_both_clients_offer_the_same_calls_with_the_same_arguments():
    def offered(client):
        return {
            name: str(inspect.signature(value))
            for name, value in vars(client).items()
            if not name.startswith("_") and callable(value) and name not in {"run", "close"}
        }

    assert offered(Client) == offered(AsyncClient)
    assert len(offered(Client)) == 50


def test_help_shows_arguments_and_answer(client):
    assert str(inspect.signature(client.message)) == (
        "(message_id: str) -> smsgateway.models.Message"
    )
    assert "idempotency" in (inspect.getdoc(client.send) or "")

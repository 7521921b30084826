import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdks.python.tests.conftest import IMPATIENT
from sdks.python.tests.fakes.gateway import InjectedFault

from smsgateway import (
    AsyncClient,
    Client,
    ConnectionFailed,
    Recipient,
    Retries,
    Unavailable,
    calls,
)
from smsgateway.calls import Response
from smsgateway.errors import GatewayError
from smsgateway.exchange import Lost, NeverSent, Pause, converse

TO = "+447700900123"
UNKEYED = calls.send(to=TO, sender="Acme", body="Hello", idempotency_key=None)
KEYED = calls.send(to=TO, sender="Acme", body="Hello")
READING = calls.message("msg_1")
UNKEYED_BATCH = calls.send_batch(sender="Acme", recipients=[], idempotency_key=None)
KEYED_BATCH = calls.send_batch(sender="Acme", recipients=[])


def send(client, **more):
    return client.send(to=TO, sender="Acme", body="Hello", **more)


def carried_through(call, outcomes, retries=Retries()):  # noqa: B008  # frozen
    """The pauses made and the result, when the tries have these outcomes."""
    conversation = converse(call, "http://h", retries, chance=lambda: 0.0)
    pauses, given_ = [], None
    outcomes = iter(outcomes)
    try:
        while True:
            step = conversation.send(given_)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                given_ = None
            else:
                given_ = next(outcomes)
    except StopIteration as end:
        return pauses, end.value
    except GatewayError as error:
        return pauses, error


def answered(status, **headers):
    return Response(status, {name.replace("_", "-"): v for name, v in headers.items()}, b"")


def test_a_lost_answer_to_a_send_with_a_key_leads_to_one_message(relay, gateway):
    with Client(relay.url, gateway.key, retries=IMPATIENT) as client:
        relay.lose_responses(2)
        accepted = send(client)
    assert accepted.replayed
    assert list(gateway.messages) == [accepted.message_id]
    assert len(gateway.exchanges) == 3


def test_a_lost_answer_to_a_batch_with_a_key_leads_to_one_batch(relay, gateway):
    with Client(relay.url, gateway.key, retries=IMPATIENT) as client:
        relay.lose_responses(1)
        accepted = client.send_batch(sender="Acme", body="Hello", recipients=[Recipient(TO)])
    assert accepted.replayed
    assert list(gateway.batches) == [accepted.batch_id]


def test_a_lost_response_to_a_send_without_a_key_is_raised_as_perhaps_carried_out(relay, gateway):
    with Client(relay.url, gateway.key, retries=IMPATIENT) as client:
        relay.lose_responses(1)
        with pytest.raises(ConnectionFailed, match="may have been carried out") as failed:
            send(client, idempotency_key=None)
    assert failed.value.perhaps_carried_out
    assert len(gateway.messages) == 1


def test_a_connection_that_was_closed_meanwhile_is_made_again(relay, gateway):
    with Client(relay.url, gateway.key, retries=Retries(tries=1)) as client:
        client.messages()
        client.messages()
        assert relay.connections_made == 1
        relay.close_connections()
        time.sleep(0.05)
        client.messages()
        relay.close_connections()
        time.sleep(0.05)
        send(client, idempotency_key=None)
    assert relay.connections_made == 3
    assert len(gateway.messages) == 1


async def test_the_awaiting_client_sends_again_too(relay, gateway):
    async with AsyncClient(relay.url, gateway.key, retries=IMPATIENT) as client:
        relay.lose_responses(1)
        assert (await send(client)).replayed
    assert len(gateway.messages) == 1


def test_a_refused_connection_is_raised_with_the_address_and_as_not_carried_out():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with (
        Client(address, "key", retries=IMPATIENT) as client,
        pytest.raises(ConnectionFailed, match=address) as failed,
    ):
        send(client)
    assert not failed.value.perhaps_carried_out
    assert TO not in str(failed.value)


def test_a_silent_gateway_is_given_up_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(address, "key", timeout=0.1, retries=Retries(tries=1)) as client,
            pytest.raises(ConnectionFailed, match="no response came in time") as failed,
        ):
            client.messages(to=TO)
    assert failed.value.perhaps_carried_out
    assert TO not in str(failed.value)


def test_bytes_that_are_not_http_are_a_lost_answer():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example.com ESMTP\r\n")

        threading.Thread(target=babble, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            Client(address, "key", retries=Retries(tries=1)) as client,
            pytest.raises(ConnectionFailed, match="closed before the response"),
        ):
            client.messages()


def test_a_passing_outage_goes_unnoticed_when_reading(client, gateway):
    gateway.faults += [InjectedFault(503), InjectedFault(502), InjectedFault(504)]
    assert client.messages().items == ()


def test_a_send_that_is_still_in_flight_is_asked_for_again(client, gateway):
    gateway.in_flight.add("order-17")
    assert send(client, idempotency_key="order-17").status == "queued"
    assert [e.status for e in gateway.exchanges] == [409, 202]


def test_a_lasting_outage_is_raised(client, gateway):
    gateway.faults += [InjectedFault(503, {"retry-after": "0"})] * 4
    with pytest.raises(Unavailable) as refused:
        client.messages()
    assert refused.value.retry_after == 0
    assert not gateway.faults


def test_retry_after_is_waited_for():
    pauses, _ = carried_through(READING, [answered(503, retry_after="7"), answered(404)])
    assert pauses == [7]


def test_retry_after_may_be_a_date():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    pauses, _ = carried_through(READING, [answered(503, retry_after=at), answered(404)])
    assert 17 < pauses[0] <= 20


def test_a_gateway_that_asks_for_too_long_a_wait_is_not_waited_for():
    pauses, error = carried_through(READING, [answered(429, retry_after="31")])
    assert pauses == []
    assert isinstance(error, Unavailable)


def test_an_unreadable_retry_after_counts_as_none():
    pauses, _ = carried_through(READING, [answered(503, retry_after="soon"), answered(404)])
    assert pauses == [0.25]


def test_pauses_double_up_to_the_longest():
    retries = Retries(tries=6, first_pause=1, longest_pause=5)
    pauses, error = carried_through(READING, [NeverSent("refused")] * 6, retries)
    assert pauses == [1, 2, 4, 5, 5]
    assert isinstance(error, ConnectionFailed)


def test_chance_shortens_a_pause_by_up_to_half():
    conversation = converse(READING, "http://h", Retries(first_pause=1), chance=lambda: 1.0)
    next(conversation)
    assert conversation.send(NeverSent("refused")) == Pause(0.5)


REFUSED, LOST = NeverSent("refused"), Lost("cut")


@pytest.mark.parametrize(
    ("call", "outcome", "again"),
    [
        (READING, REFUSED, True),
        (READING, LOST, True),
        (READING, answered(429), True),
        (READING, answered(503), True),
        (READING, answered(500), False),
        (READING, answered(409), False),
        (KEYED, LOST, True),
        (KEYED, answered(503), True),
        (KEYED, answered(409), True),
        (KEYED, answered(422), False),
        (UNKEYED, REFUSED, True),
        (UNKEYED, answered(429), True),
        (UNKEYED, LOST, False),
        (UNKEYED, answered(503), False),
        (UNKEYED, answered(409), False),
        (calls.check_configuration(""), LOST, True),
        (calls.apply_configuration(""), LOST, False),
        (calls.replay_dead_letters(limit=1), LOST, False),
        (calls.replay_dead_letters(limit=1), REFUSED, True),
        (calls.cancel("msg_1"), LOST, False),
        (KEYED_BATCH, LOST, True),
        (KEYED_BATCH, answered(409), True),
        (UNKEYED_BATCH, LOST, False),
        (calls.pause_batch("bat_1"), LOST, True),
        (calls.resume_batch("bat_1"), answered(503), True),
        (calls.cancel_batch("bat_1"), LOST, True),
        (calls.cancel_batch("bat_1"), answered(409), False),
        (calls.create_key(name="k", environment="test", scopes=["admin"]), LOST, False),
        (calls.revoke_key("key_1"), LOST, False),
        (calls.readiness(), answered(503), False),
    ],
)
def test_only_what_does_no_harm_is_done_twice(call, outcome, again):
    pauses, _ = carried_through(call, [outcome, answered(404)])
    assert bool(pauses) is again


outcomes = st.one_of(
    st.builds(NeverSent, st.just("refused")),
    st.builds(Lost, st.just("cut")),
    st.builds(answered, st.sampled_from([400, 401, 404, 409, 429, 500, 502, 503, 504])),
)


@given(
    st.sampled_from([READING, KEYED, UNKEYED]),
    st.integers(1, 5),
    st.lists(outcomes, min_size=5, max_size=5),
)
def test_every_call_ends_within_its_tries_and_doubt_is_never_hidden(call, tries, came):
    pauses, error = carried_through(call, came, Retries(tries=tries))
    tried = came[: len(pauses) + 1]
    assert len(tried) <= tries
    lost = any(isinstance(outcome, Lost) for outcome in tried)
    assert isinstance(error, GatewayError)
    if isinstance(error, ConnectionFailed):
        assert error.perhaps_carried_out is lost
    if call is UNKEYED:
        assert not any(isinstance(outcome, Lost) for outcome in tried[:-1])

"""`provider test` and `provider address`, for operators."""

import json

import pytest
from sdks.python.tests.fakes.gateway import ADDRESS
from smsgateway import Client, Explanation

from smsctl.columns import result_of_test
from smsctl.waiting import Seen

TO = "+447700900123"


@pytest.fixture
def client(gateway):
    with Client(gateway.url, gateway.key) as made:
        yield made


def test_each_step_of_a_test_is_shown_with_its_times_its_segments_and_its_price(smsctl, configured):
    run = smsctl("provider", "test", "primary", "--to", TO, "--from", "Acme", "--text", "A test.")
    (message,) = configured.messages.values()
    assert run.code == 0
    assert (message.asked.body, message.asked.sender) == ("A test.", "Acme")
    for shown in (
        f"Accepted as {message.id}",
        "Submitted to primary.",
        "Accepted by primary.",
        "Attempt 1: response after 0.000 s.",
        "Attempt 1: receipt after 0.000 s.",
        "Attempt 1: primary bills 1 segment for 0.00750 USD.",
        "1 segment by the gateway's own count.",
    ):
        assert shown in run.out, run.out


def test_only_what_is_given_is_sent_and_the_operators_key_is_used(smsctl, configured):
    smsctl("provider", "test", "primary", "--to", TO)
    sent = next(each for each in configured.exchanges if each.method == "POST")
    assert json.loads(sent.body) == {"to": TO}
    assert sent.headers["authorization"] == f"Bearer {configured.operator_key}"
    assert sent.headers["idempotency-key"]


def test_the_exit_code_says_how_the_test_ended(smsctl, configured):
    assert smsctl("provider", "test", "primary", "--to", "+447700900199").code == 1
    run = smsctl("provider", "test", "primary", "--to", "+447700900198", "--timeout", "0.2")
    assert run.code == 8
    assert "It is still sent: it had not ended after 0 s." in run.out
    assert "Attempt 1: no receipt, which was waited for 0 s." in run.out


def test_json_has_all_that_is_known_of_the_test(smsctl, configured):
    run = smsctl("provider", "test", "primary", "--to", TO, "-o", "json")
    shown = json.loads(run.out)
    assert shown["message"]["status"] == "delivered"
    assert shown["attempts"][0]["price"] == {"amount": "0.00750", "currency": "USD"}
    assert shown["steps"]
    assert shown["events"]


def test_a_provider_that_is_down_or_unknown_is_refused_in_a_sentence(smsctl, configured):
    down = smsctl("provider", "test", "backup", "--to", TO)
    assert (down.code, "backup is down. No worker process serves it." in down.err) == (6, True)
    unknown = smsctl("provider", "test", "nobody", "--to", TO)
    assert (unknown.code, "has no provider of this name" in unknown.err) == (4, True)
    assert not configured.messages


def test_the_meaning_of_a_code_stands_once_with_the_event_that_has_it(client, configured):
    sent = client.send(to="+447700900197", sender="Acme", body="Hello")
    client.wait(sent.message_id)
    events = client.events(sent.message_id)
    (code, *_) = [event.code for event in events if event.code]
    seen = Seen(client.message(sent.message_id), events, {code: "the number is not in use"})
    meant = [line.plain for line in seen.lines() if "not in use" in line.plain]
    assert len(meant) == 1
    assert meant[0].endswith(" The code means: the number is not in use.")


@pytest.mark.parametrize(
    ("bill", "sentence"),
    [
        ({}, "has reported neither price nor segments."),
        ({"billed_segments": 2}, "bills 2 segments."),
        ({"price": {"amount": "0.04", "currency": "EUR"}}, "bills 0.04 EUR."),
    ],
)
def test_what_a_provider_bills_is_shown_as_far_as_it_said_it(client, gateway, bill, sentence):
    sent = client.send(to=TO, sender="Acme", body="Hello")
    client.wait(sent.message_id)
    shown = client.explain(sent.message_id).model_dump(mode="json", by_alias=True)
    (attempt,) = shown["attempts"]
    shown["attempts"] = [attempt | {"billed_segments": None, "price": None} | bill]
    lines = [line.plain for line in result_of_test(Explanation.model_validate(shown), 3.0)]
    assert f"Attempt 1: primary {sentence}" in lines


def test_the_address_at_which_a_provider_reports_is_shown_to_operators(smsctl, configured):
    assert smsctl("provider", "address", "primary").out == f"{ADDRESS}\n"
    run = smsctl("provider", "address", "primary", "-o", "json")
    assert json.loads(run.out) == {"receipts": ADDRESS, "detail": None}
    none = smsctl("provider", "address", "backup")
    assert (none.code, none.out) == (1, "Providers of this type report no receipts over HTTP.\n")
    assert smsctl("provider", "address", "primary", "--key", configured.key).code == 3

"""An SMSC with an HTTP carrier behind it: failover both ways, lost responses, lost and repeated receipts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.stack.gateway import ALERT, MIXED, OVER_HTTP, PLAIN, Gateway, Sent

pytestmark = pytest.mark.stack

AMERICANS = [f"+120155501{number}" for number in range(80, 100)]
"""Documented test numbers of the United States without a meaning of their own."""


def send(gateway: Gateway, count: int, modes: Sequence[str] = MIXED) -> list[Sent]:
    return [
        gateway.send(modes[number % len(modes)], to=AMERICANS[number % len(AMERICANS)])
        for number in range(count)
    ]


def taken_over_http(gateway: Gateway, messages: Sequence[Sent]) -> list[Mapping[str, Any]]:
    texts = {sent.text for sent in messages}
    listed = gateway.ask(OVER_HTTP, "GET", "/twilio/messages")
    return [message for message in listed if message["text"] in texts]


def carriers_of(gateway: Gateway, messages: Sequence[Sent]) -> Counter[str]:
    """How many messages each carrier has, of these."""
    return Counter([got.carrier for got in gateway.got(messages)]) + Counter(
        {OVER_HTTP: len(taken_over_http(gateway, messages))}
    )


def test_messages_go_over_http_while_the_smsc_is_stopped_and_back_by_smpp(gateway: Gateway):
    before = send(gateway, 4)
    gateway.until(before, "delivered")
    assert carriers_of(gateway, before) == {"primary": 4}

    gateway.steer("/outage", on=True)
    during = send(gateway, 20)
    stories = gateway.until(during, "delivered")
    assert carriers_of(gateway, during) == {OVER_HTTP: 20}, "each was sent once"
    for story in stories:
        [*_, last] = story.attempts
        assert (last.provider, last.status) == (OVER_HTTP, "delivered")
    by_id = {message["sid"]: message for message in taken_over_http(gateway, during)}
    assert {id_ for story in stories for id_ in story.attempts[-1].ids} == set(by_id)
    for message in by_id.values():
        callbacks = {it["status"]: it["response"] for it in message["callbacks"]}
        assert callbacks == {"sent": 204, "delivered": 204}

    gateway.steer("/outage", on=False)
    gateway.providers_are_up()
    after = send(gateway, 4)
    gateway.until(after, "delivered")
    assert carriers_of(gateway, after) == {"primary": 4}


def test_a_lost_response_over_http_is_settled_by_the_receipt_and_nothing_is_sent_twice(
    gateway: Gateway,
):
    gateway.steer("/outage", on=True)
    gateway.ask(OVER_HTTP, "PUT", "/twilio/behaviour", {"response": "reset", "taken": True})
    messages = send(gateway, 6, [PLAIN])
    gateway.until(messages, "delivered")
    assert carriers_of(gateway, messages) == {OVER_HTTP: 6}


def test_receipts_over_http_that_come_early_thrice_and_out_of_order_deliver_each_message_once(
    gateway: Gateway,
):
    gateway.steer("/outage", on=True)
    callbacks = [
        {"status": "sent", "early": True},
        {"status": "delivered", "after": 0.1, "copies": 3},
        {"status": "sent", "after": 0.2},
    ]
    gateway.ask(OVER_HTTP, "PUT", "/twilio/behaviour", {"callbacks": callbacks})
    messages = send(gateway, 10)
    for story in gateway.until(messages, "delivered"):
        assert story.kinds["duplicate"] == 0
        assert [attempt.provider for attempt in story.attempts] == [OVER_HTTP]
    gateway.eventually(
        lambda: all(
            [it["response"] for it in message["callbacks"]] == [204] * 5
            for message in taken_over_http(gateway, messages)
        ),
        "every receipt was answered",
    )
    assert {story.status for story in gateway.stories(messages)} == {"delivered"}
    assert carriers_of(gateway, messages) == {OVER_HTTP: 10}


def test_a_throttling_http_carrier_gets_each_message_later_and_once(gateway: Gateway):
    gateway.steer("/outage", on=True)
    gateway.steer("/twilio/throttle", OVER_HTTP, next=5)
    messages = send(gateway, 5, [ALERT])
    gateway.until(messages, "delivered")
    assert carriers_of(gateway, messages) == {OVER_HTTP: 5}
    assert gateway.ask(OVER_HTTP, "GET", "/twilio/counts")["refused"]["20429"] >= 5

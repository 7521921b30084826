"""The worker is killed at the worst moments: every message is delivered, or honestly unknown."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.fakes.mortal import Point
from tests.stack.gateway import (
    MIXED,
    MOST_IN_DOUBT,
    PLAIN,
    Gateway,
    Sent,
    assert_nothing_lost,
)

pytestmark = pytest.mark.stack

SLOW = {"latency": 0.3}
"""So slow that a worker always has some submits without a response."""


def killed_at(
    gateway: Gateway, point: Point, *, count: int = 44, modes: Sequence[str] = MIXED, **what: Any
) -> list[Sent]:
    """Let the worker die at a point while messages flow, and another one take over."""
    gateway.dies_at(point, nth=12)
    with gateway.sending(count, modes, **what) as load:
        gateway.until_dead()
        gateway.stack.start_worker()
    return load.messages


def test_a_worker_killed_before_it_writes_an_attempt_loses_nothing(gateway: Gateway):
    gateway.behave(**SLOW)
    messages = killed_at(gateway, Point.BEFORE_THE_WRITE)
    gateway.until_over(messages)
    assert_nothing_lost(gateway, messages, kills=1)


def test_a_message_whose_worker_died_between_the_write_and_the_socket_is_unknown_and_never_guessed(
    gateway: Gateway,
):
    gateway.behave(**SLOW)
    messages = killed_at(gateway, Point.BEFORE_THE_SOCKET, modes=[PLAIN])
    stories = gateway.until_over(messages)
    tally = assert_nothing_lost(gateway, messages, kills=1)
    assert tally.unknown >= 1
    assert tally.duplicates == 0
    carried = {got.text for got in gateway.got(messages)}
    assert {story.text for story in stories if story.status == "unknown"} == {
        story.text for story in stories if story.text not in carried
    }


def test_messages_without_an_answer_are_known_by_their_receipts_and_alerts_are_sent_again(
    gateway: Gateway,
):
    gateway.behave(**SLOW, hold=True)
    messages = killed_at(gateway, Point.BEFORE_THE_RESPONSE)
    # An unknown alert goes to the backup, which holds no receipts.
    gateway.until(messages, "sent", "unknown", "delivered")
    gateway.release_receipts(sum(got.carrier == "primary" for got in gateway.got()))
    stories = gateway.until_over(messages)
    tally = assert_nothing_lost(gateway, messages, kills=1)
    assert tally.unknown >= 1
    for story in stories:
        arrived = sum(attempt.status == "delivered" for attempt in story.attempts)
        assert (story.kinds["duplicate"] > 0) == (arrived > 1), story


def test_long_messages_cut_in_the_middle_are_delivered_whole_or_not_said_to_be(gateway: Gateway):
    gateway.behave(latency=0.1)
    # Three parts each.
    messages = killed_at(gateway, Point.BEFORE_THE_RECORD, count=24, modes=[PLAIN], lines=12)
    gateway.until(messages, "delivered", "unknown")
    whole = gateway.whole_texts()
    gateway.until([sent for sent in messages if sent.text in whole], "delivered")
    stories = gateway.stories(messages)
    assert {story.text for story in stories if story.status == "delivered"} == whole
    assert sum(story.unknown for story in stories) <= MOST_IN_DOUBT


def test_a_receipt_that_was_committed_and_not_answered_comes_again_and_counts_once(
    gateway: Gateway,
):
    messages = killed_at(gateway, Point.BEFORE_THE_RECEIPTS_RESPONSE)
    gateway.until_over(messages)
    assert_nothing_lost(gateway, messages, kills=1)
    copies = gateway.fetch(
        "SELECT max(copies) AS most, count(*) AS stored, count(DISTINCT message_id) AS messages"
        " FROM receipts WHERE message_id = ANY(%(ids)s)",
        ids=gateway.ids(messages),
    )[0]
    assert copies["most"] == 2, "the carrier sent it again"
    assert copies["stored"] == copies["messages"], "and it is the same receipt"


def test_a_worker_that_is_asked_to_stop_finishes_what_it_has_begun(gateway: Gateway):
    gateway.behave(**SLOW)
    with gateway.sending(60) as load:
        gateway.eventually(lambda: load.accepted >= 20, "20 were accepted")
        gateway.stack.stop_worker()
        assert gateway.stack.child("worker").has_said('"exit_code": 0')
        gateway.stack.start_worker()
    gateway.until(load.messages, "delivered")
    tally = assert_nothing_lost(gateway, load.messages, kills=0)
    assert tally.unknown == 0

"""The API is killed between the commit of a message and the response to who sent it."""

import pytest

from tests.fakes.mortal import Point
from tests.stack.gateway import Gateway, Story, assert_nothing_lost

pytestmark = pytest.mark.stack


def killed_at(gateway: Gateway, point: Point) -> list[Story]:
    """Let the API die there while messages come in, from somebody who asks again until answered."""
    gateway.dies_at(point, nth=8, program="api")
    with gateway.sending(24, patiently=True) as load:
        gateway.until_dead("api")
        gateway.stack.start_api()
    stories = gateway.until(load.messages, "delivered")
    tally = assert_nothing_lost(gateway, load.messages, kills=1)
    assert tally.duplicates == tally.unknown == 0
    accepted = gateway.fetch(
        "SELECT count(*) AS messages FROM messages WHERE body = ANY(%(texts)s)",
        texts=[message.text for message in load.messages],
    )
    assert accepted == [{"messages": 24}], "a request that was made again is the same message"
    # Where Temporal is slow the response does not wait for it, and may have gone out by then.
    assert point is Point.AFTER_THE_START or any(message.replayed for message in load.messages)
    return stories


def test_a_message_committed_by_an_api_that_died_before_the_start_is_taken_up_and_sent_once(
    gateway: Gateway,
):
    stories = killed_at(gateway, Point.BEFORE_THE_START)
    assert sum(story.kinds["taken_over"] for story in stories) >= 1


def test_a_workflow_start_of_which_nobody_heard_sends_once(gateway: Gateway):
    stories = killed_at(gateway, Point.AFTER_THE_START)
    assert len(stories) == 24

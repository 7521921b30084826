"""The worker is killed at the worst moments; every message is delivered, or honestly unknown."""

import pytest

from tests.fakes.dying import Point
from tests.stack.gateway import Gateway, assert_nothing_lost

pytestmark = pytest.mark.stack


def kill_at(gateway: Gateway, point: Point, *, count: int = 50, nth: int = 15):
    """Let the worker die at that point while messages flow, and another one take over."""
    gateway.behave(latency=0.2)
    gateway.start_dying(point, nth)
    with gateway.sending(count) as load:
        gateway.until_dead("worker")
        gateway.stack.start_worker()
    gateway.until(load.messages)
    return load.messages


def test_a_worker_killed_before_it_writes_an_attempt_loses_nothing(gateway: Gateway):
    messages = kill_at(gateway, Point.BEFORE_THE_WRITE)
    assert_nothing_lost(gateway, messages, kills=1)


def test_a_worker_killed_between_the_write_and_the_socket_leaves_few_in_doubt(gateway: Gateway):
    messages = kill_at(gateway, Point.BEFORE_THE_SOCKET)
    tally = assert_nothing_lost(gateway, messages, kills=1)
    assert tally.unknown >= 1


def test_a_worker_killed_between_the_socket_and_the_answer_leaves_few_in_doubt(gateway: Gateway):
    messages = kill_at(gateway, Point.BEFORE_THE_ANSWER)
    assert_nothing_lost(gateway, messages, kills=1)


def test_a_worker_killed_with_an_answer_that_it_did_not_write_leaves_few_in_doubt(
    gateway: Gateway,
):
    messages = kill_at(gateway, Point.BEFORE_THE_RECORD)
    assert_nothing_lost(gateway, messages, kills=1)


def test_a_receipt_that_was_committed_and_not_answered_comes_again_and_counts_once(
    gateway: Gateway,
):
    messages = kill_at(gateway, Point.BEFORE_THE_RECEIPTS_ANSWER)
    assert_nothing_lost(gateway, messages, kills=1)

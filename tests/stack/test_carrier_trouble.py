"""The SMSC cuts connections, dies, answers late, and sends receipts twice, late and out of order."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stack.gateway import (
    ALERT,
    MOST_IN_DOUBT,
    PLAIN,
    Gateway,
    Story,
    assert_nothing_lost,
)

pytestmark = pytest.mark.stack


def test_connections_cut_again_and_again_leave_few_unknown_and_lose_nothing(gateway: Gateway):
    gateway.behave(latency=0.2)
    cuts = 4
    with gateway.sending(80, a_second=25) as load:
        for cut in range(cuts):
            gateway.eventually(lambda so_far=15 * cut + 10: load.accepted >= so_far, "some more")
            if cut % 2:
                gateway.steer("/reset")
            else:
                gateway.steer("/reset", after_pdus=5)
    gateway.until_over(load.messages)
    assert_nothing_lost(gateway, load.messages, kills=cuts)


def test_answers_that_come_too_late_are_still_believed(gateway: Gateway):
    gateway.behave(latency=4.0, hold=True)  # the worker waits 3 s
    plain = gateway.send_many(10, [PLAIN])
    alerts = gateway.send_many(4, [ALERT])
    stories = gateway.until(plain, "sent")
    assert all(story.unknown == 1 for story in stories), "each was unknown for a second"
    assert all(story.attempts[0].ids for story in stories), "their ids are known after all"
    # By the backup, if that began before the primary responded.
    gateway.until(alerts, "delivered", "sent")
    gateway.eventually(
        lambda: all(
            attempt.status in {"accepted", "delivered"}
            for story in gateway.stories(alerts)
            for attempt in story.attempts
        ),
        "the primary has answered for them, too",
    )
    gateway.release_receipts(held=10 + 4)
    gateway.until([*plain, *alerts], "delivered")
    tally = assert_nothing_lost(gateway, [*plain, *alerts], kills=1, most_unknown=10 + 4)
    assert tally.unknown == len(plain) + len(alerts)


def test_receipts_that_come_twice_early_and_out_of_order_deliver_each_message_once(
    gateway: Gateway,
):
    gateway.behave(
        receipts=[
            {"state": "enroute", "early": True, "copies": 2},
            {"state": "delivered", "after": 0.2, "copies": 3},
            {"state": "accepted", "after": 0.4},
            {"state": "enroute", "after": 0.6},
        ],
        receipt_jitter=0.5,
    )
    before = gateway.counts()
    messages = gateway.send_many(30)
    gateway.until(messages, "delivered")
    # Each is sent until it was answered: 2 early ones and 5 more for each message.
    gateway.eventually(
        lambda: (
            gateway.counts()["receipts_acknowledged"] - before["receipts_acknowledged"] >= 30 * 7
        ),
        "all of them were answered",
    )
    assert_nothing_lost(gateway, messages, kills=0)
    after = gateway.counts()
    assert after["receipts_refused"] == before["receipts_refused"]
    assert after["submits"] - before["submits"] == after["taken"] - before["taken"] == 30
    for story in gateway.stories(messages):
        assert story.status == "delivered"
        assert story.kinds["duplicate"] == 0


def test_an_smsc_that_is_killed_and_comes_back_leaves_few_unknown(gateway: Gateway):
    gateway.behave(latency=1.0)
    with gateway.sending(60, a_second=20) as load:
        gateway.eventually(lambda: load.accepted >= 15, "15 were accepted")
        gateway.stack.kill_simulator("primary")
        gateway.eventually(lambda: load.accepted >= 40, "they are accepted without the primary")
        gateway.stack.start_simulator("primary")

    def has_come_as_far_as_it_will(story: Story) -> bool:
        if story.status == "sent":  # by an SMSC that forgot it with its memory, and its receipt
            return not set(story.attempts[-1].ids) & {
                id_ for got in gateway.got(load.messages) for id_ in got.ids
            }
        return story.status == "delivered" or (story.status == "unknown" and story.mode == PLAIN)

    stories = gateway.until_so(load.messages, has_come_as_far_as_it_will)
    unknown = sum(story.unknown for story in stories)
    forgotten = [story for story in stories if story.status == "sent"]
    assert 1 <= unknown <= MOST_IN_DOUBT
    assert len(forgotten) <= MOST_IN_DOUBT
    for story in stories:
        taken = sum(a.status in {"accepted", "delivered"} for a in story.attempts)
        assert taken <= 1 + story.unknown, story
    assert {got.carrier for got in gateway.got(load.messages)} == {"primary", "backup"}
    for story in forgotten:  # else alerts would go to the next route after a minute
        gateway.client.cancel(story.message_id)
    gateway.providers_are_up()
    again = gateway.send_many(4)
    gateway.until(again, "delivered")
    assert {got.carrier for got in gateway.got(again)} == {"primary"}


def test_of_replays_and_late_receipts_that_come_together_none_loses_or_doubles_a_message(
    gateway: Gateway,
):
    gateway.behave(response="silence", taken=True, hold=True)
    messages = gateway.send_many(24, ["promotional"])  # whose carrier is given up after 4 s
    gateway.until(messages, "dead_letter")
    gateway.behave()
    ids = [message.message_id for message in messages]

    def replay(some: list[str]) -> set[str]:
        return set(gateway.client.replay_dead_letters(message_ids=some).replayed)

    before = replay(ids[:8])
    assert before == set(ids[:8])
    gateway.until(messages[:8], "delivered")  # their receipts are still to come, and show copies
    with ThreadPoolExecutor() as threads:
        replays = [threads.submit(replay, ids) for _ in range(2)]
        threads.submit(gateway.release_receipts, len(messages)).result()
        first, second = (each.result() for each in replays)
    assert not before & first
    assert not first & second, "each message is replayed once"
    stories = gateway.until(messages, "delivered")
    gateway.eventually(
        lambda: all(
            (sum(a.status == "delivered" for a in story.attempts) > 1)
            == (story.kinds["duplicate"] > 0)
            for story in gateway.stories(messages)
        ),
        "who got it twice is written down",
    )
    for story in stories:
        replayed = story.message_id in before | first | second
        assert len(story.attempts) <= 1 + replayed, story
    tally = assert_nothing_lost(gateway, messages, kills=1, most_unknown=len(messages))
    assert tally.duplicates >= 8

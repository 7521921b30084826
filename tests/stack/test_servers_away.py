"""Temporal and Postgres go away, come back, and come back without what they knew."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from tests.stack.gateway import PLAIN, Gateway, assert_nothing_lost
from workflows.ports.attributes import SEARCH_ATTRIBUTES

pytestmark = pytest.mark.stack


def test_what_is_accepted_while_temporal_is_away_is_delivered_when_it_is_back(gateway: Gateway):
    with gateway.sending(40, a_second=8) as load:
        gateway.eventually(lambda: load.accepted >= 8, "some were accepted")
        gateway.stack.stop_temporal()
        gateway.steer("/reset")  # so that the worker has to begin to poll anew, and cannot
        gateway.eventually(lambda: load.accepted >= 25, "they are accepted without Temporal")
        gateway.stack.start_temporal()
    gateway.until_over(load.messages)
    assert_nothing_lost(gateway, load.messages, kills=1)  # the reset
    # Its own pool works again, not only that of the next route.
    again = gateway.send_many(4)
    gateway.until(again, "delivered")
    assert {got.carrier for got in gateway.got(again)} == {"primary"}


def test_when_temporal_has_lost_its_database_every_open_message_is_taken_up_and_sent_once(
    gateway: Gateway,
):
    refused = {"to": "+447700900058"}  # throttled, each time
    soon = datetime.now(UTC) + timedelta(seconds=15)
    gateway.behave(hold=True)
    waiting = {
        "sent": gateway.send_many(12),
        "scheduled": gateway.send_many(4, scheduled_at=soon),
        "retried": gateway.send_many(2, [PLAIN], **refused),
    }
    for status, messages in waiting.items():
        gateway.until(messages, status)
    with gateway.sending(20, a_second=10) as load:
        gateway.eventually(lambda: load.accepted >= 5, "some were accepted")
        gateway.stack.kill_temporal()
        gateway.eventually(lambda: load.accepted >= 12, "they are accepted without Temporal")
        gateway.stack.start_temporal(empty=True)
    open_ones = [each for messages in waiting.values() for each in messages]
    gateway.eventually(
        lambda: all(story.epoch > 1 for story in gateway.stories(open_ones)),
        "all that was open has another runner",
    )
    mine = [*waiting["sent"], *waiting["scheduled"], *load.messages]
    gateway.until(mine, "sent")
    gateway.release_receipts(len(mine))
    gateway.until(mine, "delivered")
    tally = assert_nothing_lost(gateway, mine, kills=0)
    assert tally.duplicates == tally.unknown == 0
    assert datetime.now(UTC) >= soon, "what was scheduled was sent in its time, not before"
    for message in waiting["retried"]:
        gateway.client.cancel(message.message_id)
    gateway.until(waiting["retried"], "canceled")
    known = asyncio.run(search_attributes(gateway))
    assert set(SEARCH_ATTRIBUTES) <= known, "people find messages by them again, too"


async def search_attributes(gateway: Gateway) -> set[str]:
    client = await Client.connect(gateway.stack.temporal.address)
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace="default")
    )
    return set(known.custom_attributes)


def test_postgres_restarted_and_killed_while_messages_flow_loses_nothing(gateway: Gateway):
    # Some answers come while there is no database, and no receipt makes up for one.
    gateway.behave(latency=0.5, hold=True)
    with gateway.sending(60, a_second=10, patiently=True) as load:
        gateway.eventually(lambda: load.accepted >= 10, "10 were accepted")
        gateway.stack.restart_postgres()
        gateway.eventually(lambda: load.accepted >= 30, "30 were accepted")
        gateway.stack.kill_postgres()
        gateway.stack.start_postgres()
    gateway.until(load.messages, "sent", "unknown", "delivered")
    gateway.release_receipts(sum(got.carrier == "primary" for got in gateway.got()))
    gateway.until_over(load.messages)
    tally = assert_nothing_lost(gateway, load.messages, kills=2)
    assert tally.unknown <= 2, "what was answered meanwhile was written when it came back"
    accepted = gateway.fetch(
        "SELECT count(*) AS messages FROM messages WHERE body = ANY(%(texts)s)",
        texts=[message.text for message in load.messages],
    )
    assert accepted == [{"messages": 60}], "a request that was made again is the same message"


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A server whose every process is stopped, and whose kernel goes on taking bytes for it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    processes = [pid, *map(int, children)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_postgres_stopped_while_messages_flow_is_answered_with_503_and_loses_nothing(
    gateway: Gateway,
):
    # For longer than a statement may take, and for some tries after that.
    gateway.behave(latency=0.5, hold=True)
    postgres = gateway.stack._own_postgres()._child.pid
    with gateway.sending(60, a_second=10, patiently=True) as load:
        gateway.eventually(lambda: load.accepted >= 10, "10 were accepted")
        with stopped(postgres):
            time.sleep(1)  # until those under way have come to wait
            ready = httpx.get(f"{gateway.stack.api_url}/readyz", timeout=100)
            assert (ready.status_code, ready.json()["database"]) == (503, "down")
            assert ready.elapsed < timedelta(seconds=15), "some two seconds, on an idle machine"
            accepted = load.accepted
            sent = httpx.post(
                f"{gateway.stack.api_url}/api/v1/sms/send",
                headers={"Authorization": f"Bearer {gateway.stack.api_key.secret}"},
                json={"to": "+447700900123", "from": "ACME", "body": "refused meanwhile"},
                timeout=100,
            )
            assert sent.status_code == 503
            assert sent.headers["Retry-After"]
            assert sent.elapsed < timedelta(seconds=60), "some fifteen, on an idle machine"
            assert load.accepted == accepted
            time.sleep(5)
        gateway.eventually(lambda: load.accepted >= 30, "30 were accepted")
    gateway.until(load.messages, "sent", "unknown", "delivered")
    gateway.release_receipts(sum(got.carrier == "primary" for got in gateway.got()))
    gateway.until_over(load.messages)
    assert_nothing_lost(gateway, load.messages, kills=1)
    ready = httpx.get(f"{gateway.stack.api_url}/readyz", timeout=100)
    assert ready.status_code == 200

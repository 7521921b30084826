import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHistory
from temporalio.worker import Worker

from activities.callbacks import CallbackDelivery
from connectors.webhooks import Webhooks
from domain.callbacks.events import CallbackState
from domain.configuration import CallbackPolicy, Configuration, Environment
from domain.states import MessageStatus
from services.callbacks.drain import LaneDrain
from services.callbacks.lanes import TemporalLanes
from services.callbacks.management import Callbacks
from services.callbacks.slice import AT_ONCE
from services.workflow_client import WorkflowClient
from store import callbacks as store
from store.database import Database
from tests.fakes.callback_receiver import CallbackReceiver, Reply, is_signed_with
from tests.outbox import ACCOUNT, NUMBER, SECRET, Outbox, public
from workers.task_queues import HANGING_LANES_AT_ONCE, LANES_AT_ONCE
from workflows.callbacks import (
    CALLBACKS,
    HANGING_CALLBACKS,
    CallbackLane,
    CallbackWorkflow,
    callback_workflow_id,
)

pytestmark = pytest.mark.stack

SENT, DELIVERED, FAILED = MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.FAILED
HISTORIES = Path(__file__).parent / "histories" / "callbacks"


class Delivery:
    """The callbacks of a gateway: woken by hand here, delivered by real workers."""

    def __init__(self, client: Client, database: Database) -> None:
        self._client = client
        self._database = database
        self.policy = CallbackPolicy(allow_private_addresses=True, timeout=timedelta(seconds=5))
        self.callbacks = Callbacks(database, TemporalLanes(self._connected), self.configuration)

    def configuration(self) -> Configuration:
        return Configuration(providers={}, routes=(), callbacks=self.policy)

    def retries_after(self, *seconds: float) -> None:
        delays = tuple(timedelta(seconds=delay) for delay in seconds)
        self.policy = self.policy.model_copy(update={"retry_delays": delays})

    async def _connected(self) -> Client:
        return self._client

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        async with Webhooks(allow_private=lambda: True) as webhooks:
            drain = LaneDrain(
                self._database, webhooks, self.configuration, WorkflowClient(self._connected)
            )
            drain_lane = CallbackDelivery(drain).drain_lane
            async with (
                Worker(
                    self._client,
                    task_queue=HANGING_CALLBACKS,
                    activities=[drain_lane],
                    max_concurrent_activities=HANGING_LANES_AT_ONCE,
                ),
                Worker(
                    self._client,
                    task_queue=CALLBACKS,
                    workflows=[CallbackWorkflow],
                    activities=[drain_lane],
                    max_concurrent_activities=LANES_AT_ONCE,
                ) as main,
            ):
                yield main

    async def ended(self, lane: UUID, within: float = 120) -> WorkflowHistory:
        """The history of a lane's workflow, once it has delivered everything."""
        handle = self._client.get_workflow_handle(callback_workflow_id(str(lane)))
        await asyncio.wait_for(handle.result(), within)
        return await handle.fetch_history()

    async def status(self, lane: UUID) -> WorkflowExecutionStatus | None:
        handle = self._client.get_workflow_handle(callback_workflow_id(str(lane)))
        return (await handle.describe()).status


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


@pytest.fixture
def delivery(temporal_client: Client, database: Database) -> Delivery:
    return Delivery(temporal_client, database)


async def test_callbacks_are_delivered_in_order_and_then_the_workflow_ends(
    outbox, receiver, delivery
):
    messages = [await outbox.message(receiver.url()) for _ in range(3)]
    for message in messages:
        await outbox.emit(message, SENT, FAILED, DELIVERED)
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        await delivery.callbacks.wake([lane])
        await delivery.ended(lane)
    for message in messages:
        assert receiver.statuses_of(public(message)) == ["SENT", "FAILED", "DELIVERED"]
    assert all(is_signed_with(SECRET, request) for request in receiver.requests)
    assert await outbox.states(lane) == {"delivered": 9}


async def test_a_lane_whose_workflow_has_ended_is_started_again(outbox, receiver, delivery):
    message = await outbox.message(receiver.url())
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        for status in (SENT, DELIVERED):
            await outbox.emit(message, status)
            await delivery.callbacks.wake([lane])
            await delivery.ended(lane)
    assert receiver.statuses_of(public(message)) == ["SENT", "DELIVERED"]


async def test_a_callback_added_at_the_last_moment_keeps_the_workflow_going(
    outbox, receiver, delivery, monkeypatch
):
    message = await outbox.message(receiver.url())
    lane = await outbox.lane(receiver.url())
    look = store.next_due

    async def emit_after_the_look(connection, lane_id, at):
        monkeypatch.setattr(store, "next_due", look)
        found = await look(connection, lane_id, at)
        await outbox.emit(message, DELIVERED)
        await delivery.callbacks.wake([lane])
        return found

    monkeypatch.setattr(store, "next_due", emit_after_the_look)
    async with delivery.worker():
        await outbox.emit(message, SENT)
        await delivery.callbacks.wake([lane])
        await delivery.ended(lane)
    assert receiver.statuses_of(public(message)) == ["SENT", "DELIVERED"]


async def test_a_new_callback_does_not_wait_for_the_retry_of_another(outbox, receiver, delivery):
    delivery.retries_after(3600)
    receiver.always_responds(500, path="/broken")
    broken, fine = (
        await outbox.message(receiver.url("/broken")),
        await outbox.message(receiver.url()),
    )
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        (callback,) = await outbox.emit(broken, SENT)
        await delivery.callbacks.wake([lane])
        await until_tried(outbox, callback, 1)
        await until_left(outbox, lane)
        await outbox.emit(fine, SENT)
        await delivery.callbacks.wake([lane])
        await receiver.received(2, within=5)
        assert await delivery.status(lane) is WorkflowExecutionStatus.RUNNING
    assert len(receiver.to("/broken")) == 1


async def test_a_replay_goes_out_while_the_lane_waits_for_a_retry(outbox, receiver, delivery):
    delivery.retries_after(3600)
    receiver.will_respond(500, 204)
    (callback,) = await outbox.emit(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        await delivery.callbacks.wake([lane])
        await until_tried(outbox, callback, 1)
        await until_left(outbox, lane)
        assert await delivery.callbacks.replay(
            callback, ACCOUNT, Environment.LIVE, now=datetime.now(UTC)
        )
        await delivery.ended(lane)
    assert (await outbox.callback(callback))["state"] == "delivered"


async def until_tried(outbox: Outbox, callback_id: UUID, tries: int) -> None:
    async with asyncio.timeout(60):
        while (await outbox.callback(callback_id))["tries"] < tries:
            await asyncio.sleep(0.02)


async def until_left(outbox: Outbox, lane: UUID) -> None:
    async with asyncio.timeout(60):
        while await outbox.active(lane):
            await asyncio.sleep(0.02)


async def test_an_origin_that_hangs_and_one_that_fails_delay_nobody_else(
    outbox, receiver, delivery
):
    async with CallbackReceiver() as hanging, CallbackReceiver() as failing, delivery.worker():
        hanging.always_responds(Reply(delay=60))
        failing.always_responds(503)
        for trouble in (hanging, failing):
            for _ in range(2 * AT_ONCE):
                await outbox.emit(await outbox.message(trouble.url()), SENT, DELIVERED)
            await delivery.callbacks.wake([await outbox.lane(trouble.url())])
        await hanging.received(2, within=60)
        await failing.received(AT_ONCE, within=60)
        messages = [await outbox.message(receiver.url()) for _ in range(3 * AT_ONCE)]
        for message in messages:
            await outbox.emit(message, SENT, DELIVERED)
        quick = await outbox.lane(receiver.url())
        await delivery.callbacks.wake([quick])
        await receiver.received(2 * len(messages), within=30)
        await delivery.ended(quick, within=60)
    for message in messages:
        assert receiver.statuses_of(public(message)) == ["SENT", "DELIVERED"]


async def test_an_origin_that_stays_down_is_asked_by_one_request_at_a_time(
    outbox, receiver, delivery
):
    receiver.always_responds(503)
    for _ in range(4 * AT_ONCE):
        await outbox.emit(await outbox.message(receiver.url()), SENT)
    async with delivery.worker():
        await delivery.callbacks.wake([await outbox.lane(receiver.url())])
        await receiver.received(AT_ONCE)
        await asyncio.sleep(0.5)
        before = len(receiver.requests)
        await asyncio.sleep(1.5)
    assert before <= 2 * AT_ONCE
    assert len(receiver.requests) == before + 1


async def test_an_origin_that_was_down_gets_everything_once_it_is_back(outbox, receiver, delivery):
    delivery.retries_after(*[0.2] * 30)
    await receiver.stop()
    for _ in range(3 * AT_ONCE):
        await outbox.emit(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        await delivery.callbacks.wake([lane])
        await asyncio.sleep(1)
        await receiver.start()
        await delivery.ended(lane)
    assert await outbox.states(lane) == {"delivered": 3 * AT_ONCE}
    assert len({request.webhook_id for request in receiver.requests}) == 3 * AT_ONCE


async def test_another_worker_takes_up_what_one_left_in_the_middle(outbox, receiver, delivery):
    receiver.will_respond(Reply(delay=30))
    message = await outbox.message(receiver.url())
    await outbox.emit(message, SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        await delivery.callbacks.wake([lane])
        await receiver.received(1)
    async with delivery.worker():
        await delivery.ended(lane)
    assert receiver.statuses_of(public(message)) == ["SENT", "SENT", "DELIVERED"]
    first, again, _ = receiver.requests
    assert first.webhook_id == again.webhook_id


async def test_the_sweep_starts_a_lane_that_temporal_has_forgotten(outbox, receiver, delivery):
    message = await outbox.message(receiver.url())
    (callback,) = await outbox.emit(message, SENT)
    lane = await outbox.lane(receiver.url())
    async with outbox.database.begin() as connection:
        await store.take(connection, lane)
    notified_at = (await outbox.callback(callback))["occurred_at"]
    async with delivery.worker():
        assert await delivery.callbacks.sweep(notified_at + timedelta(seconds=10)) == 0
        assert await delivery.callbacks.sweep(notified_at + timedelta(seconds=20)) == 1
        await delivery.ended(lane)
    assert receiver.statuses_of(public(message)) == ["SENT"]


async def test_histories_hold_no_address_no_number_and_no_answer(outbox, receiver, delivery):
    delivery.retries_after(0.1)
    receiver.will_respond(Reply(500, body=b"who is Bob?"))
    await outbox.emit(await outbox.message(receiver.url("/bobs-hook")), SENT)
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        await delivery.callbacks.wake([lane])
        history = (await delivery.ended(lane)).to_json()
    assert str(lane) in history
    for secret in (NUMBER, NUMBER[1:], "bobs-hook", "Bob", str(receiver.port), SECRET, "Hello"):
        assert secret not in history


async def test_a_long_run_goes_on_in_a_new_one(outbox, receiver, delivery, monkeypatch):
    monkeypatch.setattr(workflow.Info, "is_continue_as_new_suggested", lambda _: True)
    delivery.retries_after(0.1, 0.1)
    receiver.will_respond(500, 500)
    message = await outbox.message(receiver.url())
    await outbox.emit(message, SENT, DELIVERED)
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        await delivery.callbacks.wake([lane])
        history = await delivery.ended(lane)
    assert receiver.statuses_of(public(message)) == ["SENT", "SENT", "SENT", "DELIVERED"]
    started = history.events[0].workflow_execution_started_event_attributes
    assert started.continued_execution_run_id


# --- days, in seconds --------------------------------------------------------------------------


@pytest.mark.java
async def test_the_schedule_of_retries_runs_to_its_end_over_days(
    outbox, receiver, database, time_skipping
):
    delivery = Delivery(time_skipping.client, database)
    receiver.always_responds(500)
    first, second = await outbox.emit(await outbox.message(receiver.url()), FAILED, DELIVERED)
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        # Time is skipped while somebody waits for a result.
        await time_skipping.client.execute_workflow(
            CallbackWorkflow.run,
            CallbackLane(str(lane)),
            id=callback_workflow_id(str(lane)),
            task_queue=CALLBACKS,
        )
    for callback in (first, second):
        stored = await outbox.callback(callback)
        assert (stored["state"], stored["tries"]) == (CallbackState.FAILED, 10)
    times = [int(request.headers["webhook-timestamp"]) for request in receiver.requests]
    waits = [later - earlier for earlier, later in pairwise(times)]
    minutes = 60
    hours = 60 * minutes
    schedule = [5, 5 * minutes, 30 * minutes, *(hours * n for n in (2, 5, 10, 14, 20, 24))]
    assert len(waits) == 19
    for wait, expected in zip(waits, [*schedule, 0, *schedule], strict=True):
        assert expected - 1 <= wait <= expected + 5


# --- histories under way -----------------------------------------------------------------------


# --- receivers that hang -----------------------------------------------------------------------

HANGING = 330
GOOD = 10
IN_GOOD_TIME = 45.0
"""Seconds, many times what a callback takes on a busy machine, and less than one timeout."""


async def test_receivers_that_hang_do_not_delay_the_callbacks_of_others(outbox, receiver, delivery):
    delivery.policy = delivery.policy.model_copy(update={"timeout": timedelta(seconds=60)})
    delivery.retries_after(*[1.0] * 50)
    lanes = []
    async with CallbackReceiver(host="0.0.0.0") as hanging:
        hanging.always_responds(Reply(delay=3600), path="/hang")
        for number in range(HANGING):  # each address is an origin of its own
            url = hanging.url("/hang", host=f"127.1.{number // 250}.{number % 250 + 1}")
            for _ in range(2):
                await outbox.emit(await outbox.message(url), SENT)
            lanes.append(await outbox.lane(url))
        async with delivery.worker():
            await delivery.callbacks.wake(set(lanes))
            async with asyncio.timeout(300):
                while len({request.headers["host"] for request in hanging.requests}) < HANGING:
                    await asyncio.sleep(0.1)
            for _ in range(GOOD):
                heard = len(receiver.requests) + 2
                began = time.monotonic()
                await outbox.emit(await outbox.message(receiver.url()), SENT, DELIVERED)
                await delivery.callbacks.wake([await outbox.lane(receiver.url())])
                await receiver.received(heard, within=300)
                assert time.monotonic() - began < IN_GOOD_TIME
                await asyncio.sleep(1)


async def test_a_lane_whose_receiver_hangs_is_drained_apart_until_it_answers_again(
    outbox, receiver, delivery, monkeypatch
):
    monkeypatch.setattr("services.callbacks.slice._HANGS_FROM_SECONDS", 0.2)
    delivery.policy = delivery.policy.model_copy(update={"timeout": timedelta(seconds=0.4)})
    delivery.retries_after(1.0, 1.0, 1.0, 1.0)
    receiver.will_respond(Reply(delay=600), Reply(delay=600))
    await outbox.emit(await outbox.message(receiver.url()), SENT)
    lane = await outbox.lane(receiver.url())
    async with delivery.worker():
        await delivery.callbacks.wake([lane])
        await receiver.received(3, within=60)
        history = await delivery.ended(lane, within=60)
    queues = [
        event.activity_task_scheduled_event_attributes.task_queue.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert queues[0] == CALLBACKS
    assert set(queues[1:]) == {HANGING_CALLBACKS}
    assert await outbox.states(lane) == {"delivered": 1}

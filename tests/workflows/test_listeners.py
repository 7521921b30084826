"""A listening workflow receives each message's final status, whatever fails on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from domain.modes import MissingReceiptPolicy, Mode
from services.submission import Refused
from simulator.behaviour import Behaviour, ReceiptState, ReceiptStep
from tests.gateway import CONFIGURATION, Gateway, gateway, running_gateway
from workers.roles import Role
from workflows.ports.listener import MESSAGE_REPORT, MessageReport
from workflows.ports.send import send_workflow_id

__all__ = ["gateway"]

pytestmark = pytest.mark.stack

QUEUE = "tests/listeners"
TELLS = MissingReceiptPolicy.TELL_LISTENER


@workflow.defn
class Listener:
    """Collects so many reports of messages, and returns their statuses."""

    def __init__(self) -> None:
        self._reports: dict[str, MessageReport] = {}

    @workflow.run
    async def run(self, count: int) -> list[tuple[str, str]]:
        await workflow.wait_condition(lambda: len(self._reports) >= count)
        return [(report.message_id, report.status) for report in self._reports.values()]

    @workflow.signal(name=MESSAGE_REPORT)
    def message_reported(self, report: MessageReport) -> None:
        self._reports.setdefault(report.id, report)

    @workflow.query
    def reports(self) -> list[MessageReport]:
        return list(self._reports.values())


@asynccontextmanager
async def listening(
    client: Client, count: int
) -> AsyncIterator[WorkflowHandle[Listener, list[tuple[str, str]]]]:
    """A workflow that waits for so many reports, and its worker."""
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=QUEUE, workflows=[Listener], workflow_runner=runner):
        yield await client.start_workflow(
            Listener.run, count, id=f"listener/{uuid4().hex}", task_queue=QUEUE
        )


async def result(listener: WorkflowHandle[Listener, list[tuple[str, str]]]) -> dict[str, str]:
    async with asyncio.timeout(120):
        return dict([tuple(each) for each in await listener.result()])


async def test_a_listener_receives_the_final_status_of_each_of_its_messages(gateway: Gateway):
    gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=0.2),)))
    async with listening(gateway.client, 2) as listener:
        delivered = await gateway.send(listener=listener.id)
        await gateway.until(delivered, "delivered")
        undelivered = Behaviour(receipts=(ReceiptStep(state=ReceiptState.UNDELIVERABLE),))
        gateway.primary.set_default(undelivered)
        failed = await gateway.send(listener=listener.id)
        assert await result(listener) == {
            delivered.message_id: "delivered",
            failed.message_id: "failed",
        }


async def test_a_message_with_a_listener_has_a_runner_of_its_own(database_url, temporal_client):
    async with (
        running_gateway(
            database_url, temporal_client, workflow_starts=0, with_worker=False
        ) as gateway,
        listening(temporal_client, 1) as listener,
    ):
        message = await gateway.send(listener=listener.id)
        assert (await gateway.row(message)).owner == send_workflow_id(message.message_id)


async def test_a_listener_receives_one_report_of_a_missing_receipt_and_then_the_final_status(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client) as gateway:
        gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=9),)))
        async with listening(temporal_client, 2) as listener:
            message = await gateway.send(
                mode=Mode.ALERT,
                listener=listener.id,
                receipt_deadline=timedelta(seconds=5),
                missing_receipt=TELLS,
            )
            async with asyncio.timeout(120):
                reports = await listener.result()
            assert [tuple(each) for each in reports] == [
                (message.message_id, "no_receipt"),
                (message.message_id, "delivered"),
            ]
        assert await gateway.attempts(message) == [("primary", "delivered")]
        (received,) = gateway.primary.messages
        assert received.parts[0].validity > timedelta(minutes=50), "it may still be delivered"


async def test_a_message_that_ends_as_sent_is_reported_as_sent(database_url, temporal_client):
    silent = CONFIGURATION.replace(
        "echoes_reference = true", "echoes_reference = true\nreceipts = false", 1
    )
    async with (
        running_gateway(database_url, temporal_client, configuration=silent) as gateway,
        listening(temporal_client, 1) as listener,
    ):
        message = await gateway.send(listener=listener.id)
        assert await result(listener) == {message.message_id: "sent"}


async def test_what_happened_while_nobody_delivered_events_is_reported_afterwards(
    database_url, temporal_client
):
    async with (
        running_gateway(database_url, temporal_client, with_worker=False) as gateway,
        listening(temporal_client, 1) as listener,
    ):
        await gateway.start_worker(Role.SENDS, Role.PROVIDERS)
        await gateway.providers_up("primary", "backup")
        message = await gateway.send(listener=listener.id)
        await gateway.until(message, "delivered")
        assert await listener.query(Listener.reports) == []
        await gateway.start_worker(Role.CALLBACKS)
        assert await result(listener) == {message.message_id: "delivered"}


async def test_a_listener_that_has_ended_is_no_error_and_leaves_nothing_to_do(gateway: Gateway):
    async with listening(gateway.client, 0) as listener:
        await listener.result()
    with capture_logs() as logs:
        ended = await gateway.send(listener=listener.id)
        never = await gateway.send(listener="listener/never-there")
        for message in (ended, never):
            await gateway.until(message, "delivered")
        async with asyncio.timeout(120):
            while await gateway.fetch("SELECT FROM outbox WHERE state = 'pending'"):
                await asyncio.sleep(0.05)
    states = await gateway.fetch("SELECT kind, state FROM outbox")
    assert [(row["kind"], row["state"]) for row in states] == [
        ("message.report", "delivered"),
        ("message.report", "delivered"),
    ]
    gone = {entry["workflow_id"] for entry in logs if entry["event"] == "listener_gone"}
    assert gone == {listener.id, "listener/never-there"}
    listed = await gateway.services.callbacks.page("default", "live")
    assert listed.items == []


async def test_tell_listener_needs_a_listener(gateway: Gateway):
    with pytest.raises(Refused) as refused:
        await gateway.send(missing_receipt=TELLS)
    (error,) = refused.value.errors
    assert (error.field, error.reason) == ("missing_receipt", "listener_missing")


@pytest.mark.parametrize("workflow_starts", [0, 1000], ids=["in a group", "alone"])
async def test_a_request_may_send_any_message_to_the_next_route_when_no_receipt_comes(
    database_url, temporal_client, workflow_starts
):
    async with running_gateway(
        database_url, temporal_client, workflow_starts=workflow_starts
    ) as gateway:
        gateway.primary.set_default(Behaviour(receipts=()))
        deadline = timedelta(seconds=5)
        moved = await gateway.send(
            receipt_deadline=deadline, missing_receipt=MissingReceiptPolicy.NEXT_ROUTE
        )
        stayed = await gateway.send(receipt_deadline=deadline)
        expired = await gateway.send(
            mode=Mode.ALERT,
            receipt_deadline=deadline,
            missing_receipt=MissingReceiptPolicy.EXPIRE,
        )
        for message, status in ((moved, "delivered"), (stayed, "expired"), (expired, "expired")):
            await gateway.until(message, status)
        assert await gateway.attempts(moved) == [("primary", "expired"), ("backup", "delivered")]
        assert await gateway.attempts(expired) == [("primary", "expired")]

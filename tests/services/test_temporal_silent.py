"""Temporal goes silent: no call waits for it, and all goes on when it is back."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial

import pytest
from temporalio.client import Client
from uuid_utils.compat import uuid7

from domain.modes import Priority
from domain.states import MessageStatus
from services.assembly import connect_temporal
from services.callbacks.lanes import TemporalLanes
from services.workflow_client import SignalResult, WorkflowClient
from settings.settings import Settings
from tests.fakes.silent_proxy import SilentProxy, silent_proxy
from workflows.ports.send import MessageChanged, send_workflow_id

pytestmark = pytest.mark.stack

FOREVER = 100.0
"""Seconds after which a call counts as endless."""
NEWS = MessageChanged(MessageStatus.QUEUED.value, final=False)


@pytest.fixture
def proxy(temporal_server) -> Iterator[SilentProxy]:
    host, port = temporal_server.address.rsplit(":", 1)
    with silent_proxy(host, int(port)) as proxy:
        yield proxy


@pytest.fixture
def workflow_client(proxy, temporal_namespace) -> WorkflowClient:
    return WorkflowClient(partial(Client.connect, proxy.address, namespace=temporal_namespace))


async def start(workflow_client: WorkflowClient) -> bool:
    return await workflow_client.start_send(
        uuid7(),
        1,
        mode="transactional",
        country="GB",
        account="default",
        priority=Priority.NORMAL,
    )


async def test_calls_to_a_temporal_that_is_silent_end_and_succeed_when_it_is_back(
    workflow_client, proxy
):
    assert await start(workflow_client)
    proxy.silence()
    async with asyncio.timeout(FOREVER):
        assert not await start(workflow_client)
        await asyncio.sleep(2.1)  # it rests after each failure
        assert not await workflow_client.start_bulk("bat_1", priority=Priority.NORMAL)
        await asyncio.sleep(2.1)
        assert (
            await workflow_client.signal(send_workflow_id("msg_1"), NEWS)
            is SignalResult.TEMPORAL_AWAY
        )
        await asyncio.sleep(2.1)
        assert not await workflow_client.is_reachable()
        await asyncio.sleep(2.1)
        lanes = TemporalLanes(workflow_client.client)
        assert not await lanes.start(uuid7(), "default")
    proxy.resume()
    async with asyncio.timeout(FOREVER):
        while not await start(workflow_client):
            await asyncio.sleep(0.1)


async def test_while_temporal_is_silent_calls_fail_at_once_between_tries(workflow_client, proxy):
    assert await start(workflow_client)
    proxy.silence()
    assert not await start(workflow_client)
    began = time.monotonic()
    assert not any([await start(workflow_client) for _ in range(50)])
    assert time.monotonic() - began < 60, "50 calls that wait would take more than a minute"


async def test_connecting_to_a_silent_temporal_ends(workflow_client, proxy, temporal_namespace):
    proxy.silence()
    async with asyncio.timeout(FOREVER):
        assert await workflow_client.client() is None
    settings = Settings(
        database_url="postgresql://nobody@127.0.0.1/none",
        recipient_hash_key="k" * 32,
        temporal_address=proxy.address,
        temporal_namespace=temporal_namespace,
    )
    async with asyncio.timeout(FOREVER):
        with pytest.raises(RuntimeError):
            await connect_temporal(settings)

"""People find workflows in Temporal by what docs/temporal.md says, and see what each does."""

import asyncio
import re
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from simulator.behaviour import Behaviour, Response
from tests.gateway import RECIPIENT, Gateway, gateway
from workflows.ports.send import send_workflow_id

__all__ = ["gateway"]

PAGE = Path(__file__).parents[2] / "docs" / "temporal.md"
QUERIES = re.findall(r"```sql\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
FAILED, ALERTS, NOT_DELIVERED = QUERIES[:3]


async def found(client: Client, query: str) -> set[str]:
    return {each.id async for each in client.list_workflows(query)}


async def until_found(client: Client, query: str, workflow_id: str) -> None:
    """Visibility follows what happened after a moment."""
    async with asyncio.timeout(120):
        while workflow_id not in await found(client, query):
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("query", QUERIES)
async def test_every_query_of_the_documentation_is_understood(query: str, temporal_client: Client):
    assert isinstance(await found(temporal_client, query), set)


async def test_a_workflow_is_found_by_how_its_message_ended_and_by_its_provider(gateway: Gateway):
    delivered = await gateway.send()
    await gateway.until(delivered, "delivered")
    gateway.primary.set_number(RECIPIENT, Behaviour(response=Response.REFUSE, status=0x0000000B))
    refused = await gateway.send()
    await gateway.until(refused, "failed")
    good, bad = (send_workflow_id(each.message_id) for each in (delivered, refused))

    await until_found(gateway.client, FAILED, bad)
    await until_found(gateway.client, NOT_DELIVERED, bad)
    await until_found(gateway.client, "Provider = 'primary' AND MessageStatus = 'delivered'", good)
    assert good not in await found(gateway.client, FAILED)
    assert bad not in await found(gateway.client, ALERTS)


async def test_a_running_workflow_shows_what_it_waits_for_and_names_the_provider(gateway: Gateway):
    gateway.primary.set_default(Behaviour(receipts=()))
    message = await gateway.send()
    await gateway.until(message, "sent")
    handle = gateway.client.get_workflow_handle(send_workflow_id(message.message_id))

    async with asyncio.timeout(120):
        while "receipt" not in (details := await current_details(gateway.client, handle.id)):
            await asyncio.sleep(0.1)
    assert details.startswith("Waits for receipt until 20")
    assert "; the last attempt was 1, by `" in details
    assert RECIPIENT not in details

    history = await handle.fetch_history()
    summaries = [
        event.user_metadata.summary.data.decode()
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    assert summaries == ['"attempt 1 by primary"']


async def current_details(client: Client, workflow_id: str) -> str:
    metadata = await client.get_workflow_handle(workflow_id).query("__temporal_workflow_metadata")
    return str(metadata.current_details)

"""After an outage the most urgent messages leave first, whatever waits with them."""

import asyncio
from collections import Counter

import pytest

from domain.modes import Mode
from services.submission import SendCommand
from tests.gateway import RECIPIENT, Gateway, running_gateway
from tests.workflows.test_reconciler import Away, check_now

pytestmark = pytest.mark.stack

# Slow enough that order shows, and one route, so that all wait for the same provider.
CONFIGURATION = """
[providers.primary]
type = "simulator"
port = {primary}
rate = 5
response_timeout = "{response_timeout}"
receipt_deadline = "{receipt_deadline}"

[[routes]]
providers = ["primary"]
{more}
# {backup}
"""
ALERT = "Disk full on db-1"
AMONG_THE_FIRST = 75
"""So many leave in fifteen seconds, within which a busy machine gets to the alert."""


async def accept(gateway: Gateway, body: str, mode: Mode = Mode.TRANSACTIONAL):
    command = SendCommand(to=RECIPIENT, sender="AbilIT", body=body, mode=mode)
    return await gateway.services.accept(gateway.caller, command)


async def place_of_the_alert(gateway: Gateway, within: float = 400) -> int:
    """How many messages left before the alert."""
    async with asyncio.timeout(within):
        while True:
            texts = [message.text for message in gateway.primary.messages]
            if ALERT in texts:
                return texts.index(ALERT)
            await asyncio.sleep(0.02)


async def task_priorities(gateway: Gateway) -> Counter[int]:
    """With which priority the tasks of single messages' workflows wait, and how many of each."""
    counts: Counter[int] = Counter()
    for row in await gateway.fetch("SELECT owner FROM messages WHERE owner LIKE 'send/%'"):
        described = await gateway.client.get_workflow_handle(row["owner"]).describe()
        counts[described.raw_description.workflow_execution_info.priority.priority_key] += 1
    return counts


async def test_an_alert_overtakes_single_messages_that_waited_for_a_worker(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, configuration=CONFIGURATION, with_worker=False
    ) as gateway:
        for n in range(150):
            await accept(gateway, f"Number {n}")
        await accept(gateway, ALERT, Mode.ALERT)
        await gateway.services.accept.drained()
        assert await task_priorities(gateway) == {1: 1, 3: 150}
        await gateway.start_worker()
        assert await place_of_the_alert(gateway) < AMONG_THE_FIRST


async def test_an_alert_overtakes_two_thousand_messages_that_were_accepted_in_groups(
    database_url, temporal_client
):
    async with running_gateway(
        database_url,
        temporal_client,
        configuration=CONFIGURATION,
        with_worker=False,
        workflow_starts=0,
    ) as gateway:
        await asyncio.gather(*(accept(gateway, f"Number {n}") for n in range(2000)))
        await accept(gateway, ALERT, Mode.ALERT)
        await gateway.services.grouped_sends.drained()
        await gateway.services.accept.drained()
        priorities = await gateway.fetch("SELECT DISTINCT priority FROM bulks")
        assert [row["priority"] for row in priorities] == ["normal"]
        assert await task_priorities(gateway) == {1: 1}
        await gateway.start_worker()
        assert await place_of_the_alert(gateway) < AMONG_THE_FIRST


async def test_the_reconciler_starts_the_most_urgent_messages_first(database_url, temporal_client):
    away = Away(temporal_client)
    async with running_gateway(
        database_url,
        temporal_client,
        configuration=CONFIGURATION,
        connect=away.connect,
        with_worker=False,
    ) as gateway:
        waiting = [await accept(gateway, f"Number {n}") for n in range(250)]
        waiting.append(await accept(gateway, ALERT, Mode.ALERT))
        await gateway.services.accept.drained()
        await gateway.services.grouped_sends.drained()
        away.away = False
        await asyncio.sleep(2.1)  # as long as a failed connection is not tried again
        await check_now(gateway, *waiting)
        await gateway.start_worker()
        assert await place_of_the_alert(gateway) < AMONG_THE_FIRST

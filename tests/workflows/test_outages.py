"""How long messages wait for providers that are down, on the real parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from simulator.behaviour import Outage
from tests.gateway import CONFIGURATION, Gateway, running_gateway
from tests.workflows.test_bulk import Batch, carried
from workers.process import WorkerProcess
from workers.roles import Role

pytestmark = pytest.mark.stack

PATIENCE = 4.0
IMPATIENT = f'[modes.transactional]\noutage_patience = "{PATIENCE}s"'
SLOW = CONFIGURATION.replace("echoes_reference", "rate = 10\nechoes_reference")


@asynccontextmanager
async def provider_worker(gateway: Gateway) -> AsyncIterator[None]:
    """A worker that holds the binds, and is stopped gracefully at the end of the block."""
    stop = asyncio.Event()
    process = WorkerProcess(
        gateway.services, gateway.client, frozenset({Role.PROVIDERS, Role.CHUNKS})
    )
    task = asyncio.create_task(process.work(stop))
    try:
        await gateway.providers_up("primary", "backup", within=60)
        yield
    finally:
        stop.set()
        await task


async def test_a_batch_that_runs_for_longer_than_the_patience_survives_a_short_outage(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, configuration=SLOW, more=IMPATIENT, with_worker=False
    ) as gateway:
        await gateway.start_worker(Role.SENDS)
        async with provider_worker(gateway):
            batch = await Batch(gateway, 120).send()
            await batch.until(lambda counts: counts.get("delivered", 0) > 20, within=60)
            await asyncio.sleep(PATIENCE)
        await gateway.providers_up(within=60)
        await asyncio.sleep(PATIENCE / 4)
        async with provider_worker(gateway):
            await batch.until_all("delivered", within=60)
        assert carried(gateway) == batch.texts


async def test_an_outage_does_not_end_the_messages_of_a_paused_batch(database_url, temporal_client):
    async with running_gateway(
        database_url, temporal_client, configuration=SLOW, more=IMPATIENT
    ) as gateway:
        batch = await Batch(gateway, 40).send()
        await batch.until(lambda counts: counts.get("delivered", 0) > 5, within=60)
        await gateway.services.batches.pause(gateway.caller, batch.id)
        for smsc in (gateway.primary, gateway.backup):
            await smsc.outage(kind=Outage.NOT_LISTENING)
        await gateway.providers_up(within=60)
        await asyncio.sleep(2 * PATIENCE)
        await gateway.services.batches.resume(gateway.caller, batch.id)
        for smsc in (gateway.primary, gateway.backup):
            await smsc.outage(on=False)
        counts = await batch.until(
            lambda counts: not {"queued", "sending", "sent", "retried"} & counts.keys(), within=60
        )
        assert "dead_letter" not in counts
        # What was in flight as the binds went down may be unknown; nothing else is.
        assert set(counts) <= {"delivered", "unknown"}


async def test_an_outage_that_lasts_longer_than_the_patience_ends_in_dead_letters(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, configuration=SLOW, more=IMPATIENT
    ) as gateway:
        batch = await Batch(gateway, 40).send()
        await batch.until(lambda counts: counts.get("delivered", 0) > 5, within=60)
        for smsc in (gateway.primary, gateway.backup):
            await smsc.outage(kind=Outage.NOT_LISTENING)
        counts = await batch.until(
            lambda counts: not {"queued", "retried"} & counts.keys(), within=60
        )
        assert counts["dead_letter"] > 5
        reasons = await gateway.fetch(
            "SELECT DISTINCT reason FROM messages WHERE status = 'dead_letter'"
        )
        assert [row["reason"] for row in reasons] == ["no_provider_up"]

"""Worker groups of their own for some providers: `worker.py --provider`."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from local.processes import free_port
from tests.gateway import CONFIGURATION, Gateway, running_gateway
from tests.workflows.test_bulk import Batch, carried
from workers.roles import Role

pytestmark = pytest.mark.stack

WITHIN = 120
CHECKOUT = Path(__file__).parents[2]
BINDING = (Role.PROVIDERS, Role.CHUNKS)


async def start_group(gateway: Gateway, *providers: str) -> asyncio.Event:
    return await gateway.start_worker(*BINDING, providers=frozenset(providers))


async def groups(gateway: Gateway) -> dict[str, set[str]]:
    """The providers of each living worker, by its name."""
    found: dict[str, set[str]] = {}
    for row in await gateway.fetch("SELECT worker, provider FROM provider_workers"):
        found.setdefault(row["worker"], set()).add(row["provider"])
    return found


async def apply(gateway: Gateway, text: str, backup: str = "backup") -> None:
    text = text.replace("backup]", f"{backup}]").replace('"backup"', f'"{backup}"')
    ports = {"primary": gateway.primary.port, "backup": gateway.backup.port}
    text = text.format(**ports, receipt_deadline="20m", response_timeout="2s", more="")
    await gateway.services.configurations.apply(text, applied_by="test")


async def test_a_group_binds_only_to_its_providers_and_sends_both_kinds_of_traffic(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        await gateway.start_worker(Role.SENDS)
        primary = await start_group(gateway, "primary")
        await gateway.providers_up("primary", within=WITHIN)
        assert not gateway.backup.sessions
        await start_group(gateway, "backup")
        await gateway.providers_up("primary", "backup", within=WITHIN)
        assert sorted(map(sorted, (await groups(gateway)).values())) == [["backup"], ["primary"]]
        batch = await Batch(gateway, 20).send()
        single = await gateway.send(body="A single one")
        await gateway.until(single, "delivered", within=WITHIN)
        await batch.until_all("delivered", within=WITHIN)
        assert carried(gateway).total() == 21
        # The end of one group leaves the other as it is.
        await gateway.end_worker(primary)
        await gateway.providers_up("backup", within=WITHIN)
        failed_over = await gateway.send()
        await gateway.until(failed_over, "delivered", within=WITHIN)
        assert await gateway.attempts(failed_over) == [("backup", "delivered")]


async def test_a_group_serves_a_provider_from_when_a_configuration_has_it_and_no_other(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        await start_group(gateway, "primary", "later")
        await gateway.providers_up("primary", within=WITHIN)
        await apply(gateway, CONFIGURATION, backup="later")
        await gateway.providers_up("primary", "later", within=WITHIN)
        await apply(gateway, CONFIGURATION)
        await gateway.providers_up("primary", within=WITHIN)
        assert list((await groups(gateway)).values()) == [{"primary"}]
        assert not gateway.backup.sessions


async def test_a_provider_that_is_not_configured_is_reported_in_a_sentence(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client, with_worker=False):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "worker.py", "--provider", "primry", "--provider", "backup"),
            cwd=CHECKOUT,
            env=os.environ
            | {
                "DATABASE_URL": database_url,
                "SMSGATEWAY_RECIPIENT_HASH_KEY": "k" * 32,
                "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(WITHIN):
                while b"--provider" not in (line := await process.stderr.readline()):
                    assert line, "it says so before it ends"
            assert b"--provider primry: the configuration has no such provider" in line
            assert b"it has backup, primary." in line
        finally:
            process.terminate()
            await process.wait()

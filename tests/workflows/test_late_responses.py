"""Responses that come after their part was given up as unknown."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from domain.modes import Mode
from smpp.commands import Command
from smpp.pdus import Pdu
from smpp.session import Session
from tests.fakes.scripted_smsc import ScriptedSmsc
from tests.gateway import Gateway, running_gateway, uuid_of

ONE_PROVIDER = """
[providers.primary]
type = "simulator"
port = {port}
binds = 1
response_timeout = "1s"
rebind_backoff = {{{{ min = "100ms", max = "500ms" }}}}

[[routes]]
providers = ["primary"]
"""

WITH_A_BACKUP = (
    ONE_PROVIDER.replace('providers = ["primary"]', 'providers = ["primary", "backup"]')
    + """
[providers.backup]
type = "simulator"
port = {backup}
rate = 0.5
"""
)


class SlowSmsc(ScriptedSmsc):
    """Accepts everything, some of it later than it is waited for; counts the parts that it got."""

    def __init__(self, is_slow: Callable[[int], bool]) -> None:
        super().__init__()
        self.parts: Counter[int] = Counter()
        self._is_slow = is_slow
        self.response = self._accept_slowly

    async def _accept_slowly(self, _session: Session, pdu: Pdu) -> Pdu | None:
        if pdu.command is not Command.SUBMIT_SM:
            return pdu.reply()
        text = pdu.octets("short_message")
        self.parts[text[5] if pdu.number("esm_class") else 1] += 1
        count = self.parts.total()
        if self._is_slow(count):
            await asyncio.sleep(1.5)
        return pdu.reply(fields={"message_id": b"%d" % count})


@asynccontextmanager
async def gateway_at(
    database_url: str, client: Client, smsc: ScriptedSmsc, configuration: str = ONE_PROVIDER
) -> AsyncIterator[Gateway]:
    await smsc.server.start()
    try:
        async with running_gateway(
            database_url,
            client,
            configuration=configuration.format(port=smsc.server.port),
            with_worker=False,
        ) as gateway:
            await gateway.start_worker()
            await gateway.providers_up(*gateway.services.configurations.current.providers)
            yield gateway
    finally:
        await smsc.server.stop()


async def until_sent(gateway: Gateway, message: Any) -> None:
    await gateway.until(message, "sent", "dead_letter", "expired", "failed")
    assert await gateway.attempts(message) == [("primary", "accepted")]


@pytest.mark.parametrize("mode", [Mode.TRANSACTIONAL, Mode.PROMOTIONAL])
@pytest.mark.parametrize("slow", [lambda count: True, lambda count: count in (2, 4)])
async def test_a_part_that_was_accepted_late_is_sent_once_and_the_others_follow(
    database_url, temporal_client, mode, slow
):
    smsc = SlowSmsc(slow)
    async with gateway_at(database_url, temporal_client, smsc) as gateway:
        message = await gateway.send(mode=mode, body="p" * 700)
        await until_sent(gateway, message)
        assert smsc.parts == dict.fromkeys(range(1, 6), 1)


async def test_a_late_acceptance_ends_the_short_wait_for_a_receipt_of_a_doubt(
    database_url, temporal_client
):
    smsc = SlowSmsc(lambda count: True)
    async with gateway_at(database_url, temporal_client, smsc) as gateway:
        message = await gateway.send()
        await until_sent(gateway, message)
        (row,) = await gateway.fetch(
            "SELECT a.receipt_by >= m.valid_until AS whole FROM attempts a"
            " JOIN messages m ON m.id = a.message_id WHERE m.id = :id",
            id=uuid_of(message),
        )
        assert row["whole"]


async def test_an_alert_that_was_accepted_late_and_not_sent_again_keeps_its_minute(
    database_url, temporal_client
):
    smsc, backup = SlowSmsc(lambda count: True), SlowSmsc(lambda count: False)
    await backup.server.start()
    configuration = WITH_A_BACKUP.replace("{backup}", str(backup.server.port))
    async with gateway_at(database_url, temporal_client, smsc, configuration) as gateway:
        alerts = [await gateway.send(mode=Mode.ALERT) for _ in range(6)]
        for alert in alerts:
            await gateway.until(alert, "sent")
        waits = await gateway.fetch(
            "SELECT receipt_by - settled_at AS wait FROM attempts a WHERE provider = 'primary'"
            " AND NOT EXISTS (SELECT FROM attempts b WHERE b.message_id = a.message_id"
            " AND b.number > a.number)"
        )
    await backup.server.stop()
    assert waits, "the backup has no slot for all of them before the primary has responded"
    assert all(row["wait"] <= timedelta(minutes=1) for row in waits)

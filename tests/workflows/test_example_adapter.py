"""The worked example of docs/adapters.md: installed by its entry point, and sent through."""

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from domain.receipts import ReceiptState
from providers.base import ProviderSinks, ReceivedReceipt
from providers.registry import ENTRY_POINTS, ProviderTypes
from providers.webhooks import WebhookForged, WebhookResponse
from settings.configuration_file import parse_configuration
from tests.fakes.acme_carrier import TOKEN, WEBHOOK_SECRET, AcmeCarrier
from tests.fakes.carrier import Hang, Refuse, Request, as_came
from tests.fakes.packages import install_entry_points
from tests.gateway import Gateway, running_gateway

EXAMPLE = Path(__file__).parents[2] / "docs/examples/acme-sms"
PUBLIC_URL = "https://sms.example.com"
CONFIGURATION = """
[providers.acme]
type = "acme"
url = "ACME_URL"
private_network = true
token = "env:SMSGATEWAY_SECRET_ACME"
webhook_secret = "env:SMSGATEWAY_SECRET_ACME_WEBHOOKS"
response_timeout = "2s"

[providers.primary]
type = "simulator"
port = {primary}

[[routes]]
providers = ["acme", "primary"]
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, as an installer would leave it."""
    declared = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    install_entry_points(tmp_path, monkeypatch, {ENTRY_POINTS: declared[ENTRY_POINTS]})
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.setenv("SMSGATEWAY_SECRET_ACME", TOKEN)
    monkeypatch.setenv("SMSGATEWAY_SECRET_ACME_WEBHOOKS", WEBHOOK_SECRET)


@pytest.fixture
async def carrier() -> AsyncIterator[AcmeCarrier]:
    async with AcmeCarrier() as running:
        yield running


@pytest.fixture
async def gateway(carrier: AcmeCarrier, database_url, temporal_client) -> AsyncIterator[Gateway]:
    configuration = CONFIGURATION.replace("ACME_URL", carrier.url)
    async with running_gateway(
        database_url,
        temporal_client,
        configuration=configuration,
        public_url=PUBLIC_URL,
        with_worker=False,
    ) as running:
        await running.start_worker()
        await running.providers_up("acme", "primary")
        yield running


async def report(gateway: Gateway, request: Request) -> WebhookResponse:
    """Hand the gateway a request of the carrier, as the API does."""
    reports = gateway.services.provider_reports
    *_, name, _receipts, token = urlsplit(request.target).path.split("/")
    return await reports.take_receipts(reports.receipt_address(name, token), as_came(request))


async def test_a_message_is_sent_and_its_signed_receipt_delivers_it(
    gateway: Gateway, carrier: AcmeCarrier
):
    message = await gateway.send(body="Disk full on db-1", parameters={"campaign": "disks"})
    await gateway.until(message, "sent")
    (sent,), (fields,) = carrier.received, carrier.fields
    assert (sent.to, sent.sender, sent.text) == ("+447700900123", "AbilIT", "Disk full on db-1")
    assert fields["campaign"] == "disks"
    assert sent.receipt_url is not None
    assert sent.receipt_url.startswith(f"{PUBLIC_URL}/webhooks/providers/acme/receipts/")
    forged = carrier.receipt(sent, ReceiptState.DELIVERED, "")
    with pytest.raises(WebhookForged):
        await report(gateway, replace(forged, body=forged.body + b" "))
    assert await gateway.status(message) == "sent"
    await report(gateway, carrier.receipt(sent, ReceiptState.DELIVERED, ""))
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("acme", "delivered")]
    explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
    assert "Attempt 1 by acme is billed as 1 segment for 0.0125 EUR." in explained.summary


async def test_a_receipt_resolves_the_outcome_of_a_lost_response(
    gateway: Gateway, carrier: AcmeCarrier
):
    carrier.behaviours.append(Hang())
    message = await gateway.send()
    await gateway.until(message, "unknown")
    await report(gateway, carrier.receipt(carrier.received[0], ReceiptState.DELIVERED, ""))
    await gateway.until(message, "delivered")
    assert len(carrier.received) == 1


async def test_the_code_of_a_refusal_decides_what_happens_next_and_is_explained(
    gateway: Gateway, carrier: AcmeCarrier
):
    carrier.behaviours += [Refuse("E102"), Refuse("E101")]
    elsewhere = await gateway.send(body="To be sent by another provider")
    await gateway.until(elsewhere, "delivered")
    assert await gateway.attempts(elsewhere) == [("acme", "refused"), ("primary", "delivered")]
    refused = await gateway.send()
    await gateway.until(refused, "failed")
    explained = await gateway.services.messages.explain(gateway.caller, refused.message_id)
    assert explained.summary[0] == (
        "Failed: acme refused it (code E101: the number is not in use)."
    )


async def test_the_provider_says_what_has_become_of_a_message_when_it_is_asked(
    gateway: Gateway, carrier: AcmeCarrier
):
    carrier.states = {"7": (ReceiptState.UNDELIVERABLE, "E120")}
    declared = gateway.services.configurations.current.providers["acme"]
    sinks = ProviderSinks(on_receipt=never, read_receipt_token=lambda *_: None)
    services = gateway.services
    allowed = services.settings.allowed_secrets
    provider = services.provider_types.build("acme", declared, allowed, sinks)
    try:
        await provider.hold(1)
        async with asyncio.timeout(60):
            await provider.wait_until(up=True)
        receipt = await provider.query("7", sender="AbilIT")
    finally:
        await provider.stop(timedelta())
    assert receipt is not None
    assert (receipt.state, receipt.code) == (ReceiptState.UNDELIVERABLE, "E120")
    assert receipt.error_class == "opted_out"


def test_the_configuration_of_the_page_is_one():
    page = (EXAMPLE.parents[1] / "adapters.md").read_text()
    (text,) = [
        block
        for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
        if "[providers" in block
    ]
    types = ProviderTypes.installed().configurations
    route = '\n[[routes]]\nproviders = ["acme"]\n'
    configuration = parse_configuration(text + route, None, types)
    declared = configuration.providers["acme"]
    assert [secret.key for secret in declared.secrets()] == ["token", "webhook_secret"]


async def never(receipt: ReceivedReceipt) -> None:
    pytest.fail(f"a receipt came that nobody sent: {receipt.state}")

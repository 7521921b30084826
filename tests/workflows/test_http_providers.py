"""Messages through every HTTP adapter, on the real gateway: its API takes the carriers' signed receipts."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from api.app import create_app
from domain.receipts import ReceiptState
from tests.fakes.carrier import (
    PUBLIC_URL,
    Accept,
    Behaviour,
    HttpCarrier,
    LoseResponse,
    Refuse,
    Request,
    Sent,
    Throttle,
)
from tests.fakes.twilio_carrier import TwilioCarrier
from tests.gateway import Gateway, running_gateway
from tests.providers.test_contract import HTTP_CARRIERS
from tests.workflows.test_bulk import Batch

pytestmark = pytest.mark.stack

ROUTES = """
[[routes]]
providers = ["http", "primary"]
# {backup} {receipt_deadline} {response_timeout}
"""


@pytest.fixture(params=HTTP_CARRIERS, ids=lambda carrier: carrier.type)
async def carrier(request: pytest.FixtureRequest) -> AsyncIterator[HttpCarrier]:
    async with request.param() as started:
        yield started


@asynccontextmanager
async def gateway_with(
    carrier: HttpCarrier,
    database_url: str,
    client: Any,
    environment: pytest.MonkeyPatch,
    *,
    smpp_first: bool = False,
) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    """A gateway that sends through the carrier, before or behind an SMSC, and a client of its API."""
    section = {**carrier.section(), "response_timeout": "20s", "rate": 200}
    for key, secret in carrier.secrets.items():
        environment.setenv(f"SMSGATEWAY_SECRET_TEST_{key.upper()}", secret)
        section[key] = f"env:SMSGATEWAY_SECRET_TEST_{key.upper()}"
    declared = "\n".join(f"{key} = {toml(value)}" for key, value in section.items())
    routes = ROUTES.replace('"http", "primary"', '"primary", "http"') if smpp_first else ROUTES
    async with running_gateway(
        database_url,
        client,
        configuration=f"[providers.http]\n{declared}\n".replace("{", "{{").replace("}", "}}")
        + '\n[providers.primary]\ntype = "simulator"\nport = {primary}\n'
        + 'rebind_backoff = {{ min = "100ms", max = "500ms" }}\n'
        + routes
        + "\n{more}",
        with_worker=False,
        public_url=PUBLIC_URL,
    ) as gateway:
        await gateway.start_worker()
        await gateway.providers_up("http", "primary")
        transport = httpx.ASGITransport(app=create_app(gateway.services))
        async with httpx.AsyncClient(transport=transport, base_url="http://inside") as api:
            yield gateway, api


def toml(value: object) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return f"{{ {', '.join(f'{key} = {toml(each)}' for key, each in value.items())} }}"
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            return f'"{escaped}"'
        case _:
            return str(value)


async def post(api: httpx.AsyncClient, request: Request) -> int:
    """Send a carrier's request to the gateway, as a proxy hands it on; the status."""
    url = urlsplit(request.target)
    response = await api.request(
        request.method,
        url.path + (f"?{url.query}" if url.query else ""),
        content=request.body,
        headers=dict(request.headers),
    )
    return response.status_code


class Reports:
    """Sends a carrier's receipts: some before the response, some twice."""

    def __init__(self, carrier: HttpCarrier, api: httpx.AsyncClient, seed: int) -> None:
        self._carrier = carrier
        self._api = api
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self.statuses: set[int] = set()
        carrier.on_sent = self._sent

    async def _sent(self, sent: Sent) -> None:
        kind = self._random.random()
        if kind < 0.1:
            await self._report(sent, 0)
            return
        for copy in range(2 if kind < 0.2 else 1):
            task = asyncio.create_task(self._report(sent, self._random.uniform(0.05, 0.5) + copy))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _report(self, sent: Sent, after: float) -> None:
        await asyncio.sleep(after)
        request = self._carrier.receipt(sent, ReceiptState.DELIVERED, "")
        self.statuses.add(await post(self._api, request))

    async def ended(self) -> None:
        await asyncio.gather(*self._tasks)


def troubles(count: int, seed: int) -> list[Behaviour]:
    """What happens to each request: 5% lose their response, 5% are throttled."""
    chance = random.Random(seed)
    behaviours: list[Behaviour] = []
    for _ in range(count):
        kind = chance.random()
        behaviours.append(
            LoseResponse() if kind < 0.05 else Throttle(1) if kind < 0.1 else Accept()
        )
    return behaviours


async def test_with_lost_responses_throttling_and_odd_receipts_every_message_is_delivered_once(
    carrier: HttpCarrier, database_url, temporal_client, monkeypatch
):
    async with gateway_with(carrier, database_url, temporal_client, monkeypatch) as (gateway, api):
        reports = Reports(carrier, api, seed=7)
        carrier.behaviours.extend(troubles(400, seed=8))
        batch = await Batch(gateway, 150).send()
        single = [await gateway.send(body=f"Single {n}") for n in range(20)]
        await batch.until_all("delivered", within=300)
        for message in single:
            await gateway.until(message, "delivered", within=300)
        await reports.ended()
        assert all(200 <= status < 300 for status in reports.statuses)
        assert len(carrier.received) == 170
        assert len({sent.text for sent in carrier.received}) == 170
        assert not gateway.primary.messages


async def test_a_refused_message_goes_to_the_smpp_carrier_with_the_vendors_code_explained(
    database_url, temporal_client, monkeypatch
):
    async with (
        TwilioCarrier() as carrier,
        gateway_with(carrier, database_url, temporal_client, monkeypatch) as (gateway, _),
    ):
        carrier.behaviours.append(Refuse("30034"))
        message = await gateway.send()
        await gateway.until(message, "delivered")
        assert [provider for provider, _ in await gateway.attempts(message)] == ["http", "primary"]
        explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
        assert "the number is not yet in a 10DLC campaign" in str(explained.steps)


async def test_while_the_smsc_is_away_messages_go_by_http_and_return_when_it_is_back(
    carrier: HttpCarrier, database_url, temporal_client, monkeypatch
):
    async with gateway_with(
        carrier, database_url, temporal_client, monkeypatch, smpp_first=True
    ) as (gateway, api):
        reports = Reports(carrier, api, seed=9)
        await gateway.until(await gateway.send(body="before"), "delivered")
        await gateway.primary.outage(on=True)
        during = []
        for n in range(40):
            during.append(await gateway.send(body=f"during {n}"))
            await asyncio.sleep(0.05)
        for message in during:
            await gateway.until(message, "delivered")
        await gateway.primary.outage(on=False)
        await gateway.providers_up("http", "primary")
        await gateway.until(await gateway.send(body="after"), "delivered")
        await reports.ended()
        by_smpp = [message.text for message in gateway.primary.messages]
        assert (by_smpp[0], by_smpp[-1]) == ("before", "after")
        sent = by_smpp[1:-1] + [each.text for each in carrier.received]
        assert sorted(sent) == sorted(f"during {n}" for n in range(40))

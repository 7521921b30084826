from collections.abc import AsyncIterator, Iterator

import pytest
from sdks.python.tests.fakes.gateway import FakeGateway
from sdks.python.tests.fakes.relay import Relay

from smsgateway import AsyncClient, Client, Retries

IMPATIENT = Retries(first_pause=0.01, longest_pause=0.02)


@pytest.fixture(scope="session")
def running_gateway() -> Iterator[FakeGateway]:
    with FakeGateway().running() as running:
        yield running


@pytest.fixture
def gateway(running_gateway) -> FakeGateway:
    running_gateway.forget()
    return running_gateway


@pytest.fixture
def client(gateway) -> Iterator[Client]:
    with Client(gateway.url, gateway.key, retries=IMPATIENT) as made:
        yield made


@pytest.fixture
def operator(gateway) -> Iterator[Client]:
    with Client(gateway.url, gateway.operator_key, retries=IMPATIENT) as made:
        yield made


@pytest.fixture
async def async_operator(gateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(gateway.url, gateway.operator_key, retries=IMPATIENT) as made:
        yield made


@pytest.fixture
async def async_client(gateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(gateway.url, gateway.key, retries=IMPATIENT) as made:
        yield made


@pytest.fixture
def relay(gateway) -> Iterator[Relay]:
    with Relay(gateway.url).running() as running:
        yield running

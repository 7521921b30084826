"""One gateway for all tests that kill something: they leave it as they found it."""

from collections.abc import Iterator

import pytest

from local.folders import temporary_folder
from local.stack import Stack
from tests.stack.gateway import CONFIGURATION, Gateway


@pytest.fixture(scope="session")
def whole_gateway() -> Iterator[Gateway]:
    with temporary_folder() as folder:
        stack = Stack(folder, own_servers=True, template=CONFIGURATION)
        try:
            stack.start()
            gateway = Gateway(stack)
            with gateway.client:
                yield gateway
        finally:
            stack.remove()


@pytest.fixture
def gateway(whole_gateway: Gateway) -> Iterator[Gateway]:
    """All of it up; afterwards nothing may have died that was not killed on purpose."""
    whole_gateway.tidy()
    yield whole_gateway
    whole_gateway.stack.check()

"""One gateway for all tests that kill something: each finds everything up and leaves no trouble."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from local.folders import temporary_folder
from tests.stack.gateway import CONFIGURATION, Gateway, MortalStack


@pytest.fixture(scope="session")
def whole_gateway() -> Iterator[Gateway]:
    with temporary_folder() as folder:
        stack = MortalStack(
            folder,
            own_servers=True,
            template=CONFIGURATION,
            # What is tested here of single messages is about their own workflows.
            environment={"SMSGATEWAY_WORKFLOW_STARTS": "1000"},
        )
        try:
            stack.start()
            with closing(Gateway(stack)) as gateway:
                yield gateway
        finally:
            stack.remove()


@pytest.fixture
def gateway(whole_gateway: Gateway) -> Iterator[Gateway]:
    """All of it up; afterwards nothing may have died that was not killed on purpose."""
    whole_gateway.tidy()
    yield whole_gateway
    whole_gateway.stack.check()

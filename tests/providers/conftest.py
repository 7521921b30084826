"""Providers that tests have bound, which end with the test."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from providers.base import Provider


@pytest.fixture
async def providers() -> AsyncIterator[list[Provider]]:
    made: list[Provider] = []
    yield made
    for each in made:
        await each.stop(timedelta(seconds=1))

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.fakes.scripted_smsc import ScriptedSmsc


@pytest.fixture
async def new_smsc() -> AsyncIterator[Callable[..., Awaitable[ScriptedSmsc]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(**options: Any) -> ScriptedSmsc:
            smsc = ScriptedSmsc(**options)
            await smsc.server.start()
            stack.push_async_callback(smsc.server.stop, graceful=False)
            return smsc

        yield start


@pytest.fixture
async def smsc(new_smsc: Callable[..., Awaitable[ScriptedSmsc]]) -> ScriptedSmsc:
    return await new_smsc()

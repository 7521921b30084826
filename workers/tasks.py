"""Waiting for several tasks, and ending one."""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable
from datetime import timedelta
from typing import Any, Final

CLOSING_TIME: Final = timedelta(seconds=5)
"""How long a process may take to close, beyond the grace that its work has."""


async def all_of(each: Iterable[Awaitable[None]]) -> None:
    """Wait for all of them side by side, then raise what the first failed one raised."""
    for failure in await asyncio.gather(*each, return_exceptions=True):
        if failure is not None:
            raise failure


async def cancelled(task: asyncio.Task[Any] | None) -> None:
    """End a task, if there is one, and wait until it has ended."""
    if task is None:
        return
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

"""Long loops, in which single messages are not to wait for all of many."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")

_SLICE_SECONDS: Final = 0.005
_loop_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def yielding_slices(items: Iterable[_T], size: int) -> AsyncIterator[list[_T]]:
    """All of them, `size` at a time; after each slice others have their turn."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
        await asyncio.sleep(0)


async def timed_slices(items: Iterable[_T]) -> AsyncIterator[_T]:
    """All of them, one by one; after some milliseconds other tasks run.

    For items of which one may cost a thousand times as much as another.
    """
    began = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - began > _SLICE_SECONDS:
            await yield_fairly()
            began = time.perf_counter()


async def yield_fairly() -> None:
    """Let other tasks run. Of all tasks that wait here, one goes on in each round of the event loop.

    So the longest time for which nothing else runs does not grow with the number of such tasks.
    """
    loop = asyncio.get_running_loop()
    lock = _loop_locks.setdefault(loop, asyncio.Lock())
    async with lock:
        await asyncio.sleep(0)

"""Long loops, in which single messages are not to wait for all of many."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

_T = TypeVar("_T")


async def in_slices(items: Iterable[_T], size: int) -> AsyncIterator[_T]:
    """Each of them; after every `size`, others have their turn."""
    for place, each in enumerate(items, start=1):
        yield each
        if place % size == 0:
            await asyncio.sleep(0)

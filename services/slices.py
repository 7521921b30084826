"""Long loops, in which single messages are not to wait for all of many."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")


async def slices(items: Iterable[_T], size: int) -> AsyncIterator[list[_T]]:
    """All of them, `size` at a time; after each slice others have their turn."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
        await asyncio.sleep(0)

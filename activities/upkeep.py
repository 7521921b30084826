"""What `UpkeepWorkflow` asks for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

from services.upkeep import Upkeep
from workflows.upkeep import SweepResult, UpkeepActivities

_EVERY_SECOND = 1.0


@asynccontextmanager
async def _beating() -> AsyncIterator[None]:
    """Tell Temporal every second that this activity lives."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(_EVERY_SECOND)

    beats = asyncio.create_task(beat())
    try:
        yield
    finally:
        beats.cancel()


class Sweeping(UpkeepActivities):
    """Takes up what was forgotten."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    @activity.defn
    async def doubt_everything(self) -> None:
        """Make every open message one whose runner may be gone, for the next sweeps to look at."""
        async with _beating():
            await self._upkeep.doubt_everything()

    @activity.defn
    async def sweep(self) -> SweepResult:
        """Look for messages, receipts and callbacks that were forgotten, and take them up."""
        async with _beating():
            swept = await self._upkeep.sweep()
        return SweepResult(swept.reminded, swept.restarted, swept.matched, swept.more)

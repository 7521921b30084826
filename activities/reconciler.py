"""What `ReconcilerWorkflow` asks for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

from services.reconciler import Reconciler
from workflows.reconciler import ReconcilerActivities, SweepResult

_EVERY_SECOND = 1.0


@asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Send a heartbeat to Temporal every second within the block."""

    async def heartbeat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(_EVERY_SECOND)

    heartbeats = asyncio.create_task(heartbeat())
    try:
        yield
    finally:
        heartbeats.cancel()


class Sweeping(ReconcilerActivities):
    """Takes up what was forgotten."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    @activity.defn
    async def mark_everything_due(self) -> None:
        """Make every open message one whose runner may be gone, for the next sweeps to look at."""
        async with _heartbeats():
            await self._reconciler.mark_everything_due()

    @activity.defn
    async def sweep(self) -> SweepResult:
        """Look for messages, receipts and callbacks that were forgotten, and take them up."""
        async with _heartbeats():
            swept = await self._reconciler.sweep()
        return SweepResult(swept.reminded, swept.restarted, swept.matched, swept.more)

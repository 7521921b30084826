"""What `BulkSendWorkflow` asks for: plans from the database, shares sent by a provider."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from temporalio import activity

from providers.base import Provider
from services.bulk import Bulks
from telemetry.logs import log_context
from workflows.ports.bulk import (
    BulkProviderActivities,
    Plan,
    PlanActivities,
    PlanTask,
    ShareDone,
    SubmitShareTask,
)

_BEAT_EVERY: Final = 2.0
"""Seconds."""


class Planning(PlanActivities):
    """The part of the work that needs only the database; polled for on `sends`."""

    def __init__(self, bulks: Bulks) -> None:
        self._bulks = bulks

    @activity.defn
    async def plan(self, task: PlanTask) -> Plan:
        """Look at the rows, write what time has made of them, and say what can be sent."""
        with log_context(bulk_id=task.bulk.bulk_id):
            return await self._bulks.plan(task)


class SubmittingShares(BulkProviderActivities):
    """The part that holds the binds of a provider; polled for on `provider/<name>`."""

    def __init__(self, bulks: Bulks, provider: Provider) -> None:
        self._bulks = bulks
        self._provider = provider

    @activity.defn
    async def submit_share(self, task: SubmitShareTask) -> ShareDone:
        """Claim, send and record until nothing of the bulk is left for this provider.

        What was claimed is sent and recorded, whoever stops waiting: only the claims end.
        """
        with log_context(bulk_id=task.bulk.bulk_id, provider=task.provider):
            stop = asyncio.Event()
            sending = asyncio.ensure_future(self._bulks.send_share(task.bulk, self._provider, stop))
            async with _meanwhile(_beat()), _meanwhile(_until_shutdown(stop)):
                try:
                    return ShareDone(await asyncio.shield(sending))
                except asyncio.CancelledError:
                    stop.set()
                    await sending
                    raise


async def _beat() -> None:
    """Tell Temporal that this worker lives."""
    while True:
        activity.heartbeat()
        await asyncio.sleep(_BEAT_EVERY)


async def _until_shutdown(stop: asyncio.Event) -> None:
    """What a worker that is about to leave has not claimed is the next one's."""
    await activity.wait_for_worker_shutdown()
    stop.set()


@asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do something as long as the block lasts."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

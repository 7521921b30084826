"""What `BulkSendWorkflow` asks for: plans from the database, chunks sent by a provider."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from temporalio import activity

from providers.base import Provider
from services.bulk.planner import BulkPlanner
from services.bulk.sender import BulkSender
from telemetry.logs import log_context
from workflows.ports.bulk import (
    BulkProviderActivities,
    ChunkDone,
    Plan,
    PlanActivities,
    PlanTask,
    SubmitChunkTask,
)

_HEARTBEAT_SECONDS: Final = 2.0
"""Seconds."""


class Planning(PlanActivities):
    """The part of the work that needs only the database; polled for on `sends`."""

    def __init__(self, planner: BulkPlanner) -> None:
        self._planner = planner

    @activity.defn
    async def plan(self, task: PlanTask) -> Plan:
        """Look at the rows, write what time has made of them, and say what can be sent."""
        with log_context(bulk_id=task.bulk.bulk_id):
            return await self._planner.plan(task)


class SubmittingChunks(BulkProviderActivities):
    """The part that holds the binds of a provider; polled for on `provider/<name>`."""

    def __init__(self, sender: BulkSender, provider: Provider) -> None:
        self._sender = sender
        self._provider = provider

    @activity.defn
    async def submit_chunk(self, task: SubmitChunkTask) -> ChunkDone:
        """Claim, send and record until nothing of the bulk is left for this provider.

        What was claimed is sent and recorded, whoever stops waiting: only the claims end.
        """
        with log_context(bulk_id=task.bulk.bulk_id, provider=task.provider):
            stop = asyncio.Event()
            sending = asyncio.ensure_future(
                self._sender.send_chunk(task.bulk, self._provider, stop)
            )
            async with _meanwhile(_heartbeat()), _meanwhile(_until_shutdown(stop)):
                try:
                    return ChunkDone(await asyncio.shield(sending))
                except asyncio.CancelledError:
                    stop.set()
                    await sending
                    raise


async def _heartbeat() -> None:
    """Send heartbeats to Temporal until cancelled."""
    while True:
        activity.heartbeat()
        await asyncio.sleep(_HEARTBEAT_SECONDS)


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

"""One provider in this process, from its first bind to its last unbind."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from domain.binds import ProviderRole
from domain.configuration import ProviderConfiguration
from services.assembly import Services
from telemetry import metrics
from telemetry.supervision import supervised
from workers.heartbeats import ProviderHeartbeats
from workers.provider_queues import MakeWorker
from workers.serving import ProviderServing
from workers.tasks import CLOSING_TIME, cancelled


class ProviderPool:
    """This process's binds to one provider: heartbeats while it lives, polls while a bind is up.

    It polls for its own roles, and for those that no other worker with a bind polls for. While a
    secret or a TLS file of the provider is missing, its heartbeats report that, and nothing is bound.
    """

    def __init__(
        self,
        name: str,
        configuration: ProviderConfiguration,
        services: Services,
        make_worker: MakeWorker,
        worker_name: str,
        roles: frozenset[ProviderRole],
    ) -> None:
        self._name = name
        self._shutdown_grace = services.settings.shutdown_grace
        self._serving = ProviderServing(name, configuration, services, make_worker)
        self._heartbeats = ProviderHeartbeats(self._serving, services, worker_name, roles)
        self._serving_task: asyncio.Task[NoReturn] | None = None
        self._heartbeat_task: asyncio.Task[NoReturn] | None = None
        self._polling_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to bind, in the background."""
        metrics.binds_counted(self._name, {"up": 0, "down": 0})
        self._serving.pollers_changed()
        self._serving_task = self._supervised(self._serving.run, "serve_provider")
        self._heartbeat_task = self._supervised(self._heartbeats.run, "provider_heartbeat")
        self._polling_task = asyncio.create_task(self._serving.poll_receipts())

    async def stop(self) -> None:
        """Take no new tasks, wait for the responses that are due, and unbind."""
        await cancelled(self._heartbeat_task)
        await cancelled(self._polling_task)
        ending = self._supervised(self._heartbeats.run_shutdown, "provider_leave")
        try:
            if self._serving_task is not None:
                self._serving_task.cancel()
                # The binds end even if a poller cannot be stopped, since Temporal is away.
                await asyncio.wait([self._serving_task], timeout=CLOSING_TIME.total_seconds())
            if self._serving.provider is not None:
                await self._serving.provider.stop(self._shutdown_grace)
        finally:
            await cancelled(ending)
        await self._heartbeats.deregister()
        metrics.provider_gone(self._name)

    def _supervised(
        self, loop: Callable[[], Awaitable[None]], operation: str
    ) -> asyncio.Task[NoReturn]:
        return asyncio.create_task(supervised(loop, operation, provider=self._name))

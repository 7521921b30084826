"""The providers of a worker process: one pool for each, as the configuration declares them."""

import asyncio
from typing import NoReturn, Self

from domain.binds import ProviderRole
from domain.configuration import ProviderConfiguration
from services.assembly import Services
from telemetry.logs import get_logger
from telemetry.supervision import supervised
from workers.provider_pool import ProviderPool
from workers.provider_queues import MakeWorker
from workers.tasks import all_of, cancelled

_log = get_logger(__name__)


class ProviderPools:
    """One pool for each declared provider, or for those of the worker's group; follows the configuration.

    A provider that was removed or changed is drained; one that is new or changed is bound anew.
    """

    def __init__(
        self,
        services: Services,
        make_worker: MakeWorker,
        worker_name: str,
        roles: frozenset[ProviderRole],
        providers: frozenset[str] | None = None,
    ) -> None:
        """Serve `providers` for these roles; None for every declared provider."""
        self._services = services
        self._make_worker = make_worker
        self._worker_name = worker_name
        self._roles = roles
        self._providers = providers
        self._not_configured: frozenset[str] = frozenset()
        self._pools: dict[str, tuple[ProviderConfiguration, ProviderPool]] = {}
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[NoReturn] | None = None

    async def __aenter__(self) -> Self:
        self._services.configurations.on_change(self._changed.set)
        self._keeper = asyncio.create_task(supervised(self._follow, "follow_providers"))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            await cancelled(self._keeper)
        await all_of(pool.stop() for _, pool in self._pools.values())

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            await self._follow_once()
            await self._changed.wait()

    async def _follow_once(self) -> None:
        """Replace the pools of all providers that changed, each on its own."""
        declared = self._declared()
        known = {name: configuration for name, (configuration, _) in self._pools.items()}
        changed = [name for name in {**known, **declared} if known.get(name) != declared.get(name)]
        await all_of(self._replace(name, declared.get(name)) for name in changed)

    def _declared(self) -> dict[str, ProviderConfiguration]:
        """The declared providers that this worker serves."""
        declared = self._services.configurations.current.providers
        if self._providers is None:
            return declared
        not_configured = self._providers - declared.keys()
        for name in sorted(not_configured - self._not_configured):
            _log.warning("provider_not_configured", provider=name)
        self._not_configured = not_configured
        return {name: declared[name] for name in declared.keys() & self._providers}

    async def _replace(self, name: str, configuration: ProviderConfiguration | None) -> None:
        if name in self._pools:
            await self._pools.pop(name)[1].stop()
        if configuration is not None:
            pool = ProviderPool(
                name,
                configuration,
                self._services,
                self._make_worker,
                self._worker_name,
                self._roles,
            )
            self._pools[name] = (configuration, pool)
            pool.start()

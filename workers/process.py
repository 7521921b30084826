"""One worker process, from the start of its pollers to their end."""

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from services.assembly import Services
from telemetry.logs import get_logger
from workers.identity import new_worker_name
from workers.provider_pools import ProviderPools
from workers.roles import Role
from workers.task_queues import ROLES, WorkerRole
from workers.tasks import CLOSING_TIME, cancelled

_log = get_logger(__name__)


class WorkerProcess:
    """One worker process: the pollers of its roles, and the binds of its providers."""

    def __init__(
        self,
        services: Services,
        client: Client,
        roles: Collection[str],
        providers: frozenset[str] | None = None,
        table: Mapping[str, WorkerRole] = ROLES,
    ) -> None:
        """A worker of these roles of `table`; it binds to `providers`, or to every declared one."""
        self._services = services
        self._client = client
        names = table if Role.ALL in roles else roles
        self._roles = [role for name, role in table.items() if name in names]
        self._providers = providers
        self._name = new_worker_name()

    async def work(self, stop: asyncio.Event) -> None:
        """Poll until `stop` is set, then finish what is under way."""
        async with contextlib.AsyncExitStack() as stack:
            follower = asyncio.create_task(self._services.configurations.follow())
            stack.push_async_callback(cancelled, follower)
            for role in self._roles:
                await self._poll(role, stack)
                if role.background is not None:
                    running = asyncio.ensure_future(role.background(self._services, self._client))
                    stack.push_async_callback(cancelled, running)
            binding = frozenset(role.provider_role for role in self._roles if role.provider_role)
            if binding:
                await stack.enter_async_context(
                    ProviderPools(
                        self._services, self._worker, self._name, binding, self._providers
                    )
                )
            _log.info("worker_ready")
            await stop.wait()
            # What is under way may finish; but a Temporal that is away could be waited for for ever.
            grace = self._services.settings.shutdown_grace + CLOSING_TIME
            closing = asyncio.create_task(stack.pop_all().aclose())
            done, _ = await asyncio.wait([closing], timeout=grace.total_seconds())
            if not done:
                _log.warning("worker_left_unfinished")

    async def _poll(self, role: WorkerRole, stack: contextlib.AsyncExitStack) -> None:
        """Poll the task queues of a role until `stack` is closed."""
        activities = await stack.enter_async_context(role.activities(self._services))
        for queue in role.task_queues:
            worker = self._worker(queue.name, activities=activities, **queue.options)
            await stack.enter_async_context(worker)

    def _worker(self, queue: str, **what: Any) -> Worker:
        return Worker(
            self._client,
            task_queue=queue,
            identity=self._name,
            graceful_shutdown_timeout=self._services.settings.shutdown_grace,
            **what,
        )

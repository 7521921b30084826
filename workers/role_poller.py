"""Polls the task queues of one role for a provider."""

import asyncio
from collections.abc import Callable
from typing import Final

from temporalio.worker import Worker

from domain.binds import ProviderRole
from providers.base import Provider
from telemetry.logs import get_logger

_log = get_logger(__name__)

_STARTED_WITHIN: Final = 0.05
"""Seconds between looks whether pollers have started."""


class RolePoller:
    """Polls the task queues of one role for a provider, while that is wanted and a bind is up.

    `make_workers` makes the pollers of Temporal's SDK, anew each time. `on_change` is called when
    `polls` has changed.
    """

    def __init__(
        self,
        role: ProviderRole,
        provider: Provider,
        make_workers: Callable[[], list[Worker]],
        on_change: Callable[[], None],
    ) -> None:
        self.role = role
        self._provider = provider
        self._make_workers = make_workers
        self._on_change = on_change
        self._workers: list[Worker] = []
        self._wanted = asyncio.Event()
        self._not_wanted = asyncio.Event()

    @property
    def polls(self) -> bool:
        """Whether all task queues of the role are polled now."""
        return bool(self._workers) and all(worker.is_running for worker in self._workers)

    def serve(self, *, wanted: bool) -> None:
        """Poll from now on while a bind is up, or no more."""
        if wanted and not self._wanted.is_set():
            _log.info("role_served", provider=self._provider.name, role=self.role)
        elif not wanted and self._wanted.is_set():
            _log.info("role_released", provider=self._provider.name, role=self.role)
        (self._wanted.set if wanted else self._wanted.clear)()
        (self._not_wanted.clear if wanted else self._not_wanted.set)()

    async def run(self) -> None:
        """Poll whenever it should; raises what ends a poller, such as a Temporal that is away."""
        while True:
            await self._wanted.wait()
            await self._provider.wait_until(up=True)
            await self._poll()

    async def _poll(self) -> None:
        """Poll until no bind is up, or it is not wanted any more."""
        self._workers = self._make_workers()
        # Not as context managers, which report a failure by cancelling the task that waits here.
        polling = [asyncio.create_task(worker.run()) for worker in self._workers]
        starting = asyncio.create_task(self._report_start())
        down = asyncio.create_task(self._provider.wait_until(up=False))
        unwanted = asyncio.create_task(self._not_wanted.wait())
        try:
            await asyncio.wait({*polling, down, unwanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (starting, down, unwanted):
                each.cancel()
            ending, self._workers = self._workers, []
            self._on_change()
            await asyncio.gather(*(worker.shutdown() for worker in ending))
        await asyncio.gather(*polling)

    async def _report_start(self) -> None:
        while not self.polls:  # noqa: ASYNC110 - the SDK has no event for it
            await asyncio.sleep(_STARTED_WITHIN)
        self._on_change()

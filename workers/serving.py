"""Opens a provider, and polls the task queues of its roles while a bind is up."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from domain.binds import BindError, ProviderRole
from domain.configuration import ProviderConfiguration
from providers.base import Provider
from services.assembly import Services
from telemetry import metrics
from telemetry.logs import get_logger
from telemetry.supervision import supervised
from workers.adapters import make_provider, open_error
from workers.provider_queues import MakeWorker, workers_of_role
from workers.receipt_polling import ReceiptPoller
from workers.role_poller import RolePoller

_log = get_logger(__name__)

_OPEN_AGAIN_AFTER: Final = 5.0
"""Seconds after which a provider is tried again whose secret or TLS files were missing."""


class ProviderServing:
    """One provider in this process: its adapter once it can be made, and a poller for each role.

    Attributes:
        name: the provider's.
        configuration: the provider's.
        provider: its adapter; None while it cannot be made.
        open_error: why it cannot be made, or could not be before.
        changed: set when the adapter was made, or when the polled roles changed.
    """

    def __init__(
        self,
        name: str,
        configuration: ProviderConfiguration,
        services: Services,
        make_worker: MakeWorker,
    ) -> None:
        self.name = name
        self.configuration = configuration
        self.provider: Provider | None = None
        self.open_error: BindError | None = None
        self.changed = asyncio.Event()
        self._services = services
        self._make_worker = make_worker
        self._pollers: list[RolePoller] = []
        self._opened = asyncio.Event()

    @property
    def polls(self) -> list[str]:
        """The roles whose task queues are polled here now."""
        return sorted(poller.role.value for poller in self._pollers if poller.polls)

    def serve_roles(self, roles: Collection[str]) -> None:
        """Poll for these roles from now on, while a bind is up."""
        for poller in self._pollers:
            poller.serve(wanted=poller.role in roles)

    def pollers_changed(self) -> None:
        """Count the polled roles, and have a heartbeat sent with them at once."""
        polls = self.polls
        metrics.pollers_counted(self.name, {role.value: role in polls for role in ProviderRole})
        self.changed.set()

    async def run(self) -> None:
        """Make the provider, trying again while it cannot be made, and poll for its roles."""
        while self.provider is None:
            self._open()
            if self.provider is None:
                await asyncio.sleep(_OPEN_AGAIN_AFTER)
        await asyncio.gather(
            *(
                supervised(poller.run, "poll_provider", provider=self.name, role=poller.role)
                for poller in self._pollers
            )
        )

    async def poll_receipts(self) -> None:
        """Request missing receipts from the provider, once it is made, until this task is cancelled."""
        await self._opened.wait()
        if self.provider is not None:
            polling = self._services.receipt_polling
            await ReceiptPoller(self.provider, self.configuration, polling).run()

    def _open(self) -> None:
        try:
            provider = make_provider(self.name, self.configuration, self._services)
        except Exception as error:  # noqa: BLE001 - other providers must not be affected
            self.open_error = open_error(error, datetime.now(UTC))
            metrics.bind_errors_counted(self.name, {self.open_error.reason: 1})
            _log.error(
                "provider_not_started",
                provider=self.name,
                reason=self.open_error.reason,
                exc_info=error,
            )
            return
        self._pollers = [self._poller(role, provider) for role in ProviderRole]
        self.provider = provider
        self._opened.set()
        if self.open_error is not None:
            self.open_error = replace(self.open_error, ended_at=datetime.now(UTC))
        metrics.bind_errors_counted(self.name, {})
        self.pollers_changed()

    def _poller(self, role: ProviderRole, provider: Provider) -> RolePoller:
        make_workers = workers_of_role(
            role, provider, self.configuration, self._services, self._make_worker
        )
        return RolePoller(role, provider, make_workers, self.pollers_changed)

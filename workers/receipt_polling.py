"""Requests receipts that did not come from a provider, while this process holds a bind."""

import asyncio
from typing import NoReturn

from domain.configuration import ProviderConfiguration
from providers.base import Provider
from services.receipt_polling import ReceiptPolling, pause_of
from store.database import DATABASE_ERRORS
from telemetry.logs import get_logger
from telemetry.supervision import supervised

_log = get_logger(__name__)


class ReceiptPoller:
    """The two loops of a provider that can be polled: one finds the parts, the other one polls for them."""

    def __init__(
        self, provider: Provider, configuration: ProviderConfiguration, polling: ReceiptPolling
    ) -> None:
        self._provider = provider
        self._configuration = configuration
        self._polling = polling

    async def run(self) -> None:
        """Poll until this task is cancelled; returns at once if the provider is never polled."""
        poll_after = self._configuration.receipt_poll_after
        if poll_after is None:
            return
        pause = pause_of(poll_after).total_seconds()

        async def scan() -> NoReturn:
            while True:
                try:
                    await self._polling.scan()
                except DATABASE_ERRORS as error:
                    self._report(error)
                await asyncio.sleep(pause)

        async def poll() -> NoReturn:
            while True:
                await self._provider.wait_until(up=True)
                try:
                    found = await self._polling.poll(self._provider, self._configuration)
                except DATABASE_ERRORS as error:
                    self._report(error)
                    found = 0
                if not found:
                    await asyncio.sleep(pause)

        name = self._provider.name
        await asyncio.gather(
            supervised(scan, "find_missing_receipts", provider=name),
            supervised(poll, "poll_receipts", provider=name),
        )

    def _report(self, error: Exception) -> None:
        _log.warning(
            "receipts_not_polled", provider=self._provider.name, error_type=type(error).__name__
        )

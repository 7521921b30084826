"""How many messages of bulks may be in flight at a provider at once."""

import asyncio
import time
from contextlib import suppress

from providers.base import Provider
from telemetry import metrics


class InFlightLimit:
    """Limits the messages that are claimed and not yet recorded, over all chunks of one provider.

    The limit is what the provider's windows hold, so that a crash leaves no more messages unknown, and
    at most what its rate sends in a second.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._taken = 0
        self._changed = asyncio.Event()

    async def take(self, wanted: int, *, until: float) -> int:
        """Wait for capacity, and reserve it for `wanted` messages or fewer; how many were reserved.

        0 if the provider is down, or if there is no capacity by `until`, on the monotonic clock.
        """
        while self.provider.up and time.monotonic() < until:
            most = self._most()
            # A claim costs nearly the same for one message as for fifty.
            if most - self._taken >= min(wanted, max(1, most // 4)):
                reserved = min(most - self._taken, wanted)
                self._taken += reserved
                self._measure()
                return reserved
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(until - time.monotonic()):
                    await self._changed.wait()
        return 0

    def give_back(self, messages: int) -> None:
        """Release the capacity of messages that are recorded, or were not claimed."""
        self._taken -= messages
        self._measure()
        self._changed.set()

    def _most(self) -> int:
        rate = self.provider.current_rate
        if rate is None:
            return self.provider.capacity
        return min(self.provider.capacity, max(1, int(rate)))

    def _measure(self) -> None:
        metrics.chunks_measured(self.provider.name, self._taken)


class InFlightLimits:
    """The limits of the providers of this process, each shared by all chunks of its provider."""

    def __init__(self) -> None:
        self._limits: dict[str, InFlightLimit] = {}

    def of(self, provider: Provider) -> InFlightLimit:
        """The limit of a provider; a new one if the provider was built anew."""
        known = self._limits.get(provider.name)
        if known is None or known.provider is not provider:
            known = self._limits[provider.name] = InFlightLimit(provider)
        return known

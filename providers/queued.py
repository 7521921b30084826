"""Providers whose submits wait for their turn: priority, rate and window, and the rate that follows errors."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

import structlog

from providers.base import NoSlot, Provider
from providers.submit_queue import SubmitQueue
from telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from domain.error_classes import ErrorClass
    from domain.modes import Priority
    from domain.rates import RateDemand

_log = structlog.get_logger(logger_name=__name__)

_SLOWED_BELOW: Final = 0.9
"""The part of its usual rate below which a provider is said to be slowed down."""
_CHECK_SLOWDOWN_EVERY: Final = 1.0


class QueuedProvider(Provider):
    """A provider with a `SubmitQueue`; made within a running event loop.

    `open_window` returns how many requests may be unanswered at once just now. An adapter calls
    `_connectivity_changed` whenever that, or `binds_up`, has changed, and `_count_response` for each
    response to a submit.
    """

    def __init__(self, name: str, rate: float | None, open_window: Callable[[], int]) -> None:
        self.name = name
        self._queue = SubmitQueue(rate, open_window)
        self._open_window = open_window
        metrics.window_watched(name, lambda: self._queue.held)
        metrics.rate_watched(name, lambda: self.rate_ratio)
        self._is_up = asyncio.Event()
        self._is_down = asyncio.Event()
        self._is_down.set()
        self._stopping = False
        self._slowdown_check: asyncio.TimerHandle | None = None

    @property
    def capacity(self) -> int:
        return self._open_window()

    async def wait_until(self, *, up: bool) -> None:
        await (self._is_up if up else self._is_down).wait()

    @property
    def rate(self) -> float | None:
        return self._queue.rate_limiter.limit

    @property
    def current_rate(self) -> float | None:
        return self._queue.rate_limiter.rate()

    @property
    def rate_ratio(self) -> float:
        return self._queue.rate_limiter.ratio

    def limit_rate(self, rate: float) -> None:
        self._queue.limit_rate(rate)

    def demand(self) -> RateDemand:
        return self._queue.demand()

    def acquire(self, priority: Priority) -> AbstractAsyncContextManager[None]:
        return _Slot(self._queue, priority.rank)

    @contextlib.asynccontextmanager
    async def _operation(self, patience: float) -> AsyncIterator[bool]:
        """A slot of the window for a request that is no submit; False if none comes within `patience` seconds."""
        if not self.up:
            yield False
            return
        try:
            await self._queue.take_for_operation(patience=patience)
        except NoSlot:
            yield False
            return
        try:
            yield True
        finally:
            self._queue.give_back_operation()

    def _connectivity_changed(self) -> None:
        up = self.up and not self._stopping
        (self._is_up.set if up else self._is_up.clear)()
        (self._is_down.clear if up else self._is_down.set)()
        self._queue.recheck()

    async def _end_submits(self, deadline: float) -> None:
        """Take no more messages, and wait for responses until `deadline`, on the event loop's clock."""
        self._stopping = True
        self._connectivity_changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._queue.close()
        self._queue.end()
        if self._slowdown_check is not None:
            self._slowdown_check.cancel()

    def _count_response(self, error_class: ErrorClass | None) -> None:
        """Adapt the rate to a response, and log when that begins and when it has ended."""
        rate_limiter = self._queue.rate_limiter
        rate_limiter.count_response(error_class)
        if error_class is None or self._slowdown_check is not None or self._stopping:
            return
        if rate_limiter.ratio < _SLOWED_BELOW:
            _log.warning(
                "provider_slowed",
                provider=self.name,
                error_class=error_class,
                rate=rate_limiter.rate(),
            )
            self._check_slowdown_later()

    def _check_slowdown_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._slowdown_check = loop.call_later(_CHECK_SLOWDOWN_EVERY, self._check_slowdown)

    def _check_slowdown(self) -> None:
        self._slowdown_check = None
        if self.rate_ratio < 1:
            self._check_slowdown_later()
        else:
            _log.info("provider_slowdown_ended", provider=self.name, rate=self.rate)


class _Slot(AbstractAsyncContextManager[None]):
    """A turn, taken and given back."""

    def __init__(self, turns: SubmitQueue, rank: int) -> None:
        self._queue = turns
        self._rank = rank

    async def __aenter__(self) -> None:
        await self._queue.take(self._rank)

    async def __aexit__(self, *_: object) -> None:
        self._queue.give_back()

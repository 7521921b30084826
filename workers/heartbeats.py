"""Heartbeats of one provider in this process, and the binds and the rate that are leased in return."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final

from domain.binds import ProviderRole
from domain.rates import WORTH_A_HEARTBEAT, RateDemand
from providers.base import Provider
from services.assembly import Services
from services.binds import Leased
from store import providers as provider_store
from store.database import DATABASE_ERRORS, Connection
from store.providers import Heartbeat
from telemetry import metrics
from telemetry.logs import get_logger
from workers.identity import is_gone
from workers.serving import ProviderServing

_log = get_logger(__name__)

_RENEW_WITHIN: Final = 5.0
"""Seconds after which a heartbeat that the database does not take counts as missed."""
BIND_LEASE: Final = 6.5
"""Seconds for which binds are held without a renewal by the database: more than one heartbeat takes, and so
much less than `BINDS_HELD_FOR` that they are ended by then."""


class ProviderHeartbeats:
    """Reports the state of a provider in this process, and applies what is leased to it: binds and rate."""

    def __init__(
        self,
        serving: ProviderServing,
        services: Services,
        worker_name: str,
        roles: frozenset[ProviderRole],
    ) -> None:
        self._serving = serving
        self._services = services
        self._worker_name = worker_name
        self._roles = roles
        self._role_label = next(iter(roles)).value if len(roles) == 1 else "all"
        self._rate_share = None if serving.configuration.rate is None else 0.0
        self._renewed_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Send a heartbeat when it is due and at each change, and apply what is leased."""
        loop = asyncio.get_running_loop()
        while True:
            if self._lease_expired():
                await self._release()
            self._serving.changed.clear()
            heartbeat, began = self._present(), loop.time()
            leased: Leased | None = None
            try:
                async with asyncio.timeout(_RENEW_WITHIN):
                    leased = await self._services.binds.renew(
                        heartbeat, self._serving.configuration, is_gone
                    )
                self._renewed_at = began
                self._serving.serve_roles(leased.roles)
            except (*DATABASE_ERRORS, TimeoutError) as error:
                _log.warning(
                    "heartbeat_missed",
                    provider=self._serving.name,
                    error_type=type(error).__name__,
                )
            if leased is None:
                if self._lease_expired():
                    await self._release()
                await self._until_changed(provider_store.HEARTBEAT_INTERVAL, heartbeat)
                continue
            await self._apply(leased)
            if not self._gives_back(heartbeat, leased):  # else other workers wait for that
                await self._until_changed(leased.renew_within, heartbeat)

    async def run_shutdown(self) -> None:
        """Send heartbeats with state `down` and the number of binds that are still held."""
        while True:
            provider = self._serving.provider
            held = provider.held if provider is not None else 0
            await self._write(
                partial(provider_store.record_heartbeat, heartbeat=self._absent(binds_held=held))
            )
            await asyncio.sleep(provider_store.HEARTBEAT_INTERVAL.total_seconds())

    async def deregister(self) -> None:
        """Delete the heartbeat of this worker."""
        await self._write(
            partial(
                provider_store.deregister, provider=self._serving.name, worker=self._worker_name
            )
        )

    def _lease_expired(self) -> bool:
        """Whether the last renewal is so old that other workers may soon take its binds."""
        return asyncio.get_running_loop().time() - self._renewed_at > BIND_LEASE

    async def _apply(self, leased: Leased) -> None:
        provider = self._serving.provider
        if provider is None:  # nothing is sent, whatever the share is
            return
        if leased.binds and leased.rate is not None:
            provider.limit_rate(leased.rate)
            self._rate_share = leased.rate
        await self._hold(provider, leased.binds)
        # Without a bind nothing is sent any more: only now is the whole share given back.
        self._rate_share = leased.rate
        self._measure(provider.demand())

    def _gives_back(self, heartbeat: Heartbeat, leased: Leased) -> bool:
        """Whether this worker has given back binds, or much of its rate."""
        if leased.binds < heartbeat.binds_held:
            return True
        total, share = self._serving.configuration.rate, heartbeat.rate_share
        if total is None or leased.rate is None or share is None:
            return False
        return leased.rate < share - WORTH_A_HEARTBEAT * total

    async def _release(self) -> None:
        """Hold no bind and use no rate."""
        if self._serving.provider is not None:
            await self._hold(self._serving.provider, 0)
        if self._rate_share is not None:
            self._rate_share = 0.0

    async def _hold(self, provider: Provider, binds: int) -> None:
        if binds != provider.held:
            _log.info("binds_held", provider=self._serving.name, count=binds)
            await provider.hold(binds)

    def _measure(self, demand: RateDemand) -> None:
        metrics.rate_divided(
            self._serving.name,
            role=self._role_label,
            rate=self._serving.configuration.rate,
            share=self._rate_share,
            demand=demand.total,
        )

    def _present(self) -> Heartbeat:
        """The present state; without roles while the provider cannot be made, so that others bind."""
        provider = self._serving.provider
        if provider is None:
            absent = self._absent(binds_held=0)
            return replace(absent, last_bind_error=self._serving.open_error, rate_share=0.0)
        return Heartbeat(
            provider=self._serving.name,
            worker=self._worker_name,
            roles=sorted(self._roles),
            binds_held=provider.held,
            binds_up=provider.binds_up,
            state="up" if provider.up else "down",
            polls=self._serving.polls,
            last_bind_error=provider.last_bind_error or self._serving.open_error,
            rate_ratio=provider.rate_ratio,
            rate_share=self._rate_share,
            demand=provider.demand(),
        )

    def _absent(self, *, binds_held: int) -> Heartbeat:
        """The heartbeat of a worker that serves no role."""
        return Heartbeat(
            provider=self._serving.name,
            worker=self._worker_name,
            roles=(),
            binds_held=binds_held,
            binds_up=0,
            state="down",
            polls=(),
            rate_share=self._rate_share,
        )

    async def _until_changed(self, due: timedelta, heartbeat: Heartbeat) -> None:
        """Wait until the next heartbeat is due, or the state to report has changed."""
        was_up = heartbeat.state == "up"
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(self._serving.changed.wait())]
        if self._serving.provider is not None:
            up = self._serving.provider.wait_until(up=not was_up)
            waiting.append(asyncio.create_task(up))
        try:
            await asyncio.wait(
                waiting,
                timeout=due.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for each in waiting:
                each.cancel()

    async def _write(self, statement: Callable[[Connection], None]) -> None:
        try:
            async with self._services.database.begin() as connection:
                statement(connection)
        except DATABASE_ERRORS as error:
            # The heartbeat expires by itself.
            _log.warning(
                "heartbeat_missed", provider=self._serving.name, error_type=type(error).__name__
            )

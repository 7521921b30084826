"""A process with a provider's heartbeats and its SMPP sessions, which submits what a test orders.

`python -m tests.fakes.submitting_worker ROLE PORT RATE WORKER` holds what is leased to it of the
provider `primary` at the SMSC simulator on PORT. It reads orders from standard input, one a line: `bulk`
submits messages as fast as they can leave, `idle` ends that, and `alerts N` submits N critical messages
at once. For each alert it writes how many seconds it waited for its turn; for each second, `share` and
the share of the rate that it may use. There is no Temporal: pollers only run.
"""

import asyncio
import itertools
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.binds import ProviderRole
from domain.configuration.providers.smpp import SmppConfiguration
from domain.modes import Priority
from providers.base import NoSlot, Outbound, Provider
from services.assembly import assemble
from settings.settings import load_settings
from workers.heartbeats import ProviderHeartbeats
from workers.serving import ProviderServing

_AT_ONCE = 50
_numbers = itertools.count(1)


class IdlePoller:
    """In the place of a poller of Temporal's SDK."""

    def __init__(self, *_: object, **__: object) -> None:
        self._shutdown = asyncio.Event()
        self.is_running = False

    async def run(self) -> None:
        self.is_running = True
        await self._shutdown.wait()
        self.is_running = False

    async def shutdown(self) -> None:
        self._shutdown.set()


def message(priority: Priority) -> Outbound:
    number = next(_numbers)
    return Outbound(
        message_id=UUID(int=number),
        attempt=1,
        sender="AbilIT",
        recipient="+447700900123",
        text=f"{priority} {number}",
        reference=number & 0xFFFF,
        valid_until=datetime.now(UTC) + timedelta(hours=1),
        priority=priority,
    )


async def submit(provider: Provider, priority: Priority) -> float:
    """Submit a message, trying again while it gets no turn; the seconds until it had one."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            async with provider.acquire(priority):
                waited = loop.time() - began
                await provider.submit(message(priority), [1])
                return waited
        except NoSlot as full:
            await asyncio.sleep(min(full.after.total_seconds(), 1.0))


class SubmittingWorker:
    def __init__(self, role: str, port: str, rate: str, worker: str) -> None:
        configuration = SmppConfiguration.model_validate(
            {
                "type": "smpp",
                "host": "127.0.0.1",
                "port": int(port),
                "system_id": "acme",
                "password": "env:SMSGATEWAY_SECRET_SIMULATOR",
                "tls": False,
                "binds": 2,
                "window": 50,
                "rate": float(rate),
                "rebind_backoff": {"min": "100ms", "max": "500ms"},
            }
        )
        services = assemble(load_settings())
        self._serving = ProviderServing("primary", configuration, services, IdlePoller)
        self._heartbeats = ProviderHeartbeats(
            self._serving, services, worker, frozenset({ProviderRole(role)})
        )
        self._bulk: list[asyncio.Task[None]] = []

    async def work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._serving.run())
            tasks.create_task(self._heartbeats.run())
            tasks.create_task(self._report())
            while order := await asyncio.to_thread(sys.stdin.readline):
                self._obey(order.split(), tasks)

    def _obey(self, order: list[str], tasks: asyncio.TaskGroup) -> None:
        assert self._serving.provider is not None
        match order:
            case ["bulk"]:
                self._bulk = [tasks.create_task(self._submit_bulk()) for _ in range(_AT_ONCE)]
            case ["idle"]:
                for task in self._bulk:
                    task.cancel()
            case ["alerts", count]:
                for _ in range(int(count)):
                    tasks.create_task(self._submit_alert())

    async def _submit_bulk(self) -> None:
        while self._serving.provider is not None:
            await submit(self._serving.provider, Priority.LOW)

    async def _submit_alert(self) -> None:
        assert self._serving.provider is not None
        waited = await submit(self._serving.provider, Priority.CRITICAL)
        _write(f"alert {waited}")

    async def _report(self) -> None:
        while True:
            provider = self._serving.provider
            if provider is not None and provider.up:
                _write(f"share {provider.rate}")
            await asyncio.sleep(0.2)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(role: str, port: str, rate: str, worker: str) -> None:
    await SubmittingWorker(role, port, rate, worker).work()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

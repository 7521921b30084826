"""Two processes divide a provider's rate by demand: real heartbeats in Postgres, real SMPP."""

import asyncio
import bisect
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from simulator.behaviour import Behaviour
from simulator.smsc import Smsc
from store.providers import BINDS_HELD_FOR

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).parents[2]
WITHIN = 180
RATE = 200.0
RESERVED = 5.0
"""The share of one of two processes that has nothing to submit, at this rate."""


class Worker:
    """A process of one role: `tests.fakes.submitting_worker`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.share = 0.0
        self.waits: list[float] = []
        """Of its alerts, in seconds."""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            match line.split():
                case [b"share", share]:
                    self.share = float(share)
                case [b"alert", seconds]:
                    self.waits.append(float(seconds))

    def order(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        await self._reading


class Carrier:
    """The simulator, and when it accepted messages."""

    def __init__(self, smsc: Smsc) -> None:
        self.smsc = smsc

    def times(self) -> list[float]:
        parts = (message.parts[0] for message in self.smsc.messages)
        return sorted(part.accepted_at.timestamp() for part in parts)

    def last(self, seconds: float) -> int:
        """How many messages came in the last seconds."""
        times = self.times()
        return len(times) - bisect.bisect_left(times, time.time() - seconds)


async def until(condition: Callable[[], bool], what: str, *workers: Worker) -> None:
    end = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < end, what
        assert all(worker.process.returncode is None for worker in workers), "a worker has ended"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def worker(database_url: str, smsc: Smsc, role: str, name: str = "") -> AsyncIterator[Worker]:
    """A worker; its name does not show other workers whether its process is gone."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.submitting_worker"),
        *(role, str(smsc.port), str(RATE), name or f"elsewhere/{role}"),
        cwd=CHECKOUT,
        env=os.environ
        | {
            "DATABASE_URL": database_url,
            "SMSGATEWAY_RECIPIENT_HASH_KEY": "k" * 32,
            "SMSGATEWAY_SECRET_SIMULATOR": "secret",
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    started = Worker(process)
    try:
        yield started
    finally:
        await started.kill()


@pytest.fixture
async def carrier() -> AsyncIterator[Carrier]:
    async with Smsc("primary", behaviour=Behaviour(receipts=()), keep=100_000) as smsc:
        yield Carrier(smsc)


@pytest.fixture
async def singles(database_url: str, carrier: Carrier) -> AsyncIterator[Worker]:
    async with worker(database_url, carrier.smsc, "providers") as started:
        yield started


@pytest.fixture
async def chunks(database_url: str, carrier: Carrier, singles: Worker) -> AsyncIterator[Worker]:
    async with worker(database_url, carrier.smsc, "chunks") as started:
        await until(
            lambda: started.share > RESERVED and singles.share > RESERVED,
            "both have a share",
            *(started, singles),
        )
        yield started


def most_in_a_second(times: list[float]) -> list[int]:
    """Of each second that begins with a message, how many came in it; the largest first."""
    counts = [bisect.bisect_left(times, first + 1) - n for n, first in enumerate(times)]
    return sorted(counts, reverse=True)


def assert_the_rate_holds(carrier: Carrier) -> None:
    """In any second, as far as the machine delivers messages when they were sent."""
    counts = most_in_a_second(carrier.times())
    assert counts[len(counts) // 20] <= RATE * 1.05, "in 95 of 100 seconds"
    assert counts[0] <= RATE * 1.3, "a pause of the machine may move some into another second"


async def test_bulk_alone_reaches_95_percent_of_the_rate(carrier, singles, chunks):
    chunks.order("bulk")
    await until(lambda: chunks.share > RATE * 0.97, "bulk has what the other does not use")
    assert singles.share == pytest.approx(RESERVED, rel=0.01)
    await until(lambda: carrier.last(10) >= 10 * RATE * 0.95, "ten seconds at the full rate")
    assert_the_rate_holds(carrier)


async def test_alerts_beside_bulk_hardly_wait_and_take_their_part(carrier, singles, chunks):
    chunks.order("bulk")
    await until(lambda: chunks.share > RATE * 0.97, "bulk has what the other does not use")
    await asyncio.sleep(2)
    singles.order("alerts 1")  # the first one, by the reserved part
    await until(lambda: len(singles.waits) == 1, "it was sent")
    assert singles.waits[0] < 0.1
    for _ in range(30):
        singles.order("alerts 1")
        await asyncio.sleep(0.25)
    await until(lambda: len(singles.waits) == 31, "all were sent")
    assert statistics.median(singles.waits) < 0.05
    singles.order("alerts 400")  # far more than the reserved part
    await until(lambda: singles.share > RATE * 0.4, "they get a part of the rate")
    await until(lambda: len(singles.waits) == 431, "all were sent")
    await until(lambda: chunks.share > RATE * 0.97, "bulk has what the other does not use again")
    assert_the_rate_holds(carrier)


async def test_when_a_process_dies_the_other_has_the_whole_rate_after_its_heartbeat_expired(
    carrier, singles, chunks
):
    chunks.order("bulk")
    singles.order("alerts 100")
    await until(lambda: carrier.last(1) > 0, "both submit")
    await chunks.kill()
    died = time.monotonic()
    largest = 0.0
    while time.monotonic() < died + BINDS_HELD_FOR.total_seconds() - 5:
        largest = max(largest, singles.share)
        await asyncio.sleep(0.1)
    assert largest < RATE, "the share of the dead process is its own for so long"
    await until(lambda: singles.share == RATE, "the other has the whole rate")
    singles.order("bulk")
    await until(lambda: carrier.last(5) >= 5 * RATE * 0.95, "and uses it")
    assert_the_rate_holds(carrier)

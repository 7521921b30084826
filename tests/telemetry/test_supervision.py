"""Loops that must never end."""

import asyncio

import pytest
from structlog.testing import capture_logs

from telemetry.metrics import metric_value
from telemetry.supervision import supervised


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def failures(name: str) -> float:
    return metric_value("smsgateway_loop_failures_total", {"operation": name})


class Loop:
    """Fails at its first starts, each time in another way, and then works."""

    def __init__(self, *endings: BaseException | None) -> None:
        self.endings = list(endings)
        self.works = False

    async def run(self) -> None:
        if not self.endings:
            self.works = True
            await asyncio.Event().wait()
        ending = self.endings.pop(0)
        if ending is not None:
            raise ending


async def test_whatever_ends_a_loop_is_logged_and_counted_and_the_loop_starts_again():
    endings = (OSError("gone"), None, KeyError("x"), TimeoutError(), asyncio.CancelledError())
    loop = Loop(*endings)
    before = failures("a_loop")
    with capture_logs() as log:
        task = asyncio.create_task(
            supervised(loop.run, "a_loop", restart_after=0.01, provider="primary")
        )
        await until(lambda: loop.works)
    assert failures("a_loop") - before == len(endings)
    assert [entry["event"] for entry in log] == [
        "loop_failed" if ending is not None else "loop_ended" for ending in endings
    ]
    assert {(entry["operation"], entry["provider"]) for entry in log} == {("a_loop", "primary")}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_loop_ends_with_its_task_also_while_it_waits_to_start_again():
    loop = Loop(*[OSError()] * 10)
    task = asyncio.create_task(supervised(loop.run, "a_loop", restart_after=600))
    await until(lambda: len(loop.endings) < 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

"""Pollers end where nobody killed them: Temporal's SDK gives up, say when it finds no server."""

import pytest

from tests.gateway import running_gateway
from workers.process import WorkerProcess
from workflows.send import provider_queue

pytestmark = pytest.mark.stack


class EndsAtOnce:
    """A poller of the SDK that finds no server to poll."""

    is_running = False

    async def run(self) -> None:
        raise RuntimeError("Worker validation failed")

    async def shutdown(self) -> None:
        """Nothing was begun."""


async def test_a_provider_whose_poller_ended_is_polled_again(
    database_url, temporal_client, monkeypatch
):
    real = WorkerProcess._worker
    ended = []

    def first_one_ends(self, queue, **what):
        if queue == provider_queue("primary") and not ended:
            ended.append(EndsAtOnce())
            return ended[0]
        return real(self, queue, **what)

    monkeypatch.setattr(WorkerProcess, "_worker", first_one_ends)
    async with running_gateway(database_url, temporal_client) as gateway:
        message = await gateway.send()
        await gateway.until(message, "delivered")
        assert await gateway.attempts(message) == [("primary", "delivered")]
    assert ended

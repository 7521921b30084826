"""The loops that ask a provider for missing receipts: while it is up, and whatever the database does."""

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from domain.configuration.providers.types import BUILT_IN_TYPES
from services import receipt_polling
from store.database import DatabaseAway
from workers.receipt_polling import ReceiptPoller

TWILIO = {
    "type": "twilio",
    "account_sid": "AC72d1371c17149d439536b3216fdaeeb9",
    "auth_token": "env:SMSGATEWAY_SECRET_TWILIO",
}


class UpOrDown:
    name = "primary"

    def __init__(self, *, up):
        self.up = asyncio.Event()
        if up:
            self.up.set()

    async def wait_until(self, *, up):
        assert up
        await self.up.wait()


class Polling:
    """Counts what is called; fails as long as `away`."""

    def __init__(self):
        self.scans = 0
        self.polls = 0
        self.away = False

    async def scan(self):
        self.scans += 1
        if self.away:
            raise DatabaseAway

    async def poll(self, provider, declared):
        self.polls += 1
        if self.away:
            raise DatabaseAway
        return 0


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(receipt_polling, "_LONGEST_PAUSE", receipt_polling._SHORTEST_PAUSE / 50)


@contextlib.asynccontextmanager
async def running(provider, polling, **more):
    declared = BUILT_IN_TYPES["twilio"].model_validate({**TWILIO, **more})
    task = asyncio.create_task(ReceiptPoller(provider, declared, polling).run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_provider_is_asked_only_while_it_is_up():
    provider, polling = UpOrDown(up=False), Polling()
    async with running(provider, polling):
        await until(lambda: polling.scans >= 3)
        assert polling.polls == 0
        provider.up.set()
        await until(lambda: polling.polls >= 3)


async def test_both_loops_go_on_when_the_database_is_back():
    polling = Polling()
    polling.away = True
    with capture_logs() as logs:
        async with running(UpOrDown(up=True), polling):
            await until(lambda: polling.scans >= 2 and polling.polls >= 2)
            polling.away = False
            scans, polls = polling.scans, polling.polls
            await until(lambda: polling.scans >= scans + 3 and polling.polls >= polls + 3)
    assert {entry["event"] for entry in logs} == {"receipts_not_polled"}
    assert {(entry["provider"], entry["error_type"]) for entry in logs} == {
        ("primary", "DatabaseAway")
    }


@pytest.mark.parametrize(
    "declared",
    [
        BUILT_IN_TYPES["twilio"].model_validate({**TWILIO, "poll_after": None}),
        BUILT_IN_TYPES["simulator"].model_validate({"type": "simulator", "port": 2775}),
    ],
    ids=["no poll_after", "SMPP"],
)
async def test_a_provider_that_is_never_asked_has_no_loops(declared):
    polling = Polling()
    await asyncio.wait_for(ReceiptPoller(UpOrDown(up=True), declared, polling).run(), 5)
    assert (polling.scans, polling.polls) == (0, 0)

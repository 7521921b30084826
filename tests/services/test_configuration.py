"""The configuration in force: never an older one, followed whatever happens."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import services.configuration
from domain.secrets import AllowedSecrets
from services.configuration import Configurations
from store.configurations import StoredConfiguration
from store.database import Database
from telemetry.metrics import metric_value

pytestmark = pytest.mark.stack

TEXT = '[providers.p{n}]\ntype = "simulator"\n[[routes]]\nproviders = ["p{n}"]\n'
WITHIN = 60


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    connected = Database.connect(database_url, pool_size=4)
    yield connected
    await connected.close()


class Replies:
    """A database whose connections return versions in the order that the test chooses."""

    def __init__(self, versions: list[int]) -> None:
        self.versions = iter(versions)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    def begin(self):
        return self

    async def latest(self, _connection):
        version = next(self.versions)
        if not version:
            return None
        return StoredConfiguration(
            version, TEXT.format(n=version), b"", "", "test", datetime.now(UTC)
        )


@given(st.lists(st.integers(0, 5), max_size=12))
def test_a_process_never_goes_back_to_an_older_version(versions):
    """As a connection that lags behind, or a refresh that ends late, would have it."""
    replies = Replies(versions)
    configurations = Configurations(replies, AllowedSecrets())
    heard = []
    configurations.on_change(lambda: heard.append(configurations.version))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(services.configuration.store, "latest", replies.latest)
        for newest in itertools.accumulate(versions, max):
            asyncio.run(configurations.refresh())
            assert (configurations.version or 0) == newest
            if newest:
                assert set(configurations.current.providers) == {f"p{newest}"}
    assert heard == sorted(set(heard))


async def test_a_refresh_that_ends_late_does_not_bring_back_what_it_read(database, monkeypatch):
    configurations = Configurations(database, AllowedSecrets())
    await configurations.apply(TEXT.format(n=1), applied_by="test")
    process = Configurations(database, AllowedSecrets())
    real, read, go_on = services.configuration.store.latest, asyncio.Event(), asyncio.Event()

    async def late(connection):
        found = await real(connection)
        if not read.is_set():
            read.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(services.configuration.store, "latest", late)
    slow = asyncio.create_task(process.refresh())
    await read.wait()
    await configurations.apply(TEXT.format(n=2), applied_by="test")
    assert await process.refresh()
    go_on.set()
    assert not await slow
    assert set(process.current.providers) == {"p2"}


async def test_it_is_followed_whatever_a_refresh_fails_with(database, monkeypatch):
    configurations, process = (
        Configurations(database, AllowedSecrets()),
        Configurations(database, AllowedSecrets()),
    )
    await configurations.apply(TEXT.format(n=1), applied_by="test")
    before = metric_value("smsgateway_loop_failures_total", {"operation": "follow_configuration"})
    real, failed = services.configuration.parse_configuration, []

    def fails_first(text, *more):
        if not failed:
            failed.append(True)
            raise RecursionError
        return real(text, *more)

    monkeypatch.setattr(services.configuration, "parse_configuration", fails_first)
    following = asyncio.create_task(process.follow())
    try:
        async with asyncio.timeout(WITHIN):
            while process.version is None:
                await asyncio.sleep(0.02)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    after = metric_value("smsgateway_loop_failures_total", {"operation": "follow_configuration"})
    assert after - before == 1


async def test_a_listener_that_fails_keeps_nothing_from_the_others(database):
    configurations = Configurations(database, AllowedSecrets())
    heard = []

    def fails():
        raise RuntimeError

    configurations.on_change(fails)
    configurations.on_change(lambda: heard.append(configurations.version))
    applied = await configurations.apply(TEXT.format(n=1), applied_by="test")
    assert heard == [applied.version]

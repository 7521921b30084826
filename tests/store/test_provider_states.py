"""When a provider was last up: an outage began with the last heartbeat that said so."""

import pytest

from domain.binds import ProviderRole
from store import providers
from store.database import Database, sql
from store.providers import Heartbeat
from tests.rows import rows_of
from tests.store.test_folds import database

__all__ = ["database"]

pytestmark = pytest.mark.stack


async def heartbeat(database: Database, worker: str, *roles: str, up: bool) -> None:
    state = "up" if up else "down"
    async with database.begin() as connection:
        providers.record_heartbeat(
            connection, Heartbeat("primary", worker, roles, 1, int(up), state, polls=roles)
        )


async def last_up(database: Database) -> dict[tuple[str, str], float]:
    """Seconds since each provider was last up, by provider and role."""
    seen: dict[tuple[str, str], float] = {}
    async with database.begin() as connection:
        (now,) = await rows_of(connection, sql("SELECT now() AS now"))
        for role in ProviderRole:
            for provider, at in (await providers.last_up(connection, role)).items():
                seen[provider, role.value] = (now["now"] - at).total_seconds()
    return seen


async def an_hour_passes(database: Database) -> None:
    async with database.begin() as connection:
        connection.send(
            sql("UPDATE provider_states SET last_up_at = last_up_at - interval '1 hour'")
        )


async def test_a_heartbeat_that_says_down_leaves_when_the_provider_was_up(database: Database):
    await heartbeat(database, "a", "providers", "chunks", up=True)
    await an_hour_passes(database)
    await heartbeat(database, "a", "providers", "chunks", up=False)
    seen = await last_up(database)
    assert seen.keys() == {("primary", "providers"), ("primary", "chunks")}
    assert all(3600 <= seconds < 3700 for seconds in seen.values())


async def test_each_role_has_its_own_outage(database: Database):
    await heartbeat(database, "a", "providers", up=True)
    await heartbeat(database, "b", "chunks", up=True)
    await an_hour_passes(database)
    await heartbeat(database, "b", "chunks", up=True)
    seen = await last_up(database)
    assert seen["primary", "providers"] >= 3600
    assert seen["primary", "chunks"] < 100


async def test_it_is_known_when_the_worker_is_gone(database: Database):
    await heartbeat(database, "a", "providers", up=True)
    async with database.begin() as connection:
        providers.deregister(connection, "primary", "a")
    assert ("primary", "providers") in await last_up(database)

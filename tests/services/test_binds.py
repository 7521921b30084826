"""Workers that agree about binds, on a real Postgres."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from domain.configuration import SmppProvider
from services.binds import BindShares
from store import providers as store
from store.database import Database, sql
from store.providers import Beat

pytestmark = pytest.mark.stack

BOTH = ("providers", "shares")


def declared(binds: int, rate: float | None = None) -> SmppProvider:
    return SmppProvider.model_validate(
        {
            "type": "smpp",
            "host": "127.0.0.1",
            "system_id": "acme",
            "password": "env:UNUSED",
            "binds": binds,
            "rate": rate,
        }
    )


class Worker:
    """A worker of a test: what it holds, and what it is told."""

    def __init__(self, name: str, database: Database, provider: SmppProvider, roles=BOTH) -> None:
        self.name = name
        self.held = 0
        self.roles = roles
        self._shares = BindShares(database)
        self._provider = provider
        self.gone: set[str] = set()

    async def beats(self) -> int:
        beat = Beat("primary", self.name, self.roles, self.held, self.held, "up")
        self.held = await self._shares.agree(beat, self._provider, self.gone.__contains__)
        return self.held


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    connected = Database.connect(database_url, pool_size=8)
    yield connected
    await connected.close()


async def test_the_first_worker_gets_all_and_a_second_one_waits_for_its_half(database):
    first, second = (Worker(name, database, declared(4)) for name in "ab")
    assert await first.beats() == 4
    assert await second.beats() == 0  # they are still the first one's
    assert await first.beats() == 2
    assert await second.beats() == 0  # until that one says that they are free
    assert await first.beats() == 2
    assert await second.beats() == 2


async def test_however_they_beat_never_is_more_held_than_there_is(database):
    workers = [Worker(name, database, declared(5)) for name in "abcdef"]
    for _ in range(4):
        # Who holds fewer says so at its next beat; until then the old number counts.
        before = [worker.held for worker in workers]
        await asyncio.gather(*(worker.beats() for worker in workers))
        assert sum(map(max, before, [worker.held for worker in workers])) <= 5
    assert sorted(worker.held for worker in workers) == [0, 1, 1, 1, 1, 1]


async def test_the_binds_of_a_worker_that_is_gone_are_free_at_once_where_that_is_known(database):
    first, second = (Worker(name, database, declared(2)) for name in "ab")
    await first.beats()
    second.gone.add("a")
    assert await second.beats() == 2


async def test_the_binds_of_a_worker_that_is_silent_are_its_own_for_a_while(database):
    first, second = (Worker(name, database, declared(2, rate=50)) for name in "ab")
    await first.beats()
    for seconds, held in ((14, 0), (16, 2)):
        await database.rows(
            sql(
                "UPDATE provider_workers SET beat_at = now() - make_interval(secs => :s)"
                " WHERE worker = 'a' RETURNING 1"
            ),
            {"s": seconds},
        )
        assert await second.beats() == held


async def test_who_leaves_is_waited_for_and_then_followed(database):
    first, second = (Worker(name, database, declared(2)) for name in "ab")
    await first.beats()
    async with database.begin() as connection:
        store.tell(connection, Beat("primary", "a", (), 2, 0, "down"))
    assert await second.beats() == 0
    async with database.begin() as connection:
        store.gone(connection, "primary", "a")
    assert await second.beats() == 2


async def test_what_a_process_of_the_version_before_has_bound_counts(database):
    await database.rows(
        sql(
            "INSERT INTO provider_workers (provider, worker, beat_at, binds_up, state)"
            " VALUES ('primary', 'old', now(), 1, 'up') RETURNING 1"
        )
    )
    worker = Worker("a", database, declared(3))
    assert await worker.beats() == 2


async def test_it_is_said_once_that_there_are_fewer_binds_than_roles(database):
    sends, shares = (
        Worker(name, database, declared(1), roles)
        for name, roles in zip("ab", zip(BOTH), strict=True)
    )
    with capture_logs() as log:
        for _ in range(2):
            await sends.beats()
            await shares.beats()
    said = [entry for entry in log if entry["event"] == "too_few_binds_for_roles"]
    assert [(entry["provider"], entry["count"]) for entry in said] == [("primary", 1)]

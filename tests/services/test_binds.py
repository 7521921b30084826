"""Workers that divide binds and a rate, on a real Postgres."""

import asyncio
import math
import random
from collections.abc import AsyncIterator

import pytest

from domain.binds import BindError, BindFailure, ProviderRole
from domain.configuration.providers.smpp import SmppConfiguration
from domain.rates import NO_DEMAND, RateDemand
from services.binds import BindLeases
from store import providers as store
from store.database import Database, sql
from store.providers import Heartbeat
from tests.rows import rows_of

pytestmark = pytest.mark.stack

BOTH = ("providers", "chunks")


def declared(binds: int, rate: float | None = None) -> SmppConfiguration:
    return SmppConfiguration.model_validate(
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
    """A worker of a test, with its leased binds, demand and rate; its binds are up at once."""

    def __init__(
        self, name: str, database: Database, provider: SmppConfiguration, roles=BOTH
    ) -> None:
        self.name = name
        self.held = 0
        self.rate: float | None = 0.0
        self.demand = NO_DEMAND
        self.roles = roles
        self.serves: frozenset[str] = frozenset()
        self.error: BindError | None = None
        self._leases = BindLeases(database)
        self._provider = provider
        self.gone: set[str] = set()

    async def heartbeats(self) -> int:
        bound = 0 if self.error else self.held
        heartbeat = Heartbeat(
            provider="primary",
            worker=self.name,
            roles=self.roles,
            binds_held=self.held,
            binds_up=bound,
            state="up" if bound else "down",
            polls=sorted(self.serves) if bound else (),
            last_bind_error=self.error,
            rate_share=self.rate,
            demand=self.demand,
        )
        leased = await self._leases.renew(heartbeat, self._provider, self.gone.__contains__)
        self.held, self.serves, self.rate = leased.binds, leased.roles, leased.rate
        return self.held


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    connected = Database.connect(database_url, pool_size=8)
    yield connected
    await connected.close()


async def test_the_first_worker_gets_all_and_a_second_one_waits_for_its_half(database):
    first, second = (Worker(name, database, declared(4)) for name in "ab")
    assert await first.heartbeats() == 4
    assert await second.heartbeats() == 0  # they are still the first one's
    assert await first.heartbeats() == 2
    assert await second.heartbeats() == 0  # until that one says that they are free
    assert await first.heartbeats() == 2
    assert await second.heartbeats() == 2


async def test_however_they_heartbeat_never_is_more_held_than_there_is(database):
    workers = [Worker(name, database, declared(5)) for name in "abcdef"]
    for _ in range(4):
        # Who holds fewer says so at its next heartbeat; until then the old number counts.
        before = [worker.held for worker in workers]
        await asyncio.gather(*(worker.heartbeats() for worker in workers))
        assert sum(map(max, before, [worker.held for worker in workers])) <= 5
    assert sorted(worker.held for worker in workers) == [0, 1, 1, 1, 1, 1]


async def test_the_binds_of_a_worker_that_is_gone_are_free_at_once_where_that_is_known(database):
    first, second = (Worker(name, database, declared(2)) for name in "ab")
    await first.heartbeats()
    second.gone.add("a")
    assert await second.heartbeats() == 2


async def test_the_binds_of_a_worker_that_is_silent_are_its_own_for_a_while(database):
    first, second = (Worker(name, database, declared(2, rate=50)) for name in "ab")
    await first.heartbeats()
    for seconds, held in ((14, 0), (16, 2)):
        await rows_of(
            database,
            sql(
                "UPDATE provider_workers SET heartbeat_at = now() - make_interval(secs => :s)"
                " WHERE worker = 'a' RETURNING 1"
            ),
            {"s": seconds},
        )
        assert await second.heartbeats() == held


async def test_who_leaves_is_waited_for_and_then_followed(database):
    first, second = (Worker(name, database, declared(2)) for name in "ab")
    await first.heartbeats()
    async with database.begin() as connection:
        store.record_heartbeat(connection, Heartbeat("primary", "a", (), 2, 0, "down", polls=()))
    assert await second.heartbeats() == 0
    async with database.begin() as connection:
        store.deregister(connection, "primary", "a")
    assert await second.heartbeats() == 2


def workers_apart(database: Database, binds: int) -> tuple[Worker, Worker]:
    """One for single messages, one for the chunks of bulks."""
    singles, chunks = (
        Worker(name, database, declared(binds, rate=50), roles)
        for name, roles in zip("ab", zip(BOTH), strict=True)
    )
    return singles, chunks


async def up_for(database: Database) -> set[str]:
    """The roles for which messages can be sent now."""
    async with database.begin() as connection:
        return {
            role.value for role in ProviderRole if "primary" in await store.up_for(connection, role)
        }


async def test_the_only_bind_serves_all_roles_whoever_holds_it(database):
    singles, chunks = workers_apart(database, binds=1)
    for _ in range(2):
        await chunks.heartbeats()  # which comes first
        await singles.heartbeats()
    assert (singles.held, chunks.held) == (0, 1)
    await chunks.heartbeats()
    assert await up_for(database) == set(BOTH)
    chunks.gone.add("b")
    singles.gone.add("b")
    for _ in range(3):
        await singles.heartbeats()
    assert await up_for(database) == set(BOTH)


async def test_with_a_bind_for_each_role_each_worker_ends_with_its_own(database):
    singles, chunks = workers_apart(database, binds=2)
    for _ in range(5):
        await singles.heartbeats()
        await chunks.heartbeats()
    assert (singles.serves, chunks.serves) == ({"providers"}, {"chunks"})
    assert await up_for(database) == set(BOTH)


async def test_a_worker_whose_bind_is_refused_leaves_its_role_to_one_that_is_bound(database):
    singles, chunks = workers_apart(database, binds=2)
    singles.error = BindError(BindFailure.BIND_REFUSED, "ESME_RALYBND", "transceiver")
    for _ in range(5):
        await singles.heartbeats()
        await chunks.heartbeats()
    assert (singles.held, chunks.held) == (1, 1)
    assert await up_for(database) == set(BOTH)
    singles.error = None
    for _ in range(3):
        await singles.heartbeats()
        await chunks.heartbeats()
    assert chunks.serves == {"chunks"}
    assert await up_for(database) == set(BOTH)


async def test_a_provider_whose_bind_is_up_is_down_for_a_role_that_nobody_polls_for(database):
    async with database.begin() as connection:
        store.record_heartbeat(
            connection, Heartbeat("primary", "a", BOTH, 1, 1, "up", polls=["chunks"])
        )
    assert await up_for(database) == {"chunks"}
    async with database.begin() as connection:
        store.record_heartbeat(connection, Heartbeat("primary", "a", BOTH, 1, 1, "up", polls=[]))
    assert await up_for(database) == set()


# The rate

BULK = RateDemand(1000.0, 0.0, is_limited=True)


async def apart_with_a_bind_each(database: Database, rate: float) -> tuple[Worker, Worker]:
    singles, chunks = (
        Worker(name, database, declared(2, rate), roles)
        for name, roles in zip("ab", zip(BOTH), strict=True)
    )
    for _ in range(3):
        await singles.heartbeats()
        await chunks.heartbeats()
    return singles, chunks


async def test_a_worker_alone_has_the_whole_rate(database):
    worker = Worker("a", database, declared(2, rate=0.2))
    await worker.heartbeats()
    assert worker.rate == 0.2


async def test_without_a_rate_nothing_limits_a_worker(database):
    worker = Worker("a", database, declared(2))
    worker.rate = None
    await worker.heartbeats()
    assert worker.rate is None


async def test_what_one_role_does_not_use_the_other_takes_after_it_was_given_back(database):
    singles, chunks = await apart_with_a_bind_each(database, rate=200)
    assert singles.rate == pytest.approx(100)
    assert chunks.rate == pytest.approx(100)
    chunks.demand = BULK
    await chunks.heartbeats()
    assert chunks.rate == pytest.approx(100)  # the other one still uses its half
    await singles.heartbeats()
    assert singles.rate == pytest.approx(5)  # and does not use more from now on
    await chunks.heartbeats()
    assert chunks.rate == pytest.approx(100)  # which it has not reported yet
    await singles.heartbeats()
    await chunks.heartbeats()
    assert chunks.rate == pytest.approx(195)
    singles.demand = RateDemand(40.0, 40.0, is_limited=True)
    for _ in range(2):
        await singles.heartbeats()
        await chunks.heartbeats()
    await singles.heartbeats()
    assert singles.rate == pytest.approx(100)


async def test_however_they_heartbeat_the_shares_are_never_more_than_the_rate(database):
    workers = [Worker(name, database, declared(4, rate=1000)) for name in "abcd"]
    chance = random.Random(7)
    for _ in range(15):
        for worker in workers:
            total = chance.choice([0.0, 10.0, 400.0])
            worker.demand = RateDemand(total, total / 10, is_limited=chance.random() < 0.3)
        before = {worker.name: worker.rate or 0.0 for worker in workers}
        some = chance.sample(workers, chance.randrange(1, 5))  # the others miss a heartbeat
        await asyncio.gather(*(worker.heartbeats() for worker in some))
        used = [max(before[worker.name], worker.rate or 0.0) for worker in workers]
        assert math.fsum(used) <= 1000 * (1 + 1e-9)


async def test_the_share_of_a_worker_that_is_silent_is_free_when_its_heartbeat_has_expired(
    database,
):
    _, chunks = await apart_with_a_bind_each(database, rate=200)
    chunks.demand = BULK
    for seconds, share in ((14, 100), (16, 200)):
        await rows_of(
            database,
            sql(
                "UPDATE provider_workers SET heartbeat_at = now() - make_interval(secs => :s)"
                " WHERE worker = 'a' RETURNING 1"
            ),
            {"s": seconds},
        )
        await chunks.heartbeats()
        assert chunks.rate == pytest.approx(share)


async def test_the_share_of_a_worker_that_is_gone_is_free_at_once_where_that_is_known(database):
    singles, chunks = await apart_with_a_bind_each(database, rate=200)
    singles.gone.add(chunks.name)
    await singles.heartbeats()
    assert singles.rate == 200


async def test_a_worker_that_still_has_no_limit_leaves_nothing_to_take(database):
    old = Worker("a", database, declared(2))
    old.rate = None
    await old.heartbeats()
    new = Worker("b", database, declared(2, rate=100))
    await new.heartbeats()
    assert new.rate == 0


async def test_a_bind_that_a_worker_gets_comes_with_a_part_of_the_rate(database):
    first, second = (Worker(name, database, declared(2, rate=1000)) for name in "ab")
    await first.heartbeats()
    for _ in range(2):
        await second.heartbeats()
        await first.heartbeats()
    await second.heartbeats()
    assert (second.held, second.rate) == (1, pytest.approx(500))

"""Postgres goes silent, is demoted, or refuses: how long that takes, and what may be tried again."""

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors

from domain.secrets import AllowedSecrets
from local.processes import free_port
from services.configuration import Configurations
from store.database import (
    Database,
    DatabaseAway,
    StatementTimeout,
    TransactionLost,
    sql,
)
from store.schema import current_version, migrate, newest_version
from store.sqlstates import REMEDIES, STALE, Remedy, remedy
from telemetry.metrics import metric_value
from tests.fakes.silent_proxy import SilentProxy, silent_proxy
from tests.rows import row_of, rows_of

BACKEND = sql("SELECT pg_backend_pid() AS pid")
SOON = timedelta(seconds=3)
FOREVER = 100.0
"""Seconds after which a wait counts as endless; what is bounded takes a few, on a busy machine more."""


@pytest.fixture
def proxy(database_url: str) -> Iterator[SilentProxy]:
    """Between a test and its database."""
    address = urlsplit(database_url)
    with silent_proxy(str(address.hostname), address.port or 5432) as proxy:
        yield proxy


@pytest.fixture
async def database(database_url: str, proxy: SilentProxy):
    database = Database.connect(
        proxy.url(database_url), pool_size=3, timeout=SOON, statement_timeout=SOON
    )
    yield database
    proxy.resume()
    await database.close()


async def pids(database: Database, count: int) -> set[int]:
    """So many connections of the pool, opened if need be."""

    async def one() -> int:
        async with database.begin() as connection:
            found = await row_of(connection, BACKEND)
            await asyncio.sleep(0.2)
            return int(found["pid"])

    return set(await asyncio.gather(*(one() for _ in range(count))))


# Silence


async def test_a_statement_whose_server_goes_silent_ends_and_all_goes_on_afterwards(
    database, proxy
):
    await pids(database, 3)
    before = metric_value(
        "smsgateway_database_failures_total", {"pool": "main", "reason": "no_response"}
    )
    proxy.silence()
    async with asyncio.timeout(FOREVER):
        results = await asyncio.gather(
            *(rows_of(database, BACKEND) for _ in range(6)), return_exceptions=True
        )
    assert [type(each) for each in results] == [DatabaseAway] * 6
    after = metric_value(
        "smsgateway_database_failures_total", {"pool": "main", "reason": "no_response"}
    )
    assert after > before
    proxy.resume()
    assert await pids(database, 3)


async def test_silence_in_the_middle_of_a_transaction_and_at_its_commit_is_bounded(database, proxy):
    async def silent_after_its_first_statement() -> None:
        async with database.begin() as connection:
            await rows_of(connection, BACKEND)
            connection.send(sql("SELECT 1"))
            proxy.silence()

    async with asyncio.timeout(FOREVER):
        with pytest.raises(DatabaseAway):
            await silent_after_its_first_statement()


async def test_a_task_that_is_cancelled_while_the_server_is_silent_ends(database, proxy):
    await pids(database, 1)
    proxy.silence()
    task = asyncio.create_task(rows_of(database, BACKEND))
    await asyncio.sleep(0.1)
    task.cancel()
    async with asyncio.timeout(FOREVER):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_connecting_to_a_silent_server_is_bounded(database, proxy):
    proxy.silence()
    async with asyncio.timeout(FOREVER):
        with pytest.raises(DatabaseAway):
            await rows_of(database, BACKEND)


async def test_a_configuration_is_followed_again_after_its_connection_went_silent(
    database, database_url, proxy, monkeypatch
):
    monkeypatch.setattr("services.configuration.LOOK_AGAIN", timedelta(seconds=0.2))
    direct = Database.connect(database_url, pool_size=1)
    followed, applied = (Configurations(each, AllowedSecrets()) for each in (database, direct))
    await applied.apply(_configuration(1), applied_by="test")
    following = asyncio.create_task(followed.follow())
    try:
        async with asyncio.timeout(FOREVER):
            while followed.version is None:
                await asyncio.sleep(0.05)
            proxy.silence()
            await applied.apply(_configuration(2), applied_by="test")
            await asyncio.sleep(5)
            proxy.resume()
            while followed.version != applied.version:
                await asyncio.sleep(0.05)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await direct.close()


def _configuration(rate: int) -> str:
    return (
        f'[providers.primary]\ntype = "simulator"\nrate = {rate}\n'
        '[[routes]]\nproviders = ["primary"]\n'
    )


async def test_a_statement_that_takes_too_long_is_ended_by_the_server_and_its_connection_stays(
    database,
):
    (before,) = await pids(database, 1)
    with pytest.raises(StatementTimeout):
        await rows_of(database, sql("SELECT pg_sleep(60)"))
    assert before in await pids(database, 3)


async def test_a_transaction_may_take_as_long_as_it_says(database):
    async with database.begin(within=timedelta(seconds=30)) as connection:
        await rows_of(connection, sql("SELECT pg_sleep(6)"))
    with pytest.raises(StatementTimeout):
        await rows_of(database, sql("SELECT pg_sleep(60)"))


async def test_a_migration_takes_as_long_as_it_needs(empty_database_url, sample_migrations):
    """An index that is built beside the work waits for every transaction that began before."""
    database = Database.connect(empty_database_url, statement_timeout=SOON)
    async with await psycopg.AsyncConnection.connect(empty_database_url) as older:
        await older.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await older.execute("SELECT 1")
        migrating = asyncio.create_task(migrate(database))
        await asyncio.sleep(3 * SOON.total_seconds())
        assert not migrating.done()
        await older.rollback()
        await migrating
    assert await current_version(database) == newest_version()
    await database.close()


# Several hosts


async def test_of_several_hosts_the_one_that_takes_writes_is_used(database_url, proxy):
    """As after a failover: the first host is silent, and nothing listens on the second."""
    proxy.silence()
    with psycopg.connect(database_url) as connection:
        user, password = connection.info.user, connection.info.password
        host, port, name = connection.info.host, connection.info.port, connection.info.dbname
    hosts = f"{proxy.address},127.0.0.1:{free_port()},{host}:{port}"
    database = Database.connect(
        f"postgresql://{user}:{password}@{hosts}/{name}", timeout=timedelta(seconds=2)
    )
    try:
        async with asyncio.timeout(FOREVER):
            assert await pids(database, 1)
    finally:
        await database.close()


async def test_a_server_that_takes_no_writes_is_no_database(database_url, database):
    name = urlsplit(database_url).path.strip("/")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseAway):
        await rows_of(database, BACKEND)


# Refused, or away


async def test_after_a_demotion_no_connection_of_the_pool_is_used_again(database):
    """A primary that became a replica keeps its sessions, and refuses their writes (25006)."""
    demoted = await pids(database, 3)
    assert len(demoted) == 3
    await asyncio.gather(*(_demote(database) for _ in range(3)))
    write = sql("CREATE TABLE written (id integer)")
    with pytest.raises(DatabaseAway):
        await rows_of(database, write)
    await rows_of(database, write)
    assert not demoted & await pids(database, 3)


async def _demote(database: Database) -> None:
    async with database.begin() as connection:
        await rows_of(
            connection,
            sql("SELECT set_config('default_transaction_read_only', 'on', false), pg_sleep(0.3)"),
        )


# Every code that psycopg knows, of those that are errors.
CODES = sorted(
    code
    for code in errors._sqlcodes
    if re.fullmatch("[0-9A-Z]{5}", code)
    and any(map(str.isdigit, code))
    and not code.startswith(("00", "01", "02"))
)


async def test_each_sqlstate_gets_what_helps_against_it(database):
    assert len(CODES) > 200
    for code in CODES:
        before = await _pid(database)
        refuse = sql(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$")
        with pytest.raises((DatabaseAway, psycopg.Error)) as raised:
            await rows_of(database, refuse)
        kept = await _pid(database) == before
        match remedy(code):
            case Remedy.RECONNECT:
                assert (type(raised.value), kept) == (DatabaseAway, False), code
            case Remedy.RETRY:
                assert isinstance(raised.value, TransactionLost), code
                assert kept, code
            case Remedy.NONE:
                assert isinstance(raised.value, psycopg.Error), code
                assert raised.value.sqlstate == code
                assert kept is (code not in STALE), code


async def _pid(database: Database) -> int:
    return int((await rows_of(database, BACKEND))[0]["pid"])


@pytest.mark.parametrize(
    ("remedies", "codes"),
    [
        (Remedy.RECONNECT, "08000 08006 25006 53300 57P01 57P02 57P03 57P04 57P05 58030 26000"),
        (Remedy.RETRY, "40001 40P01 55P03 57014 53100 53200"),
        (Remedy.NONE, "22001 22021 23505 23514 42P01 42501 42703 54000 54001 0A000 P0001 XX000"),
    ],
)
def test_what_postgres_reports_is_away_passing_or_refused(remedies, codes):
    assert {remedy(code) for code in codes.split()} == {remedies}


def test_the_table_holds_codes_and_classes_that_postgres_has():
    newer = {"25P04"}  # Postgres 17
    assert set(REMEDIES) <= {*CODES, *(code[:2] for code in CODES), *newer}


async def test_a_value_that_postgres_refuses_for_good_is_no_database_that_is_away(database):
    async with database.begin() as connection:
        connection.send(sql("CREATE TABLE named (name text PRIMARY KEY)"))
    add = sql("INSERT INTO named VALUES (:name)")
    incompressible = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(4000))
    with pytest.raises(psycopg.Error) as refused:
        await rows_of(database, add, {"name": incompressible})
    assert refused.value.sqlstate == "54000"
    with pytest.raises(psycopg.Error):
        await rows_of(database, add, {"name": "\x00"})
    assert await pids(database, 1)


async def test_a_deadlock_is_raised_as_a_transaction_that_may_be_retried(database_url):
    database = Database.connect(database_url, pool_size=2)
    async with database.begin() as connection:
        connection.send(sql("CREATE TABLE pair (id integer PRIMARY KEY)"))
        connection.send(sql("INSERT INTO pair VALUES (1), (2)"))
    lock = sql("SELECT FROM pair WHERE id = :id FOR UPDATE")
    both = asyncio.Barrier(2)

    async def crosswise(first: int, second: int) -> None:
        async with database.begin() as connection:
            await rows_of(connection, lock, {"id": first})
            await both.wait()
            await rows_of(connection, lock, {"id": second})

    results = await asyncio.gather(crosswise(1, 2), crosswise(2, 1), return_exceptions=True)
    await database.close()
    assert {type(each) for each in results} == {type(None), TransactionLost}

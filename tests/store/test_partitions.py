"""Partitions of events: made before their month begins, and none of them is missed."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from services.retention import Retention
from store import partitions
from store.database import Database, sql
from tests.rows import rows_of
from tests.store.test_folds import database

__all__ = ["database"]

pytestmark = pytest.mark.stack

NOW = datetime(2031, 11, 23, tzinfo=UTC)


async def happened(database: Database, at: datetime) -> str:
    """Add an event of a message that was accepted then; the partition that took it."""
    added = await rows_of(
        database,
        sql(
            "INSERT INTO events (message_id, at, kind, actor) VALUES (:id, now(), 'x', 'x')"
            " RETURNING tableoid::regclass::text AS name"
        ),
        {"id": UUID(int=partitions.first_id(at).int + 1)},
    )
    return str(added[0]["name"])


async def test_the_months_to_come_have_partitions_before_they_begin(database):
    await Retention(database, None).turn_partitions(NOW)
    assert await happened(database, NOW) == "events_203111"
    assert await happened(database, datetime(2031, 12, 31, 23, 59, tzinfo=UTC)) == "events_203112"
    assert await happened(database, datetime(2032, 1, 1, tzinfo=UTC)) == "events_203201"
    for table in partitions.TABLES:
        async with database.begin() as connection:
            known = await partitions.stored(connection, table)
        assert partitions.moment_of(known[-1].until) == datetime(2032, 2, 1, tzinfo=UTC)


async def test_an_event_of_a_month_without_a_partition_is_kept_and_the_next_month_has_one(database):
    await Retention(database, None).turn_partitions(NOW)
    later = datetime(2032, 2, 15, tzinfo=UTC)
    assert await happened(database, later) == "events_last"
    await Retention(database, None).turn_partitions(NOW + timedelta(days=90))
    assert await happened(database, later) == "events_last"
    assert await happened(database, datetime(2032, 3, 1, tzinfo=UTC)) == "events_203203"
    assert len(await rows_of(database, sql("SELECT FROM events"))) == 3


async def test_partitions_are_looked_at_once_an_hour(database):
    kept = Retention(database, None)
    await kept.turn_partitions(NOW)
    await kept.turn_partitions(NOW + timedelta(days=90))
    assert await happened(database, NOW + timedelta(days=90)) == "events_last"


async def test_without_a_retention_nothing_is_dropped(database):
    assert await happened(database, datetime(2026, 1, 1, tzinfo=UTC)) == "events_first"
    await Retention(database, None).turn_partitions(NOW)
    assert len(await rows_of(database, sql("SELECT FROM events"))) == 1


async def test_a_partition_is_dropped_between_writers_and_none_of_them_waits_for_it(
    database, database_url
):
    assert await happened(database, datetime(2026, 1, 1, tzinfo=UTC)) == "events_first"
    add = "INSERT INTO events (message_id, at, kind, actor) VALUES (%s, now(), 'x', 'x')"
    message_id = UUID(int=partitions.first_id(NOW).int + 1)
    async with (
        await psycopg.AsyncConnection.connect(database_url) as under_way,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as others,
    ):
        await others.execute("SET lock_timeout = '500ms'")
        await under_way.execute(add, [message_id])
        dropping = asyncio.create_task(Retention(database, timedelta(days=7)).turn_partitions(NOW))
        for _ in range(150):  # behind a DROP that waits, one of them would fail
            await others.execute(add, [message_id])
            await asyncio.sleep(0.01)
        assert await partitions_of(database, "events") >= {"events_first"}
        await under_way.commit()
        await dropping
    assert "events_first" not in await partitions_of(database, "events")
    assert "events_of_many_first" not in await partitions_of(database, "events_of_many")
    assert len(await rows_of(database, sql("SELECT FROM events"))) == 151


async def partitions_of(database: Database, table: partitions.Table) -> set[str]:
    async with database.begin() as connection:
        return {each.name for each in await partitions.stored(connection, table)}


async def test_partitions_that_writers_kept_from_being_made_are_made_a_minute_later(
    database, database_url, monkeypatch
):
    monkeypatch.setattr("services.retention._TRIES", 2)
    kept = Retention(database, None)
    async with await psycopg.AsyncConnection.connect(database_url) as under_way:
        await under_way.execute("LOCK TABLE events_last, events_of_many_last IN SHARE MODE")
        await kept.turn_partitions(NOW)
        assert await happened(database, datetime(2026, 1, 1, tzinfo=UTC)) == "events_first"
    assert "events_203111" not in await partitions_of(database, "events")
    kept._look_at -= 61
    await kept.turn_partitions(NOW)
    assert await happened(database, NOW) == "events_203111"

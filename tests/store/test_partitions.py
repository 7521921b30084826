"""Partitions of events: made before their month begins, and none of them is missed."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.retention import Retention
from store import partitions
from store.database import Database, sql
from tests.store.test_folds import database

__all__ = ["database"]

pytestmark = pytest.mark.stack

NOW = datetime(2031, 11, 23, tzinfo=UTC)


async def happened(database: Database, at: datetime) -> str:
    """Add an event of a message that was accepted then; the partition that took it."""
    added = await database.rows(
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
    assert len(await database.rows(sql("SELECT FROM events"))) == 3


async def test_partitions_are_looked_at_once_an_hour(database):
    kept = Retention(database, None)
    await kept.turn_partitions(NOW)
    await kept.turn_partitions(NOW + timedelta(days=90))
    assert await happened(database, NOW + timedelta(days=90)) == "events_last"


async def test_without_a_retention_nothing_is_dropped(database):
    assert await happened(database, datetime(2026, 1, 1, tzinfo=UTC)) == "events_first"
    await Retention(database, None).turn_partitions(NOW)
    assert len(await database.rows(sql("SELECT FROM events"))) == 1

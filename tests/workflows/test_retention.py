"""What is over is deleted when it is older than it is kept; what is not over never is."""

from datetime import UTC, datetime, timedelta

import pytest

from services.retention import Retention
from store import partitions
from store.database import sql
from tests.gateway import Gateway, gateway
from tests.rows import rows_of
from tests.workflows.test_bulk import LONG, Batch

__all__ = ["gateway"]

pytestmark = pytest.mark.stack

OF_MESSAGES = (
    "messages",
    "attempts",
    "parts",
    "receipts",
    "receipt_polls",
    "events",
    "outbox",
)
OF_BATCHES = ("bulks", "batches", "batch_refusals", "events_of_many")


async def test_what_is_over_and_older_than_it_is_kept_is_deleted_and_nothing_else(
    gateway: Gateway,
):
    async def rows(table: str) -> int:
        (found,) = await gateway.fetch(f"SELECT count(*) AS n FROM {table}")
        return int(found["n"])

    async def delete(days: int) -> int:
        kept = Retention(gateway.services.database, timedelta(days=90))
        return await kept.delete(datetime.now(UTC) + timedelta(days=days))

    batch = await Batch(gateway, 20, LONG).send()
    single = await gateway.send(callback_url="https://shop.example.com/sms")
    scheduled = await gateway.send(scheduled_at=datetime.now(UTC) + timedelta(days=30))
    await gateway.execute(
        "INSERT INTO batch_refusals SELECT id, 99, 'to', 'invalid_number', 'x' FROM batches"
    )
    await gateway.execute(
        "INSERT INTO receipts (day, provider, provider_message_id, state, code, received_at)"
        " VALUES (current_date, 'primary', 'nobody', 'delivered', '000', now())"
    )
    await batch.until_all("delivered")
    await gateway.until(single, "delivered")
    await gateway.execute(
        "INSERT INTO receipt_polls SELECT message_id, number, 1, provider, now() FROM attempts"
    )
    assert all([await rows(table) for table in (*OF_MESSAGES, *OF_BATCHES)])

    assert await delete(days=89) == 0
    assert await gateway.status(single) == "delivered"

    assert await delete(days=91) == 21
    assert await gateway.status(scheduled) == "scheduled"
    left = {table: await rows(table) for table in (*OF_MESSAGES, *OF_BATCHES)}
    pending = await gateway.fetch("SELECT FROM outbox WHERE state = 'pending'")
    assert left.pop("outbox") == len(pending), "callbacks that are pending are kept"
    assert left.pop("messages") == 1, "the one that is scheduled"
    for table in partitions.TABLES:
        assert left.pop(table), "they go with their month"
    assert not any(left.values()), left
    assert await delete(days=91) == 0


async def turn(gateway: Gateway, *, days: int) -> None:
    """A round of the reconciler so many days from now, as far as what is old goes."""
    then = datetime.now(UTC) + timedelta(days=days)
    kept = Retention(gateway.services.database, timedelta(days=90))
    await kept.delete(then)
    await kept.turn_partitions(then)


async def events(gateway: Gateway) -> dict[str, int]:
    """How many there are, by their partition."""
    found: dict[str, int] = {}
    for table in partitions.TABLES:
        for row in await gateway.fetch(
            f"SELECT tableoid::regclass::text AS name, count(*) AS n FROM {table} GROUP BY 1"
        ):
            found[row["name"]] = row["n"]
    return found


async def test_events_go_with_their_month_when_none_of_its_messages_is_left(gateway: Gateway):
    batch = await Batch(gateway, 20).send()
    single = await gateway.send()
    scheduled = await gateway.send(scheduled_at=datetime.now(UTC) + timedelta(days=30))
    await batch.until_all("delivered")
    await batch.ended()
    await gateway.until(single, "delivered")
    there = await events(gateway)
    assert set(there) == {"events_first", "events_of_many_first"}

    await turn(gateway, days=60)
    assert await events(gateway) == there
    await turn(gateway, days=200)
    assert await events(gateway) == there, "one of their messages is not over"
    explained = await gateway.services.messages.explain(gateway.caller, scheduled.message_id)
    assert [event.kind for event in explained.events] == ["accepted"]

    await gateway.services.messages.cancel(gateway.caller, scheduled.message_id)
    await turn(gateway, days=200)
    assert await events(gateway) == {}


async def test_whoever_reads_events_for_long_is_waited_for_and_holds_nobody_up(gateway: Gateway):
    async with gateway.services.database.begin() as reader:
        await rows_of(reader, sql("SELECT count(*) FROM events"))
        await turn(gateway, days=200)
        single = await gateway.send()
        await gateway.until(single, "delivered")
    assert set(await events(gateway)) == {"events_first"}

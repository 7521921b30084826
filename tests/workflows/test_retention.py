"""What is over is deleted when it is older than it is kept; what is not over never is."""

from datetime import UTC, datetime, timedelta

import pytest

from services.retention import Retention
from tests.gateway import Gateway, gateway
from tests.workflows.test_bulk import LONG, Batch

__all__ = ["gateway"]

pytestmark = pytest.mark.stack

OF_MESSAGES = ("messages", "attempts", "parts", "receipts", "events", "callback_events")
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
    assert all([await rows(table) for table in (*OF_MESSAGES, *OF_BATCHES)])

    assert await delete(days=89) == 0
    assert await gateway.status(single) == "delivered"

    assert await delete(days=91) == 21
    assert await gateway.status(scheduled) == "scheduled"
    left = {table: await rows(table) for table in (*OF_MESSAGES, *OF_BATCHES)}
    pending = await gateway.fetch("SELECT FROM callback_events WHERE state = 'pending'")
    assert left.pop("callback_events") == len(pending), "who was not told yet is still told"
    assert left.pop("events") == left.pop("messages") == 1, "of the one that is scheduled"
    assert not any(left.values()), left
    assert await delete(days=91) == 0

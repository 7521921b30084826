"""Cancelling while a submit is under way, on a real Postgres."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from domain.states import MessageStatus
from services.messages import AlreadyOver
from store import attempts
from store.attempts import Claim
from store.database import Database, sql
from store.transitions import FINAL, refresh_status
from tests.gateway import running_gateway, uuid_of
from tests.rows import rows_of


async def until_somebody_waits_for_a_lock(database: Database) -> None:
    waiting = sql("SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    async with asyncio.timeout(60):
        while not (await rows_of(database, waiting))[0]["n"]:
            await asyncio.sleep(0.02)


async def test_a_message_whose_submit_is_under_way_is_not_reported_as_canceled(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        message = await gateway.send()
        now = datetime.now(UTC)
        database = Database.connect(database_url, pool_size=2)
        async with database.begin() as connection:
            granted = await attempts.claim(
                connection,
                Claim(
                    message_id=uuid_of(message),
                    epoch=1,
                    number=1,
                    provider="primary",
                    parts=1,
                    part_method="udh8",
                    reference=7,
                    at=now,
                    response_by=now + timedelta(seconds=30),
                    receipt_by=now + timedelta(minutes=5),
                    config_version=None,
                ),
            )
            assert granted.parts == (1,)
            await refresh_status(connection, [uuid_of(message)], actor="workflow", at=now)
            canceling = asyncio.create_task(
                gateway.services.messages.cancel(gateway.caller, message.message_id)
            )
            await until_somebody_waits_for_a_lock(gateway.services.database)
        row = await canceling
        assert row.status == "sending"
        assert row.verdict is None  # its runner asks the provider to cancel it
        assert row.cancel_requested_at is not None
        await database.close()


@pytest.mark.parametrize("status", sorted(FINAL))
def test_what_has_ended_is_said_in_words(status):
    said = str(AlreadyOver(status))
    assert said.startswith(("the message has already ", "the message is already a "))
    assert "ended" not in said
    assert MessageStatus.CANCELED not in said
    assert "_" not in said

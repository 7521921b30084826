"""Messages that are written many at a time: all of them, or none."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from psycopg.errors import NotNullViolation
from psycopg.types.json import Jsonb

from store import accounts, bulk_messages
from store.bulk_messages import NewKind, NewMessages
from store.bulks import IdRange
from store.database import sql
from tests.rows import rows_of
from tests.store.test_folds import database

__all__ = ["database"]

NOW = datetime.now(UTC)
KIND = NewKind(
    id_range=IdRange(UUID(int=1), UUID(int=1), UUID(int=9), "bulk/bat_test"),
    account_id="default",
    environment="live",
    mode="transactional",
    priority="normal",
    sender="T",
    callback_url=None,
    callback_lane_id=None,
    callback_final_only=False,
    accepted_at=NOW,
    scheduled_at=None,
    validity=timedelta(days=1),
    valid_until=NOW + timedelta(days=1),
    config_version=None,
    actor="test",
)
DELETE_ONE = sql("DELETE FROM recipients WHERE number_hash = :hash")


def _five() -> NewMessages:
    return NewMessages(
        ids=[UUID(int=n) for n in range(1, 6)],
        positions=list(range(5)),
        numbers=[f"+44770090012{n}" for n in range(5)],
        hashes=[b"%d" % n for n in range(5)],
        countries=["GB"] * 5,
        bodies=["x"] * 5,
        encodings=["gsm7"] * 5,
        segments=[1] * 5,
        metadata=[None] * 5,
        traceparents=[None] * 5,
        parameters=[None] * 5,
    )


async def test_messages_without_parameters_of_their_own_get_those_of_all(database):
    async with database.begin() as connection:
        accounts.ensure_account(connection, "default", "whsec_x")
    new = replace(_five(), parameters=[None, Jsonb({"own": "é"}), None, None, None])
    kind = replace(KIND, parameters={"of_all": "🎉"})
    async with database.begin() as connection:
        await bulk_messages.insert(connection, [(kind, new)], hash_version=1)
    rows = await rows_of(database, sql("SELECT parameters FROM messages ORDER BY id"))
    of_all = {"of_all": "🎉"}
    assert [row["parameters"] for row in rows] == [of_all, {"own": "é"}, of_all, of_all, of_all]


async def test_messages_whose_recipient_is_gone_are_refused_and_never_left_out(
    database, monkeypatch
):
    """Between the statement that adds recipients and the one that refers to them."""
    add = bulk_messages._add_recipients

    async def added_and_deleted(connection, kinds, hash_version):
        await add(connection, kinds, hash_version)
        connection.send(DELETE_ONE, {"hash": b"3"})

    monkeypatch.setattr(bulk_messages, "_add_recipients", added_and_deleted)
    async with database.begin() as connection:
        accounts.ensure_account(connection, "default", "whsec_x")
    new = _five()

    async def written() -> None:
        async with database.begin() as connection:
            await bulk_messages.insert(connection, [(KIND, new)], hash_version=1)

    with pytest.raises(NotNullViolation):
        await written()
    assert await rows_of(database, sql("SELECT FROM messages")) == []
    monkeypatch.undo()
    await written()
    assert len(await rows_of(database, sql("SELECT FROM messages"))) == 5

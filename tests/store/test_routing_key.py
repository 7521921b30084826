"""Routing keys in SQL: messages are counted and selected by all that routes look at."""

from dataclasses import replace
from uuid import UUID

import pytest

from domain.configuration import Environment
from domain.configuration.routing_key import COLUMNS, RoutingKey, bucket_of
from domain.modes import Mode
from domain.values import value
from store import routing_key
from store.database import sql
from store.rows import Query
from tests.store.test_folds import add_message, database

__all__ = ["database"]

pytestmark = pytest.mark.stack

KEY = RoutingKey(Environment.LIVE, "GB", Mode.TRANSACTIONAL, "T", "unknown", "default")
OTHERS = [
    replace(KEY, environment=Environment.TEST),
    replace(KEY, country="US"),
    replace(KEY, mode=Mode.ALERT),
    replace(KEY, sender="Other"),
    replace(KEY, network="23415"),
    replace(KEY, account_id="acme"),
]
_SET = sql(
    f"UPDATE messages SET {', '.join(f'{name} = :{name}' for name in COLUMNS)} WHERE id = :id"
)


@value
class Keyed:
    """A row with a routing key."""

    environment: Environment
    country: str
    mode: Mode
    sender: str
    network: str
    account_id: str


@value
class Counts(Keyed):
    messages: int


@value
class Message(Keyed):
    id: UUID


_COUNTS = Query.of(
    Counts,
    f"SELECT {routing_key.columns('m')}, count(*) AS messages FROM messages m"
    f" GROUP BY {routing_key.columns('m')}",
)
_OF_KEY = Query.of(
    Message,
    f"SELECT {routing_key.columns('m')}, m.id FROM messages m WHERE {routing_key.equals('m')}",
)


async def test_messages_that_differ_in_one_column_have_keys_of_their_own(database):
    async with database.begin() as connection:
        for key in [KEY, *OTHERS, *OTHERS]:
            message = add_message(connection)
            connection.send(_SET, {**routing_key.values(key), "id": message})
    async with database.begin() as connection:
        rows = await _COUNTS.rows(connection)
        counted = {routing_key.read(row): row.messages for row in rows}
        assert counted == {KEY: 1, **dict.fromkeys(OTHERS, 2)}
        for key, count in counted.items():
            assert key.bucket is None
            found = await _OF_KEY.rows(connection, routing_key.values(key))
            assert [routing_key.read(row) for row in found] == [key] * count
            assert [routing_key.read(row).bucket for row in found] == [
                bucket_of(row.id) for row in found
            ]

"""Routing keys in SQL: their columns, read and compared, in one place."""

from typing import Protocol
from uuid import UUID

from domain.configuration import Environment
from domain.configuration.routing_key import COLUMNS, RoutingKey, bucket_of
from domain.modes import Mode


class HasRoutingKey(Protocol):
    """A row with the columns of a routing key: a message, or counts of messages with equal keys."""

    @property
    def environment(self) -> Environment: ...
    @property
    def country(self) -> str: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def sender(self) -> str: ...
    @property
    def network(self) -> str: ...
    @property
    def account_id(self) -> str: ...


def columns(table: str) -> str:
    """The columns of routing keys, of a table with this alias, to select or to group by."""
    return ", ".join(f"{table}.{name}" for name in COLUMNS)


def equals(table: str) -> str:
    """Whether a row of a table with this alias has the routing key in `values`."""
    return " AND ".join(f"{table}.{name} = :{name}" for name in COLUMNS)


def values(key: RoutingKey) -> dict[str, object]:
    """A routing key as statements take it."""
    return {name: getattr(key, name) for name in COLUMNS}


def read(row: HasRoutingKey) -> RoutingKey:
    """The routing key of a row; with its bucket and its only provider, if the row is a message."""
    message_id: UUID | None = getattr(row, "id", None)
    return RoutingKey(
        environment=row.environment,
        country=row.country,
        mode=row.mode,
        sender=row.sender,
        network=row.network,
        account_id=row.account_id,
        bucket=None if message_id is None else bucket_of(message_id),
        only_provider=getattr(row, "only_provider", None),
    )

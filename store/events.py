"""What happened to a message, append-only; moves are appended by `store.transitions`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from domain.states import MessageStatus
from store.database import Connection, Planner, sql
from store.partitions import moment_of
from store.rows import Query


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a message; `status` is that of the message, or the state that a receipt has.

    `seq` orders events; `detail` is as for `append`.
    """

    seq: int
    at: datetime
    kind: str
    actor: str
    previous: MessageStatus | None
    status: str | None
    attempt: int | None
    provider: str | None
    network: str | None
    code: str | None
    reason: str | None
    detail: Mapping[str, Any]


LARGEST_SEQ: Final = 2**48 - 1
"""That a position can have: 100,000 events each second for 89 years."""
LARGEST_PLACE: Final = 2**20 - 1
"""That a position can have; more than one row has messages."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where an event stands among all: its time, its `seq`, and its place in one row of many."""

    at: datetime
    seq: int
    of_many: int


@dataclass(frozen=True, slots=True)
class AccountEvent(Event):
    """An event of any message of an account; `of_many` is its place in a row of many, else 0."""

    of_many: int
    message_id: UUID

    @property
    def position(self) -> Position:
        return Position(self.at, self.seq, self.of_many)


@dataclass(frozen=True, slots=True)
class Horizon:
    """The last event that is read for a page."""

    at: datetime
    seq: int


@dataclass(frozen=True, slots=True)
class EventsPage:
    """Some events of an account; `next` is where the next page begins, None if nothing follows."""

    events: Sequence[AccountEvent]
    next: Position | None


WORKFLOW: Final = "workflow"
"""The actor of what runners decide and record, for one message or for many."""

_APPEND = sql("""
INSERT INTO events (message_id, at, kind, actor, status, attempt, provider, network, code, reason,
                    detail)
VALUES (:message_id, :at, :kind, :actor, :status, :attempt, :provider, :network, :code, :reason,
        :detail)
""")

_APPEND_TO_MANY = sql("""
INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, attempt, provider, reason,
                            detail)
VALUES (:bulk_id, :message_ids, :at, :kind, :actor, :status, :attempt, :provider, :reason, :detail)
""")

_COLUMNS = """
e.seq, e.at, e.kind, e.actor, e.previous, e.status, e.attempt, e.provider, e.network, e.code,
e.reason, e.detail
"""

_OF_MESSAGE = Query.of(
    Event,
    f"""
SELECT {_COLUMNS} FROM events e WHERE e.message_id = :message_id
UNION ALL
SELECT {_COLUMNS}
FROM messages m JOIN events_of_many e ON e.bulk_id = m.bulk_id
WHERE m.id = :message_id AND :message_id = ANY(e.message_ids)
ORDER BY seq
""",
)

# Ranges, and an order with all columns, which only the index of an account's messages has. With
# equality the planner may walk through the messages of all accounts in the order of their ids.
_FIRST_MESSAGE = Query.of(
    UUID,
    """
SELECT id FROM messages
WHERE account_id >= :account_id AND account_id <= :account_id
  AND environment >= :environment AND environment <= :environment
ORDER BY account_id DESC, environment DESC, id LIMIT 1
""",
)
_IN_ORDER: Final = Planner("sort")

_BEHIND = """
    e.at >= :at AND (e.at, e.seq) > (:at, :seq)
"""
# The row at the position may have messages behind it.
_OF_MANY_BEHIND = """
    e.at >= :at AND (e.at, e.seq) >= (:at, :seq)
"""

_HORIZON = Query.of(
    Horizon,
    f"""
WITH behind AS (
    (SELECT e.at, e.seq, 1 AS messages FROM events e WHERE {_BEHIND} ORDER BY e.at, e.seq LIMIT :most)
    UNION ALL
    (SELECT e.at, e.seq, cardinality(e.message_ids) FROM events_of_many e
     WHERE {_OF_MANY_BEHIND}
       AND (e.at, e.seq, cardinality(e.message_ids)) > (:at, :seq, CAST(:of_many AS integer))
     ORDER BY e.at, e.seq LIMIT :most)
), counted AS (
    SELECT at, seq, sum(messages) OVER (ORDER BY at, seq) AS messages
    FROM (SELECT * FROM behind ORDER BY at, seq LIMIT :most) AS nearest
)
SELECT at, seq FROM counted WHERE messages >= :most ORDER BY at, seq LIMIT 1
""",
)

_WANTED = """
    m.account_id = :account_id AND m.environment = :environment
    AND (CAST(:status AS text) IS NULL
         OR (e.status = :status AND e.kind IN ('accepted', 'moved')))
    AND e.at <= :until_at AND (e.at, e.seq) <= (:until_at, :until_seq)
"""
_OF_ACCOUNT = Query.of(
    AccountEvent,
    f"""
SELECT {_COLUMNS}, 0 AS of_many, e.message_id
FROM events e JOIN messages m ON m.id = e.message_id
WHERE {_BEHIND} AND {_WANTED}
UNION ALL
SELECT {_COLUMNS}, i.place::integer, i.message_id
FROM events_of_many e
CROSS JOIN unnest(e.message_ids) WITH ORDINALITY AS i (message_id, place)
JOIN messages m ON m.id = i.message_id
WHERE {_OF_MANY_BEHIND} AND (e.at, e.seq, i.place) > (:at, :seq, :of_many) AND {_WANTED}
ORDER BY at, seq, of_many LIMIT :limit
""",
)

_MOST_READ: Final = 2000
"""Events that are read for one page, of all accounts."""
_LAST_MOMENT: Final = datetime(9999, 12, 31, tzinfo=UTC)
_BESIDE_ID: Final = timedelta(minutes=1)
"""How far an event of a message's acceptance can be before the time in the message's id."""


async def of_account(
    connection: Connection,
    account_id: str,
    environment: str,
    *,
    status: str | None,
    since: datetime,
    after: Position | None,
    limit: int,
) -> EventsPage:
    """A page of the events of an account's messages from a time on, or behind a position.

    The oldest come first. With a `status`, the page has only transitions to it. A bounded number of
    events is read, of all accounts, so a page can have fewer than `limit` events, or none, although
    others follow.
    """
    owner = {"account_id": account_id, "environment": environment}
    first = await _FIRST_MESSAGE.rows(connection, owner, planner=_IN_ORDER)
    if not first:
        return EventsPage((), None)
    begin = Position(max(since, moment_of(first[0]) - _BESIDE_ID), 0, 0)
    position = begin if after is None else max(begin, after)
    behind = {"at": position.at, "seq": position.seq, "of_many": position.of_many}
    horizon = await _HORIZON.row(connection, {**behind, "most": _MOST_READ})
    found = await _OF_ACCOUNT.rows(
        connection,
        {
            **owner,
            **behind,
            "status": status,
            "until_at": _LAST_MOMENT if horizon is None else horizon.at,
            "until_seq": LARGEST_SEQ if horizon is None else horizon.seq,
            "limit": limit + 1,
        },
    )
    if len(found) > limit:
        return EventsPage(found[:limit], found[limit - 1].position)
    return EventsPage(
        found, None if horizon is None else Position(horizon.at, horizon.seq, LARGEST_PLACE)
    )


def append(
    connection: Connection,
    message_id: UUID,
    kind: str,
    *,
    actor: str,
    at: datetime,
    status: str | None = None,
    attempt: int | None = None,
    provider: str | None = None,
    network: str | None = None,
    code: str | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append an event that is no move, such as "accepted", "decided", "receipt", "replayed".

    `detail` holds figures, names and codes only: never a number, a body, or text of people.
    """
    connection.send(
        _APPEND,
        {
            "message_id": message_id,
            "at": at,
            "kind": kind,
            "actor": actor,
            "status": status,
            "attempt": attempt,
            "provider": provider,
            "network": network,
            "code": code,
            "reason": reason,
            "detail": Jsonb(dict(detail or {})),
        },
    )


def append_to_many(
    connection: Connection,
    bulk_id: UUID,
    message_ids: Sequence[UUID],
    kind: str,
    *,
    actor: str,
    at: datetime,
    status: str | None = None,
    attempt: int | None = None,
    provider: str | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append the same event to several messages of a bulk; arguments as those of `append`."""
    connection.send(
        _APPEND_TO_MANY,
        {
            "bulk_id": bulk_id,
            "message_ids": list(message_ids),
            "at": at,
            "kind": kind,
            "actor": actor,
            "status": status,
            "attempt": attempt,
            "provider": provider,
            "reason": reason,
            "detail": Jsonb(dict(detail or {})),
        },
    )


async def of_message(connection: Connection, message_id: UUID) -> Sequence[Event]:
    """A message's events in the order in which they were written."""
    return await _OF_MESSAGE.rows(connection, {"message_id": message_id})

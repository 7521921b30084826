"""What happened to a message, append-only; moves are appended by `store.transitions`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from store.database import Connection, Row, sql

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

_OF_MESSAGE = sql("""
SELECT seq, at, kind, actor, previous, status, attempt, provider, network, code, reason, detail
FROM events WHERE message_id = :message_id
UNION ALL
SELECT e.seq, e.at, e.kind, e.actor, e.previous, e.status, e.attempt, e.provider, e.network, e.code,
       e.reason, e.detail
FROM messages m JOIN events_of_many e ON e.bulk_id = m.bulk_id
WHERE m.id = :message_id AND :message_id = ANY(e.message_ids)
ORDER BY seq
""")


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


async def of_message(connection: Connection, message_id: UUID) -> Sequence[Row]:
    """A message's events in the order in which they were written."""
    return await connection.rows(_OF_MESSAGE, {"message_id": message_id})

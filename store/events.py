"""What happened to a message, append-only; moves are appended by `store.transitions`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import JSON

from store.database import Row, rows, sql

_APPEND = sql("""
INSERT INTO events (message_id, at, kind, actor, status, attempt, provider, network, code, reason,
                    detail)
VALUES (:message_id, :at, :kind, :actor, :status, :attempt, :provider, :network, :code, :reason,
        :detail)
""").bindparams(bindparam("detail", type_=JSON))

_OF_MESSAGE = sql("""
SELECT seq, at, kind, actor, previous, status, attempt, provider, network, code, reason, detail
FROM events WHERE message_id = :message_id ORDER BY seq
""")


async def append(
    connection: AsyncConnection,
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
    await connection.execute(
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
            "detail": dict(detail or {}),
        },
    )


async def of_message(connection: AsyncConnection, message_id: UUID) -> Sequence[Row]:
    """A message's events in the order in which they were written."""
    return await rows(connection, _OF_MESSAGE, {"message_id": message_id})

"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): one request, one message."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from store.database import Connection, Row, sql

# Two requests with one key at the same moment: who gets the lock goes on, the other is told so.
_TRY_LOCK = sql("""
SELECT pg_try_advisory_xact_lock(
    hashtextextended('key/' || :account_id || '/' || :environment || '/' || :key, 0)) AS taken
""")
_FIND = sql("""
SELECT request_hash, response FROM idempotency_keys
WHERE account_id = :account_id AND environment = :environment AND key = :key
  AND expires_at > :at
""")
_KEEP = sql("""
INSERT INTO idempotency_keys
    (account_id, environment, key, request_hash, response, created_at, expires_at)
VALUES (:account_id, :environment, :key, :request_hash, :response, :at, :expires_at)
ON CONFLICT (account_id, environment, key) DO UPDATE
SET request_hash = excluded.request_hash, response = excluded.response,
    created_at = excluded.created_at, expires_at = excluded.expires_at
""")
_EXPIRE = sql("DELETE FROM idempotency_keys WHERE expires_at < :at")


async def try_lock(connection: Connection, account_id: str, environment: str, key: str) -> bool:
    """Take a key until the transaction ends; False if another request has it right now."""
    found = await connection.row(
        _TRY_LOCK,
        {"account_id": account_id, "environment": environment, "key": key},
    )
    return found is not None and bool(found["taken"])


async def find(
    connection: Connection, account_id: str, environment: str, key: str, at: datetime
) -> Row | None:
    """What was answered to this key before: request_hash, response."""
    return await connection.row(
        _FIND,
        {"account_id": account_id, "environment": environment, "key": key, "at": at},
    )


def keep(
    connection: Connection,
    account_id: str,
    environment: str,
    key: str,
    *,
    request_hash: bytes,
    response: Mapping[str, Any],
    at: datetime,
    expires_at: datetime,
) -> None:
    """Remember what is answered to a key."""
    connection.send(
        _KEEP,
        {
            "account_id": account_id,
            "environment": environment,
            "key": key,
            "request_hash": request_hash,
            "response": Jsonb(dict(response)),
            "at": at,
            "expires_at": expires_at,
        },
    )


def expire(connection: Connection, at: datetime) -> None:
    """Forget keys whose time is over."""
    connection.send(_EXPIRE, {"at": at})

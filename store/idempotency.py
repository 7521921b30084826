"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): one request, one message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from domain.values import value
from store.database import Connection, PendingResult, sql
from store.rows import Query


class Key(NamedTuple):
    """A key that was given for an account in one environment.

    `namespace` says by whom: each has keys of its own, and two never meet in one.
    """

    account_id: str
    environment: str
    namespace: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What was answered to a key, and the hash of the request that had it."""

    request_hash: bytes
    response: Mapping[str, Any]


@value
class _LockedKey:
    account_id: str
    environment: str
    namespace: str
    key: str


@value
class _KnownKey:
    account_id: str
    environment: str
    namespace: str
    key: str
    request_hash: bytes
    response: Mapping[str, Any]


_KEYS = """
unnest(CAST(:accounts AS text[]), CAST(:environments AS text[]), CAST(:namespaces AS text[]),
       CAST(:keys AS text[]))
"""
_COLUMNS = "account_id, environment, namespace, key"
# Of concurrent requests with one key, the one that gets the lock proceeds; the others are refused.
_TRY_LOCK = Query.of(
    _LockedKey,
    f"""
SELECT {_COLUMNS} FROM {_KEYS} AS k ({_COLUMNS})
WHERE pg_try_advisory_xact_lock(hashtextextended(
    'key/' || account_id || '/' || environment || '/' || namespace || '/' || key, 0))
""",
)
_FIND = Query.of(
    _KnownKey,
    f"""
SELECT {_COLUMNS}, request_hash, response
FROM {_KEYS} AS k ({_COLUMNS})
JOIN idempotency_keys USING ({_COLUMNS})
WHERE expires_at > :at
""",
)
_KEEP = sql(f"""
INSERT INTO idempotency_keys ({_COLUMNS}, request_hash, response, created_at, expires_at)
SELECT {_COLUMNS}, request_hash, response, :at, :expires_at
FROM unnest(CAST(:accounts AS text[]), CAST(:environments AS text[]), CAST(:namespaces AS text[]),
            CAST(:keys AS text[]), CAST(:hashes AS bytea[]), CAST(:responses AS jsonb[]))
     AS k ({_COLUMNS}, request_hash, response)
ON CONFLICT ({_COLUMNS}) DO UPDATE
SET request_hash = excluded.request_hash, response = excluded.response,
    created_at = excluded.created_at, expires_at = excluded.expires_at
""")
_EXPIRE = sql("DELETE FROM idempotency_keys WHERE expires_at < :at")


def try_lock(connection: Connection, keys: Sequence[Key]) -> PendingResult[set[Key]]:
    """Take keys until the transaction ends; those that no other request has right now."""
    return _TRY_LOCK.rows(connection, _values(keys)).then(lambda rows: {_key(row) for row in rows})


def find(
    connection: Connection, keys: Sequence[Key], at: datetime
) -> PendingResult[dict[Key, StoredResponse]]:
    """What was answered to these keys before, of those that are known."""
    found = _FIND.rows(connection, {**_values(keys), "at": at})
    return found.then(
        lambda rows: {_key(row): StoredResponse(row.request_hash, row.response) for row in rows}
    )


def keep(
    connection: Connection,
    responses: Mapping[Key, tuple[bytes, Mapping[str, Any]]],
    *,
    at: datetime,
    expires_at: datetime,
) -> None:
    """Remember what is answered to keys: of each, what made the request and the response."""
    if not responses:
        return
    connection.send(
        _KEEP,
        {
            **_values(list(responses)),
            "hashes": [request_hash for request_hash, _ in responses.values()],
            "responses": [Jsonb(dict(response)) for _, response in responses.values()],
            "at": at,
            "expires_at": expires_at,
        },
    )


def expire(connection: Connection, at: datetime) -> None:
    """Forget keys whose time is over."""
    connection.send(_EXPIRE, {"at": at})


def _values(keys: Sequence[Key]) -> dict[str, object]:
    return {
        "accounts": [key.account_id for key in keys],
        "environments": [key.environment for key in keys],
        "namespaces": [key.namespace for key in keys],
        "keys": [key.key for key in keys],
    }


def _key(row: _LockedKey | _KnownKey) -> Key:
    return Key(row.account_id, row.environment, row.namespace, row.key)

"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07): one request, one message."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from store.database import Answer, Connection, Row, sql

_KEYS = """
unnest(CAST(:accounts AS text[]), CAST(:environments AS text[]), CAST(:keys AS text[]))
"""
# Two requests with one key at the same moment: who gets the lock goes on, the other is told so.
_TRY_LOCK = sql(f"""
SELECT account_id, environment, key FROM {_KEYS} AS k (account_id, environment, key)
WHERE pg_try_advisory_xact_lock(
    hashtextextended('key/' || account_id || '/' || environment || '/' || key, 0))
""")
_FIND = sql(f"""
SELECT account_id, environment, key, request_hash, response
FROM {_KEYS} AS k (account_id, environment, key)
JOIN idempotency_keys USING (account_id, environment, key)
WHERE expires_at > :at
""")
_KEEP = sql("""
INSERT INTO idempotency_keys
    (account_id, environment, key, request_hash, response, created_at, expires_at)
SELECT account_id, environment, key, request_hash, response, :at, :expires_at
FROM unnest(CAST(:accounts AS text[]), CAST(:environments AS text[]), CAST(:keys AS text[]),
            CAST(:hashes AS bytea[]), CAST(:responses AS jsonb[]))
     AS k (account_id, environment, key, request_hash, response)
ON CONFLICT (account_id, environment, key) DO UPDATE
SET request_hash = excluded.request_hash, response = excluded.response,
    created_at = excluded.created_at, expires_at = excluded.expires_at
""")
_EXPIRE = sql("DELETE FROM idempotency_keys WHERE expires_at < :at")


class Key(NamedTuple):
    """A key as its account gave it, in one environment."""

    account_id: str
    environment: str
    key: str


def try_lock(connection: Connection, keys: Sequence[Key]) -> Answer[set[Key]]:
    """Take keys until the transaction ends; those that no other request has right now."""
    return connection.rows(_TRY_LOCK, _values(keys)).then(lambda rows: {_key(row) for row in rows})


def find(connection: Connection, keys: Sequence[Key], at: datetime) -> Answer[dict[Key, Row]]:
    """What was answered to these keys before: request_hash and response of those that are known."""
    found = connection.rows(_FIND, {**_values(keys), "at": at})
    return found.then(lambda rows: {_key(row): row for row in rows})


def keep(
    connection: Connection,
    answers: Mapping[Key, tuple[bytes, Mapping[str, Any]]],
    *,
    at: datetime,
    expires_at: datetime,
) -> None:
    """Remember what is answered to keys: of each, what made the request and the answer."""
    if not answers:
        return
    connection.send(
        _KEEP,
        {
            **_values(list(answers)),
            "hashes": [request_hash for request_hash, _ in answers.values()],
            "responses": [Jsonb(dict(response)) for _, response in answers.values()],
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
        "keys": [key.key for key in keys],
    }


def _key(row: Row) -> Key:
    return Key(row["account_id"], row["environment"], row["key"])

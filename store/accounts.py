"""Accounts and their API keys."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from store.database import Connection, Row, sql

_ADD_ACCOUNT = sql("""
INSERT INTO accounts (id, callback_secret) VALUES (:id, :callback_secret)
ON CONFLICT (id) DO NOTHING
""")
_ADD_KEY = sql("""
INSERT INTO api_keys (id, account_id, environment, name, scopes, secret_hash, expires_at)
VALUES (:id, :account_id, :environment, :name, :scopes, :secret_hash, :expires_at)
RETURNING id, account_id, environment, name, scopes, created_at, expires_at, revoked_at,
          last_used_at
""")
_KEY = sql("""
SELECT id, account_id, environment, name, scopes, secret_hash, expires_at, revoked_at
FROM api_keys WHERE id = :id
""")
_KEYS = sql("""
SELECT id, account_id, environment, name, scopes, created_at, expires_at, revoked_at, last_used_at
FROM api_keys WHERE account_id = :account_id AND environment = ANY(:environments) ORDER BY id
""")
_REVOKE = sql("""
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
WHERE account_id = :account_id AND environment = ANY(:environments) AND id = :id RETURNING id
""")
_REVOKE_NAMED = sql("""
UPDATE api_keys SET revoked_at = now()
WHERE account_id = :account_id AND name = :name AND revoked_at IS NULL
""")
# At most once a minute: a busy key is no row that every request updates.
_USED = sql("""
UPDATE api_keys SET last_used_at = now()
WHERE id = :id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
""")


def ensure_account(connection: Connection, account_id: str, callback_secret: str) -> None:
    """Add an account, unless it exists."""
    connection.send(_ADD_ACCOUNT, {"id": account_id, "callback_secret": callback_secret})


async def add_key(
    connection: Connection,
    *,
    key_id: UUID,
    account_id: str,
    environment: str,
    name: str,
    scopes: Sequence[str],
    secret_hash: bytes,
    expires_at: datetime | None,
) -> Row:
    """Store a key's hash; the key itself is nowhere."""
    added = await connection.row(
        _ADD_KEY,
        {
            "id": key_id,
            "account_id": account_id,
            "environment": environment,
            "name": name,
            "scopes": list(scopes),
            "secret_hash": secret_hash,
            "expires_at": expires_at,
        },
    )
    if added is None:
        message = "a key was not stored"
        raise LookupError(message)
    return added


async def key(connection: Connection, key_id: UUID) -> Row | None:
    """A key by its id, with its hash, whether or not it still opens anything."""
    return await connection.row(_KEY, {"id": key_id})


async def keys(
    connection: Connection, account_id: str, environments: Sequence[str]
) -> Sequence[Row]:
    """An account's keys of these environments, oldest first, without their hashes."""
    return await connection.rows(
        _KEYS, {"account_id": account_id, "environments": list(environments)}
    )


async def revoke(
    connection: Connection, account_id: str, environments: Sequence[str], key_id: UUID
) -> bool:
    """Revoke a key; False if there is none with this id there. Twice is as good as once."""
    found = await connection.row(
        _REVOKE,
        {"account_id": account_id, "environments": list(environments), "id": key_id},
    )
    return found is not None


def revoke_named(connection: Connection, account_id: str, name: str) -> None:
    """Revoke every key of an account that bears this name."""
    connection.send(_REVOKE_NAMED, {"account_id": account_id, "name": name})


def used(connection: Connection, key_id: UUID) -> None:
    """Remember that a key was used."""
    connection.send(_USED, {"id": key_id})

"""Accounts, their API keys, and the keys of operators, which belong to no account."""

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from store.database import Connection, sql
from store.rows import Query


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account; it is suspended if it has a `suspended_at`."""

    id: str
    name: str
    created_at: datetime
    suspended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key without its hash; `parent_id` is that of the key which created it.

    Keys of operators have neither `account_id` nor `environment`.
    """

    id: UUID
    parent_id: UUID | None
    account_id: str | None
    environment: str | None
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with its hash; `expires_at` and `revoked_at` are the earliest of it and its ancestors.

    Keys of operators have neither `account_id` nor `environment`.
    """

    id: UUID
    account_id: str | None
    environment: str | None
    name: str
    scopes: tuple[str, ...]
    secret_hash: bytes = field(repr=False)
    expires_at: datetime | None
    revoked_at: datetime | None
    account_suspended: bool


@dataclass(frozen=True, slots=True)
class SeenKey:
    """A key that another one sees, and whether that one descends from it."""

    is_ancestor: bool


_ACCOUNT = "id, name, created_at, suspended_at"
_ENSURE_ACCOUNT = sql("""
INSERT INTO accounts (id, name, folded_name, callback_secret)
VALUES (:name, :name, :folded_name, :callback_secret)
ON CONFLICT DO NOTHING
""")
_ACCOUNT_NAMED = Query.of(
    str,
    """
SELECT id FROM accounts WHERE id = :name OR name = :name OR folded_name = :folded_name
ORDER BY id = :name DESC, name = :name DESC LIMIT 1
""",
)
_ADD_ACCOUNT = Query.of(
    StoredAccount,
    f"""
INSERT INTO accounts (id, name, folded_name, callback_secret)
VALUES (:id, :name, :folded_name, :callback_secret)
ON CONFLICT DO NOTHING
RETURNING {_ACCOUNT}
""",
)
_ACCOUNTS = Query.of(
    StoredAccount,
    f"SELECT {_ACCOUNT} FROM accounts ORDER BY created_at, id",
)
_ONE_ACCOUNT = Query.of(StoredAccount, f"SELECT {_ACCOUNT} FROM accounts WHERE id = :id")
_LOCK_ACCOUNT = Query.of(
    StoredAccount, f"SELECT {_ACCOUNT} FROM accounts WHERE id = :id FOR UPDATE"
)
_SUSPEND = Query.of(
    StoredAccount,
    f"UPDATE accounts SET suspended_at = :suspended_at WHERE id = :id RETURNING {_ACCOUNT}",
)
_EXISTING = Query.of(str, "SELECT id FROM accounts WHERE id = ANY(:ids)")
_ADD_KEY = Query.of(
    ListedKey,
    """
INSERT INTO api_keys
    (id, parent_id, account_id, environment, name, scopes, secret_hash, expires_at)
VALUES (:id, :parent_id, :account_id, :environment, :name, :scopes, :secret_hash, :expires_at)
RETURNING id, parent_id, account_id, environment, name, scopes, created_at, expires_at, revoked_at,
          last_used_at
""",
)
_KEY = Query.of(
    StoredKey,
    """
WITH RECURSIVE chain AS (
    SELECT id, parent_id, expires_at, revoked_at FROM api_keys WHERE id = :id
    UNION
    SELECT k.id, k.parent_id, k.expires_at, k.revoked_at
    FROM chain JOIN api_keys k ON k.id = chain.parent_id
)
SELECT k.id, k.account_id, k.environment, k.name, k.scopes, k.secret_hash,
       (SELECT min(expires_at) FROM chain) AS expires_at,
       (SELECT min(revoked_at) FROM chain) AS revoked_at,
       a.suspended_at IS NOT NULL AS account_suspended
FROM api_keys k LEFT JOIN accounts a ON a.id = k.account_id WHERE k.id = :id
""",
)
_KEYS = Query.of(
    ListedKey,
    """
SELECT id, parent_id, account_id, environment, name, scopes, created_at, expires_at, revoked_at,
       last_used_at
FROM api_keys WHERE account_id = :account_id AND environment = ANY(:environments) ORDER BY id
""",
)
_OPERATOR_KEYS = Query.of(
    ListedKey,
    """
SELECT id, parent_id, account_id, environment, name, scopes, created_at, expires_at, revoked_at,
       last_used_at
FROM api_keys WHERE account_id IS NULL ORDER BY id
""",
)
_SEEN = Query.of(
    SeenKey,
    """
WITH RECURSIVE ancestors AS (
    SELECT parent_id AS id FROM api_keys WHERE id = :of_key
    UNION
    SELECT k.parent_id FROM ancestors a JOIN api_keys k ON k.id = a.id
)
SELECT EXISTS (SELECT FROM ancestors a WHERE a.id = k.id) AS is_ancestor
FROM api_keys k
WHERE k.account_id IS NOT DISTINCT FROM :account_id
  AND (k.environment IS NULL OR k.environment = ANY(:environments)) AND k.id = :id
""",
)
# With all that descend from it. One that is added meanwhile is refused for its parent (`_KEY`).
_REVOKE = sql("""
WITH RECURSIVE family AS (
    SELECT id FROM api_keys WHERE id = :id
    UNION
    SELECT k.id FROM family JOIN api_keys k ON k.parent_id = family.id
)
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
WHERE id IN (SELECT id FROM api_keys WHERE id IN (SELECT id FROM family) ORDER BY id FOR UPDATE)
""")
_REVOKE_NAMED = sql("""
UPDATE api_keys SET revoked_at = now()
WHERE account_id IS NOT DISTINCT FROM :account_id AND name = :name AND parent_id IS NULL
  AND revoked_at IS NULL AND id <> :successor
""")
_ADOPT = sql("""
UPDATE api_keys SET parent_id = :successor
WHERE parent_id IN (SELECT id FROM api_keys
                    WHERE account_id IS NOT DISTINCT FROM :account_id AND name = :name AND parent_id IS NULL
                      AND revoked_at IS NULL AND id <> :successor)
""")
# At most once a minute: a busy key is no row that every request updates.
_USED = sql("""
UPDATE api_keys SET last_used_at = now()
WHERE id = :id AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
""")


def _folded(name: str) -> str:
    """What is equal of names that differ in case or in the form of their characters only."""
    once = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", once)


def ensure_account(connection: Connection, name: str, callback_secret: str) -> None:
    """Add an account whose id is its name, unless there is one with this id or name."""
    connection.send(
        _ENSURE_ACCOUNT,
        {"name": name, "folded_name": _folded(name), "callback_secret": callback_secret},
    )


async def account_named(connection: Connection, name: str) -> str | None:
    """The id of the account with this id, else of that with this name."""
    return await _ACCOUNT_NAMED.row(connection, {"name": name, "folded_name": _folded(name)})


async def add_account(
    connection: Connection, account_id: str, name: str, callback_secret: str
) -> StoredAccount | None:
    """Add an account; None if another one has the name."""
    return await _ADD_ACCOUNT.row(
        connection,
        {
            "id": account_id,
            "name": name,
            "folded_name": _folded(name),
            "callback_secret": callback_secret,
        },
    )


async def all_accounts(connection: Connection) -> Sequence[StoredAccount]:
    """All accounts, the oldest first."""
    return await _ACCOUNTS.rows(connection, {})


async def existing_accounts(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of these ids that an account has."""
    return set(await _EXISTING.rows(connection, {"ids": list(ids)}))


async def account(
    connection: Connection, account_id: str, *, lock: bool = False
) -> StoredAccount | None:
    """An account by its id; with `lock` nobody else changes it until the transaction ends."""
    return await (_LOCK_ACCOUNT if lock else _ONE_ACCOUNT).row(connection, {"id": account_id})


async def suspend(
    connection: Connection, account_id: str, suspended_at: datetime | None
) -> StoredAccount | None:
    """Suspend an account from a time on, or resume it with None."""
    return await _SUSPEND.row(connection, {"id": account_id, "suspended_at": suspended_at})


async def add_key(
    connection: Connection,
    *,
    key_id: UUID,
    parent_id: UUID | None,
    account_id: str | None,
    environment: str | None,
    name: str,
    scopes: Sequence[str],
    secret_hash: bytes,
    expires_at: datetime | None,
) -> ListedKey:
    """Store a key's hash; the key itself is nowhere."""
    added = await _ADD_KEY.row(
        connection,
        {
            "id": key_id,
            "parent_id": parent_id,
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


async def key(connection: Connection, key_id: UUID) -> StoredKey | None:
    """A key by its id, whether or not it still opens anything."""
    return await _KEY.row(connection, {"id": key_id})


async def keys(
    connection: Connection, account_id: str, environments: Sequence[str]
) -> Sequence[ListedKey]:
    """An account's keys of these environments, oldest first, without their hashes."""
    return await _KEYS.rows(
        connection, {"account_id": account_id, "environments": list(environments)}
    )


async def operator_keys(connection: Connection) -> Sequence[ListedKey]:
    """The keys of operators, oldest first, without their hashes."""
    return await _OPERATOR_KEYS.rows(connection, {})


async def key_seen_by(
    connection: Connection,
    account_id: str | None,
    environments: Sequence[str],
    key_id: UUID,
    *,
    of_key: UUID | None,
) -> SeenKey | None:
    """A key of an account, and whether it is an ancestor of another key; None if there is none.

    Without `account_id`, of an operator's key.
    """
    return await _SEEN.row(
        connection,
        {
            "account_id": account_id,
            "environments": list(environments),
            "id": key_id,
            "of_key": of_key,
        },
    )


def revoke(connection: Connection, key_id: UUID) -> None:
    """Revoke a key and its descendants. Twice is as good as once."""
    connection.send(_REVOKE, {"id": key_id})


def replace_named(
    connection: Connection, account_id: str | None, name: str, successor: UUID
) -> None:
    """Revoke an account's other keys of this name; `successor` becomes the parent in their place.

    Only those without a parent. Without `account_id`, the operators' keys of this name.
    """
    values = {"account_id": account_id, "name": name, "successor": successor}
    connection.send(_ADOPT, values)
    connection.send(_REVOKE_NAMED, values)


def used(connection: Connection, key_id: UUID) -> None:
    """Remember that a key was used."""
    connection.send(_USED, {"id": key_id})

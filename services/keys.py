"""API keys: made, shown once, stored as a hash, checked on every request."""

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.configuration import Environment
from domain.ids import IdPrefix, parse_id, public_id
from services.asked import Caller
from store import accounts
from store.database import Database, Row

_REMEMBERED_FOR = 2.0
"""Seconds for which a good key is not looked up again; so long may a revoked one still open."""


class Scope(StrEnum):
    """What a key may do."""

    SEND = "messages:send"
    READ = "messages:read"
    REPLAY_DEAD_LETTERS = "dead_letters:replay"
    READ_PROVIDERS = "providers:read"
    MANAGE_KEYS = "keys:manage"
    MANAGE_CONFIG = "config:manage"
    READ_CALLBACKS = "callbacks:read"
    REPLAY_CALLBACKS = "callbacks:replay"
    ADMIN = "admin"
    """All of these."""


class UnknownKey(Exception):
    """The key opens nothing: it never existed, is revoked, or its time is over."""


class NotYours(Exception):
    """A key may only give what it has: a scope or an environment is missing."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is listed; `secret` is there only when it was made just now."""

    id: str
    account_id: str
    environment: Environment
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    secret: str | None = None


# The id is in the key, so that it is found by its primary key; what follows is 256 random bits,
# for which a plain hash is as good as a slow one.
_KEY = re.compile(r"sg_(live|test)_([0-9a-f]{32})_([A-Za-z0-9_-]{43})", re.ASCII)


def new_callback_secret() -> str:
    """A secret of 32 random bytes, written as Standard Webhooks wants it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


class Keys:
    """All that is done with keys."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, tuple[float, Caller]] = {}
        self._looking_up: dict[bytes, asyncio.Task[Caller]] = {}

    async def authenticate(self, text: str) -> Caller:
        """Who bears this key.

        Raises:
            UnknownKey: nobody, or nobody any more.
        """
        fingerprint = _hash(text)
        remembered = self._known.get(fingerprint)
        if remembered is not None and remembered[0] > time.monotonic():
            return remembered[1]
        found = _KEY.fullmatch(text)
        if found is None:
            raise UnknownKey
        # What hundreds of requests ask at the same moment is looked up once.
        looking = self._looking_up.get(fingerprint)
        if looking is None:
            looking = asyncio.create_task(self._look_up(found, fingerprint))
            self._looking_up[fingerprint] = looking
            looking.add_done_callback(lambda _: self._looking_up.pop(fingerprint))
        return await asyncio.shield(looking)

    async def _look_up(self, found: re.Match[str], fingerprint: bytes) -> Caller:
        key_id = UUID(hex=found[2])
        async with self._database.begin() as connection:
            row = await accounts.key(connection, key_id)
            if (
                row is None
                or not hmac.compare_digest(row["secret_hash"], _hash(found[3]))
                or row["environment"] != found[1]
                or row["revoked_at"] is not None
                or (row["expires_at"] is not None and row["expires_at"] <= datetime.now(UTC))
            ):
                raise UnknownKey
            accounts.used(connection, key_id)
        caller = Caller(
            account_id=row["account_id"],
            environment=Environment(row["environment"]),
            key_id=public_id(IdPrefix.KEY, key_id),
            scopes=frozenset(row["scopes"]),
        )
        self._remember(fingerprint, caller)
        return caller

    async def create(
        self,
        caller: Caller,
        *,
        name: str,
        environment: Environment,
        scopes: Sequence[Scope],
        expires_at: datetime | None = None,
    ) -> Key:
        """Make a key for the caller's account; the only time that its secret is shown.

        Raises:
            NotYours: the caller lacks one of the scopes, or is of the test environment and wants a
                live key.
        """
        wanted = {scope.value for scope in scopes}
        if Scope.ADMIN.value not in caller.scopes and not wanted <= caller.scopes:
            raise NotYours
        if caller.environment is Environment.TEST and environment is not Environment.TEST:
            raise NotYours
        return await self._add(caller.account_id, name, environment, sorted(wanted), expires_at)

    async def bootstrap(self, account_id: str, *, name: str) -> Key:
        """Make an account, if need be, and an admin key of this name; earlier ones are revoked."""
        async with self._database.begin() as connection:
            accounts.ensure_account(connection, account_id, new_callback_secret())
            accounts.revoke_named(connection, account_id, name)
        return await self._add(account_id, name, Environment.LIVE, [Scope.ADMIN.value], None)

    async def listed(self, caller: Caller) -> list[Key]:
        """The keys of the caller's account, without their secrets.

        A key of the test environment sees only those of it; a live one looks after both.
        """
        async with self._database.begin() as connection:
            return [
                _as_key(row)
                for row in await accounts.keys(
                    connection, caller.account_id, _looked_after_by(caller)
                )
            ]

    async def revoke(self, caller: Caller, key_id: str) -> bool:
        """Revoke a key; False if there is none with this id among those that the caller sees."""
        uuid = parse_id(IdPrefix.KEY, key_id)
        if uuid is None:
            return False
        async with self._database.begin() as connection:
            revoked = await accounts.revoke(
                connection, caller.account_id, _looked_after_by(caller), uuid
            )
        self._known.clear()
        return revoked

    async def _add(
        self,
        account_id: str,
        name: str,
        environment: Environment,
        scopes: Sequence[str],
        expires_at: datetime | None,
    ) -> Key:
        key_id = uuid7()
        secret = secrets.token_urlsafe(32)
        async with self._database.begin() as connection:
            row = await accounts.add_key(
                connection,
                key_id=key_id,
                account_id=account_id,
                environment=environment.value,
                name=name,
                scopes=scopes,
                secret_hash=_hash(secret),
                expires_at=expires_at,
            )
        return _as_key(row, f"sg_{environment.value}_{key_id.hex}_{secret}")

    def _remember(self, fingerprint: bytes, caller: Caller) -> None:
        if len(self._known) > 10_000:  # noqa: PLR2004 - bounded; whoever calls next is looked up
            self._known.clear()
        self._known[fingerprint] = (time.monotonic() + _REMEMBERED_FOR, caller)


def _looked_after_by(caller: Caller) -> list[str]:
    if caller.environment is Environment.TEST:
        return [Environment.TEST.value]
    return [environment.value for environment in Environment]


def _as_key(row: Row, secret: str | None = None) -> Key:
    return Key(
        id=public_id(IdPrefix.KEY, row["id"]),
        account_id=row["account_id"],
        environment=Environment(row["environment"]),
        name=row["name"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        secret=secret,
    )

"""API keys: made, shown once, stored as a hash, checked on every request.

There are two kinds. A key of an account acts for it in one environment. A key of an operator concerns
the installation: it manages accounts, the configuration and other operators' keys, and can do nothing
that belongs to an account.
"""

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.configuration import Environment
from domain.ids import IdPrefix, parse_id, public_id
from services.submission import Caller
from store import accounts
from store.accounts import ListedKey, StoredKey
from store.database import Connection, Database
from telemetry.logs import get_logger

_log = get_logger(__name__)

_LACKS: Final = "Your key lacks the scope {}, so it cannot give it to another."
_REMEMBERED_FOR: Final = 2.0
"""Seconds for which a good key is not looked up again. So long may a revoked one still open, and a key
of a suspended account still send."""


class Scope(StrEnum):
    """What a key of an account may do."""

    SEND = "messages:send"
    READ = "messages:read"
    REPLAY_DEAD_LETTERS = "dead_letters:replay"
    READ_PROVIDERS = "providers:read"
    MANAGE_KEYS = "keys:manage"
    READ_CALLBACKS = "callbacks:read"
    REPLAY_CALLBACKS = "callbacks:replay"
    ADMIN = "admin"
    """All of these."""


class OperatorScope(StrEnum):
    """What an operator's key may do. There is no scope for all: a new one is given by its name."""

    MANAGE_ACCOUNTS = "accounts:manage"
    MANAGE_CONFIG = "config:manage"
    MANAGE_OPERATOR_KEYS = "operator_keys:manage"


def has_scope(scopes: Collection[str], scope: Scope) -> bool:
    """Whether these scopes of an account's key contain this one, by its name or by `admin`."""
    return scope in scopes or Scope.ADMIN in scopes


@dataclass(frozen=True, slots=True)
class Operator:
    """Who operates the installation, by one of the operators' keys."""

    key_id: str
    scopes: frozenset[str] = frozenset()


class UnknownKey(Exception):
    """The key is not valid: it never existed, is revoked, or its time is over."""


class NotYours(Exception):
    """A key may give only what it has, and does not revoke its ancestors.

    The text says what exceeds its rights.
    """


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is listed; `secret` is there only when it was made just now.

    An operator's key has neither `account_id` nor `environment`.
    """

    id: str
    parent_id: str | None
    account_id: str | None
    environment: Environment | None
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    secret: str | None = None


# The id is in the key, so that it is found by its primary key; what follows is 256 random bits,
# for which a plain hash is as good as a slow one.
_OPERATOR: Final = "operator"
_KEY: Final = re.compile(
    rf"sg_(live|test|{_OPERATOR})_([0-9a-f]{{32}})_([A-Za-z0-9_-]{{43}})", re.ASCII
)


def new_callback_secret() -> str:
    """A secret of 32 random bytes, written as Standard Webhooks wants it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


Bearer: TypeAlias = Caller | Operator
"""Who bears a key."""


class Keys:
    """All that is done with keys."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, tuple[float, Bearer]] = {}
        self._looking_up: dict[bytes, asyncio.Task[Bearer]] = {}

    async def authenticate(self, text: str) -> Bearer:
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

    async def _look_up(self, found: re.Match[str], fingerprint: bytes) -> Bearer:
        key_id = UUID(hex=found[2])
        async with self._database.begin() as connection:
            key = await accounts.key(connection, key_id)
            if (
                key is None
                or not hmac.compare_digest(key.secret_hash, _hash(found[3]))
                or _kind(key.environment) != found[1]
                or _has_ended(key)
            ):
                raise UnknownKey
            accounts.used(connection, key_id)
        bearer = _bearer(key)
        self._remember(fingerprint, bearer)
        return bearer

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

        The caller's key becomes its parent: the new key ends with it, and has its expiry unless an
        earlier one is given.

        Raises:
            NotYours: the caller lacks one of the scopes, is of the test environment and wants a
                live key, or ends before the new key would.
            UnknownKey: the caller's key has ended meanwhile.
        """
        lacking = [scope for scope in scopes if not has_scope(caller.scopes, scope)]
        if lacking:
            raise NotYours(_LACKS.format(lacking[0]))
        if caller.environment is Environment.TEST and environment is not Environment.TEST:
            raise NotYours("A key of the test environment can only create keys of that one.")
        async with self._database.begin() as connection:
            made = await _add_child(
                connection,
                caller.key_id,
                expires_at,
                account_id=caller.account_id,
                name=name,
                environment=environment,
                scopes=scopes,
            )
        _log.info(
            "key_created", key_id=made.id, account_id=caller.account_id, by_key_id=caller.key_id
        )
        return made

    async def create_operator_key(
        self,
        operator: Operator,
        *,
        name: str,
        scopes: Sequence[OperatorScope],
        expires_at: datetime | None = None,
    ) -> Key:
        """Make a key for an operator, below that of the one who asks; as `create` otherwise.

        Raises:
            NotYours: the operator lacks one of the scopes, or ends before the new key would.
            UnknownKey: the operator's key has ended meanwhile.
        """
        lacking = [scope for scope in scopes if scope not in operator.scopes]
        if lacking:
            raise NotYours(_LACKS.format(lacking[0]))
        async with self._database.begin() as connection:
            made = await _add_child(
                connection,
                operator.key_id,
                expires_at,
                account_id=None,
                name=name,
                environment=None,
                scopes=scopes,
            )
        _log.info("operator_key_created", key_id=made.id, by_key_id=operator.key_id)
        return made

    async def bootstrap(self, *, name: str) -> Key:
        """Make an operator's key of this name, with all scopes; not for what comes over HTTP.

        It takes the place of earlier ones of this name, which are revoked: the keys that they
        created go on, and end with the new one.
        """
        return await self._create_root(
            account=None, name=name, scopes=tuple(OperatorScope), environment=None
        )

    async def create_root(
        self,
        account: str,
        *,
        name: str,
        scopes: Sequence[Scope],
        environment: Environment = Environment.LIVE,
    ) -> Key:
        """Make a key without a parent, and its account if need be; not for what comes over HTTP.

        It replaces others of its name, as with `bootstrap`. `account` is its id or its name.
        """
        return await self._create_root(
            account=account, name=name, scopes=scopes, environment=environment
        )

    async def _create_root(
        self,
        *,
        account: str | None,
        name: str,
        scopes: Sequence[StrEnum],
        environment: Environment | None,
    ) -> Key:
        key_id = uuid7()
        async with self._database.begin() as connection:
            if account is not None:
                accounts.ensure_account(connection, account, new_callback_secret())
                account = await accounts.account_named(connection, account)
            key = await add_key(
                connection,
                key_id,
                account_id=account,
                parent_id=None,
                name=name,
                environment=environment,
                scopes=scopes,
                expires_at=None,
            )
            accounts.replace_named(connection, account, name, key_id)
        self.forget()
        return key

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
        """Revoke a key and all that descend from it.

        False if there is none with this id among those that the caller sees.

        Raises:
            NotYours: the caller's key descends from it.
        """
        uuid = parse_id(IdPrefix.KEY, key_id)
        if uuid is None:
            return False
        return await self._revoke(
            uuid, caller.key_id, account_id=caller.account_id, environments=_looked_after_by(caller)
        )

    async def operator_keys(self) -> list[Key]:
        """The keys of all operators, without their secrets."""
        async with self._database.begin() as connection:
            return [_as_key(row) for row in await accounts.operator_keys(connection)]

    async def revoke_operator_key(self, operator: Operator, key_id: str) -> bool:
        """Revoke an operator's key and all that descend from it; False if there is none.

        Raises:
            NotYours: the operator's own key descends from it.
        """
        uuid = parse_id(IdPrefix.KEY, key_id)
        if uuid is None:
            return False
        return await self._revoke(uuid, operator.key_id, account_id=None, environments=())

    def forget(self) -> None:
        """Look up every key again when it comes next."""
        self._known.clear()

    async def _revoke(
        self, key_id: UUID, by_key: str, *, account_id: str | None, environments: Sequence[str]
    ) -> bool:
        async with self._database.begin() as connection:
            found = await accounts.key_seen_by(
                connection,
                account_id,
                environments,
                key_id,
                of_key=parse_id(IdPrefix.KEY, by_key),
            )
            if found is None:
                return False
            if found.is_ancestor:
                raise NotYours("A key cannot revoke one that it descends from: use another key.")
            accounts.revoke(connection, key_id)
        self.forget()
        _log.info(
            "key_revoked",
            key_id=public_id(IdPrefix.KEY, key_id),
            account_id=account_id,
            by_key_id=by_key,
        )
        return True

    def _remember(self, fingerprint: bytes, bearer: Bearer) -> None:
        if len(self._known) > 10_000:  # noqa: PLR2004 - bounded; whoever calls next is looked up
            self._known.clear()
        self._known[fingerprint] = (time.monotonic() + _REMEMBERED_FOR, bearer)


async def _add_child(
    connection: Connection,
    parent: str,
    expires_at: datetime | None,
    *,
    account_id: str | None,
    name: str,
    environment: Environment | None,
    scopes: Sequence[StrEnum],
) -> Key:
    """Store a key below its parent, with whose end it ends.

    Raises:
        NotYours: it would last longer than its parent.
        UnknownKey: the parent has ended meanwhile.
    """
    parent_id = parse_id(IdPrefix.KEY, parent)
    stored = await accounts.key(connection, parent_id) if parent_id else None
    if stored is None or _has_ended(stored):
        raise UnknownKey
    ends_at = stored.expires_at
    if ends_at is not None:
        expires_at = expires_at or ends_at
        if expires_at > ends_at:
            raise NotYours(
                f"The new key would last longer than yours, which ends at {ends_at.isoformat()}: "
                "give that time or an earlier one."
            )
    return await add_key(
        connection,
        uuid7(),
        account_id=account_id,
        parent_id=parent_id,
        name=name,
        environment=environment,
        scopes=scopes,
        expires_at=expires_at,
    )


async def add_key(
    connection: Connection,
    key_id: UUID,
    *,
    account_id: str | None,
    parent_id: UUID | None,
    name: str,
    environment: Environment | None,
    scopes: Sequence[StrEnum],
    expires_at: datetime | None,
) -> Key:
    """Store a new key; whoever calls this has checked that it may be made."""
    secret = secrets.token_urlsafe(32)
    row = await accounts.add_key(
        connection,
        key_id=key_id,
        parent_id=parent_id,
        account_id=account_id,
        environment=environment.value if environment else None,
        name=name,
        scopes=sorted({scope.value for scope in scopes}),
        secret_hash=_hash(secret),
        expires_at=expires_at,
    )
    return _as_key(row, f"sg_{_kind(row.environment)}_{key_id.hex}_{secret}")


def _kind(environment: str | None) -> str:
    """The word of a key's text that says whose it is."""
    return environment or _OPERATOR


def _bearer(key: StoredKey) -> Bearer:
    key_id, scopes = public_id(IdPrefix.KEY, key.id), frozenset(key.scopes)
    if key.account_id is None or key.environment is None:
        return Operator(key_id, scopes)
    return Caller(
        account_id=key.account_id,
        environment=Environment(key.environment),
        key_id=key_id,
        scopes=scopes,
        is_suspended=key.account_suspended,
    )


def _has_ended(key: StoredKey) -> bool:
    """Whether a key, or one that it descends from, is revoked or its time is over."""
    expires_at = key.expires_at
    return key.revoked_at is not None or (
        expires_at is not None and expires_at <= datetime.now(UTC)
    )


def _looked_after_by(caller: Caller) -> list[str]:
    if caller.environment is Environment.TEST:
        return [Environment.TEST.value]
    return [environment.value for environment in Environment]


def _as_key(stored: ListedKey, secret: str | None = None) -> Key:
    return Key(
        id=public_id(IdPrefix.KEY, stored.id),
        parent_id=public_id(IdPrefix.KEY, stored.parent_id) if stored.parent_id else None,
        account_id=stored.account_id,
        environment=Environment(stored.environment) if stored.environment else None,
        name=stored.name,
        scopes=stored.scopes,
        created_at=stored.created_at,
        expires_at=stored.expires_at,
        revoked_at=stored.revoked_at,
        last_used_at=stored.last_used_at,
        secret=secret,
    )

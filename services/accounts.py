"""Accounts: created, listed, suspended and resumed by operators, and given their first keys."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from uuid_utils.compat import uuid7

from domain.configuration import Environment
from domain.ids import IdPrefix, public_id
from services.keys import Key, Keys, Operator, Scope, add_key, new_callback_secret
from store import accounts as store
from store.accounts import StoredAccount
from store.database import Connection, Database
from telemetry.logs import get_logger

_log = get_logger(__name__)

LONGEST_NAME: Final = 64
# As the configuration takes them; other texts are not looked up, since Postgres keeps no NUL.
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


# Unicode's Default_Ignorable_Code_Point as far as `isprintable` accepts it, and the blank of Braille.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_LIKE_AN_ID: Final = re.compile(rf"{IdPrefix.ACCOUNT}_", re.IGNORECASE)


class InvalidAccountName(ValueError):
    """A name that an account cannot have; the text says what to change."""


class AccountNameTaken(Exception):
    """Another account has the name."""


class UnknownAccount(Exception):
    """There is no account with this id."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account, as an operator sees it: nothing of its messages."""

    id: str
    name: str
    created_at: datetime
    suspended_at: datetime | None


def account_name(text: str) -> str:
    """A name as it is stored: in Unicode's normal form C, so that equal names are equal texts.

    Raises:
        InvalidAccountName: it is empty, too long, has characters that nobody sees, or looks like an
            account's id.
    """
    name = unicodedata.normalize("NFC", text)
    if not 1 <= len(name) <= LONGEST_NAME:
        raise InvalidAccountName(f"The name has 1 to {LONGEST_NAME} characters.")
    # Of the categories C and Z only the blank is printable.
    if not name.isprintable() or _INVISIBLE.search(name) or name != name.strip():
        raise InvalidAccountName(
            "The name has printable characters only, and no blank at its beginning or end."
        )
    if _LIKE_AN_ID.match(unicodedata.normalize("NFKC", name)):
        raise InvalidAccountName("The name looks like the id of an account: choose another one.")
    return name


class Accounts:
    """What operators do with accounts."""

    def __init__(self, database: Database, reads: Database, keys: Keys) -> None:
        self._database = database
        self._reads = reads
        self._keys = keys

    async def create(self, operator: Operator, name: str) -> Account:
        """Create an account, which has no key yet.

        Raises:
            AccountNameTaken: another one has the name.
        """
        async with self._database.begin() as connection:
            stored = await store.add_account(
                connection, public_id(IdPrefix.ACCOUNT, uuid7()), name, new_callback_secret()
            )
        if stored is None:
            raise AccountNameTaken
        _log.info("account_created", account_id=stored.id, by_key_id=operator.key_id)
        return _as_account(stored)

    async def listed(self) -> list[Account]:
        """All accounts, the oldest first."""
        async with self._reads.begin() as connection:
            return [_as_account(row) for row in await store.all_accounts(connection)]

    async def one(self, account_id: str) -> Account:
        """An account.

        Raises:
            UnknownAccount: there is none with this id.
        """
        async with self._reads.begin() as connection:
            return await _found(connection, account_id)

    async def suspend(self, operator: Operator, account_id: str) -> Account:
        """Let the account's keys send nothing more; twice is as good as once.

        Messages that were accepted go on. Other processes follow when they look up the key again,
        within seconds.

        Raises:
            UnknownAccount: there is none with this id.
        """
        account, changed = await self._set_suspended(account_id, datetime.now(UTC))
        if changed:
            _log.info("account_suspended", account_id=account_id, by_key_id=operator.key_id)
        return account

    async def resume(self, operator: Operator, account_id: str) -> Account:
        """Let the account's keys send again; twice is as good as once.

        Raises:
            UnknownAccount: there is none with this id.
        """
        account, changed = await self._set_suspended(account_id, None)
        if changed:
            _log.info("account_resumed", account_id=account_id, by_key_id=operator.key_id)
        return account

    async def create_key(
        self,
        operator: Operator,
        account_id: str,
        *,
        name: str,
        environment: Environment,
        scopes: Sequence[Scope],
        expires_at: datetime | None = None,
    ) -> Key:
        """Make a key of an account, such as its first; the only time that its secret is shown.

        It has no parent: it does not end with the operator's key.

        Raises:
            UnknownAccount: there is none with this id.
        """
        async with self._database.begin() as connection:
            await _found(connection, account_id)
            key = await add_key(
                connection,
                uuid7(),
                account_id=account_id,
                parent_id=None,
                name=name,
                environment=environment,
                scopes=scopes,
                expires_at=expires_at,
            )
        _log.info("key_created", key_id=key.id, account_id=account_id, by_key_id=operator.key_id)
        return key

    async def _set_suspended(self, account_id: str, at: datetime | None) -> tuple[Account, bool]:
        """The account, and whether this changed it."""
        async with self._database.begin() as connection:
            account = await _found(connection, account_id, lock=True)
            if (account.suspended_at is None) == (at is None):
                return account, False
            account = _known(await store.suspend(connection, account_id, at))
        self._keys.forget()
        return account, True


async def _found(connection: Connection, account_id: str, *, lock: bool = False) -> Account:
    if not _ID.fullmatch(account_id):
        raise UnknownAccount
    return _known(await store.account(connection, account_id, lock=lock))


def _known(stored: StoredAccount | None) -> Account:
    if stored is None:
        raise UnknownAccount
    return _as_account(stored)


def _as_account(stored: StoredAccount) -> Account:
    return Account(stored.id, stored.name, stored.created_at, stored.suspended_at)

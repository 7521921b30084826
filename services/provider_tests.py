"""Tests of providers: an operator sends one message through one provider, whatever the routes say.

The message belongs to an account, as any other does: its limits, its senders and its money apply. No
key of an account can choose a provider, so routes hold for all that accounts send.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from domain.binds import ProviderRole
from domain.configuration import Configuration, Environment
from domain.ids import IdPrefix, parse_id
from services.accept import Accept
from services.accounts import Account, Accounts, UnknownAccount
from services.configuration import Configurations
from services.keys import Operator
from services.messages import Explanation, Messages, UnknownMessage
from services.providers import Providers
from services.submission import Accepted, Caller, FieldError, Refused, SendCommand
from services.unparsed_receipts import UnknownProvider
from store import messages
from store.database import Database
from telemetry.logs import get_logger

_log = get_logger(__name__)

NAMESPACE: Final = "provider_tests"
"""Of the idempotency keys of tests, and the name of the part of the gateway that reads them."""
_VALIDITY: Final = timedelta(minutes=10)
"""How long a test tries: whoever sends one waits for it."""
_MOST_NAMED: Final = 20
"""Of all accounts, in the sentence that asks for one."""


class ProviderDown(Exception):
    """A provider that no worker can send over now; the text says why, and what to do."""


class TestedAccountSuspended(Exception):
    """The account that the message would belong to is suspended."""

    __test__ = False  # no test itself, as pytest would take it from the name


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderTest:
    """The message of a test.

    `sender` is by default the first that the configuration names for the account. `account_id` is by
    default the only account.
    """

    to: str = field(repr=False)
    body: str = field(repr=False)
    sender: str | None = None
    account_id: str | None = None


class ProviderTests:
    """Sends tests of providers, and explains what became of them."""

    def __init__(
        self,
        reads: Database,
        configurations: Configurations,
        accept: Accept,
        messages_of: Messages,
        accounts: Accounts,
        providers: Providers,
    ) -> None:
        self._reads = reads
        self._configurations = configurations
        self._accept = accept
        self._messages = messages_of
        self._accounts = accounts
        self._providers = providers

    async def send(
        self, operator: Operator, provider: str, test: ProviderTest, *, idempotency_key: str | None
    ) -> Accepted:
        """Accept a message for this provider alone, in the provider's own environment.

        Raises:
            UnknownProvider: the configuration has none of this name.
            ProviderDown: nothing can be sent over it now.
            TestedAccountSuspended: the account may not send.
            Refused: with every fault of the message; nothing was stored.
            KeyInFlight, KeyReused: about the idempotency key; nothing was stored.
            NoConfiguration: there is none yet.
        """
        configuration = self._configurations.current
        declared = configuration.providers.get(provider)
        if declared is None:
            raise UnknownProvider
        account = await self._account(test.account_id)
        if account.suspended_at is not None:
            raise TestedAccountSuspended
        caller = Caller(
            account.id, declared.environment, key_id=operator.key_id, namespace=NAMESPACE
        )
        await self._check_up(caller, provider)
        command = SendCommand(
            to=test.to,
            body=test.body,
            sender=_sender(configuration, account.id, test.sender),
            validity=_VALIDITY,
            only_provider=provider,
        )
        accepted = await self._accept(caller, command, idempotency_key=idempotency_key)
        _log.info(
            "provider_test_accepted",
            provider=provider,
            message_id=accepted.message_id,
            account_id=account.id,
            by_key_id=operator.key_id,
        )
        return accepted

    async def explain(self, provider: str, message_id: str) -> Explanation:
        """All that is known of a test.

        Raises:
            UnknownMessage: this provider has no test with this id.
        """
        uuid = parse_id(IdPrefix.MESSAGE, message_id)
        if uuid is None:
            raise UnknownMessage
        async with self._reads.begin() as connection:
            found = await messages.test_of(connection, provider, uuid)
        if found is None:
            raise UnknownMessage
        caller = Caller.internal(NAMESPACE, found.account_id, Environment(found.environment))
        return await self._messages.explain(caller, message_id)

    async def _account(self, account_id: str | None) -> Account:
        if account_id is not None:
            try:
                return await self._accounts.one(account_id)
            except UnknownAccount:
                raise _refused(
                    "account_id",
                    "unknown_account",
                    "There is no account with this id: `smsctl account list` shows all ids.",
                ) from None
        accounts = await self._accounts.listed()
        if len(accounts) == 1:
            return accounts[0]
        if not accounts:
            raise _refused(
                "account_id",
                "missing",
                "There is no account yet that the message could belong to: create one with "
                "`smsctl account create NAME`.",
            )
        ids = ", ".join(each.id for each in accounts[:_MOST_NAMED])
        raise _refused(
            "account_id",
            "missing",
            "There are several accounts: give the id of the one that the message is to belong to. "
            f"They are: {ids}.",
        )

    async def _check_up(self, caller: Caller, provider: str) -> None:
        for status in await self._providers.listed(caller):
            if status.name == provider and ProviderRole.PROVIDERS not in status.roles:
                raise ProviderDown(f"{provider} is down. {status.detail}")


def _sender(configuration: Configuration, account_id: str, sender: str | None) -> str:
    if sender is not None:
        return sender
    named = [each for each in configuration.account(account_id).senders if each != "*"]
    if not named:
        raise _refused(
            "from",
            "missing",
            "The configuration names no sender of this account: give one that the provider accepts.",
        )
    return named[0]


def _refused(name: str, reason: str, sentence: str) -> Refused:
    return Refused([FieldError(name, reason, sentence)])

"""What providers report over HTTP: verified, committed, and only then answered."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from domain.configuration import ProviderConfiguration
from domain.receipt_tokens import ReceiptTokens
from domain.receipts import PartIdentity
from domain.secrets import AllowedSecrets
from providers.base import ReceiptRefused, ReceivedReceipt, UnparsedReason, UnparsedReceipt
from providers.registry import ProviderTypes
from providers.webhooks import (
    ProviderWebhooks,
    UnreadableWebhook,
    WebhookForged,
    WebhookRequest,
    WebhookResponse,
)
from services.configuration import Configurations
from services.receipts import ReceiptIntake
from services.unparsed_receipts import UnknownProvider, UnparsedReceipts
from settings.secrets import SecretMissing
from telemetry import metrics
from telemetry.logs import get_logger

_log = get_logger(__name__)

_AT_ONCE: Final = 200
"""Receipts of a request that are handed on before others have their turn."""

PATH: Final = "/webhooks/providers"
"""Prefix of the paths to which providers send requests."""


class UnknownAddress(Exception):
    """No provider reports at this address: its name or its token is not one of ours."""

    loggable = True

    def __init__(self) -> None:
        super().__init__("no provider reports at this address")


class NoFixedAddress(Exception):
    """A provider reports at no fixed address; the text says why, and what to do."""


class SecretUnavailable(Exception):
    """The secret that verifies a provider's requests cannot be read by this process."""

    loggable = True

    def __init__(self) -> None:
        super().__init__("a secret of the provider cannot be read: send the request again")


class ReportNotStored(Exception):
    """The database did not take a report; the provider keeps it and sends it again."""

    loggable = True

    def __init__(self) -> None:
        super().__init__("the report was not stored: send it again")


@dataclass(frozen=True, slots=True)
class ReceiptAddress:
    """Where a provider reports: what reads its requests, and the part that the address names, if any."""

    webhooks: ProviderWebhooks[Any]
    part: PartIdentity | None

    @property
    def provider(self) -> str:
        return self.webhooks.name


class ProviderReports:
    """Takes the receipts that providers send over HTTP.

    `public_url` is the address under which they reach the API, without a slash at its end.
    """

    def __init__(
        self,
        configurations: Configurations,
        types: ProviderTypes,
        allowed: AllowedSecrets,
        tokens: ReceiptTokens,
        intake: ReceiptIntake,
        unparsed: UnparsedReceipts,
        public_url: str | None,
    ) -> None:
        self._configurations = configurations
        self._types = types
        self._allowed = allowed
        self._tokens = tokens
        self._intake = intake
        self._unparsed = unparsed
        self._public_url = public_url
        self._made: dict[str, tuple[ProviderConfiguration, ProviderWebhooks[Any]]] = {}

    def receipt_url(self, provider: str, token: str) -> str | None:
        """The address for the receipts with this token; None without SMSGATEWAY_PUBLIC_URL."""
        return self.called_url(f"{PATH}/{provider}/receipts/{token}")

    def called_url(self, target: str) -> str | None:
        """The address that a provider has called, whose path and query are `target`."""
        return None if self._public_url is None else f"{self._public_url}{target}"

    def fixed_address(self, provider: str) -> str:
        """The address for all receipts of a provider that has one for all messages. It is a secret.

        Raises:
            UnknownProvider: the configuration has none of this name.
            NoFixedAddress: it reports nothing over HTTP, or has no address that it could reach.
            NoConfiguration: there is none yet.
        """
        declared = self._configurations.current.providers.get(provider)
        if declared is None:
            raise UnknownProvider
        if self._types.of(declared.type).webhooks is None:
            raise NoFixedAddress(
                "Providers of this type report no receipts over HTTP, so they need no address."
            )
        url = self.receipt_url(provider, self._tokens.token_of_provider(provider))
        if url is None:
            raise NoFixedAddress(
                "The address under which providers reach this API is not known: set "
                "SMSGATEWAY_PUBLIC_URL in every process."
            )
        return url

    def receipt_address(self, provider: str, token: str) -> ReceiptAddress:
        """Whom an address belongs to; `token` names an attempt, or is the provider's own.

        Raises:
            UnknownAddress: there is no such provider, it reports nothing over HTTP, or the token is
                not one of ours.
            SecretUnavailable: a secret of the provider cannot be read here.
            NoConfiguration: there is none yet.
        """
        part = self._tokens.read(token)
        if part is None and not self._tokens.is_of_provider(token, provider):
            raise UnknownAddress
        declared = self._configurations.current.providers.get(provider)
        webhooks = None if declared is None else self._webhooks(provider, declared)
        if webhooks is None:
            raise UnknownAddress
        return ReceiptAddress(webhooks, part)

    def _webhooks(
        self, provider: str, declared: ProviderConfiguration
    ) -> ProviderWebhooks[Any] | None:
        made = self._made.get(provider)
        if made is not None and made[0] is declared:
            return made[1]
        try:
            webhooks = self._types.webhooks(provider, declared, self._allowed)
        except SecretMissing as error:
            _log.warning(
                "receipt_secret_unusable", provider=provider, error_type=type(error).__name__
            )
            raise SecretUnavailable from None
        if webhooks is not None:
            self._made[provider] = declared, webhooks
        return webhooks

    async def take_receipts(
        self, address: ReceiptAddress, request: WebhookRequest
    ) -> WebhookResponse:
        """Commit the receipts of a request; what the provider is to be answered with.

        A request that cannot be read is kept as it came, and parsed again after a fix.

        Raises:
            UnknownAddress: the provider does not report by this method.
            WebhookForged: the provider has not sent it.
            ReportNotStored: the provider has to send it again.
        """
        provider = address.provider
        if request.method not in address.webhooks.methods:
            raise UnknownAddress
        try:
            address.webhooks.verify(request)
            receipts = address.webhooks.receipts(request, address.part)
        except WebhookForged as error:
            metrics.webhook_came(provider=provider, outcome="forged")
            _log.warning("webhook_forged", provider=provider, reason=error.reason)
            raise
        except UnreadableWebhook as error:
            # The whole request is kept: those that could be read are copies when it is parsed again.
            await self._store(provider, error.receipts)
            await self._keep(provider, address.webhooks.kept(request))
            outcome = "unparsed"
        else:
            await self._store(provider, receipts)
            outcome = "stored" if receipts else "ignored"
        metrics.webhook_came(provider=provider, outcome=outcome)
        return address.webhooks.response()

    async def _keep(self, provider: str, frame: bytes) -> None:
        reason = UnparsedReason.MALFORMED_REQUEST
        try:
            await self._unparsed.store(UnparsedReceipt(provider, reason, frame))
        except Exception as error:
            self._log_not_stored(provider, error)
            raise ReportNotStored from error
        metrics.receipt_not_parsed(provider=provider, reason=reason)
        _log.warning("receipt_not_parsed", provider=provider, reason=reason)

    async def _store(self, provider: str, receipts: Sequence[ReceivedReceipt]) -> None:
        stored: list[BaseException | None] = []
        for first in range(0, len(receipts), _AT_ONCE):
            some = receipts[first : first + _AT_ONCE]
            stored += await asyncio.gather(*map(self._intake.take, some), return_exceptions=True)
        for result in stored:
            # One that can never be stored must not keep the provider from sending the others.
            if isinstance(result, ReceiptRefused):
                self._log_not_stored(provider, result)
        failed = [
            each
            for each in stored
            if isinstance(each, BaseException) and not isinstance(each, ReceiptRefused)
        ]
        if failed:
            metrics.webhook_came(provider=provider, outcome="not_stored")
            self._log_not_stored(provider, failed[0])
            raise ReportNotStored from failed[0]

    def _log_not_stored(self, provider: str, error: BaseException) -> None:
        _log.error("receipt_not_recorded", provider=provider, error_type=type(error).__name__)

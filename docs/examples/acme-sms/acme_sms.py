"""An adapter for the HTTP API of Acme, a vendor that does not exist; docs/adapters.md explains it.

Acme takes `POST /v1/messages` with a bearer token and JSON, and answers 201 with the message's id, its
segments and its price, or an error with a code. It reports to the address in `callback`, as JSON that is
signed with HMAC-SHA-256 over the raw body. `GET /v1/messages/ID` returns the status of a message.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import Field

from domain.configuration.durations import Duration
from domain.configuration.providers.base import ProviderSecret
from domain.configuration.providers.http import HttpConfiguration, checked_token
from domain.configuration.secret_references import SecretReference
from domain.error_classes import ErrorClass
from domain.outcomes import OutcomeKind, PartOutcome
from domain.provider_codes import ProviderCode
from domain.receipts import ReceiptState
from domain.segments import UnsendableText
from providers.http import HttpProvider
from providers.json_values import as_price, as_segments, as_text
from providers.registry import ProviderType
from providers.webhooks import (
    ForgedReason,
    ProviderWebhooks,
    UnreadableWebhook,
    WebhookForged,
    receipt_of,
    same_secret,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from domain.receipts import PartIdentity
    from providers.base import Outbound, ReceivedReceipt
    from providers.http import HttpResponse
    from providers.webhooks import WebhookRequest

LONGEST_TEXT = 1000
"""Characters."""

# What a code is worth decides what happens next; the phrase is for people.
CODES: Mapping[str, ProviderCode] = {
    "E101": ProviderCode("the number is not in use", ErrorClass.INVALID_RECIPIENT),
    "E102": ProviderCode("the sender is not registered", ErrorClass.UNREGISTERED_SENDER),
    "E110": ProviderCode("the phone cannot be reached", ErrorClass.UNDELIVERED),
    "E120": ProviderCode("the recipient has opted out", ErrorClass.OPTED_OUT),
    "E200": ProviderCode("the account has no credit left", ErrorClass.ACCOUNT),
    "E300": ProviderCode("too many requests", ErrorClass.THROTTLED),
    # A final status that says neither yes nor no.
    "E400": ProviderCode(
        "the network does not report on it", ErrorClass.UNKNOWN, ReceiptState.UNKNOWN
    ),
}

STATES: Mapping[str, ReceiptState] = {
    "queued": ReceiptState.ACCEPTED,
    "sent": ReceiptState.ENROUTE,
    "delivered": ReceiptState.DELIVERED,
    "undelivered": ReceiptState.UNDELIVERABLE,
    "rejected": ReceiptState.REJECTED,
    "expired": ReceiptState.EXPIRED,
}


class AcmeConfiguration(HttpConfiguration):
    """One account at Acme."""

    type: Literal["acme"]
    token: SecretReference
    webhook_secret: SecretReference
    poll_after: Duration | None = Field(timedelta(minutes=10))

    def codes(self) -> Mapping[str, ProviderCode]:
        return CODES

    def known_parameters(self) -> frozenset[str]:
        return frozenset({"campaign"})

    def secrets(self) -> Sequence[ProviderSecret]:
        return [
            ProviderSecret("token", self.token, is_literal=False, check=checked_token),
            ProviderSecret(
                "webhook_secret", self.webhook_secret, is_literal=False, check=checked_token
            ),
        ]


class AcmeProvider(HttpProvider[AcmeConfiguration]):
    """Sends through Acme, which sends a repeated request twice: so none is repeated."""

    def _authorization(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self._secrets['token']}"}

    def _request(self, outbound: Outbound) -> httpx.Request:
        if len(outbound.text) > LONGEST_TEXT:
            raise UnsendableText(f"Acme takes at most {LONGEST_TEXT} characters")
        fields = {"to": outbound.recipient, "from": outbound.sender, "text": outbound.text}
        receipt_url = self.receipt_url(outbound)
        if receipt_url is not None:
            fields["callback"] = receipt_url
        validity = self.validity(outbound)
        if validity is not None:
            fields["ttl"] = str(max(1, int(validity.total_seconds())))
        if "campaign" in outbound.parameters:
            fields["campaign"] = outbound.parameters["campaign"]
        return self._build_request("POST", "/v1/messages", json=fields)

    def _outcome(self, number: int, response: HttpResponse) -> PartOutcome:
        body = response.json_object()
        message_id = as_text(body.get("id"))
        if response.is_success and message_id:
            return PartOutcome(
                number,
                OutcomeKind.ACCEPTED,
                provider_message_id=message_id,
                segments=as_segments(body.get("segments")),
                price=as_price(body.get("price"), body.get("currency")),
            )
        if response.is_success:  # the message was taken, and its id is lost
            return self._refused(number, "", response, otherwise=ErrorClass.UNKNOWN)
        return self._refused(number, as_text(body.get("error")), response)

    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        del sender
        request = self._build_request("GET", f"/v1/messages/{quote(provider_message_id, safe='')}")
        response = await self._ask(request)
        if response is None or not response.is_success:
            return None
        body = response.json_object()
        status = as_text(body.get("status"))
        return _receipt(self.name, self._configuration, body, None) if status else None


class AcmeWebhooks(ProviderWebhooks[AcmeConfiguration]):
    """Acme's reports: `x-acme-signature` is the HMAC-SHA-256 of the raw body, in hexadecimal digits."""

    def verify(self, request: WebhookRequest) -> None:
        given = request.headers.get("x-acme-signature", "")
        if not given:
            raise WebhookForged(ForgedReason.UNSIGNED)
        secret = self._secrets["webhook_secret"].encode()
        if not same_secret(given, hmac.digest(secret, request.body, hashlib.sha256).hex()):
            raise WebhookForged(ForgedReason.BAD_SIGNATURE)

    def receipts(
        self, request: WebhookRequest, part: PartIdentity | None
    ) -> Sequence[ReceivedReceipt]:
        body = request.json()
        if not isinstance(body, dict) or not as_text(body.get("status")):
            raise UnreadableWebhook
        return [_receipt(self.name, self._configuration, body, part)]


def _receipt(
    name: str,
    configuration: AcmeConfiguration,
    body: Mapping[str, Any],
    part: PartIdentity | None,
) -> ReceivedReceipt:
    """A receipt from a report or from a query; a status that is new is ENROUTE, never a failure."""
    return receipt_of(
        name,
        configuration,
        provider_message_id=as_text(body.get("id")),
        state=STATES.get(as_text(body.get("status")), ReceiptState.ENROUTE),
        code=as_text(body.get("code")),
        part=part,
    )


ACME = ProviderType(AcmeConfiguration, AcmeProvider, webhooks=AcmeWebhooks)

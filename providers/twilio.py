"""Twilio's Messages API (2010-04-01): messages out, status callbacks in.

twilio.com/docs: messaging/api/message-resource, usage/webhooks/webhooks-security.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from domain.configuration.providers.twilio import PARAMETERS, TwilioConfiguration
from domain.error_classes import ErrorClass
from domain.outcomes import OutcomeKind, PartOutcome
from domain.receipts import ReceiptState
from domain.segments import UnsendableText
from providers.http import HttpProvider, basic
from providers.json_values import as_price, as_segments, as_text
from providers.webhooks import (
    ForgedReason,
    ProviderWebhooks,
    UnreadableWebhook,
    WebhookForged,
    receipt_of,
    same_secret,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import httpx

    from domain.receipts import PartIdentity
    from providers.base import Outbound, ReceivedReceipt
    from providers.http import HttpResponse
    from providers.webhooks import WebhookRequest

_LONGEST_TEXT: Final = 1600
_LONGEST_VALIDITY: Final = 36_000
"""Seconds (ValidityPeriod)."""

# How often, and after what, a status callback is tried again: connection overrides, a fragment that
# Twilio neither sends nor signs. By default it is only once, and only if no connection was made.
_CALLBACK_RETRIES: Final = "#rc=5&rp=all"

STATES: Final[Mapping[str, ReceiptState]] = MappingProxyType(
    {
        "accepted": ReceiptState.ACCEPTED,
        "scheduled": ReceiptState.ACCEPTED,
        "queued": ReceiptState.ACCEPTED,
        "sending": ReceiptState.ENROUTE,
        "sent": ReceiptState.ENROUTE,
        "partially_delivered": ReceiptState.ENROUTE,
        "delivered": ReceiptState.DELIVERED,
        "read": ReceiptState.DELIVERED,
        "undelivered": ReceiptState.UNDELIVERABLE,
        "failed": ReceiptState.REJECTED,
        "canceled": ReceiptState.DELETED,
    }
)
"""MessageStatus; a word that is not here is ENROUTE, never a failure."""


class TwilioProvider(HttpProvider[TwilioConfiguration]):
    """An account at Twilio. A message that may have been sent is not repeated: Twilio would send it twice."""

    @property
    def _path(self) -> str:
        return f"/2010-04-01/Accounts/{self._configuration.account_sid}/Messages"

    def _authorization(self) -> Mapping[str, str]:
        declared = self._configuration
        if declared.api_key_sid is not None:
            return basic(declared.api_key_sid, self._secrets["api_key_secret"])
        return basic(declared.account_sid, self._secrets["auth_token"])

    def _request(self, outbound: Outbound) -> httpx.Request:
        declared = self._configuration
        if len(outbound.text) > _LONGEST_TEXT:
            raise UnsendableText(f"Twilio takes at most {_LONGEST_TEXT} characters")
        fields = {"To": outbound.recipient, "From": outbound.sender, "Body": outbound.text}
        if declared.messaging_service is not None:
            fields["MessagingServiceSid"] = declared.messaging_service
        if declared.smart_encoded:
            fields["SmartEncoded"] = "true"
        fields |= {name: outbound.parameters[name] for name in PARAMETERS & {*outbound.parameters}}
        receipt_url = self.receipt_url(outbound)
        if receipt_url is not None:
            fields["StatusCallback"] = receipt_url + _CALLBACK_RETRIES
        validity = self.validity(outbound)
        if validity is not None:
            seconds = int(validity.total_seconds())
            fields["ValidityPeriod"] = str(min(max(1, seconds), _LONGEST_VALIDITY))
        return self._build_request("POST", f"{self._path}.json", data=fields)

    def _outcome(self, number: int, response: HttpResponse) -> PartOutcome:
        body = response.json_object()
        sid = as_text(body.get("sid"))
        if response.is_success and sid:
            return PartOutcome(
                number,
                OutcomeKind.ACCEPTED,
                provider_message_id=sid,
                segments=as_segments(body.get("num_segments")),
                price=as_price(body.get("price"), body.get("price_unit")),
            )
        if response.is_success:  # the message was taken, and its id is lost
            return self._refused(number, "", response, otherwise=ErrorClass.UNKNOWN)
        return self._refused(number, as_text(body.get("code")), response)

    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        del sender
        response = await self._ask(
            self._build_request("GET", f"{self._path}/{quote(provider_message_id, safe='')}.json")
        )
        body = {} if response is None or not response.is_success else response.json_object()
        status = as_text(body.get("status"))
        if not status:
            return None
        return receipt_of(
            self.name,
            self._configuration,
            provider_message_id=provider_message_id,
            state=_state(status),
            code=as_text(body.get("error_code")),
        )


class TwilioWebhooks(ProviderWebhooks[TwilioConfiguration]):
    """Status callbacks of Twilio, signed with the auth token, or with a shared key."""

    def verify(self, request: WebhookRequest) -> None:
        signature = request.headers.get("x-twilio-signature", "")
        if not signature:
            raise WebhookForged(ForgedReason.UNSIGNED)
        keys, digest = self._keys(request)
        signed = _signed_parameters(request)
        expected = (
            b64encode(hmac.digest(key.encode(), (url + signed).encode(), digest)).decode()
            for url in _with_and_without_port(request.url)
            for key in keys
        )
        if not same_secret(signature, *expected):
            raise WebhookForged(ForgedReason.BAD_SIGNATURE)

    def _keys(self, request: WebhookRequest) -> tuple[Sequence[str], Callable[[], Any]]:
        """The keys that may have signed a request, and the hash."""
        settings = request.headers.get("x-twilio-webhooks-signature-settings")
        if settings is None:
            names = ("auth_token", "previous_auth_token")
            return [self._secrets[name] for name in names if name in self._secrets], hashlib.sha1
        given = dict(pair.strip().partition("=")[::2] for pair in settings.split(","))
        key = self._secrets.get("shared_key")
        if given.get("algorithm") != "HMAC_SHA256" or key is None:
            raise WebhookForged(ForgedReason.BAD_SIGNATURE)
        return [key], hashlib.sha256

    def receipts(
        self, request: WebhookRequest, part: PartIdentity | None
    ) -> Sequence[ReceivedReceipt]:
        fields = dict(request.form())
        status, sid = fields.get("MessageStatus"), fields.get("MessageSid")
        if not status or not sid:
            raise UnreadableWebhook
        # No time: RawDlrDoneDate has no zone, and differs by carrier.
        return [
            receipt_of(
                self.name,
                self._configuration,
                provider_message_id=sid,
                state=_state(status),
                code=fields.get("ErrorCode", ""),
                part=part,
                sender=fields.get("From"),
                recipient=fields.get("To"),
            )
        ]


def _state(status: str) -> ReceiptState:
    return STATES.get(status.lower(), ReceiptState.ENROUTE)


def _signed_parameters(request: WebhookRequest) -> str:
    """What is signed after the address: the fields of a form by name, each different value once, sorted.

    A JSON body is signed by its hash, which stands in the address as `bodySHA256`.

    Raises:
        WebhookForged: the body is not what was signed.
    """
    if not request.body:
        return ""
    hashes = parse_qs(urlsplit(request.url).query).get("bodySHA256")
    if hashes:
        if not same_secret(hashlib.sha256(request.body).hexdigest(), hashes[0].lower()):
            raise WebhookForged(ForgedReason.BODY_CHANGED)
        return ""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise WebhookForged(ForgedReason.BODY_CHANGED)
    try:
        pairs = sorted(set(request.form()))
    except UnreadableWebhook:
        raise WebhookForged(ForgedReason.BODY_CHANGED) from None
    return "".join(name + value for name, value in pairs)


def _with_and_without_port(url: str) -> Iterator[str]:
    """The address as it is, with the scheme's port added, and without a port: each may have been signed."""
    scheme, _, rest = url.partition("://")
    authority, slash, target = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        host = authority
    yield url
    yield f"{scheme}://{host}{slash}{target}"
    if host == authority:
        yield f"{scheme}://{host}:{443 if scheme == 'https' else 80}{slash}{target}"

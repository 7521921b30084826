"""Telnyx's API v2: messages out, events of sent messages in.

developers.telnyx.com: docs/messaging/messages/send-message, docs/messaging/messages/receiving-webhooks,
docs/development/api-fundamentals/idempotency.
"""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from domain.configuration.providers.telnyx import TelnyxConfiguration, public_key_octets
from domain.error_classes import ErrorClass
from domain.outcomes import OutcomeKind, PartOutcome
from domain.provider_codes.telnyx import KEY_IN_USE
from domain.receipts import FAILURES, ReceiptState
from domain.senders import SenderKind, parse_sender
from providers.http import HttpProvider
from providers.json_values import as_object, as_objects, as_price, as_segments, as_text, as_time
from providers.webhooks import (
    ForgedReason,
    ProviderWebhooks,
    UnreadableWebhook,
    WebhookForged,
    receipt_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from domain.receipts import PartIdentity
    from providers.base import Outbound, ReceivedReceipt
    from providers.http import HttpResponse
    from providers.webhooks import WebhookRequest

_PATH: Final = "/v2/messages"
_UNPROCESSABLE: Final = 422
_RESET: Final = re.compile("[0-9]{1,3}")
"""Seconds of an `x-ratelimit-reset`; a larger number has another unit."""

_TIMESTAMP: Final = re.compile("[1-9][0-9]{0,11}")
_TOLERANCE: Final = 300
"""Seconds by which the time of a signature may differ from ours, in either direction."""

_EVENTS: Final = frozenset({"message.sent", "message.finalized"})
"""Those that report on a message that was sent."""

STATES: Final[Mapping[str, ReceiptState]] = MappingProxyType(
    {
        "scheduled": ReceiptState.ACCEPTED,
        "queued": ReceiptState.ACCEPTED,
        "sending": ReceiptState.ENROUTE,
        "sent": ReceiptState.ENROUTE,
        "delivered": ReceiptState.DELIVERED,
        "read": ReceiptState.DELIVERED,
        "delivery_failed": ReceiptState.UNDELIVERABLE,
        "delivery_unconfirmed": ReceiptState.UNKNOWN,
        "sending_failed": ReceiptState.REJECTED,
        "expired": ReceiptState.EXPIRED,
        "cancelled": ReceiptState.DELETED,
    }
)
"""`status` of a recipient; a word that is not here is ENROUTE, never a failure."""


class TelnyxProvider(HttpProvider[TelnyxConfiguration]):
    """An account at Telnyx, which sends a repeated request with the same `Idempotency-Key` only once."""

    repeats_are_safe: ClassVar[bool] = True

    def _authorization(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self._secrets['api_key']}"}

    def _request(self, outbound: Outbound) -> httpx.Request:
        declared = self._configuration
        fields = {
            "to": outbound.recipient,
            "from": outbound.sender,
            "text": outbound.text,
            "type": "SMS",
        }
        is_name = parse_sender(outbound.sender).kind is SenderKind.ALPHANUMERIC
        if is_name and declared.messaging_profile is not None:
            fields["messaging_profile_id"] = declared.messaging_profile
        if declared.encoding is not None:
            fields["encoding"] = declared.encoding
        receipt_url = self.receipt_url(outbound)
        if receipt_url is not None:
            fields["webhook_url"] = receipt_url
        request = self._build_request("POST", _PATH, json=fields)
        # The number of the part is always 1: Telnyx splits the text.
        request.headers["idempotency-key"] = f"{outbound.message_id}:{outbound.attempt}:1"
        return request

    def _outcome(self, number: int, response: HttpResponse) -> PartOutcome:
        body = response.json_object()
        message = as_object(body.get("data"))
        message_id = as_text(message.get("id"))
        if response.is_success and message_id:
            cost = as_object(message.get("cost"))
            return PartOutcome(
                number,
                OutcomeKind.ACCEPTED,
                provider_message_id=message_id,
                segments=as_segments(message.get("parts")),
                price=as_price(cost.get("amount"), cost.get("currency")),
            )
        errors = as_objects(body.get("errors"))
        if response.is_success:  # the message was taken, and its id is lost
            return self._refused(number, "", response, otherwise=ErrorClass.UNKNOWN)
        if response.status == _UNPROCESSABLE and any(map(_is_about_key, errors)):
            return self._refused(number, KEY_IN_USE, response)
        error = _deciding(errors, self._configuration)
        return self._of_error(number, error, response)

    def _of_error(
        self, number: int, error: Mapping[str, Any], response: HttpResponse
    ) -> PartOutcome:
        code = as_text(error.get("code"))
        outcome = self._refused(number, code, response)
        if outcome.kind is OutcomeKind.THROTTLED and outcome.after is None:
            return replace(outcome, after=_reset(response))
        # Some codes are about a number, and `source` says which one.
        is_of_sender = as_text(as_object(error.get("source")).get("pointer")) == "/from"
        if (
            is_of_sender
            and outcome.error_class is ErrorClass.INVALID_RECIPIENT
            and code not in self._configuration.errors
        ):
            return replace(outcome, error_class=ErrorClass.ROUTE)
        return outcome

    def _settled(self, first: PartOutcome, repeated: PartOutcome) -> PartOutcome:
        # Telnyx keeps the key of an accepted message. The receipt, whose address names the attempt,
        # brings the id. If the first response was about the key as well, nothing was lost.
        if repeated.code == KEY_IN_USE != first.code:
            return PartOutcome(first.number, OutcomeKind.ACCEPTED)
        return super()._settled(first, repeated)

    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        del sender
        path = f"{_PATH}/{quote(provider_message_id, safe='')}"
        response = await self._ask(self._build_request("GET", path))
        body = {} if response is None or not response.is_success else response.json_object()
        message = as_object(body.get("data"))
        status = _status(message)
        if not status:
            return None
        state = _state(status)
        return receipt_of(
            self.name,
            self._configuration,
            provider_message_id=provider_message_id,
            state=state,
            code=_code(message, state, self._configuration),
            done_at=as_time(message.get("completed_at")),
        )


class TelnyxWebhooks(ProviderWebhooks[TelnyxConfiguration]):
    """Events of Telnyx, signed with the account's Ed25519 key over their time and body."""

    def verify(self, request: WebhookRequest) -> None:
        signature = request.headers.get("telnyx-signature-ed25519", "")
        timestamp = request.headers.get("telnyx-timestamp", "")
        if not signature or not timestamp:
            raise WebhookForged(ForgedReason.UNSIGNED)
        if not _TIMESTAMP.fullmatch(timestamp):
            raise WebhookForged(ForgedReason.BAD_SIGNATURE)
        key = Ed25519PublicKey.from_public_bytes(public_key_octets(self._configuration.public_key))
        signed = timestamp.encode() + b"|" + request.body
        try:
            key.verify(b64decode(signature, validate=True), signed)
        except (InvalidSignature, ValueError):
            raise WebhookForged(ForgedReason.BAD_SIGNATURE) from None
        if abs(int(request.at.timestamp()) - int(timestamp)) > _TOLERANCE:
            raise WebhookForged(ForgedReason.TOO_OLD)

    def receipts(
        self, request: WebhookRequest, part: PartIdentity | None
    ) -> Sequence[ReceivedReceipt]:
        event = as_object(as_object(request.json()).get("data"))
        kind = as_text(event.get("event_type"))
        if not kind:
            raise UnreadableWebhook
        if kind not in _EVENTS:
            return []
        message = as_object(event.get("payload"))
        message_id, status = as_text(message.get("id")), _status(message)
        if not message_id or not status:
            raise UnreadableWebhook
        state = _state(status)
        return [
            receipt_of(
                self.name,
                self._configuration,
                provider_message_id=message_id,
                state=state,
                code=_code(message, state, self._configuration),
                part=part,
                sender=as_text(as_object(message.get("from")).get("phone_number")) or None,
                recipient=as_text(_recipient(message).get("phone_number")) or None,
                done_at=as_time(event.get("occurred_at")),
            )
        ]


def _recipient(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a message says of its recipient, the only one."""
    return next(iter(as_objects(message.get("to"))), {})


def _status(message: Mapping[str, Any]) -> str:
    return as_text(_recipient(message).get("status"))


def _state(status: str) -> ReceiptState:
    return STATES.get(status.lower(), ReceiptState.ENROUTE)


def _code(message: Mapping[str, Any], state: ReceiptState, declared: TelnyxConfiguration) -> str:
    """The code of a failure; empty for another state, which no error of an earlier try changes."""
    if state not in FAILURES:
        return ""
    return as_text(_deciding(as_objects(message.get("errors")), declared).get("code"))


def _deciding(
    errors: Sequence[Mapping[str, Any]], declared: TelnyxConfiguration
) -> Mapping[str, Any]:
    """The first error with a known code, else the first one; empty if there is none."""
    known = {*declared.codes(), *declared.errors}
    found = [each for each in errors if as_text(each.get("code")) in known]
    return next(iter(found or errors), {})


def _is_about_key(error: Mapping[str, Any]) -> bool:
    """Whether an error is about the `Idempotency-Key`; no documented code says so."""
    source = as_object(error.get("source"))
    texts = (error.get("title"), error.get("detail"), source.get("pointer"), source.get("header"))
    return any("idempotency" in as_text(each).lower() for each in texts)


def _reset(response: HttpResponse) -> timedelta | None:
    """When Telnyx takes more requests: `x-ratelimit-reset`, in seconds; None if it does not say."""
    written = response.headers.get("x-ratelimit-reset", "").strip()
    if not _RESET.fullmatch(written):
        return None
    return timedelta(seconds=int(written))

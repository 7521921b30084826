"""Receipts of carriers that deliver them over HTTP.

The format is that of our own callbacks, so that one gateway can stand behind another.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Header, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.dependencies import Gateway
from api.fields import STORABLE, Moment, Word
from api.problems import raises, refusal
from api.routing import Endpoint
from domain.callbacks.signatures import (
    WEBHOOK_ID,
    WEBHOOK_SIGNATURE,
    WEBHOOK_TIMESTAMP,
    InvalidSecret,
    SignatureRefused,
    check_headers,
    check_secret,
    verify,
)
from domain.configuration import Configuration, ProviderConfiguration
from domain.receipts import LONGEST_CODE, LONGEST_ID, ReceiptState
from domain.secrets import AllowedSecrets
from providers.base import ReceivedReceipt
from services.assembly import Services
from services.configuration import NoConfiguration
from settings.secrets import SecretMissing, resolve_secret
from telemetry.logs import get_logger

_log = get_logger(__name__)

# --- authentication ----------------------------------------------------------------------------


class SignedEndpoint(Endpoint):
    """A route that lets a request through by its signature, before the body is parsed."""

    async def admit(self, request: Request) -> None:
        """Find the provider whose secret signed the request.

        Raises:
            SignatureRefused: there is none.
        """
        headers = {name: request.headers.get(name, "") for name in _SIGNATURE_HEADERS}
        now = datetime.now(UTC)
        check_headers(headers, now)
        gateway: Services = request.app.state.services
        secrets = _secrets(gateway.configurations.current, gateway.settings.allowed_secrets)
        body = await request.body()
        verify(secrets.values(), headers, body, now)
        request.state.provider = next(
            name for name, key in secrets.items() if _signs(key, headers, body, now)
        )


_SIGNATURE_HEADERS = (WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE)
router = APIRouter(prefix="/webhooks", tags=["receipts"], route_class=SignedEndpoint)


async def _provider(
    request: Request,
    _id: Annotated[
        str,
        Header(
            alias=WEBHOOK_ID,
            description="The same for each try of this receipt.",
            examples=["rcpt_8812"],
        ),
    ] = "",
    _timestamp: Annotated[
        str,
        Header(
            alias=WEBHOOK_TIMESTAMP,
            description="Seconds since 1970; within 300 s of now.",
            examples=["1795000000"],
        ),
    ] = "",
    _signature: Annotated[
        str,
        Header(
            alias=WEBHOOK_SIGNATURE,
            description="`v1,` and base64 of an HMAC-SHA256 (Standard Webhooks) with the "
            "provider's `receipt_secret`.",
            examples=["v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="],
        ),
    ] = "",
) -> str:
    """The provider whose secret signed the request; the headers are declared for the description."""
    provider: str = request.state.provider
    return provider


def _secrets(configuration: Configuration, allowed: AllowedSecrets) -> dict[str, str]:
    """The secrets that sign receipts, by provider; one that cannot be read signs nothing."""
    found: dict[str, str] = {}
    for name, provider in configuration.providers.items():
        if provider.receipt_secret is None:
            continue
        try:
            secret = resolve_secret(provider.receipt_secret, allowed).get_secret_value()
            check_secret(secret)
        except (SecretMissing, InvalidSecret) as error:
            _log.warning("receipt_secret_unusable", provider=name, error_type=type(error).__name__)
        else:
            found[name] = secret
    return found


def _signs(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> bool:
    try:
        verify((secret,), headers, body, now)
    except SignatureRefused:
        return False
    return True


Provider = Annotated[str, Depends(_provider)]

# --- responses ----------------------------------------------------------------------------------


class ReceiptStatus(StrEnum):
    """What has become of a message, in the words of carriers and of our own callbacks."""

    ACCEPTED = "ACCEPTED"
    SENT = "SENT"
    ENROUTE = "ENROUTE"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    UNDELIVERED = "UNDELIVERED"
    UNDELIVERABLE = "UNDELIVERABLE"
    DEAD_LETTER = "DEAD_LETTER"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    DELETED = "DELETED"


STATES: Final[Mapping[ReceiptStatus, ReceiptState]] = MappingProxyType(
    {
        ReceiptStatus.ACCEPTED: ReceiptState.ACCEPTED,
        ReceiptStatus.SENT: ReceiptState.ACCEPTED,
        ReceiptStatus.ENROUTE: ReceiptState.ENROUTE,
        ReceiptStatus.DELIVERED: ReceiptState.DELIVERED,
        ReceiptStatus.FAILED: ReceiptState.UNDELIVERABLE,
        ReceiptStatus.UNDELIVERED: ReceiptState.UNDELIVERABLE,
        ReceiptStatus.UNDELIVERABLE: ReceiptState.UNDELIVERABLE,
        # What a gateway behind us has set aside it may still replay: then DELIVERED corrects this.
        ReceiptStatus.DEAD_LETTER: ReceiptState.UNDELIVERABLE,
        ReceiptStatus.EXPIRED: ReceiptState.EXPIRED,
        ReceiptStatus.REJECTED: ReceiptState.REJECTED,
        ReceiptStatus.CANCELED: ReceiptState.DELETED,
        ReceiptStatus.DELETED: ReceiptState.DELETED,
    }
)


def _in_capitals(status: object) -> object:
    return status.upper() if isinstance(status, str) else status


class ReportedReceipt(BaseModel):
    """What has become of a message; fields that a carrier adds are passed over."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    message_id: Annotated[str, Field(min_length=1, max_length=LONGEST_ID), STORABLE] = Field(
        description="The provider's id of the part, or ours (`msg_…`)."
    )
    to: Word | None = Field(None, description="The recipient's number, E.164.")
    status: Annotated[ReceiptStatus, BeforeValidator(_in_capitals)]
    provider_code: Annotated[str, Field(max_length=LONGEST_CODE), STORABLE] = Field(
        "", description="The provider's own code, such as `000`."
    )
    timestamp: Moment | None = Field(None, description="When it came to that.")

    def received_from(self, provider: str, declared: ProviderConfiguration) -> ReceivedReceipt:
        """The receipt as the service takes it, with the id in the form that is compared."""
        return ReceivedReceipt(
            provider=provider,
            provider_message_id=declared.receipt_id(self.message_id),
            state=STATES[self.status],
            code=self.provider_code,
            network=None,
            reference=None,
            sender=None,
            recipient=self.to,
            done_at=self.timestamp,
        )


_DELIVERED = {
    "message_id": "7f3a9c",
    "to": "+447700900123",
    "status": "DELIVERED",
    "provider_code": "000",
    "timestamp": "2026-11-30T09:30:00Z",
}
EXAMPLES: dict[str, Any] = {
    "delivered": {"summary": "Delivered", "value": _DELIVERED},
    "failed": {
        "summary": "Failed",
        "value": _DELIVERED | {"status": "FAILED", "provider_code": "0x000000ff"},
    },
    "unknown-word": {
        "summary": "Refused: a status that nobody knows",
        "value": _DELIVERED | {"status": "VANISHED"},
    },
}


@router.post(
    "/sms-delivery",
    operation_id="receive_receipt",
    status_code=204,
    summary="Report the status of a message",
    response_description="The receipt is committed; the same one again does no harm.",
    responses=raises(
        SignatureRefused,
        NoConfiguration,
        examples={
            "unknown-word": refusal(
                "status", "unknown_value", f"It is one of: {', '.join(ReceiptStatus)}."
            )
        },
    ),
)
async def delivery(
    provider: Provider,
    receipt: Annotated[ReportedReceipt, Body(openapi_examples=EXAMPLES)],
    gateway: Gateway,
) -> None:
    """Take the receipt of a carrier, or of another gateway, that delivers it over HTTP."""
    declared = gateway.configurations.current.providers[provider]
    await gateway.receipts.take_reported(receipt.received_from(provider, declared))

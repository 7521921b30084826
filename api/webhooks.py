"""What others tell the gateway: receipts of carriers that deliver them over HTTP.

The format is that of our own callbacks, so that one gateway can stand behind another.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request

from api.dependencies import Gateway
from api.routing import Endpoint
from domain.callbacks import (
    WEBHOOK_ID,
    WEBHOOK_SIGNATURE,
    WEBHOOK_TIMESTAMP,
    InvalidSecret,
    SignatureRefused,
    verify,
)
from domain.configuration import Configuration
from settings.secrets import SecretMissing, resolve_secret
from telemetry.logs import get_logger

router = APIRouter(prefix="/webhooks", tags=["receipts"], route_class=Endpoint)
_log = get_logger(__name__)

# --- who tells it ------------------------------------------------------------------------------


async def _provider(
    request: Request,
    gateway: Gateway,
    webhook_id: Annotated[
        str, Header(description="The same for each try of this receipt.", examples=["rcpt_8812"])
    ] = "",
    webhook_timestamp: Annotated[
        str, Header(description="Seconds since 1970; within 300 s of now.", examples=["1795000000"])
    ] = "",
    webhook_signature: Annotated[
        str,
        Header(
            description="`v1,` and base64 of an HMAC-SHA256 (Standard Webhooks) with the "
            "provider's `receipt_secret`.",
            examples=["v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="],
        ),
    ] = "",
) -> str:
    """The provider whose secret signed the request."""
    headers = {
        WEBHOOK_ID: webhook_id,
        WEBHOOK_TIMESTAMP: webhook_timestamp,
        WEBHOOK_SIGNATURE: webhook_signature,
    }
    secrets = _secrets(gateway.configurations.current)
    body, now = await request.body(), datetime.now(UTC)
    verify(secrets.values(), headers, body, now)
    return next(name for name, key in secrets.items() if _signs(key, headers, body, now))


def _secrets(configuration: Configuration) -> dict[str, str]:
    """The secrets that sign receipts, by provider; one that cannot be read signs nothing."""
    found: dict[str, str] = {}
    for name, provider in configuration.providers.items():
        if provider.receipt_secret is None:
            continue
        try:
            secret = resolve_secret(provider.receipt_secret).get_secret_value()
            _signs(secret, {}, b"", datetime.now(UTC))
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

# --- what is told ------------------------------------------------------------------------------


class Word_(StrEnum):
    """placeholder"""

"""Whether a request is the provider's, as its configuration declares it: credentials, a header, or an HMAC."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final

from domain.configuration.providers.declared.credentials import (
    DigestForm,
    Signature,
    SignatureType,
    written_hmac,
)
from domain.configuration.providers.declared.templates import SECRET, Placeholder, parse_template
from providers.webhooks import ForgedReason, WebhookForged, same_secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from providers.webhooks import WebhookRequest

_MILLISECONDS_FROM: Final = 100_000_000_000
"""A time of at least so much is in milliseconds: in seconds it would be in the year 5138."""
_LONGEST_TIME: Final = 16


class SignatureVerifier:
    """Verifies the requests of a provider. `secrets` are by their names in the configuration."""

    def __init__(self, declared: Signature, secrets: Mapping[str, str]) -> None:
        self._declared = declared
        self._secrets = secrets

    def verify(self, request: WebhookRequest) -> None:
        """Check that the provider has sent a request.

        Raises:
            WebhookForged: it has not.
        """
        declared = self._declared
        match declared.type:
            case SignatureType.NONE:
                return
            case SignatureType.BASIC:
                self._check_basic(request)
            case SignatureType.HEADER:
                given = _header(request, declared.header)
                if not same_secret(given, self._filled(declared.value)):
                    raise WebhookForged(ForgedReason.BAD_SIGNATURE)
            case SignatureType.HMAC:
                self._check_hmac(request)

    def _check_basic(self, request: WebhookRequest) -> None:
        kind, _, given = _header(request, "authorization").partition(" ")
        pair = f"{self._filled(self._declared.user)}:{self._filled(self._declared.password)}"
        expected = b64encode(pair.encode()).decode()
        if not same_secret(given.strip(), expected) or kind.lower() != "basic":
            raise WebhookForged(ForgedReason.BAD_SIGNATURE)

    def _check_hmac(self, request: WebhookRequest) -> None:
        declared = self._declared
        given, timestamp = _header(request, declared.header), ""
        if declared.timestamp_header is not None:
            timestamp = _header(request, declared.timestamp_header)
        signed = declared.signed_octets(timestamp, request.body)
        expected = declared.prefix + written_hmac(
            self._filled(declared.secret), signed, declared.hash, declared.encoding
        )
        if declared.encoding is DigestForm.HEX:  # which some write in capitals
            given, expected = given.lower(), expected.lower()
        if not same_secret(given, expected):
            raise WebhookForged(ForgedReason.BAD_SIGNATURE)
        if declared.timestamp_header is not None:
            self._check_time(timestamp, request.at)

    def _check_time(self, timestamp: str, at: datetime) -> None:
        is_number = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _LONGEST_TIME
        number = int(timestamp) if is_number else 0
        seconds = number / 1000 if number >= _MILLISECONDS_FROM else number
        if abs(at.timestamp() - seconds) > self._declared.tolerance.total_seconds():
            raise WebhookForged(ForgedReason.TOO_OLD)

    def _filled(self, template: str | None) -> str:
        return parse_template(template or "").fill(self._secret) or ""

    def _secret(self, placeholder: Placeholder) -> str | None:
        return self._secrets[placeholder.argument] if placeholder.name == SECRET else None


def _header(request: WebhookRequest, name: str | None) -> str:
    """A header of a request.

    Raises:
        WebhookForged: it is missing.
    """
    found = request.headers.get((name or "").lower(), "")
    if not found:
        raise WebhookForged(ForgedReason.UNSIGNED)
    return found

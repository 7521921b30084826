"""Signatures of callbacks and of receipts over HTTP (Standard Webhooks 1.0.0)."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

WEBHOOK_ID: Final = "webhook-id"
WEBHOOK_TIMESTAMP: Final = "webhook-timestamp"
WEBHOOK_SIGNATURE: Final = "webhook-signature"

TOLERANCE: Final = timedelta(minutes=5)
"""How far a signature's time may be from ours: what bounds a replay by whoever overheard it."""

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the scheme's prefix, not a secret
SECRET_BYTES: Final = range(24, 65)
"""Sizes of a secret's key (Standard Webhooks, "Signature scheme")."""


class InvalidSecret(ValueError):
    """A text that is no signing secret; the sentence does not repeat it."""


class SignatureRefused(Exception):
    """A webhook that was not signed by whoever holds the secret, or not just now."""


def secret_of(key: bytes) -> str:
    """A signing secret as it is shown, from 24 to 64 random bytes."""
    if len(key) not in SECRET_BYTES:
        raise InvalidSecret("a signing secret is made of 24 to 64 bytes")
    return _SECRET_PREFIX + base64.b64encode(key).decode()


def _key_of(secret: str) -> bytes:
    encoded = secret.removeprefix(_SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in SECRET_BYTES:
        raise InvalidSecret('a signing secret is "whsec_" and base64 of 24 to 64 bytes')
    return key


def check_secret(secret: str) -> None:
    """Refuse a text that is no signing secret.

    Raises:
        InvalidSecret: the sentence does not repeat it.
    """
    _key_of(secret)


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One signature, as it stands in `webhook-signature`: "v1," and base64 of an HMAC-SHA256.

    Args:
        secret: "whsec_…".
        webhook_id: what `webhook-id` carries.
        timestamp: what `webhook-timestamp` carries, seconds since 1970.
        body: the very bytes that are sent.

    Raises:
        InvalidSecret: `secret` is not one.
    """
    return _signature(_key_of(secret), webhook_id, timestamp, body)


def _signature(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signed_headers(secret: str, webhook_id: str, at: datetime, body: bytes) -> Mapping[str, str]:
    """The three headers that make a request a Standard Webhook."""
    timestamp = int(at.timestamp())
    return {
        WEBHOOK_ID: webhook_id,
        WEBHOOK_TIMESTAMP: str(timestamp),
        WEBHOOK_SIGNATURE: sign(secret, webhook_id, timestamp, body),
    }


_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_MOST_SIGNATURES: Final = 20


def verify(
    secrets: Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    tolerance: timedelta = TOLERANCE,
) -> str:
    """The id of a webhook that holds: signed with one of the secrets, at about this time.

    Whoever must not act on a webhook twice remembers its id for at least twice the tolerance.

    Args:
        secrets: those in force; two while one is being replaced.
        headers: of the request, in any case.
        body: the very bytes that came.
        now: with a time zone.
        tolerance: how far the signature's time may be from `now`, either way.

    Raises:
        SignatureRefused: with a sentence for whoever sent it.
        InvalidSecret: one of the secrets is none, whatever was sent.
    """
    keys = [_key_of(secret) for secret in secrets]
    webhook_id, timestamp, signatures = check_headers(headers, now, tolerance)
    # Every pair is compared, so that the time taken does not reveal which one fits.
    expected = [_signature(key, webhook_id, timestamp, body).encode() for key in keys]
    matches = [
        hmac.compare_digest(ours, theirs.encode()) for ours in expected for theirs in signatures
    ]
    if not any(matches):
        raise SignatureRefused("no signature in webhook-signature fits the body and the secret")
    return webhook_id


def check_headers(
    headers: Mapping[str, str], now: datetime, tolerance: timedelta = TOLERANCE
) -> tuple[str, int, list[str]]:
    """Id, timestamp and signatures of a webhook, as far as they can be checked without its body.

    Raises:
        SignatureRefused: with a sentence for whoever sent it.
    """
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id = given.get(WEBHOOK_ID, "")
    timestamp = given.get(WEBHOOK_TIMESTAMP, "")
    signatures = given.get(WEBHOOK_SIGNATURE, "").split(" ", _MOST_SIGNATURES)[:_MOST_SIGNATURES]
    if not webhook_id or not timestamp or not any(signatures):
        raise SignatureRefused(
            "the headers webhook-id, webhook-timestamp and webhook-signature are required"
        )
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureRefused("webhook-timestamp is a number of seconds since 1970")
    age = now.timestamp() - int(timestamp)
    if abs(age) > tolerance.total_seconds():
        raise SignatureRefused(
            f"webhook-timestamp is more than {int(tolerance.total_seconds())} s from now: "
            "sign each try anew, and keep the clock right"
        )
    return webhook_id, int(timestamp), signatures

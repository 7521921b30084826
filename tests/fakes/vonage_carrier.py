"""Vonage's Messages API as documented: application tokens or Basic authentication, JSON, signed status webhooks."""

import hashlib
import json
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from domain.error_classes import ErrorClass
from domain.receipts import ReceiptState
from tests.fakes.carrier import (
    HttpCarrier,
    Refusal,
    Request,
    Response,
    Sent,
    WrongCredentials,
    number_of,
)

APPLICATION = "aaaaaaaa-bbbb-cccc-dddd-0123456789ab"
KEY = "a1b2c3d4"
SECRET = "made-up-api-secret-0f6b2d81"
SIGNATURE_SECRET = "made-up-signature-secret-41bed440e50454f31af31768"
ERRORS = "https://developer.vonage.com/api-errors"
_JSON = {"content-type": "application/json"}
_PROBLEM = {"content-type": "application/problem+json"}
_LONGEST_LIFETIME = 15 * 60
_WORDS = {
    ReceiptState.ENROUTE: "submitted",
    ReceiptState.DELIVERED: "delivered",
    ReceiptState.REJECTED: "rejected",
    ReceiptState.UNDELIVERABLE: "rejected",
    ReceiptState.EXPIRED: "rejected",
}
"""The error beside the status says which of them it is."""


def _made_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


PRIVATE_KEY = _made_key()
OTHER_PRIVATE_KEY = _made_key()


class VonageCarrier(HttpCarrier):
    """Requests are made in the name of an application."""

    type: ClassVar[str] = "vonage"
    refusal: ClassVar[Refusal] = Refusal("1170", ErrorClass.INVALID_RECIPIENT)
    failure: ClassVar[Refusal] = Refusal("1310", ErrorClass.LANDLINE)
    # The documentation of the Messages API names no Retry-After.
    gives_retry_after: ClassVar[bool] = False
    # The Messages API has no request for the status of a message.
    can_be_asked: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.references: dict[str, str] = {}
        """The `client_ref` of messages, by their ids."""

    def section(self) -> dict[str, Any]:
        return {
            "type": "vonage",
            "url": self.url,
            "private_network": True,
            "application_id": APPLICATION,
            "private_key": "env:SMSGATEWAY_SECRET_VONAGE_KEY",
            "signature_secret": "env:SMSGATEWAY_SECRET_VONAGE_SIGNATURE",
        }

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"private_key": pem(PRIVATE_KEY), "signature_secret": SIGNATURE_SECRET}

    @property
    def wrong_secrets(self) -> Mapping[str, str]:
        return {**self.secrets, "private_key": pem(OTHER_PRIVATE_KEY)}

    def read(self, request: Request) -> Sent:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        self.authorize(kind, given)
        assert (request.method, request.target) == ("POST", "/v1/messages")
        message = json.loads(request.body)
        assert (message["channel"], message["message_type"]) == ("sms", "text")
        assert message["to"].isdigit()
        assert not message["from"].startswith("+")
        assert len(message["text"]) <= 3200
        assert len(message["client_ref"]) <= 100
        assert 20 <= message.get("ttl", 20) <= 604_800
        sender, message_id = message["from"], self.next_id()
        self.references[message_id] = message["client_ref"]
        return Sent(
            id=message_id,
            to="+" + message["to"],
            sender=f"+{sender}" if sender.isdigit() and len(sender) > 8 else sender,
            text=message["text"],
            receipt_url=message.get("webhook_url"),
        )

    def authorize(self, kind: str, given: str) -> None:
        """Check the credentials of a request.

        Raises:
            WrongCredentials: they are not those of the application.
        """
        if kind != "Bearer":
            raise WrongCredentials
        try:
            claims = jwt.decode(
                given,
                PRIVATE_KEY.public_key(),
                algorithms=["RS256"],
                options={"require": ["application_id", "iat", "jti", "exp"]},
            )
        except jwt.InvalidTokenError:
            raise WrongCredentials from None
        lifetime = claims["exp"] - claims["iat"]
        if claims["application_id"] != APPLICATION or lifetime > _LONGEST_LIFETIME:
            raise WrongCredentials

    def accepted(self, sent: Sent) -> Response:
        return Response(202, json.dumps({"message_uuid": sent.id}).encode(), _JSON)

    def refused(self, code: str) -> Response:
        return problem(422, f"{ERRORS}/messages#{code}", "Invalid params")

    def throttled(self, seconds: int) -> Response:
        return problem(429, f"{ERRORS}/messages#1000", "Throttled")

    def unauthorized(self) -> Response:
        return problem(401, f"{ERRORS}#unauthorized", "You did not provide correct credentials.")

    def receipt(self, sent: Sent, state: ReceiptState, code: str) -> Request:
        assert sent.receipt_url is not None
        body: dict[str, Any] = {
            "message_uuid": sent.id,
            "to": sent.to.removeprefix("+"),
            "from": sent.sender.removeprefix("+"),
            "timestamp": "2026-11-28T12:00:00Z",
            "status": _WORDS[state],
            "client_ref": self.references[sent.id],
            "usage": {"currency": "EUR", "price": "0.0333"},
            "destination": {"network_code": "23410"},
            "sms": {"count_total": "2"},
            "channel": "sms",
        }
        if code:
            body["error"] = {
                "type": f"{ERRORS}/messages#{code}",
                "title": number_of(code),
                "detail": "…",
                "instance": "0123456789abcdef",
            }
        return signed(sent.receipt_url, json.dumps(body).encode())


class VonageKeyCarrier(VonageCarrier):
    """Requests are made with the account's API key."""

    def section(self) -> dict[str, Any]:
        section = super().section()
        del section["application_id"], section["private_key"]
        return section | {"api_key": KEY, "api_secret": "env:SMSGATEWAY_SECRET_VONAGE_SECRET"}

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"api_secret": SECRET, "signature_secret": SIGNATURE_SECRET}

    @property
    def wrong_secrets(self) -> Mapping[str, str]:
        return {**self.secrets, "api_secret": SECRET[::-1]}

    def authorize(self, kind: str, given: str) -> None:
        if kind != "Basic" or b64decode(given).decode() != f"{KEY}:{SECRET}":
            raise WrongCredentials


def problem(status: int, type_: str, title: str) -> Response:
    """An error of a request (RFC 7807)."""
    body = {"type": type_, "title": title, "detail": "…", "instance": "0123456789abcdef"}
    return Response(status, json.dumps(body).encode(), _PROBLEM)


def token(body: bytes, *, secret: str = SIGNATURE_SECRET, **claims: Any) -> str:
    """The token that Vonage puts beside a body; a claim of None is left out."""
    given = {
        "iat": int(datetime.now(UTC).timestamp()),
        "jti": str(uuid4()),
        "iss": "Vonage",
        "payload_hash": hashlib.sha256(body).hexdigest(),
        "api_key": KEY,
        "application_id": APPLICATION,
        **claims,
    }
    return jwt.encode(
        {name: claim for name, claim in given.items() if claim is not None},
        secret,
        algorithm="HS256",
    )


def signed(url: str, body: bytes, **claims: Any) -> Request:
    """A webhook as Vonage sends it."""
    headers = {**_JSON, "authorization": f"Bearer {token(body, **claims)}"}
    return Request("POST", url, headers, body)

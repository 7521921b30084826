"""Telnyx's API v2 as documented: bearer keys, JSON, idempotency keys, events signed with Ed25519."""

import json
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.error_classes import ErrorClass
from domain.receipts import ReceiptState
from providers.telnyx import STATES
from tests.fakes.carrier import (
    HttpCarrier,
    Refusal,
    Request,
    Response,
    Sent,
    WrongCredentials,
    matching,
)

API_KEY = "KEY0180000000000000000000000000made_up"
PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = b64encode(PRIVATE_KEY.public_key().public_bytes_raw()).decode()
_JSON = {"content-type": "application/json"}
_KEY = re.compile("[A-Za-z0-9_:-]{1,255}")


class TelnyxCarrier(HttpCarrier):
    type: ClassVar[str] = "telnyx"
    refusal: ClassVar[Refusal] = Refusal("40310", ErrorClass.INVALID_RECIPIENT)
    failure: ClassVar[Refusal] = Refusal("40001", ErrorClass.LANDLINE)
    repeats_are_safe: ClassVar[bool] = True

    async def __aenter__(self) -> Self:
        self.bodies: dict[str, bytes] = {}
        """The octets of the requests, by the ids of their messages."""
        return await super().__aenter__()

    def section(self) -> dict[str, Any]:
        return {
            "type": "telnyx",
            "url": self.url,
            "private_network": True,
            "api_key": "env:SMSGATEWAY_SECRET_TELNYX",
            "public_key": PUBLIC_KEY,
        }

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"api_key": API_KEY}

    def read(self, request: Request) -> Sent:
        self._authorize(request)
        assert (request.method, request.target) == ("POST", "/v2/messages")
        assert request.headers["content-type"] == "application/json"
        key = request.headers.get("idempotency-key")
        assert key is None or _KEY.fullmatch(key)
        fields = json.loads(request.body)
        assert fields.pop("type") == "SMS"
        sent = Sent(
            id=self.next_id(),
            to=fields["to"],
            sender=fields["from"],
            text=fields["text"],
            receipt_url=fields.get("webhook_url"),
            key=key,
        )
        self.bodies[sent.id] = request.body
        return sent

    def _authorize(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {API_KEY}":
            raise WrongCredentials

    def _take_message(self, sent: Sent) -> Response:
        for earlier in self.received:
            is_repeat = sent.key is not None and sent.key == earlier.key
            if is_repeat and self.bodies[sent.id] != self.bodies[earlier.id]:
                return key_in_use()
        return super()._take_message(sent)

    def accepted(self, sent: Sent) -> Response:
        message = self._message(sent, "queued") | {"cost": {"amount": "0.0040", "currency": "USD"}}
        return Response(200, json.dumps({"data": message}).encode(), _JSON)

    def _message(self, sent: Sent, status: str, code: str = "") -> dict[str, Any]:
        number = {"carrier": "", "line_type": ""}
        return {
            "record_type": "message",
            "direction": "outbound",
            "id": sent.id,
            "type": "SMS",
            "from": {"phone_number": sent.sender, **number},
            "to": [{"phone_number": sent.to, "status": status, **number}],
            "text": sent.text,
            "parts": 1,
            "cost": None,
            "errors": [{"code": code, "title": "…", "detail": "…"}] if code else [],
            "completed_at": None,
        }

    def refused(self, code: str) -> Response:
        return problem(400, code)

    def throttled(self, seconds: int) -> Response:
        headers = {
            "x-ratelimit-limit": "50",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": str(seconds),
        }
        return Response(429, problem(429, "10011").body, {**_JSON, **headers})

    def unauthorized(self) -> Response:
        return problem(401, "10009")

    def status_of(self, request: Request) -> Response | None:
        if request.method != "GET":
            return None
        self._authorize(request)
        message_id = request.target.removeprefix("/v2/messages/")
        found = [each for each in self.received if each.id == message_id]
        if not found:
            return problem(404, "10005")
        state, code = self.states[message_id]
        message = self._message(found[0], matching(STATES, state), code)
        return Response(200, json.dumps({"data": message}).encode(), _JSON)

    def receipt(self, sent: Sent, state: ReceiptState, code: str) -> Request:
        assert sent.receipt_url is not None
        event = {
            "event_type": "message.finalized" if state.is_final else "message.sent",
            "id": self.next_id(),
            "occurred_at": "2026-11-28T12:00:00.000+00:00",
            "payload": self._message(sent, matching(STATES, state), code),
            "record_type": "event",
        }
        meta = {"attempt": 1, "delivered_to": sent.receipt_url}
        return signed(sent.receipt_url, json.dumps({"data": event, "meta": meta}).encode())


def signed(url: str, body: bytes, at: int | None = None) -> Request:
    """A request as Telnyx signs it, at a time in Unix seconds, by default now."""
    timestamp = str(int(time.time()) if at is None else at)
    signature = PRIVATE_KEY.sign(timestamp.encode() + b"|" + body)
    headers = {
        **_JSON,
        "telnyx-signature-ed25519": b64encode(signature).decode(),
        "telnyx-timestamp": timestamp,
    }
    return Request("POST", url, headers, body)


def problem(status: int, code: str, pointer: str = "/to", title: str = "…") -> Response:
    """An error of the API."""
    error = {"code": code, "title": title, "detail": "…", "source": {"pointer": pointer}}
    return Response(status, json.dumps({"errors": [error]}).encode(), _JSON)


def key_in_use() -> Response:
    """The response to another body with the `Idempotency-Key` of an accepted message."""
    return problem(422, "10015", pointer="", title="Idempotency-Key was used with another body")

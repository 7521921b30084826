"""A made-up aggregator that only a configuration describes: JSON, a bearer token, an idempotency key, signed receipts."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import unquote

from domain.error_classes import ErrorClass
from domain.receipts import ReceiptState
from tests.fakes.carrier import (
    HttpCarrier,
    Refusal,
    Request,
    Response,
    Sent,
    WrongCredentials,
    matching,
)

KEY = "made-up-api-key-7f3a"
SIGNING = "made-up-signing-key-c41d"
_JSON = {"content-type": "application/json"}

STATES: Mapping[str, ReceiptState] = {
    "queued": ReceiptState.ACCEPTED,
    "on_the_way": ReceiptState.ENROUTE,
    "delivered": ReceiptState.DELIVERED,
    "not_delivered": ReceiptState.UNDELIVERABLE,
    "refused": ReceiptState.REJECTED,
    "too_late": ReceiptState.EXPIRED,
}


class DeclaredCarrier(HttpCarrier):
    type: ClassVar[str] = "http"
    refusal: ClassVar[Refusal] = Refusal("E17", ErrorClass.INVALID_RECIPIENT)
    failure: ClassVar[Refusal] = Refusal("D6", ErrorClass.LANDLINE)
    repeats_are_safe: ClassVar[bool] = True

    def section(self) -> dict[str, Any]:
        return {
            "type": "http",
            "url": f"{self.url}/api",
            "private_network": True,
            "secrets": {
                "key": "env:SMSGATEWAY_SECRET_KEY",
                "signing": "env:SMSGATEWAY_SECRET_SIGNING",
            },
            "authentication": {"type": "bearer", "token": "{secret:key}"},
            "request": {
                "path": "/v2/messages",
                "json": {
                    "destination": {"number": "{to}"},
                    "source": "{from}",
                    "content": [{"kind": "text", "value": "{text}"}],
                    "report": {"url": "{receipt_url}", "final_only": False},
                    "ttl": "{validity_seconds}",
                },
            },
            "response": {
                "id": "messages[0].id",
                "code": "error.code",
                "segments": "messages[0].parts",
                "price": "messages[0].cost.amount",
                "currency": "messages[0].cost.currency",
            },
            "idempotency": {"header": "Idempotency-Key"},
            "codes": {"E17": "invalid_recipient", "D6": "landline", "E99": "account"},
            "receipt": {
                "format": "json",
                "each": "reports",
                "id": "message.id",
                "state": "status.name",
                "states": dict(STATES),
                "code": "status.code",
                "time": "at",
                "signature": {
                    "type": "hmac",
                    "header": "X-Signature",
                    "secret": "{secret:signing}",
                    "prefix": "sha256=",
                },
            },
            "polling": {
                "path": "/v2/messages/{id}",
                "state": "status.name",
                "states": dict(STATES),
                "code": "status.code",
            },
        }

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"key": KEY, "signing": SIGNING}

    def read(self, request: Request) -> Sent:
        self._authorize(request)
        assert (request.method, request.target) == ("POST", "/api/v2/messages")
        assert request.headers["content-type"] == "application/json"
        body = json.loads(request.body)
        assert isinstance(body["ttl"], int)
        assert body["report"]["final_only"] is False
        return Sent(
            id=self.next_id(),
            to=body["destination"]["number"],
            sender=body["source"],
            text=body["content"][0]["value"],
            receipt_url=body["report"].get("url"),
            key=request.headers["idempotency-key"],
        )

    def _authorize(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise WrongCredentials

    def accepted(self, sent: Sent) -> Response:
        body = {"id": sent.id, "parts": 1, "cost": {"amount": 0.0075, "currency": "EUR"}}
        return Response(202, json.dumps({"messages": [body]}).encode(), _JSON)

    def refused(self, code: str) -> Response:
        return self._problem(400, code)

    def throttled(self, seconds: int) -> Response:
        found = self._problem(429, "E29")
        return Response(429, found.body, {**_JSON, "retry-after": str(seconds)})

    def unauthorized(self) -> Response:
        return self._problem(401, "E99")

    def _problem(self, status: int, code: str) -> Response:
        body = {"error": {"code": code, "text": "in the vendor's words"}}
        return Response(status, json.dumps(body).encode(), _JSON)

    def status_of(self, request: Request) -> Response | None:
        if request.method != "GET":
            return None
        self._authorize(request)
        message_id = unquote(request.target.rpartition("/")[2])
        state, code = self.states[message_id]
        body = {"id": message_id, "status": {"name": matching(STATES, state), "code": code}}
        return Response(200, json.dumps(body).encode(), _JSON)

    def receipt(self, sent: Sent, state: ReceiptState, code: str) -> Request:
        assert sent.receipt_url is not None
        report = {
            "message": {"id": sent.id},
            "status": {"name": matching(STATES, state), "code": code or None},
            "at": "2026-11-28T12:00:00Z",
        }
        body = json.dumps({"reports": [report]}).encode()
        signature = hmac.digest(SIGNING.encode(), body, hashlib.sha256).hex()
        headers = {**_JSON, "x-signature": f"sha256={signature}"}
        return Request("POST", sent.receipt_url, headers, body)

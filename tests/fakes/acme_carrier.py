"""Acme's HTTP API as docs/examples/acme-sms describes it: a vendor that does not exist."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from domain.error_classes import ErrorClass
from domain.receipts import ReceiptState
from tests.fakes.carrier import HttpCarrier, Refusal, Request, Response, Sent, WrongCredentials

TOKEN = "made-up-token-of-acme"
WEBHOOK_SECRET = "made-up-webhook-secret-of-acme"
WORDS: Mapping[ReceiptState, str] = {
    ReceiptState.ENROUTE: "sent",
    ReceiptState.DELIVERED: "delivered",
    ReceiptState.UNDELIVERABLE: "undelivered",
}
_JSON = {"content-type": "application/json"}


class AcmeCarrier(HttpCarrier):
    """Every message that it gets stands in `fields`, as it came."""

    type: ClassVar[str] = "acme"
    refusal: ClassVar[Refusal] = Refusal("E101", ErrorClass.INVALID_RECIPIENT)
    failure: ClassVar[Refusal] = Refusal("E110", ErrorClass.UNDELIVERED)

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, Any]] = []

    def section(self) -> dict[str, Any]:
        return {
            "type": "acme",
            "url": self.url,
            "private_network": True,
            "token": "env:SMSGATEWAY_SECRET_ACME",
            "webhook_secret": "env:SMSGATEWAY_SECRET_ACME_WEBHOOKS",
        }

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"token": TOKEN, "webhook_secret": WEBHOOK_SECRET}

    def read(self, request: Request) -> Sent:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise WrongCredentials
        assert (request.method, request.target) == ("POST", "/v1/messages")
        fields = json.loads(request.body)
        self.fields.append(fields)
        return Sent(
            self.next_id(), fields["to"], fields["from"], fields["text"], fields.get("callback")
        )

    def accepted(self, sent: Sent) -> Response:
        body = {"id": sent.id, "segments": 1, "price": "0.0125", "currency": "EUR"}
        return Response(201, json.dumps(body).encode(), _JSON)

    def refused(self, code: str) -> Response:
        return Response(422, json.dumps({"error": code}).encode(), _JSON)

    def throttled(self, seconds: int) -> Response:
        body = json.dumps({"error": "E300"}).encode()
        return Response(429, body, {**_JSON, "retry-after": str(seconds)})

    def unauthorized(self) -> Response:
        return Response(401, b"{}", _JSON)

    def status_of(self, request: Request) -> Response | None:
        if request.method != "GET":
            return None
        message_id = request.target.rpartition("/")[2]
        state, code = self.states[message_id]
        body = {"id": message_id, "status": WORDS[state], "code": code}
        return Response(200, json.dumps(body).encode(), _JSON)

    def receipt(self, sent: Sent, state: ReceiptState, code: str) -> Request:
        assert sent.receipt_url is not None
        body = json.dumps({"id": sent.id, "status": WORDS[state], "code": code}).encode()
        signature = hmac.digest(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hex()
        return Request("POST", sent.receipt_url, {**_JSON, "x-acme-signature": signature}, body)

"""Infobip's SMS API (v3) as documented: API keys, our own ids, a status for each message, reports in lists."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from domain.error_classes import ErrorClass
from domain.provider_codes.infobip import DUPLICATE_ID
from domain.receipts import ReceiptState
from tests.fakes.carrier import (
    HttpCarrier,
    Refusal,
    Request,
    Response,
    Sent,
    WrongCredentials,
)

API_KEY = "made-up-api-key-5f2d8c0a-6c1e"
_JSON = {"content-type": "application/json"}

# Statuses and groups of the vendor's page of codes, by the state that they are reported for here.
_STATUSES: Mapping[ReceiptState, tuple[int, int]] = {
    ReceiptState.ACCEPTED: (26, 1),
    ReceiptState.ENROUTE: (7, 1),
    ReceiptState.DELIVERED: (5, 3),
    ReceiptState.UNDELIVERABLE: (9, 2),
    ReceiptState.EXPIRED: (15, 4),
    ReceiptState.UNKNOWN: (29, 4),
    ReceiptState.REJECTED: (13, 5),
}


def digits(number: str) -> str:
    return number.removeprefix("+")


def status(number: int, group: int) -> dict[str, Any]:
    """A status as it is written in responses, reports and logs."""
    return {"groupId": group, "groupName": "…", "id": number, "name": "…", "description": "…"}


def error(number: int, group: int, *, permanent: bool) -> dict[str, Any]:
    """An error as it is written in reports and logs; 0 stands for none."""
    return {**status(number, group), "permanent": permanent}


class InfobipCarrier(HttpCarrier):
    type: ClassVar[str] = "infobip"
    refusal: ClassVar[Refusal] = Refusal("status_52", ErrorClass.INVALID_RECIPIENT)
    failure: ClassVar[Refusal] = Refusal("error_7", ErrorClass.LANDLINE)
    repeats_are_safe: ClassVar[bool] = True
    signs: ClassVar[bool] = False
    """Infobip's reports are not signed. The credentials of a subscription do not depend on the body."""

    def section(self) -> dict[str, Any]:
        return {
            "type": "infobip",
            "url": self.url,
            "private_network": True,
            "api_key": "env:SMSGATEWAY_SECRET_INFOBIP",
        }

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"api_key": API_KEY}

    def read(self, request: Request) -> Sent:
        self._authorize(request)
        assert (request.method, request.target) == ("POST", "/sms/3/messages")
        assert request.headers["content-type"] == "application/json"
        (message,) = json.loads(request.body)["messages"]
        (destination,) = message["destinations"]
        assert destination["to"].isdigit(), "a number has no +"
        sender = message["sender"]
        return Sent(
            id=destination["messageId"],
            to=f"+{destination['to']}",
            sender=f"+{sender}" if sender.isdigit() and len(sender) > 8 else sender,
            text=message["content"]["text"],
            receipt_url=message.get("webhooks", {}).get("delivery", {}).get("url"),
            key=destination["messageId"],
        )

    def _authorize(self, request: Request) -> None:
        if request.headers.get("authorization") != f"App {API_KEY}":
            raise WrongCredentials

    def accepted(self, sent: Sent) -> Response:
        return self._answer(
            {
                "messageId": sent.id,
                "status": status(26, 1),
                "destination": digits(sent.to),
                "details": {"messageCount": 1},
            }
        )

    def repeated(self, earlier: Sent) -> Response:
        return self._answer(
            {
                "messageId": earlier.id,
                "status": status(DUPLICATE_ID, 5),
                "destination": digits(earlier.to),
            }
        )

    def refused(self, code: str) -> Response:
        return self._answer({"messageId": self.next_id(), "status": status(_number(code), 5)})

    def _answer(self, message: dict[str, Any]) -> Response:
        body = {"bulkId": self.next_id(), "messages": [message]}
        return Response(200, json.dumps(body).encode(), _JSON)

    def throttled(self, seconds: int) -> Response:
        found = self._problem(429, "E429")
        return Response(429, found.body, {**_JSON, "retry-after": str(seconds)})

    def unauthorized(self) -> Response:
        return self._problem(401, "E401")

    def _problem(self, http: int, code: str) -> Response:
        body = {
            "errorCode": code,
            "description": "…",
            "action": "…",
            "violations": [],
            "resources": [],
        }
        return Response(http, json.dumps(body).encode(), _JSON)

    def status_of(self, request: Request) -> Response | None:
        if request.method != "GET":
            return None
        self._authorize(request)
        target = urlsplit(request.target)
        assert target.path == "/sms/3/logs", "reports are given only once"
        (id_,) = parse_qs(target.query)["messageId"]
        found = self.states.get(id_)
        logs = [] if found is None else [{"messageId": id_, **_outcome(*found)}]
        return Response(200, json.dumps({"results": logs}).encode(), _JSON)

    def receipt(self, sent: Sent, state: ReceiptState, code: str) -> Request:
        assert sent.receipt_url is not None
        report = {
            "bulkId": self.next_id(),
            "messageId": sent.id,
            "to": digits(sent.to),
            "sender": digits(sent.sender),
            "sentAt": "2026-11-28T12:00:00.000+0000",
            "doneAt": "2026-11-28T12:00:04.250+0000",
            "messageCount": 1,
            "mccMnc": "23410",
            "callbackData": None,
            "price": {"pricePerMessage": 0.01, "currency": "EUR"},
            **_outcome(state, code),
        }
        return Request("POST", sent.receipt_url, _JSON, json.dumps({"results": [report]}).encode())


def _outcome(state: ReceiptState, code: str) -> dict[str, Any]:
    number = _number(code) if code.startswith("error_") else 0
    return {
        "status": status(*_STATUSES[state]),
        "error": error(number, 1 if number else 0, permanent=bool(number)),
    }


def _number(code: str) -> int:
    return int(code.partition("_")[2])

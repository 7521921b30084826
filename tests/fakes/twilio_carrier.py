"""Twilio's Messages API as documented: Basic authentication, forms, signed status callbacks."""

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

from domain.error_classes import ErrorClass
from domain.receipts import ReceiptState
from providers.twilio import STATES
from tests.fakes.carrier import (
    HttpCarrier,
    Refusal,
    Request,
    Response,
    Sent,
    WrongCredentials,
    matching,
    number_of,
)

ACCOUNT = "AC72d1371c17149d439536b3216fdaeeb9"
TOKEN = "made-up-auth-token-a4c123b1612dd2"
_JSON = {"content-type": "application/json"}


class TwilioCarrier(HttpCarrier):
    type: ClassVar[str] = "twilio"
    refusal: ClassVar[Refusal] = Refusal("21211", ErrorClass.INVALID_RECIPIENT)
    failure: ClassVar[Refusal] = Refusal("30006", ErrorClass.LANDLINE)

    def section(self) -> dict[str, Any]:
        return {
            "type": "twilio",
            "url": self.url,
            "private_network": True,
            "account_sid": ACCOUNT,
            "auth_token": "env:SMSGATEWAY_SECRET_TWILIO",
        }

    @property
    def secrets(self) -> Mapping[str, str]:
        return {"auth_token": TOKEN}

    def read(self, request: Request) -> Sent:
        self._authorize(request)
        assert (request.method, request.target) == (
            "POST",
            f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json",
        )
        fields = dict(parse_qsl(request.body.decode(), strict_parsing=True))
        return Sent(
            id="SM" + self.next_id().replace("-", ""),
            to=fields["To"],
            sender=fields["From"],
            text=fields["Body"],
            receipt_url=fields.get("StatusCallback"),
        )

    def _authorize(self, request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind != "Basic" or b64decode(given).decode() != f"{ACCOUNT}:{TOKEN}":
            raise WrongCredentials

    def accepted(self, sent: Sent) -> Response:
        body = {
            "sid": sent.id,
            "status": "queued",
            "num_segments": "1",
            "price": "-0.0075",
            "price_unit": "USD",
            "error_code": None,
        }
        return Response(201, json.dumps(body).encode(), _JSON)

    def refused(self, code: str) -> Response:
        return self._problem(400, number_of(code))

    def throttled(self, seconds: int) -> Response:
        found = self._problem(429, 20429)
        return Response(429, found.body, {**_JSON, "retry-after": str(seconds)})

    def unauthorized(self) -> Response:
        return self._problem(401, 20003)

    def _problem(self, status: int, code: int | str) -> Response:
        body = {"code": code, "message": "…", "more_info": f"…/errors/{code}", "status": status}
        return Response(status, json.dumps(body).encode(), _JSON)

    def status_of(self, request: Request) -> Response | None:
        if request.method != "GET":
            return None
        self._authorize(request)
        sid = request.target.rpartition("/")[2].removesuffix(".json")
        state, code = self.states[sid]
        body = {
            "sid": sid,
            "status": matching(STATES, state),
            "error_code": number_of(code) if code else None,
        }
        return Response(200, json.dumps(body).encode(), _JSON)

    def receipt(self, sent: Sent, state: ReceiptState, code: str) -> Request:
        assert sent.receipt_url is not None
        url = sent.receipt_url.partition("#")[0]
        word = matching(STATES, state)
        fields = {
            "MessageSid": sent.id,
            "SmsSid": sent.id,
            "MessageStatus": word,
            "SmsStatus": word,
            "To": sent.to,
            "From": sent.sender,
            "AccountSid": ACCOUNT,
            "ApiVersion": "2010-04-01",
        }
        if code:
            fields["ErrorCode"] = code
        signed = url + "".join(name + value for name, value in sorted(fields.items()))
        signature = b64encode(hmac.digest(TOKEN.encode(), signed.encode(), hashlib.sha1)).decode()
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-twilio-signature": signature,
        }
        return Request("POST", url, headers, urlencode(fields).encode())

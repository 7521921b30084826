"""Requests as vendors send them, signed with their own libraries, and changed ones that must be refused.

`webhook_signatures.json` was made with the libraries that each request is `accepted_by`.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from domain.configuration.providers.telnyx import TelnyxConfiguration
from domain.configuration.providers.twilio import TwilioConfiguration
from domain.configuration.providers.vonage import VonageConfiguration
from providers.telnyx import TelnyxWebhooks
from providers.twilio import TwilioWebhooks
from providers.vonage import VonageWebhooks
from providers.webhooks import ProviderWebhooks, WebhookForged, WebhookRequest

VECTORS = json.loads((Path(__file__).parent / "webhook_signatures.json").read_text())["vectors"]

TWILIO = {
    "type": "twilio",
    "account_sid": "AC72d1371c17149d439536b3216fdaeeb9",
    "auth_token": "env:SMSGATEWAY_SECRET_TOKEN",
    "shared_key": "env:SMSGATEWAY_SECRET_SHARED",
}

VONAGE = {
    "type": "vonage",
    "api_key": "a1b2c3d4",
    "api_secret": "env:SMSGATEWAY_SECRET_KEY",
    "signature_secret": "env:SMSGATEWAY_SECRET_SIGNATURE",
}


def _twilio(secret: dict[str, str]) -> ProviderWebhooks[Any]:
    return TwilioWebhooks("primary", TwilioConfiguration.model_validate(TWILIO), secret)


def _telnyx(secret: dict[str, str]) -> ProviderWebhooks[Any]:
    section = {"type": "telnyx", "api_key": "env:SMSGATEWAY_SECRET_KEY", **secret}
    return TelnyxWebhooks("primary", TelnyxConfiguration.model_validate(section), {})


def _vonage(secret: dict[str, str]) -> ProviderWebhooks[Any]:
    return VonageWebhooks("primary", VonageConfiguration.model_validate(VONAGE), secret)


WEBHOOKS = {
    "twilio": _twilio,
    "telnyx": _telnyx,
    "vonage": _vonage,
}
"""By vendor, what verifies with a vector's `secret`."""


def case(vector: dict[str, Any], change: dict[str, Any] | None = None) -> Any:
    """A vector, or an altered copy of it, as what verifies and what is verified."""
    given = {"secret": vector["secret"], "now": vector.get("now", 1_795_867_200)}
    given |= vector["request"] | (change or {})
    request = WebhookRequest(
        method=given["method"],
        url=given["url"],
        headers={name.lower(): value for name, value in given["headers"].items()},
        body=given["body"].encode(),
        at=datetime.fromtimestamp(given["now"], UTC),
    )
    return WEBHOOKS[vector["provider"]](given["secret"]), request


KNOWN = [vector for vector in VECTORS if vector["provider"] in WEBHOOKS]
ALTERED = [
    pytest.param(vector, refused["change"], id=f"{vector['name']}: {refused['why']}")
    for vector in KNOWN
    for refused in vector["refuse"]
]


@pytest.mark.parametrize("vector", KNOWN, ids=lambda vector: vector["name"])
def test_a_request_that_the_vendor_has_signed_is_accepted(vector):
    webhooks, request = case(vector)
    webhooks.verify(request)


@pytest.mark.parametrize(("vector", "change"), ALTERED)
def test_an_altered_request_is_refused(vector, change):
    webhooks, request = case(vector, change)
    with pytest.raises(WebhookForged):
        webhooks.verify(request)

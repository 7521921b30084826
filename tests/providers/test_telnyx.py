"""What is special to Telnyx: its requests, keys, codes, statuses, events and signatures."""

import asyncio
import json
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from domain.configuration.providers.telnyx import TelnyxConfiguration
from domain.error_classes import ErrorClass
from domain.money import Price
from domain.outcomes import OutcomeKind, PartOutcome
from domain.provider_codes.telnyx import KEY_IN_USE, TELNYX_CODES
from domain.receipts import LONGEST_CODE, LONGEST_ID, PartIdentity, ReceiptState
from domain.secrets import AllowedSecrets
from local.folders import exclusively
from local.temporal import cache_folder
from providers.base import Provider, ProviderSinks, ReceivedReceipt
from providers.http import HttpResponse
from providers.telnyx import STATES, TelnyxProvider, TelnyxWebhooks
from providers.webhooks import (
    ForgedReason,
    UnreadableWebhook,
    WebhookForged,
    WebhookRequest,
    stored_request,
)
from settings.configuration_file import parse_configuration
from tests.fakes.carrier import LoseResponse, Raw, Response, as_came
from tests.fakes.telnyx_carrier import (
    API_KEY,
    PRIVATE_KEY,
    PUBLIC_KEY,
    TelnyxCarrier,
    key_in_use,
    problem,
    signed,
)
from tests.providers.test_contract import (
    RECIPIENT,
    SENDER,
    TEXT,
    bound,
    outbound,
    submit,
)

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs/providers/telnyx.md"
CLIENT = Path(__file__).parent / "telnyx_client"
PROFILE = "4000eba1-a0c0-4563-9925-b25e842a7cb6"
MESSAGE = UUID(int=7)
PART = PartIdentity(MESSAGE, 2, 1)
ID = "e0ad8417-3581-4569-8969-e58b081006f7"
URL = "https://sms.example.com/webhooks/providers/primary/receipts/token"
NOW = datetime(2026, 11, 28, 12, 0, 0, 900_000, tzinfo=UTC)
SECONDS = int(NOW.timestamp())


@pytest.fixture
async def carrier() -> AsyncIterator[TelnyxCarrier]:
    async with TelnyxCarrier() as started:
        yield started


def section(**more: object) -> TelnyxConfiguration:
    given = {"type": "telnyx", "api_key": "env:SMSGATEWAY_SECRET_KEY", "public_key": PUBLIC_KEY}
    return TelnyxConfiguration.model_validate({**given, **more})


def webhooks(**more: object) -> TelnyxWebhooks:
    return TelnyxWebhooks("primary", section(**more), {})


def raw(response: Response) -> Raw:
    return Raw(response.status, response.headers, response.body)


# Requests


async def test_a_message_is_sent_as_documented(carrier, providers):
    provider = await bound(carrier, providers)
    message = outbound(message_id=MESSAGE, receipt_token="token")
    await submit(provider, message)
    (request,) = carrier.asked
    assert (request.method, request.target) == ("POST", "/v2/messages")
    assert request.headers["authorization"] == f"Bearer {API_KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"] == "00000000-0000-0000-0000-000000000007:2:1"
    assert json.loads(request.body) == {
        "to": RECIPIENT,
        "from": SENDER,
        "text": TEXT,
        "type": "SMS",
        "webhook_url": URL,
    }


@pytest.mark.parametrize(
    ("sender", "profile"),
    [(SENDER, None), ("72345", None), ("ACME Alerts", PROFILE), ("4 you", PROFILE)],
)
async def test_only_an_alphanumeric_sender_is_sent_with_the_messaging_profile(
    carrier, providers, sender, profile
):
    provider = await bound(carrier, providers, messaging_profile=PROFILE)
    await submit(provider, outbound(sender=sender))
    fields = json.loads(carrier.asked[0].body)
    assert (fields["from"], fields.get("messaging_profile_id")) == (sender, profile)


@pytest.mark.parametrize("encoding", ["auto", "gsm7", "ucs2", None])
async def test_the_encoding_is_that_of_the_configuration(carrier, providers, encoding):
    provider = await bound(carrier, providers, encoding=encoding)
    await submit(provider, outbound())
    assert json.loads(carrier.asked[0].body).get("encoding") == encoding


async def test_without_a_public_address_the_messaging_profile_says_where_events_go(
    carrier, providers
):
    declared = section(url=carrier.url, private_network=True)
    sinks = ProviderSinks(on_receipt=no_receipt)
    provider = TelnyxProvider("primary", declared, {"api_key": API_KEY}, sinks)
    providers.append(provider)
    await provider.hold(1)
    await provider.wait_until(up=True)
    await submit(provider, outbound())
    assert "webhook_url" not in json.loads(carrier.asked[0].body)


# Repeats


async def test_a_repeat_has_the_same_key_and_the_same_octets(carrier, providers):
    carrier.behaviours.append(LoseResponse())
    provider = await bound(carrier, providers)
    outcome = await submit(provider, outbound())
    first, second = carrier.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body
    assert len(carrier.received) == 1
    assert (outcome.kind, outcome.provider_message_id) == (
        OutcomeKind.ACCEPTED,
        carrier.received[0].id,
    )


async def test_the_same_attempt_makes_the_same_request_again_and_another_attempt_another_key(
    carrier, providers
):
    provider = await bound(carrier, providers)
    message = outbound(valid_until=None)
    for each in (message, replace(message, valid_until=NOW), replace(message, attempt=3)):
        await submit(provider, each)
    first, again, other = carrier.asked
    assert (first.headers["idempotency-key"], first.body) == (
        again.headers["idempotency-key"],
        again.body,
    )
    assert other.headers["idempotency-key"] != first.headers["idempotency-key"]
    assert len(carrier.received) == 2


async def test_a_repeat_that_is_refused_for_its_key_proves_that_the_first_request_was_accepted(
    carrier, providers
):
    carrier.behaviours += [LoseResponse(), raw(key_in_use())]
    provider = await bound(carrier, providers)
    message = outbound()
    outcome = await submit(provider, message)
    assert outcome == PartOutcome(1, OutcomeKind.ACCEPTED)
    assert len(carrier.received) == 1
    await carrier.report(carrier.received[0], ReceiptState.DELIVERED)
    (receipt,) = carrier.receipts
    assert receipt.part == PartIdentity(message.message_id, 2, 1)
    assert receipt.provider_message_id == carrier.received[0].id


async def test_another_body_with_the_key_of_an_accepted_message_has_an_unknown_outcome(
    carrier, providers
):
    message = outbound()
    await submit(await bound(carrier, providers), message)
    outcome = await submit(await bound(carrier, providers, encoding="ucs2"), message)
    assert (outcome.kind, outcome.code) == (OutcomeKind.UNKNOWN, KEY_IN_USE)
    assert len(carrier.received) == 1


@pytest.mark.parametrize(
    "response",
    [
        problem(422, "10015", title="Text is missing"),
        problem(422, "40310"),
        problem(409, "10015", title="A request with this Idempotency-Key is running"),
        Response(422, b"idempotency"),
    ],
    ids=["other_title", "other_code", "other_status", "no_json"],
)
async def test_a_repeat_that_is_refused_for_another_reason_proves_nothing(
    carrier, providers, response
):
    carrier.behaviours += [LoseResponse(), raw(response)]
    provider = await bound(carrier, providers)
    assert (await submit(provider, outbound())).kind is OutcomeKind.UNKNOWN


@pytest.mark.parametrize("code", ["10007", "10008"])
async def test_an_internal_error_is_repeated_with_the_same_key(carrier, providers, code):
    carrier.behaviours.append(raw(problem(500, code)))
    provider = await bound(carrier, providers)
    assert (await submit(provider, outbound())).kind is OutcomeKind.ACCEPTED
    first, second = carrier.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


# Responses


@pytest.fixture
async def adapter() -> AsyncIterator[TelnyxProvider]:
    async with adapter_of() as made:
        yield made


@asynccontextmanager
async def adapter_of(**more: object) -> AsyncIterator[TelnyxProvider]:
    """An adapter that sends nothing: its responses are given to it."""
    sinks = ProviderSinks(on_receipt=no_receipt)
    provider = TelnyxProvider("primary", section(**more), {}, sinks)
    yield provider
    await provider.stop(timedelta())


async def no_receipt(_: ReceivedReceipt) -> None:
    raise AssertionError


def response(status: int, body: object, **headers: str) -> HttpResponse:
    written = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status, httpx.Headers(written), json.dumps(body).encode())


def refusal(adapter: TelnyxProvider, status: int, *errors: object, **headers: str) -> PartOutcome:
    return adapter._outcome(1, response(status, {"errors": list(errors)}, **headers))


@pytest.mark.parametrize(
    ("more", "segments", "price"),
    [
        (
            {"parts": 3, "cost": {"amount": "0.0120", "currency": "USD"}},
            3,
            Price(Decimal("0.0120"), "USD"),
        ),
        ({"parts": "2", "cost": {"amount": "0", "currency": "usd"}}, 2, Price(Decimal(0), "USD")),
        ({"parts": 1, "cost": None}, 1, None),
        ({}, None, None),
        ({"parts": 0, "cost": {}}, None, None),
        ({"parts": True, "cost": "0.0040"}, None, None),
        ({"parts": -1, "cost": {"amount": "a lot", "currency": "USD"}}, None, None),
        ({"parts": 10**30, "cost": {"amount": "NaN", "currency": "USD"}}, None, None),
        ({"parts": [1], "cost": {"amount": "1E+1000000", "currency": "USD"}}, None, None),
        ({"parts": {}, "cost": {"amount": ["1"], "currency": ["USD"]}}, None, None),
        ({"parts": None, "cost": {"amount": "0.004", "currency": "points"}}, None, None),
    ],
)
def test_an_accepted_message_has_the_segments_and_the_price_of_the_response(
    adapter, more, segments, price
):
    outcome = adapter._outcome(1, response(200, {"data": {"id": ID, **more}}))
    assert (outcome.kind, outcome.provider_message_id) == (OutcomeKind.ACCEPTED, ID)
    assert (outcome.segments, outcome.price) == (segments, price)


@pytest.mark.parametrize(
    "body", [None, [], 7, {}, {"data": None}, {"data": []}, {"data": {"id": None}}, {"data": "id"}]
)
def test_a_success_without_an_id_leaves_the_outcome_unknown(adapter, body):
    assert adapter._outcome(1, response(200, body)).kind is OutcomeKind.UNKNOWN


async def test_an_id_and_a_code_that_cannot_be_stored_are_changed(carrier, providers):
    hostile = "\0\ud800" + "x" * 1000
    carrier.behaviours += [
        raw(Response(200, json.dumps({"data": {"id": hostile}}).encode())),
        raw(problem(400, hostile)),
    ]
    provider = await bound(carrier, providers)
    accepted = await submit(provider, outbound())
    refused = await submit(provider, outbound())
    assert accepted.provider_message_id is not None
    for text, longest in (
        (accepted.provider_message_id, LONGEST_ID),
        (refused.code, LONGEST_CODE),
    ):
        assert len(text) <= longest
        assert "\0" not in text
        text.encode()


# The classes of error that Telnyx's pages say, code by code.
CLASSES: Mapping[ErrorClass, Sequence[str]] = {
    ErrorClass.ACCOUNT: [
        *("10005", "10009", "10010", "20100", "40309", "40311"),
        *("40312", "40313", "40314", "40331", "40333"),
    ],
    ErrorClass.THROTTLED: ["10011", "40011", "40016", "40018", "40318"],
    ErrorClass.UNKNOWN: ["10007", "10008", KEY_IN_USE],
    ErrorClass.TEMPORARY: ["40006"],
    ErrorClass.INVALID_RECIPIENT: ["10002", "10016", "40012", "40310"],
    ErrorClass.LANDLINE: ["40001"],
    ErrorClass.UNDELIVERED: ["40005", "40014"],
    ErrorClass.BLOCKED: ["40020"],
    ErrorClass.OPTED_OUT: ["40300"],
    ErrorClass.CONTENT_FILTERED: ["40002", "40015", "40017", "40322"],
    ErrorClass.INVALID_MESSAGE: ["40009", "40302", "40304", "40316", "40317", "40328"],
    ErrorClass.UNREGISTERED_SENDER: [
        *("40010", "40019", "40150", "40151"),
        *("40155", "40323", "40329", "40330"),
    ],
    ErrorClass.ROUTE: [
        *("10001", "10003", "10004", "10006", "10012", "10014", "10015", "10023"),
        *("40003", "40004", "40007", "40008", "40013", "40100", "40301", "40305"),
        *("40306", "40307", "40308", "40315", "40319", "40320", "40321", "40325"),
    ],
}
BY_CODE = [(code, error_class) for error_class, codes in CLASSES.items() for code in codes]
KINDS = {
    ErrorClass.THROTTLED: OutcomeKind.THROTTLED,
    ErrorClass.UNKNOWN: OutcomeKind.UNKNOWN,
}


def test_every_code_of_the_table_is_tried():
    assert sorted(code for code, _ in BY_CODE) == sorted(TELNYX_CODES)


@pytest.mark.parametrize(("code", "error_class"), BY_CODE)
def test_the_code_of_a_refusal_decides_its_class(adapter, code, error_class):
    outcome = refusal(adapter, 400, {"code": code, "title": "…"})
    assert (outcome.code, outcome.error_class) == (code, error_class)
    assert outcome.kind is KINDS.get(error_class, OutcomeKind.REFUSED)


@pytest.mark.parametrize(
    ("status", "kind", "error_class"),
    [
        (400, OutcomeKind.REFUSED, ErrorClass.ROUTE),
        (401, OutcomeKind.REFUSED, ErrorClass.ACCOUNT),
        (403, OutcomeKind.REFUSED, ErrorClass.ACCOUNT),
        (404, OutcomeKind.REFUSED, ErrorClass.ACCOUNT),
        (409, OutcomeKind.REFUSED, ErrorClass.ROUTE),
        (422, OutcomeKind.REFUSED, ErrorClass.ROUTE),
        (429, OutcomeKind.THROTTLED, ErrorClass.THROTTLED),
        (500, OutcomeKind.UNKNOWN, ErrorClass.UNKNOWN),
        (504, OutcomeKind.UNKNOWN, ErrorClass.UNKNOWN),
    ],
)
@pytest.mark.parametrize("errors", [[], [{"code": "49999"}]], ids=["no_code", "unknown_code"])
def test_a_code_that_is_not_known_has_the_class_of_the_http_status(
    adapter, status, kind, error_class, errors
):
    outcome = refusal(adapter, status, *errors)
    assert (outcome.kind, outcome.error_class) == (kind, error_class)
    assert outcome.code == ("49999" if errors else f"http_{status}")


@pytest.mark.parametrize(
    ("errors", "code", "error_class"),
    [
        ([{"code": "40300"}, {"code": "40001"}], "40300", ErrorClass.OPTED_OUT),
        ([{"code": "49999"}, {"code": "40001"}], "40001", ErrorClass.LANDLINE),
        ([None, "40001", {"title": "…"}, {"code": 40001}], "40001", ErrorClass.LANDLINE),
        ([{"code": "49999"}, {"code": "49998"}], "49999", ErrorClass.ROUTE),
        ([{"code": ["40001"]}], "http_400", ErrorClass.ROUTE),
    ],
)
def test_the_first_error_with_a_known_code_decides(adapter, errors, code, error_class):
    outcome = refusal(adapter, 400, *errors)
    assert (outcome.code, outcome.error_class) == (code, error_class)


@pytest.mark.parametrize("errors", [None, {}, "40001", 40001, {"code": "40001"}])
def test_errors_of_another_form_leave_the_http_status(adapter, errors):
    outcome = adapter._outcome(1, response(400, {"errors": errors}))
    assert (outcome.code, outcome.error_class) == ("http_400", ErrorClass.ROUTE)


@pytest.mark.parametrize(
    ("code", "pointer", "error_class"),
    [
        ("10002", "/to", ErrorClass.INVALID_RECIPIENT),
        ("10002", "/from", ErrorClass.ROUTE),
        ("10002", None, ErrorClass.INVALID_RECIPIENT),
        ("40300", "/from", ErrorClass.OPTED_OUT),
        ("10016", "/from", ErrorClass.ROUTE),
    ],
)
def test_an_invalid_number_of_the_sender_is_not_taken_for_the_recipients(
    adapter, code, pointer, error_class
):
    outcome = refusal(adapter, 400, {"code": code, "source": {"pointer": pointer}})
    assert outcome.error_class is error_class


async def test_a_class_of_the_configuration_counts_for_the_senders_number_too():
    error = {"code": "10002", "source": {"pointer": "/from"}}
    async with adapter_of(errors={"10002": "invalid_recipient", "49999": "temporary"}) as adapter:
        assert refusal(adapter, 400, error).error_class is ErrorClass.INVALID_RECIPIENT
        several = refusal(adapter, 400, {"code": "49998"}, {"code": "49999"})
        assert several.error_class is ErrorClass.TEMPORARY


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x_ratelimit_reset": "12"}, 12),
        ({"x_ratelimit_reset": "0"}, 0),
        ({"x_ratelimit_reset": "12", "retry_after": "3"}, 3),
        ({"x_ratelimit_reset": "1795867200"}, None),
        ({"x_ratelimit_reset": "-1"}, None),
        ({"x_ratelimit_reset": "1.5"}, None),
        ({"x_ratelimit_reset": "soon"}, None),
        ({}, None),
    ],
)
def test_a_throttled_request_waits_as_long_as_telnyx_says(adapter, headers, seconds):
    outcome = refusal(adapter, 429, {"code": "10011"}, **headers)
    assert outcome.kind is OutcomeKind.THROTTLED
    assert outcome.after == (None if seconds is None else timedelta(seconds=seconds))


# Events


def payload(status: str = "delivered", *codes: str, **more: object) -> dict[str, Any]:
    return {
        "id": ID,
        "direction": "outbound",
        "errors": [{"code": code, "title": "…"} for code in codes],
        "from": {"phone_number": SENDER},
        "to": [{"phone_number": RECIPIENT, "status": status, "carrier": "", "line_type": ""}],
        "parts": 1,
        "cost": {"amount": "0.0040", "currency": "USD"},
        "type": "SMS",
        **more,
    }


def event(message: object, kind: object = "message.finalized", **more: object) -> bytes:
    data = {
        "event_type": kind,
        "id": "7f600180-0000-4000-8000-000000000001",
        "occurred_at": "2026-11-28T12:00:00.250+00:00",
        "payload": message,
        "record_type": "event",
        **more,
    }
    return json.dumps({"data": data, "meta": {"attempt": 1, "delivered_to": URL}}).encode()


def read(body: bytes, **more: object) -> ReceivedReceipt:
    (receipt,) = webhooks(**more).receipts(stored_request(body), PART)
    return receipt


def test_an_event_of_a_sent_message_is_a_receipt():
    assert read(event(payload("delivery_failed", "40001"))) == ReceivedReceipt(
        provider="primary",
        provider_message_id=ID,
        state=ReceiptState.UNDELIVERABLE,
        code="40001",
        network=None,
        reference=None,
        sender=SENDER,
        recipient=RECIPIENT,
        done_at=datetime(2026, 11, 28, 12, 0, 0, 250_000, tzinfo=UTC),
        part=PART,
        error_class=ErrorClass.LANDLINE,
    )


STATUSES = [
    ("scheduled", ReceiptState.ACCEPTED, None),
    ("queued", ReceiptState.ACCEPTED, None),
    ("sending", ReceiptState.ENROUTE, None),
    ("sent", ReceiptState.ENROUTE, None),
    ("delivered", ReceiptState.DELIVERED, None),
    ("read", ReceiptState.DELIVERED, None),
    ("delivery_failed", ReceiptState.UNDELIVERABLE, ErrorClass.CONTENT_FILTERED),
    ("delivery_unconfirmed", ReceiptState.UNKNOWN, None),
    ("sending_failed", ReceiptState.REJECTED, ErrorClass.CONTENT_FILTERED),
    ("expired", ReceiptState.EXPIRED, ErrorClass.CONTENT_FILTERED),
    ("cancelled", ReceiptState.DELETED, ErrorClass.CONTENT_FILTERED),
]


def test_every_status_of_the_table_is_tried():
    assert sorted(status for status, _, _ in STATUSES) == sorted(STATES)


@pytest.mark.parametrize(("status", "state", "error_class"), STATUSES)
@pytest.mark.parametrize("kind", ["message.sent", "message.finalized"])
def test_the_status_of_the_recipient_decides_and_a_code_counts_only_for_a_failure(
    kind, status, state, error_class
):
    receipt = read(event(payload(status, "40002"), kind))
    assert (receipt.state, receipt.error_class) == (state, error_class)
    assert receipt.code == ("" if error_class is None else "40002")


@pytest.mark.parametrize(("status", "state", "error_class"), STATUSES)
def test_a_status_without_a_code_leaves_the_class_to_the_state(status, state, error_class):
    receipt = read(event(payload(status)))
    assert (receipt.state, receipt.code, receipt.error_class) == (state, "", None)


@pytest.mark.parametrize("status", ["delivered_to_moon", "webhook_delivered", "undelivered?"])
def test_a_status_that_is_not_known_is_no_failure(status):
    receipt = read(event(payload(status, "40001")))
    assert (receipt.state, receipt.error_class) == (ReceiptState.ENROUTE, None)


@pytest.mark.parametrize(("code", "error_class"), BY_CODE)
def test_the_code_of_a_failed_message_decides_its_class(code, error_class):
    receipt = read(event(payload("delivery_failed", code)))
    has_expired = error_class is ErrorClass.UNDELIVERED
    assert receipt.state is (ReceiptState.EXPIRED if has_expired else ReceiptState.UNDELIVERABLE)
    assert (receipt.code, receipt.error_class) == (code, error_class)


def test_a_message_that_waited_too_long_at_telnyx_has_expired():
    receipt = read(event(payload("sending_failed", "40014")))
    assert (receipt.state, receipt.error_class) == (ReceiptState.EXPIRED, ErrorClass.UNDELIVERED)


def test_an_error_of_an_earlier_try_does_not_make_a_delivered_message_expire():
    receipt = read(event(payload("delivered", "40005")))
    assert (receipt.state, receipt.code) == (ReceiptState.DELIVERED, "")


def test_the_configuration_gives_the_code_of_an_event_another_class():
    receipt = read(event(payload("delivery_failed", "40001")), errors={"40001": "temporary"})
    assert receipt.error_class is ErrorClass.TEMPORARY


@pytest.mark.parametrize(
    "kind",
    ["message.received", "message.link_click", "10dlc.campaign.update", "call.answered", "message"],
)
def test_an_event_that_is_not_about_a_sent_message_is_no_receipt(kind):
    inbound = payload() | {"direction": "inbound"}
    assert list(webhooks().receipts(stored_request(event(inbound, kind)), None)) == []
    assert list(webhooks().receipts(stored_request(event(None, kind)), None)) == []


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"data":[]}',
        b'{"data":{}}',
        event(payload(), kind=None),
        event(payload(), kind=["message.sent"]),
        event(None),
        event([payload()]),
        event(payload(id=None)),
        event(payload(id={"id": ID})),
        event(payload(to=None)),
        event(payload(to=[])),
        event(payload(to={"status": "delivered"})),
        event(payload(to=[None])),
        event(payload(to=[{"phone_number": RECIPIENT}])),
        event(payload(to=[{"phone_number": RECIPIENT, "status": ["delivered"]}])),
        b'{"sms_id":"1","status":"delivered"}',
        b'{"data":' + b"[" * 100_000,
        b"\xff",
    ],
)
def test_an_event_that_is_not_as_documented_is_kept_to_be_parsed_again(body):
    with pytest.raises(UnreadableWebhook):
        webhooks().receipts(stored_request(body), PART)


@pytest.mark.parametrize(
    "more",
    [
        {"from": None, "errors": None},
        {"from": SENDER, "errors": {}},
        {"from": {"phone_number": [SENDER]}, "errors": ["40001", 40001, [], None]},
        {"from": [], "errors": [{"code": None}, {"code": {}}, {"code": 1.5}]},
    ],
)
def test_fields_of_another_form_are_left_out(more):
    receipt = read(event(payload("delivery_failed", **more)))
    assert (receipt.sender, receipt.code, receipt.error_class) == (None, "", None)
    assert (receipt.state, receipt.provider_message_id) == (ReceiptState.UNDELIVERABLE, ID)


@pytest.mark.parametrize(
    ("written", "done_at"),
    [
        ("2026-11-28T12:00:00.250Z", datetime(2026, 11, 28, 12, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-11-28T12:00:00+00:00", datetime(2026, 11, 28, 12, tzinfo=UTC)),
        (
            "2026-11-28T07:00:00-05:00",
            datetime(2026, 11, 28, 7, tzinfo=timezone(timedelta(hours=-5))),
        ),
        ("2026-11-28T12:00:00", None),
        ("yesterday", None),
        ("", None),
        (1795867200, None),
        (None, None),
    ],
)
def test_the_time_of_a_receipt_is_when_the_event_occurred(written, done_at):
    assert read(event(payload(), occurred_at=written)).done_at == done_at


# Signatures


def forged(request: WebhookRequest, **more: object) -> ForgedReason:
    with pytest.raises(WebhookForged) as refused:
        webhooks(**more).verify(request)
    return refused.value.reason


def came(at: int = SECONDS, now: datetime = NOW, **headers: str | None) -> WebhookRequest:
    """An event, signed at a time in Unix seconds, with some headers replaced or left out."""
    request = as_came(signed(URL, event(payload()), at))
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    left = {name: value for name, value in {**request.headers, **changed}.items() if value}
    return replace(request, headers=left, at=now)


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_a_signature_counts_for_five_minutes_in_both_directions(seconds):
    webhooks().verify(came(SECONDS + seconds))


@pytest.mark.parametrize("seconds", [-86_400, -301, 301, 86_400])
def test_an_older_or_a_later_signature_is_refused(seconds):
    assert forged(came(SECONDS + seconds)) is ForgedReason.TOO_OLD


@pytest.mark.parametrize(
    "timestamp",
    [
        *("+1795867200", "-1795867200", "01795867200", "1795867200.0", "1.7958672e9"),
        *(" 1795867200", "1795867200 ", "1795867200\n", "1_795_867_200", "0x6B0A5F40"),
        *("²", "١٧٩٥٨٦٧٢٠٠", "1" * 13, "9" * 5000, "2026-11-28T12:00:00Z", "nan"),
    ],
)
def test_only_unix_seconds_in_digits_are_a_time_even_if_they_are_signed(timestamp):
    body = event(payload())
    signature = PRIVATE_KEY.sign(timestamp.encode() + b"|" + body)
    request = came(
        telnyx_timestamp=timestamp, telnyx_signature_ed25519=b64encode(signature).decode()
    )
    assert forged(request) is ForgedReason.BAD_SIGNATURE


@pytest.mark.parametrize("header", ["telnyx_timestamp", "telnyx_signature_ed25519"])
@pytest.mark.parametrize("value", ["", None])
def test_a_request_without_signature_or_time_is_unsigned(header, value):
    assert forged(came(**{header: value})) is ForgedReason.UNSIGNED


@pytest.mark.parametrize(
    "signature",
    [
        *("none", "A" * 86 + "==", "A" * 88, b64encode(bytes(63)).decode(), "é" * 88),
        *(b64encode(bytes(65)).decode(), bytes(64).hex(), "A" * 100_000),
    ],
)
def test_what_is_no_signature_is_refused(signature):
    assert forged(came(telnyx_signature_ed25519=signature)) is ForgedReason.BAD_SIGNATURE


def test_a_signature_with_characters_around_it_is_refused():
    signature = came().headers["telnyx-signature-ed25519"]
    for changed in (f" {signature}", f"{signature}\n", f"{signature[:10]}-{signature[10:]}"):
        assert forged(came(telnyx_signature_ed25519=changed)) is ForgedReason.BAD_SIGNATURE


def test_the_signature_of_another_account_is_refused():
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    reason = forged(came(), public_key=b64encode(other).decode())
    assert reason is ForgedReason.BAD_SIGNATURE


def test_the_address_is_not_signed_so_a_proxy_may_change_it():
    webhooks().verify(replace(came(), url="http://10.0.0.1:8080/elsewhere?x=1"))


# Queries


async def queried(
    carrier: TelnyxCarrier, providers: list[Provider], response: Response, message_id: str = ID
) -> ReceivedReceipt | None:
    carrier.status_of = lambda request: response  # type: ignore[method-assign]
    provider = await bound(carrier, providers)
    return await provider.query(message_id, sender=SENDER)


def record(message: object) -> Response:
    return Response(200, json.dumps({"data": message}).encode())


@pytest.mark.parametrize(("status", "state", "error_class"), STATUSES)
async def test_a_query_reads_the_record_of_the_message(
    carrier, providers, status, state, error_class
):
    message = payload(status, "40002", completed_at="2026-11-28T12:00:01Z")
    receipt = await queried(carrier, providers, record(message))
    assert receipt is not None
    assert (receipt.provider_message_id, receipt.part) == (ID, None)
    assert (receipt.state, receipt.error_class) == (state, error_class)
    assert receipt.done_at == datetime(2026, 11, 28, 12, 0, 1, tzinfo=UTC)
    (request,) = carrier.asked
    assert (request.method, request.target) == ("GET", f"/v2/messages/{ID}")
    assert request.headers["authorization"] == f"Bearer {API_KEY}"


@pytest.mark.parametrize(
    "response",
    [
        problem(404, "10005"),
        problem(429, "10011"),
        problem(500, "10007"),
        record(None),
        record({"id": ID}),
        record(payload(to=[])),
        Response(200, b"{"),
        Response(200, b"x" * 2_000_000),
    ],
    ids=["gone", "throttled", "failed", "null", "no_status", "no_recipient", "cut", "endless"],
)
async def test_a_query_without_an_answer_says_nothing(carrier, providers, response):
    assert await queried(carrier, providers, response) is None


async def test_an_id_is_one_segment_of_the_path_whatever_it_holds(carrier, providers):
    await queried(carrier, providers, record(payload()), "../v2/x?y=1#z é")
    assert carrier.asked[0].target == "/v2/messages/..%2Fv2%2Fx%3Fy%3D1%23z%20%C3%A9"


# Configuration


def test_a_section_has_the_vendors_address_and_polls_after_two_minutes():
    declared = section()
    assert declared.url == "https://api.telnyx.com"
    assert declared.poll_after == timedelta(minutes=2)
    assert declared.splits_messages
    assert not declared.cancel
    assert [(each.key, each.is_literal) for each in declared.secrets()] == [("api_key", False)]


@pytest.mark.parametrize(
    "key", ["", "none", PUBLIC_KEY[:-4], PUBLIC_KEY + "AAAA", "KEY0180_made_up"]
)
def test_what_is_no_public_key_is_refused_and_not_repeated(key):
    with pytest.raises(ValidationError, match="copy the 44 characters") as refused:
        section(public_key=key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize(
    "more",
    [
        {"messaging_profile": "profile"},
        {"messaging_profile": f"{PROFILE}/x"},
        {"encoding": "latin1"},
        {"api_key": "KEY0180_made_up"},
        {"url": "http://api.telnyx.com"},
    ],
)
def test_a_value_of_another_form_is_refused(more):
    with pytest.raises(ValidationError):
        section(**more)


# The page


def test_the_configuration_of_the_page_can_be_used_as_it_is():
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    configuration = parse_configuration(text, AllowedSecrets(("SMSGATEWAY_SECRET_",)))
    declared = configuration.providers["telnyx"]
    assert isinstance(declared, TelnyxConfiguration)
    assert declared.messaging_profile == PROFILE


def rows(heading: str) -> list[list[str]]:
    """The cells of a table of the page."""
    found = re.search(
        rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE
    )
    assert found
    return [line.strip("| ").split(" | ") for line in found[1].splitlines()]


def test_the_page_says_of_every_status_and_every_code_what_it_is_worth():
    states = {
        status: re.findall("`(.*?)`", cells[1])[0]
        for cells in rows("`to[0].status`")
        for status in re.findall("`(.*?)`", cells[0])
    }
    assert states == {status: state.value for status, state in STATES.items()}
    classes = {
        code: re.findall("`(.*?)`", cells[1])[0]
        for cells in rows("code")
        for code in re.findall("`(.*?)`", cells[0])
    }
    assert classes == {code: each.error_class for code, each in TELNYX_CODES.items()}


# Telnyx's own client


@pytest.fixture(scope="module")
def client() -> Path:
    """Telnyx's client for Node, installed once for each of its versions."""
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    version = lock["packages"]["node_modules/telnyx"]["version"]
    folder = cache_folder() / "npm" / f"telnyx-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusively(folder.with_suffix(".lock"), lambda: None):
        if not (folder / "complete").exists():
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(CLIENT / name, folder)
            command = ["npm", "ci", "--silent", "--ignore-scripts"]
            done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            (folder / "complete").touch()
        shutil.copy(CLIENT / "client.js", folder)
    return folder / "client.js"


async def run(client: Path, *arguments: str, given: object) -> Any:
    process = await asyncio.create_subprocess_exec(
        *("node", str(client), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(given).encode())
    assert process.returncode == 0, err.decode()[-2000:]
    return json.loads(out)


@pytest.mark.npm
async def test_the_client_of_telnyx_accepts_and_refuses_the_same_requests(client):
    good = as_came(signed(URL, event(payload())))
    changed = [
        good,
        replace(good, body=good.body + b" "),
        replace(good, body=good.body.replace(b"delivered", b"queued", 1)),
        replace(good, headers={**good.headers, "telnyx-timestamp": "1"}),
        *(
            as_came(signed(URL, event(payload()), int(good.headers["telnyx-timestamp"]) + seconds))
            for seconds in (-400, -200, 200, 400)
        ),
        *(
            replace(
                good, headers={each: good.headers[each] for each in good.headers if each != name}
            )
            for name in ("telnyx-timestamp", "telnyx-signature-ed25519")
        ),
    ]
    given = [
        {"body": each.body.decode(), "headers": each.headers, "key": PUBLIC_KEY} for each in changed
    ]
    theirs = await run(client, "verify", given=given)
    ours = []
    for each in changed:
        try:
            webhooks().verify(each)
        except WebhookForged:
            ours.append(False)
        else:
            ours.append(True)
    assert ours == theirs
    assert [ours.count(True), ours.count(False)] == [3, 7]


@pytest.mark.npm
async def test_the_client_of_telnyx_sends_the_same_request_and_reads_the_same_response(
    client, carrier, providers
):
    provider = await bound(carrier, providers, messaging_profile=PROFILE, encoding="ucs2")
    await submit(provider, outbound(sender="ACME", receipt_token="token"))
    (ours,) = carrier.asked
    found = await run(client, "send", carrier.url, API_KEY, given=json.loads(ours.body))
    theirs = carrier.asked[1]
    assert (theirs.method, theirs.target) == (ours.method, ours.target)
    assert json.loads(theirs.body) == json.loads(ours.body)
    assert theirs.headers["authorization"] == ours.headers["authorization"]
    assert found["id"] == carrier.received[1].id
    assert found["to"][0]["status"] == "queued"

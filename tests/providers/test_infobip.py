"""What is special to Infobip: its requests, ids, statuses, errors, reports, logs and credentials."""

import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import ValidationError

from domain.configuration.providers.infobip import InfobipConfiguration, checked_password
from domain.error_classes import ErrorClass
from domain.outcomes import OutcomeKind, PartOutcome
from domain.provider_codes.infobip import INFOBIP_CODES
from domain.receipts import FAILURES, PartIdentity, ReceiptState
from domain.secrets import AllowedSecrets
from providers.base import Provider, ProviderSinks, ReceivedReceipt
from providers.http import HttpResponse
from providers.infobip import InfobipProvider, InfobipWebhooks, message_id, part_with
from providers.webhooks import (
    ForgedReason,
    UnreadableWebhook,
    WebhookForged,
    WebhookRequest,
    stored_request,
)
from settings.configuration_file import parse_configuration
from tests.fakes.carrier import Accept, LoseResponse, Raw, Response, Sent, as_came
from tests.fakes.infobip_carrier import API_KEY, InfobipCarrier, error, status
from tests.providers.test_contract import (
    RECIPIENT,
    SENDER,
    TEXT,
    bound,
    outbound,
    submit,
)

PAGE = Path(__file__).parents[2] / "docs/providers/infobip.md"
MESSAGE = UUID(int=7)
PART = PartIdentity(MESSAGE, 2, 1)
ID = "00000000-0000-0000-0000-000000000007-2-1"
OTHER_ID = "00000000-0000-0000-0000-000000000008-1-1"
URL = "https://sms.example.com/webhooks/providers/primary/receipts/token"
NO_ERROR = error(0, 0, permanent=False)
CREDENTIALS = {
    "webhook_user": "reports",
    "webhook_password": "env:SMSGATEWAY_SECRET_WEBHOOK",
}
WEBHOOK_PASSWORD = "made-up password: ü"
ACCEPTED, THROTTLED, REFUSED, UNREACHABLE, UNKNOWN = OutcomeKind


@pytest.fixture
async def carrier() -> AsyncIterator[InfobipCarrier]:
    async with InfobipCarrier() as started:
        yield started


def declared(**more: object) -> InfobipConfiguration:
    section = {
        "type": "infobip",
        "url": "https://xyz123.api.infobip.com",
        "api_key": "env:SMSGATEWAY_SECRET_INFOBIP",
    }
    return InfobipConfiguration.model_validate(section | more)


def webhooks(**more: object) -> InfobipWebhooks:
    return InfobipWebhooks("primary", declared(**more), {"webhook_password": WEBHOOK_PASSWORD})


def report(**more: object) -> dict[str, Any]:
    """A report of a message that was delivered, as documented for v3."""
    return {
        "bulkId": "BULK-ID-123-xyz",
        "messageId": ID,
        "to": "447700900123",
        "sender": "ACME",
        "sentAt": "2026-11-28T12:00:00.000+0000",
        "doneAt": "2026-11-28T12:00:04.250+0000",
        "messageCount": 2,
        "mccMnc": "23410",
        "callbackData": None,
        "price": {"pricePerMessage": 0.01, "currency": "EUR"},
        "status": status(5, 3),
        "error": NO_ERROR,
    } | more


def request_of(*reports: object) -> WebhookRequest:
    return stored_request(json.dumps({"results": reports}).encode())


def received(
    *reports: object, part: PartIdentity | None = PART, **more: object
) -> Sequence[ReceivedReceipt]:
    return webhooks(**more).receipts(request_of(*reports), part)


def failed(number: int, group: int, **more: object) -> ReceivedReceipt:
    """The receipt of a report with this status."""
    (receipt,) = received(report(status=status(number, group)) | more)
    return receipt


async def refused(body: object, http: int = 200, **more: object) -> PartOutcome:
    """What a response means to the adapter."""
    provider = InfobipProvider(
        "primary", declared(**more), {"api_key": API_KEY}, ProviderSinks(on_receipt=nothing)
    )
    try:
        return provider._outcome(1, HttpResponse(http, httpx.Headers(), json.dumps(body).encode()))
    finally:
        await provider.stop(timedelta())


async def nothing(_: ReceivedReceipt) -> None:
    return None


def answer(number: object, group: object, **more: object) -> dict[str, Any]:
    return {"bulkId": "b", "messages": [{"messageId": ID, "status": status(number, group)} | more]}  # type: ignore[arg-type]


# Requests


async def sent_as(carrier: InfobipCarrier, provider: Provider, **more: Any) -> Any:
    """The body of the request for a message."""
    await submit(provider, outbound(**more))
    return json.loads(carrier.asked[-1].body)


async def test_a_message_is_sent_exactly_as_documented(carrier, providers):
    provider = await bound(carrier, providers)
    message = outbound()
    await submit(provider, message)
    (request,) = carrier.asked
    assert (request.method, request.target) == ("POST", "/sms/3/messages")
    assert request.headers["authorization"] == f"App {API_KEY}"
    assert request.headers["accept"] == "application/json"
    body = json.loads(request.body)
    (sent,) = body["messages"]
    validity = sent.pop("options").pop("validityPeriod")
    assert 3500 < validity.pop("amount") <= 3600
    assert validity == {"timeUnit": "SECONDS"}
    assert sent == {
        "sender": "12025550143",
        "destinations": [{"to": "447700900123", "messageId": f"{message.message_id}-2-1"}],
        "content": {"text": TEXT},
        "webhooks": {
            "delivery": {
                "url": "https://sms.example.com/webhooks/providers/primary/receipts/"
                + message.receipt_token
            },
            "contentType": "application/json",
        },
    }
    assert body["options"] == {"includeSmsCountInResponse": True}


@pytest.mark.parametrize("sender", ["ACME", "12345", "Team 24/7"])
async def test_names_and_short_codes_are_sent_as_they_are(carrier, providers, sender):
    provider = await bound(carrier, providers)
    body = await sent_as(carrier, provider, sender=sender)
    assert body["messages"][0]["sender"] == sender


async def test_requests_can_be_made_with_user_and_password(carrier, providers):
    provider = await bound(
        carrier,
        providers,
        api_key=None,
        user="acme",
        password="env:SMSGATEWAY_SECRET_PASSWORD",
        secrets={"password": "pass:word ü"},
    )
    outcome = await submit(provider, outbound())
    assert outcome.error_class is ErrorClass.ACCOUNT, "the fake knows only its API key"
    expected = b64encode("acme:pass:word ü".encode()).decode()
    assert carrier.asked[0].headers["authorization"] == f"Basic {expected}"


@pytest.mark.parametrize(
    ("lasts", "seconds"),
    [(timedelta(seconds=-5), 1), (timedelta(hours=47), 169_200), (timedelta(days=5), 172_800)],
)
async def test_the_validity_is_at_least_a_second_and_at_most_two_days(
    carrier, providers, lasts, seconds
):
    provider = await bound(carrier, providers)
    body = await sent_as(carrier, provider, valid_until=datetime.now(UTC) + lasts)
    validity = body["messages"][0]["options"]["validityPeriod"]
    assert seconds - 30 <= validity["amount"] <= seconds
    assert validity["amount"] >= 1


async def test_a_message_without_validity_leaves_it_to_infobip(carrier, providers):
    provider = await bound(carrier, providers)
    body = await sent_as(carrier, provider, valid_until=None)
    assert "options" not in body["messages"][0]


async def test_the_ids_of_indian_templates_and_campaigns_are_sent(carrier, providers):
    provider = await bound(carrier, providers)
    parameters = {
        "entity_id": "1101234567890123456",
        "template_id": "1107161234567890123",
        "telemarketer_id": "1102",
        "campaign_reference_id": "spring",
        "other": "ignored",
    }
    body = await sent_as(carrier, provider, parameters=parameters, valid_until=None)
    assert body["messages"][0]["options"] == {
        "campaignReferenceId": "spring",
        "regional": {
            "indiaDlt": {
                "principalEntityId": "1101234567890123456",
                "contentTemplateId": "1107161234567890123",
                "telemarketerId": "1102",
            }
        },
    }
    assert declared().known_parameters() == set(parameters) - {"other"}


async def test_a_template_without_its_entity_is_not_sent(carrier, providers):
    provider = await bound(carrier, providers)
    outcome = await submit(provider, outbound(parameters={"template_id": "1107"}))
    assert (outcome.kind, outcome.code) == (REFUSED, "unusable_parameter")
    assert carrier.asked == []


async def test_a_text_that_is_too_long_is_not_sent(carrier, providers):
    provider = await bound(carrier, providers)
    outcome = await submit(provider, outbound("x" * 4001))
    assert (outcome.kind, outcome.code) == (REFUSED, "unsendable_text")
    assert carrier.asked == []
    assert (await submit(provider, outbound("x" * 4000))).kind is ACCEPTED


async def test_without_a_public_address_infobip_reports_to_its_subscriptions(carrier):
    sinks = ProviderSinks(on_receipt=nothing)
    configuration = InfobipConfiguration.model_validate(carrier.section())
    provider = InfobipProvider("primary", configuration, carrier.secrets, sinks)
    request = provider._request(outbound())
    await provider.stop(timedelta())
    assert "webhooks" not in json.loads(request.content)["messages"][0]


# Ids


def test_the_id_of_a_part_is_always_the_same_and_names_the_part():
    assert message_id(PART) == ID
    assert part_with(ID) == PART


@pytest.mark.parametrize(
    "written",
    [
        "",
        "MESSAGE-ID-123-xyz",
        str(MESSAGE),
        f"{MESSAGE}-2",
        f"{MESSAGE}-0-1",
        f"{MESSAGE}-2-0",
        f"{MESSAGE}-02-1",
        f"{MESSAGE}-32768-1",
        f"{MESSAGE}-2-1000",
        f" {ID}",
        f"{ID}\n",
        ID.replace("7", "٧"),  # noqa: RUF001 - digits of another script
    ],
)
def test_another_id_names_no_part(written):
    assert part_with(written) is None


async def test_the_refusal_of_a_repeat_proves_that_the_first_request_has_arrived(
    carrier, providers
):
    carrier.behaviours.append(LoseResponse())
    provider = await bound(carrier, providers, response_timeout="2s")
    outcome = await submit(provider, outbound())
    first, repeated = carrier.asked
    assert first.body == repeated.body
    assert len(carrier.received) == 1
    assert (outcome.kind, outcome.provider_message_id) == (ACCEPTED, carrier.received[0].id)
    assert (outcome.code, outcome.error_class) == ("", None)


@pytest.mark.parametrize(
    "body", [answer(23, 5, messageId=None), answer(26, 1, messageId=None)], ids=["repeat", "first"]
)
async def test_an_accepted_message_has_our_id_where_the_response_has_none(carrier, providers, body):
    carrier.behaviours.append(Raw(200, {}, json.dumps(body).encode()))
    provider = await bound(carrier, providers)
    message = outbound()
    outcome = await submit(provider, message)
    assert outcome.kind is ACCEPTED
    assert outcome.provider_message_id == f"{message.message_id}-2-1"


async def test_a_repeat_that_is_refused_for_another_reason_proves_nothing(carrier, providers):
    refusal = Raw(200, {}, json.dumps(answer(12, 5)).encode())
    carrier.behaviours += [LoseResponse(), refusal]
    provider = await bound(carrier, providers, response_timeout="2s")
    assert (await submit(provider, outbound())).kind is UNKNOWN


async def test_each_attempt_has_an_id_of_its_own(carrier, providers):
    carrier.behaviours += [Accept(), Accept()]
    provider = await bound(carrier, providers)
    message = outbound()
    for attempt in (1, 2):
        await submit(provider, outbound(message_id=message.message_id, attempt=attempt))
    assert [sent.id for sent in carrier.received] == [
        f"{message.message_id}-1-1",
        f"{message.message_id}-2-1",
    ]


# Responses

REFUSALS = [
    (6, ErrorClass.ACCOUNT),
    (8, ErrorClass.INVALID_RECIPIENT),
    (10, ErrorClass.BLOCKED),
    (11, ErrorClass.UNREGISTERED_SENDER),
    (12, ErrorClass.ACCOUNT),
    (13, ErrorClass.ROUTE),
    (14, ErrorClass.OPTED_OUT),
    (17, ErrorClass.ACCOUNT),
    (18, ErrorClass.ACCOUNT),
    (19, ErrorClass.ACCOUNT),
    (20, ErrorClass.THROTTLED),
    (21, ErrorClass.TEMPORARY),
    (24, ErrorClass.ROUTE),
    (25, ErrorClass.ROUTE),
    (51, ErrorClass.INVALID_RECIPIENT),
    (52, ErrorClass.INVALID_RECIPIENT),
    (87, ErrorClass.BLOCKED),
    (100, ErrorClass.TEMPORARY),
    (9999, ErrorClass.ROUTE),
]


@pytest.mark.parametrize(("number", "error_class"), REFUSALS)
async def test_a_successful_request_can_hold_the_refusal_of_its_message(number, error_class):
    outcome = await refused(answer(number, 5))
    kind = THROTTLED if error_class is ErrorClass.THROTTLED else REFUSED
    assert (outcome.kind, outcome.code) == (kind, f"status_{number}")
    assert outcome.error_class is error_class
    assert outcome.provider_message_id is None


@pytest.mark.parametrize(
    ("number", "group", "error_class"),
    [
        (4, 2, ErrorClass.UNDELIVERED),
        (9, 2, ErrorClass.UNDELIVERED),
        (31, 2, ErrorClass.UNDELIVERED),
        (9999, 2, ErrorClass.UNDELIVERED),
        (15, 4, ErrorClass.UNDELIVERED),
        (9999, 4, ErrorClass.UNDELIVERED),
    ],
)
async def test_a_message_that_failed_at_once_is_refused(number, group, error_class):
    outcome = await refused(answer(number, group))
    assert (outcome.kind, outcome.error_class) == (REFUSED, error_class)


@pytest.mark.parametrize(
    ("number", "group"),
    [(26, 1), (7, 1), (3, 1), (9999, 1), (2, 3), (5, 3), (0, 0), (23, 5), ("26", "1")],
)
async def test_a_message_on_its_way_is_accepted_with_its_segments(number, group):
    outcome = await refused(answer(number, group, details={"messageCount": 3}))
    assert outcome.kind is ACCEPTED
    assert outcome.provider_message_id == ID
    assert (outcome.segments, outcome.price) == (3, None)


@pytest.mark.parametrize(
    "body",
    [
        answer(29, 4),
        answer(9999, 9),
        answer(None, None),
        answer([], {}),
        answer(-1, True),
        {"messages": []},
        {"messages": [None]},
        {"messages": {"status": 5}},
        {"messages": [{"messageId": ID}]},
        {"messages": [{"messageId": ID, "status": "26"}]},
        {},
    ],
)
async def test_a_response_without_a_status_that_is_known_leaves_the_outcome_unknown(body):
    outcome = await refused(body)
    assert (outcome.kind, outcome.error_class) == (UNKNOWN, ErrorClass.UNKNOWN)


@pytest.mark.parametrize("details", [None, [], {}, {"messageCount": 0}, {"messageCount": 10**9}])
async def test_segments_that_cannot_be_are_left_out(details):
    assert (await refused(answer(26, 1, details=details))).segments is None


V3 = {"errorCode": "E400", "description": "…", "action": "…", "violations": [], "resources": []}


def v2(code: str) -> Mapping[str, Any]:
    return {"requestError": {"serviceException": {"messageId": code, "text": "…"}}}


@pytest.mark.parametrize(
    ("http", "body", "code", "kind", "error_class"),
    [
        (400, V3, "E400", REFUSED, ErrorClass.ROUTE),
        (401, V3 | {"errorCode": "E401"}, "E401", REFUSED, ErrorClass.ACCOUNT),
        (403, V3 | {"errorCode": "E403"}, "E403", REFUSED, ErrorClass.ACCOUNT),
        (404, V3 | {"errorCode": "E404"}, "E404", REFUSED, ErrorClass.ACCOUNT),
        (429, V3 | {"errorCode": "E429"}, "E429", THROTTLED, ErrorClass.THROTTLED),
        (500, V3 | {"errorCode": "E500"}, "E500", UNKNOWN, ErrorClass.UNKNOWN),
        (400, v2("BAD_REQUEST"), "BAD_REQUEST", REFUSED, ErrorClass.ROUTE),
        (401, v2("UNAUTHORIZED"), "UNAUTHORIZED", REFUSED, ErrorClass.ACCOUNT),
        (429, v2("TOO_MANY_REQUESTS"), "TOO_MANY_REQUESTS", THROTTLED, ErrorClass.THROTTLED),
        (400, {"requestError": 7}, "http_400", REFUSED, ErrorClass.ROUTE),
        (400, [], "http_400", REFUSED, ErrorClass.ROUTE),
    ],
)
async def test_a_request_that_failed_has_the_code_of_its_body_and_the_class_of_its_status(
    http, body, code, kind, error_class
):
    outcome = await refused(body, http)
    assert (outcome.kind, outcome.code, outcome.error_class) == (kind, code, error_class)


async def test_the_configuration_gives_statuses_and_errors_classes_of_their_own():
    errors = {"status_6": "route", "error_6": "blocked"}
    assert (await refused(answer(6, 5), errors=errors)).error_class is ErrorClass.ROUTE
    (receipt,) = received(
        report(status=status(9, 2), error=error(6, 1, permanent=False)), errors=errors
    )
    assert receipt.error_class is ErrorClass.BLOCKED


def test_the_configured_class_of_a_status_counts_for_an_error_that_is_not_known():
    (receipt,) = received(
        report(status=status(9, 2), error=error(9999, 3, permanent=True)),
        errors={"status_9": "blocked"},
    )
    assert (receipt.code, receipt.error_class) == ("error_9999", ErrorClass.BLOCKED)


# Reports


def test_a_report_is_read_as_documented():
    (receipt,) = received(report())
    assert receipt == ReceivedReceipt(
        provider="primary",
        provider_message_id=ID,
        state=ReceiptState.DELIVERED,
        code="status_5",
        network="23410",
        reference=None,
        sender="ACME",
        recipient="+447700900123",
        done_at=datetime(2026, 11, 28, 12, 0, 4, 250_000, tzinfo=UTC),
        part=PART,
    )


def test_a_report_of_the_older_api_is_read():
    written = report()
    del written["sender"], written["messageCount"]
    (receipt,) = received(written | {"from": "12025550143", "smsCount": 2})
    assert (receipt.sender, receipt.recipient) == (SENDER, RECIPIENT)
    assert receipt.state is ReceiptState.DELIVERED


STATES = [
    (26, 1, ReceiptState.ACCEPTED, None),
    (7, 1, ReceiptState.ENROUTE, None),
    (3, 1, ReceiptState.ENROUTE, None),
    (9999, 1, ReceiptState.ENROUTE, None),
    (0, 0, ReceiptState.ACCEPTED, None),
    (2, 3, ReceiptState.ENROUTE, None),
    (5, 3, ReceiptState.DELIVERED, None),
    (9999, 3, ReceiptState.DELIVERED, None),
    (4, 2, ReceiptState.UNDELIVERABLE, ErrorClass.UNDELIVERED),
    (9, 2, ReceiptState.UNDELIVERABLE, ErrorClass.UNDELIVERED),
    (31, 2, ReceiptState.UNDELIVERABLE, ErrorClass.UNDELIVERED),
    (9999, 2, ReceiptState.UNDELIVERABLE, None),
    (15, 4, ReceiptState.EXPIRED, ErrorClass.UNDELIVERED),
    (9999, 4, ReceiptState.EXPIRED, None),
    (29, 4, ReceiptState.UNKNOWN, None),
    (87, 4, ReceiptState.REJECTED, ErrorClass.BLOCKED),
    (87, 5, ReceiptState.REJECTED, ErrorClass.BLOCKED),
    (9999, 5, ReceiptState.REJECTED, None),
    (9999, 9, ReceiptState.ENROUTE, None),
]


@pytest.mark.parametrize(("number", "group", "state", "error_class"), STATES)
def test_a_status_decides_the_state(number, group, state, error_class):
    receipt = failed(number, group)
    assert (receipt.state, receipt.error_class) == (state, error_class)
    assert receipt.code == f"status_{number}"


@pytest.mark.parametrize(("number", "error_class"), [each for each in REFUSALS if each[0] != 9999])
def test_the_status_of_a_rejected_message_decides_its_class_without_an_error(number, error_class):
    receipt = failed(number, 5)
    assert (receipt.state, receipt.code) == (ReceiptState.REJECTED, f"status_{number}")
    assert receipt.error_class is error_class


def test_a_report_about_a_refused_repeat_does_not_fail_the_message():
    receipt = failed(23, 5)
    assert (receipt.state, receipt.error_class) == (ReceiptState.ACCEPTED, None)


ERRORS = {
    ErrorClass.INVALID_RECIPIENT: [1, 3041, 351, 352],
    ErrorClass.UNDELIVERED: [
        *(5, 6, 27, 8, 31, 33, 256, 628, 1031, *range(1152, 1167)),
        *(13, 569, 581),
    ],
    ErrorClass.LANDLINE: [7, 9, 11, 12, 21, 568, 629],
    ErrorClass.BLOCKED: [10, 15, 560, 566, 632, 2049, 2050, 608],
    ErrorClass.CONTENT_FILTERED: [561, 607, 2051],
    ErrorClass.OPTED_OUT: [573, 603, 2052],
    ErrorClass.ROUTE: [368, 375, 564, 2053, 345, 592, 597, 633, 355, 4096],
    ErrorClass.UNREGISTERED_SENDER: [488, 562, 563, 571, 572, 594],
    ErrorClass.THROTTLED: [541, 542, 4202, 4103, 4104, 609],
    ErrorClass.ACCOUNT: [4099, 433],
    ErrorClass.TEMPORARY: [
        *(34, 51, 255, 260, 500, 501, *range(503, 510), 630, 631, *range(1024, 1031)),
        *(1281, 1284, 1536, 1541, 1792, 1796, 2048, 4097),
    ],
    ErrorClass.INVALID_MESSAGE: [5492],
}


@pytest.mark.parametrize(
    ("number", "error_class"),
    [(number, error_class) for error_class, numbers in ERRORS.items() for number in numbers],
)
def test_the_error_of_a_failed_message_decides_its_class(number, error_class):
    receipt = failed(4, 2, error=error(number, 1, permanent=True))
    assert (receipt.state, receipt.code) == (ReceiptState.UNDELIVERABLE, f"error_{number}")
    assert receipt.error_class is error_class


@pytest.mark.parametrize("number", [811, 4098, 4100, 4101])
def test_an_error_of_time_makes_a_message_expired(number):
    receipt = failed(9, 2, error=error(number, 2, permanent=True))
    assert (receipt.state, receipt.error_class) == (ReceiptState.EXPIRED, ErrorClass.UNDELIVERED)


@pytest.mark.parametrize("number", [502, 815])
def test_an_operator_that_did_not_answer_leaves_the_message_unknown(number):
    receipt = failed(4, 2, error=error(number, 3, permanent=False))
    assert (receipt.state, receipt.code) == (ReceiptState.UNKNOWN, f"error_{number}")
    assert receipt.error_class is None


@pytest.mark.parametrize("number", [1, 502, 4101])
@pytest.mark.parametrize(
    ("status_id", "group", "state"),
    [
        (5, 3, ReceiptState.DELIVERED),
        (3, 1, ReceiptState.ENROUTE),
        (2, 3, ReceiptState.ENROUTE),
        (29, 4, ReceiptState.UNKNOWN),
        (23, 5, ReceiptState.ACCEPTED),
    ],
)
def test_the_error_of_a_message_that_has_not_failed_does_not_count(status_id, group, state, number):
    receipt = failed(status_id, group, error=error(number, 1, permanent=True))
    assert (receipt.state, receipt.code) == (state, f"status_{status_id}")
    assert receipt.error_class is None


def test_statuses_and_errors_with_one_number_mean_different_things():
    assert failed(6, 5).error_class is ErrorClass.ACCOUNT
    receipt = failed(9, 2, error=error(6, 1, permanent=False))
    assert (receipt.code, receipt.error_class) == ("error_6", ErrorClass.UNDELIVERED)


@pytest.mark.parametrize(
    ("status_id", "given", "error_class"),
    [
        (11, error(9999, 1, permanent=True), ErrorClass.UNREGISTERED_SENDER),
        (13, error(9999, 3, permanent=False), ErrorClass.TEMPORARY),
        (13, {"id": 9999}, None),
        (9998, error(9999, 1, permanent=True), ErrorClass.UNDELIVERED),
        (9998, error(9999, 2, permanent=True), ErrorClass.ROUTE),
        (9998, error(9999, 3, permanent=True), ErrorClass.ROUTE),
        (9998, error(9999, 3, permanent=False), ErrorClass.TEMPORARY),
        (9998, error(9999, 7, permanent=False), None),
        (9998, {"id": 9999}, None),
    ],
)
def test_an_error_that_is_not_known_has_the_class_of_the_status_or_of_its_group(
    status_id, given, error_class
):
    receipt = failed(status_id, 5, error=given)
    assert (receipt.code, receipt.error_class) == ("error_9999", error_class)


@pytest.mark.parametrize("given", [None, [], "27", {}, {"id": None}, {"id": "x"}, {"id": -1}])
def test_an_error_that_cannot_be_read_leaves_the_status(given):
    receipt = failed(11, 5, error=given)
    assert (receipt.code, receipt.error_class) == ("status_11", ErrorClass.UNREGISTERED_SENDER)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-11-28T12:00:00.000+0000", datetime(2026, 11, 28, 12, tzinfo=UTC)),
        ("2026-11-28T09:00:00.000-0300", datetime(2026, 11, 28, 12, tzinfo=UTC)),
        ("2026-11-28T12:00:00Z", datetime(2026, 11, 28, 12, tzinfo=UTC)),
        ("2026-11-28T12:00:00.000", None),
        ("2026-13-28T12:00:00.000+0000", None),
        ("yesterday", None),
        (1_795_867_200, None),
        (None, None),
        ([], None),
    ],
)
def test_the_time_of_a_report_counts_with_its_zone(written, moment):
    (receipt,) = received(report(doneAt=written))
    assert receipt.done_at == moment


@pytest.mark.parametrize("written", ["null", "", "2341", "2341000", "23٤10", None, [], True, 12.5])
def test_a_network_that_is_none_is_left_out(written):
    (receipt,) = received(report(mccMnc=written))
    assert receipt.network is None


@pytest.mark.parametrize(
    ("written", "sender"),
    [
        ("12025550143", SENDER),
        ("+12025550143", SENDER),
        ("12345", "12345"),
        ("12345678", "12345678"),
        ("Team 24/7", "Team 24/7"),
        ("", None),
        (None, None),
        ([], None),
    ],
)
def test_a_sender_is_read_as_it_was_accepted(written, sender):
    (receipt,) = received(report(sender=written))
    assert receipt.sender == sender


@pytest.mark.parametrize("written", ["", "x", "44 7700", "4" * 40, None, {}, True])
def test_a_recipient_that_is_no_number_is_left_out(written):
    (receipt,) = received(report(to=written))
    assert receipt.recipient is None


# Which attempt a report is for


def test_the_address_names_the_attempt_of_a_report_with_an_id_that_is_not_ours():
    (receipt,) = received(report(messageId="MESSAGE-ID-123-xyz"))
    assert (receipt.part, receipt.provider_message_id) == (PART, "MESSAGE-ID-123-xyz")
    (receipt,) = received(report(messageId=None))
    assert (receipt.part, receipt.provider_message_id) == (PART, "")


def test_the_address_does_not_name_the_attempt_of_a_report_with_another_id_of_ours():
    (receipt,) = received(report(messageId=OTHER_ID))
    assert (receipt.part, receipt.provider_message_id) == (None, OTHER_ID)


def test_of_several_reports_the_address_names_only_the_attempt_of_its_own():
    ours, another, foreign = received(
        report(), report(messageId=OTHER_ID), report(messageId="MESSAGE-ID-123-xyz")
    )
    assert [each.part for each in (ours, another, foreign)] == [PART, None, None]
    assert another.provider_message_id == OTHER_ID


def test_at_the_providers_own_address_our_id_names_the_attempt():
    ours, foreign = received(report(), report(messageId="MESSAGE-ID-123-xyz"), part=None)
    assert (ours.part, foreign.part) == (PART, None)


def test_a_hundred_reports_are_read_in_their_order():
    ids = [f"{UUID(int=number)}-1-1" for number in range(100)]
    receipts = received(*(report(messageId=id_) for id_ in ids), part=None)
    assert [each.provider_message_id for each in receipts] == ids


UNREADABLE = [
    None,
    7,
    [],
    "delivered",
    {},
    {"messageId": OTHER_ID},
    {"messageId": OTHER_ID, "status": None},
    {"messageId": OTHER_ID, "status": "DELIVERED"},
    {"messageId": OTHER_ID, "status": {"id": [], "groupId": {}}},
    {"messageId": OTHER_ID, "status": {"id": 10**30}},
    {"status": status(5, 3)},
    {"messageId": {}, "status": status(5, 3)},
]


@pytest.mark.parametrize("unreadable", UNREADABLE)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_report_that_cannot_be_read_does_not_lose_the_others(unreadable, place):
    readable = [report(), report(messageId=OTHER_ID)]
    with pytest.raises(UnreadableWebhook) as found:
        received(*readable[:place], unreadable, *readable[place:])
    assert [each.provider_message_id for each in found.value.receipts] == [ID, OTHER_ID]
    assert [each.part for each in found.value.receipts] == [PART, None]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"null", b"[]", b'{"results":{}}', b'{"messages":[]}', b"7"]
)
def test_a_request_without_a_list_of_reports_is_unreadable(body):
    with pytest.raises(UnreadableWebhook) as found:
        webhooks().receipts(stored_request(body), PART)
    assert list(found.value.receipts) == []


def test_an_empty_list_of_reports_has_no_receipts():
    assert list(received()) == []


# Credentials of reports


def called(authorization: str | None) -> WebhookRequest:
    headers = {} if authorization is None else {"authorization": authorization}
    body = request_of(report()).body
    return WebhookRequest("POST", URL, headers, body, datetime.now(UTC))


def basic(user: str, password: str, scheme: str = "Basic") -> str:
    return f"{scheme} {b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_a_report_with_the_configured_credentials_is_accepted(scheme):
    webhooks(**CREDENTIALS).verify(called(basic("reports", WEBHOOK_PASSWORD, scheme)))


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, ForgedReason.UNSIGNED),
        ("", ForgedReason.UNSIGNED),
        ("Basic", ForgedReason.UNSIGNED),
        ("Basic ", ForgedReason.UNSIGNED),
        (basic("reports", ""), ForgedReason.BAD_SIGNATURE),
        (basic("reports", WEBHOOK_PASSWORD[:-1]), ForgedReason.BAD_SIGNATURE),
        (basic("reports", f"{WEBHOOK_PASSWORD}x"), ForgedReason.BAD_SIGNATURE),
        (basic("Reports", WEBHOOK_PASSWORD), ForgedReason.BAD_SIGNATURE),
        (basic("", WEBHOOK_PASSWORD), ForgedReason.BAD_SIGNATURE),
        (basic("reports", WEBHOOK_PASSWORD, "Bearer"), ForgedReason.BAD_SIGNATURE),
        (basic("reports", WEBHOOK_PASSWORD)[:-1], ForgedReason.BAD_SIGNATURE),
        ("Basic é%%%", ForgedReason.BAD_SIGNATURE),
    ],
)
def test_a_report_with_other_credentials_is_refused(authorization, reason):
    with pytest.raises(WebhookForged) as found:
        webhooks(**CREDENTIALS).verify(called(authorization))
    assert found.value.reason is reason


def test_without_configured_credentials_the_address_alone_protects_the_reports():
    webhooks().verify(called(None))


async def test_with_credentials_messages_leave_the_address_to_the_subscription(carrier, providers):
    provider = await bound(carrier, providers, **CREDENTIALS)
    body = await sent_as(carrier, provider)
    assert "webhooks" not in body["messages"][0]


async def test_a_report_of_the_subscription_names_its_attempt(carrier, providers):
    provider = await bound(carrier, providers, **CREDENTIALS)
    message = outbound()
    await submit(provider, message)
    (sent,) = carrier.received
    request = as_came(carrier.receipt(_at(URL, sent), ReceiptState.DELIVERED, ""))
    (receipt,) = webhooks(**CREDENTIALS).receipts(request, None)
    assert receipt.part == PartIdentity(message.message_id, 2, 1)


def _at(url: str, sent: Sent) -> Sent:
    return Sent(sent.id, sent.to, sent.sender, sent.text, url)


# Logs


async def queried(
    carrier: InfobipCarrier, providers: list[Provider], *logs: object
) -> ReceivedReceipt | None:
    """What the adapter makes of these logs of the message with `ID`."""
    body = json.dumps({"results": logs, "cursor": {}}).encode()
    carrier.status_of = lambda _: Response(200, body, {})  # type: ignore[method-assign]
    provider = await bound(carrier, providers)
    found = await provider.query(ID, sender="ACME")
    (request,) = carrier.asked
    assert (request.method, request.target) == ("GET", f"/sms/3/logs?messageId={ID}")
    assert request.headers["authorization"] == f"App {API_KEY}"
    return found


def log(**more: object) -> dict[str, Any]:
    """An entry of the logs, as documented: the recipient is its `destination`."""
    written = report(content={"text": "…"}, **more)
    written["destination"] = written.pop("to")
    return written


async def test_a_missing_report_is_read_from_the_logs(carrier, providers):
    found = await queried(carrier, providers, log())
    assert found is not None
    assert (found.state, found.code, found.part) == (ReceiptState.DELIVERED, "status_5", None)
    assert (found.provider_message_id, found.recipient) == (ID, RECIPIENT)
    assert found.network == "23410"


@pytest.mark.parametrize("first", [True, False])
async def test_the_log_of_a_refused_repeat_does_not_count(carrier, providers, first):
    logs = [log(status=status(23, 5)), log(status=status(9, 2))]
    found = await queried(carrier, providers, *(logs if first else reversed(logs)))
    assert found is not None
    assert found.state is ReceiptState.UNDELIVERABLE


async def test_of_several_logs_the_final_one_counts(carrier, providers):
    found = await queried(carrier, providers, log(status=status(7, 1)), log())
    assert found is not None
    assert found.state is ReceiptState.DELIVERED


@pytest.mark.parametrize(
    "logs",
    [[], [None], [log(messageId=OTHER_ID)], [log(status=None)], [log(status=status(23, 5))]],
)
async def test_logs_that_say_nothing_of_the_message_are_no_answer(carrier, providers, logs):
    assert await queried(carrier, providers, *logs) is None


@pytest.mark.parametrize(
    "response",
    [
        Response(429, b"{}"),
        Response(500, b""),
        Response(200, b"{"),
        Response(200, b"[]"),
        Response(200, b'{"results":7}'),
    ],
)
async def test_a_failed_question_is_no_answer(carrier, providers, response):
    carrier.status_of = lambda _: response
    provider = await bound(carrier, providers)
    assert await provider.query(ID, sender="ACME") is None


# Configuration


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"url": "http://xyz123.api.infobip.com"}, "it begins with https://"),
        ({"api_key": None}, "give either api_key, or user and password"),
        ({"user": "a", "password": "env:B"}, "give either api_key, or user and password"),
        ({"user": "a"}, "user and password belong together"),
        ({"api_key": None, "password": "env:B"}, "user and password belong together"),
        ({"webhook_user": "a"}, "webhook_user and webhook_password belong together"),
        ({"webhook_password": "env:B"}, "webhook_user and webhook_password belong together"),
        ({"webhook_user": "a:b", "webhook_password": "env:B"}, "String should match pattern"),
    ],
)
def test_a_section_that_cannot_work_is_refused(more, sentence):
    with pytest.raises(ValidationError, match=sentence):
        declared(**more)


def test_the_address_of_the_account_is_required():
    section = {"type": "infobip", "api_key": "env:SMSGATEWAY_SECRET_INFOBIP"}
    with pytest.raises(ValidationError, match="the address of the API is missing: url"):
        InfobipConfiguration.model_validate(section)


@pytest.mark.parametrize("password", ["", "a\nb", "a\0b", "\udc80"])
def test_a_password_that_cannot_be_sent_is_refused_without_being_shown(password):
    with pytest.raises(ValueError, match="the password is empty, or has characters") as found:
        checked_password(password)
    assert not password or password not in str(found.value)


def test_a_password_can_have_blanks_colons_and_letters_of_any_language():
    assert checked_password("pass: wörd") == "pass: wörd"


def test_the_secrets_are_those_that_are_configured():
    assert [each.key for each in declared().secrets()] == ["api_key"]
    every = declared(api_key=None, user="a", password="env:B", **CREDENTIALS)
    assert [each.key for each in every.secrets()] == ["password", "webhook_password"]


# The page


def test_the_configurations_of_the_page_can_be_used_as_they_are():
    texts = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    allowed = AllowedSecrets(("SMSGATEWAY_SECRET_",))
    plain, with_credentials = (
        parse_configuration(text, allowed).providers["infobip"] for text in texts
    )
    assert isinstance(plain, InfobipConfiguration)
    assert isinstance(with_credentials, InfobipConfiguration)
    assert (plain.webhook_user, with_credentials.webhook_user) == (None, "infobip")


def rows(heading: str) -> list[list[str]]:
    """The cells of a table of the page."""
    found = re.search(
        rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE
    )
    assert found
    return [line.strip("| ").split(" | ") for line in found[1].splitlines()]


def codes_in(cell: str) -> list[str]:
    """The codes of a cell, such as `error_503` to `error_509`."""
    codes = []
    for first, last in re.findall(r"`(\w+_\d+)`(?: to `\w+_(\d+)`)?", cell):
        table, _, number = first.partition("_")
        codes += [f"{table}_{each}" for each in range(int(number), int(last or number) + 1)]
    return codes


def test_the_page_lists_every_code_with_its_class():
    listed = {
        code: cells[0].strip("`") for cells in rows("error class") for code in codes_in(cells[1])
    } | {
        code: cells[0].strip("`")
        for cells in rows("error class")
        if len(cells) > 2
        for code in codes_in(cells[2])
    }
    assert listed == {
        code: "none" if known.error_class is None else known.error_class.value
        for code, known in INFOBIP_CODES.items()
    }


def test_the_page_lists_the_state_of_every_status():
    listed = {
        code: re.findall(r"`([a-z]+)`", cells[1])[0]
        for cells in rows("status")
        for code in codes_in(cells[0])
    }
    assert listed == {
        code: known.state.value
        for code, known in INFOBIP_CODES.items()
        if code.startswith("status_") and known.state is not None
    }


def test_every_status_has_a_state_and_every_failure_a_class():
    for code, known in INFOBIP_CODES.items():
        if code.startswith("status_"):
            assert known.state is not None
            assert (known.error_class is not None) is (
                known.state in {*FAILURES, ReceiptState.UNKNOWN}
            )
        else:
            assert known.error_class is not None

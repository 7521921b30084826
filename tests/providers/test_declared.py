"""Providers that only a configuration describes: fourteen aggregators by their documentation, and each power alone."""

import hashlib
import hmac
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, quote

import httpx
import pytest

from domain.configuration.providers.declared.credentials import AuthenticationType, SignatureType
from domain.configuration.providers.declared.documents import Format, parse_source, read_document
from domain.configuration.providers.declared.section import DeclaredProviderConfiguration
from domain.configuration.providers.declared.templates import PLACEHOLDERS
from domain.error_classes import ErrorClass
from domain.money import Price
from domain.outcomes import OutcomeKind
from domain.receipts import PartIdentity, ReceiptState
from domain.secrets import AllowedSecrets
from providers.base import Exchange
from providers.declared_values import VALUES
from providers.registry import ProviderTypes
from providers.webhooks import ForgedReason, UnreadableWebhook, WebhookForged, stored_request
from settings.configuration_checks import protocol_mistakes
from settings.configuration_file import parse_configuration
from tests.fakes.carrier import PUBLIC_URL
from tests.fakes.declared_aggregators import (
    ATTEMPT,
    FOLDER,
    MESSAGE_ID,
    NAMES,
    RECIPIENT,
    REFERENCE,
    TOKEN,
    adapter,
    came,
    outbound,
    response,
    section,
    webhooks,
)

URL = f"{PUBLIC_URL}/webhooks/providers/x/receipts/{TOKEN}"
ALLOWED = AllowedSecrets(("SMSGATEWAY_SECRET_",))
THIS_PART = PartIdentity(MESSAGE_ID, ATTEMPT, 1)
UNICODE = "Ça coûte 5 € 👍"

MINIMAL: Mapping[str, Any] = {
    "type": "http",
    "url": "https://sms.example.com",
    "request": {"path": "/send", "form": {"to": "{to}", "text": "{text}"}},
    "response": {"id": "id", "code": "error"},
    "receipt": {
        "format": "json",
        "id": "id",
        "state": "state",
        "states": {"delivered": "delivered", "failed": "undeliverable"},
        "signature": "none",
    },
}


def declared(**more: Any) -> DeclaredProviderConfiguration:
    """The minimal section with tables changed: those of `more` are merged into its own."""
    merged: dict[str, Any] = dict(MINIMAL)
    for name, each in more.items():
        is_table = isinstance(each, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **each} if is_table else each
    return DeclaredProviderConfiguration.model_validate(
        {name: each for name, each in merged.items() if each is not None}
    )


async def request_of(
    section: DeclaredProviderConfiguration, text: str = "Hello", **more: Any
) -> httpx.Request:
    async with adapter(section, public=more.pop("public", True)) as provider:
        return provider._request(outbound(text, **more))


async def outcome_of(
    section: DeclaredProviderConfiguration, status: int, body: bytes | str, **headers: str
) -> Any:
    async with adapter(section) as provider:
        return provider._outcome(1, response(status, body, **headers))


def form(request: httpx.Request) -> dict[str, str]:
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    return dict(parse_qsl(request.content.decode(), keep_blank_values=True, strict_parsing=True))


def query(request: httpx.Request) -> dict[str, str]:
    return dict(parse_qsl(request.url.query.decode(), keep_blank_values=True, strict_parsing=True))


def basic(pair: str) -> str:
    return f"Basic {b64encode(pair.encode()).decode()}"


# --- fourteen aggregators ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_of_an_aggregator_mean_what_its_documentation_says(name):
    text = (FOLDER / f"{name}.toml").read_text()
    configuration = parse_configuration(text, ALLOWED)
    assert protocol_mistakes(text, configuration, ALLOWED) == []
    (only,) = configuration.providers.values()
    assert isinstance(only, DeclaredProviderConfiguration)
    assert only.samples.responses
    assert only.samples.receipts or not only.receipts


@pytest.mark.parametrize("name", NAMES)
async def test_the_adapter_reads_responses_and_receipts_as_the_samples_of_its_section(name):
    of = section(name)
    for sample in of.samples.responses:
        outcome = await outcome_of(of, sample.status, sample.body)
        kinds = {sample.means.verdict.value}
        if "refused" in kinds:
            kinds.add("throttled")
        assert outcome.kind in kinds
        if sample.means.id:
            assert outcome.provider_message_id == sample.means.id
        if sample.means.code:
            assert outcome.code == sample.means.code
        if sample.means.error_class is not None:
            assert outcome.error_class is sample.means.error_class
    for each in of.samples.receipts:
        in_query = of.receipt is not None and of.receipt.format is Format.QUERY
        request = came(query=each.body) if in_query else came(each.body)
        reader = webhooks(of)
        reader.verify(request)
        found = reader.receipts(request, THIS_PART)
        assert [receipt.state for receipt in found] == [means.state for means in each.means]
        for receipt, means in zip(found, each.means, strict=True):
            assert means.id in {None, receipt.provider_message_id}
            assert means.code in {None, receipt.code}
            if means.error_class not in {None, ErrorClass.UNDELIVERED, ErrorClass.ROUTE}:
                assert receipt.error_class is means.error_class


async def test_46elks_gets_a_form_with_basic_authentication():
    request = await request_of(section("46elks"), UNICODE)
    assert (request.method, str(request.url)) == ("POST", "https://api.46elks.com/a1/sms")
    assert request.headers["authorization"] == basic("made-up/username+&=%:made-up/password+&=%")
    assert form(request) == {
        "from": "+12025550143",
        "to": RECIPIENT,
        "message": UNICODE,
        "whendelivered": URL,
    }


async def test_africas_talking_gets_a_form_and_a_header_with_the_key():
    request = await request_of(section("africastalking"), UNICODE)
    assert str(request.url) == "https://api.africastalking.com/version1/messaging"
    assert request.headers["apikey"] == "made-up/key+&=%"
    assert form(request) == {
        "username": "acme",
        "to": RECIPIENT,
        "message": UNICODE,
        "from": "+12025550143",
    }


async def test_clickatell_gets_json_with_a_version_and_a_bearer_token():
    request = await request_of(section("clickatell"), UNICODE)
    assert request.headers["authorization"] == "Bearer made-up/token+&=%"
    assert (request.headers["x-version"], request.url.path) == ("1", "/rest/message")
    body = json.loads(request.content)
    assert body.pop("validityPeriod") in {119, 120}
    assert body == {
        "to": ["447700900123"],
        "text": UNICODE,
        "from": "12025550143",
        "clientMessageId": REFERENCE,
    }


async def test_messagebird_gets_json_with_its_own_scheme_of_authorization():
    request = await request_of(section("messagebird"), UNICODE, sender="ACME")
    assert request.headers["authorization"] == "AccessKey made-up/key+&=%"
    body = json.loads(request.content)
    assert 7190 <= body.pop("validity") <= 7200
    assert body == {
        "recipients": ["447700900123"],
        "originator": "ACME",
        "body": UNICODE,
        "datacoding": "auto",
        "reference": REFERENCE,
        "reportUrl": URL,
    }


async def test_plivo_gets_the_account_in_the_path():
    request = await request_of(section("plivo"), UNICODE)
    account = quote("made-up/auth_id+&=%", safe="")
    assert request.url.raw_path.decode() == f"/v1/Account/{account}/Message/"
    assert json.loads(request.content) == {
        "src": "12025550143",
        "dst": "447700900123",
        "text": UNICODE,
        "url": URL,
        "method": "POST",
        "log": False,
    }


async def test_gatewayapi_gets_numbers_as_numbers():
    request = await request_of(section("gatewayapi"), UNICODE)
    assert request.headers["authorization"] == basic("made-up/token+&=%:")
    body = json.loads(request.content)
    assert body["recipients"] == [{"msisdn": 447700900123}]
    assert (body["encoding"], body["callback_url"]) == ("UCS2", URL)
    assert isinstance(body["validity_period"], int)


async def test_smsapi_gets_a_form_whose_reference_it_takes_only_once():
    request = await request_of(section("smsapi"), UNICODE)
    assert form(request) == {
        "to": "447700900123",
        "message": UNICODE,
        "from": "+12025550143",
        "format": "json",
        "encoding": "utf-8",
        "idx": REFERENCE,
        "check_idx": "1",
        "notify_url": URL,
    }


async def test_kannel_gets_a_query_whose_address_for_receipts_is_a_template_of_its_own():
    request = await request_of(section("kannel"), UNICODE)
    assert (request.method, request.url.path, request.content) == ("GET", "/cgi-bin/sendsms", b"")
    fields = query(request)
    assert fields.pop("validity") in {"119", "120"}
    assert fields == {
        "username": "made-up/username+&=%",
        "password": "made-up/password+&=%",
        "from": "+12025550143",
        "to": RECIPIENT,
        "text": UNICODE,
        "charset": "UTF-8",
        "coding": "2",
        "dlr-mask": "31",
        "dlr-url": f"{URL}?state=%d&answer=%A",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello [ok]", {"content": "Hello [ok]", "coding": "0"}),
        ("Čau", {"hex-content": "010c00610075", "coding": "8"}),
    ],
)
async def test_jasmin_gets_octets_where_gsm7_lacks_a_character(text, expected):
    fields = form(await request_of(section("jasmin"), text))
    assert fields.pop("validity-period") in {"119", "120"}
    assert fields == expected | {
        "username": "made-up/username+&=%",
        "password": "made-up/password+&=%",
        "from": "+12025550143",
        "to": "447700900123",
        "dlr": "yes",
        "dlr-url": URL,
        "dlr-level": "3",
        "dlr-method": "POST",
    }


async def test_sinch_gets_the_time_until_which_it_may_try():
    request = await request_of(section("sinch"), valid_until=datetime.now(UTC) + timedelta(days=30))
    assert request.url.raw_path.startswith(b"/xms/v1/made-up%2Fplan%2B%26%3D%25/batches")
    until = datetime.fromisoformat(json.loads(request.content)["expire_at"])
    assert abs(until - datetime.now(UTC) - timedelta(days=3)) < timedelta(minutes=1)


async def test_gupshup_gets_the_parameters_of_a_message_that_it_knows():
    of = section("gupshup")
    assert of.known_parameters() == {"PE_ID", "TEMPLATE_ID"}
    given = {"PE_ID": "1701158019630577568", "OTHER": "x"}
    fields = form(await request_of(of, parameters=given, sender="ACME"))
    assert fields["principalEntityId"] == "1701158019630577568"
    assert fields["mask"] == "ACME"
    assert "dltTemplateId" not in fields


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("46elks", (204, None, b"")),
        ("jasmin", (200, "text/plain", b"ACK/Jasmin")),
        ("smsapi", (200, "text/plain", b"OK")),
        ("smsbiuras", (204, None, b"")),
    ],
)
def test_the_provider_gets_the_response_that_it_wants(name, expected):
    given = webhooks(section(name)).response()
    assert (given.status, given.content_type, given.body) == expected


async def test_a_message_that_kannel_has_accepted_has_no_id_and_its_receipt_names_the_attempt():
    outcome = await outcome_of(section("kannel"), 202, "0: Accepted for delivery")
    assert (outcome.kind, outcome.provider_message_id) == (OutcomeKind.ACCEPTED, None)
    reader = webhooks(section("kannel"))
    (receipt,) = reader.receipts(came(query="state=1"), THIS_PART)
    assert (receipt.part, receipt.provider_message_id) == (THIS_PART, "")
    with pytest.raises(UnreadableWebhook):
        reader.receipts(came(query="state=1"), None)


# --- requests ------------------------------------------------------------------------------------


def test_every_placeholder_that_is_declared_has_a_value():
    assert [*VALUES] == [*PLACEHOLDERS]


@pytest.mark.parametrize(
    ("template", "message", "expected"),
    [
        ("{to_00}", {}, "00447700900123"),
        ("{from_digits}", {"sender": "ACME"}, "ACME"),
        ("{from_number}", {"sender": "60090"}, "60090"),
        ("{from_number}", {"sender": "ACME"}, None),
        ("{from_name}", {"sender": "ACME"}, "ACME"),
        ("{from_name}", {}, None),
        ("{text_hex}", {"text": "aЖ"}, "00610416"),
        ("{text_ucs2}", {"text": "aЖ"}, "aЖ"),
        ("{text_ucs2}", {"text": "a"}, None),
        ("{segments}", {"text": "a" * 161}, 2),
        ("{message_id}", {}, f"msg_{MESSAGE_ID.hex}"),
        ("{reference}", {}, REFERENCE),
        ("{validity_seconds}", {"valid_until": None}, None),
        ("{valid_until_unix}", {"valid_until": None}, None),
        ("{parameter:PE_ID}", {"parameters": {"PE_ID": "1"}}, "1"),
        ("{parameter:PE_ID}", {}, None),
        ("n° {to_number}", {}, "n° 447700900123"),
        ("{{to}}", {}, "{to}"),
    ],
)
async def test_a_placeholder_stands_for_its_value_and_leaves_the_entry_out_without_one(
    template, message, expected
):
    of = declared(request={"form": None, "json": {"x": template, "y": ["{to}", "{text}"]}})
    body = json.loads((await request_of(of, **message)).content)
    assert body.get("x") == expected
    assert ("x" in body) == (expected is not None)


async def test_values_of_json_keep_their_type_and_what_is_left_empty_is_left_out():
    literal = {"a": 1, "b": 0.5, "c": True, "d": [], "e": {"f": "{{}}"}, "g": [[2, "x"]]}
    empty = {"list": ["{receipt_url}"], "table": {"deep": {"url": "{receipt_url}"}}}
    given = {"to": "{to}", "text": "{text}"}
    of = declared(request={"form": None, "json": literal | empty | given})
    body = json.loads((await request_of(of, public=False)).content)
    assert body == literal | {"e": {"f": "{}"}, "to": RECIPIENT, "text": "Hello"}
    assert isinstance(body["c"], bool)


async def test_without_a_public_address_no_receipts_are_requested():
    fields = form(await request_of(section("46elks"), public=False))
    assert "whendelivered" not in fields


HOSTILE = "../?a=1&b=2#c\r\nX: y%00/ä"


async def test_a_value_in_a_path_or_a_query_is_only_that_value():
    of = declared(
        request={
            "path": "/{parameter:A}/x",
            "query": {"a&b": "{parameter:A}", "until": "{valid_until}"},
            "form": {"to": "{to}", "text": "{text}"},
        }
    )
    request = await request_of(of, HOSTILE, parameters={"A": HOSTILE})
    path, _, target = request.url.raw_path.decode().partition("?")
    assert path == f"/{quote(HOSTILE, safe='')}/x"
    fields = dict(parse_qsl(target, strict_parsing=True))
    assert fields["a&b"] == HOSTILE
    assert form(request)["text"] == HOSTILE


@pytest.mark.parametrize(
    ("request_table", "parameter"),
    [
        ({"path": "/{parameter:A}/x"}, ".."),
        ({"path": "/{parameter:A}/x"}, "."),
        ({"path": "/{parameter:A}/x"}, ""),
        ({"headers": {"X-A": "{parameter:A}"}}, "a\r\nX-B: c"),
        ({"headers": {"X-A": "{parameter:A}"}}, "ä"),
    ],
)
async def test_a_parameter_that_would_change_the_request_is_refused_and_nothing_is_sent(
    request_table, parameter
):
    async with adapter(declared(request=request_table)) as provider:
        (outcome,) = await provider.submit(outbound(parameters={"A": parameter}), [1])
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "unusable_parameter")


async def test_a_text_that_is_too_long_for_the_provider_goes_to_the_next_one():
    async with adapter(declared(request={"longest_text": 5})) as provider:
        (outcome,) = await provider.submit(outbound("123456"), [1])
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "unsendable_text")


async def test_half_of_a_surrogate_pair_is_refused_and_nothing_is_sent():
    async with adapter(declared()) as provider:
        (outcome,) = await provider.submit(outbound("\ud83d"), [1])
    assert outcome.code == "unsendable_text"


@pytest.mark.parametrize(
    ("encoding", "prefix", "written"),
    [
        ("hex", "sha512=", lambda octets: octets.hex()),
        ("base64", "", lambda octets: b64encode(octets).decode()),
    ],
)
async def test_the_body_of_a_request_is_signed(encoding, prefix, written):
    of = declared(
        secrets={"key": "env:KEY"},
        authentication={
            "type": "hmac",
            "header": "X-Signature",
            "secret": "{secret:key}",
            "hash": "sha512",
            "encoding": encoding,
            "prefix": prefix,
        },
    )
    request = await request_of(of)
    expected = hmac.digest(b"made-up/key+&=%", request.content, hashlib.sha512)
    assert request.headers["x-signature"] == prefix + written(expected)


# --- responses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "status", "body", "kind", "error_class"),
    [
        ({}, 200, '{"id": 7}', "accepted", None),
        ({}, 200, '{"id": ""}', "unknown", "unknown"),
        ({}, 200, '{"error": "E1"}', "unknown", "unknown"),
        ({"accepted": [201]}, 200, '{"id": 7}', "refused", "route"),
        ({}, 400, '{"error": "E1"}', "refused", "blocked"),
        ({}, 400, '{"error": "E2"}', "refused", "route"),
        ({"statuses": {"400": "invalid_message"}}, 400, "{}", "refused", "invalid_message"),
        ({"statuses": {"400": "invalid_message"}}, 400, '{"error": "E1"}', "refused", "blocked"),
        ({}, 429, "", "throttled", "throttled"),
        ({}, 500, '{"id": 7}', "unknown", "unknown"),
        ({"statuses": {"500": "temporary"}}, 500, "", "refused", "temporary"),
        ({}, 401, "<html>", "refused", "account"),
        # What holds for an accepted message.
        ({"success": {"value": "ok", "is": ["TRUE"]}}, 200, '{"id":7,"ok":true}', "accepted", None),
        ({"success": {"value": "ok", "is": ["true"]}}, 200, '{"id":7,"ok":0}', "refused", "route"),
        ({"success": {"value": "ok", "is": ["true"]}}, 200, '{"id":7}', "unknown", "unknown"),
        (
            {"success": {"value": "ok", "is": ["1"]}},
            200,
            '{"id":7,"error":"E1"}',
            "refused",
            "blocked",
        ),
        (
            {"success": {"value": "error", "exists": False}, "default": "account"},
            200,
            '{"id":7,"error":"E2"}',
            "refused",
            "account",
        ),
        (
            {"success": {"value": "error", "exists": False}},
            200,
            '{"id":7,"error":null}',
            "accepted",
            None,
        ),
        ({"success": {"value": "n", "exists": True}}, 200, '{"id":7}', "unknown", "unknown"),
        ({"success": {"value": "n", "exists": True}}, 200, "{", "unknown", "unknown"),
    ],
)
async def test_a_response_is_accepted_refused_or_proves_nothing(
    reading, status, body, kind, error_class
):
    outcome = await outcome_of(declared(response=reading, codes={"E1": "blocked"}), status, body)
    assert (outcome.kind, outcome.error_class) == (kind, error_class)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"id": 421332671}', "421332671"),
        ('{"id": 12345678901234567890123}', "12345678901234567890123"),
        ('{"id": 1.50}', "1.50"),
        ('{"id": " a b "}', "a b"),
        ('{"id": true}', "true"),
        ('{"id": null}', None),
        ('{"id": {}}', None),
        ('{"id": [1]}', None),
    ],
)
async def test_an_id_is_any_scalar_as_it_was_written(body, expected):
    assert (await outcome_of(declared(), 200, body)).provider_message_id == expected


@pytest.mark.parametrize(
    ("reading", "body", "price"),
    [
        ({"price": "p", "currency": "c"}, {"p": 0.24, "c": "dkk"}, ("0.24", "DKK")),
        ({"price": "p", "currency": "c"}, {"p": "-0.0075", "c": "USD"}, ("0.0075", "USD")),
        ({"price": "p"}, {"p": "KES 0.8000"}, ("0.8000", "KES")),
        ({"price": "p", "default_currency": "EUR"}, {"p": 1}, ("1", "EUR")),
        (
            {"price": "p", "default_currency": "SEK", "price_unit": "0.0001"},
            {"p": 3500},
            ("0.35", "SEK"),
        ),
        ({"price": "p"}, {"p": 1}, None),
        ({"price": "p", "default_currency": "EUR"}, {"p": "NaN"}, None),
        ({"price": "p", "default_currency": "EUR"}, {"p": "1e999999999"}, None),
        ({"price": "p", "default_currency": "EUR"}, {"p": "9" * 500}, None),
        ({"price": "p", "default_currency": "EUR"}, {"p": "1 2"}, None),
    ],
)
async def test_a_price_is_exact_or_left_out(reading, body, price):
    outcome = await outcome_of(declared(response=reading), 200, json.dumps({"id": 1} | body))
    expected = None if price is None else Price(Decimal(price[0]), price[1])
    assert (outcome.kind, outcome.price) == (OutcomeKind.ACCEPTED, expected)


@pytest.mark.parametrize(
    ("written", "count"), [("2", 2), (3, 3), (0, None), (-1, None), ("x", None), (10**30, None)]
)
async def test_segments_are_counted_or_left_out(written, count):
    of = declared(response={"segments": "n"})
    assert (await outcome_of(of, 200, json.dumps({"id": 1, "n": written}))).segments == count


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        ('{"wait": 12.7}', {}, 12),
        ('{"wait": "soon"}', {"retry-after": "3"}, 3),
        ('{"wait": 99999999999999}', {}, 3600),
        ("{}", {}, None),
    ],
)
async def test_a_provider_that_throttles_says_how_long_to_wait(body, headers, seconds):
    outcome = await outcome_of(declared(response={"retry_after": "wait"}), 429, body, **headers)
    assert outcome.after == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "text", ["No route to +447700900123", "447700900123", "a b", "x" * 33, "Ж", "<b>"]
)
async def test_a_text_that_is_in_no_table_is_kept_as_a_code_only_if_it_looks_like_one(text):
    body = json.dumps({"error": text})
    assert (await outcome_of(declared(), 400, body)).code == "http_400"
    known = declared(codes={text: "blocked"})
    outcome = await outcome_of(known, 400, body)
    assert (outcome.code, outcome.error_class) == (text, ErrorClass.BLOCKED)


async def test_a_code_of_the_section_has_its_meaning_in_explanations():
    codes = declared(codes={"1": "blocked", "2": {"class": "route", "meaning": "no way"}}).codes()
    assert (codes["1"].meaning, codes["2"].meaning) == ("declared as blocked", "no way")


# --- repeats -------------------------------------------------------------------------------------


async def test_a_key_is_the_same_for_the_same_attempt_only():
    of = declared(idempotency={"header": "Idempotency-Key"})
    first = await request_of(of)
    assert first.headers["idempotency-key"] == REFERENCE
    assert (await request_of(of)).headers["idempotency-key"] == REFERENCE
    assert (await request_of(of, attempt=3)).headers["idempotency-key"] != REFERENCE


@pytest.mark.parametrize(("reference_is_id", "expected"), [(True, REFERENCE), (False, None)])
async def test_the_refusal_of_a_duplicate_shows_that_the_message_was_accepted(
    monkeypatch, reference_is_id, expected
):
    of = declared(
        request={"form": {"to": "{to}", "text": "{text}", "id": "{reference}"}},
        idempotency={"duplicate_codes": ["E7"], "reference_is_id": reference_is_id},
    )
    requests = []
    async with adapter(of) as provider:
        assert provider.repeats_are_safe

        async def exchange(request: httpx.Request, number: int, seconds: float) -> Exchange:
            requests.append(request.content)
            found = response(500, "") if len(requests) == 1 else response(409, '{"error":"E7"}')
            return Exchange(provider._outcome(number, found))

        monkeypatch.setattr(provider, "_exchange", exchange)
        (outcome,) = await provider.submit(outbound(), [1])
    assert (outcome.kind, outcome.provider_message_id) == (OutcomeKind.ACCEPTED, expected)
    assert requests[0] == requests[1]


async def test_without_idempotency_nothing_is_repeated():
    async with adapter(declared()) as provider:
        assert not provider.repeats_are_safe


# --- receipts ------------------------------------------------------------------------------------


def receipts(of: DeclaredProviderConfiguration, body: Any, part: PartIdentity | None = None) -> Any:
    return webhooks(of).receipts(came(json.dumps(body)), part)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("Delivered", ReceiptState.DELIVERED),
        ("FAILED", ReceiptState.UNDELIVERABLE),
        (4, ReceiptState.EXPIRED),
        ("4", ReceiptState.EXPIRED),
        ("failed_somehow", ReceiptState.ENROUTE),
        (99, ReceiptState.ENROUTE),
        (True, ReceiptState.ENROUTE),
    ],
)
def test_a_state_is_found_whatever_its_capitals_and_an_unknown_one_is_no_failure(word, state):
    states = {"delivered": "delivered", "failed": "undeliverable", "4": "expired"}
    (receipt,) = receipts(declared(receipt={"states": states}), {"id": 1, "state": word})
    assert (receipt.state, receipt.provider_message_id) == (state, "1")


@pytest.mark.parametrize(
    ("form", "zone", "written", "expected"),
    [
        ("iso8601", "UTC", "2026-11-28T12:00:00Z", "2026-11-28T12:00:00+00:00"),
        ("iso8601", "UTC", "2026-11-28T12:00:00+0100", "2026-11-28T11:00:00+00:00"),
        ("iso8601", "UTC", "2026-11-28T12:00:00 01:00", "2026-11-28T11:00:00+00:00"),
        ("iso8601", "Africa/Nairobi", "2026-11-28 12:00:00", "2026-11-28T09:00:00+00:00"),
        ("unix", "UTC", 1795867200, "2026-11-28T12:00:00+00:00"),
        ("unix", "UTC", "1795867200.5", "2026-11-28T12:00:00.500000+00:00"),
        ("unix_ms", "UTC", 1795867200000, "2026-11-28T12:00:00+00:00"),
        ("smpp", "Europe/Paris", "2611281300", "2026-11-28T12:00:00+00:00"),
        ("smpp", "UTC", "261128120007", "2026-11-28T12:00:07+00:00"),
        ("unix", "UTC", "99999999999999999999", None),
        ("unix", "UTC", "9999999999999999", None),
        ("unix", "UTC", "-5", None),
        ("unix", "UTC", "NaN", None),
        ("smpp", "UTC", "2699991300", None),
        ("iso8601", "UTC", "0001-01-01T00:00:00+14:00", None),
        ("iso8601", "UTC", "yesterday", None),
        ("iso8601", "UTC", "", None),
    ],
)
def test_a_time_is_read_in_its_format_and_zone_or_left_out(form, zone, written, expected):
    of = declared(receipt={"time": "at", "time_format": form, "time_zone": zone})
    (receipt,) = receipts(of, {"id": 1, "state": "delivered", "at": written})
    found = None if receipt.done_at is None else receipt.done_at.isoformat()
    assert found == expected


def test_a_list_of_receipts_keeps_its_order():
    of = declared(receipt={"each": "data.reports"})
    entries = [{"id": number, "state": "delivered"} for number in range(3)]
    found = receipts(of, {"data": {"reports": entries}})
    assert [each.provider_message_id for each in found] == ["0", "1", "2"]


def test_a_list_may_be_the_whole_document():
    found = receipts(declared(receipt={"each": "$"}), [{"id": 5, "state": "failed"}])
    assert [each.provider_message_id for each in found] == ["5"]


@pytest.mark.parametrize(
    "bad", [7, None, [], {}, {"id": 2}, {"state": "delivered"}, {"id": 2, "state": {}}]
)
def test_of_a_list_that_is_partly_unreadable_the_other_receipts_are_taken(bad):
    of = declared(receipt={"each": "$"})
    with pytest.raises(UnreadableWebhook) as unreadable:
        receipts(of, [{"id": 1, "state": "delivered"}, bad, {"id": 3, "state": "failed"}])
    assert [each.provider_message_id for each in unreadable.value.receipts] == ["1", "3"]


def test_a_receipt_with_our_reference_names_its_attempt():
    of = declared(receipt={"reference": "mine"})
    body = {"id": 1, "state": "delivered", "mine": REFERENCE.upper()}
    (receipt,) = receipts(of, body)
    assert receipt.part == THIS_PART
    (receipt,) = receipts(of, body | {"mine": "another-system-4711"})
    assert (receipt.part, receipt.provider_message_id) == (None, "1")


def test_receipts_of_several_messages_at_the_address_of_one_are_matched_by_their_ids():
    of = declared(receipt={"each": "$"})
    two = [{"id": 1, "state": "delivered"}, {"id": 2, "state": "failed"}]
    assert [each.part for each in receipts(of, two, THIS_PART)] == [None, None]
    of_one = [{"id": 1, "state": "delivered"}, {"id": 1, "state": "failed"}]
    assert [each.part for each in receipts(of, of_one, THIS_PART)] == [THIS_PART, THIS_PART]


@pytest.mark.parametrize(
    "body",
    [
        "id=1,2,3&state=delivered,failed",
        "id=1&state=delivered,failed",
        "id=" + ",".join(["1"] * 1001) + "&state=delivered",
    ],
)
def test_values_that_are_separated_differently_are_unreadable(body):
    of = declared(receipt={"format": "form", "separator": ","})
    with pytest.raises(UnreadableWebhook):
        webhooks(of).receipts(came(body), None)


def test_one_value_counts_for_all_ids_of_a_request():
    of = declared(receipt={"format": "form", "separator": ","})
    found = webhooks(of).receipts(came("id=1,2&state=delivered"), None)
    assert [(each.provider_message_id, each.state) for each in found] == [
        ("1", ReceiptState.DELIVERED),
        ("2", ReceiptState.DELIVERED),
    ]


def test_the_code_of_a_receipt_may_replace_its_state():
    of = declared(
        receipt={"code": "code", "code_prefix": "dlr:"},
        codes={"dlr:9": {"class": "unknown", "state": "unknown"}, "9": "blocked"},
    )
    (receipt,) = receipts(of, {"id": 1, "state": "failed", "code": 9})
    assert (receipt.state, receipt.code) == (ReceiptState.UNKNOWN, "dlr:9")
    (receipt,) = receipts(of, {"id": 1, "state": "delivered", "code": ""})
    assert (receipt.state, receipt.code) == (ReceiptState.DELIVERED, "")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (447700900123, RECIPIENT),
        ("+447700900123", RECIPIENT),
        ("00447700900123", RECIPIENT),
        ("60090", None),
        ("ACME", None),
        ("", None),
    ],
)
def test_a_recipient_is_a_number_in_international_form_or_left_out(written, expected):
    of = declared(receipt={"recipient": "to", "network": "net"})
    body = {"id": 1, "state": "delivered", "to": written, "net": 310004}
    (receipt,) = receipts(of, body)
    assert (receipt.recipient, receipt.network) == (expected, "310004")


def test_a_query_that_could_not_be_read_is_kept_and_read_again_after_a_fix():
    request = came(query="id=1&status=delivered")
    broken = declared(receipt={"format": "query"})
    with pytest.raises(UnreadableWebhook):
        webhooks(broken).receipts(request, None)
    kept = webhooks(broken).kept(request)
    fixed = declared(receipt={"format": "query", "state": "status"})
    again = ProviderTypes.installed().parse_again("x", fixed, kept)
    assert [each.state for each in again] == [ReceiptState.DELIVERED]  # type: ignore[union-attr]


def test_without_a_table_of_receipts_no_request_is_one():
    of = declared(receipts=False, receipt=None)
    with pytest.raises(UnreadableWebhook):
        webhooks(of).receipts(stored_request(b'{"id": 1, "state": "delivered"}'), THIS_PART)


# --- signatures ----------------------------------------------------------------------------------

SIGNED_AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
KEY = b"made-up/key+&=%"


def signed_by(**signature: Any) -> DeclaredProviderConfiguration:
    return declared(secrets={"key": "env:KEY"}, receipt={"signature": signature})


def refused(of: DeclaredProviderConfiguration, headers: dict[str, str], body: bytes = b"{}") -> Any:
    """Why a request with these headers is refused; None if it is not."""
    try:
        webhooks(of).verify(came(body, headers=headers, at=SIGNED_AT))
    except WebhookForged as forged:
        return forged.reason
    return None


def test_a_receipt_with_basic_credentials():
    of = signed_by(type="basic", user="acme", password="{secret:key}")
    right = basic("acme:made-up/key+&=%")
    assert refused(of, {"authorization": right}) is None
    assert refused(of, {"authorization": right.replace("Basic", "basic")}) is None
    assert refused(of, {}) is ForgedReason.UNSIGNED
    for wrong in (basic("acme:x"), right.replace("Basic", "Bearer"), "Basic", "Basic Ж"):
        assert refused(of, {"authorization": wrong}) is ForgedReason.BAD_SIGNATURE


def test_a_receipt_with_a_fixed_header():
    of = signed_by(type="header", header="X-Token", value="v {secret:key}")
    assert refused(of, {"x-token": "v made-up/key+&=%"}) is None
    assert refused(of, {}) is ForgedReason.UNSIGNED
    assert refused(of, {"x-token": "v made-up/key"}) is ForgedReason.BAD_SIGNATURE


@pytest.mark.parametrize("name", ["sha1", "sha256", "sha384", "sha512"])
def test_a_receipt_whose_body_is_signed(name):
    digest = hmac.digest(KEY, b"{}", name)
    of = signed_by(type="hmac", header="X-S", secret="{secret:key}", hash=name, prefix="v1=")
    assert refused(of, {"x-s": f"v1={digest.hex()}"}) is None
    assert refused(of, {"x-s": f"v1={digest.hex().upper()}"}) is None
    assert refused(of, {"x-s": digest.hex()}) is ForgedReason.BAD_SIGNATURE
    assert refused(of, {"x-s": f"v1={digest.hex()}"}, b"{ }") is ForgedReason.BAD_SIGNATURE
    coded = signed_by(
        type="hmac", header="X-S", secret="{secret:key}", hash=name, encoding="base64"
    )
    assert refused(coded, {"x-s": b64encode(digest).decode()}) is None
    assert (
        refused(coded, {"x-s": b64encode(digest).decode().swapcase()}) is ForgedReason.BAD_SIGNATURE
    )


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        ("1795867200", None),
        ("1795867200000", None),
        ("1795866901", None),
        ("1795866899", ForgedReason.TOO_OLD),
        ("1795867501", ForgedReason.TOO_OLD),
        ("", ForgedReason.UNSIGNED),
        ("soon", ForgedReason.TOO_OLD),
        ("9" * 16, ForgedReason.TOO_OLD),
        ("9" * 400, ForgedReason.TOO_OLD),
    ],
)
def test_a_signed_time_must_be_near(timestamp, reason):
    of = signed_by(
        type="hmac",
        header="X-S",
        secret="{secret:key}",
        signed="{timestamp}.{body}",
        timestamp_header="X-T",
    )
    digest = hmac.digest(KEY, timestamp.encode() + b".{}", "sha256").hex()
    assert refused(of, {"x-s": digest, "x-t": timestamp}) is reason
    if reason is None:
        changed = str(int(timestamp) + 1)
        assert refused(of, {"x-s": digest, "x-t": changed}) is ForgedReason.BAD_SIGNATURE


# --- polling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message_id", "path"),
    [
        ("a b", "/sms/a%20b"),
        ("../x?y=1#z", "/sms/..%2Fx%3Fy%3D1%23z"),
        ("..", None),
        ("\ud83d", None),
    ],
)
async def test_an_id_in_the_address_of_a_question_is_only_that_id(monkeypatch, message_id, path):
    of = declared(
        polling={"path": "/sms/{id}", "state": "state", "states": {"ok": "delivered"}},
    )
    asked = []
    async with adapter(of) as provider:

        async def ask(request: httpx.Request) -> Any:
            asked.append(request.url.raw_path.decode())
            return response(200, '{"state": "OK"}')

        monkeypatch.setattr(provider, "_ask", ask)
        found = await provider.query(message_id, sender="ACME")
    if path is None:
        assert (found, asked) == (None, [])
    else:
        assert asked == [path]
        assert found is not None
        assert (found.state, found.provider_message_id) == (ReceiptState.DELIVERED, message_id)


@pytest.mark.parametrize(
    ("status", "body"), [(404, '{"state":"ok"}'), (200, "{"), (200, "{}"), (200, "[[")]
)
async def test_a_response_that_does_not_say_the_state_is_none(monkeypatch, status, body):
    of = declared(polling={"path": "/sms/{id}", "state": "state", "states": {"ok": "delivered"}})
    async with adapter(of) as provider:

        async def ask(_: httpx.Request) -> Any:
            return response(status, body)

        monkeypatch.setattr(provider, "_ask", ask)
        assert await provider.query("1", sender="ACME") is None


async def test_a_provider_that_cannot_be_asked_is_not():
    async with adapter(declared()) as provider:
        assert await provider.query("1", sender="ACME") is None


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("a.b[1].c", "x"),
        ('["a"].b[1]["c"]', "x"),
        ("$.a.b[1].c", "x"),
        ('["d.e"]', "y"),
        ("a.b", None),
        ("a.b[2].c", None),
        ("a.b.c", None),
        ("a[0]", None),
        ("nothing || a.b[1].c", "x"),
        ("a.b[1].c =~ /([a-z])/", "x"),
        ("a.b[1].c =~ /([0-9])/", None),
        ("no-where || also_not", None),
    ],
)
def test_a_place_in_json(place, expected):
    document = read_document(b'{"a": {"b": [1, {"c": "x"}]}, "d.e": "y"}', Format.JSON)
    assert parse_source(place, Format.JSON).text_in(document) == expected


def test_a_place_in_a_form_is_a_name_as_it_is():
    document = read_document(b"price%5Bamount%5D=0.5&a.b=1&empty=", Format.FORM)
    found = [parse_source(name, Format.FORM).text_in(document) for name in ("price[amount]", "a.b")]
    assert found == ["0.5", "1"]
    assert not parse_source("empty", Format.FORM).is_in(document)


# --- the page ------------------------------------------------------------------------------------

PAGE = (FOLDER.parents[2] / "docs/providers/http.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=["acme", "kannel", "smsapi"])
def test_an_example_of_the_page_is_a_configuration_whose_samples_are_right(text):
    configuration = parse_configuration(text, ALLOWED)
    assert protocol_mistakes(text, configuration, ALLOWED) == []
    (only,) = configuration.providers.values()
    assert isinstance(only, DeclaredProviderConfiguration)
    assert only.samples.responses
    assert only.samples.receipts


def test_the_page_lists_the_placeholders_and_types_that_there_are():
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    names = [name for name, _ in rows]
    first = names.index("to")
    assert names[first : first + len(PLACEHOLDERS)] == [*PLACEHOLDERS]
    assert [name for name in names if name in set(AuthenticationType)] == [*AuthenticationType]
    for kind in SignatureType:
        assert f'`type = "{kind}"`' in PAGE or f'`"{kind}"`' in PAGE

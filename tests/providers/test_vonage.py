"""What is special to Vonage: its tokens, its requests, its errors in all their shapes, and its webhooks."""

import asyncio
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as make_ec_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as make_rsa_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import ValidationError
from vonage_jwt.jwt import JwtClient
from vonage_jwt.verify_jwt import verify_signature

from domain.configuration.providers.vonage import VonageConfiguration, checked_private_key
from domain.error_classes import ErrorClass
from domain.ids import IdPrefix, public_id
from domain.modes import Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.provider_codes.vonage import VONAGE_CODES
from domain.receipts import PartIdentity, ReceiptState
from providers.base import Outbound, Provider, ProviderSinks, ReceivedReceipt
from providers.vonage import STATES, ApplicationToken, VonageProvider, VonageWebhooks
from providers.webhooks import (
    ForgedReason,
    UnreadableWebhook,
    WebhookForged,
    WebhookRequest,
    stored_request,
)
from settings.configuration_file import parse_configuration
from settings.secrets import SecretMissing
from tests.fakes.carrier import PUBLIC_URL, TOKENS, Raw, Request, as_came
from tests.fakes.vonage_carrier import (
    APPLICATION,
    ERRORS,
    KEY,
    PRIVATE_KEY,
    SECRET,
    SIGNATURE_SECRET,
    VonageCarrier,
    VonageKeyCarrier,
    pem,
    signed,
    token,
)

PAGE = Path(__file__).parents[2] / "docs/providers/vonage.md"
URL = f"{PUBLIC_URL}/webhooks/providers/primary/receipts/{TOKENS.token_of_provider('primary')}"

MESSAGE_ID = UUID("01998a5c-7d1e-7000-8000-0123456789ab")
REFERENCE = f"{public_id(IdPrefix.MESSAGE, MESSAGE_ID)}.2"
PART = PartIdentity(MESSAGE_ID, 2, 1)
VONAGE_ID = "13e02ea6-8ef7-486e-84d3-cea27d26934b"
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def section(**more: object) -> dict[str, Any]:
    return {
        "type": "vonage",
        "api_key": KEY,
        "api_secret": "env:SMSGATEWAY_SECRET_KEY",
        "signature_secret": "env:SMSGATEWAY_SECRET_SIGNATURE",
        **more,
    }


def outbound(**more: object) -> Outbound:
    fields: dict[str, Any] = {
        "message_id": MESSAGE_ID,
        "attempt": 2,
        "sender": "+12025550143",
        "recipient": "+447700900123",
        "text": "Your code is 123456",
        "reference": 7,
        "valid_until": None,
        "priority": Priority.NORMAL,
        "receipt_token": TOKENS.token(MESSAGE_ID, 2),
        "country": "GB",
        **more,
    }
    return Outbound(**fields)


@pytest.fixture
async def carrier() -> AsyncIterator[VonageCarrier]:
    async with VonageCarrier() as started:
        yield started


@pytest.fixture
async def key_carrier() -> AsyncIterator[VonageKeyCarrier]:
    async with VonageKeyCarrier() as started:
        yield started


async def submit(
    carrier: VonageCarrier,
    providers: list[Provider],
    message: Outbound | None = None,
    **more: object,
) -> PartOutcome:
    """The outcome of a message at a provider of its own, whose configuration is changed by `more`."""
    provider = carrier.provider(**more)  # type: ignore[arg-type]
    providers.append(provider)
    await provider.hold(1)
    message = message or outbound()
    async with asyncio.timeout(60):
        await provider.wait_until(up=True)
        async with provider.acquire(message.priority):
            (outcome,) = await provider.submit(message, [1])
    return outcome


def sent(carrier: VonageCarrier) -> dict[str, Any]:
    """The body of the only request."""
    (request,) = carrier.asked
    found: dict[str, Any] = json.loads(request.body)
    return found


# --- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"api_key": None, "api_secret": None},
        {"api_secret": None},
        {"application_id": APPLICATION, "private_key": "env:SMSGATEWAY_SECRET_PEM"},
        {"application_id": APPLICATION},
        {"api_key": None, "api_secret": None, "application_id": APPLICATION},
        {"api_key": None, "private_key": "env:SMSGATEWAY_SECRET_PEM"},
    ],
    ids=["none", "half a key", "both", "key and half", "half an application", "two halves"],
)
def test_credentials_are_those_of_an_application_or_an_api_key(keys):
    given = {name: value for name, value in section(**keys).items() if value is not None}
    with pytest.raises(ValidationError, match="give either application_id and private_key, or"):
        VonageConfiguration.model_validate(given)


def test_the_secrets_of_each_kind_of_credentials_are_resolved():
    with_key = VonageConfiguration.model_validate(
        section(previous_signature_secret="env:SMSGATEWAY_SECRET_OLD")
    )
    assert [secret.key for secret in with_key.secrets()] == [
        "api_secret",
        "signature_secret",
        "previous_signature_secret",
    ]
    application = {"application_id": APPLICATION, "private_key": "env:SMSGATEWAY_SECRET_PEM"}
    given = section(api_key=None, api_secret=None, **application)
    with_application = VonageConfiguration.model_validate(given)
    assert [secret.key for secret in with_application.secrets()] == [
        "private_key",
        "signature_secret",
    ]


def test_a_private_key_can_be_in_either_form_of_pem():
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        text = PRIVATE_KEY.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
        # As a file is read: without the newline at its end.
        assert checked_private_key(text.rstrip("\n")).key_size == 2048


UNUSABLE_KEYS = {
    "empty": "",
    "no key": "c2VjcmV0",
    "cut": pem(PRIVATE_KEY)[:200],
    "one line": pem(PRIVATE_KEY).replace("\n", "\\n"),
    "public": PRIVATE_KEY.public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode(),
    "with a password": PRIVATE_KEY.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"made-up")
    ).decode(),
    "elliptic": make_ec_key(SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode(),
    "short": pem(
        make_rsa_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it is to be refused
    ),
}


@pytest.mark.parametrize("name", UNUSABLE_KEYS)
def test_a_private_key_that_cannot_sign_is_refused_and_not_repeated(name):
    with pytest.raises(ValueError, match=r"it is no (private|RSA) key") as caught:
        checked_private_key(UNUSABLE_KEYS[name])
    assert "BEGIN" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_an_adapter_with_an_unusable_private_key_is_not_made_and_names_its_reference(carrier):
    with pytest.raises(SecretMissing) as caught:
        carrier.provider(secrets={**carrier.secrets, "private_key": "c2VjcmV0"})
    assert str(caught.value) == (
        'the secret "env:SMSGATEWAY_SECRET_VONAGE_KEY" cannot be used: '
        "it is no private key in PEM without a password"
    )


# --- authentication ------------------------------------------------------------------------------


def claims_of(made: str) -> dict[str, Any]:
    options: Any = {"verify_exp": False, "verify_iat": False}
    return jwt.decode(made, PRIVATE_KEY.public_key(), algorithms=["RS256"], options=options)


def test_a_token_has_the_claims_of_vonages_own_client():
    ours = ApplicationToken(APPLICATION, pem(PRIVATE_KEY)).at(NOW)
    theirs = JwtClient(APPLICATION, pem(PRIVATE_KEY)).generate_application_jwt().decode()
    assert jwt.get_unverified_header(ours) == jwt.get_unverified_header(theirs)
    claims, expected = claims_of(ours), claims_of(theirs)
    assert {name: type(claim) for name, claim in claims.items()} == {
        name: type(claim) for name, claim in expected.items()
    }
    assert claims["application_id"] == APPLICATION
    assert claims["iat"] == int(NOW.timestamp())
    assert claims["exp"] - claims["iat"] == expected["exp"] - expected["iat"] == 900
    assert UUID(claims["jti"])


def test_a_token_is_used_until_a_minute_before_its_end():
    tokens = ApplicationToken(APPLICATION, pem(PRIVATE_KEY))
    first = tokens.at(NOW)
    assert tokens.at(NOW + timedelta(minutes=13, seconds=59)) == first
    renewed_at = NOW + timedelta(minutes=14)
    second = tokens.at(renewed_at)
    assert claims_of(second)["iat"] == int(renewed_at.timestamp())
    assert claims_of(second)["jti"] != claims_of(first)["jti"]
    assert tokens.at(renewed_at + timedelta(minutes=13)) == second


def test_a_clock_that_was_set_back_leaves_no_token_of_the_future():
    tokens = ApplicationToken(APPLICATION, pem(PRIVATE_KEY))
    tokens.at(NOW)
    earlier = NOW - timedelta(hours=1)
    assert claims_of(tokens.at(earlier))["iat"] == int(earlier.timestamp())


async def test_requests_of_an_application_share_a_token(carrier, providers):
    provider = carrier.provider()
    providers.append(provider)
    await provider.hold(1)
    async with asyncio.timeout(60):
        await provider.wait_until(up=True)
        for _ in range(3):
            async with provider.acquire(Priority.NORMAL):
                (outcome,) = await provider.submit(outbound(), [1])
            assert outcome.kind is OutcomeKind.ACCEPTED
    assert len({request.headers["authorization"] for request in carrier.asked}) == 1


async def test_an_api_key_authenticates_by_basic_authentication(key_carrier, providers):
    outcome = await submit(key_carrier, providers)
    assert outcome.kind is OutcomeKind.ACCEPTED
    given = b64encode(f"{KEY}:{SECRET}".encode()).decode()
    assert key_carrier.asked[0].headers["authorization"] == f"Basic {given}"


async def test_a_wrong_api_secret_is_refused_as_the_account(key_carrier, providers):
    provider = key_carrier.provider(secrets=key_carrier.wrong_secrets)
    providers.append(provider)
    await provider.hold(1)
    async with asyncio.timeout(60):
        await provider.wait_until(up=True)
        async with provider.acquire(Priority.NORMAL):
            (outcome,) = await provider.submit(outbound(), [1])
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "unauthorized")
    assert outcome.error_class is ErrorClass.ACCOUNT


# --- requests ------------------------------------------------------------------------------------


async def test_a_request_is_as_vonage_documents_it(carrier, providers):
    await submit(carrier, providers, outbound(valid_until=datetime.now(UTC) + timedelta(hours=1)))
    (request,) = carrier.asked
    body = json.loads(request.body)
    assert (request.method, request.target) == ("POST", "/v1/messages")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"
    assert 3590 <= body.pop("ttl") <= 3600
    receipts = f"{PUBLIC_URL}/webhooks/providers/primary/receipts"
    assert body == {
        "channel": "sms",
        "message_type": "text",
        "to": "447700900123",
        "from": "12025550143",
        "text": "Your code is 123456",
        "client_ref": REFERENCE,
        "webhook_url": f"{receipts}/{TOKENS.token(MESSAGE_ID, 2)}",
        "webhook_version": "v1",
        "sms": {"encoding_type": "auto"},
    }


async def test_a_response_names_the_message_and_neither_price_nor_segments(carrier, providers):
    outcome = await submit(carrier, providers)
    assert outcome == PartOutcome(
        1, OutcomeKind.ACCEPTED, provider_message_id=carrier.received[0].id
    )


@pytest.mark.parametrize("sender", ["ACME", "12345", "A+B"])
async def test_names_and_short_codes_are_sent_as_they_are(carrier, providers, sender):
    await submit(carrier, providers, outbound(sender=sender))
    assert sent(carrier)["from"] == sender


async def test_the_reference_is_neither_personal_nor_the_secret_token(carrier, providers):
    await submit(carrier, providers)
    reference = sent(carrier)["client_ref"]
    assert len(reference) <= 100
    assert TOKENS.token(MESSAGE_ID, 2) not in reference
    assert "447700900123" not in reference


@pytest.mark.parametrize(
    ("seconds", "ttl"), [(-5, 20), (3, 20), (10_000, 10_000), (1_000_000, 604_800)]
)
async def test_the_validity_is_sent_within_vonages_limits(carrier, providers, seconds, ttl):
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    await submit(carrier, providers, outbound(valid_until=until))
    assert ttl - 10 <= sent(carrier)["ttl"] <= ttl
    assert sent(carrier)["ttl"] >= 20


async def test_without_a_validity_vonage_decides(carrier, providers):
    await submit(carrier, providers)
    assert "ttl" not in sent(carrier)


async def test_without_a_public_address_vonage_is_given_none(carrier, providers):
    async def take(receipt: ReceivedReceipt) -> None:
        raise AssertionError(receipt)

    declared = VonageConfiguration.model_validate(carrier.section())
    provider = VonageProvider("primary", declared, carrier.secrets, ProviderSinks(on_receipt=take))
    providers.append(provider)
    await provider.hold(1)
    async with asyncio.timeout(60):
        await provider.wait_until(up=True)
        async with provider.acquire(Priority.NORMAL):
            await provider.submit(outbound(), [1])
    assert not {"webhook_url", "webhook_version"} & sent(carrier).keys()


async def test_indias_registered_ids_are_sent_as_options_of_sms(carrier, providers):
    parameters = {"entity_id": "1101456324675322134", "content_id": "1107457532145798767"}
    message = outbound(parameters={**parameters, "template_id": "of another provider"})
    await submit(carrier, providers, message)
    assert sent(carrier)["sms"] == {"encoding_type": "auto", **parameters}
    assert VonageConfiguration.model_validate(section()).known_parameters() >= parameters.keys()


async def test_the_configuration_sets_alphabet_and_pool(carrier, providers):
    await submit(carrier, providers, encoding_type="unicode", pool_id="abc123")
    assert sent(carrier)["sms"] == {"encoding_type": "unicode", "pool_id": "abc123"}
    assert sent(carrier)["from"] == "12025550143"


async def test_a_message_can_have_another_alphabet_than_the_configuration(carrier, providers):
    message = outbound(parameters={"encoding_type": "text"})
    await submit(carrier, providers, message, encoding_type="unicode")
    assert sent(carrier)["sms"] == {"encoding_type": "text"}


@pytest.mark.parametrize(("written", "value"), [("true", True), ("false", False)])
async def test_a_trusted_recipient_is_sent_as_a_boolean(carrier, providers, written, value):
    await submit(carrier, providers, outbound(parameters={"trusted_recipient": written}))
    assert sent(carrier)["trusted_recipient"] is value


@pytest.mark.parametrize(
    "parameters",
    [{"trusted_recipient": "yes"}, {"encoding_type": "ucs2"}, {"encoding_type": ""}],
    ids=str,
)
async def test_a_parameter_that_vonage_does_not_take_is_refused(carrier, providers, parameters):
    outcome = await submit(carrier, providers, outbound(parameters=parameters))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "unusable_parameter")
    assert carrier.asked == []


async def test_a_text_that_is_too_long_is_not_sent(carrier, providers):
    assert (await submit(carrier, providers, outbound(text="x" * 3200))).kind is (
        OutcomeKind.ACCEPTED
    )
    outcome = await submit(carrier, providers, outbound(text="x" * 3201))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "unsendable_text")
    assert len(carrier.asked) == 1


async def test_a_text_is_not_sent_as_gsm7_if_it_would_lose_characters(carrier, providers):
    text = outbound(text="Готово")
    outcome = await submit(carrier, providers, text, encoding_type="text")
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "unsendable_text")
    assert carrier.asked == []
    for encoding in ("auto", "unicode"):
        assert (await submit(carrier, providers, text, encoding_type=encoding)).kind is (
            OutcomeKind.ACCEPTED
        )


# --- errors of requests --------------------------------------------------------------------------

# Code, class, and the state of a receipt with it, where that is not REJECTED.
CODES: list[tuple[str, str, str]] = [
    *((code, "throttled", "rejected") for code in ("1000", "1241", "1460", "1472")),
    *(
        (code, "route", "rejected")
        for code in (
            *("1010", "1020", "1021", "1022", "1090", "1140", "1150"),
            *("1400", "1410", "1440", "1450", "invalid-params"),
            *("1120", "1420", "1481", "1200", "1250", "1300"),
            *("1340", "1350", "1370", "1380", "1385", "1389", "1451", "1461"),
        )
    ),
    *((code, "temporary", "rejected") for code in ("1030", "1100", "1230", "1330", "1331")),
    *((code, "invalid_recipient", "rejected") for code in ("1040", "1170", "1430")),
    ("1190", "invalid_recipient", "undeliverable"),
    *((code, "blocked", "rejected") for code in ("1050", "1280", "1270", "1470", "1473")),
    *(
        (code, "account", "rejected")
        for code in (
            *("1060", "1070", "1080", "1110", "1160"),
            *("low-balance", "unauthorized", "forbidden", "not-found", "unprovisioned"),
            *("account-suspended", "jwt-expired", "invalid-signature"),
        )
    ),
    *((code, "undelivered", "undeliverable") for code in ("1180", "1220", "1260", "1290")),
    *((code, "content_filtered", "rejected") for code in ("1210", "1482")),
    ("1240", "opted_out", "rejected"),
    ("1310", "landline", "undeliverable"),
    *((code, "unregistered_sender", "rejected") for code in ("1480", "1483", "1484")),
    *((code, "undelivered", "expired") for code in ("1130", "1360")),
    ("1320", "unknown", "unknown"),
]


def test_the_table_of_the_tests_has_all_codes():
    assert {code for code, *_ in CODES} == VONAGE_CODES.keys() - {
        *("1381", "1382", "1383", "1384", "1386", "1387", "1388")
    }


def problem(type_: object, status: int = 422, **more: object) -> Raw:
    body = {"type": type_, "title": "Invalid params", "detail": "…", "instance": "abc", **more}
    headers = {"content-type": "application/problem+json"}
    return Raw(status, headers, json.dumps(body).encode())


async def outcome_of(
    carrier: VonageCarrier, providers: list[Provider], response: Raw, **more: object
) -> PartOutcome:
    carrier.behaviours.append(response)
    return await submit(carrier, providers, **more)  # type: ignore[arg-type]


async def test_every_code_of_a_refusal_has_its_class(carrier, providers):
    provider = carrier.provider()
    providers.append(provider)
    await provider.hold(1)
    found = []
    async with asyncio.timeout(120):
        await provider.wait_until(up=True)
        for code, *_ in CODES:
            anchor = f"/messages#{code}" if code.isdigit() else f"#{code}"
            carrier.behaviours.append(problem(ERRORS + anchor))
            (outcome,) = await provider.submit(outbound(), [1])
            found.append((outcome.code, str(outcome.error_class)))
            kinds = {"throttled": OutcomeKind.THROTTLED, "unknown": OutcomeKind.UNKNOWN}
            assert outcome.kind is kinds.get(found[-1][1], OutcomeKind.REFUSED)
    assert found == [(code, error_class) for code, error_class, _ in CODES]
    assert carrier.received == []


@pytest.mark.parametrize(
    ("type_", "code"),
    [
        ("https://developer.vonage.com/api-errors/messages#1170", "1170"),
        ("https://developer.nexmo.com/api-errors/messages-olympus#1170", "1170"),
        ("https://developer.vonage.com/api-errors#low-balance", "low-balance"),
        ("https://developer.vonage.com/api-errors/low-balance", "low-balance"),
        ("UNAUTHORIZED", "unauthorized"),
        ("https://developer.vonage.com/api-errors/messages#9999", "9999"),
        ("https://developer.vonage.com/api-errors/messages#some-new-word", "some-new-word"),
    ],
)
async def test_the_code_is_the_fragment_of_the_type_or_its_last_word(
    carrier, providers, type_, code
):
    assert (await outcome_of(carrier, providers, problem(type_))).code == code


@pytest.mark.parametrize(
    "type_",
    [
        None,
        7,
        ["1170"],
        {"a": 1},
        "",
        "#",
        "about:blank",
        "https://example.com/#447700900123",
        "https://example.com/#" + "a" * 500,
        "https://example.com/#two words",
        "https://example.com/#1170\n",
        "https://example.com/#\u0661\u0661\u0667\u0660",
    ],
    ids=repr,
)
async def test_a_type_without_a_code_is_worth_what_the_status_says(carrier, providers, type_):
    outcome = await outcome_of(carrier, providers, problem(type_))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "http_422")
    assert outcome.error_class is ErrorClass.ROUTE


@pytest.mark.parametrize(
    ("status", "error_class"),
    [(401, "account"), (402, "account"), (403, "account"), (404, "account"), (422, "route")],
)
async def test_an_unknown_code_is_worth_what_the_status_says(
    carrier, providers, status, error_class
):
    response = problem(f"{ERRORS}#some-new-word", status)
    outcome = await outcome_of(carrier, providers, response)
    assert (outcome.code, outcome.error_class) == ("some-new-word", ErrorClass(error_class))


@pytest.mark.parametrize("code", ["1030", "1100", "1230", "1330", "1331"])
async def test_a_failure_of_vonage_leaves_the_outcome_unknown_after_a_5xx(carrier, providers, code):
    response = problem(f"{ERRORS}/messages#{code}", 500)
    outcome = await outcome_of(carrier, providers, response)
    assert (outcome.kind, outcome.code) == (OutcomeKind.UNKNOWN, code)
    assert outcome.error_class is ErrorClass.UNKNOWN


async def test_the_configuration_decides_on_a_code_after_a_5xx_as_well(carrier, providers):
    response = problem(f"{ERRORS}/messages#1030", 500)
    outcome = await outcome_of(carrier, providers, response, errors={"1030": "temporary"})
    assert (outcome.kind, outcome.error_class) == (OutcomeKind.REFUSED, ErrorClass.TEMPORARY)


async def test_a_throttled_request_waits_as_long_as_a_retry_after_says_if_there_is_one(
    carrier, providers
):
    response = problem(f"{ERRORS}/messages#1000", 429)
    named = Raw(429, {**response.headers, "retry-after": "3"}, response.body)
    outcome = await outcome_of(carrier, providers, named)
    assert (outcome.kind, outcome.after) == (OutcomeKind.THROTTLED, timedelta(seconds=3))


@pytest.mark.parametrize("message_uuid", [None, "", ["x"], {"x": 1}, True])
async def test_an_accepted_message_without_an_id_may_have_been_sent(
    carrier, providers, message_uuid
):
    body = json.dumps({"message_uuid": message_uuid}).encode()
    outcome = await outcome_of(carrier, providers, Raw(202, {}, body))
    assert outcome.kind is OutcomeKind.UNKNOWN


# --- signatures ----------------------------------------------------------------------------------


def webhooks(secrets: Mapping[str, str] | None = None) -> VonageWebhooks:
    return VonageWebhooks(
        "primary",
        VonageConfiguration.model_validate(section()),
        {"signature_secret": SIGNATURE_SECRET} if secrets is None else secrets,
    )


def status_body(**more: object) -> bytes:
    """A v1 status webhook; a member of None is left out."""
    body = {
        "message_uuid": VONAGE_ID,
        "to": "447700900123",
        "from": "ACME",
        "timestamp": "2026-11-28T12:00:00Z",
        "status": "delivered",
        "client_ref": REFERENCE,
        "usage": {"currency": "EUR", "price": "0.0333"},
        "destination": {"network_code": "23410"},
        "sms": {"count_total": "2"},
        "channel": "sms",
        **more,
    }
    return json.dumps({name: each for name, each in body.items() if each is not None}).encode()


def forged(request: WebhookRequest, secrets: Mapping[str, str] | None = None) -> ForgedReason:
    with pytest.raises(WebhookForged) as caught:
        webhooks(secrets).verify(request)
    return caught.value.reason


def with_authorization(value: str | None, body: bytes = b"{}") -> WebhookRequest:
    headers = {} if value is None else {"authorization": value}
    return as_came(Request("POST", URL, headers, body))


def test_vonages_own_library_accepts_the_tokens_of_the_fake():
    assert verify_signature(token(b"{}"), SIGNATURE_SECRET) is True
    assert verify_signature(token(b"{}", secret=SIGNATURE_SECRET[::-1]), SIGNATURE_SECRET) is False


def test_a_signed_webhook_is_accepted():
    webhooks().verify(as_came(signed(URL, status_body())))
    webhooks().verify(as_came(signed(URL, status_body(), application_id=None)))
    webhooks().verify(as_came(signed(URL, b"")))


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_of_the_header_may_be_in_any_case(scheme):
    webhooks().verify(with_authorization(f"{scheme} {token(b'{}')}"))


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "e30.e30.e30"])
def test_a_webhook_without_a_token_is_refused(header):
    assert forged(with_authorization(header)) is ForgedReason.UNSIGNED


def compact(header: bytes, rest: str = ".e30.e30") -> str:
    """A token with these octets as its header."""
    return urlsafe_b64encode(header).rstrip(b"=").decode() + rest


HS256 = b'{"alg":"HS256","typ":"JWT"}'


@pytest.mark.parametrize(
    "given",
    [
        "x",
        "..",
        "a.b.c",
        "\xff.\xfe.\x00",
        compact(HS256, ".."),
        compact(HS256, ".e30."),
        compact(b"[" * 40_000),
        compact(b"null"),
        compact(b'{"alg":7}'),
        compact(b'{"alg":"HS256","kid":7}'),
        compact(b'{"alg":"HS256","crit":["b64"],"b64":false}', "..e30"),
        compact(b'{"alg":' + b"9" * 9000 + b"}"),
    ],
    ids=range(12),
)
def test_a_hostile_token_is_refused(given):
    assert forged(with_authorization(f"Bearer {given}")) is ForgedReason.BAD_SIGNATURE


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "none", "RS256"])
def test_no_other_algorithm_than_hs256_is_accepted(algorithm):
    claims = jwt.decode(token(b"{}"), SIGNATURE_SECRET, algorithms=["HS256"])
    key: Any = {"none": None, "RS256": PRIVATE_KEY}.get(algorithm, SIGNATURE_SECRET + "x" * 32)
    made = jwt.encode(claims, key, algorithm=algorithm)
    # For HS384 and HS512 the very secret is used: only their algorithm is wrong.
    secrets = {"signature_secret": SIGNATURE_SECRET + "x" * 32}
    assert forged(with_authorization(f"Bearer {made}"), secrets) is ForgedReason.BAD_SIGNATURE


def test_another_secret_is_refused_and_no_secret_accepts_nothing():
    request = as_came(signed(URL, status_body(), secret=SIGNATURE_SECRET[::-1]))
    assert forged(request) is ForgedReason.BAD_SIGNATURE
    assert forged(request, {}) is ForgedReason.BAD_SIGNATURE


def test_either_secret_may_have_signed_during_a_rotation():
    new = "made-up-new-signature-secret-2f6c81b7d1e0"
    secrets = {"signature_secret": new, "previous_signature_secret": SIGNATURE_SECRET}
    webhooks(secrets).verify(as_came(signed(URL, status_body())))
    webhooks(secrets).verify(as_came(signed(URL, status_body(), secret=new)))
    third = as_came(signed(URL, status_body(), secret=SIGNATURE_SECRET[::-1]))
    assert forged(third, secrets) is ForgedReason.BAD_SIGNATURE


@pytest.mark.parametrize("payload_hash", [None, "", 7, True, ["x"], "0" * 64, "\ud800", "é"])
def test_a_token_that_does_not_bind_the_body_is_refused(payload_hash):
    request = as_came(signed(URL, status_body(), payload_hash=payload_hash))
    assert forged(request) is ForgedReason.BODY_CHANGED


@pytest.mark.parametrize(
    ("claims", "is_accepted"),
    [
        ({"iat": 0}, True),
        ({"iat": -24 * 3600 + 1}, True),
        ({"iat": -24 * 3600 - 1}, False),
        ({"iat": 299}, True),
        ({"iat": 301}, False),
        ({"iat": 3600}, False),
        ({"iat": 0, "exp": 60}, True),
        ({"iat": 0, "exp": 0}, False),
        ({"iat": -3600, "exp": -600}, False),
    ],
    ids=str,
)
def test_the_times_of_a_token_are_bounded(claims, is_accepted):
    now = int(NOW.timestamp())
    request = signed(URL, status_body(), **{name: now + each for name, each in claims.items()})
    came = WebhookRequest("POST", URL, request.headers, request.body, NOW)
    if is_accepted:
        webhooks().verify(came)
    else:
        assert forged(came) is ForgedReason.TOO_OLD


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": None},
        {"iat": True},
        {"iat": "1795867200"},
        {"iat": [1]},
        {"iat": float("nan")},
        {"iat": 10**400},
        {"exp": "1795867200"},
        {"exp": float("nan")},
        {"exp": False},
    ],
    ids=str,
)
def test_a_token_without_usable_times_is_refused(claims):
    assert forged(as_came(signed(URL, status_body(), **claims))) is ForgedReason.TOO_OLD


def test_claims_that_are_not_used_do_not_matter():
    more: dict[str, Any] = {"jti": 7, "iss": "Nexmo", "aud": "x", "sub": 7, "api_key": None}
    webhooks().verify(as_came(signed(URL, status_body(), **more)))


# --- receipts ------------------------------------------------------------------------------------


def receipt(body: bytes, part: PartIdentity | None = None, **more: object) -> ReceivedReceipt:
    declared = VonageConfiguration.model_validate(section(**more))
    (found,) = VonageWebhooks("primary", declared, {}).receipts(stored_request(body), part)
    return found


def error(code: object, title: object = None) -> dict[str, object]:
    return {
        "type": f"{ERRORS}/messages#{code}",
        "title": code if title is None else title,
        "detail": "Absent Subscriber",
        "instance": "bf0ca0bf927b3b52e3cb03217e1a1ddf",
    }


def test_a_receipt_is_read_whole():
    assert receipt(status_body()) == ReceivedReceipt(
        provider="primary",
        provider_message_id=VONAGE_ID,
        state=ReceiptState.DELIVERED,
        code="",
        network="23410",
        reference=None,
        sender="ACME",
        recipient="+447700900123",
        done_at=NOW,
        part=PART,
        error_class=None,
    )


@pytest.mark.parametrize(
    ("status", "state", "error_class"),
    [
        ("submitted", "enroute", None),
        ("delivered", "delivered", None),
        ("read", "delivered", None),
        ("rejected", "rejected", None),
        ("undeliverable", "rejected", "temporary"),
        ("Rejected", "rejected", None),
        ("a-new-word", "enroute", None),
    ],
)
def test_every_status_has_its_state(status, state, error_class):
    found = receipt(status_body(status=status))
    assert (found.state, found.error_class) == (ReceiptState(state), error_class)


def test_the_code_of_a_receipt_decides_its_class_and_its_state():
    found = [receipt(status_body(status="rejected", error=error(code))) for code, *_ in CODES]
    assert [
        (each.code, str(each.error_class), str(each.state)) for each in found if each.state.is_final
    ] == [each for each in CODES if each[2] != "unknown"]
    (unknown,) = [each for each in found if not each.state.is_final]
    assert (unknown.code, unknown.state) == ("1320", ReceiptState.UNKNOWN)


def test_the_code_of_an_undeliverable_message_counts_before_its_status():
    found = receipt(status_body(status="undeliverable", error=error(1300)))
    assert (found.state, found.error_class) == (ReceiptState.REJECTED, ErrorClass.ROUTE)
    unknown = receipt(status_body(status="undeliverable", error=error(9999)))
    assert (unknown.code, unknown.error_class) == ("9999", ErrorClass.TEMPORARY)


def test_the_configuration_can_give_a_code_of_receipts_another_class():
    body = status_body(status="undeliverable", error=error(1300))
    assert receipt(body, errors={"1300": "blocked"}).error_class is ErrorClass.BLOCKED


@pytest.mark.parametrize("status", ["submitted", "delivered", "a-new-word"])
def test_an_error_beside_a_status_that_is_no_failure_does_not_change_the_state(status):
    found = receipt(status_body(status=status, error=error(1360)))
    assert (found.state, found.code) == (STATES.get(status, ReceiptState.ENROUTE), "")
    assert found.error_class is None


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (error(1180), "1180"),
        (error(1180, title="1180"), "1180"),
        (error(1180, title="Absent Subscriber"), "1180"),
        ({"error": error(1180)}, "1180"),
        ({"error": error("1180", title="Absent Subscriber")}, "1180"),
        ({"type": f"{ERRORS}/messages#1180"}, "1180"),
        ({"title": 1180}, "1180"),
        # The number counts before the word.
        (error("absent-subscriber", title=1180), "1180"),
        (error("absent-subscriber", title="Absent"), "absent-subscriber"),
        # v0.1
        ({"code": 1300, "reason": "Not part of the provider network"}, "1300"),
        ({"code": "1300", "reason": "Not part of the provider network"}, "1300"),
    ],
)
def test_the_code_is_found_in_every_documented_shape(written, code):
    assert receipt(status_body(status="rejected", error=written)).code == code


@pytest.mark.parametrize(
    "written",
    [
        None,
        7,
        "1180",
        [],
        {},
        {"error": 7},
        {"error": {"error": error(1180)}},
        {"title": True},
        {"title": 1.5},
        {"title": "447700900123"},
        {"title": "\u0661\u0661\u0668\u0660"},
        {"code": [1180]},
        {"type": "https://example.com/#Sent to 447700900123"},
    ],
    ids=repr,
)
def test_an_error_without_a_code_leaves_the_state_of_the_status(written):
    found = receipt(status_body(status="rejected", error=written))
    assert (found.code, found.state, found.error_class) == ("", ReceiptState.REJECTED, None)


def test_a_receipt_in_the_shape_of_version_0_1_is_read():
    body = status_body(
        to={"type": "sms", "number": "447700900123"},
        **{"from": {"type": "sms", "number": "12025550143"}},
        timestamp="2026-11-28T14:00:00.000+02:00",
        status="rejected",
        error={"code": 1300, "reason": "Not part of the provider network"},
        destination=None,
        sms=None,
        channel=None,
    )
    found = receipt(body)
    assert (found.state, found.code) == (ReceiptState.REJECTED, "1300")
    assert (found.sender, found.recipient) == ("+12025550143", "+447700900123")
    assert (found.network, found.done_at, found.part) == (None, NOW, PART)


@pytest.mark.parametrize(
    ("written", "sender"),
    [
        ("ACME", "ACME"),
        ("12025550143", "+12025550143"),
        (12025550143, "+12025550143"),
        ("12345", "12345"),
        ("12345678", "12345678"),
        ("", None),
        (None, None),
        (["x"], None),
        ({"type": "sms"}, None),
    ],
)
def test_the_sender_is_as_it_was_accepted(written, sender):
    assert receipt(status_body(**{"from": written})).sender == sender


@pytest.mark.parametrize("written", [None, "", "ACME", "+", "\u0661\u0662", {}, ["447700900123"]])
def test_a_recipient_that_is_no_number_is_left_out(written):
    assert receipt(status_body(to=written)).recipient is None


@pytest.mark.parametrize(
    "timestamp", [None, 7, "", "yesterday", "2026-11-28", "2026-11-28T12:00:00", "9" * 5000]
)
def test_a_time_that_cannot_be_read_is_left_out(timestamp):
    assert receipt(status_body(timestamp=timestamp)).done_at is None


@pytest.mark.parametrize("destination", [None, 7, "23410", [], {}, {"network_code": None}])
def test_a_network_that_cannot_be_read_is_left_out(destination):
    assert receipt(status_body(destination=destination)).network is None


@pytest.mark.parametrize("absent", ["usage", "sms", "channel", "destination", "to", "from"])
def test_a_receipt_may_lack_what_is_not_needed(absent):
    assert receipt(status_body(**{absent: None})).state is ReceiptState.DELIVERED


# --- whom a receipt is for -----------------------------------------------------------------------

OTHER = PartIdentity(UUID("01998a5c-7d1e-7000-8000-0123456789ff"), 1, 1)


def test_the_signed_reference_names_the_part_where_the_address_does_not():
    assert receipt(status_body()).part == PART


def test_the_signed_reference_counts_before_the_address_which_is_not_signed():
    assert receipt(status_body(), OTHER).part == PART


@pytest.mark.parametrize(
    "reference",
    [
        None,
        "",
        7,
        ["x"],
        "order 7",
        public_id(IdPrefix.MESSAGE, MESSAGE_ID),
        f"{public_id(IdPrefix.BATCH, MESSAGE_ID)}.2",
        REFERENCE.upper(),
        f"{public_id(IdPrefix.MESSAGE, MESSAGE_ID)}.0",
        f"{public_id(IdPrefix.MESSAGE, MESSAGE_ID)}.02",
        f"{public_id(IdPrefix.MESSAGE, MESSAGE_ID)}.32768",
        f"{public_id(IdPrefix.MESSAGE, MESSAGE_ID)}.\u0662",
        REFERENCE + "\n",
    ],
    ids=repr,
)
def test_a_reference_that_is_not_ours_leaves_the_part_to_the_address(reference):
    body = status_body(client_ref=reference)
    assert receipt(body, OTHER).part == OTHER
    assert receipt(body).part is None


async def test_the_reference_of_a_request_names_its_attempt_in_the_receipt(carrier, providers):
    await submit(carrier, providers)
    body = status_body(client_ref=sent(carrier)["client_ref"])
    assert receipt(body).part == PART


# --- other requests ------------------------------------------------------------------------------

INBOUND = {
    "v1": {
        "channel": "sms",
        "message_type": "text",
        "message_uuid": VONAGE_ID,
        "to": "12025550144",
        "from": "447700900132",
        "timestamp": "2026-11-28T12:00:01Z",
        "text": "STOP",
        "sms": {"num_messages": "1", "keyword": "STOP"},
        "usage": {"currency": "EUR", "price": "0.0000"},
    },
    "v0.1": {
        "message_uuid": VONAGE_ID,
        "to": {"type": "sms", "number": "12025550144"},
        "from": {"type": "sms", "number": "447700900132"},
        "timestamp": "2026-11-28T12:00:01.000Z",
        "direction": "inbound",
        "message": {"content": {"type": "text", "text": "STOP"}},
    },
}


@pytest.mark.parametrize("version", INBOUND)
def test_an_inbound_message_is_no_receipt(version):
    body = json.dumps(INBOUND[version]).encode()
    assert list(webhooks().receipts(stored_request(body), PART)) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"{}",
        b"\xff",
        b"[" * 100_000,
        status_body(message_uuid=None),
        status_body(message_uuid=""),
        status_body(message_uuid=["x"]),
        status_body(status=None),
        status_body(status={"x": 1}),
    ],
    ids=range(14),
)
def test_a_body_that_is_no_webhook_of_vonage_is_unreadable(body):
    with pytest.raises(UnreadableWebhook):
        webhooks().receipts(stored_request(body), PART)


# --- the page ------------------------------------------------------------------------------------


def page_table(heading: str) -> list[list[str]]:
    """The cells of a table of the page."""
    found = re.search(
        rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE
    )
    assert found, heading
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()
    ]


def test_the_configurations_of_the_page_can_be_copied():
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        route = '[[routes]]\nproviders = ["vonage"]\n'
        declared = parse_configuration(block + route).providers["vonage"]
        assert isinstance(declared, VonageConfiguration)
        assert declared.url == "https://api.nexmo.com"
        assert (declared.application_id is None) is not (declared.api_key is None)


def test_the_page_has_every_code_with_its_class():
    documented = {
        code: error_class.strip("`")
        for codes, error_class, *_ in page_table("code")
        for code in re.findall(r"`([^`]+)`", codes)
    }
    assert documented == {code: str(each.error_class) for code, each in VONAGE_CODES.items()}


def test_the_page_has_every_status():
    documented = {row[0].strip("`"): row[1].strip("`") for row in page_table("status")}
    assert documented == {word: str(state) for word, state in STATES.items()}

"""What every adapter promises, tried on each of them against a fake of its carrier."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from domain.binds import BindFailure
from domain.error_classes import ErrorClass
from domain.modes import Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.receipts import PartIdentity, ReceiptState
from providers.base import Outbound, Provider
from providers.webhooks import UnreadableWebhook, WebhookForged, stored_request
from tests.fakes.carrier import (
    TOKENS,
    Carrier,
    Hang,
    HttpCarrier,
    LoseResponse,
    Raw,
    Refuse,
    Throttle,
    as_came,
)
from tests.fakes.declared_carrier import DeclaredCarrier
from tests.fakes.infobip_carrier import InfobipCarrier
from tests.fakes.smpp_carrier import SmppCarrier
from tests.fakes.telnyx_carrier import TelnyxCarrier
from tests.fakes.twilio_carrier import TwilioCarrier
from tests.fakes.vonage_carrier import VonageCarrier

CARRIERS: list[type[Carrier]] = [
    TwilioCarrier,
    TelnyxCarrier,
    InfobipCarrier,
    VonageCarrier,
    SmppCarrier,
    DeclaredCarrier,
]
HTTP_CARRIERS = [each for each in CARRIERS if issubclass(each, HttpCarrier)]

RECIPIENT = "+447700900123"
SENDER = "+12025550143"
TEXT = 'Ça marche ? 👍 50 % & [ok] + "quoted" <b>\n2nd line'


def outbound(text: str = TEXT, **more: object) -> Outbound:
    message_id = uuid4()
    fields = {
        "message_id": message_id,
        "attempt": 2,
        "sender": SENDER,
        "recipient": RECIPIENT,
        "text": text,
        "reference": 7,
        "valid_until": datetime.now(UTC) + timedelta(hours=1),
        "priority": Priority.NORMAL,
        "receipt_token": TOKENS.token(message_id, 2),
        "country": "GB",
    }
    return Outbound(**(fields | more))  # type: ignore[arg-type]


@pytest.fixture(params=CARRIERS, ids=lambda carrier: carrier.type)
async def carrier(request: pytest.FixtureRequest) -> AsyncIterator[Carrier]:
    async with request.param() as started:
        yield started


@pytest.fixture(params=HTTP_CARRIERS, ids=lambda carrier: carrier.type)
async def http_carrier(request: pytest.FixtureRequest) -> AsyncIterator[HttpCarrier]:
    async with request.param() as started:
        yield started


async def bound(carrier: Carrier, providers: list[Provider], **more: object) -> Provider:
    provider = carrier.provider(**more)  # type: ignore[arg-type]
    providers.append(provider)
    await provider.hold(2)
    async with asyncio.timeout(60):
        await provider.wait_until(up=True)
    return provider


async def submit(provider: Provider, message: Outbound) -> PartOutcome:
    async with asyncio.timeout(60), provider.acquire(message.priority):
        (outcome,) = await provider.submit(message, [1])
    return outcome


async def test_the_carrier_gets_sender_recipient_and_text_as_they_were_accepted(carrier, providers):
    provider = await bound(carrier, providers)
    outcome = await submit(provider, outbound())
    (sent,) = carrier.received
    assert (sent.to, sent.sender, sent.text) == (RECIPIENT, SENDER, TEXT)
    assert (outcome.kind, outcome.provider_message_id) == (OutcomeKind.ACCEPTED, sent.id)


async def test_a_receipt_matches_its_message_and_names_the_attempt(carrier, providers):
    provider = await bound(carrier, providers)
    message = outbound()
    outcome = await submit(provider, message)
    await carrier.report(carrier.received[0], ReceiptState.DELIVERED)
    (receipt,) = carrier.receipts
    assert receipt.state is ReceiptState.DELIVERED
    assert receipt.provider_message_id == outcome.provider_message_id
    assert receipt.part in {None, PartIdentity(message.message_id, 2, 1)}
    assert receipt.error_class is None
    assert receipt.recipient in {None, RECIPIENT}


async def test_the_code_of_a_failed_receipt_decides_its_error_class(carrier, providers):
    provider = await bound(carrier, providers)
    await submit(provider, outbound())
    await carrier.report(carrier.received[0], ReceiptState.UNDELIVERABLE, carrier.failure.code)
    (receipt,) = carrier.receipts
    assert (receipt.state, receipt.code) == (ReceiptState.UNDELIVERABLE, carrier.failure.code)
    assert receipt.error_class is carrier.failure.error_class


async def test_the_configuration_can_give_a_code_another_class(carrier, providers):
    carrier.behaviours.append(Refuse(carrier.refusal.code))
    provider = await bound(carrier, providers, errors={carrier.refusal.code: "blocked"})
    assert (await submit(provider, outbound())).error_class is ErrorClass.BLOCKED


async def test_a_refused_message_has_the_carriers_code_and_its_class(carrier, providers):
    carrier.behaviours.append(Refuse(carrier.refusal.code))
    provider = await bound(carrier, providers)
    outcome = await submit(provider, outbound())
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, carrier.refusal.code)
    assert outcome.error_class is carrier.refusal.error_class
    assert carrier.received == []


async def test_a_carrier_that_throttles_says_when_it_takes_more(carrier, providers):
    carrier.behaviours.append(Throttle(7))
    provider = await bound(carrier, providers)
    outcome = await submit(provider, outbound())
    assert (outcome.kind, outcome.error_class) == (OutcomeKind.THROTTLED, ErrorClass.THROTTLED)
    assert outcome.after == (timedelta(seconds=7) if carrier.gives_retry_after else None)


@pytest.mark.parametrize("behaviour", [LoseResponse(), Hang()], ids=["lost", "silent"])
async def test_after_a_lost_response_no_second_sms_is_sent(carrier, providers, behaviour):
    carrier.behaviours.append(behaviour)
    provider = await bound(carrier, providers, response_timeout="2s")
    outcome = await submit(provider, outbound())
    assert len(carrier.received) == 1
    if carrier.repeats_are_safe:
        assert outcome.kind is OutcomeKind.ACCEPTED
        assert outcome.provider_message_id == carrier.received[0].id
    else:
        assert outcome.kind is OutcomeKind.UNKNOWN


async def test_a_receipt_resolves_an_outcome_that_is_unknown(http_carrier, providers):
    http_carrier.behaviours += [LoseResponse(), LoseResponse()]
    provider = await bound(http_carrier, providers, response_timeout="2s")
    message = outbound()
    assert (await submit(provider, message)).kind is OutcomeKind.UNKNOWN
    await http_carrier.report(http_carrier.received[0], ReceiptState.DELIVERED)
    assert http_carrier.receipts[0].part == PartIdentity(message.message_id, 2, 1)


async def test_a_refusal_of_the_repeat_does_not_hide_that_the_first_may_have_been_sent(
    http_carrier, providers
):
    if not http_carrier.repeats_are_safe:
        pytest.skip("it is not repeated")
    http_carrier.behaviours += [LoseResponse(), Throttle()]
    provider = await bound(http_carrier, providers, response_timeout="2s")
    assert (await submit(provider, outbound())).kind is OutcomeKind.UNKNOWN


async def test_a_connection_that_is_refused_sends_nothing_and_the_provider_is_down_until_it_is_back(
    http_carrier, providers
):
    provider = await bound(http_carrier, providers)
    await http_carrier.hang_up()
    outcome = await submit(provider, outbound())
    assert outcome.kind is OutcomeKind.UNREACHABLE
    assert not provider.up
    assert provider.last_bind_error is not None
    assert provider.last_bind_error.reason is BindFailure.CONNECTION_REFUSED
    await http_carrier.listen(http_carrier.port)
    async with asyncio.timeout(60):
        await provider.wait_until(up=True)
    assert not provider.last_bind_error.is_current
    assert (await submit(provider, outbound())).kind is OutcomeKind.ACCEPTED


@pytest.mark.parametrize(
    "response",
    [
        Raw(500),
        Raw(502, {"content-type": "text/html"}, b"<h1>Bad gateway</h1>"),
        Raw(503, {"retry-after": "1"}),
        Raw(200, {"content-type": "application/json"}, b"{"),
        Raw(200, {"content-type": "application/json"}, b"[" * 100_000),
        Raw(200, {}, b"\xff\x00"),
        Raw(200, {}, b"x" * 3_000_000),
        Raw(202, {"content-type": "application/json"}, b"null"),
    ],
    ids=["500", "502", "503", "cut", "deep", "binary", "endless", "null"],
)
async def test_a_response_that_proves_nothing_leaves_the_outcome_unknown(
    http_carrier, providers, response
):
    http_carrier.behaviours += [response, response]
    provider = await bound(http_carrier, providers)
    outcome = await submit(provider, outbound())
    assert (outcome.kind, outcome.error_class) == (OutcomeKind.UNKNOWN, ErrorClass.UNKNOWN)


async def test_a_redirect_is_not_followed(http_carrier, providers):
    http_carrier.behaviours.append(Raw(302, {"location": f"{http_carrier.url}/elsewhere"}))
    provider = await bound(http_carrier, providers)
    outcome = await submit(provider, outbound())
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "http_302")
    assert len(http_carrier.asked) == 1


async def test_wrong_credentials_are_shown_until_a_message_is_accepted(http_carrier, providers):
    wrong = http_carrier.wrong_secrets
    provider = await bound(http_carrier, providers, secrets=wrong)
    outcome = await submit(provider, outbound())
    assert (outcome.kind, outcome.error_class) == (OutcomeKind.REFUSED, ErrorClass.ACCOUNT)
    assert provider.last_bind_error is not None
    assert provider.last_bind_error.reason is BindFailure.ACCOUNT_REFUSED
    assert not [each for each in wrong.values() if each in provider.last_bind_error.sentence]


async def test_a_carrier_that_can_be_asked_says_what_has_become_of_a_message(carrier, providers):
    provider = await bound(carrier, providers)
    outcome = await submit(provider, outbound())
    assert outcome.provider_message_id is not None
    carrier.states[outcome.provider_message_id] = (
        ReceiptState.UNDELIVERABLE,
        carrier.failure.code,
    )
    found = await provider.query(outcome.provider_message_id, sender=SENDER)
    if not carrier.can_be_asked:
        assert found is None
        return
    assert found is not None
    assert (found.state, found.error_class) == (
        ReceiptState.UNDELIVERABLE,
        carrier.failure.error_class,
    )


async def test_a_receipt_that_was_changed_anywhere_is_refused(http_carrier, providers):
    if not http_carrier.signs:
        pytest.skip("the vendor signs nothing: the token of the address protects the receipts")
    provider = await bound(http_carrier, providers)
    await submit(provider, outbound())
    request = as_came(http_carrier.receipt(http_carrier.received[0], ReceiptState.DELIVERED, ""))
    webhooks = http_carrier.webhooks()
    webhooks.verify(request)
    for place in range(len(request.body)):
        changed = bytes([request.body[place] ^ 1])
        body = request.body[:place] + changed + request.body[place + 1 :]
        with pytest.raises(WebhookForged):
            webhooks.verify(replace(request, body=body))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b"[]", b"a=1", b'{"results":7}'])
async def test_a_body_that_is_no_receipt_is_unreadable_or_holds_none(http_carrier, body):
    try:
        receipts = http_carrier.webhooks().receipts(stored_request(body), None)
    except UnreadableWebhook:
        return
    assert list(receipts) == []


async def test_a_cookie_of_any_kind_is_neither_kept_nor_sent(http_carrier, providers):
    cookie = Raw(429, {"set-cookie": "lang=fran\u00e7ais; Path=/"})
    http_carrier.behaviours.append(cookie)
    provider = await bound(http_carrier, providers)
    await submit(provider, outbound())
    assert (await submit(provider, outbound())).kind is OutcomeKind.ACCEPTED
    assert not [each for each in http_carrier.asked if "cookie" in each.headers]


@pytest.mark.parametrize("location", ["mailto:x@example.com", "http://xn--a/", "//", "\u00e7"])
async def test_a_redirect_to_anything_refuses_the_message(http_carrier, providers, location):
    http_carrier.behaviours.append(Raw(302, {"location": location}))
    provider = await bound(http_carrier, providers)
    assert (await submit(provider, outbound())).kind is OutcomeKind.REFUSED


async def test_a_compressed_response_is_not_unpacked(http_carrier, providers):
    bomb = gzip.compress(gzip.compress(bytes(50_000_000)))
    response = Raw(200, {"content-encoding": "gzip, gzip"}, bomb)
    http_carrier.behaviours += [response, response]
    provider = await bound(http_carrier, providers)
    assert (await submit(provider, outbound())).kind is OutcomeKind.UNKNOWN
    assert http_carrier.asked[0].headers["accept-encoding"] == "identity"


async def test_a_sentence_in_place_of_a_code_is_shown_nowhere(http_carrier, providers):
    sentence = f"Sender may not text {RECIPIENT}: Your PIN is 4711"
    http_carrier.behaviours.append(Refuse(sentence))
    provider = await bound(http_carrier, providers)
    outcome = await submit(provider, outbound())
    assert "PIN" not in outcome.code
    assert "PIN" not in str(provider.last_bind_error)
    await submit(provider, outbound())
    failed = ReceiptState.UNDELIVERABLE
    with suppress(UnreadableWebhook):
        await http_carrier.report(http_carrier.received[-1], failed, sentence)
    assert not [each for each in http_carrier.receipts if "PIN" in each.code]


async def test_connections_that_are_given_back_carry_no_request_any_more(http_carrier, providers):
    http_carrier.behaviours += [Hang()]
    provider = await bound(http_carrier, providers, response_timeout="1s")
    sending = asyncio.create_task(submit(provider, outbound()))
    while not http_carrier.asked:
        await asyncio.sleep(0.01)
    await provider.hold(0)
    assert provider._queue.held == 0
    assert (await sending).kind in {OutcomeKind.UNKNOWN, OutcomeKind.ACCEPTED}
    await asyncio.sleep(0.05)
    assert not provider.up


async def test_a_text_that_is_no_unicode_is_refused(http_carrier, providers):
    provider = await bound(http_carrier, providers)
    outcome = await submit(provider, outbound("half \ud83d"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "unsendable_text")
    assert http_carrier.received == []


async def test_a_mistake_of_an_adapter_sends_nothing_and_the_next_provider_is_tried(
    http_carrier, providers, monkeypatch
):
    provider = await bound(http_carrier, providers)

    def mistaken(_: Outbound) -> None:
        raise LookupError

    monkeypatch.setattr(provider, "_request", mistaken)
    assert (await submit(provider, outbound())).kind is OutcomeKind.UNREACHABLE

"""A provider of a type that another package adds, end to end beside one that speaks SMPP."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from api.messages import Explanation
from domain.modes import Mode
from domain.money import Billed, Price
from domain.receipts import ReceiptState
from providers.base import ReceivedReceipt
from tests.fakes.line_provider import LineCarrier, names_attempt
from tests.fakes.packages import install_entry_points
from tests.gateway import Gateway, running_gateway, uuid_of
from tests.workflows.test_bulk import Batch

TOKEN = "swordfish"
CONFIGURATION = """
[providers.lines]
type = "lines"
port = LINES_PORT
token = "env:SMSGATEWAY_SECRET_LINES"
errors = {{ bad_token = "route", spam = "blocked", later = "temporary" }}

[providers.primary]
type = "simulator"
port = {primary}

[[routes]]
providers = ["lines", "primary"]
"""


@pytest.fixture
async def carrier() -> AsyncIterator[LineCarrier]:
    async with LineCarrier(TOKEN) as running:
        yield running


@pytest.fixture
async def gateway(
    carrier: LineCarrier, database_url, temporal_client, tmp_path: Path, monkeypatch
) -> AsyncIterator[Gateway]:
    install_entry_points(
        tmp_path,
        monkeypatch,
        {"smsgateway.providers": {"lines": "tests.fakes.line_provider:LINES"}},
    )
    monkeypatch.setenv("SMSGATEWAY_SECRET_LINES", TOKEN)
    configuration = CONFIGURATION.replace("LINES_PORT", str(carrier.port))
    async with running_gateway(
        database_url, temporal_client, configuration=configuration, with_worker=False
    ) as running:
        await running.start_worker()
        await running.providers_up("lines", "primary")
        yield running


async def test_a_message_is_delivered_by_an_adapter_of_another_package(
    gateway: Gateway, carrier: LineCarrier
):
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("lines", "delivered")]
    (received,) = carrier.received
    assert (received["text"], received["from"]) == ("Disk full on db-1", "AbilIT")
    assert (received["country"], received["parameters"]) == ("GB", {})
    assert not gateway.primary.messages


async def test_a_long_message_is_one_submit_to_a_provider_that_splits_it_itself(
    gateway: Gateway, carrier: LineCarrier
):
    text = "The disk of the database is full; please look at it. " * 8
    message = await gateway.send(body=text, mode=Mode.ALERT)
    assert message.segments > 2
    await gateway.until(message, "delivered")
    assert [received["text"] for received in carrier.received] == [text]


async def test_a_message_that_it_refuses_goes_on_over_smpp(gateway: Gateway, carrier: LineCarrier):
    carrier._token = "another"
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("lines", "refused"), ("primary", "delivered")]
    assert [each.text for each in gateway.primary.messages] == ["Disk full on db-1"]


async def test_a_receipt_that_names_its_attempt_delivers_the_message(
    gateway: Gateway, carrier: LineCarrier
):
    carrier.receipts = [names_attempt("enroute"), names_attempt("delivered", "0")]
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("lines", "delivered")]
    rows = await gateway.fetch(
        "SELECT message_id, attempt, part, provider_message_id FROM receipts ORDER BY id"
    )
    assert [tuple(row.values()) for row in rows] == [(uuid_of(message), 1, 1, "")] * 2


async def test_messages_of_a_batch_are_delivered_by_receipts_that_name_their_attempts(
    gateway: Gateway, carrier: LineCarrier
):
    carrier.receipts = [names_attempt("delivered")]
    batch = await Batch(gateway, 60, parameters={"template_id": "1107"}).send()
    await batch.until_all("delivered", within=120)
    given = [(each["country"], each["parameters"]) for each in carrier.received]
    assert given == [("GB", {"template_id": "1107"})] * 60
    assert len({received["callback"] for received in carrier.received}) == 60


async def test_a_receipt_that_names_its_attempt_resolves_an_outcome_that_is_unknown(
    gateway: Gateway, carrier: LineCarrier
):
    carrier.responds = False
    carrier.receipts = []
    message = await gateway.send()
    await gateway.until(message, "unknown")
    carrier.receipts = [names_attempt("delivered")]
    await gateway.services.receipts.take(receipt_of_line(gateway, carrier.received[0], "delivered"))
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("lines", "delivered")]


@pytest.mark.parametrize(
    ("code", "status", "attempts"),
    [
        # Every provider would refuse it.
        ("spam", "failed", [("lines", "undelivered")]),
        # The handset did not take it: a transactional message fails, as without a class.
        ("no class", "failed", [("lines", "undelivered")]),
    ],
)
async def test_the_error_class_of_a_receipt_decides_what_happens_next(
    gateway: Gateway, carrier: LineCarrier, code, status, attempts
):
    carrier.receipts = [names_attempt("undeliverable", code)]
    message = await gateway.send(mode=Mode.TRANSACTIONAL)
    await gateway.until(message, "failed", "delivered", "dead_letter")
    assert await gateway.status(message) == status
    assert await gateway.attempts(message) == attempts
    expected = "blocked" if code == "spam" else "undelivered"
    explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
    assert explained.message.reason == expected
    assert explained.attempts[0].error_class == expected
    assert explained.summary[0] == f"Failed: lines reported it as undeliverable (code {code})."
    assert [each.error_class for each in explained.receipts] == [
        "blocked" if code == "spam" else None
    ]


async def test_a_receipt_with_a_temporary_error_has_the_message_sent_again(
    gateway: Gateway, carrier: LineCarrier
):
    carrier.receipts = [names_attempt("undeliverable", "later")]
    message = await gateway.send(mode=Mode.TRANSACTIONAL)
    while len(carrier.received) < 2:
        await asyncio.sleep(0.02)
    carrier.receipts = [names_attempt("delivered")]
    await gateway.until(message, "delivered")
    tokens = [received["callback"] for received in carrier.received]
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize("batch", [False, True])
async def test_what_a_provider_bills_is_shown_with_the_attempt_exactly_as_it_said(
    gateway: Gateway, carrier: LineCarrier, batch
):
    carrier.bill = {"segments": 3, "price": "0.00750", "currency": "USD"}
    if batch:
        sent = await Batch(gateway, 3).send()
        await sent.until_all("delivered", within=120)
        message_id = sent.messages[0]
    else:
        message = await gateway.send()
        await gateway.until(message, "delivered")
        message_id = message.message_id
    found = await gateway.services.messages.explain(gateway.caller, message_id)
    assert found.billed == {1: Billed(3, Price(Decimal("0.0075"), "USD"))}
    assert any("is billed as 3 segments for 0.00750 USD." in each for each in found.summary)
    shown = Explanation.of(found).attempts[0]
    assert shown.price is not None
    assert (shown.billed_segments, shown.price.amount, shown.price.currency) == (
        3,
        "0.00750",
        "USD",
    )
    assert shown.parts[0].price == shown.price


async def test_a_provider_that_says_nothing_of_money_shows_none(
    gateway: Gateway, carrier: LineCarrier
):
    message = await gateway.send()
    await gateway.until(message, "delivered")
    found = await gateway.services.messages.explain(gateway.caller, message.message_id)
    assert found.billed == {1: Billed()}
    assert not any("billed" in each for each in found.summary)
    (attempt,) = Explanation.of(found).attempts
    assert (attempt.price, attempt.parts[0].billed_segments) == (None, None)


def receipt_of_line(gateway: Gateway, received: dict[str, str], state: str) -> ReceivedReceipt:
    return ReceivedReceipt(
        provider="lines",
        provider_message_id="",
        state=ReceiptState(state),
        code="",
        network=None,
        reference=None,
        sender=None,
        recipient=None,
        done_at=None,
        part=gateway.services.receipt_tokens.read(received["callback"]),
    )

"""A status callback that never comes: the provider is asked, and the message is delivered all the same."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

import store.database
from domain.receipts import ReceiptState
from telemetry.metrics import metric_value
from tests.fakes.twilio_carrier import ACCOUNT, TOKEN, TwilioCarrier
from tests.gateway import Gateway, running_gateway
from tests.workflows.test_bulk import Batch

pytestmark = pytest.mark.stack

CONFIGURATION = f"""
[providers.twilio]
type = "twilio"
url = "URL"
private_network = true
account_sid = "{ACCOUNT}"
auth_token = "env:SMSGATEWAY_SECRET_TWILIO"
response_timeout = "2s"
poll_after = "1s"

[[routes]]
providers = ["twilio"]
"""


@pytest.fixture
async def carrier() -> AsyncIterator[TwilioCarrier]:
    async with TwilioCarrier() as running:
        yield running


@pytest.fixture
async def gateway(
    carrier: TwilioCarrier, database_url, temporal_client, monkeypatch
) -> AsyncIterator[Gateway]:
    monkeypatch.setenv("SMSGATEWAY_SECRET_TWILIO", TOKEN)
    configuration = CONFIGURATION.replace("URL", carrier.url)
    async with running_gateway(
        database_url, temporal_client, configuration=configuration, with_worker=False
    ) as running:
        await running.start_worker()
        await running.providers_up("twilio")
        yield running


def polls_of(carrier: TwilioCarrier) -> list[str]:
    return [each.target for each in carrier.asked if each.method == "GET"]


async def until_asked(carrier: TwilioCarrier, polls: int, within: float = 60) -> None:
    end = time.monotonic() + within
    while len(polls_of(carrier)) < polls:
        assert time.monotonic() < end, f"{len(polls_of(carrier))} polls, not {polls}"
        await asyncio.sleep(0.02)


def answers(carrier: TwilioCarrier, state: ReceiptState, code: str = "") -> None:
    """From now on the carrier says this of all messages."""
    carrier.states = defaultdict(lambda: (state, code))


async def test_a_message_becomes_delivered_by_polling_though_no_status_callback_comes(
    gateway: Gateway, carrier: TwilioCarrier
):
    labels = {"provider": "twilio", "outcome": "final"}
    before = metric_value("smsgateway_receipt_polls_total", labels)
    answers(carrier, ReceiptState.DELIVERED)
    message = await gateway.send(sender="+12025550143")
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("twilio", "delivered")]
    assert len(polls_of(carrier)) == 1
    assert metric_value("smsgateway_receipt_polls_total", labels) == before + 1


async def test_the_code_of_the_answer_decides_what_happens_next(
    gateway: Gateway, carrier: TwilioCarrier
):
    answers(carrier, ReceiptState.UNDELIVERABLE, "30006")
    message = await gateway.send(sender="+12025550143")
    await gateway.until(message, "failed")
    assert (await gateway.row(message)).reason == "landline"


async def test_a_message_that_is_on_its_way_is_explained_with_the_polls_and_asked_for_again(
    gateway: Gateway, carrier: TwilioCarrier
):
    answers(carrier, ReceiptState.ENROUTE)
    message = await gateway.send(sender="+12025550143")
    await until_asked(carrier, 1)
    explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
    assert "The gateway has requested its state from twilio once." in explained.summary
    answers(carrier, ReceiptState.DELIVERED)
    await gateway.until(message, "delivered")
    assert len(polls_of(carrier)) == 2


async def test_messages_of_a_batch_are_asked_for_by_two_workers_and_each_only_once(
    gateway: Gateway, carrier: TwilioCarrier
):
    await gateway.start_worker()
    answers(carrier, ReceiptState.DELIVERED)
    batch = await Batch(gateway, 40).send()
    await batch.until_all("delivered", within=120)
    polls = polls_of(carrier)
    assert len(set(polls)) == 40
    assert len(polls) == 40


async def test_messages_over_smpp_have_no_statement_for_it(
    database_url, temporal_client, monkeypatch
):
    statements: list[bytes] = []
    execute = store.database._execute

    async def counted(driver, sent):
        statements.append(sent.statement)
        return await execute(driver, sent)

    monkeypatch.setattr(store.database, "_execute", counted)
    async with running_gateway(database_url, temporal_client) as gateway:
        batch = await Batch(gateway, 40).send()
        await batch.until_all("delivered", within=120)
    assert [each for each in statements if b"INTO attempts" in each]
    of_polls = [each for each in statements if b"receipt_poll" in each]
    assert of_polls == []

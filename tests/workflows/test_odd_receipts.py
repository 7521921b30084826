"""Carriers whose receipts are not as SMPP has them, with the whole gateway before them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from temporalio.client import Client

from simulator.behaviour import Behaviour, Dialect, ReceiptStep
from tests.gateway import CONFIGURATION, Gateway, running_gateway
from tests.workflows.test_bulk import Batch

pytestmark = pytest.mark.stack

LONG = "The quick brown fox jumps over the lazy dog. " * 8
IN_TWO_BASES = Dialect(
    id_in_response="hex",
    capitals_in_response=True,
    id_in_receipt="decimal",
    id_in_tlv="hex",
    receipt_data_coding=8,
    receipt_padding=1,
)

Opened = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture
def open_gateway(database_url: str, temporal_client: Client) -> Opened:
    @asynccontextmanager
    async def opened(dialect: Dialect, declared: str = "") -> AsyncIterator[Gateway]:
        configuration = mark(declared)
        async with running_gateway(
            database_url, temporal_client, configuration=configuration
        ) as running:
            running.primary.dialect = dialect
            yield running

    return opened


def mark(more: str) -> str:
    return CONFIGURATION.replace("[providers.primary]\n", f"[providers.primary]\n{more}\n").replace(
        "echoes_reference = true\n", ""
    )


IN_TWO_BASES_DECLARED = 'message_id = {{ response = "hex", receipt = "decimal" }}'


async def test_ids_in_two_bases_in_ascii_under_another_coding_with_a_nul_find_their_messages(
    open_gateway: Opened,
):
    async with open_gateway(IN_TWO_BASES, IN_TWO_BASES_DECLARED) as gateway:
        single = await gateway.send()
        long = await gateway.send(body=LONG)
        batch = await Batch(gateway, 20).send()
        for message in (single, long):
            await gateway.until(message, "delivered", within=120)
        await batch.until_all("delivered", within=120)
        explained = await gateway.services.messages.explain(gateway.caller, long.message_id)
        given = [part.provider_message_id for part in explained.parts]
        assert given == [
            gateway.primary.dialect.response_id(part.id)
            for received in gateway.primary.messages
            if received.text == LONG
            for part in received.parts
        ]


async def test_a_message_is_cancelled_by_the_id_that_the_carrier_gave(open_gateway: Opened):
    async with open_gateway(IN_TWO_BASES, IN_TWO_BASES_DECLARED) as gateway:
        gateway.primary._last_id = 0xABCDEE
        gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=600),)))
        message = await gateway.send()
        await gateway.until(message, "sent", within=60)
        await gateway.services.messages.cancel(gateway.caller, message.message_id)
        await gateway.until(message, "canceled", within=120)
        assert gateway.primary.counts.cancels == 1


async def test_a_word_that_nobody_knew_delivers_its_message_once_it_is_declared(
    open_gateway: Opened,
):
    dialect = Dialect(receipt_states={"delivered": "0"}, receipt_tlvs=False)
    async with open_gateway(dialect) as gateway:
        message = await gateway.send()
        await gateway.primary.until(
            lambda: gateway.primary.counts.receipts_acknowledged == 1, within=60
        )
        assert await gateway.status(message) == "sent"
        assert await unparsed(gateway) == 1

        present = await gateway.services.configurations.stored()
        assert present is not None
        states = '[providers.primary]\nreceipt_states = { "0" = "delivered" }\n'
        await gateway.services.configurations.apply(
            present.content.replace("[providers.primary]\n", states), applied_by="test"
        )
        done = await gateway.services.unparsed_receipts.reparse("primary")
        assert (done.parsed, done.unparsed) == (1, 0)
        await gateway.until(message, "delivered", within=60)
        assert await unparsed(gateway) == 0


async def unparsed(gateway: Gateway) -> int:
    statuses = await gateway.services.providers.listed(gateway.caller)
    return next(status.unparsed_receipts for status in statuses if status.name == "primary")

"""Receipts as real carriers send them, from the socket to the message's end."""

import asyncio
from contextlib import asynccontextmanager

import psycopg
import pytest

import services.receipts
from domain.modes import Mode
from smpp.commands import Command
from smpp.pdus import Pdu
from smpp.session import Session
from smpp.statuses import Status
from smpp.tlvs import Tag
from tests.fakes.scripted_smsc import ScriptedSmsc
from tests.gateway import CONFIGURATION, Gateway, running_gateway

pytestmark = pytest.mark.stack

DELIVERED = (
    "id:{id} sub:001 dlvrd:001 submit date:2611281200 done date:2611281201 stat:DELIVRD err:000"
)


class Carrier(ScriptedSmsc):
    """Answers every submit with the same id."""

    its_id = "1"
    echoes = False

    async def accept(self, session: Session, pdu: Pdu) -> Pdu | None:
        if pdu.command is Command.SUBMIT_SM:
            return pdu.reply(fields={"message_id": self.its_id.encode()})
        return pdu.reply()

    @property
    def submits(self) -> list[Pdu]:
        return [pdu for pdu in self.received if pdu.command is Command.SUBMIT_SM]

    async def send_receipt(self, submit: Pdu, text: str = DELIVERED) -> int:
        """Send the receipt of a submit; the status of its response."""
        session = next(iter(self.server.sessions))
        (reference,) = [tlv for tlv in submit.tlvs if tlv.tag == Tag.USER_MESSAGE_REFERENCE]
        response = await session.request(
            Command.DELIVER_SM,
            {
                "source_addr": submit.octets("destination_addr"),
                "destination_addr": submit.octets("source_addr"),
                "esm_class": 4,
                "short_message": text.format(id=self.its_id or "7008").encode(),
            },
            [reference] if self.echoes else [],
        )
        return response.status


@asynccontextmanager
async def with_carrier(database_url, temporal_client, *, echoes=False, **options):
    """A gateway whose primary is a carrier that a test speaks for."""
    carrier = Carrier()
    carrier.echoes = echoes
    port = await carrier.server.start()
    configuration = CONFIGURATION.replace("{primary}", str(port))
    if not echoes:
        configuration = configuration.replace("echoes_reference = true", "", 1)
    try:
        async with running_gateway(
            database_url, temporal_client, configuration=configuration, **options
        ) as gateway:
            yield gateway, carrier
    finally:
        await carrier.server.stop()


async def submitted(gateway: Gateway, carrier: Carrier, count: int) -> list[Pdu]:
    async with asyncio.timeout(120):
        while len(carrier.submits) < count:
            await asyncio.sleep(0.02)
    return carrier.submits[-count:]


async def test_alerts_that_got_one_id_on_one_day_are_all_delivered_and_none_is_sent_again(
    database_url, temporal_client
):
    async with with_carrier(database_url, temporal_client) as (gateway, carrier):
        for again in range(5):
            alert = await gateway.send(mode=Mode.ALERT, body=f"Disk full on db-{again}")
            submit = (await submitted(gateway, carrier, again + 1))[-1]
            await gateway.until(alert, "sent", within=120)
            assert await carrier.send_receipt(submit) == Status.ESME_ROK
            await gateway.until(alert, "delivered", within=120)
            explained = await gateway.services.messages.explain(gateway.caller, alert.message_id)
            assert [receipt.state for receipt in explained.receipts] == ["delivered"]
        assert not gateway.backup.messages


async def test_two_alerts_in_flight_with_one_id_have_their_own_receipts(
    database_url, temporal_client
):
    async with with_carrier(database_url, temporal_client) as (gateway, carrier):
        alerts = [
            await gateway.send(to=f"+44770090012{n}", mode=Mode.ALERT, body="Disk full")
            for n in range(2)
        ]
        submits = await submitted(gateway, carrier, 2)
        for alert in alerts:
            await gateway.until(alert, "sent", within=120)
        to_second = next(s for s in submits if s.octets("destination_addr").endswith(b"1"))
        await carrier.send_receipt(to_second)
        await gateway.until(alerts[1], "delivered", within=120)
        assert await gateway.status(alerts[0]) == "sent"
        await carrier.send_receipt(next(s for s in submits if s is not to_second))
        await gateway.until(alerts[0], "delivered", within=120)


async def test_two_messages_to_one_recipient_with_one_id_and_equal_receipts_are_delivered(
    database_url, temporal_client
):
    async with with_carrier(database_url, temporal_client) as (gateway, carrier):
        messages = [await gateway.send(body=f"Number {n}") for n in range(2)]
        submits = await submitted(gateway, carrier, 2)
        for message in messages:
            await gateway.until(message, "sent", within=120)
        for _ in range(2):
            await carrier.send_receipt(submits[0])
        for message in messages:
            await gateway.until(message, "delivered", within=120)


async def test_both_parts_of_a_long_message_that_share_an_id_are_delivered(
    database_url, temporal_client
):
    async with with_carrier(database_url, temporal_client) as (gateway, carrier):
        message = await gateway.send(body="a" * 200)
        submits = await submitted(gateway, carrier, 2)
        await gateway.until(message, "sent", within=120)
        for submit in submits:
            await carrier.send_receipt(submit)
        await gateway.until(message, "delivered", within=120)


@pytest.mark.parametrize("echoes", [True, False])
async def test_a_message_that_was_answered_without_an_id_is_delivered(
    database_url, temporal_client, echoes
):
    async with with_carrier(database_url, temporal_client, echoes=echoes) as (gateway, carrier):
        carrier.its_id = ""
        messages = [await gateway.send(body=f"Number {n}") for n in range(2 if echoes else 1)]
        submits = await submitted(gateway, carrier, len(messages))
        for message in messages:
            await gateway.until(message, "sent", within=120)
        for submit in submits:
            await carrier.send_receipt(submit)
        for message in messages:
            await gateway.until(message, "delivered", within=120)


async def test_a_receipt_with_a_nul_is_stored_and_so_are_all_that_come_with_it(
    database_url, temporal_client
):
    async with with_carrier(database_url, temporal_client) as (gateway, carrier):
        messages = [await gateway.send(to=f"+4477009001{n:02}") for n in range(10)]
        submits = await submitted(gateway, carrier, 10)
        for message in messages:
            await gateway.until(message, "sent", within=120)
        texts = [DELIVERED + ("\0" if n == 4 else "") for n in range(10)]
        statuses = await asyncio.gather(*map(carrier.send_receipt, submits, texts))
        assert statuses == [Status.ESME_ROK] * 10
        for message in messages:
            await gateway.until(message, "delivered", within=120)


async def test_a_receipt_that_the_database_refuses_is_refused_for_good_and_keeps_back_no_other(
    database_url, temporal_client, monkeypatch
):
    real = services.receipts.ingest

    async def refusing(connection, providers, batch, *args, **options):
        if any(receipt.code == "666" for receipt in batch):
            raise psycopg.DataError("a value that Postgres refuses")
        return await real(connection, providers, batch, *args, **options)

    monkeypatch.setattr(services.receipts, "ingest", refusing)
    async with with_carrier(database_url, temporal_client) as (gateway, carrier):
        message = await gateway.send()
        (submit,) = await submitted(gateway, carrier, 1)
        await gateway.until(message, "sent", within=120)
        poison = DELIVERED.replace("err:000", "err:666")
        texts = [poison, DELIVERED, poison, DELIVERED]
        statuses = await asyncio.gather(*[carrier.send_receipt(submit, text) for text in texts])
        assert statuses == [Status.ESME_RX_P_APPN, Status.ESME_ROK] * 2
        await gateway.until(message, "delivered", within=120)

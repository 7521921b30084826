"""smpplib's client as ESME: the protocol, checked with a hand that is not ours."""

import asyncio

import pytest
import smpplib.client
import smpplib.consts
import smpplib.exceptions
import smpplib.gsm
import smpplib.smpp

from smpp.statuses import Status

PHONE = "447700900500"


class ForeignEsme:
    """Blocking, so each call runs in a thread; listens until something came."""

    def __init__(self, port, **bind):
        self.responses = []
        self.delivered = []
        self.client = smpplib.client.Client(
            "127.0.0.1", port, timeout=5, allow_unknown_opt_params=True
        )
        self.client.logger.disabled = True
        self.client.set_message_sent_handler(self._note)
        self.client.set_message_received_handler(self._take)
        self.client.connect()
        try:
            self.client.bind_transceiver(**bind)
        except smpplib.exceptions.PDUError:
            self.client.disconnect()
            raise

    def _note(self, pdu):
        self.responses.append(pdu)

    def _take(self, pdu):
        self.delivered.append(pdu)
        return 0

    def send(self, text, destination=PHONE, **fields):
        parts, coding, esm_class = smpplib.gsm.make_parts(text)
        for part in parts:
            self.client.send_message(
                source_addr_ton=smpplib.consts.SMPP_TON_ALNUM,
                source_addr="Acme",
                dest_addr_ton=smpplib.consts.SMPP_TON_INTL,
                destination_addr=destination,
                short_message=part,
                data_coding=coding,
                esm_class=esm_class,
                registered_delivery=True,
                **fields,
            )

    def read_until(self, responses, delivered):
        while len(self.responses) < responses or len(self.delivered) < delivered:
            self.client.read_once(auto_send_enquire_link=False)

    def end(self):
        self.client.unbind()
        self.client.disconnect()


@pytest.fixture
async def foreign(smsc):
    esme = await asyncio.to_thread(ForeignEsme, smsc.port, system_id="foreign", password="secret")
    yield esme
    if esme.client.state != smpplib.consts.SMPP_CLIENT_STATE_CLOSED:
        await asyncio.to_thread(esme.client.disconnect)


async def test_it_sends_gets_its_receipt_and_says_good_bye(smsc, foreign):
    def talk():
        foreign.send("Hello from elsewhere", user_message_reference=513)
        foreign.read_until(responses=1, delivered=1)
        foreign.end()

    await asyncio.to_thread(talk)
    [response] = foreign.responses
    [receipt] = foreign.delivered
    assert response.message_id == receipt.receipted_message_id.rstrip(b"\0") != b""
    assert receipt.message_state == smpplib.consts.SMPP_MESSAGE_STATE_DELIVERED
    assert receipt.user_message_reference == 513
    assert receipt.esm_class == 0x04
    assert b" stat:DELIVRD err:000 " in receipt.short_message
    [message] = await smsc.received("+" + PHONE)
    assert (message.source, message.text) == ("Acme", "Hello from elsewhere")
    await smsc.until(lambda: smsc.sessions == [])


async def test_its_long_messages_are_put_together(smsc, foreign):
    text = "Grüße ☎ it is a long one, in UCS-2. " * 8

    def talk():
        foreign.send(text)
        foreign.read_until(responses=5, delivered=5)

    await asyncio.to_thread(talk)
    [message] = await smsc.received("+" + PHONE)
    assert message.text == text
    assert message.states == ["delivered"] * 5


async def test_refusals_throttling_and_queries_reach_it(smsc, foreign):
    def talk():
        foreign.send("x", destination="447700900050")
        foreign.send("x", destination="447700900045")
        foreign.read_until(responses=2, delivered=0)

    with pytest.raises(smpplib.exceptions.PDUError) as refused:
        await asyncio.to_thread(talk)
    assert refused.value.args[1] == Status.ESME_RTHROTTLED
    with pytest.raises(smpplib.exceptions.PDUError) as refused:
        await asyncio.to_thread(foreign.read_until, 1, 0)
    assert refused.value.args[1] == Status.ESME_RSUBMITFAIL

    def ask():
        foreign.send("x", destination="447700900031")
        foreign.read_until(responses=1, delivered=0)
        states = []
        foreign.client.set_query_resp_handler(lambda pdu, **_: states.append(pdu.message_state))
        foreign.client.query_message(
            message_id=foreign.responses[0].message_id.decode(),
            source_addr_ton=smpplib.consts.SMPP_TON_ALNUM,
            source_addr_npi=0,
            source_addr="Acme",
        )
        while not states:
            foreign.client.read_once(auto_send_enquire_link=False)
        return states

    assert await asyncio.to_thread(ask) == [smpplib.consts.SMPP_MESSAGE_STATE_ENROUTE]


async def test_its_enquire_link_is_answered(foreign):
    def ask():
        enquiry = smpplib.smpp.make_pdu("enquire_link", client=foreign.client)
        foreign.client.send_pdu(enquiry)
        return foreign.client.read_pdu()

    response = await asyncio.to_thread(ask)
    assert (response.command, response.status) == ("enquire_link_resp", 0)


async def test_it_gets_messages_from_phones(smsc, foreign):
    smsc.inject_mo("+" + PHONE, "12345", "YES", system_id="foreign")
    await asyncio.to_thread(foreign.read_until, 0, 1)
    [pdu] = foreign.delivered
    assert (pdu.short_message, pdu.source_addr) == (b"YES", PHONE.encode())
    await smsc.until(lambda: smsc.counts.mo_acknowledged == 1)


async def test_an_smsc_that_refuses_binds_responds_with_bind_failed(smsc):
    await smsc.outage(kind="refuses_binds")
    with pytest.raises(smpplib.exceptions.PDUError) as refused:
        await asyncio.to_thread(ForeignEsme, smsc.port, system_id="foreign", password="secret")
    assert refused.value.args[1] == Status.ESME_RBINDFAIL

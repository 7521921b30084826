"""Messages from phones."""

import asyncio

import pytest

from domain.encoding import decode_text
from domain.segments import PartMethod, read_udh
from simulator.smsc import Smsc
from smpp.session import BindType
from smpp.tlvs import Tag

PHONE = "+447700900123"


def text_of(pdu):
    octets = pdu.tlv(Tag.MESSAGE_PAYLOAD) or pdu.octets("short_message")
    header = octets[0] + 1 if pdu.number("esm_class") & 0x40 else 0
    return decode_text(octets, pdu.number("data_coding"), header_length=header)


async def test_a_phones_message_reaches_the_esme(smsc, esme):
    [delivery] = smsc.inject_mo(PHONE, "12345", "STOP")
    await asyncio.wait_for(delivery.settled.wait(), 60)
    [pdu] = esme.texts
    assert text_of(pdu) == "STOP"
    assert pdu.octets("source_addr") == b"447700900123"
    assert pdu.octets("destination_addr") == b"12345"
    assert (pdu.number("source_addr_ton"), pdu.number("esm_class")) == (1, 0)
    assert smsc.counts.mo_acknowledged == 1


@pytest.mark.parametrize("method", list(PartMethod))
async def test_a_long_one_comes_in_parts(smsc, esme, method):
    text = "Where is my parcel? 📦 " * 10
    smsc.inject_mo(PHONE, "12345", text, method=method)
    await smsc.until(lambda: smsc.counts.mo_acknowledged == smsc.counts.mo_sent > 0)
    assert "".join(map(text_of, esme.texts)) == text


async def test_its_parts_come_in_the_order_that_is_asked_for(smsc, esme):
    smsc.inject_mo(PHONE, "12345", "x" * 400, order=[3, 1, 1])
    await esme.gets(3)
    places = [read_udh(pdu.octets("short_message"))[1] for pdu in esme.texts]
    assert [(p.number, p.total) for p in places] == [(3, 3), (1, 3), (1, 3)]
    assert len({p.reference for p in places}) == 1


async def test_it_waits_for_its_esme(smsc, binds):
    smsc.inject_mo(PHONE, "12345", "YES", system_id="acme")
    stranger = await binds(smsc, system_id="other")
    receiver = await binds(smsc, bind_type=BindType.RECEIVER)
    await receiver.gets(1)
    assert stranger.delivered == []


async def test_it_must_be_clear_whom_it_is_for(smsc, binds):
    with pytest.raises(ValueError, match="No ESME has bound yet"):
        smsc.inject_mo(PHONE, "12345", "YES")
    for system_id in ("acme", "other"):
        await binds(smsc, system_id=system_id)
    await smsc.until(lambda: len(smsc.sessions) == 2)
    await asyncio.sleep(0.01)
    with pytest.raises(ValueError, match="acme, other are known"):
        smsc.inject_mo(PHONE, "12345", "YES")


async def test_the_only_one_with_a_password_is_the_one(binds):
    async with Smsc("strict", credentials={"acme": "secret"}) as smsc:
        smsc.inject_mo(PHONE, "12345", "YES")
        esme = await binds(smsc)
        await esme.gets(1)


@pytest.mark.parametrize(
    "wrong",
    [{"text": ""}, {"order": [2]}, {"source": "4" * 30}],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is(smsc, esme, wrong):
    with pytest.raises(ValueError, match=r".+"):
        smsc.inject_mo(**{"source": PHONE, "destination": "12345", "text": "x", **wrong})
    assert smsc.counts.mo_sent == smsc.waiting == 0

"""How submits are answered, or not."""

import asyncio
import time

import pytest

from domain.encoding import DefaultAlphabet
from simulator.behaviour import Behaviour, Dialect, ReceiptStep, Response
from simulator.smsc import Smsc
from smpp.client import BindRefused, ConnectFailed, connect
from smpp.commands import Command
from smpp.session import BindType, ResponseTimeout, SessionClosed
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv

PLAIN = "+447700900500"


async def test_a_plain_message_is_accepted_and_delivered(smsc, esme):
    response = await esme.submit(PLAIN, "Hello, world")
    [receipt] = await esme.gets(1)
    assert response.status == Status.ESME_ROK
    assert receipt.state == "delivered"
    assert receipt.provider_message_id == response.octets("message_id").decode()
    assert (receipt.source, receipt.destination) == ("447700900500", "12345")
    assert receipt.error == "000"
    [message] = await smsc.received(PLAIN)
    assert message.text == "Hello, world"
    assert message.states == ["delivered"]


@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("+447700900001", Status.ESME_RINVDSTADR),
        ("+447700900002", Status.ESME_RINVSRCADR),
        ("+447700900045", Status.ESME_RSUBMITFAIL),
        ("+12015550145", Status.ESME_RSUBMITFAIL),
        ("+33639980045", Status.ESME_RSUBMITFAIL),
        ("+447700900008", Status.ESME_RSYSERR),
        ("+447700900014", Status.ESME_RMSGQFUL),
        ("+447700900058", Status.ESME_RTHROTTLED),
    ],
)
async def test_a_refused_number_gets_its_code_and_no_receipt(smsc, esme, number, status):
    assert (await esme.submit(number)).status == status
    await asyncio.sleep(0.1)
    assert esme.delivered == []
    assert smsc.messages == []
    assert smsc.counts.refused == {status.name: 1}


@pytest.mark.parametrize("number", ["+447700900145", "+33639980145", "+4477009000450"])
async def test_other_numbers_with_the_same_last_digits_are_delivered(esme, number):
    assert (await esme.submit(number)).status == Status.ESME_ROK


async def test_throttled_twice_then_accepted_and_again_so_for_the_next_message(esme):
    statuses = [(await esme.submit("+447700900050")).status for _ in range(6)]
    throttled, ok = Status.ESME_RTHROTTLED, Status.ESME_ROK
    assert statuses == [throttled, throttled, ok, throttled, throttled, ok]


async def test_each_part_has_its_own_troubles(esme):
    async def part(number):
        octets = bytes([5, 0, 3, 7, 2, number]) + b"x"
        response = await esme.submit("+447700900050", short_message=octets, esm_class=0x40)
        return response.status

    throttled, ok = Status.ESME_RTHROTTLED, Status.ESME_ROK
    assert [await part(number) for number in (1, 2, 1, 2, 1, 2)] == [throttled] * 4 + [ok] * 2


async def test_a_system_error_comes_once_and_then_the_message_is_delivered(esme):
    assert (await esme.submit("+447700900051")).status == Status.ESME_RSYSERR
    assert (await esme.submit("+447700900051")).status == Status.ESME_ROK
    assert [r.state for r in await esme.gets(1)] == ["delivered"]


async def test_a_silent_number_is_not_answered_and_its_message_is_lost(smsc, esme):
    with pytest.raises(ResponseTimeout):
        await esme.submit("+447700900070", within=0.2)
    assert smsc.messages == []
    assert smsc.counts.without_response == 1
    assert esme.delivered == []


async def test_a_silent_number_may_be_delivered_all_the_same(smsc, esme):
    with pytest.raises(ResponseTimeout):
        await esme.submit("+447700900071", reference=513, within=0.2)
    [receipt] = await esme.gets(1)
    assert (receipt.state, receipt.reference) == ("delivered", 513)
    assert len(smsc.messages) == 1


async def test_silence_can_be_for_once(esme):
    with pytest.raises(ResponseTimeout):
        await esme.submit("+447700900074", within=0.1)
    assert (await esme.submit("+447700900074")).status == Status.ESME_ROK


async def test_a_reset_between_submit_and_answer_cuts_that_connection_only(smsc, binds):
    unlucky, other = await binds(smsc), await binds(smsc)
    with pytest.raises(SessionClosed) as closed:
        await unlucky.submit("+447700900072")
    assert closed.value.sent
    assert smsc.messages == []
    assert (await other.submit(PLAIN)).status == Status.ESME_ROK


async def test_the_receipt_of_a_message_taken_before_a_reset_comes_with_the_next_bind(smsc, binds):
    first = await binds(smsc)
    with pytest.raises(SessionClosed):
        await first.submit("+447700900073", reference=99)
    await asyncio.sleep(0.1)
    second = await binds(smsc)
    [receipt] = await second.gets(1)
    assert (receipt.state, receipt.reference) == ("delivered", 99)


async def test_latency_delays_the_answer_and_not_the_others(smsc, esme):
    smsc.set_number(PLAIN, Behaviour(latency=2))
    begin = time.monotonic()
    slow = asyncio.create_task(esme.submit(PLAIN))
    await asyncio.sleep(0.01)
    await esme.submit("+447700900501")
    assert not slow.done()
    await slow
    assert time.monotonic() - begin >= 2


async def test_above_its_rate_it_throttles_and_below_it_does_not(binds):
    async with Smsc("slow", throttle_above=5) as smsc:
        esme = await binds(smsc)
        burst = [(await esme.submit(PLAIN)).status for _ in range(8)]
        assert burst == [Status.ESME_ROK] * 5 + [Status.ESME_RTHROTTLED] * 3
        await asyncio.sleep(0.4)
        assert (await esme.submit(PLAIN)).status == Status.ESME_RTHROTTLED
        await asyncio.sleep(0.7)
        assert (await esme.submit(PLAIN)).status == Status.ESME_ROK


async def test_it_can_throttle_the_next_submits_only(smsc, esme):
    smsc.throttle(next_submits=2)
    statuses = [(await esme.submit(PLAIN)).status for _ in range(3)]
    assert statuses == [Status.ESME_RTHROTTLED, Status.ESME_RTHROTTLED, Status.ESME_ROK]


async def test_the_default_behaviour_spares_steered_numbers_and_a_number_of_its_own_goes_first(
    smsc, esme
):
    smsc.set_default(Behaviour(response=Response.REFUSE, status=0x45))
    smsc.set_number("+447700900001", Behaviour())
    assert (await esme.submit(PLAIN)).status == 0x45
    assert (await esme.submit("+447700900002")).status == Status.ESME_RINVSRCADR
    assert (await esme.submit("+447700900001")).status == Status.ESME_ROK
    smsc.set_number("+447700900001", None)
    assert (await esme.submit("+447700900001")).status == Status.ESME_RINVDSTADR


async def test_test_numbers_can_mean_nothing_so_that_a_backup_delivers_what_was_refused(binds):
    async with Smsc("backup", test_numbers=False) as smsc:
        esme = await binds(smsc)
        assert (await esme.submit("+447700900045")).status == Status.ESME_ROK


async def test_an_smsc_can_be_described_before_it_starts(binds):
    refusal = Behaviour(response="refuse", status="ESME_RMSGQFUL")
    async with Smsc("described", behaviour=refusal, numbers={PLAIN: Behaviour()}) as smsc:
        esme = await binds(smsc)
        assert (await esme.submit(PLAIN)).status == Status.ESME_ROK
        assert (await esme.submit("+447700900501")).status == Status.ESME_RMSGQFUL


async def test_a_vendors_status_can_be_the_refusal(smsc, esme):
    smsc.set_default(Behaviour(response="refuse", status="0x00000410"))
    assert (await esme.submit(PLAIN)).status == 0x410
    assert smsc.counts.refused == {"0x00000410": 1}


async def test_only_those_bind_who_know_the_password(smsc):
    async with Smsc("strict", credentials={"acme": "secret"}) as strict:
        for who, status in [
            ({"system_id": "acme", "password": "wrong"}, Status.ESME_RINVPASWD),
            ({"system_id": "other", "password": "secret"}, Status.ESME_RINVSYSID),
        ]:
            with pytest.raises(BindRefused) as refused:
                await connect("127.0.0.1", strict.port, **who, on_request=None)
            assert refused.value.status == status
        assert strict.counts.binds_refused == 2


async def test_a_receiver_may_not_submit(smsc, binds):
    receiver = await binds(smsc, bind_type=BindType.RECEIVER)
    assert (await receiver.submit(PLAIN)).status == Status.ESME_RINVBNDSTS


async def test_what_it_does_not_know_is_nacked_and_the_bind_goes_on(smsc, esme):
    response = await esme.session.request(
        Command.DATA_SM, {"destination_addr": b"447700900500"}, [Tlv(Tag.MESSAGE_PAYLOAD, b"x")]
    )
    assert (response.command, response.status) == (Command.GENERIC_NACK, Status.ESME_RINVCMDID)
    assert (await esme.submit(PLAIN)).status == Status.ESME_ROK


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"short_message": b"x" * 161}, Status.ESME_RINVMSGLEN),
        ({"short_message": b"\0x" * 71, "data_coding": 8}, Status.ESME_RINVMSGLEN),
        (
            {"short_message": b"\x05\x00\x03\x01\x02\x01" + b"x" * 154, "esm_class": 0x40},
            Status.ESME_RINVMSGLEN,
        ),
        ({"short_message": b"\x09x", "esm_class": 0x40}, Status.ESME_RINVESMCLASS),
        ({"destination_addr": b""}, Status.ESME_RINVDSTADR),
        ({"destination_addr": b"4477x"}, Status.ESME_RINVDSTADR),
        ({"source_addr": b"TWELVELETTER", "source_addr_ton": 5}, Status.ESME_RINVSRCADR),
        ({"esm_class": 0x40, "short_message": b""}, Status.ESME_RINVESMCLASS),
        ({"validity_period": b"soon"}, Status.ESME_RINVEXPIRY),
        ({"validity_period": b"200101000000000+"}, Status.ESME_RINVEXPIRY),
        ({"validity_period": b"269999000000000+"}, Status.ESME_RINVEXPIRY),
        ({"schedule_delivery_time": b"later"}, Status.ESME_RINVSCHED),
        ({"tlvs": (Tlv(Tag.MESSAGE_PAYLOAD, b"x"),)}, Status.ESME_RINVMSGLEN),
        ({"tlvs": (Tlv(Tag.SAR_MSG_REF_NUM, b"\0\1"),)}, Status.ESME_RMISSINGOPTPARAM),
        ({"tlvs": (Tlv(Tag.USER_MESSAGE_REFERENCE, b"\1"),)}, Status.ESME_RINVPARLEN),
    ],
)
async def test_what_no_smsc_would_take_is_refused_with_the_right_code(smsc, esme, fields, status):
    assert (await esme.submit(PLAIN, **fields)).status == status
    assert smsc.messages == []


@pytest.mark.parametrize(
    "fields",
    [
        {"short_message": b"x" * 160},
        {"short_message": b"\x05\x00\x03\x01\x02\x01" + b"x" * 153, "esm_class": 0x40},
        {"short_message": b"\0x" * 70, "data_coding": 8},
        {"source_addr": b"ELEVENCHARS", "source_addr_ton": 5},
    ],
)
async def test_what_just_fits_is_taken(esme, fields):
    assert (await esme.submit(PLAIN, **fields)).status == Status.ESME_ROK


async def test_packed_septets_are_read_where_the_smsc_is_set_to_them(binds):
    async with Smsc("packed", dialect=Dialect(alphabet=DefaultAlphabet.GSM7_PACKED)) as smsc:
        esme = await binds(smsc)
        # TS 23.038, 6.1.2.1.1: "hellohello" in nine octets, the well-known example.
        await esme.submit(PLAIN, short_message=bytes.fromhex("e8329bfd4697d9ec37"))
        [message] = await smsc.received(PLAIN)
        assert message.text == "hellohello"


async def test_an_outage_refuses_connections_and_ends_on_the_same_port(smsc, binds):
    esme, port = await binds(smsc), smsc.port
    await smsc.outage()
    await asyncio.wait_for(esme.session.closed.wait(), 60)
    with pytest.raises(ConnectFailed):
        await binds(smsc)
    await smsc.outage(on=False)
    assert smsc.port == port
    again = await binds(smsc)
    assert (await again.submit(PLAIN)).status == Status.ESME_ROK


async def test_an_outage_can_look_like_refused_binds(smsc, binds):
    esme = await binds(smsc)
    await smsc.outage(kind="refuses_binds")
    await asyncio.wait_for(esme.session.closed.wait(), 60)
    with pytest.raises(BindRefused) as refused:
        await binds(smsc)
    assert refused.value.status == Status.ESME_RBINDFAIL
    await smsc.outage(on=False)
    await binds(smsc)


async def test_connections_can_be_reset_now(smsc, binds):
    esmes = [await binds(smsc), await binds(smsc)]
    assert await smsc.reset_connections() == 2
    for esme in esmes:
        await asyncio.wait_for(esme.session.closed.wait(), 60)
    assert smsc.counts.resets == 2
    await binds(smsc)


async def test_a_connection_can_be_reset_after_so_many_requests(smsc, esme):
    smsc.set_default(Behaviour(receipts=()))
    smsc.reset_after(3)
    outcomes = await asyncio.gather(*(esme.submit(PLAIN) for _ in range(5)), return_exceptions=True)
    assert [getattr(o, "status", None) for o in outcomes[:3]] == [0, 0, 0]
    assert all(isinstance(o, SessionClosed) and o.sent for o in outcomes[3:])
    assert len(smsc.messages) == 3


async def test_a_part_can_be_refused_while_the_others_are_accepted(smsc, esme):
    long = "x" * 400
    statuses = [a.status for a in await esme.submit_long("+447700900042", long)]
    assert statuses == [Status.ESME_ROK, Status.ESME_RSYSERR, Status.ESME_ROK]
    [message] = smsc.messages
    assert not message.complete
    # Sent once more it is accepted, and the message is whole.
    second = b"\x05\x00\x03\x07\x03\x02" + b"x" * 153
    assert (
        await esme.submit("+447700900042", short_message=second, esm_class=0x40)
    ).status == Status.ESME_ROK
    [message] = await smsc.received("+447700900042")
    assert message.text == long


async def test_a_script_can_be_written_for_one_part(smsc, esme):
    undeliverable = (ReceiptStep(state="undeliverable", after=0),)
    smsc.set_default(Behaviour(part_receipts={2: undeliverable}))
    await esme.submit_long(PLAIN, "x" * 200)
    assert sorted(r.state for r in await esme.gets(2)) == ["delivered", "undeliverable"]

"""Which receipts come, when, how often, to whom, and how they are written."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from simulator.behaviour import Behaviour, Dialect, ReceiptStep
from simulator.smsc import Smsc
from simulator.times import absolute_time
from smpp.commands import Command
from smpp.session import BindType
from smpp.statuses import Status
from smpp.tlvs import Tag

PLAIN = "+447700900500"


@pytest.mark.parametrize(
    ("number", "states"),
    [
        ("+447700900020", ["undeliverable"]),
        ("+447700900021", ["rejected"]),
        ("+447700900022", ["expired"]),
        ("+447700900023", ["deleted"]),
        ("+447700900024", ["unknown"]),
        ("+447700900030", []),
        ("+447700900032", ["delivered"]),
        ("+447700900034", ["delivered"] * 3),
        ("+447700900035", ["enroute", "delivered"]),
        ("+447700900036", ["delivered", "enroute"]),
    ],
)
async def test_the_last_digits_of_a_number_decide_its_receipts(esme, number, states):
    await esme.submit(number)
    await asyncio.sleep(0 if states else 0.2)
    await esme.gets(len(states))
    assert esme.states == states


async def test_an_early_receipt_comes_before_the_answer_to_its_submit(esme):
    response = await esme.submit("+447700900032")
    assert esme.happened == ["receipt", "response"]
    assert esme.receipts[0].provider_message_id == response.octets("message_id").decode()


async def test_an_early_receipt_does_not_wait_for_an_esme_that_first_wants_the_answer(esme):
    esme.responses = [None]
    assert (await esme.submit("+447700900032")).status == Status.ESME_ROK
    assert esme.happened == ["receipt", "response"]


async def test_parts_receipts_may_come_in_reverse_order(esme):
    responses = await esme.submit_long("+447700900044", "x" * 400)
    receipts = await esme.gets(3)
    ids = [response.octets("message_id").decode() for response in responses]
    assert [receipt.provider_message_id for receipt in receipts] == ids[::-1]


async def test_chance_puts_the_receipts_of_many_messages_out_of_order(smsc, esme):
    smsc.set_default(Behaviour(receipt_jitter=0.3))
    responses = [await esme.submit(PLAIN) for _ in range(20)]
    receipts = await esme.gets(20)
    ids = [response.octets("message_id").decode() for response in responses]
    assert sorted(receipt.provider_message_id for receipt in receipts) == sorted(ids)
    assert [receipt.provider_message_id for receipt in receipts] != ids


async def test_the_receipt_of_one_part_may_never_come(esme):
    responses = await esme.submit_long("+447700900040", "x" * 400)
    await asyncio.sleep(0.2)
    came = {receipt.provider_message_id for receipt in await esme.gets(2)}
    assert came == {responses[i].octets("message_id").decode() for i in (0, 2)}


async def test_held_receipts_come_when_they_are_released(smsc, esme):
    for text in ("one", "two"):
        await esme.submit("+447700900037", text)
    await smsc.until(lambda: smsc.held == 2)
    assert esme.delivered == []
    assert smsc.release_receipts(newest_first=True) == 2
    first, second = await esme.gets(2)
    assert first.provider_message_id > second.provider_message_id
    assert smsc.held == 0


@pytest.mark.parametrize(("registered", "states"), [(0, 0), (1, 2), (2, 1)])
async def test_only_the_receipts_that_were_asked_for_come(esme, registered, states):
    await esme.submit("+447700900020", registered_delivery=registered)
    await esme.submit(PLAIN, registered_delivery=registered)
    await asyncio.sleep(0.15)
    await esme.gets(states)


async def test_ids_can_be_hex_in_the_answer_and_decimal_in_the_receipt(binds):
    dialect = Dialect(id_in_response="hex", id_in_receipt="decimal")
    async with Smsc("jsmpp-like", dialect=dialect) as smsc:
        esme = await binds(smsc)
        response = await esme.submit(PLAIN)
        [receipt] = await esme.gets(1)
        response_id = response.octets("message_id").decode()
        assert receipt.provider_message_id == str(int(response_id, 16)) != response_id


@pytest.mark.parametrize(
    ("dialect", "with_tlvs", "with_text"),
    [
        (Dialect(receipt_text=False), True, False),
        (Dialect(receipt_tlvs=False), False, True),
        (Dialect(), True, True),
        (Dialect(receipts_by="data_sm"), True, True),
        (Dialect(receipts_by="data_sm", receipt_tlvs=False), False, True),
    ],
)
async def test_receipts_are_written_as_the_dialect_says(binds, dialect, with_tlvs, with_text):
    async with Smsc("dialect", dialect=dialect) as smsc:
        esme = await binds(smsc)
        response = await esme.submit("+447700900020")
        [receipt] = await esme.gets(1)
        [pdu] = esme.delivered
        assert receipt.state == "undeliverable"
        assert receipt.provider_message_id == response.octets("message_id").decode()
        assert (pdu.tlv(Tag.RECEIPTED_MESSAGE_ID) is not None) == with_tlvs
        assert (receipt.error == "001") == with_text
        assert (receipt.network_error is not None) == with_tlvs
        assert pdu.command.name.lower() == dialect.receipts_by


async def test_a_receipts_text_is_that_of_the_specification(binds):
    async with Smsc("texts", dialect=Dialect(receipt_tlvs=False)) as smsc:
        esme = await binds(smsc)
        await esme.submit(PLAIN, "The quick brown fox jumps")
        await esme.gets(1)
        [pdu] = esme.delivered
        now = f"{datetime.now(UTC):%y%m%d}"
        text = pdu.octets("short_message").decode()
        assert text.startswith("id:")
        assert " sub:001 dlvrd:001 submit date:" + now in text
        assert text.endswith(" stat:DELIVRD err:000 text:The quick brown fox ")
        assert pdu.number("esm_class") == 0x04


@pytest.mark.parametrize(("echo", "seen"), [(True, 777), (False, None)])
async def test_the_user_message_reference_is_echoed_where_the_smsc_does_so(binds, echo, seen):
    async with Smsc("echo", dialect=Dialect(echo_reference=echo)) as smsc:
        esme = await binds(smsc)
        await esme.submit(PLAIN, reference=777)
        [receipt] = await esme.gets(1)
        assert receipt.reference == seen


async def test_receipts_go_to_any_receiver_of_the_same_system_id_and_to_nobody_else(smsc, binds):
    transmitter = await binds(smsc, bind_type=BindType.TRANSMITTER)
    receivers = [await binds(smsc, bind_type=BindType.RECEIVER) for _ in range(2)]
    stranger = await binds(smsc, system_id="other")
    for _ in range(4):
        await transmitter.submit(PLAIN)
    await smsc.until(lambda: smsc.counts.receipts_acknowledged == 4)
    assert [len(esme.delivered) for esme in receivers] == [2, 2]
    assert transmitter.delivered == stranger.delivered == []


async def test_a_receipt_waits_for_a_receiver_to_bind(smsc, binds):
    transmitter = await binds(smsc, bind_type=BindType.TRANSMITTER)
    await transmitter.submit(PLAIN)
    await smsc.until(lambda: smsc.waiting == 1)
    receiver = await binds(smsc, bind_type=BindType.RECEIVER)
    await receiver.gets(1)
    await smsc.until(lambda: smsc.waiting == 0)


async def test_a_receipt_that_was_not_answered_is_sent_again_on_the_next_bind(smsc, binds):
    dying = await binds(smsc)
    dying.responses = [None]
    await dying.submit(PLAIN)
    await dying.gets(1)
    await dying.session.close()
    heir = await binds(smsc)
    assert await heir.gets(1) == dying.receipts
    await smsc.until(lambda: smsc.waiting == 0)
    assert (smsc.counts.receipts_resent, smsc.counts.receipts_acknowledged) == (1, 1)


async def test_a_receipt_outlives_an_outage(smsc, binds):
    smsc.set_default(Behaviour(receipts=(ReceiptStep(after=0.2),)))
    before = await binds(smsc)
    await before.submit(PLAIN)
    await smsc.outage()
    await asyncio.sleep(0.3)
    await smsc.outage(on=False)
    after = await binds(smsc)
    assert [receipt.state for receipt in await after.gets(1)] == ["delivered"]


async def test_a_receipt_that_the_esme_cannot_take_now_is_offered_again(smsc, esme):
    esme.responses = [Status.ESME_RX_T_APPN]
    await esme.submit(PLAIN)
    await smsc.until(lambda: smsc.counts.receipts_acknowledged == 1)
    assert len(esme.delivered) == 2


async def test_a_receipt_that_the_esme_refuses_for_good_is_not_offered_again(smsc, esme):
    esme.responses = [Status.ESME_RX_P_APPN]
    await esme.submit(PLAIN)
    await smsc.until(lambda: smsc.counts.receipts_refused == 1)
    assert smsc.waiting == 0


@pytest.mark.parametrize("form", ["relative", "absolute"])
async def test_what_is_not_delivered_within_its_validity_expires(smsc, esme, form):
    ends = datetime.now(UTC) + timedelta(seconds=1)
    validity = {"relative": b"000000000001000R", "absolute": absolute_time(ends)}[form]
    begin = asyncio.get_running_loop().time()
    await esme.submit("+447700900025", validity_period=validity)
    [receipt] = await esme.gets(1)
    assert receipt.state == "expired"
    assert asyncio.get_running_loop().time() - begin > 0.8
    assert smsc.messages[0].states == ["expired"]


async def test_what_is_delivered_within_its_validity_does_not_expire(esme):
    await esme.submit("+447700900035", validity_period=b"000000000002000R")
    await asyncio.sleep(1.2)
    assert [r.state for r in await esme.gets(2)] == ["enroute", "delivered"]


async def test_a_message_that_only_stays_on_its_way_expires(smsc, esme):
    smsc.set_default(Behaviour(receipts=(ReceiptStep(state="enroute", after=0),)))
    await esme.submit(PLAIN, validity_period=b"000000000001000R")
    assert [r.state for r in await esme.gets(2)] == ["enroute", "expired"]


async def test_a_scheduled_message_is_delivered_when_its_time_has_come(esme):
    begin = asyncio.get_running_loop().time()
    await esme.submit(PLAIN, schedule_delivery_time=b"000000000001000R")
    await esme.gets(1)
    assert asyncio.get_running_loop().time() - begin > 1


async def query(esme, message_id, source=b"12345"):
    return await esme.session.request(
        Command.QUERY_SM, {"message_id": message_id, "source_addr": source}
    )


async def cancel(esme, message_id=b"", source=b"12345", destination=b""):
    return await esme.session.request(
        Command.CANCEL_SM,
        {"message_id": message_id, "source_addr": source, "destination_addr": destination},
    )


async def test_query_returns_the_state_of_a_message(esme):
    under_way = (await esme.submit("+447700900031")).octets("message_id")
    failed = (await esme.submit("+447700900020")).octets("message_id")
    await esme.gets(1)
    response = await query(esme, under_way)
    assert (response.number("message_state"), response.octets("final_date")) == (1, b"")
    response = await query(esme, failed)
    assert (response.number("message_state"), response.number("error_code")) == (5, 1)
    assert response.octets("final_date").endswith(b"00+")


async def test_query_of_a_message_that_is_not_the_askers_fails(esme):
    mine = (await esme.submit(PLAIN)).octets("message_id")
    assert (await query(esme, b"4711")).status == Status.ESME_RQUERYFAIL
    assert (await query(esme, b"no number")).status == Status.ESME_RQUERYFAIL
    assert (await query(esme, mine, source=b"54321")).status == Status.ESME_RQUERYFAIL


async def test_query_wants_the_id_as_the_answer_wrote_it(binds):
    dialect = Dialect(id_in_response="hex", id_in_receipt="decimal")
    async with Smsc("hex", dialect=dialect) as smsc:
        esme = await binds(smsc)
        await esme.submit(PLAIN)
        [receipt] = await esme.gets(1)
        wrong = receipt.provider_message_id.encode()
        assert (await query(esme, wrong)).status == Status.ESME_RQUERYFAIL


async def test_a_canceled_message_is_reported_deleted_and_never_delivered(smsc, esme):
    smsc.set_default(Behaviour(receipts=(ReceiptStep(after=0.2),)))
    message_id = (await esme.submit(PLAIN)).octets("message_id")
    assert (await cancel(esme, message_id)).status == Status.ESME_ROK
    await asyncio.sleep(0.25)
    assert [r.state for r in await esme.gets(1)] == ["deleted"]
    assert (await query(esme, message_id)).number("message_state") == 4
    assert (await cancel(esme, message_id)).status == Status.ESME_RCANCELFAIL


async def test_cancel_without_an_id_takes_all_between_two_addresses(smsc, esme):
    for destination in ("+447700900031", "+447700900031", "+12015550131"):
        await esme.submit(destination)
    assert (await cancel(esme, destination=b"447700900031")).status == Status.ESME_ROK
    assert [r.state for r in await esme.gets(2)] == ["deleted", "deleted"]
    assert smsc.counts.cancels == 2


async def test_what_is_delivered_or_unknown_cannot_be_canceled(esme):
    message_id = (await esme.submit(PLAIN)).octets("message_id")
    await esme.gets(1)
    assert (await cancel(esme, message_id)).status == Status.ESME_RCANCELFAIL
    assert (await cancel(esme, b"4711")).status == Status.ESME_RINVMSGID


async def test_a_message_cannot_be_replaced(esme):
    response = await esme.session.request(Command.REPLACE_SM, {"message_id": b"1"})
    assert response.status == Status.ESME_RREPLACEFAIL

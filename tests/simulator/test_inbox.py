"""What the SMSC says that it got: whole texts, duplicates, counts, within bounds."""

import pytest

from domain.segments import PartMethod
from simulator.behaviour import Behaviour
from simulator.smsc import Smsc
from smpp.tlvs import Tlv

PLAIN = "+447700900500"

LATIN = "Ça coûte {20} € [à peu près] — non: ~ | ^ \\ " * 9
EMOJI = "Family 👨‍👩‍👧‍👦, thumbs 👍🏽, flag 🇬🇧; " * 9
GSM = "Caffè [10 €] {è vero} ~ ^ | \\ " * 12


@pytest.mark.parametrize("method", list(PartMethod))
@pytest.mark.parametrize("text", [GSM, LATIN, EMOJI, "x" * 160, "short 🚨"])
async def test_a_text_is_received_as_it_was_sent_however_it_is_cut(smsc, esme, method, text):
    responses = await esme.submit_long(PLAIN, text, method)
    assert {response.status for response in responses} == {0}
    [message] = await smsc.received(PLAIN)
    assert message.text == text
    assert len(message.parts) == len(responses)


async def test_parts_make_a_whole_in_whatever_order_they_come(smsc, esme):
    for number in (3, 1, 2):
        await esme.submit(
            PLAIN, short_message=bytes([5, 0, 3, 9, 3, number]) + b"abc"[number - 1 : number],
            esm_class=0x40,
        )  # fmt: skip
    [message] = await smsc.received(PLAIN)
    assert message.text == "abc"


async def test_messages_with_equal_references_are_distinguished_by_their_senders(smsc, esme):
    for sender in ("11111", "22222"):
        for number in (1, 2):
            await esme.submit(
                PLAIN, source=sender, esm_class=0x40,
                short_message=bytes([5, 0, 3, 9, 2, number]) + sender.encode(),
            )  # fmt: skip
    assert [m.text for m in await smsc.received(count=2)] == ["1111111111", "2222222222"]


async def test_a_character_cut_in_two_is_seen(smsc, esme):
    high, low = "🚨".encode("utf-16-be")[:2], "🚨".encode("utf-16-be")[2:]
    for number, octets in ((1, high), (2, low)):
        await esme.submit(
            PLAIN, short_message=bytes([5, 0, 3, 9, 2, number]) + octets, esm_class=0x40,
            data_coding=8,
        )  # fmt: skip
    [message] = await smsc.received(PLAIN)
    assert message.text == "\N{REPLACEMENT CHARACTER}" * 2


async def test_a_message_with_a_missing_part_is_listed_and_not_whole(smsc, esme):
    await esme.submit(PLAIN, short_message=b"\x05\x00\x03\x09\x02\x01x", esm_class=0x40)
    [message] = smsc.messages
    assert not message.complete
    assert smsc.counts.messages == 0
    with pytest.raises(TimeoutError):
        await smsc.received(PLAIN, within=0.05)


async def test_a_part_that_comes_again_is_repeated_before_and_another_message_after(smsc, esme):
    async def part(number):
        octets = bytes([5, 0, 3, 9, 2, number]) + b"x"
        await esme.submit(PLAIN, short_message=octets, esm_class=0x40)

    for number in (1, 1, 2):
        await part(number)
    [message] = smsc.messages
    assert (message.complete, message.repeated, smsc.counts.repeated_parts) == (True, 1, 1)
    await part(2)
    assert [m.complete for m in smsc.messages] == [True, False]
    assert smsc.inbox.duplicate_parts() == 2


async def test_duplicates_are_found_by_text_and_by_reference(smsc, esme):
    for text, reference in (("same", 1), ("same", 2), ("other", 2), ("same", 3)):
        await esme.submit(PLAIN, text, reference=reference)
    plain = PLAIN.removeprefix("+")
    assert smsc.inbox.duplicates(by="text") == {("12345", plain, "same"): 2}
    assert smsc.inbox.duplicates(by="reference") == {("12345", plain, 2): 1}


async def test_refused_and_lost_messages_are_not_among_those_it_got(smsc, esme):
    await esme.submit("+447700900045")
    await esme.submit(PLAIN)
    assert [m.destination for m in smsc.messages] == [PLAIN.removeprefix("+")]
    assert (smsc.counts.submits, smsc.counts.taken, smsc.counts.messages) == (2, 1, 1)


async def test_it_keeps_the_last_messages_and_counts_all(binds):
    async with Smsc("small", keep=3) as smsc:
        smsc.set_default(Behaviour(receipts=()))
        esme = await binds(smsc)
        for number in range(10):
            await esme.submit(PLAIN, str(number))
            await esme.submit(PLAIN, short_message=bytes([5, 0, 3, number, 2, 1, 120]),
                              esm_class=0x40)  # fmt: skip
        assert [m.text for m in smsc.messages] == ["x", "9", "x"]
        assert len(list(smsc.inbox.parts())) == 3
        assert (smsc.counts.taken, smsc.counts.messages) == (20, 10)


async def test_forgetting_messages_leaves_the_counts(smsc, esme):
    await esme.submit(PLAIN)
    smsc.forget()
    assert smsc.messages == []
    assert smsc.counts.messages == 1


async def test_vendor_tlvs_are_kept_as_they_came(smsc, esme):
    vendors = Tlv(0x1400, b"1107\0")
    await esme.submit(PLAIN, tlvs=(vendors,))
    assert smsc.messages[0].parts[0].tlvs == (vendors,)

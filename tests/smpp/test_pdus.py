"""The codec against the specification, against smpplib where that is right, and against noise."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from smpplib import smpp as smpplib

from smpp.commands import Command
from smpp.fields import FieldError
from smpp.frames import MAX_FRAME_LENGTH, FrameReader, MalformedStream
from smpp.pdus import MalformedPdu, Pdu, decode, encode
from smpp.statuses import Status, status_name
from smpp.tlvs import Tag, Tlv

LIST_FIELDS = {
    "dest_address": st.lists(
        st.sampled_from([b"\x01\x01\x01447700900001\0", b"\x02list\0"]), max_size=5
    ).map(b"".join),
    "unsuccess_sme": st.lists(
        st.sampled_from([b"\x01\x01447700900001\0\0\0\0\x0b", b"\x05\x00x\0\0\0\x04\x00"]),
        max_size=5,
    ).map(b"".join),
}
SHORT_TEXT = st.binary(max_size=5).map(lambda text: text.replace(b"\0", b"?"))
TLVS = st.lists(st.builds(Tlv, st.integers(1, 0xFFFF), st.binary(max_size=40)), max_size=4).map(
    tuple
)


def field_values(command: Command) -> st.SearchStrategy[dict[str, int | bytes]]:
    strategies: dict[str, st.SearchStrategy[int | bytes]] = {}
    for name, default in decode(encode(Pdu(command))).fields.items():
        if name in LIST_FIELDS:
            strategies[name] = LIST_FIELDS[name]
        elif name == "short_message":
            strategies[name] = st.binary(max_size=254)
        elif isinstance(default, bytes):
            strategies[name] = SHORT_TEXT
        else:
            strategies[name] = st.integers(0, 255)
    return st.fixed_dictionaries(strategies)


PDUS = st.sampled_from(Command).flatmap(
    lambda command: st.builds(
        Pdu,
        st.just(command),
        st.just(0) if not command.is_response else st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
        field_values(command),
        TLVS,
    )
)


def read_or_malformed(frame: bytes) -> Pdu | MalformedPdu:
    try:
        return decode(frame)
    except MalformedPdu as malformed:
        return malformed


class Numbered:
    """What smpplib wants of a client."""

    sequence = 7

    def next_sequence(self) -> int:
        return 7


@given(PDUS)
def test_what_is_written_is_read_back(pdu: Pdu) -> None:
    assert decode(encode(pdu)) == pdu


@pytest.mark.parametrize("command", Command)
def test_every_command_can_be_written_with_its_defaults(command: Command) -> None:
    frame = encode(Pdu(command, sequence=9))
    assert struct.unpack(">4I", frame[:16]) == (len(frame), command, 0, 9)
    assert decode(frame).command is command


@given(st.binary(max_size=300))
@example(b"")
def test_noise_is_malformed_and_nothing_worse(noise: bytes) -> None:
    with pytest.raises(MalformedPdu):
        decode(noise)


@given(st.sampled_from(Command), st.binary(max_size=400), st.integers(0, 0xFFFFFFFF))
def test_a_noisy_body_is_read_or_malformed_and_nothing_worse(
    command: Command, body: bytes, status: int
) -> None:
    frame = struct.pack(">4I", 16 + len(body), command, status, 5) + body
    read = read_or_malformed(frame)
    if isinstance(read, MalformedPdu):
        assert (read.command_id, read.sequence) == (command, 5)
        assert read.status is not Status.ESME_ROK
    else:
        assert (read.command, read.status, read.sequence) == (command, status, 5)


@given(PDUS, st.data())
def test_a_damaged_pdu_is_read_or_malformed_and_nothing_worse(
    pdu: Pdu, data: st.DataObject
) -> None:
    frame = bytearray(encode(pdu))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    del frame[data.draw(st.integers(16, len(frame))) :]
    frame[:4] = struct.pack(">I", len(frame))
    read_or_malformed(bytes(frame))


SUBMIT_FIELDS: dict[str, int | bytes] = {
    "service_type": b"CMT",
    "source_addr_ton": 5,
    "source_addr": b"ACME",
    "dest_addr_ton": 1,
    "dest_addr_npi": 1,
    "destination_addr": b"447700900001",
    "esm_class": 0x40,
    "validity_period": b"000001000000000R",
    "registered_delivery": 1,
    "data_coding": 8,
    "short_message": b"\x05\x00\x03\x01\x02\x01\0h\0i",
}


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (Command.SUBMIT_SM, SUBMIT_FIELDS),
        (Command.DELIVER_SM, SUBMIT_FIELDS),
        (Command.BIND_TRANSCEIVER, {"system_id": b"acme", "password": b"secret", "addr_ton": 1}),
        (Command.SUBMIT_SM_RESP, {"message_id": b"abc-1"}),
        (Command.QUERY_SM, {"message_id": b"abc-1", "source_addr": b"ACME"}),
        (
            Command.QUERY_SM_RESP,
            {"message_id": b"abc-1", "final_date": b"261122113000000+", "message_state": 2},
        ),
        (Command.ALERT_NOTIFICATION, {"source_addr": b"447700900001", "esme_addr": b"ACME"}),
        (Command.ENQUIRE_LINK, {}),
    ],
)
def test_smpplib_writes_the_same_octets(command: Command, fields: dict[str, int | bytes]) -> None:
    as_smpplib_takes_them = {
        name: value.decode("latin-1")
        if isinstance(value, bytes) and name != "short_message"
        else value
        for name, value in fields.items()
    }
    theirs = smpplib.make_pdu(command.name.lower(), client=Numbered(), **as_smpplib_takes_them)
    theirs.sequence = 7
    assert encode(Pdu(command, 0, 7, fields)) == theirs.generate()


def test_smpplib_reads_what_we_write() -> None:
    frame = encode(
        Pdu(Command.SUBMIT_SM, 0, 7, SUBMIT_FIELDS, (Tlv(Tag.USER_MESSAGE_REFERENCE, b"\x02\x01"),))
    )
    theirs = smpplib.parse_pdu(frame, client=Numbered(), allow_unknown_opt_params=True)
    assert {name: getattr(theirs, name) or 0 for name in SUBMIT_FIELDS} == SUBMIT_FIELDS
    assert theirs.user_message_reference == 0x0201


def test_vendor_tlvs_are_kept_in_their_order_and_repeated() -> None:
    tlvs = (Tlv(0x1400, b"1207161"), Tlv(0x0428, b""), Tlv(0x1400, b"\0"), Tlv(0x0427, b"\x02"))
    read = decode(encode(Pdu(Command.SUBMIT_SM_RESP, 0, 1, {"message_id": b"1"}, tlvs)))
    assert read.tlvs == tlvs
    assert read.tlv(0x1400) == b"1207161"
    assert read.tlv(0x9999) is None


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (Command.SUBMIT_SM, {"source_addr": b"1" * 21}),
        (Command.SUBMIT_SM, {"short_message": b"x" * 255}),
        (Command.SUBMIT_SM, {"validity_period": b"0" * 17}),
        (Command.SUBMIT_SM, {"source_addr": b"1\x002"}),
        (Command.SUBMIT_SM, {"source_addr": 5}),
        (Command.SUBMIT_SM, {"data_coding": 256}),
        (Command.SUBMIT_SM, {"data_coding": -1}),
        (Command.SUBMIT_SM, {"data_coding": b"8"}),
        (Command.SUBMIT_SM, {"dest_addr": b"no such field"}),
        (Command.BIND_TRANSMITTER, {"password": b"123456789"}),
        (Command.SUBMIT_MULTI, {"dest_address": b"\x03"}),
        (Command.SUBMIT_MULTI, {"dest_address": b"\x02unterminated"}),
        (Command.SUBMIT_MULTI, {"dest_address": b"\x02x\0" * 256}),
    ],
)
def test_what_does_not_fit_is_an_error_and_never_cut(
    command: Command, fields: dict[str, int | bytes]
) -> None:
    with pytest.raises(FieldError):
        encode(Pdu(command, fields=fields))


def test_a_tlv_or_pdu_that_is_too_large_is_an_error() -> None:
    with pytest.raises(FieldError):
        encode(Pdu(Command.SUBMIT_SM, tlvs=(Tlv(Tag.MESSAGE_PAYLOAD, bytes(0x10000)),)))
    with pytest.raises(FieldError):
        encode(Pdu(Command.SUBMIT_SM, tlvs=(Tlv(0x1400, bytes(0xFFFF)),) * 2))
    with pytest.raises(FieldError):
        encode(Pdu(Command.SUBMIT_SM, sequence=-1))
    largest = encode(Pdu(Command.SUBMIT_SM, tlvs=(Tlv(Tag.MESSAGE_PAYLOAD, bytes(0xFFFF)),)))
    assert list(FrameReader().feed(largest)) == [largest]


def test_errors_and_representations_show_neither_numbers_nor_texts() -> None:
    pdu = Pdu(Command.SUBMIT_SM, 0, 7, SUBMIT_FIELDS, (Tlv(0x0381, b"447700900002"),))
    assert "4477" not in repr(pdu)
    with pytest.raises(FieldError) as error:
        encode(Pdu(Command.SUBMIT_SM, fields={"destination_addr": b"447700900001" * 2}))
    assert "4477" not in str(error.value)


@pytest.mark.parametrize("status", [Status.ESME_RTHROTTLED, 0x00000400])
def test_a_refused_submit_is_written_without_a_body_and_read_with_or_without_one(
    status: int,
) -> None:
    frame = encode(Pdu(Command.SUBMIT_SM_RESP, status, 3))
    assert len(frame) == 16
    assert decode(frame).octets("message_id") == b""
    rubbish = struct.pack(">4I", 19, Command.SUBMIT_SM_RESP, status, 3) + b"abc"
    assert decode(rubbish) == decode(frame)


def test_a_refused_delivery_is_written_with_its_body() -> None:
    assert encode(Pdu(Command.DELIVER_SM_RESP, Status.ESME_RX_T_APPN, 3))[16:] == b"\0"


def test_an_answer_with_unreadable_tlvs_still_answers() -> None:
    body = b"id-1\0" + b"\x04\x28\x00\x02ok" + b"\x04\x29\x00"
    frame = struct.pack(">4I", 16 + len(body), Command.SUBMIT_SM_RESP, 0, 3) + body
    pdu = decode(frame)
    assert pdu.octets("message_id") == b"id-1"
    assert pdu.tlvs == (Tlv(0x0428, b"ok"),)


@pytest.mark.parametrize(
    ("command", "body", "status"),
    [
        (Command.DELIVER_SM, b"", Status.ESME_RINVCMDLEN),
        (Command.DELIVER_SM, b"CMT\0\x01", Status.ESME_RINVCMDLEN),
        (Command.SUBMIT_SM, encode(Pdu(Command.SUBMIT_SM))[16:-1], Status.ESME_RINVCMDLEN),
        (
            Command.SUBMIT_SM,
            encode(Pdu(Command.SUBMIT_SM))[16:-1] + b"\x05hey",
            Status.ESME_RINVMSGLEN,
        ),
        (
            Command.SUBMIT_SM,
            encode(Pdu(Command.SUBMIT_SM))[16:] + b"\x04\x24\x00\x09hey",
            Status.ESME_RINVOPTPARSTREAM,
        ),
        (
            Command.DATA_SM,
            encode(Pdu(Command.DATA_SM))[16:] + b"\x04\x24\x00\x09hey",
            Status.ESME_RINVOPTPARSTREAM,
        ),
    ],
)
def test_a_malformed_request_names_the_status_to_answer_with(
    command: Command, body: bytes, status: Status
) -> None:
    frame = struct.pack(">4I", 16 + len(body), command, 0, 8) + body
    with pytest.raises(MalformedPdu) as malformed:
        decode(frame)
    assert malformed.value.status is status
    assert malformed.value.sequence == 8
    assert malformed.value.frame == frame


PADDING = st.binary(min_size=1, max_size=40).map(lambda octets: bytes(len(octets)))


@given(PDUS, PADDING)
def test_nuls_after_any_pdu_change_nothing_of_what_it_says(pdu: Pdu, padding: bytes) -> None:
    frame = encode(pdu)
    behind = struct.pack(">I", len(frame) + len(padding)) + frame[4:] + padding
    read = decode(behind)
    assert (read, read.is_irregular) == (decode(frame), True)


SUBMITS = {Command.SUBMIT_SM, Command.SUBMIT_MULTI, Command.DATA_SM, Command.REPLACE_SM}
NO_TEXT = sorted(set(Command) - SUBMITS)


@given(st.sampled_from(NO_TEXT), st.binary(min_size=1, max_size=40))
def test_octets_after_a_body_that_is_no_text_to_send_are_no_reason_to_refuse_it(
    command: Command, behind: bytes
) -> None:
    frame = encode(Pdu(command, 0, 9))
    read = decode(struct.pack(">I", len(frame) + len(behind)) + frame[4:] + behind)
    assert (read.command, read.sequence) == (command, 9)
    assert read.fields == decode(frame).fields


@pytest.mark.parametrize("nuls", [1, 2, 3])
def test_tlvs_behind_nuls_are_read(nuls: int) -> None:
    tlvs = (Tlv(Tag.RECEIPTED_MESSAGE_ID, b"abc-1\0"), Tlv(Tag.MESSAGE_STATE, b"\x02"))
    bare = encode(Pdu(Command.DELIVER_SM, 0, 9))
    rest = encode(Pdu(Command.DELIVER_SM, 0, 9, tlvs=tlvs))[len(bare) :]
    behind = bytes(nuls) + rest
    read = decode(struct.pack(">I", len(bare) + len(behind)) + bare[4:] + behind)
    assert (read.tlvs, read.is_irregular) == (tlvs, True)


def test_a_delivery_that_ends_within_its_text_is_read_as_far_as_it_goes() -> None:
    body = encode(Pdu(Command.DELIVER_SM, fields={"esm_class": 4}))[16:-1]
    for end, text in [(b"", b""), (b"\x05hey", b"hey")]:
        frame = struct.pack(">4I", 16 + len(body + end), Command.DELIVER_SM, 0, 3) + body + end
        read = decode(frame)
        assert (read.octets("short_message"), read.number("esm_class")) == (text, 4)
        assert read.is_irregular


def test_an_id_without_its_nul_is_an_id() -> None:
    frame = struct.pack(">4I", 20, Command.SUBMIT_SM_RESP, 0, 3) + b"1B59"
    assert decode(frame).octets("message_id") == b"1B59"


def test_an_unknown_command_has_an_error_status_of_its_own() -> None:
    with pytest.raises(MalformedPdu) as malformed:
        decode(struct.pack(">4I", 16, 0x0000_0F00, 0, 8))
    assert malformed.value.status is Status.ESME_RINVCMDID


def test_a_longer_id_than_the_specification_allows_is_read() -> None:
    body = b"f" * 80 + b"\0"
    frame = struct.pack(">4I", 16 + len(body), Command.SUBMIT_SM_RESP, 0, 3) + body
    assert decode(frame).octets("message_id") == b"f" * 80


@given(st.lists(PDUS, max_size=6), st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_frames_are_the_same_however_the_stream_is_chopped(
    pdus: list[Pdu], lengths: list[int]
) -> None:
    frames = [encode(pdu) for pdu in pdus]
    stream = b"".join(frames)
    reader = FrameReader()
    read: list[bytes] = []
    turn = 0
    while stream:
        length = lengths[turn % len(lengths)]
        turn += 1
        read += reader.feed(stream[:length])
        stream = stream[length:]
    assert read == frames


@pytest.mark.parametrize("length", [0, 4, 15, MAX_FRAME_LENGTH + 1, 0xFFFFFFFF])
def test_an_impossible_length_ends_the_stream_behind_the_good_frames(length: int) -> None:
    good = encode(Pdu(Command.ENQUIRE_LINK, sequence=1))
    frames = FrameReader().feed(good + struct.pack(">I", length) + bytes(20))
    assert next(frames) == good
    with pytest.raises(MalformedStream):
        next(frames)


def test_a_status_has_its_name_or_its_number() -> None:
    assert status_name(0x58) == "ESME_RTHROTTLED"
    assert status_name(0x400) == "0x00000400"


def test_a_field_is_asked_for_as_what_it_is() -> None:
    pdu = Pdu(Command.BIND_RECEIVER, fields={"system_id": b"acme"})
    assert pdu.octets("system_id") == b"acme"
    assert pdu.number("interface_version") == 0x34
    with pytest.raises(TypeError):
        pdu.number("system_id")
    with pytest.raises(TypeError):
        decode(encode(pdu)).octets("interface_version")

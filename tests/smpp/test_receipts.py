"""Receipts in the dialects that SMSCs write."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.receipts import ReceiptState
from smpp.commands import Command
from smpp.pdus import Pdu
from smpp.receipts import NetworkError, Receipt, parse_receipt
from smpp.tlvs import Tag, Tlv

RECEIPT = 0x04
APPENDIX_B = (
    "id:0123456789 sub:001 dlvrd:001 submit date:2611221130 done date:2611221131"
    " stat:DELIVRD err:000 text:Your code is"
)


def deliver(text: str = "", *tlvs: Tlv, esm_class: int = RECEIPT, **fields: int | bytes) -> Pdu:
    return Pdu(
        Command.DELIVER_SM,
        fields={
            "source_addr": b"447700900001",
            "destination_addr": b"ACME",
            "esm_class": esm_class,
            "short_message": text.encode("latin-1"),
            **fields,
        },
        tlvs=tlvs,
    )


def read(pdu: Pdu) -> Receipt:
    receipt = parse_receipt(pdu)
    assert receipt is not None
    return receipt


def test_the_text_of_the_specification_is_read() -> None:
    assert read(deliver(APPENDIX_B)) == Receipt(
        id_in_text="0123456789",
        id_in_tlv="",
        state=ReceiptState.DELIVERED,
        error="000",
        network_error=None,
        submitted_at=datetime(2026, 11, 22, 11, 30),  # noqa: DTZ001 - the SMSC's own zone
        done_at=datetime(2026, 11, 22, 11, 31),  # noqa: DTZ001 - as above
        reference=None,
        source="447700900001",
        destination="ACME",
    )


VALUES = st.text("0123456789abcDEFid.-/", max_size=8)


@given(VALUES, VALUES, VALUES, VALUES, VALUES, st.sampled_from(["", " text:", " Text:err:7 id:3"]))
def test_the_usual_text_says_the_same_as_one_that_is_spaced_in_its_own_way(
    message_id: str, submitted: str, done: str, stat: str, error: str, rest: str
) -> None:
    usual = (
        f"id:{message_id} sub:001 dlvrd:001 submit date:{submitted} done date:{done}"
        f" stat:{stat} err:{error}{rest}"
    )
    assert read(deliver(usual)) == read(deliver(usual.replace(" sub:", "  sub:")))


def test_tlvs_go_before_the_text() -> None:
    receipt = read(
        deliver(
            APPENDIX_B,
            Tlv(Tag.RECEIPTED_MESSAGE_ID, b"abc-1\0"),
            Tlv(Tag.MESSAGE_STATE, b"\x05"),
            Tlv(Tag.NETWORK_ERROR_CODE, b"\x03\x00\x1b"),
            Tlv(Tag.USER_MESSAGE_REFERENCE, b"\x12\x34"),
        )
    )
    assert (receipt.id_in_tlv, receipt.id_in_text) == ("abc-1", "0123456789")
    assert receipt.state is ReceiptState.UNDELIVERABLE
    assert receipt.network_error == NetworkError(3, 27)
    assert receipt.reference == 0x1234
    assert receipt.done_at is not None


@pytest.mark.parametrize("octet", range(10))
def test_every_message_state_has_a_meaning(octet: int) -> None:
    receipt = read(deliver("", Tlv(Tag.MESSAGE_STATE, bytes([octet]))))
    expected = {0: "enroute", 1: "enroute", 2: "delivered", 3: "expired", 4: "deleted"} | {
        5: "undeliverable",
        6: "accepted",
        7: "unknown",
        8: "rejected",
        9: "undeliverable",
    }
    assert receipt.state == expected[octet]


def test_tlvs_of_a_wrong_length_leave_it_to_the_text() -> None:
    receipt = read(
        deliver(
            APPENDIX_B,
            Tlv(Tag.MESSAGE_STATE, b"\0\x05"),
            Tlv(Tag.USER_MESSAGE_REFERENCE, b"\x01"),
            Tlv(Tag.NETWORK_ERROR_CODE, b""),
        )
    )
    assert receipt.state is ReceiptState.DELIVERED
    assert receipt.reference is None
    assert receipt.network_error is None


@pytest.mark.parametrize(
    ("text", "message_id", "state"),
    [
        ("ID: 77 STAT: UNDELIV ERR: 27", "77", ReceiptState.UNDELIVERABLE),
        ("stat:Rejected id:77", "77", ReceiptState.REJECTED),
        ("id:77;submit_date:2611221130;stat:EXPIRED;err:", "77", ReceiptState.EXPIRED),
        ("id=77, status=DELIVERED", "77", ReceiptState.DELIVERED),
        ("id:77 done date: stat:ACCEPTD err: text:", "77", ReceiptState.ACCEPTED),
        ("id:77 stat: err:000", "77", None),
        ("text:id:1 stat:EXPIRED id:77 stat:DELIVRD", "1", ReceiptState.EXPIRED),
        ("id:77 stat:DELIVRD text:id:1 stat:EXPIRED", "77", ReceiptState.DELIVERED),
        ("id:77 stat:QUANTUM", "77", None),
        ("id:77 stat:UNKNOWN", "77", ReceiptState.UNKNOWN),
        ("id:77 stat:undelivrd", "77", ReceiptState.UNDELIVERABLE),
        ("id:77 done date:2611221131 DELIVRD err:000 text:", "77", ReceiptState.DELIVERED),
        ("id:77 sub:001 Expired", "77", ReceiptState.EXPIRED),
        ("id:77 NOT DELIVERED err:011", "77", None),
        ("id:77 err:011 text:DELIVRD", "77", None),
        ("message id: 77 message_state=DELIVRD error code: 000", "77", ReceiptState.DELIVERED),
        ("MsgId:77 state:DELIVRD", "77", ReceiptState.DELIVERED),
        ('id:"77" stat:"DELIVRD"', "77", ReceiptState.DELIVERED),
        ("valid:1 pid:2 id:77 stat:DELETED", "77", ReceiptState.DELETED),
        ("nothing that a receipt would say", "", None),
    ],
)
def test_the_spellings_of_vendors_are_read(
    text: str, message_id: str, state: ReceiptState | None
) -> None:
    receipt = read(deliver(text))
    assert (receipt.id_in_text, receipt.state) == (message_id, state)


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("2611221130", datetime(2026, 11, 22, 11, 30)),  # noqa: DTZ001 - the SMSC's own zone
        ("261122113059", datetime(2026, 11, 22, 11, 30, 59)),  # noqa: DTZ001 - as above
        ("202611221130", datetime(2026, 11, 22, 11, 30)),  # noqa: DTZ001 - as above
        ("20261122113059", datetime(2026, 11, 22, 11, 30, 59)),  # noqa: DTZ001 - as above
        ("2613451130", None),
        ("soon", None),
        ("", None),
    ],
)
def test_dates_are_read_in_their_lengths_and_never_invented(
    digits: str, expected: datetime | None
) -> None:
    assert read(deliver(f"id:1 done date:{digits} stat:DELIVRD")).done_at == expected


TEXTS = st.sampled_from(
    [APPENDIX_B, APPENDIX_B.lower(), "id:0123456789 stat:DELIVRD", "id:0123456789 DELIVRD \r\n"]
)
HEADERS = st.sampled_from([b"", b"\x05\x00\x03\x84\x01\x01", b"\x06\x08\x04A\x84\x02\x01", b"\x00"])


@given(
    TEXTS,
    st.sampled_from(["ascii", "utf-16-be", "utf-16-le"]),
    st.integers(0, 255),
    HEADERS,
    st.booleans(),
    st.booleans(),
    st.sampled_from([b"", b"\0", b"\0\0\0\0"]),
)
def test_a_text_is_read_in_any_coding_under_any_data_coding_behind_any_header_and_in_either_place(
    text: str,
    encoding: str,
    data_coding: int,
    header: bytes,
    has_header_bit: bool,
    in_payload: bool,
    padding: bytes,
) -> None:
    octets = header + text.encode(encoding) + padding
    esm_class = RECEIPT | (0x40 if has_header_bit else 0)
    placed = (
        deliver("", Tlv(Tag.MESSAGE_PAYLOAD, octets), esm_class=esm_class, data_coding=data_coding)
        if in_payload
        else deliver(short_message=octets, esm_class=esm_class, data_coding=data_coding)
    )
    receipt = read(placed)
    assert (receipt.id_in_text, receipt.state) == ("0123456789", ReceiptState.DELIVERED)


def test_the_payload_counts_where_the_short_message_is_no_receipt() -> None:
    payload = Tlv(Tag.MESSAGE_PAYLOAD, APPENDIX_B.encode())
    assert read(deliver("see payload", payload)).id_in_text == "0123456789"


def test_empty_tlvs_leave_it_to_the_text() -> None:
    for empty in (b"", b"\0"):
        receipt = read(
            deliver(APPENDIX_B, Tlv(Tag.RECEIPTED_MESSAGE_ID, empty), Tlv(Tag.MESSAGE_STATE, empty))
        )
        assert (receipt.id_in_tlv, receipt.id_in_text) == ("", "0123456789")
        assert receipt.state is ReceiptState.DELIVERED


@pytest.mark.parametrize("octets", [b"\x02\0", b"\0\0\0\x02", b"2"])
def test_a_state_of_a_wrong_length_is_read_where_the_text_has_none(octets: bytes) -> None:
    state = Tlv(Tag.MESSAGE_STATE, octets)
    assert read(deliver("id:77", state)).state is ReceiptState.DELIVERED
    assert read(deliver("id:77 stat:EXPIRED", state)).state is ReceiptState.EXPIRED


def test_states_that_are_declared_go_before_the_usual_ones() -> None:
    declared = {"0": ReceiptState.DELIVERED, "FAILED": ReceiptState.REJECTED}
    for text, state in [
        ("id:1 stat:0", ReceiptState.DELIVERED),
        ("id:1 stat:Failed", ReceiptState.REJECTED),
        ("id:1 stat:EXPIRED", ReceiptState.EXPIRED),
        ("id:1 stat:1", None),
    ]:
        receipt = parse_receipt(deliver(text), declared)
        assert receipt is not None
        assert receipt.state is state


def test_a_data_sm_and_an_intermediate_notification_are_receipts_too() -> None:
    data = Pdu(
        Command.DATA_SM,
        fields={"esm_class": RECEIPT},
        tlvs=(Tlv(Tag.RECEIPTED_MESSAGE_ID, b"9\0"), Tlv(Tag.MESSAGE_STATE, b"\x01")),
    )
    assert read(data).state is ReceiptState.ENROUTE
    assert read(deliver("id:1 stat:ENROUTE", esm_class=0x20)).state is ReceiptState.ENROUTE


def test_tlvs_make_a_receipt_where_the_esm_class_forgot_to() -> None:
    tlvs = (Tlv(Tag.RECEIPTED_MESSAGE_ID, b"9\0"), Tlv(Tag.MESSAGE_STATE, b"\x02"))
    assert read(deliver("", *tlvs, esm_class=0)).state is ReceiptState.DELIVERED


@pytest.mark.parametrize("esm_class", [0x00, 0x40, 0x08, 0x10, 0x18])
def test_a_phone_cannot_forge_a_receipt_by_its_text(esm_class: int) -> None:
    assert parse_receipt(deliver(APPENDIX_B, esm_class=esm_class)) is None


OCTETS = st.binary(max_size=300)
NEARLY_A_RECEIPT = st.builds(
    lambda before, cut, after: before + APPENDIX_B.encode()[:cut] + after,
    st.binary(max_size=8),
    st.integers(0, len(APPENDIX_B)),
    OCTETS,
)
ANY_TLVS = st.lists(
    st.builds(
        Tlv,
        st.sampled_from(
            [
                Tag.RECEIPTED_MESSAGE_ID,
                Tag.MESSAGE_STATE,
                Tag.NETWORK_ERROR_CODE,
                Tag.USER_MESSAGE_REFERENCE,
                Tag.MESSAGE_PAYLOAD,
            ]
        ),
        OCTETS | NEARLY_A_RECEIPT,
    ),
    max_size=6,
).map(tuple)


@given(
    st.sampled_from([Command.DELIVER_SM, Command.DATA_SM]),
    st.sampled_from([0x04, 0x20, 0x44, 0x64]),
    st.integers(0, 255),
    OCTETS | NEARLY_A_RECEIPT,
    OCTETS,
    OCTETS,
    ANY_TLVS,
)
def test_whatever_octets_a_receipt_has_what_is_read_can_be_stored(
    command: Command,
    esm_class: int,
    data_coding: int,
    text: bytes,
    source: bytes,
    destination: bytes,
    tlvs: tuple[Tlv, ...],
) -> None:
    fields: dict[str, int | bytes] = {
        "esm_class": esm_class,
        "data_coding": data_coding,
        "source_addr": source,
        "destination_addr": destination,
    }
    if command is Command.DELIVER_SM:
        fields["short_message"] = text
    receipt = read(Pdu(command, fields=fields, tlvs=tlvs))
    for stored, longest in [
        (receipt.id_in_text, 1024),
        (receipt.id_in_tlv, 1024),
        (receipt.error or "", 32),
        (receipt.source, 65),
        (receipt.destination, 65),
    ]:
        assert len(stored) <= longest
        assert not any(ord(character) < 0x20 for character in stored)
        stored.encode()  # no surrogate, which UTF-8 does not have


def test_a_receipt_shows_no_number() -> None:
    assert "4477" not in repr(read(deliver(APPENDIX_B)))

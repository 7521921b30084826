"""Receipts in the dialects that SMSCs write."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.receipts import ReceiptState
from smpp.pdus import Command, Pdu, Tag, Tlv
from smpp.receipts import NetworkError, Receipt, parse_receipt

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
        provider_message_id="0123456789",
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
    assert receipt.provider_message_id == "abc-1"
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
        ("id:77 stat: err:000", "77", ReceiptState.UNKNOWN),
        ("text:id:1 stat:EXPIRED id:77 stat:DELIVRD", "1", ReceiptState.EXPIRED),
        ("id:77 stat:DELIVRD text:id:1 stat:EXPIRED", "77", ReceiptState.DELIVERED),
        ("id:77 stat:QUANTUM", "77", ReceiptState.UNKNOWN),
        ("valid:1 pid:2 id:77 stat:DELETED", "77", ReceiptState.DELETED),
        ("nothing that a receipt would say", "", ReceiptState.UNKNOWN),
    ],
)
def test_the_spellings_of_vendors_are_read(text: str, message_id: str, state: ReceiptState) -> None:
    receipt = read(deliver(text))
    assert (receipt.provider_message_id, receipt.state) == (message_id, state)


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


def test_the_text_may_be_in_the_payload_or_in_ucs2() -> None:
    payload = Tlv(Tag.MESSAGE_PAYLOAD, APPENDIX_B.encode())
    assert read(deliver("", payload)).provider_message_id == "0123456789"
    wide = deliver(data_coding=8, short_message=APPENDIX_B.encode("utf-16-be"))
    assert read(wide).provider_message_id == "0123456789"


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


@given(st.binary(max_size=254), st.integers(0, 255), st.binary(max_size=20), st.binary(max_size=3))
def test_whatever_it_says_a_receipt_can_be_read(
    text: bytes, data_coding: int, message_id: bytes, state: bytes
) -> None:
    pdu = deliver(
        "",
        Tlv(Tag.RECEIPTED_MESSAGE_ID, message_id),
        Tlv(Tag.MESSAGE_STATE, state),
        short_message=text,
        data_coding=data_coding,
    )
    assert parse_receipt(pdu) is not None
    assert "4477" not in repr(parse_receipt(pdu))

"""Delivery receipts as an SMSC writes them (SMPP 3.4, appendix B, and TLVs)."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from domain.receipts import ReceiptState
from simulator.behaviour import Dialect, ReceiptCommand
from simulator.delivery_queue import Delivery, Kind
from simulator.inbox import Part
from smpp.commands import Command
from smpp.tlvs import Tag, Tlv

# SMPP 3.4, 5.2.28: message_state, and appendix B: the word of a receipt's text.
MESSAGE_STATES: Mapping[ReceiptState, int] = MappingProxyType(
    {
        ReceiptState.ENROUTE: 1,
        ReceiptState.DELIVERED: 2,
        ReceiptState.EXPIRED: 3,
        ReceiptState.DELETED: 4,
        ReceiptState.UNDELIVERABLE: 5,
        ReceiptState.ACCEPTED: 6,
        ReceiptState.UNKNOWN: 7,
        ReceiptState.REJECTED: 8,
    }
)
_WORDS: Mapping[ReceiptState, str] = MappingProxyType(
    {
        ReceiptState.ENROUTE: "ENROUTE",
        ReceiptState.DELIVERED: "DELIVRD",
        ReceiptState.EXPIRED: "EXPIRED",
        ReceiptState.DELETED: "DELETED",
        ReceiptState.UNDELIVERABLE: "UNDELIV",
        ReceiptState.ACCEPTED: "ACCEPTD",
        ReceiptState.UNKNOWN: "UNKNOWN",
        ReceiptState.REJECTED: "REJECTD",
    }
)

# The usual `err:` where a behaviour names none: causes of 3GPP TS 29.002 in decimal, as many
# SMSCs write them (27 absent subscriber, 1 unknown subscriber, 13 call barred).
USUAL_ERRORS: Mapping[ReceiptState, str] = MappingProxyType(
    {
        ReceiptState.EXPIRED: "027",
        ReceiptState.UNDELIVERABLE: "001",
        ReceiptState.REJECTED: "013",
    }
)
_NO_ERROR: Final = "000"
_GSM_NETWORK: Final = 3  # 3.4, 5.3.2.31: the type of network_error_code

# esm_class, 3.4, 5.2.12: a receipt for an end, and an intermediate notification.
_RECEIPT: Final = 0x04
_INTERMEDIATE: Final = 0x20

_QUOTED_CHARACTERS: Final = 20  # appendix B: how much of the text a receipt repeats


def error_of(state: ReceiptState, error: str = "") -> str:
    """The three characters of `err:`; the state's usual ones where `error` is empty."""
    return error or USUAL_ERRORS.get(state, _NO_ERROR)


def write_receipt(
    part: Part, state: ReceiptState, error: str, done: datetime, dialect: Dialect
) -> Delivery:
    """The receipt of a part, as this SMSC writes it; `done` is aware, `error` as `err:` has it."""
    text = _text(part, state, error, done, dialect) if dialect.receipt_text else b""
    tlvs: list[Tlv] = []
    if dialect.receipt_tlvs:
        message_id = (dialect.id_in_tlv or dialect.id_in_receipt).write(part.id).encode()
        tlvs.append(Tlv(Tag.RECEIPTED_MESSAGE_ID, message_id + b"\0"))
        tlvs.append(Tlv(Tag.MESSAGE_STATE, bytes([MESSAGE_STATES[state]])))
        if error != _NO_ERROR and error.isdecimal():
            code = int(error).to_bytes(2, "big")
            tlvs.append(Tlv(Tag.NETWORK_ERROR_CODE, bytes([_GSM_NETWORK]) + code))
    if dialect.echo_reference and part.reference is not None:
        tlvs.append(Tlv(Tag.USER_MESSAGE_REFERENCE, part.reference.to_bytes(2, "big")))
    submit = part.pdu
    fields: dict[str, int | bytes] = {
        "source_addr_ton": submit.number("dest_addr_ton"),
        "source_addr_npi": submit.number("dest_addr_npi"),
        "source_addr": submit.octets("destination_addr"),
        "dest_addr_ton": submit.number("source_addr_ton"),
        "dest_addr_npi": submit.number("source_addr_npi"),
        "destination_addr": submit.octets("source_addr"),
        "esm_class": _RECEIPT if is_end(state) else _INTERMEDIATE,
        "data_coding": dialect.receipt_data_coding,
    }
    if dialect.receipts_by is ReceiptCommand.DELIVER_SM:
        fields["short_message"] = text
        return Delivery(Kind.RECEIPT, Command.DELIVER_SM, fields, tuple(tlvs))
    if text:
        tlvs.append(Tlv(Tag.MESSAGE_PAYLOAD, text))
    return Delivery(Kind.RECEIPT, Command.DATA_SM, fields, tuple(tlvs))


def is_end(state: ReceiptState) -> bool:
    """Whether an SMSC sends nothing after it: UNKNOWN and ACCEPTED are the last it can say."""
    return state is not ReceiptState.ENROUTE


def _text(part: Part, state: ReceiptState, error: str, done: datetime, dialect: Dialect) -> bytes:
    delivered = 1 if state is ReceiptState.DELIVERED else 0
    quoted = (part.text or "")[:_QUOTED_CHARACTERS]
    return (
        f"id:{dialect.id_in_receipt.write(part.id)} sub:001 dlvrd:{delivered:03}"
        f" submit date:{part.accepted_at:%y%m%d%H%M} done date:{done:%y%m%d%H%M}"
        f" stat:{dialect.receipt_states.get(state, _WORDS[state])} err:{error} text:{quoted}"
    ).encode("ascii", errors="replace") + bytes(dialect.receipt_padding)

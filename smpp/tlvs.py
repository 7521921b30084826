"""Optional parameters: the TLVs of SMPP 3.4 (5.3.2) as a table, and their octets (3.2.4.1).

The tags are smpplib's; names, types and sections are the specification's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Literal

from smpplib.consts import OPTIONAL_PARAMS as _TAGS

from domain.values import value

TLV_HEADER: Final = struct.Struct(">2H")
MAX_TLV: Final = 0xFFFF
_MOST_PADDING: Final = 8
"""NULs in front of the TLVs that are tried to be passed over."""


@dataclass(frozen=True, slots=True)
class TlvType:
    """The type of a TLV's value (3.4, 3.1): how it is read, and how many octets it has."""

    kind: Literal["integer", "C-octet string", "octet string"]
    least: int
    most: int

    def fits(self, octets: bytes) -> bool:
        """Whether a value has as many octets as the type allows."""
        return self.least <= len(octets) <= self.most


def _integer(octets: int) -> TlvType:
    return TlvType("integer", octets, octets)


def _c_string(most: int) -> TlvType:
    """Text of at most so many octets, its NUL included."""
    return TlvType("C-octet string", 1, most)


def _octets(least: int, most: int) -> TlvType:
    return TlvType("octet string", least, most)


class Tag(IntEnum):
    """TLV tags with the type of their values and their section; vendors add their own.

    A Tlv's tag is a plain int.
    """

    value_type: TlvType
    section: str

    def __new__(cls, tag: int, value_type: TlvType, section: str) -> Tag:  # noqa: PYI034 - mypy
        member = int.__new__(cls, tag)
        member._value_ = tag
        member.value_type = value_type
        member.section = section
        return member

    # fmt: off
    DEST_ADDR_SUBUNIT = _TAGS["dest_addr_subunit"], _integer(1), "5.3.2.1"
    SOURCE_ADDR_SUBUNIT = _TAGS["source_addr_subunit"], _integer(1), "5.3.2.2"
    DEST_NETWORK_TYPE = _TAGS["dest_network_type"], _integer(1), "5.3.2.3"
    SOURCE_NETWORK_TYPE = _TAGS["source_network_type"], _integer(1), "5.3.2.4"
    DEST_BEARER_TYPE = _TAGS["dest_bearer_type"], _integer(1), "5.3.2.5"
    SOURCE_BEARER_TYPE = _TAGS["source_bearer_type"], _integer(1), "5.3.2.6"
    DEST_TELEMATICS_ID = _TAGS["dest_telematics_id"], _integer(2), "5.3.2.7"
    SOURCE_TELEMATICS_ID = _TAGS["source_telematics_id"], _integer(1), "5.3.2.8"
    QOS_TIME_TO_LIVE = _TAGS["qos_time_to_live"], _integer(4), "5.3.2.9"
    PAYLOAD_TYPE = _TAGS["payload_type"], _integer(1), "5.3.2.10"
    ADDITIONAL_STATUS_INFO_TEXT = _TAGS["additional_status_info_text"], _c_string(256), "5.3.2.11"
    RECEIPTED_MESSAGE_ID = _TAGS["receipted_message_id"], _c_string(65), "5.3.2.12"
    MS_MSG_WAIT_FACILITIES = _TAGS["ms_msg_wait_facilities"], _integer(1), "5.3.2.13"
    PRIVACY_INDICATOR = _TAGS["privacy_indicator"], _integer(1), "5.3.2.14"
    SOURCE_SUBADDRESS = _TAGS["source_subaddress"], _octets(2, 23), "5.3.2.15"
    DEST_SUBADDRESS = _TAGS["dest_subaddress"], _octets(2, 23), "5.3.2.16"
    USER_MESSAGE_REFERENCE = _TAGS["user_message_reference"], _integer(2), "5.3.2.17"
    USER_RESPONSE_CODE = _TAGS["user_response_code"], _integer(1), "5.3.2.18"
    LANGUAGE_INDICATOR = _TAGS["language_indicator"], _integer(1), "5.3.2.19"
    SOURCE_PORT = _TAGS["source_port"], _integer(2), "5.3.2.20"
    DESTINATION_PORT = _TAGS["destination_port"], _integer(2), "5.3.2.21"
    SAR_MSG_REF_NUM = _TAGS["sar_msg_ref_num"], _integer(2), "5.3.2.22"
    SAR_TOTAL_SEGMENTS = _TAGS["sar_total_segments"], _integer(1), "5.3.2.23"
    SAR_SEGMENT_SEQNUM = _TAGS["sar_segment_seqnum"], _integer(1), "5.3.2.24"
    SC_INTERFACE_VERSION = _TAGS["sc_interface_version"], _integer(1), "5.3.2.25"
    DISPLAY_TIME = _TAGS["display_time"], _integer(1), "5.3.2.26"
    MS_VALIDITY = _TAGS["ms_validity"], _integer(1), "5.3.2.27"
    DPF_RESULT = _TAGS["dpf_result"], _integer(1), "5.3.2.28"
    SET_DPF = _TAGS["set_dpf"], _integer(1), "5.3.2.29"
    MS_AVAILABILITY_STATUS = _TAGS["ms_availability_status"], _integer(1), "5.3.2.30"
    NETWORK_ERROR_CODE = _TAGS["network_error_code"], _octets(3, 3), "5.3.2.31"
    MESSAGE_PAYLOAD = _TAGS["message_payload"], _octets(0, 0xFFFF), "5.3.2.32"
    DELIVERY_FAILURE_REASON = _TAGS["delivery_failure_reason"], _integer(1), "5.3.2.33"
    MORE_MESSAGES_TO_SEND = _TAGS["more_messages_to_send"], _integer(1), "5.3.2.34"
    MESSAGE_STATE = _TAGS["message_state"], _integer(1), "5.3.2.35"
    CALLBACK_NUM = _TAGS["callback_num"], _octets(4, 19), "5.3.2.36"
    CALLBACK_NUM_PRES_IND = _TAGS["callback_num_pres_ind"], _integer(1), "5.3.2.37"
    CALLBACK_NUM_ATAG = _TAGS["callback_num_atag"], _octets(0, 65), "5.3.2.38"
    NUMBER_OF_MESSAGES = _TAGS["number_of_messages"], _integer(1), "5.3.2.39"
    SMS_SIGNAL = _TAGS["sms_signal"], _integer(2), "5.3.2.40"
    ALERT_ON_MESSAGE_DELIVERY = _TAGS["alert_on_message_delivery"], _octets(0, 0), "5.3.2.41"
    ITS_REPLY_TYPE = _TAGS["its_reply_type"], _integer(1), "5.3.2.42"
    ITS_SESSION_INFO = _TAGS["its_session_info"], _octets(2, 2), "5.3.2.43"
    USSD_SERVICE_OP = _TAGS["ussd_service_op"], _octets(1, 1), "5.3.2.44"
    # fmt: on


@value
class Tlv:
    """An optional parameter (3.4, 3.2.4.1): `tag` and `value` as on the wire."""

    tag: int
    value: bytes = field(repr=False)  # may be a number or a text of people


def read_tlvs(frame: bytes, position: int) -> tuple[tuple[Tlv, ...], bytes]:
    """The TLVs from `position` on, and the octets there that belong to none.

    NULs behind the TLVs belong to none, though four of them could be read as a TLV without a value
    (tag 0 is reserved, 3.4, 5.3.2). Where TLVs do not fill the frame they may stand behind NULs:
    some SMSCs write one after short_message.
    """
    tlvs, end = _tlvs_from(frame, position)
    rest = frame[end:]
    for start in range(position + 1, position + 1 + _MOST_PADDING):
        if not rest.strip(b"\0") or frame[start - 1 : start] != b"\0":
            break
        padded, padded_end = _tlvs_from(frame, start)
        if padded_end == len(frame):
            return tuple(padded), frame[position:start]
    return tuple(tlvs), rest


def _tlvs_from(frame: bytes, position: int) -> tuple[list[Tlv], int]:
    """The TLVs that are whole from `position` on, and where the last one ends."""
    tlvs: list[Tlv] = []
    length = len(frame)
    end = position
    while (start := position + TLV_HEADER.size) <= length:
        tag, size = TLV_HEADER.unpack_from(frame, position)
        position = start + size
        if position > length:
            break
        if tag or size:
            tlvs.append(Tlv(tag, frame[start:position]))
            end = position
    return tlvs, end

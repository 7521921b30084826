"""What a submit_sm carries, read as an SMSC and the phone behind it read it.

Three ways to send a long text are taken (SMPP 3.4, 3.2.3): a user data header in each part, SAR
TLVs, and one message_payload.
"""

from dataclasses import dataclass
from typing import Final

from domain.encoding import DefaultAlphabet, decode_text
from domain.segments import Concatenation, read_udh
from smpp.pdus import Pdu
from smpp.statuses import Status
from smpp.tlvs import Tag

UDHI: Final = 0x40
# What fits into one short message on the air (TS 23.040, 9.2.3.16), user data header included.
_MAX_OCTETS: Final = 140
_MAX_SEPTETS: Final = 160
_SEVEN_BIT_CODINGS: Final = (
    0x13  # TS 23.038, 4: class bits and their flag leave the default alphabet
)


class Unacceptable(Exception):
    """A submit that no SMSC would take; `status` is the command_status that says so."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True, slots=True)
class Content:
    """The user data of one submit: a header's octets, if any, and those of the text behind it."""

    octets: bytes
    header_length: int
    data_coding: int
    place: Concatenation | None
    """Where it stands in its message; None for a message of one part."""

    @property
    def body(self) -> bytes:
        """What stands behind the header."""
        return self.octets[self.header_length :]

    def text(self, alphabet: DefaultAlphabet) -> str | None:
        """The part's text; None if it is not text. A character cut in two shows as U+FFFD."""
        return decode_text(self.octets, self.data_coding, alphabet, self.header_length)


def read_content(pdu: Pdu, alphabet: DefaultAlphabet) -> Content:
    """The content of a submit_sm.

    Raises:
        Unacceptable: it is longer than fits, comes in two ways at once, or its header is broken.
    """
    octets = pdu.octets("short_message")
    payload = pdu.tlv(Tag.MESSAGE_PAYLOAD) if pdu.tlvs else None
    if payload is not None:
        if octets:  # 3.4, 5.3.2.32: sm_length is 0 beside a message_payload
            raise Unacceptable(Status.ESME_RINVMSGLEN)
        octets = payload
    header_length = 0
    place = _sar_place(pdu) if pdu.tlvs else None
    if pdu.number("esm_class") & UDHI:
        if not octets or octets[0] >= len(octets):
            raise Unacceptable(Status.ESME_RINVESMCLASS)
        header_length, by_header = read_udh(octets)
        if by_header is not None:
            if place is not None:  # two methods at once: the phone would show a header as text
                raise Unacceptable(Status.ESME_RINVESMCLASS)
            place = by_header
    content = Content(octets, header_length, pdu.number("data_coding"), place)
    if payload is None and not _fits(content, alphabet):
        raise Unacceptable(Status.ESME_RINVMSGLEN)
    return content


def _fits(content: Content, alphabet: DefaultAlphabet) -> bool:
    length = len(content.octets)
    if length <= _MAX_OCTETS:
        return True
    if content.data_coding & ~_SEVEN_BIT_CODINGS or alphabet is DefaultAlphabet.GSM7_PACKED:
        return False
    # Seven-bit text, one octet for each septet here and packed on the air.
    header_septets = -(-content.header_length * 8 // 7)
    return length - content.header_length <= _MAX_SEPTETS - header_septets


def _sar_place(pdu: Pdu) -> Concatenation | None:
    reference = pdu.tlv(Tag.SAR_MSG_REF_NUM)
    total = pdu.tlv(Tag.SAR_TOTAL_SEGMENTS)
    number = pdu.tlv(Tag.SAR_SEGMENT_SEQNUM)
    if reference is None and total is None and number is None:
        return None
    if reference is None or total is None or number is None:
        raise Unacceptable(Status.ESME_RMISSINGOPTPARAM)
    values = {
        Tag.SAR_MSG_REF_NUM: reference,
        Tag.SAR_TOTAL_SEGMENTS: total,
        Tag.SAR_SEGMENT_SEQNUM: number,
    }
    if not all(tag.value_type.fits(octets) for tag, octets in values.items()):
        raise Unacceptable(Status.ESME_RINVPARLEN)
    if not 1 <= number[0] <= total[0]:
        raise Unacceptable(Status.ESME_RINVOPTPARAMVAL)
    return Concatenation(int.from_bytes(reference, "big"), total[0], number[0])

"""Texts cut into parts, and what each part puts on the wire.

A part holds 140 octets (3GPP TS 23.040, 9.2.3.24): 160 septets or 70 UTF-16 units, less what the
header that ties the parts together takes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

import regex

from domain.encoding import (
    ESCAPE,
    DefaultAlphabet,
    Encoding,
    encode_gsm7,
    encode_text,
    encode_ucs2,
    is_gsm7,
)
from domain.substitutions import Replacement, substitute
from domain.values import value

MAX_PARTS = 255
"""The total is one octet in every method (TS 23.040, 9.2.3.24.1; SMPP 3.4, 5.3.2.23)."""


class PartMethod(StrEnum):
    """How the parts of a long message are tied together; a provider takes one of them."""

    UDH8 = "udh8"
    """User data header with an 8-bit reference, TS 23.040, 9.2.3.24.1."""

    UDH16 = "udh16"
    """User data header with a 16-bit reference, TS 23.040, 9.2.3.24.8."""

    SAR = "sar"
    """TLVs beside the PDU's text, SMPP 3.4, 5.3.2.22 to 24; the SMSC writes the header."""

    PAYLOAD = "payload"
    """The whole in the TLV message_payload, SMPP 3.4, 5.3.2.32; the SMSC cuts it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What fits: septets for GSM-7, UTF-16 units for UCS-2."""

    single: int
    part: int


# An SMSC that writes the header itself (SAR, PAYLOAD) uses the short one.
LIMITS: Mapping[tuple[PartMethod, Encoding], Limits] = {
    (PartMethod.UDH8, Encoding.GSM7): Limits(single=160, part=153),
    (PartMethod.UDH8, Encoding.UCS2): Limits(single=70, part=67),
    (PartMethod.UDH16, Encoding.GSM7): Limits(single=160, part=152),
    (PartMethod.UDH16, Encoding.UCS2): Limits(single=70, part=66),
    (PartMethod.SAR, Encoding.GSM7): Limits(single=160, part=153),
    (PartMethod.SAR, Encoding.UCS2): Limits(single=70, part=67),
    (PartMethod.PAYLOAD, Encoding.GSM7): Limits(single=160, part=153),
    (PartMethod.PAYLOAD, Encoding.UCS2): Limits(single=70, part=67),
}


class UnsendableText(ValueError):
    """A text that cannot become a message; the sentence says why and what to do."""


class EmptyText(UnsendableText):
    def __init__(self) -> None:
        super().__init__("The text is empty: write what the message should say.")


class TooManyParts(UnsendableText):
    def __init__(self, parts: int, limit: int) -> None:
        super().__init__(
            f"The text needs {parts} parts, and at most {limit} are allowed: shorten it."
        )
        self.parts = parts
        self.limit = limit


@value
class Segmented:
    """A text as it will be sent."""

    encoding: Encoding
    method: PartMethod
    alphabet: DefaultAlphabet
    parts: tuple[str, ...]
    """One text for each PDU; joined, they are the whole. PAYLOAD has one."""
    units: tuple[int, ...]
    """What each part takes: septets for GSM-7, UTF-16 units for UCS-2."""
    segments: int
    """How many messages go over the air and are charged: the parts, or what an SMSC makes of a
    PAYLOAD."""
    replacements: tuple[Replacement, ...] = ()

    @property
    def text(self) -> str:
        """The whole text, with its replacements."""
        return "".join(self.parts)


def segment(
    text: str,
    *,
    method: PartMethod = PartMethod.UDH8,
    alphabet: DefaultAlphabet = DefaultAlphabet.GSM7,
    smart: bool = False,
    max_parts: int = MAX_PARTS,
) -> Segmented:
    """Chooses the encoding and cuts the text into the fewest parts that hold it.

    No part begins or ends within an escape pair or a surrogate pair, nor within a grapheme unless
    the grapheme alone is longer than a part. With `smart`, typography is replaced where that makes
    the whole GSM-7. An SMSC whose default `alphabet` is Latin-1 cannot be told the Greek letters
    and the euro sign of GSM-7: such a text is UCS-2 there.

    Raises EmptyText, TooManyParts, and NotEncodable for half a surrogate pair.
    """
    return _segment(text, method, alphabet, smart, max_parts)


@lru_cache(maxsize=8000)  # a text is cut for its claim, and a moment later for its submit
def _segment(
    text: str, method: PartMethod, alphabet: DefaultAlphabet, smart: bool, max_parts: int
) -> Segmented:
    replacements: tuple[Replacement, ...] = ()
    if smart:
        text, replacements = substitute(text, alphabet)
    if not text:
        raise EmptyText
    encoding = Encoding.GSM7 if is_gsm7(text, alphabet) else Encoding.UCS2
    parts, units = _CUT[encoding](text, LIMITS[method, encoding])
    segments = len(parts)
    if segments > max_parts:
        raise TooManyParts(segments, max_parts)
    if method is PartMethod.PAYLOAD:
        parts, units = (text,), (sum(units),)
    return Segmented(encoding, method, alphabet, parts, units, segments, replacements)


_Parts: TypeAlias = tuple[tuple[str, ...], tuple[int, ...]]


def _cut_gsm7(text: str, limits: Limits) -> _Parts:
    coded = encode_gsm7(text)
    if len(coded) <= limits.single:
        return (text,), (len(coded),)
    parts: list[str] = []
    units: list[int] = []
    begin = 0
    characters = 0
    while begin < len(coded):
        end = min(begin + limits.part, len(coded))
        # CR LF is the one grapheme of GSM-7 that has two characters.
        if coded[end - 1] == ESCAPE or coded[end - 1 : end + 1] == b"\r\n":
            end -= 1
        length = end - begin - coded.count(ESCAPE, begin, end)
        parts.append(text[characters : characters + length])
        units.append(end - begin)
        characters += length
        begin = end
    return tuple(parts), tuple(units)


def _cut_ucs2(text: str, limits: Limits) -> _Parts:
    total = len(encode_ucs2(text)) // 2  # also refuses half a surrogate pair
    if total <= limits.single:
        return (text,), (total,)
    parts: list[str] = []
    units: list[int] = []
    part: list[str] = []
    room = limits.part
    for piece, length in _pieces(text, limits.part):
        if length > room:
            parts.append("".join(part))
            units.append(limits.part - room)
            part.clear()
            room = limits.part
        part.append(piece)
        room -= length
    parts.append("".join(part))
    units.append(limits.part - room)
    return tuple(parts), tuple(units)


def _pieces(text: str, longest: int) -> Iterator[tuple[str, int]]:
    """What must stay together, with its UTF-16 units.

    Graphemes; of one that is longer than a part, the characters.
    """
    for grapheme in _GRAPHEME.findall(text):
        length = _utf16_units(grapheme)
        if length <= longest:
            yield grapheme, length
        else:
            for character in grapheme:
                yield character, _utf16_units(character)


def _utf16_units(text: str) -> int:
    return len(text) + sum(map("\uffff".__lt__, text))


_GRAPHEME = regex.compile(r"\X")
_CUT = {Encoding.GSM7: _cut_gsm7, Encoding.UCS2: _cut_ucs2}


def udh(method: PartMethod, reference: int, total: int, number: int) -> bytes:
    """The user data header of one of several parts, its length octet included.

    Empty for the methods that have none. `reference` (0 to 0xFFFF, its low octet for UDH8) is the
    same for all `total` parts; `number` counts from 1.
    """
    match method:
        case PartMethod.UDH8:
            return bytes((0x05, 0x00, 0x03, reference & 0xFF, total, number))
        case PartMethod.UDH16:
            return bytes((0x06, 0x08, 0x04, *reference.to_bytes(2), total, number))
        case PartMethod.SAR | PartMethod.PAYLOAD:
            return b""


SAR_MSG_REF_NUM = 0x020C
SAR_TOTAL_SEGMENTS = 0x020E
SAR_SEGMENT_SEQNUM = 0x020F
MESSAGE_PAYLOAD = 0x0424


def sar_tlvs(reference: int, total: int, number: int) -> tuple[tuple[int, bytes], ...]:
    """The TLVs (tag, value) of one of several parts; `reference` and `number` as for `udh`."""
    return (
        (SAR_MSG_REF_NUM, reference.to_bytes(2)),
        (SAR_TOTAL_SEGMENTS, total.to_bytes(1)),
        (SAR_SEGMENT_SEQNUM, number.to_bytes(1)),
    )


def short_message_octets(
    part: str,
    encoding: Encoding,
    alphabet: DefaultAlphabet = DefaultAlphabet.GSM7,
    header: bytes = b"",
) -> bytes:
    """The octets of one part, its user data header in front.

    Raises NotEncodable where the part was cut for another encoding or alphabet.
    """
    return header + encode_text(part, encoding, alphabet, header_length=len(header))


@value
class WirePart:
    """One PDU's worth: what goes into `short_message`, and the TLVs (tag, value) beside it."""

    short_message: bytes
    has_header: bool
    """Whether the UDHI bit (0x40) of `esm_class` is to be set."""
    tlvs: tuple[tuple[int, bytes], ...] = ()


def wire_parts(message: Segmented, reference: int) -> tuple[WirePart, ...]:
    """All parts of a message as they go on the wire, by the message's own method.

    `reference` is 0 to 0xFFFF. The same reference gives the same parts, so that a missing one can
    be sent again.
    """
    total = len(message.parts)
    return tuple(
        _wire_part(message, text, reference, total, number)
        for number, text in enumerate(message.parts, start=1)
    )


def _wire_part(message: Segmented, text: str, reference: int, total: int, number: int) -> WirePart:
    encoding, alphabet = message.encoding, message.alphabet
    if message.method is PartMethod.PAYLOAD and message.segments > 1:
        payload = short_message_octets(text, encoding, alphabet)
        return WirePart(b"", has_header=False, tlvs=((MESSAGE_PAYLOAD, payload),))
    if total == 1:
        return WirePart(short_message_octets(text, encoding, alphabet), has_header=False)
    if message.method is PartMethod.SAR:
        octets = short_message_octets(text, encoding, alphabet)
        return WirePart(octets, has_header=False, tlvs=sar_tlvs(reference, total, number))
    header = udh(message.method, reference, total, number)
    return WirePart(short_message_octets(text, encoding, alphabet, header), has_header=True)


@dataclass(frozen=True, slots=True)
class Concatenation:
    """What ties a received part to the others of its message."""

    reference: int
    total: int
    number: int


# TS 23.040, 9.2.3.24: the information elements of concatenation, by the octets of their reference.
_CONCATENATION_ELEMENTS: Mapping[int, int] = {0x00: 1, 0x08: 2}


def read_udh(short_message: bytes) -> tuple[int, Concatenation | None]:
    """How many octets the header in front takes, and the concatenation that it tells of.

    For octets that came with the UDHI bit; takes whatever an SMSC sends. A header that claims more
    octets than there are takes all; an impossible concatenation is none (TS 23.040, 9.2.3.24.1).
    """
    if not short_message:
        return 0, None
    length = min(short_message[0] + 1, len(short_message))
    concatenation = None
    at = 1
    while at + 1 < length:
        element, size = short_message[at : at + 2]
        value = short_message[at + 2 : min(at + 2 + size, length)]
        reference_size = _CONCATENATION_ELEMENTS.get(element)
        if reference_size is not None and len(value) == size == reference_size + 2:
            total, number = value[reference_size:]
            if 1 <= number <= total:
                concatenation = Concatenation(int.from_bytes(value[:reference_size]), total, number)
        at += 2 + size
    return length, concatenation

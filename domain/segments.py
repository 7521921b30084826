"""Texts cut into parts, and what each part puts on the wire.

A part holds 140 octets (3GPP TS 23.040, 9.2.3.24): 160 septets or 70 UTF-16 units, less what the
header that ties the parts together takes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import regex

from domain.encoding import (
    ESCAPE,
    DefaultAlphabet,
    Encoding,
    encode_text,
    encode_ucs2,
    try_gsm7,
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
    """`parts` is a lower bound: a text that is too long is refused before it is cut."""

    def __init__(self, parts: int, limit: int) -> None:
        super().__init__(
            f"The text needs at least {parts} parts, and at most {limit} are allowed: shorten it."
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
    the whole GSM-7. The default `alphabet` Latin-1 lacks the Greek letters and the euro sign of
    GSM-7: a text with one of them is UCS-2 there.

    The length is checked before the text is encoded, and the units before it is cut, so that no
    text costs more than one of `max_parts` parts.

    Raises EmptyText, TooManyParts, and NotEncodable for half a surrogate pair.
    """
    if len(text) > longest_text(max_parts, smart=smart):
        raise TooManyParts(max_parts + 1, max_parts)
    replacements: tuple[Replacement, ...] = ()
    coded = try_gsm7(text, alphabet)
    if coded is None and smart:
        text, replacements = substitute(text, alphabet)
        if replacements:
            coded = try_gsm7(text, alphabet)
    if not text:
        raise EmptyText
    if coded is not None:
        encoding, total = Encoding.GSM7, len(coded)
    else:
        # Also refuses half a surrogate pair.
        encoding, total = Encoding.UCS2, len(encode_ucs2(text)) // 2
    limits = LIMITS[method, encoding]
    if total <= limits.single:
        return Segmented(encoding, method, alphabet, (text,), (total,), 1, replacements)
    fewest = -(-total // limits.part)
    if fewest > max_parts:
        raise TooManyParts(fewest, max_parts)
    cut = _cut_ucs2(text, limits.part) if coded is None else _cut_gsm7(text, coded, limits.part)
    parts, units = cut
    segments = len(parts)
    if segments > max_parts:
        raise TooManyParts(segments, max_parts)
    if method is PartMethod.PAYLOAD:
        parts, units = (text,), (total,)
    return Segmented(encoding, method, alphabet, parts, units, segments, replacements)


def segment_as_counted(
    text: str, *, method: PartMethod, alphabet: DefaultAlphabet = DefaultAlphabet.GSM7
) -> Segmented:
    """As `segment`, and with the same number of parts by all methods, as it was counted at accept.

    The longer header of UDH16 makes more parts of a text that just fits: such a text gets UDH8.
    """
    if method is not PartMethod.UDH16:
        return segment(text, method=method, alphabet=alphabet)
    short = segment(text, method=PartMethod.UDH8, alphabet=alphabet)
    try:
        return segment(text, method=method, alphabet=alphabet, max_parts=short.segments)
    except TooManyParts:
        return short


def longest_text(max_parts: int, *, smart: bool) -> int:
    """The most characters of a text that is looked at for so many parts.

    Every character takes a septet at least, but smart encoding leaves some characters out: it is
    given texts of up to twice that length.
    """
    return max_parts * _MOST_CHARACTERS * (2 if smart else 1)


_MOST_CHARACTERS = LIMITS[PartMethod.UDH8, Encoding.GSM7].single
"""In one part."""

_Parts: TypeAlias = tuple[tuple[str, ...], tuple[int, ...]]


def _cut_gsm7(text: str, coded: bytes, limit: int) -> _Parts:
    parts: list[str] = []
    units: list[int] = []
    begin = 0
    characters = 0
    while begin < len(coded):
        end = min(begin + limit, len(coded))
        # CR LF is the one grapheme of GSM-7 that has two characters.
        if coded[end - 1] == ESCAPE or coded[end - 1 : end + 1] == b"\r\n":
            end -= 1
        length = end - begin - coded.count(ESCAPE, begin, end)
        parts.append(text[characters : characters + length])
        units.append(end - begin)
        characters += length
        begin = end
    return tuple(parts), tuple(units)


def _cut_ucs2(text: str, limit: int) -> _Parts:
    if _LONE.fullmatch(text):
        alone = tuple(text[begin : begin + limit] for begin in range(0, len(text), limit))
        return alone, tuple(map(len, alone))
    parts: list[str] = []
    units: list[int] = []
    part: list[str] = []
    room = limit
    for piece, length in _pieces(text, limit):
        if length > room:
            parts.append("".join(part))
            units.append(limit - room)
            part.clear()
            room = limit
        part.append(piece)
        room -= length
    parts.append("".join(part))
    units.append(limit - room)
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
# Characters of one unit that are a grapheme each, beside any other of them: those of most texts in
# Cyrillic, Greek, Hebrew, Arabic, Chinese, Japanese and Korean, which need no search for graphemes.
_LONE = re.compile(
    "[\n -~\u00a0-\u00ac\u00ae-\u02ff\u0370-\u0377\u037a-\u037f\u0384-\u0482\u048a-\u0556\u05d0-\u05ea"
    "\u0620-\u064a\u0660-\u066f\u0671-\u06d5\u1e00-\u1eff\u2010-\u2027\u2030-\u205e\u20a0-\u20bf"
    "\u3000-\u3029\u3041-\u3096\u309b-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff9d]*"
)


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
    """The length of the header in front, in octets, and the concatenation that it contains.

    For octets that came with the UDHI bit; accepts whatever an SMSC sends. A header that claims more
    octets than there are takes all; an impossible concatenation is ignored (TS 23.040, 9.2.3.24.1).
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

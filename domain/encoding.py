"""How text becomes octets: the GSM 7-bit default alphabet, UCS-2, and what an SMSC makes of them.

The tables are those of 3GPP TS 23.038 (formerly GSM 03.38), 6.2.1 and 6.2.1.1; `data_coding`
is that of SMPP 3.4, 5.2.19.
"""

from collections.abc import Mapping
from enum import StrEnum


class Encoding(StrEnum):
    """What a message travels as on the radio; it decides how much fits into one part."""

    GSM7 = "gsm7"
    UCS2 = "ucs2"


class DefaultAlphabet(StrEnum):
    """What an SMSC takes octets under `data_coding` 0 to mean; each provider has its own."""

    GSM7 = "gsm7"
    """One septet in each octet: what most SMSCs expect."""

    GSM7_PACKED = "gsm7_packed"
    """Eight septets in seven octets, as on the radio."""

    LATIN1 = "latin1"
    """ISO 8859-1; the SMSC itself turns it into septets."""


class NotEncodable(ValueError):
    """A character that the encoding does not have.

    It says where, and not what: errors reach logs, and texts must not.
    """

    def __init__(self, position: int, encoding: str) -> None:
        super().__init__(
            f"The character at position {position} cannot be written in {encoding}: "
            "take it out, or send the text in another encoding."
        )
        self.position = position
        self.encoding = encoding


ESCAPE = 0x1B
_CR = b"\r"
_OCTET_BITS = 8
_SEPTET_BITS = 7
_SEPTET = 0x7F
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# TS 23.038, 6.2.1: position is code. The escape at 0x1B is no character, and shows as a space
# where a receiver does not know it.
_DEFAULT_TABLE = (
    "@£$¥èéùìòÇ\nØø\rÅå"
    "Δ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./"
    "0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNO"
    "PQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmno"
    "pqrstuvwxyzäöñüà"
)

# TS 23.038, 6.2.1.1: each costs two septets, the escape and its code.
_EXTENSION_TABLE: Mapping[int, str] = {
    0x0A: "\f",
    0x14: "^",
    0x28: "{",
    0x29: "}",
    0x2F: "\\",
    0x3C: "[",
    0x3D: "~",
    0x3E: "]",
    0x40: "|",
    0x65: "€",
}

_TO_SEPTETS: Mapping[str, bytes] = {
    **{c: bytes([code]) for code, c in enumerate(_DEFAULT_TABLE) if code != ESCAPE},
    **{c: bytes([ESCAPE, code]) for code, c in _EXTENSION_TABLE.items()},
}
# What takes one septet, from Latin-1, for `bytes.translate`; of the rest, an octet that is no septet.
_NO_SEPTET = b"\xff"
_FROM_LATIN1 = b"".join(
    _TO_SEPTETS[c] if len(_TO_SEPTETS.get(c, b"")) == 1 else _NO_SEPTET
    for c in map(chr, range(256))
)
_FROM_SEPTET = _DEFAULT_TABLE.replace("\x1b", " ")

GSM7_CHARACTERS: frozenset[str] = frozenset(_TO_SEPTETS)
"""Every character that GSM-7 can carry, those of the extension table included."""

# On the radio all three are GSM-7; but a bind that speaks Latin-1 cannot say € or Ω.
_REPERTOIRES: Mapping[DefaultAlphabet, frozenset[str]] = {
    DefaultAlphabet.GSM7: GSM7_CHARACTERS,
    DefaultAlphabet.GSM7_PACKED: GSM7_CHARACTERS,
    DefaultAlphabet.LATIN1: frozenset(c for c in GSM7_CHARACTERS if c <= "\xff"),
}


def is_gsm7(text: str, alphabet: DefaultAlphabet = DefaultAlphabet.GSM7) -> bool:
    """Whether the text can travel as GSM-7 through an SMSC with this default alphabet."""
    return _at_once(text) is not None or _REPERTOIRES[alphabet].issuperset(text)


def try_gsm7(text: str, alphabet: DefaultAlphabet = DefaultAlphabet.GSM7) -> bytes | None:
    """The septets of the text, one in each octet; None where `is_gsm7` is false."""
    octets = _at_once(text)
    if octets is None and _REPERTOIRES[alphabet].issuperset(text):
        octets = b"".join(map(_TO_SEPTETS.__getitem__, text))
    return octets


def encode_gsm7(text: str) -> bytes:
    """The text in septets, one in each octet, by TS 23.038, 6.2.1 and 6.2.1.1.

    Raises NotEncodable.
    """
    octets = _at_once(text)
    if octets is not None:
        return octets
    try:
        return b"".join(map(_TO_SEPTETS.__getitem__, text))
    except KeyError:
        position = next(i for i, c in enumerate(text) if c not in _TO_SEPTETS)
    # Raised out here, since the KeyError would carry the character along as context.
    raise NotEncodable(position, "GSM-7")


def _at_once(text: str) -> bytes | None:
    """The septets of a text of which each character is one, and in Latin-1, as most texts are."""
    try:
        octets = text.encode("latin-1").translate(_FROM_LATIN1)
    except UnicodeEncodeError:
        return None
    return None if _NO_SEPTET in octets else octets


def decode_gsm7(octets: bytes) -> str:
    """The text of septets, one in each octet; takes whatever an SMSC sends.

    An escape before a code that the extension table does not have shows the default table's
    character, and an escape before an escape or before nothing a space (TS 23.038, 6.2.1.1).
    An octet above 0x7F is no septet, and becomes U+FFFD.
    """
    characters: list[str] = []
    rest = iter(octets)
    for octet in rest:
        if octet == ESCAPE:
            octet = next(rest, ESCAPE)  # noqa: PLW2901  the escape is used up with what follows it
            extended = _EXTENSION_TABLE.get(octet)
            if extended is not None:
                characters.append(extended)
                continue
        characters.append(_FROM_SEPTET[octet] if octet <= _SEPTET else _REPLACEMENT)
    return "".join(characters)


def septets(text: str) -> int:
    """How many septets the text takes: one a character, two for those of the extension table.

    Raises NotEncodable.
    """
    return len(encode_gsm7(text))


def pack_septets(septets: bytes, fill_bits: int = 0) -> bytes:
    """Packs septets into octets, lowest bit first, by TS 23.038, 6.1.2.1.1.

    `fill_bits` (0 to 6) zero bits come first, so that the septets after a header stand on a
    septet boundary of the whole (TS 23.040, 9.2.3.24). Spare bits at the end are zero.
    """
    if septets and max(septets) > _SEPTET:
        raise ValueError("A septet has seven bits; one of these has eight.")
    packed = bytearray()
    waiting, bits = 0, fill_bits
    for septet in septets:
        waiting |= septet << bits
        bits += _SEPTET_BITS
        if bits >= _OCTET_BITS:
            packed.append(waiting & 0xFF)
            waiting >>= _OCTET_BITS
            bits -= _OCTET_BITS
    if bits:
        packed.append(waiting)
    return bytes(packed)


def unpack_septets(octets: bytes, fill_bits: int = 0, count: int | None = None) -> bytes:
    """The septets packed in these octets, one in each octet; undoes `pack_septets`.

    Seven spare bits look like one more septet, an @. `count` (TP-User-Data-Length without the
    header) resolves this; without it, all septets that fit are returned.
    """
    fits = max(len(octets) * _OCTET_BITS - fill_bits, 0) // _SEPTET_BITS
    waiting = int.from_bytes(octets, "little") >> fill_bits
    wanted = fits if count is None else min(count, fits)
    unpacked = bytearray()
    for _ in range(wanted):
        unpacked.append(waiting & _SEPTET)
        waiting >>= _SEPTET_BITS
    return bytes(unpacked)


def pack_padded(septets: bytes, fill_bits: int = 0) -> bytes:
    """Packs septets for a place that counts octets only, as SMPP's `sm_length` does.

    Where seven bits would be left over, which a receiver would read as an @, they hold a carriage
    return (TS 23.038, 6.1.2.3.1).
    """
    spare = -(fill_bits + len(septets) * _SEPTET_BITS) % _OCTET_BITS
    return pack_septets(septets + _CR if spare == _SEPTET_BITS else septets, fill_bits)


def unpack_padded(octets: bytes, fill_bits: int = 0) -> bytes:
    """The septets of `pack_padded`: a carriage return that fills the last octet is padding."""
    unpacked = unpack_septets(octets, fill_bits)
    full = (len(octets) * _OCTET_BITS - fill_bits) % _SEPTET_BITS == 0
    return unpacked[:-1] if full and unpacked.endswith(_CR) else unpacked


def encode_ucs2(text: str) -> bytes:
    """The text as UTF-16BE, which is what phones take UCS-2 to be.

    Raises NotEncodable for half a surrogate pair, which is no character.
    """
    try:
        return text.encode("utf-16-be")
    except UnicodeEncodeError as error:
        position = error.start
    # Raised out here, since the UnicodeEncodeError would carry the whole text along as context.
    raise NotEncodable(position, "UCS-2")


def decode_ucs2(octets: bytes) -> str:
    """The text of UTF-16BE octets; half a surrogate pair or half a unit becomes U+FFFD.

    Parts of one message are joined as octets first: other senders cut surrogate pairs.
    """
    return octets.decode("utf-16-be", errors="replace")


# SMPP 3.4, 5.2.19.
DATA_CODING: Mapping[Encoding, int] = {Encoding.GSM7: 0x00, Encoding.UCS2: 0x08}

# What octets under a `data_coding` are: an encoding, or the name of a single-byte codec.
# From 0x10 on they carry a message class, flash being class 0 (TS 23.038, 4). What is missing is
# binary, or nothing that phones write.
_WRITTEN_IN: Mapping[int, Encoding | str] = {
    0x00: Encoding.GSM7,
    0x01: "ascii",
    0x03: "latin-1",
    0x06: "iso8859-5",
    0x07: "iso8859-8",
    0x08: Encoding.UCS2,
    **dict.fromkeys(range(0x10, 0x14), Encoding.GSM7),
    **dict.fromkeys(range(0x18, 0x1C), Encoding.UCS2),
    **dict.fromkeys(range(0xF0, 0xF4), Encoding.GSM7),
}


def decode_text(
    octets: bytes,
    data_coding: int,
    alphabet: DefaultAlphabet = DefaultAlphabet.GSM7,
    header_length: int = 0,
) -> str | None:
    """The text of a `short_message` or `message_payload`; takes whatever an SMSC sends.

    `header_length` is that of the user data header in front, in octets, which is skipped.
    None if the octets are not text, or in a `data_coding` that is not known.
    """
    body = octets[header_length:]
    match _WRITTEN_IN.get(data_coding):
        case None:
            return None
        case Encoding.UCS2:
            return decode_ucs2(body)
        case Encoding.GSM7:
            return _decode_default(body, alphabet, header_length)
        case codec:
            return body.decode(codec, errors="replace")


def _decode_default(body: bytes, alphabet: DefaultAlphabet, header_length: int) -> str:
    match alphabet:
        case DefaultAlphabet.GSM7:
            return decode_gsm7(body)
        case DefaultAlphabet.GSM7_PACKED:
            return decode_gsm7(unpack_padded(body, fill_bits(header_length)))
        case DefaultAlphabet.LATIN1:
            return body.decode("latin-1")


def encode_text(
    text: str,
    encoding: Encoding,
    alphabet: DefaultAlphabet = DefaultAlphabet.GSM7,
    header_length: int = 0,
) -> bytes:
    """The octets of a text as they follow a user data header of so many octets (0 for none).

    Raises NotEncodable.
    """
    match encoding, alphabet:
        case Encoding.UCS2, _:
            return encode_ucs2(text)
        case Encoding.GSM7, DefaultAlphabet.GSM7_PACKED:
            return pack_padded(encode_gsm7(text), fill_bits(header_length))
        case Encoding.GSM7, DefaultAlphabet.LATIN1:
            return _encode_latin1(text)
        case _:
            return encode_gsm7(text)


def _encode_latin1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        position = error.start
    raise NotEncodable(position, "Latin-1")


def fill_bits(header_length: int) -> int:
    """The bits between a header of so many octets and the first packed septet.

    TS 23.040, 9.2.3.24: six octets leave one, seven leave none.
    """
    return -(header_length * _OCTET_BITS) % _SEPTET_BITS

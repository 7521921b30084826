# ruff: noqa: RUF001  characters that look like others are what is tested here
import codecs
import sys

import gsm0338
import gsmcodecs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.encoding import (
    GSM7_CHARACTERS,
    DefaultAlphabet,
    Encoding,
    NotEncodable,
    decode_gsm7,
    decode_text,
    decode_ucs2,
    encode_gsm7,
    encode_text,
    encode_ucs2,
    fill_bits,
    is_gsm7,
    pack_padded,
    pack_septets,
    septets,
    unpack_padded,
    unpack_septets,
)

GSM7_TEXT = st.text(st.sampled_from(sorted(GSM7_CHARACTERS)))
SEPTETS = st.binary().map(lambda octets: bytes(octet & 0x7F for octet in octets))
FILL_BITS = st.integers(0, 6)
HEADER_LENGTHS = st.sampled_from([0, 6, 7])
ORACLES = [gsm0338.Codec(), gsmcodecs.Codec()]


def _every_character():
    return (chr(code) for code in range(sys.maxunicode + 1) if code < 0x10000 or code % 257 == 0)


@pytest.mark.parametrize("oracle", ORACLES, ids=["gsm0338", "gsmcodecs"])
def test_the_tables_hold_exactly_the_characters_of_the_specification(oracle):
    def oracle_encodes(character):
        try:
            return oracle.encode(character)[0]
        except UnicodeEncodeError:
            return None

    theirs = {c: octets for c in _every_character() if (octets := oracle_encodes(c)) is not None}
    theirs.pop("\x1b", None)  # the escape itself, which one of them takes for a character
    assert theirs == {c: encode_gsm7(c) for c in GSM7_CHARACTERS}


@pytest.mark.parametrize("oracle", ORACLES, ids=["gsm0338", "gsmcodecs"])
@given(text=GSM7_TEXT)
def test_gsm7_is_written_and_read_as_others_do(oracle, text):
    assert encode_gsm7(text) == oracle.encode(text)[0]
    assert decode_gsm7(encode_gsm7(text)) == oracle.decode(encode_gsm7(text))[0] == text


@given(GSM7_TEXT)
def test_septets_are_one_a_character_and_two_for_those_of_the_extension_table(text):
    assert septets(text) == len(text) + sum(text.count(c) for c in "\f^{}\\[~]|€")


@pytest.mark.parametrize("character", ["`", "ç", "\t", "\x1b", "\x00", "ł", "😀", "\ud800"])
def test_what_gsm7_lacks_is_not_gsm7(character):
    assert not is_gsm7(f"a{character}b")
    with pytest.raises(NotEncodable) as refusal:
        encode_gsm7(f"a{character}b")
    assert refusal.value.position == 1


def test_the_section_sign_and_the_form_feed_are_gsm7():
    assert encode_gsm7("§\f") == b"\x5f\x1b\x0a"


def test_greek_and_euro_are_gsm7_but_not_through_a_latin1_smsc():
    assert is_gsm7("Ω€", DefaultAlphabet.GSM7)
    assert is_gsm7("Ω€", DefaultAlphabet.GSM7_PACKED)
    assert not is_gsm7("Ω", DefaultAlphabet.LATIN1)
    assert not is_gsm7("€", DefaultAlphabet.LATIN1)
    assert is_gsm7("Ærø [£]", DefaultAlphabet.LATIN1)


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"a\x1b\x1bb", "a b"),  # escape to a further table, which is not known
        (b"a\x1b", "a "),  # an escape before nothing
        (b"\x1bA", "A"),  # the extension table has nothing there
        (b"\x1b\x00", "@"),
        (b"a\x80\xffb", "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_septets_that_make_no_sense_are_shown_as_phones_show_them(octets, text):
    assert decode_gsm7(octets) == text


def test_septets_are_packed_as_in_the_well_known_example():
    assert pack_septets(encode_gsm7("hellohello")).hex() == "e8329bfd4697d9ec37"


@given(SEPTETS, FILL_BITS)
def test_packed_septets_are_unpacked_again(unpacked, fill):
    packed = pack_septets(unpacked, fill)
    assert len(packed) == (fill + 7 * len(unpacked) + 7) // 8
    assert unpack_septets(packed, fill, count=len(unpacked)) == unpacked


@given(SEPTETS.filter(lambda unpacked: not unpacked.endswith(b"\r")), FILL_BITS)
@example(b"1234567", 0)
@example(b"1234567@", 0)
def test_padded_septets_need_no_count_to_be_unpacked(unpacked, fill):
    packed = pack_padded(unpacked, fill)
    assert len(packed) == len(pack_septets(unpacked, fill))
    assert unpack_padded(packed, fill) == unpacked


def test_seven_spare_bits_are_filled_with_a_carriage_return_and_not_with_an_at_sign():
    assert unpack_septets(pack_padded(b"1234567")) == b"1234567\r"
    assert decode_gsm7(unpack_septets(pack_septets(b"1234567"))) == "1234567@"


def test_a_carriage_return_that_fills_no_octet_is_text():
    assert unpack_padded(pack_padded(b"123\r")) == b"123\r"


def test_a_septet_of_eight_bits_is_refused():
    with pytest.raises(ValueError, match="seven bits"):
        pack_septets(b"\x80")


@pytest.mark.parametrize(("header_length", "bits"), [(0, 0), (6, 1), (7, 0), (5, 2)])
def test_septets_behind_a_header_begin_on_a_septet_boundary(header_length, bits):
    assert fill_bits(header_length) == bits
    assert (header_length * 8 + bits) % 7 == 0


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_ucs2_round_trips_with_two_octets_a_unit(text):
    assert decode_ucs2(encode_ucs2(text)) == text
    assert encode_ucs2(text) == codecs.encode(text, "utf-16-be")


def test_half_a_surrogate_pair_is_refused_when_sent():
    with pytest.raises(NotEncodable) as refusal:
        encode_ucs2("ab\ud83d")
    assert refusal.value.position == 2


@pytest.mark.parametrize("octets", [b"\x00a\xd8\x3d", b"\x00a\xde\x00", b"\x00a\x00"])
def test_half_a_surrogate_pair_or_half_a_unit_is_marked_when_received(octets):
    assert decode_ucs2(octets) == "a\N{REPLACEMENT CHARACTER}"


def test_a_refusal_carries_the_text_nowhere():
    for encode, text in ((encode_gsm7, "secret ł"), (encode_ucs2, "secret \ud800")):
        with pytest.raises(NotEncodable) as refusal:
            encode(text)
        assert "secret" not in repr(refusal.value) + str(refusal.value.__dict__)
        assert refusal.value.__context__ is None
    with pytest.raises(NotEncodable) as refusal:
        encode_text("secret €", Encoding.GSM7, DefaultAlphabet.LATIN1)
    assert refusal.value.__context__ is None


@given(
    text=GSM7_TEXT.filter(lambda text: not text.endswith("\r")),
    alphabet=st.sampled_from(DefaultAlphabet),
    header_length=HEADER_LENGTHS,
)
def test_what_is_written_in_an_smscs_alphabet_reads_the_same_from_it(text, alphabet, header_length):
    if not is_gsm7(text, alphabet):
        with pytest.raises(NotEncodable):
            encode_text(text, Encoding.GSM7, alphabet, header_length)
        return
    octets = encode_text(text, Encoding.GSM7, alphabet, header_length)
    assert decode_text(bytes(header_length) + octets, 0, alphabet, header_length) == text


@pytest.mark.parametrize(
    ("data_coding", "octets", "text"),
    [
        (0x00, b"\x00", "@"),
        (0x01, b"@`", "@`"),
        (0x03, b"\xe7", "ç"),
        (0x06, b"\xb0\xd1", "Аб"),
        (0x07, b"\xe9", "י"),
        (0x08, b"\x04\x10", "А"),
        (0x10, b"\x00", "@"),  # flash
        (0x18, b"\x04\x10", "А"),  # flash
        (0xF1, b"\x00", "@"),
        (0x02, b"\x00", None),
        (0x04, b"\x00", None),
        (0x14, b"\x00", None),
        (0xF5, b"\x00", None),
        (0x0D, b"\x00", None),
    ],
)
def test_received_octets_are_read_by_their_data_coding(data_coding, octets, text):
    assert decode_text(octets, data_coding) == text


@given(
    st.binary(max_size=300),
    st.integers(0, 255),
    st.sampled_from(DefaultAlphabet),
    st.integers(0, 300),
)
def test_no_octets_that_are_received_can_break_the_reader(
    octets, data_coding, alphabet, header_length
):
    decoded = decode_text(octets, data_coding, alphabet, header_length)
    assert decoded is None or decoded.encode() is not None

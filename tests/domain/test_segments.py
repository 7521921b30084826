# ruff: noqa: RUF001  characters that look like others are what is tested here
import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

import domain.encoding
import domain.segments
import domain.substitutions
import domain.templates
from domain.encoding import (
    GSM7_CHARACTERS,
    DefaultAlphabet,
    Encoding,
    NotEncodable,
    decode_text,
    is_gsm7,
    septets,
)
from domain.segments import (
    _LONE,
    LIMITS,
    Concatenation,
    EmptyText,
    PartMethod,
    TooManyParts,
    longest_text,
    read_udh,
    sar_tlvs,
    segment,
    short_message_octets,
    udh,
    wire_parts,
)

GSM7, UCS2 = Encoding.GSM7, Encoding.UCS2
FAMILY = "👨‍👩‍👧‍👦"
WAVE = "👋🏽"
FLAG = "🇬🇧"
METHODS = st.sampled_from(PartMethod)
ALPHABETS = st.sampled_from(DefaultAlphabet)
GSM7_TEXT = st.lists(
    st.sampled_from([*sorted(GSM7_CHARACTERS), "\r\n", "word " * 9, "x" * 150, "€" * 75, "{}" * 9])
).map("".join)
UCS2_TEXT = st.lists(
    st.one_of(
        st.sampled_from([FAMILY, WAVE, FLAG, "e\u0301", "क्षि", "\r\n", "слово " * 5, "ł" * 66]),
        st.characters(exclude_categories=["Cs"]),
    ),
).map(lambda pieces: "".join(["ł", *pieces]))
TEXT = st.one_of(GSM7_TEXT, UCS2_TEXT).filter(bool)


def units(text, encoding):
    return septets(text) if encoding is GSM7 else len(text.encode("utf-16-be")) // 2


def test_the_limits_are_what_140_octets_leave_beside_the_header():
    for (method, encoding), limits in LIMITS.items():
        header = len(udh(method, 1, 2, 1)) or 6  # an SMSC that writes it writes the short one
        bits = 7 if encoding is GSM7 else 16
        assert limits.single == 140 * 8 // bits
        assert limits.part == (140 - header) * 8 // bits


@pytest.mark.parametrize(
    ("text", "method", "expected"),
    [
        ("a" * 160, PartMethod.UDH8, (160,)),
        ("a" * 161, PartMethod.UDH8, (153, 8)),
        ("a" * 161, PartMethod.UDH16, (152, 9)),
        ("a" * 161, PartMethod.SAR, (153, 8)),
        ("a" * 161, PartMethod.PAYLOAD, (161,)),
        ("ł" * 70, PartMethod.UDH8, (70,)),
        ("ł" * 71, PartMethod.UDH8, (67, 4)),
        ("ł" * 71, PartMethod.UDH16, (66, 5)),
        ("ł" * 71, PartMethod.SAR, (67, 4)),
        ("€" * 80, PartMethod.UDH8, (160,)),
        ("€" * 81, PartMethod.UDH8, (152, 10)),  # 153 would cut the escape from its character
        ("😀" * 35, PartMethod.UDH8, (70,)),
        ("😀" * 36, PartMethod.UDH8, (66, 6)),  # 67 would cut a surrogate pair
        (FAMILY * 7, PartMethod.UDH8, (66, 11)),
        ("ł" * 66 + FLAG + "ł", PartMethod.UDH8, (66, 5)),
        ("ł" * 66 + "e\u0301" + "łłł", PartMethod.UDH8, (66, 5)),
        ("łł" + "ł" + "\u0301" * 66 + "łł", PartMethod.UDH8, (2, 67, 2)),  # fills a part alone
        ("łł" + "ł" + "\u0301" * 67 + "ł", PartMethod.UDH8, (67, 4)),  # no part holds it
        ("a" * 152 + "\r\n" + "a" * 7, PartMethod.UDH8, (152, 9)),
        ("a" * 151 + "\r\n" + "a" * 8, PartMethod.UDH8, (153, 8)),
        ("a" * 152 + "\f" + "a" * 7, PartMethod.UDH8, (152, 9)),
    ],
)
def test_texts_are_cut_at_these_places(text, method, expected):
    message = segment(text, method=method)
    assert message.units == expected
    assert message.text == text


@given(TEXT, METHODS, ALPHABETS)
def test_the_parts_make_up_the_text_and_each_is_within_its_limit(text, method, alphabet):
    message = segment(text, method=method, alphabet=alphabet)
    assert message.encoding is (GSM7 if is_gsm7(text, alphabet) else UCS2)
    assert message.text == "".join(message.parts) == text
    assert message.units == tuple(units(part, message.encoding) for part in message.parts)
    assert all(message.parts)
    if method is not PartMethod.PAYLOAD:
        limits = LIMITS[method, message.encoding]
        limit = limits.single if len(message.parts) == 1 else limits.part
        assert max(message.units) <= limit
        assert message.segments == len(message.parts)


@given(TEXT, st.sampled_from([PartMethod.UDH8, PartMethod.UDH16, PartMethod.SAR]))
@example("\r\n" * 100, PartMethod.UDH8)
@example("ł" + "\u0301" * 200, PartMethod.UDH8)
@example("łł" + "😀" + "\N{EMOJI MODIFIER FITZPATRICK TYPE-4}" * 100, PartMethod.UDH8)
def test_no_grapheme_is_cut_but_one_longer_than_a_part_and_no_part_has_room_for_more(text, method):
    message = segment(text, method=method)
    limits = LIMITS[method, message.encoding]
    if units(text, message.encoding) <= limits.single:
        assert message.parts == (text,)
        return
    unbreakable = []
    for grapheme in regex.findall(r"\X", text):
        whole = units(grapheme, message.encoding) <= limits.part
        unbreakable.extend([grapheme] if whole else grapheme)
    pieces = iter(unbreakable)
    following = []
    for part in message.parts:
        taken = [next(pieces)]
        following.append(taken[0])
        while len("".join(taken)) < len(part):
            taken.append(next(pieces))
        assert "".join(taken) == part
    # Where the next piece never fits, fewer parts are not to be had.
    for used, piece in zip(message.units, following[1:], strict=False):
        assert used + units(piece, message.encoding) > limits.part


def test_a_payload_is_one_text_for_the_smsc_to_cut_and_is_charged_by_what_it_makes_of_it():
    message = segment("a" * 400, method=PartMethod.PAYLOAD)
    assert message.parts == ("a" * 400,)
    assert message.units == (400,)
    assert message.segments == 3


def test_an_empty_text_is_refused_also_when_smart_encoding_leaves_nothing():
    with pytest.raises(EmptyText, match="empty"):
        segment("")
    with pytest.raises(EmptyText):
        segment("\u200b\ufeff", smart=True)


@pytest.mark.parametrize("method", PartMethod)
def test_a_text_of_too_many_parts_is_refused_with_both_numbers(method):
    assert segment("a" * 304, method=method, max_parts=2).segments == 2
    with pytest.raises(TooManyParts, match="needs at least 3 parts, and at most 2") as refusal:
        segment("a" * 307, method=method, max_parts=2)
    assert (refusal.value.parts, refusal.value.limit) == (3, 2)


def test_no_method_ties_more_than_255_parts():
    assert segment("a" * 153 * 255).segments == 255
    with pytest.raises(TooManyParts):
        segment("a" * (153 * 255 + 1))


@pytest.mark.parametrize("text", ["ab\ud83d", "ł" * 100 + "\ude00" + "ł" * 100])
def test_half_a_surrogate_pair_is_refused(text):
    with pytest.raises(NotEncodable):
        segment(text)


def test_smart_encoding_saves_parts_and_returns_its_replacements():
    text = "It’s " + "a" * 140
    assert segment(text).segments == 3
    message = segment(text, smart=True)
    assert (message.encoding, message.segments) == (GSM7, 1)
    assert message.text == "It's " + "a" * 140
    assert [(r.character, r.replacement, r.count) for r in message.replacements] == [("’", "'", 1)]


def test_a_euro_through_a_latin1_smsc_makes_the_message_ucs2():
    assert segment("5 €").encoding is GSM7
    assert segment("5 €", alphabet=DefaultAlphabet.LATIN1).encoding is UCS2


def test_headers_are_those_of_the_specification():
    assert udh(PartMethod.UDH8, 0x1234, 3, 2) == bytes.fromhex("050003340302")
    assert udh(PartMethod.UDH16, 0x1234, 3, 2) == bytes.fromhex("06080412340302")
    assert udh(PartMethod.SAR, 0x1234, 3, 2) == b""
    assert udh(PartMethod.PAYLOAD, 0x1234, 3, 2) == b""
    assert sar_tlvs(0x1234, 3, 2) == ((0x020C, b"\x12\x34"), (0x020E, b"\x03"), (0x020F, b"\x02"))


def test_packed_septets_follow_the_header_after_one_fill_bit():
    # As in the part of a long message that begins with these letters: 1 fill bit, then packed.
    header = udh(PartMethod.UDH8, 1, 2, 1)
    octets = short_message_octets("A", GSM7, DefaultAlphabet.GSM7_PACKED, header)
    assert octets == header + bytes([0x41 << 1])
    full = short_message_octets("A" * 153, GSM7, DefaultAlphabet.GSM7_PACKED, header)
    assert len(full) == 140


@given(TEXT.filter(lambda text: "\r" not in text), METHODS, ALPHABETS, st.integers(0, 0xFFFF))
def test_what_is_on_the_wire_reads_as_the_text(text, method, alphabet, reference):
    message = segment(text, method=method, alphabet=alphabet)
    wired = wire_parts(message, reference)
    assert len(wired) == len(message.parts)
    data_coding = 0 if message.encoding is GSM7 else 8
    read = []
    for number, part in enumerate(wired, start=1):
        tlvs = dict(part.tlvs)
        octets = tlvs.get(0x0424, part.short_message)
        length, concatenation = read_udh(octets) if part.has_header else (0, None)
        read.append(decode_text(octets, data_coding, alphabet, length))
        assert len(part.short_message) <= 254
        if alphabet is DefaultAlphabet.GSM7_PACKED or message.encoding is UCS2:
            assert len(part.short_message) <= 140
        if len(wired) == 1:
            assert not part.has_header
            assert tlvs.keys() <= {0x0424}
        elif method is PartMethod.SAR:
            assert part.tlvs == sar_tlvs(reference, len(wired), number)
        else:
            sent = reference & 0xFF if method is PartMethod.UDH8 else reference
            assert concatenation == Concatenation(sent, len(wired), number)
    assert "".join(read) == text


def test_a_short_payload_goes_the_plain_way_and_a_long_one_leaves_the_short_message_empty():
    (short,) = wire_parts(segment("hi", method=PartMethod.PAYLOAD), 1)
    assert (short.short_message, short.tlvs) == (b"hi", ())
    (long,) = wire_parts(segment("a" * 161, method=PartMethod.PAYLOAD), 1)
    assert (long.short_message, long.tlvs) == (b"", ((0x0424, b"a" * 161),))


@pytest.mark.parametrize(
    ("octets", "length", "concatenation"),
    [
        ("050003aa0201", 6, Concatenation(0xAA, 2, 1)),
        ("060804aabb0302", 7, Concatenation(0xAABB, 3, 2)),
        ("0b0504158a158a0003aa0201", 12, Concatenation(0xAA, 2, 1)),  # behind port addresses
        ("0003", 1, None),
        ("", 0, None),
        ("050003aa0200", 6, None),  # number 0
        ("050003aa0203", 6, None),  # number above the total
        ("ff0003aa0201", 6, Concatenation(0xAA, 2, 1)),  # claims more than there is
        ("050003aa02", 5, None),  # cut off
        ("05000aaa0201", 6, None),  # an element longer than its header
    ],
)
def test_received_headers_are_read_as_far_as_they_make_sense(octets, length, concatenation):
    assert read_udh(bytes.fromhex(octets)) == (length, concatenation)


@given(st.binary(max_size=20))
def test_no_header_that_is_received_can_break_the_reader(octets):
    length, _ = read_udh(octets)
    assert 0 <= length <= len(octets)


# Bounds


@pytest.mark.parametrize("smart", [False, True])
def test_a_text_that_is_too_long_is_refused_before_it_is_encoded(monkeypatch, smart):
    def fail(*_):
        raise AssertionError("the text was encoded")

    monkeypatch.setattr("domain.segments.try_gsm7", fail)
    for character in ("a", "😀", "\u200b", "’"):
        with pytest.raises(TooManyParts, match="at most 3"):
            segment(character * (longest_text(3, smart=smart) + 1), smart=smart, max_parts=3)


@pytest.mark.parametrize("text", ["a" * 153 * 3 + "a", "😀" * 101, "\u0301" * 202, "€" * 240])
def test_a_text_of_too_many_units_is_refused_before_it_is_cut(monkeypatch, text):
    def fail(*_):
        raise AssertionError("the text was cut")

    monkeypatch.setattr("domain.segments._cut_ucs2", fail)
    monkeypatch.setattr("domain.segments._cut_gsm7", fail)
    with pytest.raises(TooManyParts, match="at least 4 parts, and at most 3"):
        segment(text, max_parts=3)


@given(text=TEXT, limit=st.integers(1, 5), smart=st.booleans())
def test_what_is_refused_early_would_need_too_many_parts(text, limit, smart):
    whole = segment(text, smart=smart)
    if whole.segments <= limit:
        assert segment(text, smart=smart, max_parts=limit) == whole
        return
    with pytest.raises(TooManyParts) as refusal:
        segment(text, smart=smart, max_parts=limit)
    assert limit < refusal.value.parts <= whole.segments


ALONE = [chr(c) for c in range(0x10000) if _LONE.fullmatch(chr(c))]


def test_characters_that_stand_alone_are_graphemes():
    assert regex.findall(r"\X", "".join(ALONE)) == ALONE


@given(data=st.data(), method=METHODS)
def test_characters_that_stand_alone_are_cut_as_graphemes_are(data, method):
    text = "ł" + "".join(data.draw(st.lists(st.sampled_from(ALONE), max_size=300)))
    assert regex.findall(r"\X", text) == list(text)
    cut = segment(text, method=method)
    assert cut.text == text
    assert cut.units == tuple(map(len, cut.parts))


def test_nothing_of_a_text_is_kept_once_it_was_encoded():
    """Nobody's text stays in memory: no function that takes texts has a cache."""
    for module in (domain.encoding, domain.segments, domain.substitutions, domain.templates):
        kept = [name for name, each in vars(module).items() if hasattr(each, "cache_info")]
        assert not kept, module.__name__

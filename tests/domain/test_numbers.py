import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.numbering import split
from domain.numbers import (
    _ADVICE,
    _KINDS,
    InvalidNumber,
    NumberKind,
    NumberProblem,
    parse_number,
)


@pytest.mark.parametrize(
    "written",
    [
        "+447700900123",
        "+44 7700 900123",
        "+44 (0)7700 900123",
        "+44-7700-900-123",
        "+44.7700.900123",
        " +44\u00a07700\u202f900123\n",
        "\u202a+447700900123\u202c",
    ],
)
def test_a_number_is_read_however_people_space_it(written):
    assert parse_number(written).e164 == "+447700900123"


@pytest.mark.parametrize("written", ["+44 0 7700 900123", "+44 (0)07700 900123"])
def test_trunk_prefixes_are_taken_off_however_many(written):
    assert parse_number(written).e164 == "+447700900123"


@pytest.mark.parametrize(
    ("written", "country", "calling_code"),
    [
        ("+447700900123", "GB", 44),
        ("+12015550100", "US", 1),
        ("+33639980001", "FR", 33),
        ("+14165550100", "CA", 1),  # one calling code, many countries
        ("+18765550100", "JM", 1),
        ("+18760000000", "JM", 1),  # in no assigned range, but by its area code
        ("+88213300000", "ZZ", 882),  # satellites belong to no country
        ("+80012345678", "ZZ", 800),
    ],
)
def test_a_number_has_its_country(written, country, calling_code):
    number = parse_number(written)
    assert (number.country, number.calling_code) == (country, calling_code)


def test_an_italian_number_keeps_its_leading_zero():
    assert parse_number("+39 06 1234 5678").e164 == "+390612345678"


@pytest.mark.parametrize("region", ["DE", "IN", "BR", "ZA", "JP"])
def test_example_numbers_of_a_country_are_assigned_and_of_their_kind(region):
    for phone_type, kind in _KINDS.items():
        example = phonenumbers.example_number_for_type(region, phone_type)
        if example is None:
            continue
        number = parse_number(phonenumbers.format_number(example, 0))
        assert number.country == region
        assert kind in {number.kind, NumberKind.FIXED_LINE_OR_MOBILE, NumberKind.UNKNOWN} or (
            number.kind is NumberKind.FIXED_LINE_OR_MOBILE
        )
        assert number.assigned
        assert number.warning is None


def test_every_kind_of_phonenumbers_is_known():
    assert set(_KINDS) == set(phonenumbers.PhoneNumberType.values())
    assert set(_KINDS.values()) == set(NumberKind)


@given(
    st.one_of(
        st.integers(447700900000, 447700900999),
        st.integers(12015550100, 12015550199),
        st.integers(33639980000, 33639989999),
    )
)
def test_numbers_documented_for_tests_pass_without_a_warning(digits):
    number = parse_number(f"+{digits}")
    assert number.e164 == f"+{digits}"
    assert number.is_test
    assert number.warning is None


@pytest.mark.parametrize("neighbour", ["+447700899999", "+447700901000", "+12015550200"])
def test_the_neighbours_of_test_numbers_are_none(neighbour):
    assert not parse_number(neighbour).is_test


def test_a_possible_number_in_no_assigned_range_passes_with_a_warning():
    number = parse_number("+19995550100")
    assert not number.assigned
    assert number.country == "US"
    assert "check its digits" in (number.warning or "")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", NumberProblem.EMPTY),
        ("  - ", NumberProblem.EMPTY),
        ("07700900123", NumberProblem.NOT_INTERNATIONAL),
        ("00447700900123", NumberProblem.NOT_INTERNATIONAL),
        ("447700900123", NumberProblem.NOT_INTERNATIONAL),
        ("+", NumberProblem.NOT_A_NUMBER),
        ("++447700900123", NumberProblem.NOT_A_NUMBER),
        ("+1-800-FLOWERS", NumberProblem.NOT_A_NUMBER),
        ("+447700900123 x12", NumberProblem.NOT_A_NUMBER),
        ("+447700900123;ext=12", NumberProblem.NOT_A_NUMBER),
        ("tel:+447700900123", NumberProblem.NOT_A_NUMBER),
        ("+447700900123\x00", NumberProblem.NOT_A_NUMBER),
        ("+447700900123,+447700900124", NumberProblem.NOT_A_NUMBER),
        ("+٤٤٧٧٠٠٩٠٠١٢٣", NumberProblem.NOT_A_NUMBER),
        ("ACME", NumberProblem.NOT_A_NUMBER),
        ("+999123456789", NumberProblem.UNKNOWN_CALLING_CODE),
        ("+0447700900123", NumberProblem.UNKNOWN_CALLING_CODE),
        ("+1", NumberProblem.TOO_SHORT),
        ("+4477", NumberProblem.TOO_SHORT),
        ("+15550100", NumberProblem.TOO_SHORT),  # possible next door only
        ("+447700900123447700900123", NumberProblem.TOO_LONG),
        ("+" + "4" * 5000, NumberProblem.TOO_LONG),
        ("+80012345", NumberProblem.TOO_SHORT),
        ("+37060112345678", NumberProblem.TOO_LONG),
    ],
)
def test_what_is_no_possible_number_is_refused_with_its_problem(written, problem):
    with pytest.raises(InvalidNumber) as refusal:
        parse_number(written)
    assert refusal.value.problem is problem


@given(st.text(max_size=40) | st.from_regex(r"\+[0-9 ]{3,18}", fullmatch=True))
def test_any_text_is_a_number_that_reads_the_same_again_or_a_refusal_without_the_text(text):
    refusal = None
    try:
        number = parse_number(text)
    except InvalidNumber as error:
        refusal = error
    if refusal is not None:
        assert str(refusal) == _ADVICE[refusal.problem]
        assert refusal.__context__ is None
        return
    assert number.e164[0] == "+"
    assert number.e164[1:].isdigit()
    assert 3 <= len(number.e164.removeprefix("+")) <= 15
    assert len(number.country) == 2
    parsed = phonenumbers.parse(number.e164, None)
    assert phonenumbers.is_possible_number(parsed)
    assert phonenumbers.is_valid_number(parsed) is number.assigned
    assert parse_number(number.e164) == number


def test_every_problem_has_its_advice():
    assert set(_ADVICE) == set(NumberProblem)


@given(st.data())
def test_country_and_kind_are_those_of_phonenumbers(data):
    """The plans are made ready by us, from what `phonenumbers` knows; its own answers are slower."""
    region = data.draw(st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)))
    phone_type = data.draw(st.sampled_from(sorted(_KINDS)))
    example = phonenumbers.example_number_for_type(region, phone_type)
    code = phonenumbers.country_code_for_region(region)
    written = f"+{code}" + data.draw(st.from_regex(r"[0-9]{4,12}", fullmatch=True))
    if example is not None and data.draw(st.booleans()):
        known = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
        written = known[:-2] + data.draw(st.from_regex(r"[0-9]{2}", fullmatch=True))
    try:
        number = parse_number(written)
    except InvalidNumber:
        return  # which numbers are refused is looked at above
    parsed = phonenumbers.parse(number.e164, None)
    assert number.kind is _KINDS[phonenumbers.number_type(parsed)]
    assert number.country == (
        phonenumbers.region_code_for_number(parsed)
        or phonenumbers.region_code_for_country_code(number.calling_code)
    ).replace("001", "ZZ")


def test_every_country_has_its_example_number_by_our_plans_too():
    for region in phonenumbers.SUPPORTED_REGIONS:
        for phone_type, kind in _KINDS.items():
            example = phonenumbers.example_number_for_type(region, phone_type)
            if example is None or not _reachable_from_abroad(example):
                continue
            number = parse_number(
                phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
            )
            assert number.kind is _KINDS[phonenumbers.number_type(example)], (region, kind)
            assert number.country == phonenumbers.region_code_for_number(example)


def _reachable_from_abroad(number):
    possible = phonenumbers.is_possible_number_with_reason(number)
    return possible == phonenumbers.ValidationResult.IS_POSSIBLE


@given(st.data())
def test_digits_are_split_as_phonenumbers_parses_them(data):
    code = data.draw(st.sampled_from(sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)))
    rest = data.draw(st.text(st.sampled_from("0123456789"), max_size=18))
    digits = data.draw(st.sampled_from([f"{code}{rest}", rest or "0"]))
    found = split(digits)
    if found is not None:
        parsed = phonenumbers.parse(f"+{digits}", None)
        assert found == (parsed.country_code, phonenumbers.national_significant_number(parsed))


def test_most_numbers_are_split_without_a_look_into_phonenumbers():
    numbers = [
        phonenumbers.format_number(
            phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE),
            phonenumbers.PhoneNumberFormat.E164,
        )
        for region in ("GB", "FR", "DE", "IN", "BR", "NG", "ID", "PH", "ES", "IT")
    ]
    assert [number for number in numbers if split(number[1:]) is None] == []

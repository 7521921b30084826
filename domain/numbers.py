"""Phone numbers in E.164, the one form that the gateway keeps and sends."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import cast

import phonenumbers
from phonenumbers import PhoneNumberType, ValidationResult

from domain.numbering import numbering_plan, split
from domain.values import value

UNKNOWN_COUNTRY = "ZZ"
"""The country of numbers that belong to none: satellites, international freephone."""


class NumberKind(StrEnum):
    MOBILE = "mobile"
    FIXED_LINE = "fixed_line"
    FIXED_LINE_OR_MOBILE = "fixed_line_or_mobile"
    TOLL_FREE = "toll_free"
    PREMIUM_RATE = "premium_rate"
    SHARED_COST = "shared_cost"
    VOIP = "voip"
    PERSONAL = "personal"
    PAGER = "pager"
    UAN = "uan"
    VOICEMAIL = "voicemail"
    UNKNOWN = "unknown"


_KINDS: Mapping[int, NumberKind] = {
    PhoneNumberType.MOBILE: NumberKind.MOBILE,
    PhoneNumberType.FIXED_LINE: NumberKind.FIXED_LINE,
    PhoneNumberType.FIXED_LINE_OR_MOBILE: NumberKind.FIXED_LINE_OR_MOBILE,
    PhoneNumberType.TOLL_FREE: NumberKind.TOLL_FREE,
    PhoneNumberType.PREMIUM_RATE: NumberKind.PREMIUM_RATE,
    PhoneNumberType.SHARED_COST: NumberKind.SHARED_COST,
    PhoneNumberType.VOIP: NumberKind.VOIP,
    PhoneNumberType.PERSONAL_NUMBER: NumberKind.PERSONAL,
    PhoneNumberType.PAGER: NumberKind.PAGER,
    PhoneNumberType.UAN: NumberKind.UAN,
    PhoneNumberType.VOICEMAIL: NumberKind.VOICEMAIL,
    PhoneNumberType.UNKNOWN: NumberKind.UNKNOWN,
}


class NumberProblem(StrEnum):
    EMPTY = "empty"
    NOT_INTERNATIONAL = "not_international"
    NOT_A_NUMBER = "not_a_number"
    UNKNOWN_CALLING_CODE = "unknown_calling_code"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    WRONG_LENGTH = "wrong_length"


_ADVICE: Mapping[NumberProblem, str] = {
    NumberProblem.EMPTY: (
        "The number is missing: give it in international form, such as +447700900123."
    ),
    NumberProblem.NOT_INTERNATIONAL: (
        "The number does not begin with +: give it in international form, with + and the country "
        "calling code, such as +447700900123."
    ),
    NumberProblem.NOT_A_NUMBER: (
        "The number holds something else than digits: give + and digits, such as +447700900123, "
        "without extension."
    ),
    NumberProblem.UNKNOWN_CALLING_CODE: (
        "No country has the calling code that the number begins with: check the digits after +."
    ),
    NumberProblem.TOO_SHORT: (
        "The number has too few digits for its country: check that none is missing."
    ),
    NumberProblem.TOO_LONG: (
        "The number has too many digits for its country: check that it is one number, and no more."
    ),
    NumberProblem.WRONG_LENGTH: (
        "No number of its country has as many digits: check that none is missing or too many."
    ),
}


class InvalidNumber(ValueError):
    """Text that is no possible number. The sentence says what to do, and never the number."""

    def __init__(self, problem: NumberProblem) -> None:
        super().__init__(_ADVICE[problem])
        self.problem = problem


@value
class Number:
    """A possible number."""

    e164: str
    """With its +, such as +447700900123."""
    country: str
    """ISO 3166-1 alpha-2 (and AC, TA, XK, which phone numbers know too), or ZZ. Where a calling
    code is shared and the number belongs to no assigned range, the code's main country."""
    calling_code: int
    kind: NumberKind
    assigned: bool
    """Whether it lies in a range that its country has given to subscribers."""
    is_test: bool
    """Whether it lies in a range documented for tests and fiction, which no subscriber has."""

    @property
    def warning(self) -> str | None:
        """What the sender of a message should hear of, but is not refused for."""
        if self.assigned or self.is_test:
            return None
        return (
            "The number lies in no range that its country has assigned, so it may reach nobody: "
            "check its digits."
        )


# Ofcom's numbers for drama, the 555-01xx of the North American plan, and Arcep's for fiction.
_TEST_NUMBER = re.compile(r"\+(447700900[0-9]{3}|120155501[0-9]{2}|3363998[0-9]{4})", re.ASCII)

# What people write between digits: spaces, hyphens and dashes, dots, slashes, parentheses; and the
# direction marks that address books add when a number is copied.
_SEPARATORS = " \t\u00a0\u2007\u2009\u202f-\u2010\u2011\u2012\u2013\u2212./()"
_INVISIBLE = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_WITHOUT_SEPARATORS = str.maketrans("", "", _SEPARATORS + _INVISIBLE)

# What programs write, and nothing has to be taken out of.
_PLAIN = re.compile(r"\+[0-9]+", re.ASCII)

# E.164, 6.1: at most fifteen digits with the country code.
_MOST_DIGITS = 15

_PROBLEMS: Mapping[int, NumberProblem] = {
    ValidationResult.TOO_SHORT: NumberProblem.TOO_SHORT,
    # Without its area code: reachable from next door, not from abroad.
    ValidationResult.IS_POSSIBLE_LOCAL_ONLY: NumberProblem.TOO_SHORT,
    ValidationResult.TOO_LONG: NumberProblem.TOO_LONG,
    ValidationResult.INVALID_LENGTH: NumberProblem.WRONG_LENGTH,
}


def parse_number(text: str) -> Number:
    """Reads a number in international form, whatever separators it has.

    It must be possible (its country has numbers of that length). `Number.warning` reports a number
    that is not assigned. Raises InvalidNumber.
    """
    digits = _digits(text)
    calling_code, national = split(digits) or _parse(digits)
    e164 = f"+{calling_code}{national}"
    if len(e164) <= len(digits):
        # A trunk prefix went, as the 0 of +44 (0)7700; behind it can stand another one, and a
        # number must read the same when it is read again.
        return parse_number(e164)
    plan = numbering_plan(calling_code)
    if plan is None:
        raise InvalidNumber(NumberProblem.UNKNOWN_CALLING_CODE)
    possible = plan.possible(national)
    if possible in _PROBLEMS:
        raise InvalidNumber(_PROBLEMS[possible])
    if len(e164) > len("+") + _MOST_DIGITS:
        raise InvalidNumber(NumberProblem.TOO_LONG)
    region, type_ = plan.look_up(national)
    # A number is valid exactly if it has a known type.
    kind = _KINDS[type_]
    return Number(
        e164=e164,
        country=_country(region or plan.countries[0].region),
        calling_code=calling_code,
        kind=kind,
        assigned=kind is not NumberKind.UNKNOWN,
        is_test=_TEST_NUMBER.fullmatch(e164) is not None,
    )


def _digits(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text[1:]
    bare = text.translate(_WITHOUT_SEPARATORS).strip()
    if not bare:
        raise InvalidNumber(NumberProblem.EMPTY)
    digits = bare.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidNumber(NumberProblem.NOT_A_NUMBER)
    if digits == bare:
        raise InvalidNumber(NumberProblem.NOT_INTERNATIONAL)
    return digits


_PARSE_PROBLEMS: Mapping[int, NumberProblem] = {
    phonenumbers.NumberParseException.INVALID_COUNTRY_CODE: NumberProblem.UNKNOWN_CALLING_CODE,
    phonenumbers.NumberParseException.TOO_LONG: NumberProblem.TOO_LONG,
}


def _parse(digits: str) -> tuple[int, str]:
    """Calling code and national number."""
    try:
        number = phonenumbers.parse(f"+{digits}", None)
        # A parsed number has a calling code.
        return cast("int", number.country_code), phonenumbers.national_significant_number(number)
    except phonenumbers.NumberParseException as error:
        # Digits alone can only be too short besides.
        problem = _PARSE_PROBLEMS.get(error.error_type, NumberProblem.TOO_SHORT)
    raise InvalidNumber(problem)


def _country(region: str) -> str:
    # Calling codes of no country have the region 001, the world.
    return UNKNOWN_COUNTRY if region == phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY else region

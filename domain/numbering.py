"""Numbering plans: which countries a calling code has, and what their ranges are for.

The plans are those of `phonenumbers`, whose own functions look each pattern up anew for every
number and walk through a calling code's countries twice: five sixths of the time of a batch's
recipient went there. Here a calling code is made ready once; the answers are the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    PhoneMetadata,
    PhoneNumberDesc,
    PhoneNumberType,
    ValidationResult,
)

# The first of these that has a number determines its type; fixed lines and mobiles are checked last.
_SPECIAL: Final = (
    (PhoneNumberType.PREMIUM_RATE, "premium_rate"),
    (PhoneNumberType.TOLL_FREE, "toll_free"),
    (PhoneNumberType.SHARED_COST, "shared_cost"),
    (PhoneNumberType.VOIP, "voip"),
    (PhoneNumberType.PERSONAL_NUMBER, "personal_number"),
    (PhoneNumberType.PAGER, "pager"),
    (PhoneNumberType.UAN, "uan"),
    (PhoneNumberType.VOICEMAIL, "voicemail"),
)


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers of some lengths (any, if there are none) that a pattern describes."""

    lengths: frozenset[int]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, described: PhoneNumberDesc | None) -> Self | None:
        """Of a description, unless it has no numbers."""
        if described is None or not described.national_number_pattern:
            return None
        lengths = frozenset(described.possible_length)
        return cls(lengths, re.compile(described.national_number_pattern))

    def has(self, national: str) -> bool:
        return (not self.lengths or len(national) in self.lengths) and (
            self.pattern.fullmatch(national) is not None
        )


@dataclass(frozen=True, slots=True)
class _Country:
    """The plan of one country (or of a calling code of none, which is region 001)."""

    region: str
    leading: re.Pattern[str] | None
    whole: _Range | None
    special: Sequence[tuple[int, _Range]]
    fixed: _Range | None
    mobile: _Range | None

    @classmethod
    def of(cls, region: str, plan: PhoneMetadata) -> Self:
        """From what is known of a country."""
        special = [(kind, _Range.of(getattr(plan, name))) for kind, name in _SPECIAL]
        return cls(
            region=region,
            leading=re.compile(plan.leading_digits) if plan.leading_digits is not None else None,
            whole=_Range.of(plan.general_desc),
            special=[(kind, numbers) for kind, numbers in special if numbers is not None],
            fixed=_Range.of(plan.fixed_line),
            mobile=_Range.of(plan.mobile),
        )

    def type_of(self, national: str) -> int:
        """As `phonenumbers.number_type`, for a number of this country."""
        if self.whole is None or not self.whole.has(national):
            return PhoneNumberType.UNKNOWN
        for kind, numbers in self.special:
            if numbers.has(national):
                return kind
        mobile = self.mobile is not None and self.mobile.has(national)
        if self.fixed is not None and self.fixed.has(national):
            return PhoneNumberType.FIXED_LINE_OR_MOBILE if mobile else PhoneNumberType.FIXED_LINE
        return PhoneNumberType.MOBILE if mobile else PhoneNumberType.UNKNOWN


@dataclass(frozen=True, slots=True)
class NumberingPlan:
    """All that share one calling code; the first is its main country.

    `lengths` are those that a number may have after the calling code, in order; with one of
    `local` it can be reached from next door only. `trunk` is what people put in front of it, and
    what is then no part of it.
    """

    lengths: Sequence[int]
    local: Sequence[int]
    countries: Sequence[_Country]
    trunk: re.Pattern[str] | None

    def look_up(self, national: str) -> tuple[str | None, int]:
        """The region of a number and its `PhoneNumberType`; None if it is in no country's plan."""
        if len(self.countries) == 1:
            only = self.countries[0]
            return only.region, only.type_of(national)
        for country in self.countries:
            kind = country.type_of(national)
            if country.leading is not None:
                if country.leading.match(national):
                    return country.region, kind
            elif kind != PhoneNumberType.UNKNOWN:
                return country.region, kind
        return None, PhoneNumberType.UNKNOWN

    def possible(self, national: str) -> int:
        """Whether a number can have as many digits, a `ValidationResult`."""
        length = len(national)
        if length in self.local:
            return ValidationResult.IS_POSSIBLE_LOCAL_ONLY
        if length in self.lengths:
            return ValidationResult.IS_POSSIBLE
        if length < self.lengths[0]:
            return ValidationResult.TOO_SHORT
        if length > self.lengths[-1]:
            return ValidationResult.TOO_LONG
        return ValidationResult.INVALID_LENGTH


@cache
def numbering_plan(calling_code: int) -> NumberingPlan | None:
    """The plan behind a calling code; None if no country has it."""
    regions = COUNTRY_CODE_TO_REGION_CODE.get(calling_code)
    if regions is None:
        return None
    countries = [
        (region, plan)
        for region in regions
        if (plan := PhoneMetadata.metadata_for_region_or_calling_code(calling_code, region))
    ]
    whole = countries[0][1].general_desc
    return NumberingPlan(
        lengths=tuple(whole.possible_length) if whole else (),
        local=tuple(whole.possible_length_local_only) if whole else (),
        countries=[_Country.of(region, plan) for region, plan in countries],
        trunk=_trunk_of(countries[0][1]),
    )


def _trunk_of(main: PhoneMetadata) -> re.Pattern[str] | None:
    prefix = main.national_prefix_for_parsing
    return re.compile(prefix) if prefix is not None else None


_LONGEST_CALLING_CODE: Final = 3
_FEWEST_DIGITS: Final = 2
_MOST_DIGITS: Final = 17


def split(international: str) -> tuple[int, str] | None:
    """Calling code and national number of digits that begin with a calling code.

    As `phonenumbers.parse` has it, which looks for all that people write; None where that has to look,
    since a trunk prefix or zeros may stand before the national number, or there is no such code.
    """
    if international.startswith("0"):
        return None
    for length in range(1, _LONGEST_CALLING_CODE + 1):
        calling_code = int(international[:length])
        plan = numbering_plan(calling_code)
        if plan is not None:
            national = international[length:]
            plain = (
                _FEWEST_DIGITS <= len(national) <= _MOST_DIGITS
                and not national.startswith("0")
                and (plan.trunk is None or plan.trunk.match(national) is None)
            )
            return (calling_code, national) if plain else None
    return None


def has_possible_length(international: str) -> bool:
    """Whether digits that begin with a calling code are as many as a number of its country has.

    Those of a number in national form, whose first digits only look like a calling code, mostly are not.
    """
    for length in range(1, _LONGEST_CALLING_CODE + 1):
        plan = numbering_plan(int(international[:length]))
        if plan is not None:
            return plan.possible(international[length:]) == ValidationResult.IS_POSSIBLE
    return False

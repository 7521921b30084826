"""Names and words that several parts of a configuration use."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from phonenumbers import SUPPORTED_REGIONS
from pydantic import AfterValidator, StringConstraints

from domain.numbers import UNKNOWN_COUNTRY


class Environment(StrEnum):
    """Live traffic, or tests; keys reach only providers of their own environment."""

    LIVE = "live"
    TEST = "test"


ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
"""Becomes a task queue and a metric label: short, lower case, closed set."""

AccountId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]

_COMMON_SLIPS: Mapping[str, str] = {"UK": "GB", "EN": "GB", "USA": "US", "EL": "GR"}


def _known_country(country: str) -> str:
    if country in SUPPORTED_REGIONS or country == UNKNOWN_COUNTRY:
        return country
    meant = _COMMON_SLIPS.get(country.upper(), country.upper())
    hint = f'; did you mean "{meant}"?' if meant in SUPPORTED_REGIONS else ""
    raise ValueError(f'a country is two capital letters of ISO 3166-1, such as "US"{hint}')


Country = Annotated[str, AfterValidator(_known_country)]
Network = Annotated[str, StringConstraints(pattern=r"^([0-9]{5,6}|unknown)$")]
"""MCC and MNC as five or six digits, or "unknown"."""

"""Durations as a configuration and the settings write them."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

_UNITS: Mapping[str, timedelta] = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_BARE = timedelta(seconds=1)
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d|)", re.ASCII)
_LONGEST = timedelta(days=3660)


def parse_duration(value: object) -> timedelta:
    """A duration from "500ms", "30s", "10m", "24h", "35d", or from a number of seconds.

    Raises:
        ValueError: with a sentence, if it is none of these, negative, or longer than ten years.
    """
    duration: timedelta | None = None
    match value:
        case timedelta():
            duration = value
        case bool():
            pass
        case int() | float() if abs(value) <= _LONGEST.total_seconds():
            duration = timedelta(seconds=value)
        case str() if found := _DURATION.fullmatch(value):
            seconds = float(found[1]) * _UNITS.get(found[2], _BARE).total_seconds()
            duration = timedelta(seconds=min(seconds, 2 * _LONGEST.total_seconds()))
        case _:
            pass
    if duration is None or not timedelta() <= duration <= _LONGEST:
        raise ValueError(
            'a duration is written like "500ms", "30s", "10m", "24h" or "35d", '
            "or as a number of seconds, and is at most ten years"
        )
    return duration


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as the same duration."""
    for unit, size in _UNITS.items():
        if duration and duration % size == timedelta():
            return f"{duration // size}{unit}"
    return f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"


def _longer_than_zero(duration: timedelta) -> timedelta:
    if not duration:
        raise ValueError("the duration must be longer than zero")
    return duration


Delay = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
"""A duration that may be zero."""

Duration = Annotated[Delay, AfterValidator(_longer_than_zero)]
"""A duration longer than zero."""

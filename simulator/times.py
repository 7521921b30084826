"""SMPP's time format (SMPP 3.4, 7.1.1), as schedule_delivery_time and validity_period use it."""

import re
from datetime import UTC, datetime, timedelta

# YYMMDDhhmmss, tenths of a second, quarters of an hour from UTC, and what kind of time it is.
_TIME = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d)(\d\d)([+R-])")
_DAYS_A_YEAR = 365
_DAYS_A_MONTH = 30


def time_from_now(value: bytes, now: datetime) -> timedelta | None:
    """How far ahead a relative or absolute time lies, seen from `now` (aware); None when empty.

    Years and months of a relative time count 365 and 30 days. Negative for an absolute time that
    has passed.

    Raises:
        ValueError: it is not a time in SMPP's format.
    """
    if not value:
        return None
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError("a time has 16 characters: YYMMDDhhmmsstnn and one of + - R")
    years, months, days, hours, minutes, seconds, tenths, quarters = map(int, match.groups()[:8])
    if match[9] == b"R":
        return timedelta(
            days=years * _DAYS_A_YEAR + months * _DAYS_A_MONTH + days,
            hours=hours,
            minutes=minutes,
            seconds=seconds,
        )
    local = datetime(
        2000 + years, months, days, hours, minutes, seconds, tenths * 100_000, tzinfo=UTC
    )
    offset = timedelta(minutes=15 * quarters)
    return (local - offset if match[9] == b"+" else local + offset) - now


def absolute_time(moment: datetime) -> bytes:
    """A moment (aware) in SMPP's absolute format, in UTC."""
    in_utc = moment.astimezone(UTC)
    return f"{in_utc:%y%m%d%H%M%S}{in_utc.microsecond // 100_000}00+".encode()

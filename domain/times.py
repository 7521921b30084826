"""Times that people and carriers give: within a range that every part of the gateway can handle.

Python's times end with the year 9999, and Postgres takes later ones: what is stored without a limit
may never be read again.
"""

from datetime import UTC, datetime
from typing import Final

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)


class TimeOutOfRange(ValueError):
    """A time that no message can have to do with."""

    def __init__(self) -> None:
        super().__init__(
            f"It is a time from {EARLIEST.year} to {LATEST.year - 1}: check the year and the offset."
        )


def in_range(moment: datetime) -> datetime:
    """The time in UTC. One without an offset is taken to be UTC.

    Raises:
        TimeOutOfRange: it is before 2000, or not before 2100.
    """
    # The year first, with the day that an offset may add: at the ends of all time, UTC overflows.
    if EARLIEST.year - 1 <= moment.year <= LATEST.year:
        utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if EARLIEST <= utc < LATEST:
            return utc
    raise TimeOutOfRange


def nearest_in_range(moment: datetime) -> datetime:
    """The time in UTC, or the end of the range that is nearer: for what limits a list."""
    try:
        return in_range(moment)
    except TimeOutOfRange:
        return EARLIEST if moment.year <= EARLIEST.year else LATEST

"""Tables cut by time: how wide a partition is, and which ids belong to which time.

Ids are UUIDv7 (RFC 9562, 5.7): their first 48 bits are milliseconds since 1970, so that a range of
ids is a range of time. All cuts are at midnight, UTC.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

_RANDOM_BITS: Final = 80
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PartitionWidth(StrEnum):
    """How much time a partition holds."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def cut_after(moment: datetime, width: PartitionWidth) -> datetime:
    """The first cut that is later than a moment: the next midnight, Monday, or first of a month."""
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match width:
        case PartitionWidth.DAY:
            return midnight + timedelta(days=1)
        case PartitionWidth.WEEK:
            return midnight + timedelta(days=7 - midnight.weekday())
        case PartitionWidth.MONTH:
            return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
        case _:
            assert_never(width)


def first_id_at(moment: datetime) -> UUID:
    """The lowest id that a moment can have: those of later moments are higher."""
    return UUID(int=((moment - _EPOCH) // _MILLISECOND) << _RANDOM_BITS)


def moment_of(message_id: UUID) -> datetime:
    """When an id was made, by the clock of whoever made it, to the millisecond."""
    return _EPOCH + (message_id.int >> _RANDOM_BITS) * _MILLISECOND

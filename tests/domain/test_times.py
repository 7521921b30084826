"""The range of times that are taken from outside."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.times import EARLIEST, LATEST, TimeOutOfRange, in_range, nearest_in_range

OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(moment=st.datetimes(timezones=st.none() | OFFSETS))
@example(moment=datetime.max.replace(tzinfo=timezone(timedelta(minutes=-1439))))
@example(moment=datetime.min.replace(tzinfo=timezone(timedelta(minutes=1439))))
@example(moment=datetime(2100, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))))
@example(moment=datetime(1999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1))))
def test_every_time_is_in_utc_and_in_range_or_refused(moment: datetime) -> None:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if EARLIEST <= aware < LATEST:
        found = in_range(moment)
        assert found == aware
        assert found.utcoffset() == timedelta()
        assert nearest_in_range(moment) == found
    else:
        with pytest.raises(TimeOutOfRange, match="from 2000 to 2099"):
            in_range(moment)
        assert nearest_in_range(moment) == (EARLIEST if aware < EARLIEST else LATEST)

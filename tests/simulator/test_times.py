"""SMPP's times."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.times import absolute_time, time_from_now

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "ahead"),
    [
        (b"", None),
        (b"000000000010000R", timedelta(seconds=10)),
        (b"000000010000000R", timedelta(hours=1)),
        (b"000002000000000R", timedelta(days=2)),
        (b"010100000000000R", timedelta(days=395)),
        (b"261122120500000+", timedelta(minutes=5)),
        (b"261122130500004+", timedelta(minutes=5)),
        (b"261122110500004-", timedelta(minutes=5)),
        (b"261122120000500+", timedelta(seconds=0.5)),
        (b"261122115900000+", timedelta(minutes=-1)),
    ],
)
def test_relative_and_absolute_times_are_read(value, ahead):
    assert time_from_now(value, NOW) == ahead


@pytest.mark.parametrize(
    "value", [b"0", b"261322120000000+", b"2611221200000000", b"26112212000000+", b"x" * 16]
)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ValueError, match=r".+"):
        time_from_now(value, NOW)


@given(
    st.datetimes(datetime(2000, 1, 2), datetime(2098, 12, 30)),  # noqa: DTZ001 - a zone is drawn beside it
    st.integers(-12 * 60, 14 * 60),
)
def test_an_absolute_time_is_read_as_it_was_written(moment, minutes):
    moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    ahead = time_from_now(absolute_time(moment), NOW)
    assert timedelta(0) <= moment - NOW - ahead < timedelta(seconds=0.1)

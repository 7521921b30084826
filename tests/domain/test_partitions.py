"""Cuts lie at midnight, follow each other, and put each id into the time in which it was made."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from domain.partitions import PartitionWidth, cut_after, first_id_at, moment_of

moments = st.integers(0, 2**42).map(
    lambda seconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(milliseconds=seconds)
)
LONGEST = {PartitionWidth.DAY: 1, PartitionWidth.WEEK: 7, PartitionWidth.MONTH: 31}


@given(moments, st.sampled_from(PartitionWidth))
def test_the_next_cut_is_a_midnight_within_the_width(moment, width):
    cut = cut_after(moment, width)
    assert cut.time() == datetime.min.time()
    assert timedelta() < cut - moment <= timedelta(days=LONGEST[width])


@pytest.mark.parametrize(
    ("width", "cut"), [("day", (2026, 12, 31)), ("week", (2027, 1, 4)), ("month", (2027, 1, 1))]
)
def test_cuts_are_those_of_the_calendar(width, cut):
    moment = datetime(2026, 12, 30, 12, tzinfo=UTC)
    assert cut_after(moment, PartitionWidth(width)) == datetime(*cut, tzinfo=UTC)


@given(moments)
def test_ids_of_a_moment_lie_behind_those_of_earlier_ones(moment):
    millisecond = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert moment_of(first_id_at(moment)) == millisecond
    assert first_id_at(millisecond - timedelta(milliseconds=1)) < first_id_at(moment)


def test_an_id_of_now_tells_the_time():
    assert abs(moment_of(uuid7()) - datetime.now(UTC)) < timedelta(seconds=5)

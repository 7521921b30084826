"""Whose turn it is: the order, the rate, the window, and who gives up when."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ErrorClass
from providers.base import NoSlot
from providers.turns import Pace, Turns


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def leaving_times(pace: Pace, clock: Clock, seconds: float) -> list[float]:
    """When messages leave if there is always one that wants to."""
    end = clock.now + seconds
    times = []
    while True:
        clock.now += pace.wait()
        if clock.now >= end:
            return times
        pace.leave()
        times.append(clock.now)
        if pace.rate() is None:
            clock.now += 0.001


@given(st.floats(0.5, 2000), st.floats(1, 5))
def test_the_rate_holds_in_every_second_and_is_used(rate, seconds):
    clock = Clock()
    times = leaving_times(Pace(rate, clock), clock, seconds)
    assert len(times) >= int(rate * seconds)
    for first in range(0, len(times), max(1, len(times) // 20)):
        within = [t for t in times[first:] if t < times[first] + 1]
        assert len(within) <= rate * 1.1 + 2


def test_silence_does_not_save_up_a_burst():
    clock = Clock()
    pace = Pace(100, clock)
    clock.now += 3600
    burst = leaving_times(pace, clock, 0.001)
    assert len(burst) == 11


def test_a_complaint_halves_the_rate_and_it_comes_back():
    clock = Clock()
    pace = Pace(100, clock)
    for _ in range(50):  # the answers to one window
        pace.complain()
    assert pace.rate() == pytest.approx(50)
    clock.now += 1.5
    pace.complain()
    assert pace.rate() == pytest.approx(50 * 2**0.3 / 2)
    clock.now += 30
    assert pace.rate() == 100


def test_complaints_never_stop_the_sending():
    clock = Clock()
    pace = Pace(100, clock)
    for _ in range(100):
        clock.now += 1.01
        pace.complain()
    assert 1 <= pace.rate() <= 2


def test_without_a_rate_a_complaint_halves_what_was_going_on():
    clock = Clock()
    clock.now = 1000.0
    pace = Pace(None, clock)
    leaving_times(pace, clock, 1.5)
    assert pace.rate() is None
    pace.complain()
    assert pace.rate() == pytest.approx(500, rel=0.05)
    clock.now += 10
    assert pace.rate() is None


async def test_turns_go_by_rank_and_then_by_arrival():
    turns = Turns(None, lambda: 1)
    await turns.take(3)
    order = []

    async def wants(name, rank):
        await turns.take(rank)
        order.append(name)
        turns.give_back()

    waiting = []
    for name, rank in [("low", 4), ("first", 3), ("second", 3), ("critical", 1), ("high", 2)]:
        waiting.append(asyncio.ensure_future(wants(name, rank)))
        await asyncio.sleep(0)
    turns.give_back()
    await asyncio.gather(*waiting)
    assert order == ["critical", "high", "first", "second", "low"]
    assert turns.held == 0


async def test_no_more_turns_are_held_than_there_is_room():
    capacity = 3
    turns = Turns(None, lambda: capacity)
    most = 0

    async def wants():
        nonlocal most
        await turns.take(2)
        most = max(most, turns.held)
        await asyncio.sleep(0.001)
        turns.give_back()

    await asyncio.gather(*[wants() for _ in range(50)])
    assert most == 3
    capacity = 0
    late = asyncio.ensure_future(turns.take(2))
    await asyncio.sleep(0.01)
    assert not late.done()
    capacity = 1
    turns.look_again()
    await late


async def test_the_rate_holds_in_real_time():
    turns = Turns(200, lambda: 1000)
    loop = asyncio.get_running_loop()
    times = []

    async def wants():
        await turns.take(2, patience=5)
        times.append(loop.time())

    await asyncio.gather(*[wants() for _ in range(120)])
    # 21 at once, by the burst, and the rest one by one
    assert 0.45 < times[-1] - times[0] < 3
    assert all(b >= a for a, b in pairwise(times))


async def test_a_turn_that_would_not_come_in_time_is_refused_at_once():
    turns = Turns(10, lambda: 1000)
    waiting = [asyncio.ensure_future(turns.take(2)) for _ in range(12)]
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(NoSlot) as refused:
        await turns.take(2)
    assert loop.time() - began < 0.1
    assert refused.value.error_class is ErrorClass.THROTTLED
    assert timedelta(seconds=1) < refused.value.after < timedelta(seconds=2)
    await turns.take(1)  # what is more urgent does not stand behind them
    for turn in waiting:
        turn.cancel()
    await asyncio.wait(waiting)
    turns.end()


async def test_a_turn_that_does_not_come_says_whether_the_carrier_is_there():
    capacity = 0
    turns = Turns(None, lambda: capacity)
    with pytest.raises(NoSlot) as refused:
        await turns.take(2, patience=0.02)
    assert refused.value.error_class is ErrorClass.UNREACHABLE
    capacity = 1
    await turns.take(2)
    with pytest.raises(NoSlot) as refused:
        await turns.take(2, patience=0.02)
    assert refused.value.error_class is ErrorClass.THROTTLED


async def test_who_leaves_the_queue_takes_nothing_along():
    turns = Turns(None, lambda: 1)
    await turns.take(2)
    leaving = asyncio.ensure_future(turns.take(1))
    staying = asyncio.ensure_future(turns.take(2))
    await asyncio.sleep(0)
    leaving.cancel()
    turns.give_back()
    await staying
    assert turns.held == 1
    # and when the turn had just been given
    leaving = asyncio.ensure_future(turns.take(1))
    await asyncio.sleep(0)
    turns.give_back()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert turns.held == 0


async def test_a_further_part_needs_the_rate_and_not_the_window_and_goes_first():
    turns = Turns(20, lambda: 1)
    await turns.take(1)
    for _ in range(2):
        await turns.take_for_part()
    urgent = asyncio.ensure_future(turns.take(1))
    await asyncio.sleep(0)
    further = asyncio.ensure_future(turns.take_for_part())
    turns.give_back()
    await further
    assert not urgent.done()
    await urgent


async def test_closing_waits_for_the_turns_that_are_held_and_their_parts():
    turns = Turns(20, lambda: 10)
    for _ in range(3):
        await turns.take(2)
    closing = asyncio.ensure_future(turns.close())
    await asyncio.sleep(0)
    with pytest.raises(NoSlot) as refused:
        await turns.take(1)
    assert refused.value.error_class is ErrorClass.UNREACHABLE
    await turns.take_for_part()
    for _ in range(3):
        assert not closing.done()
        turns.give_back()
    await closing


async def test_the_end_is_told_to_those_who_wait():
    turns = Turns(0.5, lambda: 10)
    await turns.take(2)
    part = asyncio.ensure_future(turns.take_for_part())
    await asyncio.sleep(0)
    turns.end()
    with pytest.raises(NoSlot):
        await part

"""Whose turn it is: the order, the rate, the window, and who gives up when."""

import asyncio
import random
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.error_classes import ErrorClass
from domain.rates import RateDemand
from providers.base import NoSlot
from providers.submit_queue import RateLimiter, SubmitQueue


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def leaving_times(rate_limiter: RateLimiter, clock: Clock, seconds: float) -> list[float]:
    """When messages leave if there is always one that wants to."""
    end = clock.now + seconds
    times = []
    while True:
        clock.now += rate_limiter.wait()
        if clock.now >= end:
            return times
        rate_limiter.leave()
        times.append(clock.now)
        if rate_limiter.rate() is None:
            clock.now += 0.001


@given(st.floats(0.5, 2000), st.floats(1, 5))
def test_the_rate_holds_in_every_second_and_is_used(rate, seconds):
    clock = Clock()
    times = leaving_times(RateLimiter(rate, clock), clock, seconds)
    assert len(times) >= int(rate * seconds)
    for first in range(0, len(times), max(1, len(times) // 20)):
        within = [t for t in times[first:] if t < times[first] + 1]
        assert len(within) <= rate * 1.05 + 2


def test_silence_does_not_save_up_a_burst():
    clock = Clock()
    rate_limiter = RateLimiter(100, clock)
    clock.now += 3600
    burst = leaving_times(rate_limiter, clock, 0.001)
    assert len(burst) == 5


@given(st.floats(0.1, 500), st.floats(0.1, 500), st.floats(0, 3))
def test_a_new_rate_holds_at_once_also_after_a_much_lower_or_higher_one(before, after, seconds):
    clock = Clock()
    rate_limiter = RateLimiter(before, clock)
    leaving_times(rate_limiter, clock, seconds)
    rate_limiter.limit_to(after)
    assert rate_limiter.wait() <= max(1 / before, 1 / after) + 0.001
    assert len(leaving_times(rate_limiter, clock, 1)) <= after * 1.05 + 1


def test_a_rate_of_nothing_lets_nothing_leave_until_there_is_one():
    clock = Clock()
    rate_limiter = RateLimiter(100, clock)
    rate_limiter.limit_to(0)
    clock.now += 100
    assert rate_limiter.wait() == float("inf")
    rate_limiter.limit_to(0.2)
    assert rate_limiter.wait() == 0


def test_a_share_of_the_rate_keeps_what_throttling_left_of_it():
    clock = Clock()
    rate_limiter = RateLimiter(100, clock)
    responses(rate_limiter, clock, [THROTTLED] * 50, 0.0001)
    rate_limiter.limit_to(20)
    assert rate_limiter.rate() == pytest.approx(10, rel=0.01)
    assert rate_limiter.ratio == pytest.approx(0.5, rel=0.01)


THROTTLED, QUEUE_FULL = ErrorClass.THROTTLED, ErrorClass.QUEUE_FULL


def responses(
    rate_limiter: RateLimiter, clock: Clock, kinds: list[ErrorClass | None], every: float
) -> None:
    for kind in kinds:
        rate_limiter.count_response(kind)
        clock.now += every


@given(
    st.lists(
        st.sampled_from([error for error in ErrorClass if error not in {THROTTLED, QUEUE_FULL}]),
        min_size=1,
        max_size=50,
    ),
    st.none() | st.floats(1, 2000),
    st.floats(0.0001, 1),
)
def test_errors_that_are_not_about_the_rate_never_slow_it_down(errors, rate, every):
    clock = Clock()
    rate_limiter = RateLimiter(rate, clock)
    responses(rate_limiter, clock, errors, every)
    assert rate_limiter.rate() == rate
    assert rate_limiter.ratio == 1


@given(st.integers(0, 999), st.integers(1, 40), st.none() | st.floats(10, 2000))
def test_full_queues_of_some_recipients_never_slow_the_others_down(seed, percent, rate):
    clock = Clock()
    rate_limiter = RateLimiter(rate, clock)
    drawn = random.Random(seed)
    kinds = [QUEUE_FULL if drawn.randrange(100) < percent else None for _ in range(600)]
    # as evenly as chance has it in a carrier's traffic, not in blocks
    assume(all(kinds[n : n + 20].count(QUEUE_FULL) < 15 for n in range(600)))
    responses(rate_limiter, clock, kinds, 0.0005)
    assert rate_limiter.ratio == 1


def test_a_carrier_all_of_whose_queues_are_full_is_slowed_down():
    clock = Clock()
    rate_limiter = RateLimiter(100, clock)
    responses(rate_limiter, clock, [QUEUE_FULL] * 50, 0.01)
    assert rate_limiter.rate() == pytest.approx(50, rel=0.05)


def test_a_few_throttled_answers_cost_as_much_of_the_rate_as_they_are_of_the_answers():
    clock = Clock()
    rate_limiter = RateLimiter(1000, clock)
    for _ in range(20):  # seconds, in which 3 of 100 answers throttle
        responses(rate_limiter, clock, ([None] * 33 + [THROTTLED]) * 3, 0.01)
        assert rate_limiter.rate() > 600


def test_a_carrier_that_throttles_everything_gets_half_the_rate_each_second():
    clock = Clock()
    rate_limiter = RateLimiter(100, clock)
    responses(rate_limiter, clock, [THROTTLED] * 50, 0.0001)  # the answers to one window
    assert rate_limiter.rate() == pytest.approx(50, rel=0.01)
    assert rate_limiter.ratio == pytest.approx(0.5, rel=0.01)
    clock.now += 1
    responses(rate_limiter, clock, [THROTTLED] * 50, 0.0001)
    assert 25 < rate_limiter.rate() < 30
    for _ in range(20):
        clock.now += 1
        responses(rate_limiter, clock, [THROTTLED] * 50, 0.0001)
    assert 1 <= rate_limiter.rate() < 2


@pytest.mark.parametrize("rate", [10, 100, 1000])
def test_the_rate_comes_back_within_seconds_from_any_depth(rate):
    clock = Clock()
    rate_limiter = RateLimiter(rate, clock)
    for _ in range(200):
        responses(rate_limiter, clock, [THROTTLED] * 20, 0.0001)
        clock.now += 1.01
    assert rate_limiter.rate() < 2
    clock.now += 10
    assert rate_limiter.rate() == rate
    assert rate_limiter.ratio == 1


@pytest.mark.parametrize("takes", [5, 50, 400])
def test_a_carrier_that_takes_less_than_its_configured_rate_is_used_and_hardly_overrun(takes):
    clock = Clock()
    rate_limiter = RateLimiter(1000, clock)
    accepted = refused = 0
    second, left = -1, 0
    end = clock.now + 60
    while (wait := rate_limiter.wait()) >= 0 and clock.now + wait < end:
        clock.now += wait + 1e-6
        rate_limiter.leave()
        if int(clock.now) != second:
            second, left = int(clock.now), takes
        if left:
            left -= 1
        taken = clock.now >= end - 60 and left > 0
        accepted, refused = accepted + taken, refused + (not taken)
        rate_limiter.count_response(None if taken else THROTTLED)
    assert accepted > 60 * takes * 0.5
    assert refused < 1000 + 60 * takes


def test_without_a_rate_throttling_halves_what_was_going_on():
    clock = Clock()
    clock.now = 1000.0
    rate_limiter = RateLimiter(None, clock)
    leaving_times(rate_limiter, clock, 1.5)
    assert rate_limiter.rate() is None
    responses(rate_limiter, clock, [THROTTLED] * 100, 0)
    assert rate_limiter.rate() == pytest.approx(500, rel=0.05)
    clock.now += 10
    assert rate_limiter.rate() is None


async def test_turns_go_by_rank_and_then_by_arrival():
    queue = SubmitQueue(None, lambda: 1)
    await queue.take(3)
    order = []

    async def wants(name, rank):
        await queue.take(rank)
        order.append(name)
        queue.give_back()

    waiting = []
    for name, rank in [("low", 4), ("first", 3), ("second", 3), ("critical", 1), ("high", 2)]:
        waiting.append(asyncio.ensure_future(wants(name, rank)))
        await asyncio.sleep(0)
    queue.give_back()
    await asyncio.gather(*waiting)
    assert order == ["critical", "high", "first", "second", "low"]
    assert queue.held == 0


async def test_no_more_turns_are_held_than_there_is_room():
    capacity = 3
    queue = SubmitQueue(None, lambda: capacity)
    most = 0

    async def wants():
        nonlocal most
        await queue.take(2)
        most = max(most, queue.held)
        await asyncio.sleep(0.001)
        queue.give_back()

    await asyncio.gather(*[wants() for _ in range(50)])
    assert most == 3
    capacity = 0
    late = asyncio.ensure_future(queue.take(2))
    await asyncio.sleep(0.01)
    assert not late.done()
    capacity = 1
    queue.recheck()
    await late


async def test_the_rate_holds_in_real_time():
    queue = SubmitQueue(200, lambda: 1000)
    loop = asyncio.get_running_loop()
    times = []

    async def wants():
        await queue.take(2, patience=5)
        times.append(loop.time())

    await asyncio.gather(*[wants() for _ in range(120)])
    # 9 at once, by the burst, and the rest one by one
    assert 0.45 < times[-1] - times[0] < 3
    assert all(b >= a for a, b in pairwise(times))


async def test_a_turn_that_would_not_come_in_time_is_refused_at_once():
    queue = SubmitQueue(10, lambda: 1000)
    waiting = [asyncio.ensure_future(queue.take(2)) for _ in range(12)]
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(NoSlot) as refused:
        await queue.take(2)
    assert loop.time() - began < 0.1
    assert refused.value.error_class is ErrorClass.THROTTLED
    assert timedelta(seconds=1) < refused.value.after < timedelta(seconds=2)
    await queue.take(1)  # what is more urgent does not stand behind them
    for turn in waiting:
        turn.cancel()
    await asyncio.wait(waiting)
    queue.end()


async def test_a_turn_that_does_not_come_says_whether_the_carrier_is_there():
    capacity = 0
    queue = SubmitQueue(None, lambda: capacity)
    with pytest.raises(NoSlot) as refused:
        await queue.take(2, patience=0.02)
    assert refused.value.error_class is ErrorClass.UNREACHABLE
    capacity = 1
    await queue.take(2)
    with pytest.raises(NoSlot) as refused:
        await queue.take(2, patience=0.02)
    assert refused.value.error_class is ErrorClass.THROTTLED


async def test_who_leaves_the_queue_takes_nothing_along():
    queue = SubmitQueue(None, lambda: 1)
    await queue.take(2)
    leaving = asyncio.ensure_future(queue.take(1))
    staying = asyncio.ensure_future(queue.take(2))
    await asyncio.sleep(0)
    leaving.cancel()
    queue.give_back()
    await staying
    assert queue.held == 1
    # and when the turn had just been given
    leaving = asyncio.ensure_future(queue.take(1))
    await asyncio.sleep(0)
    queue.give_back()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert queue.held == 0


async def test_a_further_part_needs_the_rate_and_not_the_window_and_goes_first():
    queue = SubmitQueue(20, lambda: 1)
    await queue.take(1)
    for _ in range(2):
        await queue.take_for_part(2)
    urgent = asyncio.ensure_future(queue.take(1))
    await asyncio.sleep(0)
    further = asyncio.ensure_future(queue.take_for_part(2))
    queue.give_back()
    await further
    assert not urgent.done()
    await urgent


async def test_closing_waits_for_the_turns_that_are_held_and_their_parts():
    queue = SubmitQueue(20, lambda: 10)
    for _ in range(3):
        await queue.take(2)
    closing = asyncio.ensure_future(queue.close())
    await asyncio.sleep(0)
    with pytest.raises(NoSlot) as refused:
        await queue.take(1)
    assert refused.value.error_class is ErrorClass.UNREACHABLE
    await queue.take_for_part(2)
    for _ in range(3):
        assert not closing.done()
        queue.give_back()
    await closing


async def test_ending_the_queue_raises_in_every_waiter():
    queue = SubmitQueue(0.5, lambda: 10)
    await queue.take(2)
    part = asyncio.ensure_future(queue.take_for_part(2))
    await asyncio.sleep(0)
    queue.end()
    with pytest.raises(NoSlot):
        await part


# Requests that are no submits


async def test_operations_hold_a_quarter_of_the_window_and_submits_find_the_rest():
    queue = SubmitQueue(None, lambda: 8)
    cancels = [asyncio.ensure_future(queue.take_for_operation(patience=60)) for _ in range(20)]
    await asyncio.sleep(0)
    assert (queue.held, queue.held_by_operations) == (2, 2)
    for _ in range(6):
        await queue.take(3)
    late = asyncio.ensure_future(queue.take(1, patience=60))
    await asyncio.sleep(0)
    assert not late.done()
    queue.give_back_operation()
    await asyncio.sleep(0)
    assert late.done() + sum(cancel.done() for cancel in cancels) == 3
    assert queue.held == 8
    queue.end()
    await asyncio.gather(late, *cancels, return_exceptions=True)


@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("many", ["operations", "submits"])
async def test_neither_submits_nor_operations_starve_the_other(capacity, many):
    queue = SubmitQueue(None, lambda: capacity)
    most = 0
    done: list[str] = []

    async def submit():
        nonlocal most
        await queue.take(3, patience=300)
        most = max(most, queue.held)
        await asyncio.sleep(0)
        queue.give_back()
        done.append("submits")

    async def operation():
        nonlocal most
        await queue.take_for_operation(patience=300)
        most = max(most, queue.held)
        await asyncio.sleep(0)
        queue.give_back_operation()
        done.append("operations")

    flood, few = (operation, submit) if many == "operations" else (submit, operation)
    tasks = [asyncio.ensure_future(flood()) for _ in range(200)]
    await asyncio.sleep(0)
    tasks += [asyncio.ensure_future(few()) for _ in range(3)]
    await asyncio.gather(*tasks)
    other = "submits" if many == "operations" else "operations"
    assert len(done) - done[::-1].index(other) <= 40, "the few were done among the first"
    assert most <= capacity
    assert (queue.held, queue.held_by_operations) == (0, 0)


async def test_an_operation_waits_only_for_so_long_and_leaves_nothing_behind():
    queue = SubmitQueue(None, lambda: 1)
    await queue.take(1)
    with pytest.raises(NoSlot):
        await queue.take_for_operation(patience=0.01)
    leaving = asyncio.ensure_future(queue.take_for_operation(patience=60))
    await asyncio.sleep(0)
    queue.give_back()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert (queue.held, queue.held_by_operations) == (0, 0)
    await queue.take(1)
    closing = asyncio.ensure_future(queue.close())
    await asyncio.sleep(0)
    with pytest.raises(NoSlot):
        await queue.take_for_operation(patience=60)
    queue.give_back()
    await closing


async def test_operations_do_not_wait_for_the_rate():
    queue = SubmitQueue(0.001, lambda: 10)
    await queue.take(1)
    submit = asyncio.ensure_future(queue.take(1, patience=10_000))
    for _ in range(2):
        await queue.take_for_operation(patience=60)
    assert not submit.done()
    queue.end()
    await asyncio.wait([submit])
    assert isinstance(submit.exception(), NoSlot)


# Demand


async def test_messages_count_as_demand_once_whether_they_leave_or_wait_or_are_turned_away():
    queue = SubmitQueue(10, lambda: 1000)
    assert queue.demand() == RateDemand(0, 0, is_limited=False)
    began = asyncio.get_running_loop().time()
    waiting = [asyncio.ensure_future(queue.take(3, patience=60)) for _ in range(10)]
    await asyncio.sleep(0)
    with pytest.raises(NoSlot):
        await queue.take(4, patience=0.1)
    await queue.take(1)
    await queue.take_for_part(1)
    await asyncio.sleep(1.1)
    elapsed = asyncio.get_running_loop().time() - began
    demand = queue.demand()
    assert demand.total * elapsed == pytest.approx(13, rel=0.1)
    assert demand.critical * elapsed == pytest.approx(2, rel=0.1)
    assert demand.is_limited
    queue.end()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_window_is_no_reason_for_more_rate():
    queue = SubmitQueue(1000, lambda: 1)
    await queue.take(3)
    waiting = [asyncio.ensure_future(queue.take(3, patience=60)) for _ in range(10)]
    await asyncio.sleep(1.1)
    assert not queue.demand().is_limited
    queue.end()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_demand_falls_only_after_two_intervals():
    queue = SubmitQueue(1000, lambda: 1000)
    for _ in range(100):
        await queue.take(3)
    await asyncio.sleep(1.1)
    first = queue.demand()
    assert first.total > 0
    assert queue.demand() == first  # no interval has ended since
    await asyncio.sleep(1.1)
    assert queue.demand().total == first.total
    await asyncio.sleep(1.1)
    assert queue.demand().total == 0


async def test_a_message_that_a_small_share_turns_away_is_tried_again_when_shares_have_changed():
    queue = SubmitQueue(100, lambda: 1000)
    queue.limit_rate(0.01)
    await queue.take(1)
    with pytest.raises(NoSlot) as refused:
        await queue.take(1)
    assert refused.value.after < timedelta(seconds=5)
    queue.limit_rate(0)
    with pytest.raises(NoSlot) as refused:
        await queue.take(1)
    assert refused.value.after < timedelta(seconds=5)
    waiting = asyncio.ensure_future(queue.take_for_part(1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    queue.limit_rate(100)
    await waiting

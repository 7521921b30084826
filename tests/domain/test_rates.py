"""How the rate of a provider is divided by demand."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.rates import NO_DEMAND, RESERVED, RateDemand, divide_rate, lease

RATES = st.one_of(
    st.floats(0.01, 10_000), st.sampled_from([0.2, 1.0, 1 / 3, 50.0, 200.0, 1e-3, 1e5])
)


@st.composite
def demands(draw: st.DrawFn, least: int = 0) -> dict[str, RateDemand]:
    """Up to eight workers; demands from nothing to far more than any rate."""
    found = {}
    for number in range(draw(st.integers(least, 8))):
        total = draw(st.just(0.0) | st.floats(0, 50_000) | st.integers(0, 300).map(float))
        critical = total * draw(st.sampled_from([0.0, 0.1, 1.0]))
        found[f"w{number}"] = RateDemand(total, critical, is_limited=draw(st.booleans()))
    return found


def limited(total: float, critical: float = 0.0) -> RateDemand:
    return RateDemand(total, critical, is_limited=True)


def satisfied(total: float, critical: float = 0.0) -> RateDemand:
    return RateDemand(total, critical, is_limited=False)


@given(RATES, demands())
def test_the_sum_of_all_shares_is_the_rate_and_never_more(rate, wanted):
    shares = divide_rate(rate, wanted)
    assert shares.keys() == wanted.keys()
    assert math.fsum(shares.values()) <= rate
    if wanted:
        assert math.fsum(shares.values()) == pytest.approx(rate, rel=1e-6)


@given(RATES, demands(least=2))
def test_each_worker_has_its_reserved_part_whatever_the_others_want(rate, wanted):
    least = RESERVED * rate / (len(wanted) - 1)
    assert min(divide_rate(rate, wanted).values()) >= least * (1 - 1e-6)


@given(RATES, demands(least=2), st.data())
def test_a_worker_with_all_the_demand_gets_more_than_95_percent(rate, wanted, data):
    busy = data.draw(st.sampled_from(sorted(wanted)))
    idle = dict.fromkeys(wanted, NO_DEMAND)
    shares = divide_rate(rate, {**idle, busy: limited(rate / 10)})
    assert shares[busy] >= 0.97 * rate


@given(RATES, st.floats(0, 1e5), st.booleans())
def test_a_worker_alone_gets_the_whole_rate(rate, total, is_limited):
    alone = {"a": RateDemand(total, 0.0, is_limited=is_limited)}
    assert divide_rate(rate, alone) == {"a": rate}


@given(RATES, demands(least=2))
def test_no_worker_has_rate_that_it_does_not_use_while_another_wants_more(rate, wanted):
    shares = divide_rate(rate, wanted)
    reserved = RESERVED * rate / (len(wanted) - 1)
    short = [
        worker
        for worker, demand in wanted.items()
        if demand.is_limited or shares[worker] < demand.total * (1 - 1e-6)
    ]
    for worker, demand in wanted.items():
        if short and not demand.is_limited:
            used = max(1.25 * demand.total, reserved)
            assert shares[worker] <= max(used, min(shares[each] for each in short)) * (1 + 1e-6)


@given(RATES, demands(least=2))
def test_critical_messages_come_before_all_others(rate, wanted):
    """A worker whose critical messages do not get all has no less than one with other messages."""
    shares = divide_rate(rate, wanted)
    reserved = RESERVED * rate / (len(wanted) - 1)
    for worker, demand in wanted.items():
        if shares[worker] < demand.critical * (1 - 1e-6):
            for other, its in wanted.items():
                largest = max(shares[worker], 1.25 * its.critical, reserved)
                assert shares[other] <= largest * (1 + 1e-6)


@given(RATES, demands(), st.randoms(use_true_random=False))
def test_every_process_comes_to_the_same_shares_from_the_same_rows(
    rate, wanted, chance: random.Random
):
    shuffled = dict(chance.sample(list(wanted.items()), len(wanted)))
    assert divide_rate(rate, shuffled) == divide_rate(rate, wanted)


def measured(true: float, share: float) -> RateDemand:
    """What a worker reports that wants `true` messages a second, and may submit `share`."""
    if true > share:
        return limited(share * 1.5)
    return satisfied(true)


@given(
    RATES,
    st.lists(st.just(math.inf) | st.floats(0, 2), min_size=2, max_size=6),
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
)
def test_shares_settle_and_do_not_oscillate_while_the_demand_is_constant(rate, parts, before):
    true = {f"w{n}": part * rate for n, part in enumerate(parts)}
    shares = {worker: before[n] * rate / len(true) for n, worker in enumerate(true)}
    seen = []
    for _ in range(12):
        shares = divide_rate(rate, {each: measured(true[each], shares[each]) for each in true})
        seen.append(shares)
    assert seen[-1] == pytest.approx(seen[-2], rel=1e-6)
    if sum(true.values()) < rate * 0.7:  # the headroom of some is the need of none
        assert all(seen[-1][each] >= true[each] * (1 - 1e-6) for each in true)


def test_two_that_want_more_than_there_is_get_equal_shares():
    shares = divide_rate(200.0, {"a": limited(3), "b": limited(290)})
    assert shares == pytest.approx({"a": 100, "b": 100}, rel=1e-6)


def test_a_very_small_rate_is_divided_too():
    shares = divide_rate(0.2, {"alerts": NO_DEMAND, "bulk": limited(0.3)})
    assert shares == pytest.approx({"alerts": 0.005, "bulk": 0.195}, rel=1e-6)


def test_alerts_get_what_they_want_beside_many_workers_with_bulks():
    bulks = {f"bulk{n}": limited(50) for n in range(9)}
    shares = divide_rate(200.0, {**bulks, "alerts": limited(100, critical=100)})
    assert shares["alerts"] == pytest.approx(125, rel=1e-6)


@given(RATES, demands(least=2), st.data())
def test_at_no_moment_of_a_change_is_more_leased_than_the_rate(rate, wanted, data):
    """Workers renew in any order, some miss heartbeats and some are new; demands change meanwhile."""
    reported = dict.fromkeys(wanted, 0.0)
    used = dict.fromkeys(wanted, 0.0)
    for _ in range(data.draw(st.integers(1, 15))):
        worker = data.draw(st.sampled_from(sorted(wanted)))
        wanted = {**wanted, worker: data.draw(demands(least=1))["w0"]}
        reported[worker] = used[worker]
        target = divide_rate(rate, wanted)[worker]
        leased = lease(target, used[worker], rate, list(reported.values()))
        reported[worker] = max(reported[worker], leased)
        used[worker] = leased
        assert math.fsum(used.values()) <= math.fsum(reported.values()) <= rate * (1 + 1e-9)
    for _ in range(2):  # once to give back, once to take
        for worker in wanted:
            reported[worker] = used[worker]
            target = divide_rate(rate, wanted)[worker]
            used[worker] = lease(target, used[worker], rate, list(reported.values()))
            reported[worker] = max(reported[worker], used[worker])
        for worker in wanted:
            reported[worker] = used[worker]
    assert used == pytest.approx(divide_rate(rate, wanted), rel=1e-6)

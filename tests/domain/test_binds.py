"""How binds are shared among workers."""

import random

from hypothesis import assume, given
from hypothesis import strategies as st

from domain.binds import (
    EVERY_ROLE,
    ONE_IS_ENOUGH,
    BindError,
    BindFailure,
    Holder,
    divide,
    roles_to_serve,
)

BOTH = frozenset({"providers", "chunks"})
ROLES = st.sampled_from([BOTH, frozenset({"providers"}), frozenset({"chunks"}), frozenset[str]()])
WORKERS = st.lists(st.tuples(ROLES, st.integers(0, 4)), max_size=6).map(
    lambda found: [Holder(f"w{n}", roles, held) for n, (roles, held) in enumerate(found)]
)
BINDS = st.integers(1, 12)
RATES = st.sampled_from([None, ONE_IS_ENOUGH / 10, ONE_IS_ENOUGH * 10])


def of(*roles: frozenset[str], held: int = 0) -> list[Holder]:
    return [Holder(f"w{n}", each, held) for n, each in enumerate(roles)]


@given(BINDS, RATES, WORKERS)
def test_all_binds_are_held_while_there_is_a_worker_and_never_more(binds, rate, workers):
    share = divide(binds, rate, workers)
    assert sum(share.values()) == (binds if any(each.roles for each in workers) else 0)
    assert set(share) == {each.worker for each in workers}
    assert not any(share[each.worker] for each in workers if not each.roles)


@given(BINDS, WORKERS)
def test_binds_are_dealt_evenly_where_one_worker_is_not_enough(binds, workers):
    share = divide(binds, None, workers)
    staying = [share[each.worker] for each in workers if each.roles]
    assume(staying)
    assert max(staying) - min(staying) <= 1


@given(st.integers(2, 12), RATES, WORKERS)
def test_each_role_that_somebody_has_gets_a_bind(binds, rate, workers):
    share = divide(binds, rate, workers)
    served = [each.roles for each in workers if share[each.worker]]
    assert frozenset().union(*served) == frozenset().union(*(each.roles for each in workers))


@given(BINDS, RATES, WORKERS, st.randoms(use_true_random=False))
def test_every_worker_comes_to_the_same_result(
    binds, rate, workers: list[Holder], chance: random.Random
):
    shuffled = chance.sample(workers, len(workers))
    assert divide(binds, rate, shuffled) == divide(binds, rate, workers)


@given(BINDS, RATES, WORKERS)
def test_what_is_divided_stays_so(binds, rate, workers):
    share = divide(binds, rate, workers)
    held = [Holder(each.worker, each.roles, share[each.worker]) for each in workers]
    assert divide(binds, rate, held) == share


def test_a_slow_provider_stays_with_the_worker_that_has_it():
    first, second = Holder("a", BOTH, 0), Holder("b", BOTH, 2)
    assert divide(2, 100.0, [first, second]) == {"a": 0, "b": 2}
    assert divide(2, None, [first, second]) == {"a": 1, "b": 1}


def test_with_one_bind_a_worker_with_both_roles_is_preferred():
    workers = of(frozenset({"providers"}), frozenset({"chunks"}), BOTH)
    assert divide(1, None, workers) == {"w0": 0, "w1": 0, "w2": 1}


@given(BINDS, RATES, WORKERS, st.data())
def test_every_role_is_polled_for_as_soon_as_one_worker_is_bound(binds, rate, workers, data):
    """Whoever cannot bind, and whatever was polled for before: one heartbeat of each is enough."""
    share = divide(binds, rate, workers)
    bound = {each.worker for each in workers if share[each.worker] and data.draw(st.booleans())}
    polls = {each.worker: data.draw(ROLES) for each in workers}
    for heartbeats in workers:
        known = [
            Holder(
                each.worker,
                each.roles,
                share[each.worker],
                polls[each.worker] if each.worker in bound else frozenset(),
            )
            for each in workers
        ]
        polls[heartbeats.worker] = roles_to_serve(heartbeats.worker, known)
    polled = frozenset().union(*(polls[name] for name in bound))
    assert polled == (EVERY_ROLE if bound else frozenset())


@given(ROLES, ROLES)
def test_a_worker_leaves_a_role_to_one_that_polls_for_it_as_its_own(mine, others):
    workers = [Holder("a", mine, 1), Holder("b", others, 1, polls=others)]
    assert roles_to_serve("a", workers) == mine | (EVERY_ROLE - others)


@given(
    st.sampled_from(BindFailure),
    st.sampled_from([None, "ESME_RINVPASWD"]),
    st.sampled_from([None, "receiver"]),
)
def test_every_bind_error_says_what_happened_and_what_to_do(reason, code, session):
    sentence = BindError(reason, code, session).sentence
    what, advice = sentence.split(". ", 1)
    assert what
    assert advice.endswith(".")
    assert (code or "") in sentence
    assert (session or "") in sentence

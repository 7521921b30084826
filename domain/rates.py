"""How the rate of a provider is divided among the workers that hold its binds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

RESERVED: Final = 0.025
"""The part of the rate that the workers without demand keep, in total, beside one with all the demand:
the first critical message of a worker finds a rate, however much others send."""

WORTH_A_HEARTBEAT: Final = 0.02
"""The part of the rate that does not wait for the next regular heartbeat, when it is given back or wanted."""

_HEADROOM: Final = 1.25
"""The part of its demand that a worker may use, so that demand can grow until the next heartbeat."""
_ROUNDING: Final = 1e-9
"""The part of the rate that no share contains, so that their sum does not exceed it when rounded."""


@dataclass(frozen=True, slots=True)
class RateDemand:
    """What a worker wanted to submit to a provider, in messages a second.

    Attributes:
        total: submitted, waiting, and turned away since they would have waited too long.
        critical: those of critical priority among them.
        is_limited: whether its rate was what kept them waiting, so that it can use more than `total`.
    """

    total: float
    critical: float
    is_limited: bool


NO_DEMAND: Final = RateDemand(0.0, 0.0, is_limited=False)


def divide_rate(rate: float, demands: Mapping[str, RateDemand]) -> dict[str, float]:
    """How many messages a second each worker may submit; `rate` in total, where there is a worker.

    Each worker has a reserved part, whatever its demand. Then critical messages get what they want,
    then all others, and at last the rate that nobody wants is divided. At each step the smallest
    shares grow first, so that workers that want more than there is get equal shares. The result
    depends on the demands alone: while they are constant, so are the shares.
    """
    order = sorted(demands)
    if len(order) <= 1:
        return dict.fromkeys(order, rate)
    divisible = rate * (1 - _ROUNDING)
    reserved = RESERVED * divisible / (len(order) - 1)
    shares = dict.fromkeys(order, reserved)
    spare = divisible - reserved * len(order)
    for wanted in (
        {worker: _HEADROOM * demands[worker].critical for worker in order},
        {worker: _wanted(demands[worker]) for worker in order},
        dict.fromkeys(order, math.inf),
    ):
        spare = _grow(shares, wanted, spare)
    return shares


def _wanted(demand: RateDemand) -> float:
    return math.inf if demand.is_limited else _HEADROOM * demand.total


def _grow(shares: dict[str, float], wanted: Mapping[str, float], spare: float) -> float:
    """Grow the smallest shares first, each at most to what is wanted; what is left of `spare`."""
    while growing := [worker for worker in shares if shares[worker] < wanted[worker]]:
        smallest = min(shares[worker] for worker in growing)
        level = [worker for worker in growing if shares[worker] == smallest]
        next_level = min(
            *(wanted[worker] for worker in level),
            *(shares[worker] for worker in growing if worker not in level),
            math.inf,
        )
        needed = (next_level - smallest) * len(level)
        if needed >= spare:
            shares.update(dict.fromkeys(level, smallest + spare / len(level)))
            return 0.0
        shares.update(dict.fromkeys(level, next_level))
        spare -= needed
    return spare


def lease(target: float, held: float, rate: float, all_held: Sequence[float]) -> float:
    """The share that a worker may use from now on, of which `target` is the goal.

    A share that shrinks does so at once. One that grows takes only what no worker holds: `all_held`
    has the shares that all of them may still use, `held` of this worker among them.
    """
    return min(target, held + max(0.0, rate - math.fsum(all_held)))

"""Which worker holds how many of a provider's binds, and how much of its rate: leased at each heartbeat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from domain.binds import Holder, divide, roles_to_serve
from domain.configuration import ProviderConfiguration
from domain.rates import WORTH_A_HEARTBEAT, RateDemand, divide_rate, lease
from store import providers as store
from store.database import Database
from store.providers import Heartbeat

_RATE_DIVIDED: Final = timedelta(seconds=1)
_RATE_SHORT: Final = timedelta(seconds=0.5)
"""When the next heartbeat is due while several workers divide a rate, and while this one waits for a part
of it that another has to give back: demand should not wait long."""


@dataclass(frozen=True, slots=True)
class Leased:
    """What a worker may do at a provider from now on.

    Attributes:
        binds: how many it may hold.
        roles: whose task queues it should poll while a bind is up.
        rate: how many messages a second it may submit; None for no limit.
        renew_within: when its next heartbeat is due.
    """

    binds: int
    roles: frozenset[str]
    rate: float | None
    renew_within: timedelta


class BindLeases:
    """Divides the binds and the rate of each provider among the workers of this database.

    All binds and all shares of the rate are in total no more than the configuration says. A worker whose
    part shrinks gives back first, and reports that with a heartbeat; then a worker whose part grows
    takes what is free.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def renew(
        self, heartbeat: Heartbeat, declared: ProviderConfiguration, is_gone: Callable[[str], bool]
    ) -> Leased:
        """Write a heartbeat; what this worker may do from now on.

        If that is less than the heartbeat says, the others wait until a later heartbeat reports it.
        `is_gone` says of a worker, by its name, whether it certainly does not run any more.
        """
        async with self._database.begin() as connection:
            living = []
            for holder in await store.holders(connection, heartbeat):
                if holder.worker != heartbeat.worker and is_gone(holder.worker):
                    store.deregister(connection, heartbeat.provider, holder.worker)
                else:
                    living.append(holder)
            shares = divide(declared.binds, declared.rate, living)
            free = declared.binds - sum(holder.held for holder in living)
            binds = min(shares[heartbeat.worker], heartbeat.binds_held + max(0, free))
            served = [holder for holder in living if shares[holder.worker]]
            rate, renew_within = _leased_rate(heartbeat, declared.rate, living, served)
            binds_held = max(binds, heartbeat.binds_held)
            rate_held = _larger(rate, heartbeat.rate_share)
            if (binds_held, rate_held) != (heartbeat.binds_held, heartbeat.rate_share):
                store.holds(connection, heartbeat.provider, heartbeat.worker, binds_held, rate_held)
        return Leased(binds, roles_to_serve(heartbeat.worker, living), rate, renew_within)


def _leased_rate(
    heartbeat: Heartbeat, rate: float | None, living: Sequence[Holder], served: Sequence[Holder]
) -> tuple[float | None, timedelta]:
    """The share of the rate that a worker may use, and when its next heartbeat is due.

    `served` are the workers that have binds, or will have.
    """
    if rate is None:
        return None, store.HEARTBEAT_INTERVAL
    targets = divide_rate(rate, {holder.worker: _demand(holder) for holder in served})
    target = targets.get(heartbeat.worker, 0.0)
    # A worker without a limit has a configuration without a rate, and may send as much as this one says.
    held = [rate if holder.rate_share is None else holder.rate_share for holder in living]
    share = lease(target, heartbeat.rate_share or 0.0, rate, held)
    if share < target - WORTH_A_HEARTBEAT * rate:
        return share, _RATE_SHORT
    return share, store.HEARTBEAT_INTERVAL if len(targets) == 1 else _RATE_DIVIDED


def _demand(holder: Holder) -> RateDemand:
    return RateDemand(holder.demand, holder.critical_demand, is_limited=holder.rate_limited)


def _larger(rate: float | None, other: float | None) -> float | None:
    return None if rate is None or other is None else max(rate, other)

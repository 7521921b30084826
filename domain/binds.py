"""How the binds of a provider are shared among the workers that would hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ONE_IS_ENOUGH: Final = 500.0
"""Messages a second that one worker keeps up with, and with it all of a provider's binds."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A living worker that holds binds, or would.

    Attributes:
        worker: its name, of which there is one.
        roles: what it takes on at this provider; none if it is about to leave.
        held: how many binds it may hold now.
    """

    worker: str
    roles: frozenset[str]
    held: int


def divide(binds: int, rate: float | None, holders: Sequence[Holder]) -> dict[str, int]:
    """How many binds each worker should hold; all of them together, where there is a worker.

    Each role gets its worker first, as far as there are binds. A provider that is slow enough for
    one worker stays with these: half of its rate would be no use to anybody. The binds of others
    are dealt evenly. Who holds some keeps them where that is as good, so that nobody binds anew for
    nothing; every worker that knows the same of the others comes to the same result.
    """
    staying = [holder for holder in holders if holder.roles]
    order = sorted(staying, key=lambda holder: (-holder.held, holder.worker))
    chosen: list[Holder] = []
    roles = frozenset[str]().union(*(holder.roles for holder in order))
    while missing := roles.difference(*(holder.roles for holder in chosen)):
        chosen.append(max(order, key=lambda holder: len(holder.roles & missing)))
    if rate is None or rate > ONE_IS_ENOUGH:
        chosen += [holder for holder in order if holder not in chosen]
    share = dict.fromkeys((holder.worker for holder in holders), 0)
    for place in range(binds if chosen else 0):
        share[chosen[place % len(chosen)].worker] += 1
    return share

"""Which worker holds how many of a provider's binds: agreed upon at each beat."""

from collections.abc import Callable, Mapping, Sequence

from domain.binds import Holder, divide
from domain.configuration import SmppProvider
from store import providers as store
from store.database import Database
from store.providers import Beat
from telemetry.logs import get_logger

_log = get_logger(__name__)


class BindShares:
    """What the workers of this database agree upon; a beat of each is its voice.

    All binds of a provider are in total no more than its configuration says: who should hold fewer
    gives back first, and who should hold more waits for that.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unserved: set[str] = set()

    async def agree(
        self, beat: Beat, declared: SmppProvider, is_gone: Callable[[str], bool]
    ) -> int:
        """Write a beat; how many binds this worker may hold from now on.

        If that is fewer than `beat.binds_held`, the others wait until a later beat says so.
        `is_gone` tells of a worker, by its name, that it surely does not run any more.
        """
        async with self._database.begin() as connection:
            living = []
            for row in await store.holders(connection, beat):
                if row["worker"] != beat.worker and is_gone(row["worker"]):
                    store.gone(connection, beat.provider, row["worker"])
                else:
                    roles = frozenset(row["roles"])
                    living.append(Holder(row["worker"], roles, row["binds_held"]))
            shares = divide(declared.binds, declared.rate, living)
            free = declared.binds - sum(holder.held for holder in living)
            binds = min(shares[beat.worker], beat.binds_held + max(0, free))
            if binds > beat.binds_held:
                store.holds(connection, beat.provider, beat.worker, binds)
        self._tell_of_roles(beat, declared.binds, living, shares)
        return binds

    def _tell_of_roles(
        self, beat: Beat, binds: int, living: Sequence[Holder], shares: Mapping[str, int]
    ) -> None:
        """Say it once, where there are too few binds for this worker's roles to be taken on."""
        served = frozenset[str]().union(*(each.roles for each in living if shares[each.worker]))
        if served.issuperset(beat.roles):
            self._unserved.discard(beat.provider)
        elif beat.provider not in self._unserved:
            self._unserved.add(beat.provider)
            _log.error("too_few_binds_for_roles", provider=beat.provider, count=binds)

"""How the providers are: declared, up or down, and what came of the last hour's attempts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.binds import EVERY_ROLE, BindError, ProviderRole, latest
from domain.configuration import ProviderConfiguration
from services.configuration import Configurations
from services.submission import Caller
from store import providers as store
from store import unparsed_receipts
from store.database import Database
from store.providers import RecentFigures, WorkerHeartbeat
from store.receipts.unmatched import UnmatchedCounts, unmatched_counts

WINDOW = timedelta(minutes=60)
# A message may wait a long time before an attempt; older ones are not counted.
_OLDEST_MESSAGE = timedelta(days=2)
_UNMATCHED_SINCE = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class RateShare:
    """What a living worker may submit, and what it wanted to, in messages a second.

    Attributes:
        roles: the worker's own.
        share: None for no limit.
        critical_demand: the part of `demand` of critical priority.
    """

    roles: frozenset[str]
    share: float | None
    demand: float
    critical_demand: float


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """A declared provider; `recent` holds figures of the caller's own attempts.

    Attributes:
        roles: those for which a living worker with a bind polls.
        workers: how many live.
        last_bind_error: why a session that should be bound is not, or was not at last, by a living
            worker: one that is not bound now comes before those that are again.
        bind_errors: all that living workers report, each once, with the number of its workers.
        rate_ratio: how much of its usual rate the slowest worker uses: 1, or less while it throttles.
        rate_shares: how the rate is divided among the workers that hold binds.
        unparsed_receipts: those that are stored and could not be parsed, at most 10,000.
        unmatched: the receipts of the last three days that match no message.
    """

    name: str
    declared: ProviderConfiguration
    roles: frozenset[ProviderRole]
    workers: int
    binds_up: int
    last_heartbeat_at: datetime | None
    unparsed_receipts: int
    rate_ratio: float
    rate_shares: Sequence[RateShare]
    last_bind_error: BindError | None
    bind_errors: tuple[tuple[BindError, int], ...]
    recent: RecentFigures | None
    unmatched: UnmatchedCounts

    @property
    def up(self) -> bool:
        """Whether messages of every kind can be sent over it."""
        return self.roles == EVERY_ROLE

    @property
    def detail(self) -> str | None:
        """Why it is not up, and what to do; None while it is."""
        if self.up:
            return None
        error = self.last_bind_error
        if not self.workers:
            return _NO_WORKER
        if error is not None and error.is_current:
            return error.sentence
        if not self.binds_up:
            return _NOT_BOUND_YET
        missing = ", ".join(sorted(role for role in EVERY_ROLE - self.roles))
        return _NOT_POLLED.format(roles=missing)


_NO_WORKER = (
    "No worker process serves it: start one with the roles providers and chunks, and with this provider "
    "if it is started with --provider."
)
_NOT_BOUND_YET = (
    "No session is bound yet, and none has failed: this lasts some seconds after a start. If it lasts "
    "longer, another worker holds its binds, or `binds` is too low."
)
_NOT_POLLED = (
    "A session is bound, and no worker polls the task queues of {roles} for it. If this lasts longer "
    "than some seconds, look for loop_failed in the log of the workers."
)


class Providers:
    """The state of providers, for the API."""

    def __init__(self, reads: Database, configurations: Configurations) -> None:
        self._reads = reads
        self._configurations = configurations

    async def listed(self, caller: Caller) -> list[ProviderStatus]:
        """The providers that messages of the caller's environment can reach, by name."""
        providers = {
            name: declared
            for name, declared in sorted(self._configurations.current.providers.items())
            if declared.environment is caller.environment
        }
        now = datetime.now(UTC)
        since = _smallest_id(now - _OLDEST_MESSAGE)
        async with self._reads.begin() as connection:
            heartbeats: defaultdict[str, list[WorkerHeartbeat]] = defaultdict(list)
            for heartbeat in await store.workers(connection):
                heartbeats[heartbeat.provider].append(heartbeat)
            figures = {
                each.provider: each
                for each in await store.recent(
                    connection, caller.account_id, caller.environment.value, str(since)
                )
            }
            unparsed = await unparsed_receipts.counts(connection, providers)
            unmatched = await unmatched_counts(connection, now - _UNMATCHED_SINCE)
        statuses = []
        for name, declared in providers.items():
            heartbeats_of = heartbeats[name]
            living = [heartbeat for heartbeat in heartbeats_of if heartbeat.lives]
            polled = frozenset[str]().union(*(heartbeat.polls for heartbeat in living))
            errors = [each.last_bind_error for each in living if each.last_bind_error is not None]
            statuses.append(
                ProviderStatus(
                    name=name,
                    declared=declared,
                    roles=frozenset(role for role in ProviderRole if role.value in polled),
                    workers=len(living),
                    binds_up=sum(heartbeat.binds_up for heartbeat in living),
                    last_heartbeat_at=heartbeats_of[0].heartbeat_at if heartbeats_of else None,
                    last_bind_error=latest(errors),
                    bind_errors=_counted(errors),
                    unparsed_receipts=unparsed[name],
                    rate_ratio=min((heartbeat.rate_ratio for heartbeat in living), default=1.0),
                    rate_shares=_rate_shares(living),
                    recent=figures.get(name),
                    unmatched=unmatched.get(name, UnmatchedCounts(name)),
                )
            )
        return statuses


def _rate_shares(living: Sequence[WorkerHeartbeat]) -> list[RateShare]:
    """Of the workers that may submit, in an order that does not change from heartbeat to heartbeat."""
    return [
        RateShare(each.roles, each.rate_share, each.demand, each.critical_demand)
        for each in sorted(living, key=lambda each: (sorted(each.roles), each.worker))
        if each.roles and each.binds_held
    ]


def _counted(errors: Sequence[BindError]) -> tuple[tuple[BindError, int], ...]:
    """Each error once, those that last before those that have ended, and how many report it."""
    alike: defaultdict[tuple[BindError, bool], list[BindError]] = defaultdict(list)
    for error in errors:
        alike[error, error.is_current].append(error)
    found = [(max(same, key=_moment), len(same)) for same in alike.values()]
    return tuple(sorted(found, key=lambda each: (not each[0].is_current, -_moment(each[0]))))


def _moment(error: BindError) -> float:
    """When an error was found last, in seconds since 1970."""
    return error.at.timestamp() if error.at is not None else 0.0


def _smallest_id(moment: datetime) -> UUID:
    """The smallest UUIDv7 of a moment (RFC 9562, 5.7: 48 bits of milliseconds come first)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)

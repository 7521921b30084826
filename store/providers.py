"""Which workers can send through a provider now, and what came of it lately."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from domain.binds import BindError, BindFailure, Holder, ProviderRole
from domain.rates import NO_DEMAND, RateDemand
from store.database import Connection, PendingResult, sql
from store.rows import Query, read_with

HEARTBEAT_INTERVAL = timedelta(seconds=2)
HEARTBEAT_TIMEOUT = timedelta(seconds=8)
"""A worker whose last heartbeat is older counts as gone."""

BINDS_HELD_FOR = timedelta(seconds=15)
"""So long after its last heartbeat its binds are its own; it has ended them by then."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a worker says of itself: that it lives, and how it stands with a provider.

    Attributes:
        roles: its own roles there; none if it cannot bind or is about to leave.
        binds_held: how many binds it holds, or may be about to give back.
        binds_up: how many of them can transmit.
        state: "up" or "down".
        polls: the roles whose task queues it polls now.
        last_bind_error: why a session that should be bound is not, or was not at last.
        rate_ratio: the present rate divided by the usual one, below 1 while the provider throttles.
        rate_share: messages a second that it may submit; None for no limit.
        demand: what it wanted to submit.
    """

    provider: str
    worker: str
    roles: Sequence[str]
    binds_held: int
    binds_up: int
    state: str
    polls: Sequence[str]
    last_bind_error: BindError | None = None
    rate_ratio: float = 1.0
    rate_share: float | None = 0.0
    demand: RateDemand = NO_DEMAND


def _bind_error(stored: Mapping[str, Any] | None) -> BindError | None:
    if stored is None:
        return None
    try:
        reason = BindFailure(stored["reason"])
    except ValueError:  # of a newer version
        reason = BindFailure.UNEXPECTED
    return BindError(
        reason,
        stored["code"],
        stored["session"],
        stored.get("subject"),
        at=_moment(stored.get("at")),
        ended_at=_moment(stored.get("ended_at")),
    )


def _moment(stored: str | None) -> datetime | None:
    return datetime.fromisoformat(stored) if stored else None


def _as_json(error: BindError | None) -> Jsonb | None:
    if error is None:
        return None
    return Jsonb(
        {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(error).items()
        }
    )


@dataclass(frozen=True, slots=True)
class WorkerHeartbeat:
    """The last heartbeat of a worker of a provider.

    Attributes:
        lives: whether it is recent enough for the worker to count.
        roles: its own roles.
        polls: the roles for which it can send now.
        rate_share: messages a second that it may submit; None for no limit.
        demand, critical_demand: messages a second that it wanted to submit.
    """

    provider: str
    worker: str
    heartbeat_at: datetime
    lives: bool
    roles: frozenset[str]
    binds_held: int
    binds_up: int
    polls: frozenset[str]
    last_bind_error: BindError | None = field(metadata=read_with(_bind_error))
    rate_ratio: float
    rate_share: float | None
    demand: float
    critical_demand: float


@dataclass(frozen=True, slots=True)
class RecentFigures:
    """How many attempts at a provider have which outcome; `accept_p50_ms` is in milliseconds."""

    provider: str
    attempts: int
    accepted: int
    refused: int
    unreachable: int
    unknown: int
    delivered: int
    undelivered: int
    accept_p50_ms: float | None


@dataclass(frozen=True, slots=True)
class _LastUp:
    provider: str
    last_up_at: datetime


# One worker at a time agrees with the others; nobody may hold what somebody holds already.
_ONE_AT_A_TIME = sql("SELECT pg_advisory_xact_lock(hashtextextended('binds of ' || :provider, 0))")
_BEAT = sql("""
INSERT INTO provider_workers (provider, worker, heartbeat_at, roles, polls, binds_held, binds_up, state,
                              last_bind_error, rate_ratio, rate_share, demand, critical_demand,
                              rate_limited)
VALUES (:provider, :worker, now(), :roles, :polls, :binds_held, :binds_up, :state, :last_bind_error,
        :rate_ratio, :rate_share, :demand, :critical_demand, :rate_limited)
ON CONFLICT (provider, worker) DO UPDATE
SET heartbeat_at = excluded.heartbeat_at, roles = excluded.roles, polls = excluded.polls,
    binds_held = excluded.binds_held, binds_up = excluded.binds_up, state = excluded.state,
    last_bind_error = excluded.last_bind_error, rate_ratio = excluded.rate_ratio,
    rate_share = excluded.rate_share, demand = excluded.demand,
    critical_demand = excluded.critical_demand, rate_limited = excluded.rate_limited
""")
# The last heartbeat that said up outlives its worker: an outage began with it.
_UP = sql("""
INSERT INTO provider_states (provider, role, last_up_at)
SELECT :provider, role, now() FROM unnest(CAST(:roles AS text[])) AS role ORDER BY role
ON CONFLICT (provider, role) DO UPDATE SET last_up_at = excluded.last_up_at
""")
_LAST_UP = Query.of(_LastUp, "SELECT provider, last_up_at FROM provider_states WHERE role = :role")
_LIVES = "heartbeat_at > now() - CAST(:timeout AS interval)"
"""Heartbeats are compared on the database's clock, which all workers share."""

_POLLS = f"CASE WHEN {_LIVES} AND binds_up > 0 AND state = 'up' THEN polls ELSE '{{}}' END"

_HOLDERS = Query.of(
    Holder,
    f"""
SELECT worker, roles, binds_held AS held, {_POLLS} AS polls, rate_share, demand, critical_demand,
       rate_limited
FROM provider_workers
WHERE provider = :provider AND heartbeat_at > now() - CAST(:held_for AS interval)
""",
)
_HOLDS = sql("""
UPDATE provider_workers SET binds_held = :binds_held, rate_share = :rate_share
WHERE provider = :provider AND worker = :worker
""")
_GONE = sql("DELETE FROM provider_workers WHERE provider = :provider AND worker = :worker")
_SWEEP = sql("DELETE FROM provider_workers WHERE heartbeat_at < now() - interval '1 hour'")
_UP_FOR = Query.of(
    str, f"SELECT DISTINCT provider FROM provider_workers WHERE :role = ANY ({_POLLS})"
)
_WORKERS = Query.of(
    WorkerHeartbeat,
    f"""
SELECT provider, worker, heartbeat_at, {_LIVES} AS lives, roles, binds_held, binds_up,
       {_POLLS} AS polls, last_bind_error, rate_ratio, rate_share, demand, critical_demand
FROM provider_workers ORDER BY provider, heartbeat_at DESC
""",
)
_RECENT = Query.of(
    RecentFigures,
    """
SELECT a.provider, count(*) AS attempts,
       count(*) FILTER (WHERE a.status IN ('accepted', 'delivered', 'undelivered', 'expired'))
           AS accepted,
       count(*) FILTER (WHERE a.status IN ('refused', 'throttled', 'partial')) AS refused,
       count(*) FILTER (WHERE a.status = 'unreachable') AS unreachable,
       count(*) FILTER (WHERE a.status = 'unknown') AS unknown,
       count(*) FILTER (WHERE a.status = 'delivered') AS delivered,
       count(*) FILTER (WHERE a.status IN ('undelivered', 'expired')) AS undelivered,
       percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM coalesce(a.responded_at, p.responded_at)
                            - coalesce(p.submitted_at, a.started_at)) * 1000)
           FILTER (WHERE coalesce(a.responded_at, p.responded_at) IS NOT NULL) AS accept_p50_ms
FROM attempts a
JOIN messages m ON m.id = a.message_id
LEFT JOIN parts p ON p.message_id = a.message_id AND p.attempt = a.number AND p.number = 1
WHERE m.account_id = :account_id AND m.environment = :environment AND m.id > :since
  AND a.started_at > now() - interval '60 minutes'
GROUP BY a.provider
""",
)


def record_heartbeat(connection: Connection, heartbeat: Heartbeat) -> None:
    """Write a heartbeat."""
    values = {name: getattr(heartbeat, name) for name in Heartbeat.__slots__}
    demand = heartbeat.demand
    connection.send(
        _BEAT,
        {
            **values,
            "last_bind_error": _as_json(heartbeat.last_bind_error),
            "demand": demand.total,
            "critical_demand": demand.critical,
            "rate_limited": demand.is_limited,
        },
    )
    if heartbeat.state == "up" and heartbeat.binds_up:
        connection.send(_UP, {"provider": heartbeat.provider, "roles": list(heartbeat.polls)})


async def holders(connection: Connection, heartbeat: Heartbeat) -> Sequence[Holder]:
    """Write a heartbeat; all workers that may hold binds and a part of the rate there.

    Until the end of the transaction no other worker reads or changes what is held.
    """
    connection.send(_ONE_AT_A_TIME, {"provider": heartbeat.provider})
    record_heartbeat(connection, heartbeat)
    return await _HOLDERS.rows(
        connection,
        {"provider": heartbeat.provider, "held_for": BINDS_HELD_FOR, "timeout": HEARTBEAT_TIMEOUT},
    )


def holds(
    connection: Connection, provider: str, worker: str, binds: int, rate_share: float | None
) -> None:
    """From now on a worker may hold so many binds, and submit so many messages a second."""
    connection.send(
        _HOLDS,
        {"provider": provider, "worker": worker, "binds_held": binds, "rate_share": rate_share},
    )


def deregister(connection: Connection, provider: str, worker: str) -> None:
    """A worker takes its leave."""
    connection.send(_GONE, {"provider": provider, "worker": worker})
    connection.send(_SWEEP)


async def up_for(connection: Connection, role: ProviderRole) -> frozenset[str]:
    """Providers for which a living worker with a bind polls the task queues of a role."""
    return frozenset(
        await _UP_FOR.rows(connection, {"role": role.value, "timeout": HEARTBEAT_TIMEOUT})
    )


def last_up(connection: Connection, role: ProviderRole) -> PendingResult[Mapping[str, datetime]]:
    """When a heartbeat last said that a provider is up for a role, of each provider."""
    return _LAST_UP.rows(connection, {"role": role.value}).then(
        lambda found: {each.provider: each.last_up_at for each in found}
    )


async def workers(connection: Connection) -> Sequence[WorkerHeartbeat]:
    """The last heartbeat of each worker of each provider, the latest first."""
    return await _WORKERS.rows(connection, {"timeout": HEARTBEAT_TIMEOUT})


async def recent(
    connection: Connection, account_id: str, environment: str, since_id: str
) -> Sequence[RecentFigures]:
    """What came of an account's attempts of the last 60 minutes, by provider.

    `since_id` is the smallest message id of that hour and more, which keeps the scan short.
    """
    return await _RECENT.rows(
        connection,
        {"account_id": account_id, "environment": environment, "since": since_id},
    )

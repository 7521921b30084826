"""Which workers can send through a provider now, and what came of it lately."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from store.database import Connection, Row, sql

BEAT_EVERY = timedelta(seconds=2)
BEAT_LASTS = timedelta(seconds=8)
"""A worker whose last beat is older counts as gone."""

HELD_LASTS = timedelta(seconds=15)
"""So long after its last beat its binds are its own; it has ended them by then."""

# One worker at a time agrees with the others; nobody may hold what somebody holds already.
_ONE_AT_A_TIME = sql("SELECT pg_advisory_xact_lock(hashtextextended('binds of ' || :provider, 0))")
_BEAT = sql("""
INSERT INTO provider_workers (provider, worker, beat_at, roles, binds_held, binds_up, state)
VALUES (:provider, :worker, now(), :roles, :binds_held, :binds_up, :state)
ON CONFLICT (provider, worker) DO UPDATE
SET beat_at = excluded.beat_at, roles = excluded.roles, binds_held = excluded.binds_held,
    binds_up = excluded.binds_up, state = excluded.state
""")
# A process of before this column holds what it has bound.
_HOLDERS = sql("""
SELECT worker, roles, coalesce(binds_held, binds_up) AS binds_held FROM provider_workers
WHERE provider = :provider AND beat_at > now() - CAST(:lasts AS interval)
""")
_HOLDS = sql("""
UPDATE provider_workers SET binds_held = :binds_held
WHERE provider = :provider AND worker = :worker
""")
_GONE = sql("DELETE FROM provider_workers WHERE provider = :provider AND worker = :worker")
_SWEEP = sql("DELETE FROM provider_workers WHERE beat_at < now() - interval '1 hour'")

# Beats are compared on the database's clock, which all workers share.
_ALIVE = sql("""
SELECT DISTINCT provider FROM provider_workers
WHERE binds_up > 0 AND state = 'up' AND beat_at > now() - CAST(:lasts AS interval)
""")
_WORKERS = sql("""
SELECT provider, count(*) FILTER (WHERE beat_at > now() - CAST(:lasts AS interval)) AS workers,
       coalesce(sum(binds_up) FILTER (WHERE beat_at > now() - CAST(:lasts AS interval)), 0)
           AS binds_up,
       bool_or(binds_up > 0 AND state = 'up'
               AND beat_at > now() - CAST(:lasts AS interval)) AS up,
       max(beat_at) AS last_beat_at
FROM provider_workers GROUP BY provider
""")
_RECENT = sql("""
SELECT a.provider, count(*) AS attempts,
       count(*) FILTER (WHERE a.status IN ('accepted', 'delivered', 'undelivered', 'expired'))
           AS accepted,
       count(*) FILTER (WHERE a.status IN ('refused', 'throttled', 'partial')) AS refused,
       count(*) FILTER (WHERE a.status = 'unreachable') AS unreachable,
       count(*) FILTER (WHERE a.status = 'unknown') AS unknown,
       count(*) FILTER (WHERE a.status = 'delivered') AS delivered,
       count(*) FILTER (WHERE a.status IN ('undelivered', 'expired')) AS undelivered,
       percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM coalesce(a.answered_at, p.answered_at)
                            - coalesce(p.submitted_at, a.started_at)) * 1000)
           FILTER (WHERE coalesce(a.answered_at, p.answered_at) IS NOT NULL) AS accept_p50_ms
FROM attempts a
JOIN messages m ON m.id = a.message_id
LEFT JOIN parts p ON p.message_id = a.message_id AND p.attempt = a.number AND p.number = 1
WHERE m.account_id = :account_id AND m.environment = :environment AND m.id > :since
  AND a.started_at > now() - interval '60 minutes'
GROUP BY a.provider
""")


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker says of itself: that it lives, and how it stands with a provider.

    Attributes:
        roles: what it takes on there; nothing any more, if it is about to leave.
        binds_held: how many binds it holds, or may be about to give back.
        binds_up: how many of them can transmit.
        state: "up" or "down".
    """

    provider: str
    worker: str
    roles: Sequence[str]
    binds_held: int
    binds_up: int
    state: str


def tell(connection: Connection, beat: Beat) -> None:
    """Write a beat."""
    connection.send(_BEAT, {name: getattr(beat, name) for name in Beat.__slots__})


async def holders(connection: Connection, beat: Beat) -> Sequence[Row]:
    """Write a beat; worker, roles and binds_held of all that may hold binds there.

    Until the end of the transaction no other worker reads or changes what is held.
    """
    connection.send(_ONE_AT_A_TIME, {"provider": beat.provider})
    tell(connection, beat)
    return await connection.rows(_HOLDERS, {"provider": beat.provider, "lasts": HELD_LASTS})


def holds(connection: Connection, provider: str, worker: str, binds: int) -> None:
    """From now on a worker may hold so many binds."""
    connection.send(_HOLDS, {"provider": provider, "worker": worker, "binds_held": binds})


def gone(connection: Connection, provider: str, worker: str) -> None:
    """A worker takes its leave."""
    connection.send(_GONE, {"provider": provider, "worker": worker})
    connection.send(_SWEEP)


async def alive(connection: Connection) -> frozenset[str]:
    """Providers through which a living worker can send now."""
    found = await connection.rows(_ALIVE, {"lasts": BEAT_LASTS})
    return frozenset(r["provider"] for r in found)


async def workers(connection: Connection) -> Sequence[Row]:
    """Workers and binds of every provider that was ever polled for."""
    return await connection.rows(_WORKERS, {"lasts": BEAT_LASTS})


async def recent(
    connection: Connection, account_id: str, environment: str, since_id: str
) -> Sequence[Row]:
    """What came of an account's attempts of the last 60 minutes, by provider.

    `since_id` is the smallest message id of that hour and more, which keeps the scan short.
    """
    return await connection.rows(
        _RECENT,
        {"account_id": account_id, "environment": environment, "since": since_id},
    )

"""Which workers can send through a provider now, and what came of it lately."""

from collections.abc import Sequence
from datetime import timedelta

from store.database import Connection, Row, sql

BEAT_EVERY = timedelta(seconds=2)
BEAT_LASTS = timedelta(seconds=8)
"""A worker whose last beat is older counts as gone."""

_BEAT = sql("""
INSERT INTO provider_workers (provider, worker, beat_at, binds_up, state)
VALUES (:provider, :worker, now(), :binds_up, :state)
ON CONFLICT (provider, worker) DO UPDATE
SET beat_at = excluded.beat_at, binds_up = excluded.binds_up, state = excluded.state
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


def beat(connection: Connection, provider: str, worker: str, *, binds_up: int, state: str) -> None:
    """A worker says that it lives, and how many binds it has that can transmit."""
    connection.send(
        _BEAT, {"provider": provider, "worker": worker, "binds_up": binds_up, "state": state}
    )


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

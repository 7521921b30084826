"""The one place where messages move.

Whatever changes an attempt, a part or a verdict calls `settle` for the messages concerned, in the
same transaction: it folds each message's status anew, appends the event of each move, and puts what
somebody wants to hear of into the outbox. A trigger refuses a status that does not follow from the
rows, so that forgetting to settle cannot be committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks import TOLD
from domain.states import MessageStatus
from store.database import Answer, Connection, Row, sql


@dataclass(frozen=True, slots=True)
class Transition:
    """A message that moved, or several of one bulk that made the same move.

    `message_id` is None for those of a bulk, and `messages` tells how many they are. `owner` and
    `epoch` name the runner that should hear of it; `callback_lane_id` is the lane whose outbox got
    an event; `final` tells that they go no further.
    """

    message_id: UUID | None
    bulk_id: UUID | None
    previous: MessageStatus
    status: MessageStatus
    reason: str | None
    mode: str
    provider: str | None
    code: str | None
    account_id: str
    owner: str | None
    epoch: int
    callback_lane_id: UUID | None
    traceparent: str | None
    messages: int = 1

    @property
    def final(self) -> bool:
        return self.status in FINAL


FINAL = frozenset(
    {
        MessageStatus.DELIVERED,
        MessageStatus.FAILED,
        MessageStatus.DEAD_LETTER,
        MessageStatus.EXPIRED,
        MessageStatus.CANCELED,
    }
)

_TOLD = [status.value for status in TOLD]

_LOCK = sql("SELECT id FROM messages WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")

# Rows that did not move are not touched. Those that a bulk runs are told of together: one event,
# one row of the answer for all that made the same move; a message that has left its bulk for a runner
# of its own is told of by itself. The latest attempt tells which provider and code an event
# is about; a final message needs no check any more.
_SETTLE = sql("""
WITH folded AS (
    SELECT m.id, m.status AS previous, fold.status,
           latest.number AS attempt, latest.provider, latest.code
    FROM message_folds(CAST(:ids AS uuid[])) fold
    JOIN messages m ON m.id = fold.id AND m.status IS DISTINCT FROM fold.status
    LEFT JOIN LATERAL (
        SELECT a.number, a.provider, a.code FROM attempts a
        WHERE a.message_id = m.id
        ORDER BY (a.status = 'delivered') DESC, a.number DESC LIMIT 1
    ) latest ON true
    WHERE m.id = ANY(:ids)
), moved AS (
    UPDATE messages m
    SET status = f.status,
        moved_at = :at,
        reason = CASE WHEN f.status = 'delivered' THEN 'delivered' ELSE m.reason END,
        check_by = CASE
            WHEN f.status IN ('delivered', 'failed', 'dead_letter', 'expired', 'canceled')
                 OR m.verdict = 'sent' THEN NULL
            WHEN CAST(:check_by AS timestamptz) IS NULL OR starts_with(m.owner, 'bulk/')
            THEN m.check_by
            ELSE :check_by END,
        waiting_for = CASE
            WHEN f.status IN ('delivered', 'failed', 'dead_letter', 'expired', 'canceled')
            THEN NULL ELSE m.waiting_for END
    FROM folded f
    WHERE m.id = f.id AND m.id = ANY(:ids)
    RETURNING m.id, CASE WHEN starts_with(m.owner, 'bulk/') THEN m.bulk_id END AS bulk_id,
              f.previous, m.status, m.reason, m.mode, f.attempt, f.provider, f.code, m.account_id, m.environment, m.network, m.owner, m.epoch, m.traceparent,
              m.callback_lane_id, m.callback_url
), told AS (
    INSERT INTO events (message_id, at, kind, actor, previous, status, attempt, provider, network,
                        code, reason)
    SELECT id, :at, 'moved', :actor, previous, status, attempt, provider, network, code, reason
    FROM moved WHERE bulk_id IS NULL
), told_of_many AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, previous, status, attempt,
                                provider, network, code, reason)
    SELECT bulk_id, array_agg(id), :at, 'moved', :actor, previous, status, attempt, provider,
           network, code, reason
    FROM moved WHERE bulk_id IS NOT NULL
    GROUP BY bulk_id, previous, status, attempt, provider, network, code, reason
), outbox AS (
    INSERT INTO callback_events (id, lane_id, account_id, environment, message_id, url, status,
                                 provider_code, occurred_at, next_at)
    SELECT fresh.id, moved.callback_lane_id, moved.account_id, moved.environment, moved.id,
           moved.callback_url, moved.status, coalesce(moved.code, ''), :at, :at
    FROM moved
    JOIN unnest(CAST(:ids AS uuid[]), CAST(:event_ids AS uuid[])) AS fresh (message_id, id)
      ON fresh.message_id = moved.id
    WHERE moved.callback_lane_id IS NOT NULL AND moved.status = ANY(:told)
)
SELECT CASE WHEN bulk_id IS NULL THEN id END AS id,
       CASE WHEN bulk_id IS NULL THEN traceparent END AS traceparent,
       bulk_id, previous, status, reason, mode, provider, code, account_id, owner, epoch,
       CASE WHEN status = ANY(:told) THEN callback_lane_id END AS callback_lane_id,
       count(*) AS messages
FROM moved
GROUP BY 1, 2, bulk_id, previous, status, reason, mode, provider, code, account_id, owner, epoch, 13
""")


def lock(connection: Connection, ids: Sequence[UUID]) -> None:
    """Take the rows of messages, in the order that everybody takes them in."""
    connection.send(_LOCK, {"ids": list(ids)})


def settle(
    connection: Connection,
    ids: Sequence[UUID],
    *,
    actor: str,
    at: datetime,
    check_by: datetime | None = None,
) -> Answer[list[Transition]]:
    """Fold the status of messages anew, and tell of those that moved.

    Args:
        connection: the transaction in which the attempts, parts or verdicts were changed.
        ids: the messages concerned; those that do not move are left alone.
        actor: who moved them, for the event: "workflow", "receipt", "key_…"; no personal data.
        at: when.
        check_by: when the reconciler should look at those that moved and are not final.
    """
    unique = list(dict.fromkeys(ids))
    values = {
        "ids": unique,
        "event_ids": [uuid7() for _ in unique],
        "told": _TOLD,
        "actor": actor,
        "at": at,
        "check_by": check_by,
    }
    return connection.rows(_SETTLE, values).then(lambda found: [_transition(row) for row in found])


def _transition(moved: Row) -> Transition:
    return Transition(
        message_id=moved["id"],
        bulk_id=moved["bulk_id"],
        previous=MessageStatus(moved["previous"]),
        status=MessageStatus(moved["status"]),
        reason=moved["reason"],
        mode=moved["mode"],
        provider=moved["provider"],
        code=moved["code"],
        account_id=moved["account_id"],
        owner=moved["owner"],
        epoch=moved["epoch"],
        callback_lane_id=moved["callback_lane_id"],
        traceparent=moved["traceparent"],
        messages=moved["messages"],
    )

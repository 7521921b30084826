"""The one place where messages move.

Whatever changes an attempt, a part or a verdict calls `settle` for the messages concerned, in the
same transaction: it folds each message's status anew, appends the event of each move, and puts what
somebody wants to hear of into the outbox. A trigger refuses a status that does not follow from the
rows, so that forgetting to settle cannot be committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks import TOLD
from domain.states import MessageStatus
from store.database import Answer, Connection, Parameters, Planner, Row, Statement, sql


@dataclass(frozen=True, slots=True)
class Transition:
    """A message that moved, or several of one bulk that made the same move.

    `message_id` is None for those of a bulk; `ids` are all of them. `owner` and
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
    ids: tuple[UUID, ...] = ()

    @property
    def messages(self) -> int:
        """How many moved."""
        return len(self.ids)

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

_ENDS = ", ".join(f"'{status.value}'" for status in sorted(FINAL))

# A message `m` that somebody still takes care of.
OPEN = f"m.status NOT IN ({_ENDS}) AND m.verdict IS DISTINCT FROM 'sent'"

_TOLD = [status.value for status in TOLD]

_LOCK = sql("SELECT id FROM messages WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")

# What every statement that moves messages returns of those that moved, for `TELL`. Of which bulk a
# message is counts only while the bulk runs it; one that has left it is told of by itself.
MOVED = """
m.id, CASE WHEN starts_with(m.owner, 'bulk/') THEN m.bulk_id END AS bulk_id, m.status, m.reason,
m.mode, m.account_id, m.environment, m.network, m.owner, m.epoch, m.traceparent, m.callback_lane_id,
m.callback_url,
m.callback_lane_id IS NOT NULL AND m.status = ANY(:told)
    AND (m.status <> 'sent' OR NOT m.callback_final_only) AS told
"""

# An id for each row that is told of, and for no other: what all of a statement's have in common comes
# with it (`fresh_ids`), and their number is theirs.
FRESH_ID = "CAST(:fresh || lpad(to_hex(row_number() OVER ()), 6, '0') AS uuid)"


def fresh_ids() -> str:
    """The first 26 of the 32 digits of version 7 UUIDs (RFC 9562, 5.7) that nobody else makes."""
    return uuid7().hex[:26]


# Follows `moved`, which has `MOVED`, `previous`, and the `attempt`, `provider` and `code` that the
# move is about. Those of one bulk that made the same move are told of together: one event, one row.
TELL = f"""
told AS (
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
    SELECT {FRESH_ID}, moved.callback_lane_id, moved.account_id, moved.environment, moved.id,
           moved.callback_url, moved.status, coalesce(moved.code, ''), :at, :at
    FROM moved WHERE moved.told
)
SELECT CASE WHEN bulk_id IS NULL THEN id END AS id,
       CASE WHEN bulk_id IS NULL THEN traceparent END AS traceparent,
       bulk_id, previous, status, reason, mode, provider, code, account_id, owner, epoch,
       CASE WHEN told THEN callback_lane_id END AS callback_lane_id,
       array_agg(id) AS ids
FROM moved
GROUP BY 1, 2, bulk_id, previous, status, reason, mode, provider, code, account_id, owner, epoch, 13
"""

_FEW = 20
_BY_HASH = Planner("nestloop")


@dataclass(frozen=True, slots=True)
class ByCount:
    """A statement about several messages, prepared twice: for a few and for many.

    Nobody tells the planner how long the arrays of a prepared statement are; it takes them for
    short, and compares each row of one with each row of the other. For many it is told not to.
    """

    few: Statement
    many: Statement

    @classmethod
    def of(cls, statement: str) -> Self:
        """Both statements of a text; a comment keeps their plans apart."""
        return cls(sql(statement), sql(statement + "\n-- many"))

    def rows(
        self, connection: Connection, values: Parameters, *, count: int
    ) -> Answer[Sequence[Row]]:
        """Send the statement for so many messages; all rows that it returns."""
        if count <= _FEW:
            return connection.rows(self.few, values)
        return connection.rows(self.many, values, planner=_BY_HASH)


# Rows that did not move are not touched. The latest attempt tells which provider and code an event
# is about; a final message needs no check any more.
_SETTLE = ByCount.of(f"""
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
            WHEN f.status IN ({_ENDS}) OR m.verdict = 'sent' THEN NULL
            WHEN CAST(:check_by AS timestamptz) IS NULL OR starts_with(m.owner, 'bulk/')
            THEN m.check_by
            ELSE :check_by END,
        waiting_for = CASE WHEN f.status IN ({_ENDS}) THEN NULL ELSE m.waiting_for END
    FROM folded f
    WHERE m.id = f.id AND m.id = ANY(:ids)
    RETURNING {MOVED}, f.previous, f.attempt, f.provider, f.code
), {TELL}
""")

# That a message was sent is its end where its provider gives no receipts.
_TELL_SENT = sql(f"""
INSERT INTO callback_events (id, lane_id, account_id, environment, message_id, url, status,
                             occurred_at, next_at)
SELECT {FRESH_ID}, m.callback_lane_id, m.account_id, m.environment, m.id, m.callback_url, m.status,
       m.moved_at, :at
FROM messages m
WHERE m.id = ANY(:ids) AND m.status = 'sent' AND m.verdict = 'sent' AND m.callback_final_only
  AND m.callback_lane_id IS NOT NULL
""")


def tell_sent(connection: Connection, ids: Sequence[UUID], at: datetime) -> None:
    """Tell of messages that have come to their end as sent, and of which only the end is told.

    For those that were judged so in this transaction. Nobody is woken: the next sweep is soon.
    """
    connection.send(_TELL_SENT, {"ids": list(ids), "fresh": fresh_ids(), "at": at})


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
        check_by: when the reconciler should look at those that moved, are not final, and have a
            runner of their own.
    """
    unique = list(dict.fromkeys(ids))
    return move(connection, _SETTLE, unique, actor=actor, at=at, check_by=check_by)


def move(
    connection: Connection,
    moving: ByCount,
    ids: Sequence[UUID],
    *,
    actor: str,
    at: datetime,
    check_by: datetime | None,
    **more: object,
) -> Answer[list[Transition]]:
    """Run a statement that moves messages, and so ends with `TELL`; arguments as those of `settle`, `more` are its own."""
    values = {
        "ids": ids,
        "fresh": fresh_ids(),
        "told": _TOLD,
        "actor": actor,
        "at": at,
        "check_by": check_by,
        **more,
    }
    moved = moving.rows(connection, values, count=len(ids))
    return moved.then(lambda found: [_transition(row) for row in found])


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
        ids=tuple(moved["ids"]),
    )

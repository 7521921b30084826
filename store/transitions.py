"""The one place where messages move.

Whatever changes an attempt, a part or a verdict calls `refresh_status` for the messages concerned, in the
same transaction: it folds each message's status anew, appends the event of each transition, and puts what
somebody wants to hear of into the outbox. A trigger refuses a status that does not follow from the
rows, so that forgetting to settle cannot be committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Self, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks.events import CALLBACK_STATUSES
from domain.outbox import MESSAGE_REPORT, MESSAGE_STATUS, NO_RECEIPT
from domain.states import MessageStatus
from store.database import Connection, Parameters, PendingResult, Planner, sql
from store.rows import Query

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Transition:
    """A status change of one message, or the same change of several messages of one bulk.

    `message_id` is None for those of a bulk; `ids` are all of them. `owner` and `epoch` identify the
    runner to notify. `callback_lane_id` and `listener_lane_id` are the lanes that got an event. `final`
    is whether the new status is final.
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
    listener_lane_id: UUID | None
    traceparent: str | None
    ids: tuple[UUID, ...]

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

_CALLBACK_STATUSES = [status.value for status in CALLBACK_STATUSES]

_LOCK = sql("SELECT id FROM messages WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")

# What every statement that changes statuses returns of each changed message, for `EMIT_EVENTS`. The bulk
# counts only while it runs the message; a message with a runner of its own has events of its own.
TRANSITION_COLUMNS = f"""
m.id, CASE WHEN starts_with(m.owner, 'bulk/') THEN m.bulk_id END AS bulk_id, m.status, m.reason,
m.mode, m.account_id, m.environment, m.network, m.owner, m.epoch, m.traceparent, m.callback_lane_id,
m.callback_url,
m.callback_lane_id IS NOT NULL AND m.status = ANY(:callback_statuses)
    AND (m.status <> 'sent' OR NOT m.callback_final_only) AS notified,
m.listener, m.listener_lane_id, m.listener_lane_id IS NOT NULL AND m.status IN ({_ENDS}) AS reported
"""


# An id for each row that has an event, and for no other: the ids of one statement share a prefix
# (`fresh_ids`) and end with the number of their row.
def _fresh_id(first: int = 0) -> str:
    return f"CAST(:fresh || lpad(to_hex({first} + row_number() OVER ()), 6, '0') AS uuid)"


GENERATED_ID = _fresh_id()


def fresh_ids() -> str:
    """The first 26 of the 32 digits of version 7 UUIDs (RFC 9562, 5.7) that nobody else makes."""
    return uuid7().hex[:26]


def emit_events(
    row: str = "moved", *, suffix: str = "", actor: str = ":actor", first: int = 0
) -> str:
    """The SQL that writes events and outbox rows of transitions: the end of every such statement.

    Follows the query `row`, which has `TRANSITION_COLUMNS`, `previous`, and the `attempt`, `provider` and `code`
    that the transition is about. Messages of one bulk with the same transition share one event. A
    statement whose messages change twice includes this SQL twice, with another `suffix` each, and with
    another number `first` for the ids in the outbox.
    """
    return f"""
notified{suffix} AS (
    INSERT INTO events (message_id, at, kind, actor, previous, status, attempt, provider, network,
                        code, reason)
    SELECT id, :at, 'moved', {actor}, previous, status, attempt, provider, network, code, reason
    FROM {row} WHERE bulk_id IS NULL
    RETURNING 1
), notified_of_many{suffix} AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, previous, status, attempt,
                                provider, network, code, reason)
    SELECT bulk_id, array_agg(id), :at, 'moved', {actor}, previous, status, attempt, provider,
           network, code, reason
    FROM {row} WHERE bulk_id IS NOT NULL
    GROUP BY bulk_id, previous, status, attempt, provider, network, code, reason
    RETURNING 1
), enqueued{suffix} AS (
    INSERT INTO outbox (id, lane_id, account_id, environment, kind, subject_id, target, status, code,
                        occurred_at, next_at)
    SELECT {_fresh_id(first)}, e.id, e.account_id, news.environment, news.kind, news.id, news.target,
           news.status, coalesce(news.code, ''), :at, :at
    FROM (
        SELECT id, environment, status, code, '{MESSAGE_STATUS}' AS kind,
               callback_lane_id AS lane_id, callback_url AS target
        FROM {row} WHERE notified
        UNION ALL
        SELECT id, environment, status, code, '{MESSAGE_REPORT}', listener_lane_id, listener
        FROM {row} WHERE reported
    ) news
    JOIN endpoints e ON e.id = news.lane_id AND news.kind = ANY(e.kinds)
    RETURNING 1
)
"""


EMIT_EVENTS = (
    emit_events()
    + """
SELECT CASE WHEN bulk_id IS NULL THEN id END AS message_id,
       bulk_id, previous, status, reason, mode, provider, code, account_id, owner, epoch,
       CASE WHEN notified THEN callback_lane_id END AS callback_lane_id,
       CASE WHEN reported THEN listener_lane_id END AS listener_lane_id,
       CASE WHEN bulk_id IS NULL THEN traceparent END AS traceparent,
       array_agg(id) AS ids
FROM moved
GROUP BY 1, bulk_id, previous, status, reason, mode, provider, code, account_id, owner, epoch,
         12, 13, 14
"""
)

_FEW = 20
_BY_HASH = Planner("nestloop")


@dataclass(frozen=True, slots=True)
class SizedQuery(Generic[_T]):
    """A statement about several messages, prepared twice: for a few and for many.

    The planner does not know how long the arrays of a prepared statement are. It takes them for short,
    and compares each row of one with each row of the other. For many, nested loops are switched off.
    """

    few: Query[_T]
    many: Query[_T]

    @classmethod
    def of(cls, row: type[_T], statement: str) -> Self:
        """Both statements of a text, as `Query.of`; a comment keeps their plans apart."""
        return cls(Query.of(row, statement), Query.of(row, statement + "\n-- many"))

    def rows(
        self, connection: Connection, values: Parameters, *, count: int
    ) -> PendingResult[Sequence[_T]]:
        """Send the statement for so many messages; all rows that it returns."""
        if count <= _FEW:
            return self.few.rows(connection, values)
        return self.many.rows(connection, values, planner=_BY_HASH)


# What the carrier said of an attempt `a` last: in the receipt that decided it, else in its response.
CODE = """
CASE WHEN a.status IN ('delivered', 'undelivered') THEN coalesce(nullif((
    SELECT p.receipt_code FROM all_parts p
    WHERE p.message_id = a.message_id AND p.attempt = a.number
    ORDER BY p.status = a.status DESC, p.number LIMIT 1), ''), a.code)
ELSE a.code END
"""

# Rows whose status does not change are not touched. The provider and code of an event are those of the
# latest attempt. A final message needs no check any more.
_SETTLE = SizedQuery.of(
    Transition,
    f"""
WITH folded AS (
    SELECT m.id, m.status AS previous, fold.status,
           latest.number AS attempt, latest.provider, latest.code
    FROM message_folds(CAST(:ids AS uuid[])) fold
    JOIN messages m ON m.id = fold.id AND m.status IS DISTINCT FROM fold.status
    LEFT JOIN LATERAL (
        SELECT a.number, a.provider, {CODE} AS code FROM attempts a
        WHERE a.message_id = m.id
        ORDER BY (a.status = 'delivered') DESC, a.number DESC LIMIT 1
    ) latest ON true
    WHERE m.id = ANY(:ids)
), moved AS (
    UPDATE messages m
    SET status = f.status,
        transitioned_at = :at,
        reason = CASE WHEN f.status = 'delivered' THEN 'delivered' ELSE m.reason END,
        check_by = CASE
            WHEN f.status IN ({_ENDS}) OR m.verdict = 'sent' THEN NULL
            WHEN CAST(:check_by AS timestamptz) IS NULL OR starts_with(m.owner, 'bulk/')
            THEN m.check_by
            ELSE :check_by END,
        waiting_for = CASE WHEN f.status IN ({_ENDS}) THEN NULL ELSE m.waiting_for END
    FROM folded f
    WHERE m.id = f.id AND m.id = ANY(:ids)
    RETURNING {TRANSITION_COLUMNS}, f.previous, f.attempt, f.provider, f.code
), {EMIT_EVENTS}
""",
)

# That a message was sent is its end where its provider gives no receipts.
_EMIT_SENT = sql(f"""
INSERT INTO outbox (id, lane_id, account_id, environment, kind, subject_id, target, status,
                    occurred_at, next_at)
SELECT {GENERATED_ID}, e.id, e.account_id, news.environment, news.kind, news.id, news.target, 'sent',
       news.transitioned_at, :at
FROM (
    SELECT id, environment, transitioned_at, '{MESSAGE_STATUS}' AS kind,
           callback_lane_id AS lane_id, callback_url AS target
    FROM messages
    WHERE id = ANY(:ids) AND status = 'sent' AND verdict = 'sent' AND callback_final_only
      AND callback_lane_id IS NOT NULL
    UNION ALL
    SELECT id, environment, transitioned_at, '{MESSAGE_REPORT}', listener_lane_id, listener
    FROM messages
    WHERE id = ANY(:ids) AND status = 'sent' AND verdict = 'sent' AND listener_lane_id IS NOT NULL
) news
JOIN endpoints e ON e.id = news.lane_id AND news.kind = ANY(e.kinds)
""")


def emit_sent(connection: Connection, ids: Sequence[UUID], at: datetime) -> None:
    """Emit the events of messages that ended as sent: callbacks of the final status only, and listeners.

    For those that were judged so in this transaction. Nobody is woken: the next sweep is soon.
    """
    connection.send(_EMIT_SENT, {"ids": list(ids), "fresh": fresh_ids(), "at": at})


_REPORT_NO_RECEIPT = sql(f"""
INSERT INTO outbox (id, lane_id, account_id, environment, kind, subject_id, target, status,
                    occurred_at, next_at)
SELECT {GENERATED_ID}, e.id, e.account_id, m.environment, '{MESSAGE_REPORT}', m.id, m.listener,
       '{NO_RECEIPT}', :at, :at
FROM messages m
JOIN endpoints e ON e.id = m.listener_lane_id AND '{MESSAGE_REPORT}' = ANY(e.kinds)
WHERE m.id = :id
""")


def report_no_receipt(connection: Connection, message_id: UUID, at: datetime) -> None:
    """Report to the listener of a message that no receipt came by the deadline."""
    connection.send(_REPORT_NO_RECEIPT, {"id": message_id, "fresh": fresh_ids(), "at": at})


def lock(connection: Connection, ids: Sequence[UUID]) -> None:
    """Take the rows of messages, in the order that everybody takes them in."""
    connection.send(_LOCK, {"ids": list(ids)})


def refresh_status(
    connection: Connection,
    ids: Sequence[UUID],
    *,
    actor: str,
    at: datetime,
    check_by: datetime | None = None,
) -> PendingResult[list[Transition]]:
    """Fold the status of messages anew, and write the events of those that changed.

    Args:
        connection: the transaction in which the attempts, parts or verdicts were changed.
        ids: the messages concerned; those that do not move are left alone.
        actor: who moved them, for the event: "workflow", "receipt", "key_…"; no personal data.
        at: when.
        check_by: when the reconciler should look at those that moved, are not final, and have a
            runner of their own.
    """
    unique = list(dict.fromkeys(ids))
    return apply_transition(connection, _SETTLE, unique, actor=actor, at=at, check_by=check_by)


def apply_transition(
    connection: Connection,
    moving: SizedQuery[Transition],
    ids: Sequence[UUID],
    *,
    actor: str,
    at: datetime,
    check_by: datetime | None,
    **more: object,
) -> PendingResult[list[Transition]]:
    """Run a statement that moves messages, and so ends with `EMIT_EVENTS`.

    Arguments as those of `refresh_status`; `more` are the statement's own.
    """
    rows = transition_rows(connection, moving, ids, actor=actor, at=at, check_by=check_by, **more)
    return rows.then(list)


def transition_rows(
    connection: Connection,
    moving: SizedQuery[_T],
    ids: Sequence[UUID],
    *,
    actor: str,
    at: datetime,
    check_by: datetime | None,
    **more: object,
) -> PendingResult[Sequence[_T]]:
    """As `apply_transition`, for a statement that returns more than transitions."""
    values = {
        "ids": ids,
        "fresh": fresh_ids(),
        "callback_statuses": _CALLBACK_STATUSES,
        "actor": actor,
        "at": at,
        "check_by": check_by,
        **more,
    }
    return moving.rows(connection, values, count=len(ids))

"""Bulks: messages that one runner takes to their ends; read, claimed and judged many at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from domain.claims import Refusal
from domain.configuration import Environment
from domain.modes import Mode, Priority
from domain.states import MessageStatus, Verdict
from domain.values import value
from store import routing_key
from store.attempts import ATTEMPT_COLUMNS, AttemptRow
from store.claims import CLAIMABLE, ENDING, ENDING_REASON, FROM_WANTED, REFUSAL
from store.database import Connection, PendingResult, Planner, sql
from store.messages import BY_PRIORITY, MESSAGE_COLUMNS, MessageRow, RunnableMessage
from store.rows import Query
from store.transitions import (
    EMIT_EVENTS,
    OPEN,
    TRANSITION_COLUMNS,
    SizedQuery,
    Transition,
    transition_rows,
)

_OF_MOVE = frozenset({"ids", "at"})


@dataclass(frozen=True, slots=True)
class StoredBulk:
    """A bulk."""

    id: UUID
    first_id: UUID
    last_id: UUID
    messages: int
    priority: Priority
    created_at: datetime
    paused_at: datetime | None
    resumed_at: datetime | None
    canceled_at: datetime | None


@dataclass(frozen=True, slots=True)
class OverdueBulk:
    """A bulk past its `check_by`."""

    id: UUID
    priority: Priority


@dataclass(frozen=True, slots=True)
class OpenCounts:
    """How many messages of one routing key, priority and schedule are open.

    Attributes:
        messages: all of them.
        untried: those never given to a provider.
        since, valid_until: the earliest of those untried.
        released: those that were scheduled for a time that has come.
        exceptional: those that need a decision of their own.
        due: the first response or receipt of the others.
    """

    environment: Environment
    country: str
    mode: Mode
    sender: str
    network: str
    account_id: str
    priority: Priority
    scheduled_at: datetime | None
    messages: int
    untried: int
    since: datetime | None
    valid_until: datetime | None
    released: int
    exceptional: int
    due: datetime | None


@value
class ReadyMessage(MessageRow):
    """A message that may be sent now, with all that a decision and a submit need."""

    accepted_at: datetime
    receipt_deadline: timedelta | None
    parameters: Mapping[str, str] | None = field(repr=False)
    recipient: str = field(repr=False)
    body: str = field(repr=False)


@value
class AttemptOfMany(AttemptRow):
    """An attempt of one of several messages."""

    message_id: UUID


@dataclass(frozen=True, slots=True)
class _ClaimedRow:
    """A transition, or without a status the messages that were refused for one reason."""

    message_id: UUID | None
    bulk_id: UUID | None
    previous: MessageStatus | None
    status: MessageStatus | None
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
    def transition(self) -> Transition | None:
        if self.previous is None or self.status is None:
            return None
        return Transition(
            message_id=self.message_id,
            bulk_id=self.bulk_id,
            previous=self.previous,
            status=self.status,
            reason=self.reason,
            mode=self.mode,
            provider=self.provider,
            code=self.code,
            account_id=self.account_id,
            owner=self.owner,
            epoch=self.epoch,
            callback_lane_id=self.callback_lane_id,
            listener_lane_id=self.listener_lane_id,
            traceparent=self.traceparent,
            ids=self.ids,
        )


_INSERT = sql("""
INSERT INTO bulks (id, first_id, last_id, messages, priority, created_at, check_by)
VALUES (:id, :first_id, :last_id, :messages, :priority, :at, :check_by)
""")

_EXTEND = sql("""
UPDATE bulks
SET last_id = :last_id, messages = messages + :messages,
    check_by = coalesce(check_by, :check_by)
WHERE id = :id
""")

_STORED = Query.of(
    StoredBulk,
    """
SELECT id, first_id, last_id, messages, priority, created_at, paused_at, resumed_at,
       canceled_at
FROM bulks WHERE id = :id
""",
)

_CHECK = sql("UPDATE bulks SET check_by = :check_by WHERE id = :id")
# Not one that was extended since its messages were counted.
_END = Query.of(
    UUID,
    """
UPDATE bulks SET check_by = NULL WHERE id = :bulk_id AND last_id = :last_id RETURNING id
""",
)
_CHECK_BY_THEN = sql("UPDATE bulks SET check_by = :at WHERE id = :id AND check_by > :at")
_CHECK_AGAIN = sql("UPDATE bulks SET check_by = :check_by WHERE id = :id AND check_by < :at")
_OVERDUE = Query.of(
    OverdueBulk,
    f"""
SELECT id, priority FROM bulks WHERE check_by < :at ORDER BY {BY_PRIORITY}, check_by LIMIT :limit
""",
)
_DOUBT = Query.of(int, "UPDATE bulks SET check_by = :at WHERE check_by > :at RETURNING messages")

_PAUSE = sql("UPDATE bulks SET paused_at = coalesce(paused_at, :at) WHERE id = :id")
_RESUME = sql("""
UPDATE bulks SET paused_at = NULL, resumed_at = :at WHERE id = :id AND paused_at IS NOT NULL
""")
_CANCEL = sql("UPDATE bulks SET canceled_at = coalesce(canceled_at, :at) WHERE id = :id")

_OWNED = """
    m.id BETWEEN :first_id AND :last_id AND m.bulk_id = :bulk_id AND m.owner = :owner
"""

_LATEST = """
LEFT JOIN LATERAL (
    SELECT a.response_by, a.receipt_by FROM attempts a
    WHERE a.message_id = m.id AND m.status IN ('sending', 'sent')
    ORDER BY a.number DESC LIMIT 1
) latest ON true
"""

_UNTRIED = """
    m.status IN ('queued', 'scheduled') AND m.first_attempt = 1
    AND m.cancel_requested_at IS NULL AND m.valid_until > :at
"""
_RELEASED = "m.verdict = 'scheduled' AND m.scheduled_at <= :at AND m.cancel_requested_at IS NULL"

# What needs a decision of its own: something was tried, asked for, or waited for long enough.
_NEEDING_DECISION = """
    m.status IN ('retried', 'unknown')
    OR m.cancel_requested_at IS NOT NULL
    OR (m.status = 'queued' AND (m.valid_until <= :at OR m.first_attempt > 1))
    OR (m.status = 'sending' AND latest.response_by <= :at)
    OR (m.status = 'sent' AND (latest.receipt_by <= :at OR :without_receipts))
"""

# One row for each routing key, priority and schedule.
_KINDS = Query.of(
    OpenCounts,
    f"""
SELECT {routing_key.columns("m")}, m.priority, m.scheduled_at, count(*) AS messages,
       count(*) FILTER (WHERE {_UNTRIED}) AS untried,
       min(m.since) FILTER (WHERE {_UNTRIED}) AS since,
       min(m.valid_until) FILTER (WHERE {_UNTRIED}) AS valid_until,
       count(*) FILTER (WHERE {_RELEASED}) AS released,
       count(*) FILTER (WHERE {_NEEDING_DECISION}) AS exceptional,
       min(CASE WHEN m.status = 'sending' THEN latest.response_by
                WHEN m.status = 'sent' THEN latest.receipt_by END) AS due
FROM messages m {_LATEST}
WHERE {_OWNED} AND {OPEN}
GROUP BY {routing_key.columns("m")}, m.priority, m.scheduled_at
""",
)

_UNTRIED_IDS = Query.of(
    UUID,
    f"""
SELECT m.id FROM messages m
WHERE {_OWNED} AND {_UNTRIED} AND m.status = 'queued'
  AND {routing_key.equals("m")} AND m.priority = :priority
""",
)

_UNSCHEDULE = Query.of(
    UUID,
    f"""
UPDATE messages m SET verdict = NULL
WHERE {_OWNED} AND {_RELEASED}
RETURNING m.id
""",
)

_EXCEPTIONS = Query.of(
    MessageRow,
    f"""
SELECT {MESSAGE_COLUMNS}
FROM messages m {_LATEST}
WHERE {_OWNED} AND {OPEN} AND ({_NEEDING_DECISION})
ORDER BY m.id LIMIT :limit
""",
)

# Number and body together: what goes to the provider. Read as the ids stand in their index, and no
# further than the page: sorted, each page would be all of the bulk.
_IN_ORDER = Planner("sort", "bitmapscan")
_READY = Query.of(
    ReadyMessage,
    f"""
SELECT {MESSAGE_COLUMNS}, m.accepted_at, m.receipt_deadline, m.parameters, r.number AS recipient,
       m.body
FROM messages m JOIN recipients r ON r.id = m.recipient_id
WHERE {_OWNED} AND m.id > :after AND m.status IN ('queued', 'retried', 'unknown')
  AND m.cancel_requested_at IS NULL AND m.valid_until > :at
  AND m.body IS NOT NULL AND r.number IS NOT NULL
ORDER BY m.id LIMIT :limit
""",
)

_ATTEMPTS = Query.of(
    AttemptOfMany,
    f"""
SELECT {ATTEMPT_COLUMNS}, message_id
FROM attempts a WHERE message_id = ANY(:ids) ORDER BY message_id, number
""",
)

# As `store.attempts.claim`, for many. The reasons of what is refused follow the transitions.
_CLAIM = SizedQuery.of(
    _ClaimedRow,
    f"""
WITH wanted AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:epochs AS integer[]),
                         CAST(:numbers AS smallint[]), CAST(:parts AS smallint[]),
                         CAST(:methods AS text[]), CAST(:refs AS integer[]),
                         CAST(:response_bys AS timestamptz[]),
                         CAST(:receipt_bys AS timestamptz[]), CAST(:kinds AS integer[]))
         AS w (id, epoch, number, parts, part_method, reference, response_by, receipt_by, kind)
), looked AS (
    SELECT w.*, m.status AS previous, {REFUSAL} AS refusal
    {FROM_WANTED}
    WHERE m.id = ANY(:ids)
    ORDER BY m.id
    FOR UPDATE OF m
), allowed AS (
    SELECT * FROM looked WHERE refusal IS NULL
), attempt AS (
    INSERT INTO attempts (message_id, number, epoch, provider, status, part_status, part_method,
                          reference, started_at, response_by, settled_at, receipt_by, config_version)
    SELECT id, number, epoch, :provider, 'submitting', CASE WHEN parts = 1 THEN 'submitting' END,
           part_method, reference, :at, response_by, :at, receipt_by, :config_version
    FROM allowed
    ON CONFLICT (message_id, number) DO NOTHING
    RETURNING message_id, number
), written AS (
    INSERT INTO parts (message_id, attempt, number, provider, status, reference, submitted_at)
    SELECT a.id, a.number, part, :provider, 'submitting', (a.reference + part - 1) % 65536, :at
    FROM allowed a JOIN attempt ON attempt.message_id = a.id
    CROSS JOIN LATERAL generate_series(1, a.parts) AS part
    WHERE a.parts > 1
), claimed AS (
    UPDATE messages m SET status = 'sending', transitioned_at = :at, waiting_for = NULL
    FROM allowed a JOIN attempt ON attempt.message_id = a.id
    WHERE m.id = a.id AND m.id = ANY(:ids)
    RETURNING {TRANSITION_COLUMNS}, a.previous, a.number AS attempt, CAST(:provider AS text) AS provider,
              '' AS code, a.kind
), decided AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, attempt, provider, reason,
                                detail)
    SELECT c.bulk_id, array_agg(c.id), :at, 'decided', :actor, c.attempt, c.provider, 'submit',
           d.detail
    FROM claimed c
    JOIN unnest(CAST(:details AS jsonb[])) WITH ORDINALITY AS d (detail, kind) ON d.kind = c.kind
    GROUP BY c.bulk_id, c.attempt, c.provider, d.kind, d.detail
    RETURNING 1
), ended AS (
    UPDATE messages m
    SET status = e.verdict, verdict = e.verdict, reason = {ENDING_REASON}, transitioned_at = :at,
        check_by = NULL, waiting_for = NULL
    {ENDING} AND m.id = ANY(:ids)
    RETURNING {TRANSITION_COLUMNS}, l.previous, latest.number AS attempt, latest.provider, latest.code,
              NULL::integer AS kind
), decided_ends AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, reason, detail)
    SELECT bulk_id, array_agg(id), :at, 'decided', :actor, status, reason,
           jsonb_build_object('configuration', CAST(:config_version AS bigint))
    FROM ended
    GROUP BY bulk_id, status, reason
    RETURNING 1
), moved AS (
    -- The events of transitions follow those of the decisions.
    SELECT * FROM claimed WHERE (SELECT count(*) FROM decided) > 0
    UNION ALL
    SELECT * FROM ended WHERE (SELECT count(*) FROM decided_ends) > 0
), {EMIT_EVENTS}
UNION ALL
SELECT NULL, NULL, NULL, NULL, refusal, '', NULL, NULL, '', NULL, 0, NULL, NULL, NULL,
       array_agg(id)
FROM looked WHERE refusal IS NOT NULL
GROUP BY refusal
""",
)

_SET_VERDICT = sql("""
UPDATE messages SET verdict = :verdict, reason = :reason, offered = :offered
WHERE id = ANY(:ids) AND owner = :owner AND (verdict IS NULL OR verdict = 'scheduled')
""")

# What a provider has, or may have, is not taken back here. Of one that has some parts of a message,
# the runner cancels these parts there.
_CANCEL_MESSAGES = Query.of(
    UUID,
    f"""
UPDATE messages m
SET cancel_requested_at = coalesce(m.cancel_requested_at, :at), verdict = 'canceled',
    reason = 'canceled'
WHERE {_OWNED} AND (m.verdict IS NULL OR m.verdict = 'scheduled')
  AND m.status IN ('queued', 'scheduled', 'retried')
  AND (m.status <> 'retried' OR (
      SELECT a.status FROM attempts a WHERE a.message_id = m.id ORDER BY a.number DESC LIMIT 1
  ) <> 'partial')
RETURNING m.id
""",
)

# Those that have runners of their own find out at once what was decided about their bulk.
_CHECK_PROMOTED = sql(f"""
UPDATE messages m SET check_by = :at
WHERE m.id BETWEEN :first_id AND :last_id AND m.bulk_id = :bulk_id AND m.owner <> :owner
  AND m.check_by > :at AND {OPEN}
""")

_LEAVE = Query.of(
    RunnableMessage,
    f"""
UPDATE messages m SET epoch = m.epoch + 1, check_by = :check_by, owner = n.owner
FROM unnest(CAST(:ids AS uuid[]), CAST(:owners AS text[])) AS n (id, owner)
WHERE m.id = n.id AND m.owner = :owner AND {OPEN}
RETURNING m.id, m.epoch, m.mode, m.country, m.account_id, m.priority
""",
)


@dataclass(frozen=True, slots=True)
class IdRange:
    """Which messages a bulk has: those from `first_id` to `last_id` that are its own."""

    bulk_id: UUID
    first_id: UUID
    last_id: UUID
    owner: str

    def values(self) -> dict[str, object]:
        """As statements take it."""
        return {
            "bulk_id": self.bulk_id,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "owner": self.owner,
        }


@dataclass(frozen=True, slots=True)
class ClaimOfMany:
    """The right to hand messages to one provider; the lists are of equal length.

    What is not a list is as in `store.attempts.Claim`. `kinds` says by which of `details` each was
    decided, from 1.
    """

    bulk_id: UUID
    owner: str
    provider: str
    at: datetime
    config_version: int | None
    ids: Sequence[UUID]
    epochs: Sequence[int]
    numbers: Sequence[int]
    parts: Sequence[int]
    methods: Sequence[str]
    refs: Sequence[int]
    response_bys: Sequence[datetime]
    receipt_bys: Sequence[datetime]
    kinds: Sequence[int]
    details: Sequence[Mapping[str, Any]]


def insert(
    connection: Connection,
    id_range: IdRange,
    messages: int,
    at: datetime,
    *,
    priority: Priority,
    check_by: datetime,
) -> None:
    """Write a bulk, which the reconciler asks after at `check_by`.

    Its messages are written in the same transaction; all of them have its priority.
    """
    connection.send(
        _INSERT,
        {
            "id": id_range.bulk_id,
            "first_id": id_range.first_id,
            "last_id": id_range.last_id,
            "messages": messages,
            "priority": priority.value,
            "at": at,
            "check_by": check_by,
        },
    )


def extend(connection: Connection, id_range: IdRange, messages: int, *, check_by: datetime) -> None:
    """Add messages up to the id_range's `last_id` to a bulk.

    The reconciler looks at it at `check_by` if its runner, started already, has found nothing left.
    """
    connection.send(
        _EXTEND,
        {
            "id": id_range.bulk_id,
            "last_id": id_range.last_id,
            "messages": messages,
            "check_by": check_by,
        },
    )


def stored(connection: Connection, bulk_id: UUID) -> PendingResult[StoredBulk | None]:
    """A bulk by its id."""
    return _STORED.row(connection, {"id": bulk_id})


def check(connection: Connection, bulk_id: UUID, check_by: datetime) -> None:
    """Have the reconciler ask after a bulk then."""
    connection.send(_CHECK, {"id": bulk_id, "check_by": check_by})


def end(connection: Connection, id_range: IdRange) -> PendingResult[bool]:
    """A bulk of this id_range has no open message left; False if it was extended since."""
    return _END.row(connection, {"bulk_id": id_range.bulk_id, "last_id": id_range.last_id}).then(
        lambda ended: ended is not None
    )


def check_sooner(connection: Connection, bulk_id: UUID, at: datetime) -> None:
    """Have the reconciler ask after an open bulk at that time, if it would only do so later."""
    connection.send(_CHECK_BY_THEN, {"id": bulk_id, "at": at})


def check_again(
    connection: Connection, bulk_id: UUID, overdue_at: datetime, check_by: datetime
) -> None:
    """Ask again after a bulk that was overdue, unless its runner has looked at it meanwhile."""
    connection.send(_CHECK_AGAIN, {"id": bulk_id, "at": overdue_at, "check_by": check_by})


async def overdue(connection: Connection, at: datetime, limit: int) -> Sequence[OverdueBulk]:
    """Bulks whose runners have said nothing by their `check_by`, by priority."""
    return await _OVERDUE.rows(connection, {"at": at, "limit": limit})


async def mark_all_due(connection: Connection, at: datetime) -> int:
    """Let the reconciler ask after every open bulk from `at` on; how many messages those have."""
    return sum(await _DOUBT.rows(connection, {"at": at}))


def pause(connection: Connection, bulk_id: UUID, at: datetime) -> None:
    """Forbid every further claim until it is resumed."""
    connection.send(_PAUSE, {"id": bulk_id, "at": at})


def check_promoted(connection: Connection, id_range: IdRange, at: datetime) -> None:
    """Have the reconciler signal the runners of messages that have left the bulk."""
    connection.send(_CHECK_PROMOTED, {**id_range.values(), "at": at})


def resume(connection: Connection, bulk_id: UUID, at: datetime) -> None:
    """Allow claims again; the messages wait for their providers from then on."""
    connection.send(_RESUME, {"id": bulk_id, "at": at})


def cancel(
    connection: Connection, id_range: IdRange, at: datetime
) -> PendingResult[Sequence[UUID]]:
    """Forbid every further claim for good; the messages that no provider has, for `refresh_status`."""
    connection.send(_CANCEL, {"id": id_range.bulk_id, "at": at})
    return _CANCEL_MESSAGES.rows(connection, {**id_range.values(), "at": at})


def by_routing_key(
    connection: Connection, id_range: IdRange, at: datetime, *, without_receipts: bool
) -> PendingResult[Sequence[OpenCounts]]:
    """Open messages, counted by what routes and policies look at.

    `without_receipts` counts what was accepted as exceptional: a provider of the configuration gives
    no receipts.
    """
    return _KINDS.rows(
        connection, {**id_range.values(), "at": at, "without_receipts": without_receipts}
    )


async def untried_ids(
    connection: Connection, id_range: IdRange, alike: OpenCounts, at: datetime
) -> Sequence[UUID]:
    """The untried messages of those counted together that are not scheduled any more."""
    values = {
        **routing_key.values(routing_key.read(alike)),
        **id_range.values(),
        "priority": alike.priority,
        "at": at,
    }
    return await _UNTRIED_IDS.rows(connection, values)


async def unschedule(connection: Connection, id_range: IdRange, at: datetime) -> Sequence[UUID]:
    """Let messages go whose time has come; `store.transitions.refresh_status` then moves them."""
    return await _UNSCHEDULE.rows(connection, {**id_range.values(), "at": at})


def needing_decision(
    connection: Connection, id_range: IdRange, at: datetime, limit: int, *, without_receipts: bool
) -> PendingResult[Sequence[MessageRow]]:
    """The `exceptional` messages of `by_routing_key`."""
    return _EXCEPTIONS.rows(
        connection,
        {**id_range.values(), "at": at, "limit": limit, "without_receipts": without_receipts},
    )


async def ready(
    connection: Connection, id_range: IdRange, after: UUID, at: datetime, limit: int
) -> Sequence[ReadyMessage]:
    """Messages behind `after` that may be sent now."""
    return await _READY.rows(
        connection,
        {**id_range.values(), "after": after, "at": at, "limit": limit},
        planner=_IN_ORDER,
    )


async def attempts_of(
    connection: Connection, ids: Sequence[UUID]
) -> dict[UUID, list[AttemptOfMany]]:
    """The attempts of messages, in order."""
    found: dict[UUID, list[AttemptOfMany]] = {}
    if ids:
        for attempt in await _ATTEMPTS.rows(connection, {"ids": list(ids)}):
            found.setdefault(attempt.message_id, []).append(attempt)
    return found


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim of many came to.

    Attributes:
        transitions: of the messages that were granted, and of those that a permanent reason has ended.
        refused: why the others of those wanted were not granted, and those that ended.
    """

    transitions: Sequence[Transition]
    refused: Mapping[UUID, Refusal]


def claim(connection: Connection, wanted: ClaimOfMany, *, actor: str) -> PendingResult[Claimed]:
    """Write the attempts that nothing forbids, and the decisions for them; the others' reasons."""
    values = {name: getattr(wanted, name) for name in ClaimOfMany.__slots__ if name not in _OF_MOVE}
    values["details"] = [Jsonb(detail) for detail in wanted.details]
    values["claimable"] = [status.value for status in CLAIMABLE]
    rows = transition_rows(
        connection,
        _CLAIM,
        wanted.ids,
        actor=actor,
        at=wanted.at,
        check_by=None,
        **values,
    )
    return rows.then(lambda found: _claimed(found, wanted.ids))


def _claimed(rows: Sequence[_ClaimedRow], wanted: Sequence[UUID]) -> Claimed:
    transitions = [each for row in rows if (each := row.transition) is not None]
    refused = {
        message_id: Refusal(row.reason or "")
        for row in rows
        if row.status is None
        for message_id in row.ids
    }
    granted = {
        message_id
        for each in transitions
        if each.status is MessageStatus.SENDING
        for message_id in each.ids
    }
    for message_id in wanted:
        if message_id not in granted:
            # Those without a reason are gone, or have an attempt of this number already.
            refused.setdefault(message_id, Refusal.SUPERSEDED)
    return Claimed(transitions, refused)


def set_verdict(
    connection: Connection,
    owner: str,
    ids: Sequence[UUID],
    verdict: Verdict,
    reason: str,
    *,
    offered: Sequence[str] = (),
) -> None:
    """As `store.messages.set_verdict`, for many."""
    connection.send(
        _SET_VERDICT,
        {
            "ids": list(ids),
            "owner": owner,
            "verdict": verdict,
            "reason": reason,
            "offered": list(offered) if verdict is Verdict.DEAD_LETTER else None,
        },
    )


async def leave(
    connection: Connection, owner: str, owners: Mapping[UUID, str], check_by: datetime
) -> Sequence[RunnableMessage]:
    """Give messages to runners of their own."""
    return await _LEAVE.rows(
        connection,
        {
            "ids": list(owners),
            "owners": list(owners.values()),
            "owner": owner,
            "check_by": check_by,
        },
    )

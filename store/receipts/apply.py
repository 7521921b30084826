"""What receipts change: parts, their attempts, and their messages.

One statement handles the usual case, the only part of an attempt that is delivered; other receipts
are applied step by step. Both leave the same rows.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from domain.error_classes import ErrorClass
from domain.receipts import FAILURES, ReceiptState
from domain.values import value
from store.attempts import AttemptChange, refold
from store.database import Connection, PendingResult, sql
from store.events import append
from store.rows import Query
from store.transitions import (
    EMIT_EVENTS,
    TRANSITION_COLUMNS,
    SizedQuery,
    Transition,
    apply_transition,
    refresh_status,
)


@value
class PartReceipt:
    """A receipt, and the part that it is for; `provider` is the part's."""

    message_id: UUID
    attempt: int
    number: int
    provider: str
    provider_message_id: str
    state: ReceiptState
    code: str
    network: str | None
    received_at: datetime
    responded_at: datetime | None
    error_class: ErrorClass | None = None


@dataclass(frozen=True, slots=True)
class Met:
    """A receipt that met its part, and the seconds since its provider had accepted that part."""

    state: ReceiptState
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _WaitingAttempt:
    """An attempt that waits for its receipt until `receipt_by`."""

    message_id: UUID
    number: int
    provider: str
    mode: str
    missing_receipt: str | None
    receipt_by: datetime
    valid_until: datetime


ReceiptBy = Callable[[str, str, str | None, datetime, datetime, datetime], datetime]
"""How long to wait after an ENROUTE receipt: from the provider, the message's mode and own policy for
missing receipts, how long it was waited for before, when the receipt came, and until when the message is valid."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What the configuration says about the effects of receipts.

    Attributes:
        errors: what each negative state means as an error class.
        recheck: when the reconciler looks at a message that goes on and whose runner sleeps.
        receipt_by: how long to wait after an ENROUTE receipt.
    """

    errors: Mapping[ReceiptState, str]
    recheck: timedelta
    receipt_by: ReceiptBy


def _applied(status: str) -> str:
    """What a receipt changes of a part `p`, whose status has this name in its table."""
    outranked = f"({_rank('p.receipt_state')}) > b.rank"
    return f"""
    provider_message_id = coalesce(p.provider_message_id, nullif(b.provider_message_id, '')),
    {status} = CASE
        WHEN p.{status} = 'delivered' OR b.rank = 2 THEN 'delivered'
        WHEN b.rank = 1 THEN 'undelivered'
        WHEN p.{status} IN ('submitting', 'unknown') THEN 'accepted'
        ELSE p.{status} END,
    receipt_state = CASE WHEN {outranked} THEN p.receipt_state ELSE b.state END,
    receipt_code = CASE WHEN {outranked} THEN p.receipt_code ELSE b.code END,
    receipt_error_class = CASE WHEN {outranked} THEN p.receipt_error_class ELSE b.error_class END,
    receipt_at = CASE WHEN {outranked} THEN p.receipt_at ELSE b.received_at END
"""


_FAILURES = ", ".join(f"'{state.value}'" for state in FAILURES)


def _rank(state: str) -> str:
    """As `domain.receipts.rank`; below all for a part without a receipt."""
    return (
        f"CASE WHEN {state} IS NULL THEN -1 WHEN {state} = 'delivered' THEN 2"
        f" WHEN {state} IN ({_FAILURES}) THEN 1 ELSE 0 END"
    )


# Of several receipts for one part the one that ranks highest counts, and of equals the last.
_APPLY = sql(f"""
WITH pairs AS (
    SELECT p.*, CASE WHEN starts_with(m.owner, 'bulk/') THEN m.bulk_id END AS bulk_id,
           {_rank("p.state")} AS rank
    FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[]),
                CAST(:numbers AS smallint[]), CAST(:providers AS text[]),
                CAST(:provider_message_ids AS text[]), CAST(:states AS text[]),
                CAST(:codes AS text[]), CAST(:error_classes AS text[]), CAST(:networks AS text[]),
                CAST(:received AS timestamptz[])) WITH ORDINALITY
         AS p (message_id, attempt, number, provider, provider_message_id, state, code, error_class,
               network, received_at, place)
    JOIN messages m ON m.id = p.message_id
    WHERE m.id = ANY(:message_ids)
), notified AS (
    INSERT INTO events (message_id, at, kind, actor, status, attempt, provider, network, code,
                        detail)
    SELECT message_id, :at, 'receipt', 'provider', state, attempt, provider, network, code,
           jsonb_build_object('part', number)
    FROM pairs WHERE bulk_id IS NULL ORDER BY place
), notified_of_many AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, attempt, provider,
                                network, code, detail)
    SELECT bulk_id, array_agg(message_id), :at, 'receipt', 'provider', state, attempt, provider,
           network, code, jsonb_build_object('part', number)
    FROM pairs WHERE bulk_id IS NOT NULL
    GROUP BY bulk_id, state, attempt, provider, network, code, number
    ORDER BY min(place)
), best AS (
    SELECT DISTINCT ON (message_id, attempt, number) * FROM pairs
    ORDER BY message_id, attempt, number, rank DESC, place DESC
), single AS (
    UPDATE attempts p SET {_applied("part_status")}
    FROM best b
    WHERE p.message_id = b.message_id AND p.number = b.attempt AND p.part_status IS NOT NULL
      AND p.message_id = ANY(:message_ids)
)
UPDATE parts p SET {_applied("status")}
FROM best b
WHERE p.message_id = b.message_id AND p.attempt = b.attempt AND p.number = b.number
  AND p.message_id = ANY(:message_ids)
""")

# The error of an attempt is the worst one of its parts, however their receipts were grouped. Failures
# that receipts report come before errors of the submit. A receipt's own class counts before that of its
# state.
_SET_ERRORS = sql("""
UPDATE attempts a SET error_class = w.error_class
FROM (
    SELECT DISTINCT ON (p.message_id, p.attempt) p.message_id, p.attempt,
           CASE WHEN p.status = 'undelivered' AND e.error_class IS NOT NULL
                THEN coalesce(p.receipt_error_class, e.error_class)
                ELSE coalesce(e.error_class, p.error_class, 'unknown') END AS error_class
    FROM all_parts p
    LEFT JOIN unnest(CAST(:states AS text[]), CAST(:classes AS text[])) WITH ORDINALITY
         AS e (state, error_class, place) ON e.state = p.receipt_state
    WHERE p.message_id = ANY(:message_ids)
      AND (p.status = 'undelivered' AND e.error_class IS NOT NULL
           OR p.status = 'unknown' OR p.error_class IS NOT NULL)
    ORDER BY p.message_id, p.attempt,
             array_position(ARRAY['undelivered', 'unknown', 'refused', 'throttled'], p.status),
             e.place
) w
WHERE a.message_id = w.message_id AND a.number = w.attempt AND a.message_id = ANY(:message_ids)
  AND a.error_class IS DISTINCT FROM w.error_class
""")

# The usual case in one statement: the only part of an attempt is delivered, and its message waits for
# that. Where a message does not, its attempt is changed all the same, and the rest step by step.
_DELIVER = SizedQuery.of(
    Transition,
    f"""
WITH pairs AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS smallint[]),
                         CAST(:codes AS text[]), CAST(:networks AS text[]),
                         CAST(:received AS timestamptz[]))
         AS p (message_id, attempt, code, network, received_at)
), attempt AS (
    UPDATE attempts a
    SET status = 'delivered', part_status = 'delivered', settled_at = :at, error_class = NULL,
        retry_after = NULL, receipt_state = 'delivered', receipt_code = r.code,
        receipt_error_class = NULL, receipt_at = r.received_at
    FROM pairs r
    WHERE a.message_id = r.message_id AND a.number = r.attempt AND a.message_id = ANY(:ids)
      AND a.part_status = 'accepted' AND a.provider_message_id IS NOT NULL
    RETURNING a.message_id, a.number, a.provider, coalesce(nullif(r.code, ''), a.code) AS code
), arrived AS (
    UPDATE messages m
    SET status = 'delivered', reason = 'delivered', transitioned_at = :at, check_by = NULL,
        waiting_for = NULL
    FROM attempt a
    WHERE m.id = a.message_id AND m.id = ANY(:ids) AND m.status = 'sent'
    RETURNING {TRANSITION_COLUMNS}, 'sent' AS previous, a.number AS attempt, a.provider, a.code
), received AS (
    INSERT INTO events (message_id, at, kind, actor, status, attempt, provider, network, code,
                        detail)
    SELECT p.message_id, :at, 'receipt', 'provider', 'delivered', p.attempt, m.provider, p.network,
           p.code, '{{"part": 1}}'
    FROM pairs p JOIN arrived m ON m.id = p.message_id WHERE m.bulk_id IS NULL
    RETURNING 1
), received_by_many AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, attempt, provider,
                                network, code, detail)
    SELECT m.bulk_id, array_agg(p.message_id), :at, 'receipt', 'provider', 'delivered', p.attempt,
           m.provider, p.network, p.code, '{{"part": 1}}'
    FROM pairs p JOIN arrived m ON m.id = p.message_id WHERE m.bulk_id IS NOT NULL
    GROUP BY m.bulk_id, p.attempt, m.provider, p.network, p.code
    RETURNING 1
), moved AS (
    -- Notified of only when the receipts were.
    SELECT * FROM arrived
    WHERE (SELECT count(*) FROM received) + (SELECT count(*) FROM received_by_many) > 0
), {EMIT_EVENTS}
""",
)

_WAITS = Query.of(
    _WaitingAttempt,
    """
SELECT a.message_id, a.number, a.provider, m.mode, m.missing_receipt, a.receipt_by, m.valid_until
FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[])) AS t (message_id, number)
JOIN attempts a ON a.message_id = t.message_id AND a.number = t.number
JOIN messages m ON m.id = a.message_id
""",
)

_EXTEND = sql("""
UPDATE attempts a SET receipt_by = greatest(a.receipt_by, t.receipt_by)
FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[]),
            CAST(:receipt_by AS timestamptz[])) AS t (message_id, number, receipt_by)
WHERE a.message_id = t.message_id AND a.number = t.number AND a.message_id = ANY(:message_ids)
""")

_NETWORKS = sql("""
UPDATE messages m SET network = n.network
FROM unnest(CAST(:ids AS uuid[]), CAST(:networks AS text[])) AS n (id, network)
WHERE m.id = n.id AND m.id = ANY(:ids) AND m.network = 'unknown'
""")

_DUPLICATES = Query.of(
    UUID,
    """
SELECT message_id FROM attempts
WHERE message_id = ANY(:ids) AND status = 'delivered'
GROUP BY message_id HAVING count(*) > 1
""",
)

_NEWS = frozenset({ReceiptState.ENROUTE, ReceiptState.ACCEPTED})


async def apply(
    connection: Connection,
    receipts: Sequence[PartReceipt],
    effects: Effects,
    *,
    at: datetime,
) -> tuple[list[Met], list[Transition]]:
    """Write what receipts say has become of their parts; the rows of the messages are locked.

    `receipts` are in the order in which they came.
    """
    if not receipts:
        return [], []
    delivered = await _deliver(connection, receipts, at)
    arrived = {message_id for each in delivered for message_id in each.ids}
    left = [receipt for receipt in receipts if receipt.message_id not in arrived]
    moved = await _step_by_step(connection, left, effects, at=at)
    return [_met(receipt) for receipt in receipts], [*delivered, *moved]


async def _deliver(
    connection: Connection, receipts: Sequence[PartReceipt], at: datetime
) -> list[Transition]:
    """Move the messages that are delivered by their only receipt, as most are."""
    counts = Counter(receipt.message_id for receipt in receipts)
    usual = [
        receipt
        for receipt in receipts
        if receipt.state is ReceiptState.DELIVERED
        and receipt.number == 1
        and receipt.network is None
        and counts[receipt.message_id] == 1
    ]
    if not usual:
        return []
    return await apply_transition(
        connection,
        _DELIVER,
        [receipt.message_id for receipt in usual],
        actor="receipt",
        at=at,
        check_by=None,
        attempts=[receipt.attempt for receipt in usual],
        codes=[receipt.code for receipt in usual],
        networks=[receipt.network for receipt in usual],
        received=[receipt.received_at for receipt in usual],
    )


async def _step_by_step(
    connection: Connection, receipts: Sequence[PartReceipt], effects: Effects, *, at: datetime
) -> list[Transition]:
    """Apply receipts one step after the other: to parts, those to attempts, those to messages."""
    if not receipts:
        return []
    waits = _apply(connection, receipts, at)
    ids = list({receipt.message_id for receipt in receipts})
    connection.send(
        _SET_ERRORS,
        {
            "message_ids": ids,
            "states": [state.value for state in FAILURES],
            "classes": [effects.errors.get(state) for state in FAILURES],
        },
    )
    touched = {(receipt.message_id, receipt.attempt) for receipt in receipts}
    refold(connection, [AttemptChange(*attempt) for attempt in sorted(touched)], at=at)
    moved = refresh_status(connection, ids, actor="receipt", at=at, check_by=at + effects.recheck)
    delivered = [r.message_id for r in receipts if r.state is ReceiptState.DELIVERED]
    duplicates = _DUPLICATES.rows(connection, {"ids": delivered})
    if waits is not None:
        _extend(connection, receipts, await waits, effects)
    for duplicate in await duplicates:
        # Two delivered attempts: the recipient got it twice, and the record says so.
        append(connection, duplicate, "duplicate", actor="receipt", at=at)
    return await moved


def _apply(
    connection: Connection, receipts: Sequence[PartReceipt], at: datetime
) -> PendingResult[Sequence[_WaitingAttempt]] | None:
    """Apply receipts to parts; the attempts that are waited for longer now, if there are any."""
    connection.send(
        _APPLY,
        {
            "at": at,
            "message_ids": [r.message_id for r in receipts],
            "attempts": [r.attempt for r in receipts],
            "numbers": [r.number for r in receipts],
            "providers": [r.provider for r in receipts],
            "provider_message_ids": [r.provider_message_id for r in receipts],
            "states": [r.state.value for r in receipts],
            "codes": [r.code for r in receipts],
            "error_classes": [r.error_class for r in receipts],
            "networks": [r.network for r in receipts],
            "received": [r.received_at for r in receipts],
        },
    )
    networks = {r.message_id: r.network for r in reversed(receipts) if r.network}  # the first
    if networks:
        columns = {"ids": list(networks), "networks": list(networks.values())}
        connection.send(_NETWORKS, columns)
    news = sorted({(r.message_id, r.attempt) for r in receipts if r.state in _NEWS})
    if not news:
        return None
    return _WAITS.rows(
        connection,
        {"message_ids": [m for m, _ in news], "attempts": [number for _, number in news]},
    )


def _extend(
    connection: Connection,
    receipts: Sequence[PartReceipt],
    waits: Sequence[_WaitingAttempt],
    effects: Effects,
) -> None:
    """Wait longer for the receipts of attempts that are said to be on their way."""
    came: dict[tuple[UUID, int], datetime] = {}
    for receipt in receipts:
        if receipt.state in _NEWS:
            key = receipt.message_id, receipt.attempt
            came[key] = max(receipt.received_at, came.get(key, receipt.received_at))
    connection.send(
        _EXTEND,
        {
            "message_ids": [attempt.message_id for attempt in waits],
            "attempts": [attempt.number for attempt in waits],
            "receipt_by": [
                effects.receipt_by(
                    attempt.provider,
                    attempt.mode,
                    attempt.missing_receipt,
                    attempt.receipt_by,
                    came[attempt.message_id, attempt.number],
                    attempt.valid_until,
                )
                for attempt in waits
            ],
        },
    )


def _met(receipt: PartReceipt) -> Met:
    # A part that was found without its id had no response then.
    since = receipt.responded_at
    seconds = (receipt.received_at - since).total_seconds() if since is not None else None
    return Met(receipt.state, seconds)

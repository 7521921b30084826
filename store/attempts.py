"""Attempts and their parts: written before the socket, settled after it.

The only part of an attempt stands in the attempt's own row, with `part_status`; several have rows of
their own. The view `all_parts` shows both alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from domain.states import AttemptStatus, PartStatus, fold_attempt
from domain.values import value
from store.database import Answer, Connection, Row, sql
from store.transitions import MOVED, TELL, ByCount, Transition, move, settle


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to hand a message to a provider, asked for right before the socket.

    Attributes:
        message_id: which message.
        epoch: the runner's; an older one than the row's gets nothing.
        number: of the attempt.
        provider: who would carry it.
        parts: how many, all of them submitted at once.
        part_method: how they are joined.
        reference: concatenation reference, and base of the parts' own references; 0 to 65535.
        at: the time by which the message must still be valid.
        answer_by: by then the provider has answered or never will.
        receipt_by: how long receipts are waited for.
    """

    message_id: UUID
    epoch: int
    number: int
    provider: str
    parts: int
    part_method: str
    reference: int
    at: datetime
    answer_by: datetime
    receipt_by: datetime
    config_version: int | None


# The last look at everything that could forbid the submit, and the attempt, in one statement: what
# was written is submitted at once, what is not written never leaves. The message's row is locked,
# so that a cancel, a replay or another runner comes either before (and is seen) or after.
_CLAIM = sql("""
WITH allowed AS (
    SELECT id FROM messages
    WHERE id = :message_id AND epoch = :epoch AND verdict IS NULL
      AND cancel_requested_at IS NULL AND valid_until > :at
      AND (scheduled_at IS NULL OR scheduled_at <= :at)
      AND status IN ('queued', 'retried', 'unknown')
    FOR UPDATE
), attempt AS (
    INSERT INTO attempts (message_id, number, epoch, provider, status, part_status, part_method,
                          reference, started_at, answer_by, settled_at, receipt_by, config_version)
    SELECT id, :number, :epoch, :provider, 'submitting',
           CASE WHEN CAST(:parts AS integer) = 1 THEN 'submitting' END, :part_method,
           :reference, :at, :answer_by, :at, :receipt_by, :config_version
    FROM allowed
    ON CONFLICT (message_id, number) DO NOTHING
    RETURNING message_id, number
), written AS (
    INSERT INTO parts (message_id, attempt, number, provider, status, reference, submitted_at)
    SELECT message_id, number, part, :provider, 'submitting',
           (CAST(:reference AS integer) + part - 1) % 65536, :at
    FROM attempt CROSS JOIN generate_series(1, CAST(:parts AS integer)) AS part
    WHERE CAST(:parts AS integer) > 1
)
SELECT message_id FROM attempt
""")

_RESUME = sql("""
WITH allowed AS (
    SELECT id FROM messages
    WHERE id = :message_id AND epoch = :epoch AND verdict IS NULL
      AND cancel_requested_at IS NULL AND valid_until > :at AND status = 'retried'
    FOR UPDATE
), attempt AS (
    UPDATE attempts a
    SET status = 'submitting', tries = tries + 1, answer_by = :answer_by, settled_at = :at,
        receipt_by = :receipt_by
    FROM allowed
    WHERE a.message_id = allowed.id AND a.number = :number AND a.status = 'partial'
    RETURNING a.message_id, a.number
)
UPDATE parts p
SET status = 'submitting', submitted_at = :at, error_class = NULL, code = ''
FROM attempt
WHERE p.message_id = attempt.message_id AND p.attempt = attempt.number
  AND p.status IN ('refused', 'throttled', 'unreachable')
RETURNING p.number, p.reference
""")

# What was learned of parts, as `_of_parts` gives it.
_OF_PARTS = """
    SELECT * FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[]),
                         CAST(:numbers AS smallint[]), CAST(:statuses AS text[]),
                         CAST(:provider_ids AS text[]), CAST(:classes AS text[]),
                         CAST(:codes AS text[]))
         AS o (message_id, attempt, number, status, provider_message_id, error_class, code)
"""

# Only what is still in flight, or in doubt, learns from an answer: a receipt may have come first.
_RECORD = sql(f"""
WITH o AS ({_OF_PARTS}), single AS (
    UPDATE attempts a
    SET part_status = CASE WHEN a.part_status IN ('submitting', 'unknown') THEN o.status
                           ELSE a.part_status END,
        provider_message_id = coalesce(o.provider_message_id, a.provider_message_id),
        answered_at = :at
    FROM o
    WHERE a.message_id = o.message_id AND a.number = o.attempt AND a.part_status IS NOT NULL
      AND a.message_id = ANY(:message_ids)
)
UPDATE parts p
SET status = CASE WHEN p.status IN ('submitting', 'unknown') THEN o.status ELSE p.status END,
    provider_message_id = coalesce(o.provider_message_id, p.provider_message_id),
    error_class = o.error_class, code = o.code, answered_at = :at
FROM o
WHERE p.message_id = o.message_id AND p.attempt = o.attempt AND p.number = o.number
  AND p.message_id = ANY(:message_ids)
""")

_REFOLD = sql("""
UPDATE attempts a
SET status = f.status, settled_at = :at,
    error_class = CASE WHEN f.status IN ('accepted', 'delivered', 'submitting') THEN NULL
                       ELSE coalesce(t.error_class, a.error_class) END,
    code = coalesce(t.code, a.code),
    retry_after = t.retry_after,
    receipt_by = CASE WHEN f.status = 'unknown' THEN least(a.receipt_by, :doubt_until)
                      ELSE a.receipt_by END,
    bind = CASE WHEN t.bind = '' THEN a.bind ELSE t.bind END
FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[]),
            CAST(:classes AS text[]), CAST(:codes AS text[]), CAST(:rests AS interval[]),
            CAST(:binds AS text[]))
     AS t (message_id, number, error_class, code, retry_after, bind)
JOIN attempt_folds(CAST(:message_ids AS uuid[])) f
  ON f.message_id = t.message_id AND f.number = t.number
WHERE a.message_id = f.message_id AND a.number = f.number AND a.message_id = ANY(:message_ids)
""")

# What was learned of attempts as a whole, as `_of_attempts` gives it, and one column more.
_OF_ATTEMPTS = """
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:of_attempts AS smallint[]),
                         CAST(:of_statuses AS text[]), CAST(:of_classes AS text[]),
                         CAST(:of_codes AS text[]), CAST(:rests AS interval[]),
                         CAST(:binds AS text[]), {more})
         AS t (message_id, number, status, error_class, code, retry_after, bind, {names})
"""
_CHANGED = """
    status = t.status, settled_at = :at, error_class = t.error_class,
    code = coalesce(t.code, a.code), retry_after = t.retry_after,
    receipt_by = CASE WHEN t.status = 'unknown' THEN least(a.receipt_by, :doubt_until)
                      ELSE a.receipt_by END,
    bind = CASE WHEN t.bind = '' THEN a.bind ELSE t.bind END
"""
# Nobody but its submit has touched an attempt `a`, as which `t` tells what was learned.
UNTOUCHED = """
    a.message_id = t.message_id AND a.number = t.number AND a.message_id = ANY(:ids)
    AND a.status = 'submitting' AND NOT a.expired
"""
_MOVED_ON = f"""
moved AS (
    UPDATE messages m
    SET status = CASE a.status WHEN 'accepted' THEN 'sent' WHEN 'unknown' THEN 'unknown'
                               ELSE 'retried' END,
        moved_at = :at,
        check_by = CASE
            WHEN CAST(:check_by AS timestamptz) IS NULL OR starts_with(m.owner, 'bulk/')
            THEN m.check_by ELSE :check_by END
    FROM attempt a
    WHERE m.id = a.message_id AND m.id = ANY(:ids) AND m.status = 'sending'
      AND m.verdict IS NULL AND m.epoch = a.epoch
    RETURNING {MOVED}, 'sending' AS previous, a.number AS attempt, a.provider, a.code
), {TELL}
"""

# The usual case in one statement: nobody but its submit has touched the attempt. What is not as it
# usually is stays as it is, and is folded step by step.
_RECORD_ONLY = ByCount.of(f"""
WITH t AS ({
    _OF_ATTEMPTS.format(more="CAST(:provider_ids AS text[])", names="provider_message_id")
}), attempt AS (
    UPDATE attempts a
    SET part_status = t.status, provider_message_id = t.provider_message_id, answered_at = :at,
        {_CHANGED}
    FROM t
    WHERE {UNTOUCHED} AND a.part_status = 'submitting' AND a.provider_message_id IS NULL
    RETURNING a.message_id, a.number, a.epoch, a.provider, a.code, a.status
), {_MOVED_ON}
""")

_RECORD_ALL = ByCount.of(f"""
WITH o AS ({_OF_PARTS}), part AS (
    UPDATE parts p
    SET status = o.status, provider_message_id = o.provider_message_id,
        error_class = o.error_class, code = o.code, answered_at = :at
    FROM o
    WHERE p.message_id = o.message_id AND p.attempt = o.attempt AND p.number = o.number
      AND p.message_id = ANY(:ids) AND p.status = 'submitting' AND p.provider_message_id IS NULL
    RETURNING p.message_id, p.attempt
), t AS ({_OF_ATTEMPTS.format(more="CAST(:counts AS smallint[])", names="parts")}
), whole AS (
    SELECT t.* FROM t JOIN (SELECT message_id, attempt, count(*) AS parts FROM part GROUP BY 1, 2) n
        ON n.message_id = t.message_id AND n.attempt = t.number AND n.parts = t.parts
), attempt AS (
    UPDATE attempts a SET {_CHANGED} FROM whole t WHERE {UNTOUCHED}
    RETURNING a.message_id, a.number, a.epoch, a.provider, a.code, a.status
), {_MOVED_ON}
""")

_DOUBT = sql("""
WITH t AS (
    SELECT * FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[]))
         AS t (message_id, number)
), single AS (
    UPDATE attempts a SET part_status = 'unknown'
    FROM t
    WHERE a.message_id = t.message_id AND a.number = t.number AND a.part_status = 'submitting'
)
UPDATE parts p SET status = 'unknown'
FROM t
WHERE p.message_id = t.message_id AND p.attempt = t.number AND p.status = 'submitting'
""")

_EXPIRE = sql("""
UPDATE attempts a SET expired = true
FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[])) AS t (message_id, number)
WHERE a.message_id = t.message_id AND a.number = t.number
""")

_RECALLED = sql("""
UPDATE attempts SET recalled = :recalled
WHERE message_id = :message_id AND number = :attempt
""")

_OF_MESSAGE = sql("""
SELECT number, epoch, provider, status, error_class, code, tries, part_method, reference, bind,
       started_at, answer_by, settled_at, receipt_by, recalled, retry_after, config_version
FROM attempts WHERE message_id = :message_id ORDER BY number
""")

_PARTS = sql("""
SELECT attempt, number, status, provider_message_id, error_class, code, reference, submitted_at,
       answered_at, receipt_state, receipt_code, receipt_at
FROM all_parts WHERE message_id = :message_id AND status IS NOT NULL ORDER BY attempt, number
""")


def claim(connection: Connection, wanted: Claim) -> Answer[list[int]]:
    """Write the attempt if nothing forbids it; its parts, none if something does, or if it is written."""
    values = {name: getattr(wanted, name) for name in Claim.__slots__}
    return connection.row(_CLAIM, values).then(
        lambda written: list(range(1, wanted.parts + 1)) if written else []
    )


def resume(connection: Connection, wanted: Claim) -> Answer[list[int]]:
    """Take up the parts of a partial attempt that were not accepted; their numbers, in order."""
    names = ("message_id", "epoch", "number", "at", "answer_by", "receipt_by")
    values = {name: getattr(wanted, name) for name in names}
    return connection.rows(_RESUME, values).then(
        lambda parts: sorted(part["number"] for part in parts)
    )


@value
class PartRecord:
    """What is written of one part after its provider answered, or did not."""

    number: int
    status: str
    provider_message_id: str | None
    error_class: str | None
    code: str


@value
class AttemptChange:
    """An attempt of which something was learned; None and "" leave what is known.

    Attributes:
        parts: what was learned of its parts, if anything.
        error_class, code: what that means for the attempt as a whole.
        retry_after: what the provider asked for.
        bind: by which session it went.
    """

    message_id: UUID
    number: int
    parts: Sequence[PartRecord] = ()
    error_class: str | None = None
    code: str | None = None
    retry_after: timedelta | None = None
    bind: str = ""


def record(
    connection: Connection,
    changes: Sequence[AttemptChange],
    *,
    at: datetime,
    doubt_until: datetime | None,
) -> None:
    """Write what came of parts, and what that makes of their attempts."""
    connection.send(_RECORD, {"at": at, **_of_parts(changes)})
    refold(connection, changes, at=at, doubt_until=doubt_until)


async def record_and_settle(
    connection: Connection,
    changes: Sequence[AttemptChange],
    *,
    actor: str,
    at: datetime,
    check_by: datetime | None,
    doubt_until: datetime,
) -> list[Transition]:
    """Write the outcomes of attempts, each with all its parts, and move their messages.

    The rows of the messages are locked. Arguments as those of `record` and `settle`.
    """
    only = [change for change in changes if len(change.parts) == 1]
    several = [change for change in changes if len(change.parts) > 1]
    moved: list[Transition] = []
    for statement, some, more in (
        (_RECORD_ONLY, only, {"provider_ids": [c.parts[0].provider_message_id for c in only]}),
        (_RECORD_ALL, several, {**_of_parts(several), "counts": [len(c.parts) for c in several]}),
    ):
        if some:
            moved += await move(
                connection,
                statement,
                [change.message_id for change in some],
                actor=actor,
                at=at,
                check_by=check_by,
                doubt_until=doubt_until,
                **_of_attempts(some),
                **more,
            )
    done = {message_id for each in moved for message_id in each.ids}
    left = [change for change in changes if change.message_id not in done]
    if left:
        record(connection, left, at=at, doubt_until=doubt_until)
        ids = [change.message_id for change in left]
        moved += await settle(connection, ids, actor=actor, at=at, check_by=check_by)
    return moved


def _of_parts(changes: Sequence[AttemptChange]) -> dict[str, list[object]]:
    """What was learned of parts, column by column."""
    parts = [(change, part) for change in changes for part in change.parts]
    return {
        "message_ids": [change.message_id for change, _ in parts],
        "attempts": [change.number for change, _ in parts],
        "numbers": [part.number for _, part in parts],
        "statuses": [part.status for _, part in parts],
        "provider_ids": [part.provider_message_id for _, part in parts],
        "classes": [part.error_class for _, part in parts],
        "codes": [part.code for _, part in parts],
    }


def _of_attempts(changes: Sequence[AttemptChange]) -> dict[str, list[object]]:
    """What was learned of attempts of which all parts are known, column by column."""
    return {
        "of_attempts": [change.number for change in changes],
        "of_statuses": [
            fold_attempt([PartStatus(part.status) for part in change.parts]).value
            for change in changes
        ],
        "of_classes": [change.error_class for change in changes],
        "of_codes": [change.code for change in changes],
        "rests": [change.retry_after for change in changes],
        "binds": [change.bind for change in changes],
    }


def refold(
    connection: Connection,
    changes: Sequence[AttemptChange],
    *,
    at: datetime,
    doubt_until: datetime | None = None,
) -> None:
    """Make the status of attempts follow from their parts.

    `doubt_until` bounds the wait for a receipt if nobody knows whether the provider has it.
    """
    connection.send(
        _REFOLD,
        {
            "at": at,
            "doubt_until": doubt_until,
            "message_ids": [change.message_id for change in changes],
            "attempts": [change.number for change in changes],
            "classes": [change.error_class for change in changes],
            "codes": [change.code for change in changes],
            "rests": [change.retry_after for change in changes],
            "binds": [change.bind for change in changes],
        },
    )


def declare(
    connection: Connection,
    attempts: Sequence[tuple[UUID, int]],
    status: AttemptStatus,
    *,
    at: datetime,
    doubt_until: datetime | None,
) -> None:
    """Record what time has made of attempts: UNKNOWN (never answered) or EXPIRED (no receipt).

    If the answer or the receipt was quicker, that stands.
    """
    unknown = status is AttemptStatus.UNKNOWN
    connection.send(
        _DOUBT if unknown else _EXPIRE,
        {
            "message_ids": [message_id for message_id, _ in attempts],
            "attempts": [number for _, number in attempts],
        },
    )
    error = "unknown" if unknown else None
    changes = [
        AttemptChange(message_id, number, error_class=error) for message_id, number in attempts
    ]
    refold(connection, changes, at=at, doubt_until=doubt_until)


def recalled(connection: Connection, message_id: UUID, attempt: int, *, done: bool) -> None:
    """Remember that the provider was asked to forget an attempt, and whether it did."""
    connection.send(_RECALLED, {"message_id": message_id, "attempt": attempt, "recalled": done})


def of_message(connection: Connection, message_id: UUID) -> Answer[Sequence[Row]]:
    """A message's attempts, in order."""
    return connection.rows(_OF_MESSAGE, {"message_id": message_id})


async def parts_of_message(connection: Connection, message_id: UUID) -> Sequence[Row]:
    """The parts of all attempts of a message, in order."""
    return await connection.rows(_PARTS, {"message_id": message_id})

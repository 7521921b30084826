"""Attempts and their parts: written before the socket, settled after it.

The only part of an attempt stands in the attempt's own row, with `part_status`; several have rows of
their own. The view `all_parts` shows both alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from domain.claims import Refusal
from domain.error_classes import ErrorClass
from domain.money import Price
from domain.segments import PartMethod
from domain.states import AttemptStatus, MessageStatus, PartStatus, fold_attempt
from domain.values import value
from store.claims import CLAIMABLE, ENDING, ENDING_REASON, FROM_WANTED, REFUSAL, Granted
from store.database import Connection, PendingResult, sql
from store.rows import Query
from store.transitions import (
    EMIT_EVENTS,
    TRANSITION_COLUMNS,
    SizedQuery,
    Transition,
    apply_transition,
    refresh_status,
)


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
        response_by: by then the provider has answered or never will.
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
    response_by: datetime
    receipt_by: datetime
    config_version: int | None


@value
class AttemptRow:
    """What decisions need of an attempt; `domain.delivery.AttemptFacts` describes the columns."""

    number: int
    provider: str
    status: AttemptStatus
    error_class: ErrorClass | None
    tries: int
    started_at: datetime
    response_by: datetime
    settled_at: datetime
    receipt_by: datetime
    cancelled_at_provider: bool | None
    retry_after: timedelta | None
    out_of_time: bool


@value
class StoredAttempt(AttemptRow):
    """An attempt of one message."""

    epoch: int
    code: str
    part_method: PartMethod
    reference: int
    bind: str
    config_version: int | None


@value
class StoredPart:
    """A part of an attempt, with the id in the form that the provider gave."""

    attempt: int
    number: int
    status: PartStatus
    provider_message_id: str | None
    error_class: str | None
    code: str
    reference: int
    submitted_at: datetime
    responded_at: datetime | None
    billed_segments: int | None
    price: Decimal | None
    price_currency: str | None
    receipt_state: str | None
    receipt_code: str | None
    receipt_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Claimed:
    """Why a claim was refused, or the parts that it may submit; None if the attempt exists."""

    refusal: Refusal | None
    parts: tuple[int, ...] | None


# One message, its refusal, and its end where that is permanent.
_LOOKED = f"""
wanted AS (
    SELECT CAST(:message_id AS uuid) AS id, CAST(:epoch AS integer) AS epoch
), looked AS (
    SELECT m.id, m.status AS previous, {REFUSAL} AS refusal
    {FROM_WANTED}
    WHERE m.id = :message_id
    FOR UPDATE OF m
), ended AS (
    UPDATE messages m SET verdict = e.verdict, reason = {ENDING_REASON} {ENDING}
)
"""

_CLAIM = Query.of(
    _Claimed,
    f"""
WITH {_LOOKED}, attempt AS (
    INSERT INTO attempts (message_id, number, epoch, provider, status, part_status, part_method,
                          reference, started_at, response_by, settled_at, receipt_by, config_version)
    SELECT id, :number, :epoch, :provider, 'submitting',
           CASE WHEN CAST(:parts AS integer) = 1 THEN 'submitting' END, :part_method,
           :reference, :at, :response_by, :at, :receipt_by, :config_version
    FROM looked WHERE refusal IS NULL
    ON CONFLICT (message_id, number) DO NOTHING
    RETURNING message_id, number
), written AS (
    INSERT INTO parts (message_id, attempt, number, provider, status, reference, submitted_at)
    SELECT message_id, number, part, :provider, 'submitting',
           (CAST(:reference AS integer) + part - 1) % 65536, :at
    FROM attempt CROSS JOIN generate_series(1, CAST(:parts AS integer)) AS part
    WHERE CAST(:parts AS integer) > 1
)
SELECT l.refusal, (SELECT array_agg(n.part) FROM attempt,
                   generate_series(1, CAST(:parts AS integer)) AS n (part)) AS parts
FROM looked l
""",
)

_RESUME = Query.of(
    _Claimed,
    f"""
WITH {_LOOKED}, attempt AS (
    UPDATE attempts a
    SET status = 'submitting', tries = tries + 1, response_by = :response_by, settled_at = :at,
        receipt_by = :receipt_by
    FROM looked l
    WHERE l.refusal IS NULL
      AND a.message_id = l.id AND a.number = :number AND a.status = 'partial'
    RETURNING a.message_id, a.number
), resumed AS (
    UPDATE parts p
    SET status = 'submitting', submitted_at = :at, error_class = NULL, code = ''
    FROM attempt
    WHERE p.message_id = attempt.message_id AND p.attempt = attempt.number
      AND p.status IN ('refused', 'throttled', 'unreachable')
    RETURNING p.number
)
SELECT l.refusal, (SELECT array_agg(number ORDER BY number) FROM resumed) AS parts FROM looked l
""",
)

# What was learned of parts, as `_of_parts` gives it.
_OF_PARTS = """
    SELECT * FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[]),
                         CAST(:numbers AS smallint[]), CAST(:statuses AS text[]),
                         CAST(:provider_ids AS text[]), CAST(:given_ids AS text[]),
                         CAST(:classes AS text[]), CAST(:codes AS text[]),
                         CAST(:billed AS smallint[]), CAST(:prices AS numeric[]),
                         CAST(:currencies AS text[]))
         AS o (message_id, attempt, number, status, provider_message_id,
               provider_message_id_given, error_class, code, billed_segments, price,
               price_currency)
"""

BILLED = """
billed_segments = {o}.billed_segments, price = {o}.price, price_currency = {o}.price_currency
"""
"""What a part's provider bills, from `o`, what was learned of it."""

# Only what is still in flight, or unknown, learns from a response: a receipt may have come first.
_RECORD = sql(f"""
WITH o AS ({_OF_PARTS}), single AS (
    UPDATE attempts a
    SET part_status = CASE WHEN a.part_status IN ('submitting', 'unknown') THEN o.status
                           ELSE a.part_status END,
        provider_message_id = coalesce(o.provider_message_id, a.provider_message_id),
        provider_message_id_given =
            coalesce(o.provider_message_id_given, a.provider_message_id_given),
        responded_at = :at, {BILLED.format(o="o")}
    FROM o
    WHERE a.message_id = o.message_id AND a.number = o.attempt AND a.part_status IS NOT NULL
      AND a.message_id = ANY(:message_ids)
)
UPDATE parts p
SET status = CASE WHEN p.status IN ('submitting', 'unknown') THEN o.status ELSE p.status END,
    provider_message_id = coalesce(o.provider_message_id, p.provider_message_id),
    provider_message_id_given = coalesce(o.provider_message_id_given, p.provider_message_id_given),
    error_class = o.error_class, code = o.code, responded_at = :at, {BILLED.format(o="o")}
FROM o
WHERE p.message_id = o.message_id AND p.attempt = o.attempt AND p.number = o.number
  AND p.message_id = ANY(:message_ids)
""")

# The time until a receipt counts from the acceptance, not from the claim: many parts at a slow provider
# take their time. `settled_at` is when the parts were claimed, until their outcome is written.
#
# The error of a partial attempt is that of its missing parts: an error that was resolved since then,
# such as a doubt, is none of theirs. Its tries count anew with each try in which a part was accepted:
# the missing parts have the time of their last try, and what was accepted in it has the same.
_REFOLD = sql("""
UPDATE attempts a
SET status = f.status,
    settled_at = CASE WHEN a.status = f.status THEN a.settled_at ELSE :at END,
    error_class = CASE WHEN f.status IN ('accepted', 'delivered', 'submitting') THEN NULL
                       WHEN f.status = 'partial'
                       THEN coalesce(missing.error_class, t.error_class, a.error_class)
                       ELSE coalesce(t.error_class, a.error_class) END,
    tries = CASE WHEN f.status = 'partial' AND missing.tried_with_success THEN 1 ELSE a.tries END,
    code = coalesce(t.code, a.code),
    retry_after = t.retry_after,
    receipt_by = CASE WHEN f.status = 'unknown' THEN least(a.receipt_by, :unknown_until)
                      WHEN f.status = 'accepted' AND a.status = 'submitting'
                      THEN a.receipt_by + (CAST(:at AS timestamptz) - a.settled_at)
                      WHEN f.status = 'accepted' AND a.status = 'unknown'
                      THEN greatest(a.receipt_by, CAST(:receipt_by AS timestamptz))
                      ELSE a.receipt_by END,
    bind = CASE WHEN t.bind = '' THEN a.bind ELSE t.bind END
FROM unnest(CAST(:message_ids AS uuid[]), CAST(:attempts AS smallint[]),
            CAST(:classes AS text[]), CAST(:codes AS text[]), CAST(:rests AS interval[]),
            CAST(:binds AS text[]))
     AS t (message_id, number, error_class, code, retry_after, bind)
JOIN attempt_folds(CAST(:message_ids AS uuid[])) f
  ON f.message_id = t.message_id AND f.number = t.number
LEFT JOIN LATERAL (
    SELECT p.error_class, EXISTS (
        SELECT FROM parts q
        WHERE q.message_id = p.message_id AND q.attempt = p.attempt
          AND q.status IN ('accepted', 'delivered') AND q.submitted_at >= p.submitted_at
    ) AS tried_with_success
    FROM parts p
    WHERE f.status = 'partial' AND p.message_id = f.message_id AND p.attempt = f.number
      AND p.status IN ('refused', 'throttled', 'unreachable')
    ORDER BY array_position(ARRAY['refused', 'throttled', 'unreachable'], p.status), p.number
    LIMIT 1
) missing ON true
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
    receipt_by = CASE t.status
        WHEN 'unknown' THEN least(a.receipt_by, :unknown_until)
        WHEN 'accepted' THEN a.receipt_by + (CAST(:at AS timestamptz) - a.settled_at)
        ELSE a.receipt_by END,
    bind = CASE WHEN t.bind = '' THEN a.bind ELSE t.bind END
"""
# Selects each attempt `a` that nothing but its submit has changed; `t` has its new values.
UNTOUCHED = """
    a.message_id = t.message_id AND a.number = t.number AND a.message_id = ANY(:ids)
    AND a.status = 'submitting' AND NOT a.expired
"""
_MOVED_ON = f"""
moved AS (
    UPDATE messages m
    SET status = CASE a.status WHEN 'accepted' THEN 'sent' WHEN 'unknown' THEN 'unknown'
                               ELSE 'retried' END,
        transitioned_at = :at,
        check_by = CASE
            WHEN CAST(:check_by AS timestamptz) IS NULL OR starts_with(m.owner, 'bulk/')
            THEN m.check_by ELSE :check_by END
    FROM attempt a
    WHERE m.id = a.message_id AND m.id = ANY(:ids) AND m.status = 'sending'
      AND m.verdict IS NULL AND m.epoch = a.epoch
    RETURNING {TRANSITION_COLUMNS}, 'sending' AS previous, a.number AS attempt, a.provider, a.code
), {EMIT_EVENTS}
"""

# The usual case in one statement: nobody but its submit has touched the attempt. What is not as it
# usually is stays as it is, and is folded step by step.
_RECORD_ONLY = SizedQuery.of(
    Transition,
    f"""
WITH t AS ({
        _OF_ATTEMPTS.format(
            more="CAST(:provider_ids AS text[]), CAST(:given_ids AS text[]),"
            " CAST(:billed AS smallint[]), CAST(:prices AS numeric[]), CAST(:currencies AS text[])",
            names="provider_message_id, provider_message_id_given, billed_segments, price,"
            " price_currency",
        )
    }), attempt AS (
    UPDATE attempts a
    SET part_status = t.status, provider_message_id = t.provider_message_id,
        provider_message_id_given = t.provider_message_id_given, responded_at = :at,
        {BILLED.format(o="t")}, {_CHANGED}
    FROM t
    WHERE {UNTOUCHED} AND a.part_status = 'submitting' AND a.provider_message_id IS NULL
    RETURNING a.message_id, a.number, a.epoch, a.provider, a.code, a.status
), {_MOVED_ON}
""",
)

_RECORD_ALL = SizedQuery.of(
    Transition,
    f"""
WITH o AS ({_OF_PARTS}), part AS (
    UPDATE parts p
    SET status = o.status, provider_message_id = o.provider_message_id,
        provider_message_id_given = o.provider_message_id_given, error_class = o.error_class,
        code = o.code, responded_at = :at, {BILLED.format(o="o")}
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
""",
)

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

_WAIT_LONGER = sql("""
UPDATE attempts SET receipt_by = greatest(receipt_by, :until)
WHERE message_id = :message_id AND number = :number
""")

# Written before the provider is asked, so that a try whose result nobody wrote is one, too.
_BEGIN_CANCEL = Query.of(
    int,
    """
UPDATE attempts SET cancelled_at_provider = false
WHERE message_id = :message_id AND number = :attempt AND cancelled_at_provider IS NULL
RETURNING number
""",
)

_RECALLED = sql("""
UPDATE attempts SET cancelled_at_provider = :cancelled_at_provider
WHERE message_id = :message_id AND number = :attempt
""")

# Whether nothing but its validity kept an attempt `a` from being delivered.
OUT_OF_TIME = """
(a.status = 'undelivered' AND NOT EXISTS (
    SELECT FROM all_parts p
    WHERE p.message_id = a.message_id AND p.attempt = a.number
      AND p.status = 'undelivered'
      AND (p.receipt_state IS DISTINCT FROM 'expired'
           OR coalesce(p.receipt_error_class, 'undelivered') <> 'undelivered')
)) AS out_of_time
"""

ATTEMPT_COLUMNS = f"""
a.number, a.provider, a.status, a.error_class, a.tries, a.started_at, a.response_by, a.settled_at,
a.receipt_by, a.cancelled_at_provider, a.retry_after, {OUT_OF_TIME}
"""
"""The columns of an `AttemptRow`, of an attempt `a`."""

_OF_MESSAGE = Query.of(
    StoredAttempt,
    f"""
SELECT {ATTEMPT_COLUMNS}, epoch, code, part_method, reference, bind, config_version
FROM attempts a WHERE message_id = :message_id ORDER BY number
""",
)

# The ids as the provider gave them: these go back to it, and it knows them by these.
_PARTS = Query.of(
    StoredPart,
    """
SELECT p.attempt, p.number, p.status,
       coalesce(a.provider_message_id_given, s.provider_message_id_given, p.provider_message_id)
           AS provider_message_id,
       p.error_class, p.code, p.reference, p.submitted_at, p.responded_at, p.billed_segments,
       p.price, p.price_currency, p.receipt_state, p.receipt_code, p.receipt_at
FROM all_parts p
JOIN attempts a ON a.message_id = p.message_id AND a.number = p.attempt
LEFT JOIN parts s
       ON s.message_id = p.message_id AND s.attempt = p.attempt AND s.number = p.number
WHERE p.message_id = :message_id AND p.status IS NOT NULL ORDER BY p.attempt, p.number
""",
)


def claim(connection: Connection, wanted: Claim) -> PendingResult[Granted]:
    """Write the attempt if nothing forbids it; its parts, or the reason why it was not written.

    A permanent reason has ended the message, where no provider has it; `store.transitions.refresh_status` then
    moves it.
    """
    values = {name: getattr(wanted, name) for name in Claim.__slots__}
    return _granted(connection, _CLAIM, CLAIMABLE, values)


def resume(connection: Connection, wanted: Claim) -> PendingResult[Granted]:
    """As `claim`, for those parts of a partial attempt that were not accepted."""
    names = ("message_id", "epoch", "number", "at", "response_by", "receipt_by")
    values = {name: getattr(wanted, name) for name in names}
    return _granted(connection, _RESUME, (MessageStatus.RETRIED,), values)


def _granted(
    connection: Connection,
    query: Query[_Claimed],
    claimable: Sequence[MessageStatus],
    values: Mapping[str, object],
) -> PendingResult[Granted]:
    statuses = [status.value for status in claimable]
    found = query.row(connection, {**values, "owner": None, "claimable": statuses})
    return found.then(_as_granted)


def _as_granted(found: _Claimed | None) -> Granted:
    if found is None:
        return Granted(refusal=Refusal.SUPERSEDED)
    if found.refusal is not None:
        return Granted(refusal=found.refusal)
    # An attempt of this number stands there already, or is not one to be resumed.
    parts = found.parts or ()
    return Granted(parts, None if parts else Refusal.IN_FLIGHT)


@value
class PartRecord:
    """What is written of one part after its provider answered, or did not."""

    number: int
    status: str
    provider_message_id: str | None
    error_class: str | None
    code: str
    provider_message_id_given: str | None = None
    billed_segments: int | None = None
    price: Price | None = None


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
    unknown_until: datetime | None,
    receipt_by: datetime | None = None,
) -> None:
    """Write what came of parts, and what that makes of their attempts."""
    connection.send(_RECORD, {"at": at, **_of_parts(changes)})
    refold(connection, changes, at=at, unknown_until=unknown_until, receipt_by=receipt_by)


async def record_and_refresh(
    connection: Connection,
    changes: Sequence[AttemptChange],
    *,
    actor: str,
    at: datetime,
    check_by: datetime | None,
    unknown_until: datetime,
) -> list[Transition]:
    """Write the outcomes of attempts, each with all its parts, and move their messages.

    The rows of the messages are locked. Arguments as those of `record` and `refresh_status`.
    """
    only = [change for change in changes if len(change.parts) == 1]
    several = [change for change in changes if len(change.parts) > 1]
    moved: list[Transition] = []
    for statement, some, more in (
        (_RECORD_ONLY, only, _of_only_parts(only)),
        (_RECORD_ALL, several, {**_of_parts(several), "counts": [len(c.parts) for c in several]}),
    ):
        if some:
            moved += await apply_transition(
                connection,
                statement,
                [change.message_id for change in some],
                actor=actor,
                at=at,
                check_by=check_by,
                unknown_until=unknown_until,
                **_of_attempts(some),
                **more,
            )
    done = {message_id for each in moved for message_id in each.ids}
    left = [change for change in changes if change.message_id not in done]
    if left:
        record(connection, left, at=at, unknown_until=unknown_until)
        ids = [change.message_id for change in left]
        moved += await refresh_status(connection, ids, actor=actor, at=at, check_by=check_by)
    return moved


def _of_only_parts(changes: Sequence[AttemptChange]) -> dict[str, list[object]]:
    """The ids of attempts that have one part, column by column."""
    return {
        "provider_ids": [change.parts[0].provider_message_id for change in changes],
        "given_ids": [change.parts[0].provider_message_id_given for change in changes],
        **billed([change.parts[0] for change in changes]),
    }


def billed(parts: Sequence[PartRecord]) -> dict[str, list[object]]:
    """What providers bill for parts, column by column."""
    prices = [part.price for part in parts]
    return {
        "billed": [part.billed_segments for part in parts],
        "prices": [price and price.amount for price in prices],
        "currencies": [price and price.currency for price in prices],
    }


def _of_parts(changes: Sequence[AttemptChange]) -> dict[str, list[object]]:
    """What was learned of parts, column by column."""
    parts = [(change, part) for change in changes for part in change.parts]
    return {
        "message_ids": [change.message_id for change, _ in parts],
        "attempts": [change.number for change, _ in parts],
        "numbers": [part.number for _, part in parts],
        "statuses": [part.status for _, part in parts],
        "provider_ids": [part.provider_message_id for _, part in parts],
        "given_ids": [part.provider_message_id_given for _, part in parts],
        "classes": [part.error_class for _, part in parts],
        "codes": [part.code for _, part in parts],
        **billed([part for _, part in parts]),
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
    unknown_until: datetime | None = None,
    receipt_by: datetime | None = None,
) -> None:
    """Make the status of attempts follow from their parts.

    `unknown_until` bounds the wait for a receipt if nobody knows whether the provider has it, and
    `receipt_by` is how long receipts are waited for where it is known now that it has.
    """
    connection.send(
        _REFOLD,
        {
            "at": at,
            "unknown_until": unknown_until,
            "receipt_by": receipt_by,
            "message_ids": [change.message_id for change in changes],
            "attempts": [change.number for change in changes],
            "classes": [change.error_class for change in changes],
            "codes": [change.code for change in changes],
            "rests": [change.retry_after for change in changes],
            "binds": [change.bind for change in changes],
        },
    )


def wait_longer(connection: Connection, message_id: UUID, number: int, until: datetime) -> None:
    """Wait for the receipt of an attempt until then, if it was not waited for longer anyway."""
    connection.send(_WAIT_LONGER, {"message_id": message_id, "number": number, "until": until})


def mark_attempt(
    connection: Connection,
    attempts: Sequence[tuple[UUID, int]],
    status: AttemptStatus,
    *,
    at: datetime,
    unknown_until: datetime | None,
) -> None:
    """Mark attempts whose deadline has passed: UNKNOWN (no response) or EXPIRED (no receipt).

    If the response or the receipt was quicker, that stands.
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
    refold(connection, changes, at=at, unknown_until=unknown_until)


def begin_cancel(connection: Connection, message_id: UUID, attempt: int) -> PendingResult[bool]:
    """Record that a provider is asked to cancel an attempt; False if it was asked before."""
    return _BEGIN_CANCEL.row(connection, {"message_id": message_id, "attempt": attempt}).then(
        lambda begun: begun is not None
    )


def cancelled_at_provider(
    connection: Connection, message_id: UUID, attempt: int, *, done: bool
) -> None:
    """Remember that the provider was asked to forget an attempt, and whether it did."""
    connection.send(
        _RECALLED, {"message_id": message_id, "attempt": attempt, "cancelled_at_provider": done}
    )


def of_message(connection: Connection, message_id: UUID) -> PendingResult[Sequence[StoredAttempt]]:
    """A message's attempts, in order."""
    return _OF_MESSAGE.rows(connection, {"message_id": message_id})


async def parts_of_message(connection: Connection, message_id: UUID) -> Sequence[StoredPart]:
    """The parts of all attempts of a message, in order."""
    return await _PARTS.rows(connection, {"message_id": message_id})

"""Receipts: stored before they are answered, and matched to their parts whichever came first.

A receipt and the answer that tells the provider's id race each other, and neither sees what the other
has not committed yet. So both look twice: in the transaction that writes, and once more when it is
committed. Whoever looks last sees both; if both find the pair, the receipt's row decides who applies
it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from uuid import UUID

from domain.receipts import ReceiptState
from domain.states import MessageStatus, PartStatus
from domain.values import value
from store.attempts import UNTOUCHED, AttemptChange, refold
from store.database import Answer, Connection, Row, sql
from store.events import append
from store.transitions import FRESH_ID, MOVED, TELL, ByCount, Transition, lock, move, settle

# Ids of providers recycle: older parts with the same id are somebody else's.
_ID_LIFE = timedelta(days=14)


@value
class StoredReceipt:
    """A receipt as it is stored; `number_hash` is the recipient's keyed hash, never the number."""

    provider: str
    provider_message_id: str
    state: ReceiptState
    code: str
    received_at: datetime
    network: str | None = None
    reference: int | None = None
    sender: str | None = None
    number_hash: bytes | None = None
    done_at: datetime | None = None

    @property
    def day(self) -> date:
        return self.received_at.date()


@value
class EarlyReceipt:
    """A receipt that came before its answer was written, and says that a part is delivered."""

    code: str
    received_at: datetime
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Met:
    """A receipt that met its part, and the seconds since its provider had accepted that part."""

    state: ReceiptState
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Matched:
    """What bringing receipts and parts together did."""

    met: tuple[Met, ...] = ()
    transitions: tuple[Transition, ...] = ()
    alone: tuple[str, ...] = ()
    """The ids among those asked for of which nothing was found."""


_Pair = tuple[Row, int]
"""A receipt with its message and attempt, and the number of its part."""

ReceiptErrors = Mapping[str, str]
"""What each negative state means as an error class."""

# The part with this id that was submitted last: ids of providers recycle. A receipt that stands in the
# attempt itself was the first of its copies.
_ITS_PART = """
    SELECT message_id, attempt, number, answered_at,
           receipt_within AND receipt_state = r.state AND receipt_code = r.code AS is_copy
    FROM all_parts
    WHERE provider = r.provider AND provider_message_id = r.provider_message_id
      AND submitted_at > r.received_at - CAST(:id_life AS interval)
    ORDER BY submitted_at DESC LIMIT 1
"""

# Of most receipts the part is known when they come: they are written with it, and never again. What
# is returned of a copy is as it was stored the first time; only the first counts.
_STORE = ByCount.of(f"""
WITH new AS (
    SELECT r.*, p.message_id, p.attempt, p.number, p.answered_at, p.is_copy
    FROM unnest(CAST(:days AS date[]), CAST(:providers AS text[]), CAST(:ids AS text[]),
                CAST(:states AS text[]), CAST(:codes AS text[]), CAST(:networks AS text[]),
                CAST(:refs AS integer[]), CAST(:senders AS text[]), CAST(:hashes AS bytea[]),
                CAST(:received AS timestamptz[]), CAST(:done AS timestamptz[]),
                CAST(:copies AS integer[])) WITH ORDINALITY
         AS r (day, provider, provider_message_id, state, code, network, reference, sender,
               number_hash, received_at, done_at, copies, place)
    LEFT JOIN LATERAL ({_ITS_PART}) p ON true
), stored AS (
    INSERT INTO receipts (day, provider, provider_message_id, state, code, network, reference,
                          sender, number_hash, received_at, done_at, copies, message_id, attempt,
                          part)
    SELECT day, provider, provider_message_id, state, code, network, reference, sender,
           number_hash, received_at, done_at, copies, message_id, attempt, number
    FROM new ORDER BY place
    ON CONFLICT (day, provider, provider_message_id, state, code)
    DO UPDATE SET copies = receipts.copies + excluded.copies
    RETURNING day, id, provider_message_id, state, code, network, received_at, message_id, attempt,
              part, xmax = 0 AS first
)
SELECT s.*, s.part AS number, n.answered_at
FROM stored s JOIN new n USING (day, provider_message_id, state, code)
WHERE (s.first AND n.is_copy IS NOT TRUE) OR s.message_id IS NULL
ORDER BY s.received_at, s.id
""")

_BY_ID = sql(f"""
SELECT r.day, r.id, r.provider_message_id, r.state, r.code, r.network, r.received_at, r.part,
       p.message_id, p.attempt, p.number, p.answered_at, p.is_copy
FROM receipts r
JOIN LATERAL ({_ITS_PART}) p ON true
WHERE r.message_id IS NULL AND r.provider = :provider AND r.provider_message_id = ANY(:ids)
ORDER BY r.received_at, r.id
""")

# A lost answer also loses the id: the part is found by the reference that the SMSC echoes, or as
# the only attempt in doubt with this sender, recipient and time. Not while another is in flight: the
# receipt may have been quicker than the answer that tells its id.
_BY_REFERENCE = sql("""
SELECT r.day, r.id, r.provider_message_id, r.state, r.code, r.network, r.received_at,
       min(p.message_id::text)::uuid AS message_id, min(p.attempt) AS attempt,
       min(p.number) AS number
FROM receipts r
JOIN recipients c ON c.number_hash = r.number_hash
JOIN messages m ON m.recipient_id = c.id
JOIN LATERAL (
    SELECT message_id, attempt, number FROM all_parts
    WHERE message_id = m.id AND provider = r.provider AND reference = r.reference
      AND status IN ('submitting', 'unknown') AND provider_message_id IS NULL
      AND submitted_at BETWEEN r.received_at - interval '1 day' AND r.received_at
) p ON true
WHERE r.message_id IS NULL AND r.provider = :provider AND r.provider_message_id = ANY(:ids)
  AND r.reference IS NOT NULL
GROUP BY r.day, r.id
HAVING count(*) = 1
ORDER BY r.received_at, r.id
""")

_BY_CANDIDATE = sql("""
SELECT r.day, r.id, r.provider_message_id, r.state, r.code, r.network, r.received_at,
       min(a.message_id::text)::uuid AS message_id, min(a.number) AS attempt
FROM receipts r
JOIN recipients c ON c.number_hash = r.number_hash
JOIN messages m ON m.recipient_id = c.id AND m.sender = r.sender
               AND m.accepted_at BETWEEN r.received_at - interval '40 days' AND r.received_at
JOIN attempts a ON a.message_id = m.id AND a.provider = r.provider
               AND a.status IN ('unknown', 'submitting')
               AND a.started_at BETWEEN r.received_at - interval '3 days' AND r.received_at
WHERE r.message_id IS NULL AND r.provider = :provider AND r.provider_message_id = ANY(:ids)
  AND NOT EXISTS (SELECT FROM all_parts p
                  WHERE p.provider = r.provider AND p.provider_message_id = r.provider_message_id
                    AND p.submitted_at > r.received_at - CAST(:id_life AS interval))
GROUP BY r.day, r.id
HAVING count(*) = 1 AND min(a.status) = 'unknown'
ORDER BY r.received_at, r.id
""")

_PART_IN_DOUBT = sql("""
SELECT number FROM all_parts
WHERE message_id = :message_id AND attempt = :attempt AND status = 'unknown'
  AND provider_message_id IS NULL
ORDER BY number LIMIT 1
""")


def _applied(status: str) -> str:
    """What a receipt changes of a part `p`, whose status has this name in its table."""
    return f"""
    provider_message_id = coalesce(p.provider_message_id, b.provider_message_id),
    {status} = CASE
        WHEN p.{status} = 'delivered' OR b.rank = 2 THEN 'delivered'
        WHEN b.rank = 1 THEN 'undelivered'
        WHEN p.{status} IN ('submitting', 'unknown') THEN 'accepted'
        ELSE p.{status} END,
    receipt_state = CASE WHEN p.receipt_state = 'delivered' THEN p.receipt_state ELSE b.state END,
    receipt_code = CASE WHEN p.receipt_state = 'delivered' THEN p.receipt_code ELSE b.code END,
    receipt_at = CASE WHEN p.receipt_state = 'delivered' THEN p.receipt_at ELSE b.received_at END
"""


# Delivered stands above everything, another final state above what is only on its way; of several
# receipts for one part the one that stands highest counts, and of equals the last.
_APPLY = sql(f"""
WITH pairs AS (
    SELECT p.*, CASE WHEN starts_with(m.owner, 'bulk/') THEN m.bulk_id END AS bulk_id,
           CASE WHEN p.state = 'delivered' THEN 2
                WHEN p.state IN ('expired', 'deleted', 'undeliverable', 'rejected') THEN 1
                ELSE 0 END AS rank
    FROM unnest(CAST(:days AS date[]), CAST(:ids AS bigint[]), CAST(:message_ids AS uuid[]),
                CAST(:attempts AS smallint[]), CAST(:numbers AS smallint[]),
                CAST(:provider_message_ids AS text[]), CAST(:states AS text[]),
                CAST(:codes AS text[]), CAST(:networks AS text[]),
                CAST(:received AS timestamptz[])) WITH ORDINALITY
         AS p (day, id, message_id, attempt, number, provider_message_id, state, code, network,
               received_at, place)
    JOIN messages m ON m.id = p.message_id
    WHERE m.id = ANY(:message_ids)
), told AS (
    INSERT INTO events (message_id, at, kind, actor, status, attempt, provider, network, code,
                        detail)
    SELECT message_id, :at, 'receipt', 'provider', state, attempt, :provider, network, code,
           jsonb_build_object('part', number)
    FROM pairs WHERE bulk_id IS NULL ORDER BY place
), told_of_many AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, attempt, provider,
                                network, code, detail)
    SELECT bulk_id, array_agg(message_id), :at, 'receipt', 'provider', state, attempt, :provider,
           network, code, jsonb_build_object('part', number)
    FROM pairs WHERE bulk_id IS NOT NULL
    GROUP BY bulk_id, state, attempt, network, code, number
    ORDER BY min(place)
), best AS (
    SELECT DISTINCT ON (message_id, attempt, number) * FROM pairs
    ORDER BY message_id, attempt, number, rank DESC, place DESC
), single AS (
    UPDATE attempts p SET {_applied("part_status")}
    FROM best b
    WHERE p.message_id = b.message_id AND p.number = b.attempt AND p.part_status IS NOT NULL
      AND p.message_id = ANY(:message_ids)
    RETURNING p.message_id, p.number AS attempt, b.number, p.answered_at
), several AS (
    UPDATE parts p SET {_applied("status")}
    FROM best b
    WHERE p.message_id = b.message_id AND p.attempt = b.attempt AND p.number = b.number
      AND p.message_id = ANY(:message_ids)
    RETURNING p.message_id, p.attempt, p.number, p.answered_at
)
SELECT * FROM single UNION ALL SELECT * FROM several
""")

# The usual case in one statement: the only part of an attempt is delivered. What
# is not as it usually is stays as it is, and is applied step by step.
_DELIVER = ByCount.of(f"""
WITH pairs AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS smallint[]),
                         CAST(:codes AS text[]), CAST(:networks AS text[]),
                         CAST(:received AS timestamptz[]))
         AS p (message_id, attempt, code, network, received_at)
), attempt AS (
    UPDATE attempts a
    SET status = 'delivered', part_status = 'delivered', settled_at = :at, error_class = NULL,
        receipt_state = 'delivered', receipt_code = r.code, receipt_at = r.received_at
    FROM pairs r
    WHERE a.message_id = r.message_id AND a.number = r.attempt AND a.message_id = ANY(:ids)
      AND a.part_status = 'accepted'
    RETURNING a.message_id, a.number, a.provider, a.code
), arrived AS (
    UPDATE messages m
    SET status = 'delivered', reason = 'delivered', moved_at = :at, check_by = NULL,
        waiting_for = NULL
    FROM attempt a
    WHERE m.id = a.message_id AND m.id = ANY(:ids) AND m.status = 'sent'
    RETURNING {MOVED}, 'sent' AS previous, a.number AS attempt, a.provider, a.code
), received AS (
    INSERT INTO events (message_id, at, kind, actor, status, attempt, provider, network, code,
                        detail)
    SELECT p.message_id, :at, 'receipt', 'provider', 'delivered', p.attempt, :provider, p.network,
           p.code, '{{"part": 1}}'
    FROM pairs p JOIN arrived m ON m.id = p.message_id WHERE m.bulk_id IS NULL
    RETURNING 1
), received_by_many AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, attempt, provider,
                                network, code, detail)
    SELECT m.bulk_id, array_agg(p.message_id), :at, 'receipt', 'provider', 'delivered', p.attempt,
           :provider, p.network, p.code, '{{"part": 1}}'
    FROM pairs p JOIN arrived m ON m.id = p.message_id WHERE m.bulk_id IS NOT NULL
    GROUP BY m.bulk_id, p.attempt, p.network, p.code
    RETURNING 1
), moved AS (
    -- Told of only when the receipts were.
    SELECT * FROM arrived
    WHERE (SELECT count(*) FROM received) + (SELECT count(*) FROM received_by_many) > 0
), {TELL}
""")

# The answer and its receipt in one statement, where both are as they usually are: the attempt has one
# part, nobody but its submit has touched it, and the message waits for it. It moves twice, and the
# receipt has no row of its own.
_RECORD_DELIVERED = ByCount.of(f"""
WITH t AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS smallint[]),
                         CAST(:binds AS text[]), CAST(:provider_ids AS text[]),
                         CAST(:codes AS text[]), CAST(:received AS timestamptz[]),
                         CAST(:done AS timestamptz[]))
         AS t (message_id, number, bind, provider_message_id, code, received_at, done_at)
), attempt AS (
    UPDATE attempts a
    SET status = 'delivered', part_status = 'delivered', answered_at = :at, settled_at = :at,
        provider_message_id = t.provider_message_id, error_class = NULL, code = '',
        retry_after = NULL, bind = CASE WHEN t.bind = '' THEN a.bind ELSE t.bind END,
        receipt_state = 'delivered', receipt_code = t.code, receipt_at = t.received_at,
        receipt_within = true, receipt_done_at = t.done_at
    FROM t JOIN messages m ON m.id = t.message_id
    WHERE {UNTOUCHED} AND a.part_status = 'submitting' AND a.provider_message_id IS NULL
      AND m.id = ANY(:ids) AND m.status = 'sending' AND m.verdict IS NULL AND m.epoch = a.epoch
      AND m.bulk_id IS NOT NULL AND starts_with(m.owner, 'bulk/')
    RETURNING t.message_id, t.number, t.code, a.provider, m.reason AS reason_before
), arrived AS (
    UPDATE messages m
    SET status = 'delivered', reason = 'delivered', moved_at = :at, check_by = NULL,
        waiting_for = NULL
    FROM attempt a
    WHERE m.id = a.message_id AND m.id = ANY(:ids)
    RETURNING m.id, m.bulk_id, m.mode, m.account_id, m.environment, m.network, m.owner, m.epoch,
              m.callback_lane_id, m.callback_url, m.callback_final_only, a.number AS attempt,
              a.provider, a.code AS receipt_code, a.reason_before
), told_of_many AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, previous, status, attempt,
                                provider, network, code, reason, detail)
    SELECT g.bulk_id, g.ids, :at, s.kind, coalesce(s.actor, :actor), s.previous, s.status,
           g.attempt, g.provider,
           CASE s.kind WHEN 'moved' THEN g.network END,
           CASE s.kind WHEN 'moved' THEN '' ELSE g.receipt_code END,
           coalesce(s.reason, CASE s.previous WHEN 'sending' THEN g.reason_before END), s.detail
    FROM (
        SELECT bulk_id, attempt, provider, network, receipt_code, reason_before, array_agg(id) AS ids
        FROM arrived
        GROUP BY bulk_id, attempt, provider, network, receipt_code, reason_before
    ) g
    CROSS JOIN (VALUES
        (1, 'moved', NULL, 'sending', 'sent', NULL, '{{}}'::jsonb),
        (2, 'receipt', 'provider', NULL, 'delivered', NULL, '{{"part": 1}}'),
        (3, 'moved', 'receipt', 'sent', 'delivered', 'delivered', '{{}}')
    ) AS s (step, kind, actor, previous, status, reason, detail)
    ORDER BY s.step
), outbox AS (
    INSERT INTO callback_events (id, lane_id, account_id, environment, message_id, url, status,
                                 occurred_at, next_at)
    SELECT {FRESH_ID}, callback_lane_id, account_id, environment, id, callback_url, status, :at, :at
    FROM (
        SELECT m.*, s.status
        FROM arrived m
        CROSS JOIN (VALUES (1, 'sent'), (2, 'delivered')) AS s (step, status)
        WHERE m.callback_lane_id IS NOT NULL AND s.status = ANY(:told)
          AND (s.status <> 'sent' OR NOT m.callback_final_only)
        ORDER BY s.step
    ) AS told
)
SELECT NULL AS id, NULL AS traceparent, bulk_id, 'sending' AS previous, 'sent' AS status,
       reason_before AS reason, mode, provider, '' AS code, account_id, owner, epoch,
       callback_lane_id, array_agg(id) AS ids
FROM arrived
GROUP BY bulk_id, reason_before, mode, provider, account_id, owner, epoch, callback_lane_id
""")

# Somebody else may have been quicker.
_ASSIGN = sql("""
UPDATE receipts r SET message_id = p.message_id, attempt = p.attempt, part = p.part
FROM unnest(CAST(:days AS date[]), CAST(:ids AS bigint[]), CAST(:message_ids AS uuid[]),
            CAST(:attempts AS smallint[]), CAST(:parts AS smallint[]))
     AS p (day, id, message_id, attempt, part)
WHERE r.day = p.day AND r.id = p.id AND r.message_id IS NULL
  AND r.day = ANY(CAST(:days AS date[])) AND r.id = ANY(CAST(:ids AS bigint[]))
RETURNING r.id
""")

# News that it is on its way moves the deadline on, within the message's validity.
_EXTEND = sql("""
UPDATE attempts a
SET receipt_by = greatest(a.receipt_by,
                          least(CAST(:at AS timestamptz) + (a.receipt_by - a.started_at),
                                m.valid_until))
FROM messages m
WHERE m.id = a.message_id AND a.message_id = :message_id AND a.number = :attempt
""")

_NETWORK = sql("""
UPDATE messages SET network = :network WHERE id = :message_id AND network = 'unknown'
""")

_PARTS_AT = sql("""
SELECT number, provider_message_id, reference FROM all_parts
WHERE message_id = :message_id AND provider = :provider AND status IS NOT NULL
  AND attempt = (SELECT max(number) FROM attempts
                 WHERE message_id = :message_id AND provider = :provider)
ORDER BY number
""")

_UNMATCHED_COUNT = sql("""
SELECT count(*) AS receipts FROM receipts
WHERE message_id IS NULL AND received_at BETWEEN :since AND :until
""")

_WAITING = sql("""
SELECT provider_message_id FROM receipts
WHERE provider = :provider AND message_id IS NULL LIMIT :limit
""")

_UNMATCHED = sql("""
SELECT DISTINCT provider, provider_message_id FROM receipts
WHERE message_id IS NULL AND received_at BETWEEN :since AND :until
LIMIT 1000
""")

_DUPLICATES = sql("""
SELECT message_id FROM attempts
WHERE message_id = ANY(:ids) AND status = 'delivered'
GROUP BY message_id HAVING count(*) > 1
""")

_OF_MESSAGE = sql("""
SELECT provider, provider_message_id, state, code, max(network) AS network, attempt, part,
       sum(copies)::integer AS copies, min(received_at) AS received_at, min(done_at) AS done_at
FROM (
    SELECT provider, provider_message_id, state, code, network, attempt, part, copies, received_at,
           done_at
    FROM receipts WHERE message_id = :message_id
    UNION ALL
    SELECT provider, provider_message_id, receipt_state, receipt_code, NULL, number, 1, 1,
           receipt_at, receipt_done_at
    FROM attempts WHERE message_id = :message_id AND receipt_within
) AS came
GROUP BY provider, provider_message_id, state, code, attempt, part
ORDER BY min(received_at), part
""")


async def ingest(
    connection: Connection,
    provider: str,
    batch: Sequence[StoredReceipt],
    *,
    at: datetime,
    errors: ReceiptErrors,
    recheck: timedelta,
) -> Matched:
    """Store a batch of one provider's receipts and let those that can be matched move messages.

    Args:
        connection: a fresh transaction; its commit is what allows the answers.
        provider: whose.
        batch: at least one; copies of what is stored are counted, not stored again.
        at: when they came.
        errors: what a negative state means as an error class.
        recheck: when the reconciler should look, if the message goes on and its runner sleeps.
    """
    # Two copies in one batch: Postgres updates no row twice in one statement.
    copies = Counter(_identity(r) for r in batch)
    kept = list({_identity(r): r for r in batch}.values())
    ids = [r.provider_message_id for r in kept]
    known = await _STORE.rows(
        connection,
        {
            "id_life": _ID_LIFE,
            "days": [r.day for r in kept],
            "providers": [provider for _ in kept],
            "ids": ids,
            "states": [r.state.value for r in kept],
            "codes": [r.code for r in kept],
            "networks": [r.network for r in kept],
            "refs": [r.reference for r in kept],
            "senders": [r.sender for r in kept],
            "hashes": [r.number_hash for r in kept],
            "received": [r.received_at for r in kept],
            "done": [r.done_at for r in kept],
            "copies": [copies[_identity(r)] for r in kept],
        },
        count=len(kept),
    )
    alone = [receipt["provider_message_id"] for receipt in known if receipt["message_id"] is None]
    fresh = [(receipt, receipt["number"]) for receipt in known if receipt["message_id"] is not None]
    if fresh:
        lock(connection, sorted({receipt["message_id"] for receipt, _ in fresh}))
    first = await _apply_all(connection, provider, fresh, at=at, errors=errors, recheck=recheck)
    second = Matched()
    if alone:
        second = await match(
            connection, provider, alone, at=at, errors=errors, recheck=recheck, among_doubtful=True
        )
    return Matched(
        (*first.met, *second.met), (*first.transitions, *second.transitions), second.alone
    )


async def record_delivered(
    connection: Connection,
    changes: Sequence[AttemptChange],
    receipts: Mapping[str, EarlyReceipt],
    *,
    actor: str,
    at: datetime,
) -> list[Transition]:
    """Write the answers to attempts together with their `receipts`, as far as these have come.

    Those of which nothing is returned are left as they were, with their receipts: what is not as it
    usually is. The rows of the messages are locked; `receipts` are by the provider's ids, and say
    that messages of bulks are delivered, and no more.
    """
    left = dict(receipts)
    pairs = [
        (change, receipt)
        for change in changes
        if len(change.parts) == 1
        and change.parts[0].status == PartStatus.ACCEPTED
        and (receipt := left.pop(change.parts[0].provider_message_id or "", None)) is not None
    ]
    if not pairs:
        return []
    sent = await move(
        connection,
        _RECORD_DELIVERED,
        [change.message_id for change, _ in pairs],
        actor=actor,
        at=at,
        check_by=None,
        numbers=[change.number for change, _ in pairs],
        binds=[change.bind for change, _ in pairs],
        provider_ids=[change.parts[0].provider_message_id for change, _ in pairs],
        codes=[receipt.code for _, receipt in pairs],
        received=[receipt.received_at for _, receipt in pairs],
        done=[receipt.done_at for _, receipt in pairs],
    )
    delivered = [
        replace(each, previous=each.status, status=MessageStatus.DELIVERED, reason="delivered")
        for each in sent
    ]
    return [*sent, *delivered]


def _identity(receipt: StoredReceipt) -> tuple[date, str, str, str]:
    """What makes two receipts of a provider copies of one."""
    return receipt.day, receipt.provider_message_id, receipt.state.value, receipt.code


async def match(
    connection: Connection,
    provider: str,
    ids: Sequence[str],
    *,
    at: datetime,
    errors: ReceiptErrors,
    recheck: timedelta,
    among_doubtful: bool = False,
) -> Matched:
    """Bring together receipts and parts with these ids of a provider, as far as they are not yet.

    For both sides of the race, whose second look is a transaction of its own. `among_doubtful`
    looks for parts whose id was never learned too; who records an answer has the id.
    """
    key = {"provider": provider, "ids": list(ids), "id_life": _ID_LIFE}
    found: list[tuple[Row, int | None]] = [
        (receipt, receipt["number"]) for receipt in await connection.rows(_BY_ID, key)
    ]
    if among_doubtful and {receipt["provider_message_id"] for receipt, _ in found} != set(ids):
        found += await _among_doubtful(connection, key, {receipt["id"] for receipt, _ in found})
    pairs: list[_Pair] = []
    if found:
        lock(connection, sorted({receipt["message_id"] for receipt, _ in found}))
        assigned = await _assigned(connection, found)
        pairs = [pair for pair in assigned if not pair[0].get("is_copy")]
    applied = await _apply_all(connection, provider, pairs, at=at, errors=errors, recheck=recheck)
    met = {receipt["provider_message_id"] for receipt, _ in found}
    return Matched(applied.met, applied.transitions, tuple(each for each in ids if each not in met))


async def _assigned(connection: Connection, found: Sequence[tuple[Row, int | None]]) -> list[_Pair]:
    """Assign receipts to their parts; those that nobody else had assigned."""
    pairs = [
        (receipt, part)
        for receipt, number in found
        if (part := number or await _part_in_doubt(connection, receipt)) is not None
    ]
    if not pairs:
        return []
    assigned = await connection.rows(
        _ASSIGN,
        {
            "days": [receipt["day"] for receipt, _ in pairs],
            "ids": [receipt["id"] for receipt, _ in pairs],
            "message_ids": [receipt["message_id"] for receipt, _ in pairs],
            "attempts": [receipt["attempt"] for receipt, _ in pairs],
            "parts": [part for _, part in pairs],
        },
    )
    mine = {row["id"] for row in assigned}
    return [(receipt, part) for receipt, part in pairs if receipt["id"] in mine]


async def _apply_all(
    connection: Connection,
    provider: str,
    pairs: Sequence[_Pair],
    *,
    at: datetime,
    errors: ReceiptErrors,
    recheck: timedelta,
) -> Matched:
    """Let receipts say what has become of their parts; the rows of the messages are locked."""
    if not pairs:
        return Matched()
    delivered = await _deliver(connection, provider, pairs, at)
    arrived = {message_id for each in delivered for message_id in each.ids}
    done = [receipt for receipt, _ in pairs if receipt["message_id"] in arrived]
    # A part that was found by its reference had no answer then.
    met = tuple(_met(receipt, receipt.get("answered_at")) for receipt in done)
    left = [pair for pair in pairs if pair[0]["message_id"] not in arrived]
    rest = await _step_by_step(connection, provider, left, at=at, errors=errors, recheck=recheck)
    return Matched((*met, *rest.met), (*delivered, *rest.transitions))


async def _deliver(
    connection: Connection, provider: str, pairs: Sequence[_Pair], at: datetime
) -> list[Transition]:
    """Move the messages that are delivered by their only receipt, as most are."""
    told = Counter(receipt["message_id"] for receipt, _ in pairs)
    usual = [
        receipt
        for receipt, number in pairs
        if receipt["state"] == ReceiptState.DELIVERED
        and number == 1
        and receipt["network"] is None
        and told[receipt["message_id"]] == 1
    ]
    if not usual:
        return []
    return await move(
        connection,
        _DELIVER,
        [receipt["message_id"] for receipt in usual],
        actor="receipt",
        at=at,
        check_by=None,
        provider=provider,
        attempts=[receipt["attempt"] for receipt in usual],
        codes=[receipt["code"] for receipt in usual],
        networks=[receipt["network"] for receipt in usual],
        received=[receipt["received_at"] for receipt in usual],
    )


async def _step_by_step(
    connection: Connection,
    provider: str,
    matched: Sequence[_Pair],
    *,
    at: datetime,
    errors: ReceiptErrors,
    recheck: timedelta,
) -> Matched:
    """Apply receipts one step after the other: to parts, those to attempts, those to messages."""
    if not matched:
        return Matched()
    applied = _apply(connection, provider, matched, at)
    touched = {(r["message_id"], r["attempt"]): r["state"] for r, _ in matched}
    refold(
        connection,
        [
            AttemptChange(message_id, attempt, error_class=errors.get(state))
            for (message_id, attempt), state in touched.items()
        ],
        at=at,
    )
    moved = settle(
        connection, [id_ for id_, _ in touched], actor="receipt", at=at, check_by=at + recheck
    )
    duplicates = connection.rows(
        _DUPLICATES, {"ids": [id_ for (id_, _), state in touched.items() if state == "delivered"]}
    )
    answered = await applied
    for duplicate in await duplicates:
        # Two delivered attempts: the recipient got it twice, and the record says so.
        append(connection, duplicate["message_id"], "duplicate", actor="receipt", at=at)
    met = [
        _met(receipt, answered[receipt["message_id"], receipt["attempt"], part])
        for receipt, part in matched
    ]
    return Matched(tuple(met), tuple(await moved))


async def _among_doubtful(
    connection: Connection, key: Mapping[str, object], known: set[int]
) -> list[tuple[Row, int | None]]:
    """Receipts whose part is found by its reference, or as the only one that it can be."""
    pairs: list[tuple[Row, int | None]] = []
    for found in [connection.rows(_BY_REFERENCE, key), connection.rows(_BY_CANDIDATE, key)]:
        for receipt in await found:
            if receipt["id"] not in known:
                known.add(receipt["id"])
                pairs.append((receipt, receipt.get("number")))
    return pairs


async def _part_in_doubt(connection: Connection, receipt: Row) -> int | None:
    key = {"message_id": receipt["message_id"], "attempt": receipt["attempt"]}
    found = await connection.row(_PART_IN_DOUBT, key)
    return found["number"] if found else None


def _apply(
    connection: Connection, provider: str, matched: Sequence[tuple[Row, int]], at: datetime
) -> Answer[dict[tuple[UUID, int, int], datetime | None]]:
    """Assign receipts to their parts; when each part had been answered."""
    receipts = [receipt for receipt, _ in matched]
    applied = connection.rows(
        _APPLY,
        {
            "at": at,
            "provider": provider,
            "days": [r["day"] for r in receipts],
            "ids": [r["id"] for r in receipts],
            "message_ids": [r["message_id"] for r in receipts],
            "attempts": [r["attempt"] for r in receipts],
            "numbers": [part for _, part in matched],
            "provider_message_ids": [r["provider_message_id"] for r in receipts],
            "states": [r["state"] for r in receipts],
            "codes": [r["code"] for r in receipts],
            "networks": [r["network"] for r in receipts],
            "received": [r["received_at"] for r in receipts],
        },
    )
    for receipt in receipts:
        message_id = receipt["message_id"]
        if receipt["state"] in {ReceiptState.ENROUTE, ReceiptState.ACCEPTED}:
            key = {"message_id": message_id, "attempt": receipt["attempt"]}
            connection.send(_EXTEND, {**key, "at": at})
        if receipt["network"]:
            connection.send(_NETWORK, {"message_id": message_id, "network": receipt["network"]})
    return applied.then(
        lambda parts: {
            (p["message_id"], p["attempt"], p["number"]): p["answered_at"] for p in parts
        }
    )


def _met(receipt: Row, answered_at: datetime | None) -> Met:
    return Met(
        state=ReceiptState(receipt["state"]),
        seconds=(receipt["received_at"] - answered_at).total_seconds() if answered_at else None,
    )


async def parts_at(connection: Connection, provider: str, message_id: UUID) -> Sequence[Row]:
    """The parts of a message's last attempt at a provider: number, provider_message_id, reference.

    For receipts that name the message by our id; none if it was never given to this provider.
    """
    return await connection.rows(_PARTS_AT, {"provider": provider, "message_id": message_id})


async def unmatched(
    connection: Connection, since: datetime, until: datetime
) -> dict[str, list[str]]:
    """Ids of receipts that met no part yet, by provider."""
    found: dict[str, list[str]] = {}
    for receipt in await connection.rows(_UNMATCHED, {"since": since, "until": until}):
        found.setdefault(receipt["provider"], []).append(receipt["provider_message_id"])
    return found


async def count_unmatched(connection: Connection, since: datetime, until: datetime) -> int:
    """How many receipts of that time met no part yet."""
    found = await connection.row(_UNMATCHED_COUNT, {"since": since, "until": until})
    return int(found["receipts"]) if found is not None else 0


async def waiting(connection: Connection, provider: str, limit: int) -> set[str] | None:
    """The ids of a provider's receipts that met no part yet; None if there are `limit` or more."""
    found = await connection.rows(_WAITING, {"provider": provider, "limit": limit})
    return {row["provider_message_id"] for row in found} if len(found) < limit else None


async def match_late(
    connection: Connection,
    provider: str,
    ids: Sequence[str],
    *,
    at: datetime,
    errors: ReceiptErrors,
    recheck: timedelta,
) -> Matched:
    """The matching alone, for receipts that are stored already."""
    return await match(
        connection, provider, ids, at=at, errors=errors, recheck=recheck, among_doubtful=True
    )


async def of_message(connection: Connection, message_id: UUID) -> Sequence[Row]:
    """The receipts that met a message, in the order in which they came."""
    return await connection.rows(_OF_MESSAGE, {"message_id": message_id})

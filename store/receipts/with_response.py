"""A submit response and its receipt, recorded in one statement.

Responses are gathered before they are written, so a receipt often comes before its response is. Where
both are as they usually are, one statement writes them: the message of a bulk, one part, an attempt
that nothing but its submit has touched, and an id that no other part has. The message moves twice, and
the receipt has no row of its own: it stands in the attempt, marked by `receipt_within`. Whatever is
not so is left as it was, and is written by `store.attempts` and `store.receipts`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from domain.receipt_matching import ID_LIFE
from domain.states import MessageStatus, PartStatus
from domain.values import value
from store.attempts import BILLED, UNTOUCHED, AttemptChange, billed
from store.database import Connection
from store.transitions import (
    TRANSITION_COLUMNS,
    SizedQuery,
    Transition,
    apply_transition,
    emit_events,
)


@value
class EarlyReceipt:
    """A receipt that came before its response was written, and says that a part is delivered.

    Hashes and reference as those of `store.receipts.ingest.StoredReceipt`.
    """

    code: str
    received_at: datetime
    done_at: datetime | None = None
    reference: int | None = None
    number_hash: bytes | None = None
    destination_hash: bytes | None = None


# Events are written in order: the first transition, then the receipt, then the second transition.
_RECORD_DELIVERED = SizedQuery.of(
    Transition,
    f"""
WITH t AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS smallint[]),
                         CAST(:binds AS text[]), CAST(:provider_ids AS text[]),
                         CAST(:given_ids AS text[]), CAST(:codes AS text[]), CAST(:received AS timestamptz[]),
                         CAST(:done AS timestamptz[]), CAST(:refs AS integer[]),
                         CAST(:hashes AS bytea[]), CAST(:others AS bytea[]),
                         CAST(:billed AS smallint[]), CAST(:prices AS numeric[]),
                         CAST(:currencies AS text[]))
         AS t (message_id, number, bind, provider_message_id, provider_message_id_given, code,
               received_at, done_at, reference, number_hash, destination_hash, billed_segments,
               price, price_currency)
), attempt AS (
    UPDATE attempts a
    SET status = 'delivered', part_status = 'delivered', responded_at = :at, settled_at = :at,
        receipt_by = a.receipt_by + (CAST(:at AS timestamptz) - a.settled_at),
        provider_message_id = t.provider_message_id,
        provider_message_id_given = t.provider_message_id_given, error_class = NULL, code = '',
        retry_after = NULL, bind = CASE WHEN t.bind = '' THEN a.bind ELSE t.bind END,
        receipt_state = 'delivered', receipt_code = t.code, receipt_at = t.received_at,
        receipt_within = true, receipt_done_at = t.done_at, {BILLED.format(o="t")}
    FROM t JOIN messages m ON m.id = t.message_id
    WHERE {UNTOUCHED} AND a.part_status = 'submitting' AND a.provider_message_id IS NULL
      AND m.id = ANY(:ids) AND m.status = 'sending' AND m.verdict IS NULL AND m.epoch = a.epoch
      AND m.bulk_id IS NOT NULL AND starts_with(m.owner, 'bulk/')
      AND (t.reference IS NULL OR t.reference = a.reference)
      AND (t.number_hash IS NULL
           OR (SELECT c.number_hash FROM recipients c WHERE c.id = m.recipient_id)
              IN (t.number_hash, t.destination_hash))
      -- As many as are looked for, so that the index is used for each.
      AND (SELECT p.message_id FROM all_parts p
           WHERE p.provider = ANY(CAST(:names AS text[]))
             AND p.provider_message_id = t.provider_message_id
             AND p.submitted_at > t.received_at - CAST(:id_life AS interval) LIMIT 1) IS NULL
    RETURNING t.message_id, t.number, t.code, a.provider, m.reason AS reason_before
), arrived AS (
    UPDATE messages m
    SET status = 'delivered', reason = 'delivered', transitioned_at = :at, check_by = NULL,
        waiting_for = NULL
    FROM attempt a
    WHERE m.id = a.message_id AND m.id = ANY(:ids)
    RETURNING {TRANSITION_COLUMNS}, m.callback_final_only, a.number AS attempt, a.provider,
              a.code AS receipt_code, a.reason_before
), sent AS (
    SELECT id, bulk_id, 'sent' AS status, reason_before AS reason, mode, account_id, environment,
           network, owner, epoch, traceparent, callback_lane_id, callback_url,
           callback_lane_id IS NOT NULL AND 'sent' = ANY(:callback_statuses)
               AND NOT callback_final_only AS notified,
           listener, listener_lane_id, false AS reported, 'sending' AS previous, attempt, provider, '' AS code
    FROM arrived
), {emit_events("sent", suffix="_first")}
, received AS (
    INSERT INTO events_of_many (bulk_id, message_ids, at, kind, actor, status, attempt, provider,
                                code, detail)
    SELECT bulk_id, array_agg(id), :at, 'receipt', 'provider', 'delivered', attempt, provider,
           receipt_code, '{{"part": 1}}'
    FROM arrived
    WHERE (SELECT count(*) FROM notified_of_many_first) > 0
    GROUP BY bulk_id, attempt, provider, receipt_code
    RETURNING 1
), delivered AS (
    SELECT arrived.*, 'sent' AS previous, receipt_code AS code FROM arrived
    WHERE (SELECT count(*) FROM received) > 0 AND (SELECT count(*) FROM enqueued_first) >= 0
), {emit_events("delivered", suffix="_then", actor="'receipt'", first=1 << 23)}
SELECT NULL AS message_id, bulk_id, 'sending' AS previous, 'sent' AS status,
       reason_before AS reason, mode, provider, '' AS code, account_id, owner, epoch,
       callback_lane_id, listener_lane_id, NULL AS traceparent, array_agg(id) AS ids
FROM delivered
GROUP BY bulk_id, reason_before, mode, provider, account_id, owner, epoch, callback_lane_id,
         listener_lane_id
""",
)


async def record_delivered(
    connection: Connection,
    providers: Sequence[str],
    changes: Sequence[AttemptChange],
    receipts: Mapping[str, EarlyReceipt],
    *,
    actor: str,
    at: datetime,
) -> list[Transition]:
    """Write the responses to attempts together with their `receipts`, as far as these have come.

    Those of which nothing is returned are left as they were, with their receipts. The rows of the
    messages are locked; `receipts` are by the provider's ids, and say that messages of bulks are
    delivered, and no more. `providers` are those whose receipts may be for these attempts.
    """
    having = Counter(part.provider_message_id for change in changes for part in change.parts)
    pairs = [
        (change, receipts[its_id])
        for change in changes
        if len(change.parts) == 1
        and change.parts[0].status == PartStatus.ACCEPTED
        and (its_id := change.parts[0].provider_message_id or "") in receipts
        and having[its_id] == 1
    ]
    if not pairs:
        return []
    sent = await apply_transition(
        connection,
        _RECORD_DELIVERED,
        [change.message_id for change, _ in pairs],
        actor=actor,
        at=at,
        check_by=None,
        names=list(providers),
        id_life=ID_LIFE,
        numbers=[change.number for change, _ in pairs],
        binds=[change.bind for change, _ in pairs],
        provider_ids=[change.parts[0].provider_message_id for change, _ in pairs],
        given_ids=[change.parts[0].provider_message_id_given for change, _ in pairs],
        codes=[receipt.code for _, receipt in pairs],
        received=[receipt.received_at for _, receipt in pairs],
        done=[receipt.done_at for _, receipt in pairs],
        refs=[receipt.reference for _, receipt in pairs],
        hashes=[receipt.number_hash for _, receipt in pairs],
        others=[receipt.destination_hash for _, receipt in pairs],
        **billed([change.parts[0] for change, _ in pairs]),
    )
    delivered = [
        replace(each, previous=each.status, status=MessageStatus.DELIVERED, reason="delivered")
        for each in sent
    ]
    return [*sent, *delivered]

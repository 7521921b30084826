"""What forbids a submit: one predicate for every statement that claims.

Each claims `wanted` rows `w` (id, epoch), joins their messages `m` and the bulks `b` that these were
accepted with, whoever runs them now (`FROM_WANTED`), locks the messages, and finds for each the `REFUSAL` or NULL. A permanent
reason ends a message that no provider has in the same statement (`ENDING`). What is granted is submitted
at once, what is not granted never leaves: a cancel, a replay or another runner comes either before the
lock, and is seen, or after it.
"""

from dataclasses import dataclass
from uuid import UUID

from domain.claims import ENDS, Refusal
from domain.delivery import Reason
from domain.states import AttemptStatus, MessageStatus

CLAIMABLE = (MessageStatus.QUEUED, MessageStatus.RETRIED, MessageStatus.UNKNOWN)
"""In which statuses a message may get its next attempt."""

FROM_WANTED = """
FROM wanted w
JOIN messages m ON m.id = w.id
LEFT JOIN bulks b ON b.id = m.bulk_id
"""

REFUSAL = f"""
CASE
    WHEN m.epoch <> w.epoch OR m.owner <> CAST(:owner AS text) THEN '{Refusal.SUPERSEDED}'
    WHEN m.verdict <> 'scheduled' THEN '{Refusal.ENDED}'
    WHEN m.cancel_requested_at IS NOT NULL OR b.canceled_at IS NOT NULL THEN '{Refusal.CANCELED}'
    WHEN m.valid_until <= :at THEN '{Refusal.VALIDITY_OVER}'
    WHEN m.verdict = 'scheduled' OR m.scheduled_at > :at THEN '{Refusal.SCHEDULED}'
    WHEN b.paused_at IS NOT NULL THEN '{Refusal.PAUSED}'
    WHEN m.status <> ALL(CAST(:claimable AS text[])) THEN '{Refusal.IN_FLIGHT}'
END
"""
"""NULL where nothing forbids the submit; `owner` is NULL where the epoch alone identifies the runner."""

_VALUES = ", ".join(
    f"('{refusal}', '{verdict}', '{why}')" for refusal, (verdict, why) in ENDS.items()
)

ENDING = f"""
FROM looked l
JOIN (VALUES {_VALUES}) AS e (refusal, verdict, reason) ON e.refusal = l.refusal
LEFT JOIN LATERAL (
    SELECT a.number, a.provider, a.code, a.status FROM attempts a
    WHERE a.message_id = l.id ORDER BY a.number DESC LIMIT 1
) latest ON true
WHERE m.id = l.id AND l.previous IN ('queued', 'retried', 'scheduled')
  AND NOT (l.refusal = '{Refusal.CANCELED}' AND latest.status IS NOT DISTINCT FROM 'partial')
"""
"""Which messages `m` of those `looked` at end, with which verdict and reason, and their latest attempt.

One that is cancelled and of which a provider has some parts ends when these were cancelled there.
"""

ENDING_REASON = f"""
CASE WHEN l.refusal = '{Refusal.VALIDITY_OVER}' AND latest.status = '{AttemptStatus.EXPIRED}'
     THEN '{Reason.NO_RECEIPT}' ELSE e.reason END
"""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a claim of one message came to: the parts to be sent, or why there are none."""

    parts: tuple[int, ...] = ()
    refusal: Refusal | None = None


Refusals = dict[UUID, Refusal]
"""Why messages were not granted."""

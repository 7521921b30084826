"""The state of a message as a pure function of what happened to it.

A message's status is never set: it follows from its verdict (what was decided, by people or by
policy) and from its attempts; an attempt's status follows from its parts. The same functions stand
in SQL (`store/migrations`), where they are enforced; a property test holds the two together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class MessageStatus(StrEnum):
    """Where a message is."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    UNKNOWN = "unknown"
    RETRIED = "retried"
    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD_LETTER = "dead_letter"
    EXPIRED = "expired"
    CANCELED = "canceled"


class Verdict(StrEnum):
    """A stored decision that postpones or ends a message; None while its attempts alone decide its status."""

    SCHEDULED = "scheduled"
    SENT = "sent"
    """Accepted by a provider that gives no receipts: nothing more will be heard of it."""
    FAILED = "failed"
    DEAD_LETTER = "dead_letter"
    EXPIRED = "expired"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        """Whether the message goes no further, save by a late receipt or a replay."""
        return self is not Verdict.SCHEDULED


class PartStatus(StrEnum):
    """What is known of one part."""

    SUBMITTING = "submitting"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"


class AttemptStatus(StrEnum):
    """What is known of one attempt."""

    SUBMITTING = "submitting"
    ACCEPTED = "accepted"
    PARTIAL = "partial"
    """Some parts were accepted, others certainly not: those can be sent again."""
    REFUSED = "refused"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    EXPIRED = "expired"
    """Accepted, but its receipt did not come by the deadline."""


def fold_attempt(parts: Sequence[PartStatus], *, expired: bool = False) -> AttemptStatus:
    """The status of an attempt from its parts; delivered means all of them delivered.

    Args:
        parts: at least one.
        expired: whether the wait for its receipts was given up.
    """
    seen = set(parts)
    if seen == {PartStatus.DELIVERED}:
        return AttemptStatus.DELIVERED
    if PartStatus.UNDELIVERED in seen:
        return AttemptStatus.UNDELIVERED
    if PartStatus.SUBMITTING in seen:
        return AttemptStatus.SUBMITTING
    if expired:
        return AttemptStatus.EXPIRED
    if PartStatus.UNKNOWN in seen:
        return AttemptStatus.UNKNOWN
    taken = seen & {PartStatus.ACCEPTED, PartStatus.DELIVERED}
    left = seen - taken
    if not left:
        return AttemptStatus.ACCEPTED
    if taken:
        return AttemptStatus.PARTIAL
    for worst in (PartStatus.REFUSED, PartStatus.THROTTLED):
        if worst in left:
            return AttemptStatus(worst.value)
    return AttemptStatus.UNREACHABLE


@dataclass(frozen=True, slots=True)
class AttemptMark:
    """As much of an attempt as the fold needs."""

    number: int
    status: AttemptStatus


_OPEN: dict[AttemptStatus, MessageStatus] = {
    AttemptStatus.SUBMITTING: MessageStatus.SENDING,
    AttemptStatus.ACCEPTED: MessageStatus.SENT,
    AttemptStatus.UNKNOWN: MessageStatus.UNKNOWN,
}


def fold_message(
    verdict: Verdict | None, first_attempt: int, attempts: Sequence[AttemptMark]
) -> MessageStatus:
    """The status of a message.

    A delivered attempt, however old, stands above everything; then the verdict; then the latest
    attempt, so that a late refusal of an earlier one changes nothing. `first_attempt` is where a
    replay began anew: attempts before it are history.
    """
    if any(attempt.status is AttemptStatus.DELIVERED for attempt in attempts):
        return MessageStatus.DELIVERED
    if verdict is not None:
        return MessageStatus(verdict.value)
    present = [attempt for attempt in attempts if attempt.number >= first_attempt]
    if not present:
        return MessageStatus.QUEUED
    latest = max(present, key=lambda attempt: attempt.number)
    return _OPEN.get(latest.status, MessageStatus.RETRIED)

"""What a message is for, and what that means for its delivery."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Self


class Mode(StrEnum):
    """The purpose of a message; it decides priority, validity and what happens unknown."""

    TRANSACTIONAL = "transactional"
    PROMOTIONAL = "promotional"
    ALERT = "alert"
    TWO_WAY = "two_way"
    VERIFICATION = "verification"


class Priority(StrEnum):
    """The order among messages that wait for the same provider."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """1 (first) to 4 (last): the order of Temporal's priority keys."""
        return _RANKS[self]


_RANKS: Mapping[Priority, int] = MappingProxyType(
    {Priority.CRITICAL: 1, Priority.HIGH: 2, Priority.NORMAL: 3, Priority.LOW: 4}
)


class UnknownPolicy(StrEnum):
    """What to do if no response to a submit came, so that it is unknown whether the provider has the message."""

    RESEND = "resend"
    """Better twice than never."""
    WAIT = "wait"
    """Wait for a receipt; without one the message becomes a dead letter."""
    NEVER = "never"
    """Better never than twice: without a receipt the message expires."""


class MissingReceiptPolicy(StrEnum):
    """What to do when a provider accepted a message and no receipt came by the deadline."""

    NEXT_ROUTE = "next_route"
    EXPIRE = "expire"
    TELL_LISTENER = "tell_listener"
    """Notify the workflow that listens to the message once, and keep waiting; only set per message."""


@dataclass(frozen=True, slots=True)
class ModePolicy:
    """How messages of one mode are delivered.

    `receipt_deadline` is how long a receipt is waited for, None for as long as the message is valid or,
    where the next route would follow, as its provider's configuration says.
    `outage_patience` bounds how long a message waits while no provider of its route is up;
    `max_attempts` bounds the attempts between acceptance or replay and the end; those after which a
    provider only asked to wait do not count (`RetryRule.waits`).
    """

    priority: Priority
    validity: timedelta
    unknown: UnknownPolicy
    missing_receipt: MissingReceiptPolicy
    receipt_deadline: timedelta | None = None
    max_attempts: int = 30
    outage_patience: timedelta = timedelta(minutes=30)

    def for_message(self, missing_receipt: MissingReceiptPolicy | None) -> Self:
        """The policy for a message that says itself what happens on a missing receipt, or does not."""
        if missing_receipt is None or missing_receipt is self.missing_receipt:
            return self
        return replace(self, missing_receipt=missing_receipt)

    @property
    def must_arrive(self) -> bool:
        """Whether a silent or unwilling handset is reason enough to try another route."""
        return self.missing_receipt is MissingReceiptPolicy.NEXT_ROUTE


_CONVERSATION = ModePolicy(
    priority=Priority.NORMAL,
    validity=timedelta(hours=24),
    unknown=UnknownPolicy.WAIT,
    missing_receipt=MissingReceiptPolicy.EXPIRE,
)

MODE_POLICIES: Mapping[Mode, ModePolicy] = MappingProxyType(
    {
        Mode.ALERT: ModePolicy(
            priority=Priority.CRITICAL,
            validity=timedelta(hours=1),
            unknown=UnknownPolicy.RESEND,
            missing_receipt=MissingReceiptPolicy.NEXT_ROUTE,
            receipt_deadline=timedelta(seconds=60),
        ),
        Mode.VERIFICATION: ModePolicy(
            priority=Priority.HIGH,
            validity=timedelta(minutes=10),
            unknown=UnknownPolicy.RESEND,
            missing_receipt=MissingReceiptPolicy.NEXT_ROUTE,
            receipt_deadline=timedelta(seconds=60),
        ),
        Mode.TRANSACTIONAL: _CONVERSATION,
        Mode.TWO_WAY: _CONVERSATION,
        Mode.PROMOTIONAL: ModePolicy(
            priority=Priority.LOW,
            validity=timedelta(hours=24),
            unknown=UnknownPolicy.NEVER,
            missing_receipt=MissingReceiptPolicy.EXPIRE,
        ),
    }
)

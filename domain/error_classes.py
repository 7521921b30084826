"""Why an attempt did not work, by what helps: waiting, another route, or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from domain.receipts import ReceiptState


class ErrorClass(StrEnum):
    """Classes of errors; `RETRIES` says what each is worth."""

    THROTTLED = "throttled"
    """The provider takes no more from us for now."""
    QUEUE_FULL = "queue_full"
    """A queue is full: that of one recipient, or of the provider if many responses say so."""
    TEMPORARY = "temporary"
    ROUTE = "route"
    INVALID_RECIPIENT = "invalid_recipient"
    INVALID_MESSAGE = "invalid_message"
    BLOCKED = "blocked"
    """The recipient, or a list that protects the recipient, blocks the message."""
    OPTED_OUT = "opted_out"
    """The recipient has opted out at the provider."""
    LANDLINE = "landline"
    """The number exists and cannot receive texts."""
    UNREGISTERED_SENDER = "unregistered_sender"
    CONTENT_FILTERED = "content_filtered"
    ACCOUNT = "account"
    """The account at the provider cannot send: credentials, credit, permission, suspension."""
    SESSION = "session"
    UNREACHABLE = "unreachable"
    UNDELIVERED = "undelivered"
    UNKNOWN = "unknown"


class Failover(StrEnum):
    """When another provider may take over."""

    NEVER = "never"
    """It would answer the same."""
    AFTER_RETRIES = "after_retries"
    """The provider will soon take it; messages that must arrive do not wait for that."""
    AT_ONCE = "at_once"


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How errors of one class are retried.

    `attempts` is how often one provider is tried before it is given up (a replay counts anew).
    `delay` is the pause between two of them, doubled each time up to `max_delay`.
    `permanent` means that a later retry would not help once no provider is left: the message fails
    instead of becoming a dead letter.
    `waits` means that the provider only asks to wait. After `attempts` the message may go to another
    provider, but this one is never given up: the message's validity bounds the wait.
    `outage` means that the provider itself fails, whatever the message is. If no other provider can
    take the message, it is retried for as long as a provider that is down is waited for.
    """

    attempts: int
    delay: timedelta
    max_delay: timedelta
    failover: Failover
    permanent: bool
    waits: bool = False
    outage: bool = False

    def pause(self, tried: int) -> timedelta:
        """How long to leave a provider alone after `tried` (at least 1) attempts."""
        # No number of attempts ends a wait, so a pause of 0 would repeat without end.
        is_endless = self.waits or (self.outage and tried >= self.attempts)
        shortest = _SHORTEST_WAIT if is_endless else timedelta()
        longer = max(shortest, self.delay) * (1 << min(tried - 1, 16))
        return max(shortest, min(self.max_delay, longer))


_SHORTEST_WAIT = timedelta(seconds=1)


def _rule(
    attempts: int,
    delay: float,
    max_delay: float,
    failover: Failover,
    *,
    permanent: bool,
    waits: bool = False,
    outage: bool = False,
) -> RetryRule:
    return RetryRule(
        attempts,
        timedelta(seconds=delay),
        timedelta(seconds=max_delay),
        failover,
        permanent,
        waits,
        outage,
    )


RETRIES: Mapping[ErrorClass, RetryRule] = MappingProxyType(
    {
        # A whole day of waiting writes some 1,450 attempts at 60 s, and some 100 at 15 min.
        ErrorClass.THROTTLED: _rule(10, 1, 60, Failover.AFTER_RETRIES, permanent=False, waits=True),
        ErrorClass.QUEUE_FULL: _rule(
            5, 1, 15 * 60, Failover.AFTER_RETRIES, permanent=False, waits=True
        ),
        ErrorClass.TEMPORARY: _rule(3, 2, 30, Failover.AFTER_RETRIES, permanent=False, outage=True),
        ErrorClass.ROUTE: _rule(1, 0, 0, Failover.AT_ONCE, permanent=True),
        ErrorClass.INVALID_RECIPIENT: _rule(1, 0, 0, Failover.NEVER, permanent=True),
        ErrorClass.INVALID_MESSAGE: _rule(1, 0, 0, Failover.NEVER, permanent=True),
        ErrorClass.BLOCKED: _rule(1, 0, 0, Failover.NEVER, permanent=True),
        ErrorClass.OPTED_OUT: _rule(1, 0, 0, Failover.NEVER, permanent=True),
        ErrorClass.LANDLINE: _rule(1, 0, 0, Failover.NEVER, permanent=True),
        # Senders are registered with each provider; a filter is the provider's own.
        ErrorClass.UNREGISTERED_SENDER: _rule(1, 0, 0, Failover.AT_ONCE, permanent=True),
        ErrorClass.CONTENT_FILTERED: _rule(1, 0, 0, Failover.AT_ONCE, permanent=True),
        ErrorClass.ACCOUNT: _rule(3, 2, 30, Failover.AT_ONCE, permanent=False, outage=True),
        ErrorClass.SESSION: _rule(3, 2, 30, Failover.AT_ONCE, permanent=False, outage=True),
        ErrorClass.UNREACHABLE: _rule(3, 2, 30, Failover.AT_ONCE, permanent=False, outage=True),
        ErrorClass.UNDELIVERED: _rule(1, 0, 0, Failover.AT_ONCE, permanent=True),
        ErrorClass.UNKNOWN: _rule(2, 0, 0, Failover.AT_ONCE, permanent=False),
    }
)

# What a final, negative receipt means. REJECTED and DELETED are the carrier's doing, so another
# carrier may do better; EXPIRED and UNDELIVERABLE are the handset's.
RECEIPT_ERRORS: Mapping[ReceiptState, ErrorClass] = MappingProxyType(
    {
        ReceiptState.EXPIRED: ErrorClass.UNDELIVERED,
        ReceiptState.UNDELIVERABLE: ErrorClass.UNDELIVERED,
        ReceiptState.DELETED: ErrorClass.ROUTE,
        ReceiptState.REJECTED: ErrorClass.ROUTE,
    }
)

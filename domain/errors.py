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
    TEMPORARY = "temporary"
    ROUTE = "route"
    INVALID_RECIPIENT = "invalid_recipient"
    INVALID_MESSAGE = "invalid_message"
    BLOCKED = "blocked"
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
    """What an error of one class is worth.

    `attempts` is how often one provider is tried before it is given up (a replay counts anew);
    between two of them pass `delay`, doubled each time up to `max_delay`.
    `permanent` tells that when no provider is left, trying again later would not help either,
    so that the message fails instead of becoming a dead letter.
    """

    attempts: int
    delay: timedelta
    max_delay: timedelta
    failover: Failover
    permanent: bool

    def pause(self, tried: int) -> timedelta:
        """How long to leave a provider alone after `tried` (at least 1) attempts."""
        return min(self.max_delay, self.delay * (1 << min(tried - 1, 16)))


def _rule(
    attempts: int, delay: float, max_delay: float, failover: Failover, *, permanent: bool
) -> RetryRule:
    return RetryRule(
        attempts, timedelta(seconds=delay), timedelta(seconds=max_delay), failover, permanent
    )


RETRIES: Mapping[ErrorClass, RetryRule] = MappingProxyType(
    {
        ErrorClass.THROTTLED: _rule(10, 1, 30, Failover.AFTER_RETRIES, permanent=False),
        ErrorClass.TEMPORARY: _rule(3, 2, 30, Failover.AFTER_RETRIES, permanent=False),
        ErrorClass.ROUTE: _rule(1, 0, 0, Failover.AT_ONCE, permanent=True),
        ErrorClass.INVALID_RECIPIENT: _rule(1, 0, 0, Failover.NEVER, permanent=True),
        ErrorClass.INVALID_MESSAGE: _rule(1, 0, 0, Failover.NEVER, permanent=True),
        ErrorClass.BLOCKED: _rule(1, 0, 0, Failover.NEVER, permanent=True),
        ErrorClass.SESSION: _rule(3, 2, 30, Failover.AT_ONCE, permanent=False),
        ErrorClass.UNREACHABLE: _rule(3, 2, 30, Failover.AT_ONCE, permanent=False),
        ErrorClass.UNDELIVERED: _rule(1, 0, 0, Failover.AT_ONCE, permanent=True),
        ErrorClass.UNKNOWN: _rule(2, 0, 0, Failover.AT_ONCE, permanent=False),
    }
)

# SMPP 3.4, 5.1.3. What is not listed is ROUTE: one carrier's refusal, which another need not share.
_SMPP: dict[int, ErrorClass] = {
    0x00000001: ErrorClass.INVALID_MESSAGE,  # ESME_RINVMSGLEN
    0x00000004: ErrorClass.SESSION,  # ESME_RINVBNDSTS
    0x00000005: ErrorClass.SESSION,  # ESME_RALYBND
    0x00000008: ErrorClass.TEMPORARY,  # ESME_RSYSERR
    0x0000000A: ErrorClass.INVALID_MESSAGE,  # ESME_RINVSRCADR
    0x0000000B: ErrorClass.INVALID_RECIPIENT,  # ESME_RINVDSTADR
    0x0000000D: ErrorClass.SESSION,  # ESME_RBINDFAIL
    0x0000000E: ErrorClass.SESSION,  # ESME_RINVPASWD
    0x0000000F: ErrorClass.SESSION,  # ESME_RINVSYSID
    0x00000014: ErrorClass.THROTTLED,  # ESME_RMSGQFUL
    0x00000033: ErrorClass.INVALID_RECIPIENT,  # ESME_RINVNUMDESTS
    0x00000043: ErrorClass.INVALID_MESSAGE,  # ESME_RINVESMCLASS
    0x00000045: ErrorClass.ROUTE,  # ESME_RSUBMITFAIL
    **dict.fromkeys(range(0x48, 0x52), ErrorClass.INVALID_MESSAGE),  # ESME_RINVSRCTON …
    0x00000050: ErrorClass.INVALID_RECIPIENT,  # ESME_RINVDSTTON
    0x00000051: ErrorClass.INVALID_RECIPIENT,  # ESME_RINVDSTNPI
    0x00000058: ErrorClass.THROTTLED,  # ESME_RTHROTTLED
    0x00000061: ErrorClass.INVALID_MESSAGE,  # ESME_RINVSCHED
    0x00000062: ErrorClass.INVALID_MESSAGE,  # ESME_RINVEXPIRY
    0x00000063: ErrorClass.INVALID_MESSAGE,  # ESME_RINVDFTMSGID
    0x00000064: ErrorClass.TEMPORARY,  # ESME_RX_T_APPN
    0x00000065: ErrorClass.INVALID_MESSAGE,  # ESME_RX_P_APPN
    0x00000066: ErrorClass.INVALID_MESSAGE,  # ESME_RX_R_APPN
    **dict.fromkeys(range(0xC0, 0xC5), ErrorClass.INVALID_MESSAGE),  # ESME_RINVOPTPARSTREAM …
    0x000000FE: ErrorClass.ROUTE,  # ESME_RDELIVERYFAILURE
    0x000000FF: ErrorClass.ROUTE,  # ESME_RUNKNOWNERR
    **dict.fromkeys(range(0x400, 0x500), ErrorClass.ROUTE),  # reserved for SMSC vendors
}
SMPP_ERRORS: Mapping[int, ErrorClass] = MappingProxyType(_SMPP)


def classify_smpp(status: int, overrides: Mapping[int, ErrorClass] | None = None) -> ErrorClass:
    """The class of a non-zero SMPP command_status; `overrides` are a provider's own meanings."""
    if overrides and status in overrides:
        return overrides[status]
    return SMPP_ERRORS.get(status, ErrorClass.ROUTE)


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

"""What a simulated Twilio does with a message, and the test numbers that stand for it.

The last digits mean the same as at the SMSC, as far as both kinds of carrier know it. Codes are Twilio's
(twilio.com/docs/api/errors), and so are statuses (twilio.com/docs/messaging/api/message-resource).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from simulator.behaviour import (
    NEVER_REACHED,
    CarrierBehaviour,
    Described,
    NumberMeaning,
    Response,
    Seconds,
)

ErrorCode = Annotated[int, Field(ge=10_000, le=99_999)]

EXPIRED_IN_QUEUE: Final = 30036


class MessageStatus(StrEnum):
    """MessageStatus, as far as a message to a phone gets it."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


_FINAL: Final = frozenset(
    {
        MessageStatus.DELIVERED,
        MessageStatus.UNDELIVERED,
        MessageStatus.FAILED,
        MessageStatus.CANCELED,
    }
)


class CallbackStep(Described):
    """One status callback of a message, or several equal ones."""

    status: MessageStatus = MessageStatus.DELIVERED
    after: Seconds = 0.05
    """Seconds from the response to the request, or from reading it when it is not answered."""
    error: ErrorCode | None = None
    """ErrorCode, with `undelivered` and `failed`."""
    copies: int = Field(default=1, ge=1, le=10)
    early: bool = False
    """Sent before the response; `after` does not count then."""


_SENT: Final = CallbackStep(status=MessageStatus.SENT, after=0.02)
DELIVERED: Final = (_SENT, CallbackStep())


class TwilioBehaviour(CarrierBehaviour):
    """What happens to a message; by default it is accepted at once and soon delivered."""

    code: ErrorCode = 21612
    """The refusal, when `response` is `refuse`."""
    callbacks: tuple[CallbackStep, ...] = DELIVERED
    """In the order of the table, not of time; empty for none at all."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How an error is answered."""

    status: int
    message: str


REFUSALS: Final[Mapping[int, Refusal]] = MappingProxyType(
    {
        20003: Refusal(401, "Authenticate"),
        20404: Refusal(404, "The requested resource was not found"),
        20429: Refusal(429, "Too Many Requests"),
        20500: Refusal(500, "Internal Server Error"),
        20503: Refusal(503, "Service Unavailable"),
        21211: Refusal(400, "Invalid 'To' Phone Number"),
        21212: Refusal(400, "Invalid 'From' Number"),
        21602: Refusal(400, "Message body is required."),
        21603: Refusal(400, "A 'From' phone number is required."),
        21604: Refusal(400, "A 'To' phone number is required."),
        21609: Refusal(400, "Invalid 'StatusCallback' URL"),
        21611: Refusal(400, "This 'From' number has exceeded the maximum number of queued messages"),
        21612: Refusal(400, "The 'To' phone number is not currently reachable via SMS"),
        21617: Refusal(400, "The concatenated message body exceeds the 1600 character limit"),
        21624: Refusal(400, "'ValidityPeriod' is out of range"),
    }
)  # fmt: skip


def refusal_of(code: int) -> Refusal:
    """How Twilio answers with a code; most are answered with 400."""
    return REFUSALS.get(code, Refusal(400, "The request was refused"))


def _means(meaning: str, **behaviour: object) -> NumberMeaning[TwilioBehaviour]:
    return NumberMeaning(meaning, TwilioBehaviour.model_validate(behaviour))


def _refused(code: int, why: str) -> NumberMeaning[TwilioBehaviour]:
    status = refusal_of(code).status
    return _means(f"refused with {code} ({status}): {why}", response=Response.REFUSE, code=code)


def _callbacks(*steps: CallbackStep) -> tuple[CallbackStep, ...]:
    return (_SENT, *steps)


def _failed(status: MessageStatus, error: int | None) -> tuple[CallbackStep, ...]:
    return _callbacks(CallbackStep(status=status, error=error))


def _joined(meaning: str) -> NumberMeaning[TwilioBehaviour]:
    return _means(f"delivered: {meaning}")


_ONE_CALLBACK: Final = "one callback reports on all parts"

# By the same digits as simulator.behaviour.TEST_NUMBERS.
TWILIO_NUMBERS: Final[Mapping[str, NumberMeaning[TwilioBehaviour]]] = MappingProxyType(
    {
        "01": _refused(21211, "no such recipient, on any route"),
        "02": _refused(21212, "sender not allowed"),
        "03": _refused(21617, "message too long"),
        "08": _refused(20500, "system error, every time"),
        "14": _refused(21611, "queue full, every time"),
        "45": _refused(21612, "this route cannot; another may"),
        "58": _refused(20429, "throttled, every time"),
        "64": _refused(20503, "temporary error, every time"),
        "20": _means("undelivered with 30003", callbacks=_failed(MessageStatus.UNDELIVERED, 30003)),
        "21": _means("failed with 30007", callbacks=_failed(MessageStatus.FAILED, 30007)),
        "22": _means(
            "failed with 30036, expired",
            callbacks=_failed(MessageStatus.FAILED, EXPIRED_IN_QUEUE),
        ),
        "23": _means("canceled", callbacks=_failed(MessageStatus.CANCELED, None)),
        "24": _means(
            "failed with 30410, state unknown", callbacks=_failed(MessageStatus.FAILED, 30410)
        ),
        "25": _means(
            "phone is off: sent, and 30036 when the validity is over",
            callbacks=_callbacks(CallbackStep(after=NEVER_REACHED)),
        ),
        "30": _means("delivered, without a callback", callbacks=()),
        "31": _means("callback late, after 5 s", callbacks=_callbacks(CallbackStep(after=5))),
        "32": _means("callback early, before the response", callbacks=(CallbackStep(early=True),)),
        "34": _means("the same callback three times", callbacks=_callbacks(CallbackStep(copies=3))),
        "35": _means("sent, then delivered after 1 s", callbacks=_callbacks(CallbackStep(after=1))),
        "36": _means(
            "out of order: delivered, and sent after it",
            callbacks=(CallbackStep(), CallbackStep(status=MessageStatus.SENT, after=0.3)),
        ),
        "37": _means("callbacks held until they are released", hold=True),
        "40": _joined(_ONE_CALLBACK),
        "41": _joined(_ONE_CALLBACK),
        "42": _joined("parts are not refused"),
        "43": _joined("parts are not refused"),
        "44": _joined(_ONE_CALLBACK),
        "50": _means(
            "throttled twice, then accepted", response=Response.REFUSE, code=20429, times=2
        ),
        "51": _means(
            "system error once, then accepted", response=Response.REFUSE, code=20500, times=1
        ),
        "52": _means(
            "queue full twice, then accepted", response=Response.REFUSE, code=21611, times=2
        ),
        "70": _means("no response, and lost", response=Response.SILENCE),
        "71": _means("no response, and delivered", response=Response.SILENCE, taken=True),
        "72": _means("connection reset after the request, and lost", response=Response.RESET),
        "73": _means(
            "connection reset after the request, and delivered", response=Response.RESET, taken=True
        ),
        "74": _means(
            "no response and lost once, then accepted", response=Response.SILENCE, times=1
        ),
        "75": _means(
            "connection reset and lost once, then accepted", response=Response.RESET, times=1
        ),
        "76": _means("response after 2 s", latency=2),
        "77": _means(
            "no response, delivered, no callback",
            response=Response.SILENCE,
            taken=True,
            callbacks=(),
        ),
    }
)  # fmt: skip

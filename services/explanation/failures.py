"""Why an attempt failed, in words, with the name and the meaning of its code."""

from collections.abc import Mapping, Sequence
from typing import Final

from domain.provider_codes import CodeMeaning
from domain.provider_codes.smpp import status_number
from domain.receipts import ReceiptState
from domain.states import AttemptStatus
from services.explanation.codes import receipt_code, response_code
from services.explanation.known import Known
from store.attempts import StoredAttempt
from store.events import Event

FAILED: Final = frozenset(
    {
        AttemptStatus.REFUSED,
        AttemptStatus.THROTTLED,
        AttemptStatus.UNREACHABLE,
        AttemptStatus.PARTIAL,
        AttemptStatus.UNDELIVERED,
        AttemptStatus.UNKNOWN,
        AttemptStatus.EXPIRED,
    }
)
FAILURES: Final[Mapping[str, str]] = {
    AttemptStatus.REFUSED: "{provider} refused it",
    AttemptStatus.THROTTLED: "{provider} asked to wait",
    AttemptStatus.UNREACHABLE: "{provider} could not be reached",
    AttemptStatus.PARTIAL: "{provider} took only some of its parts",
    AttemptStatus.UNDELIVERED: "{provider} reported it as not delivered",
    AttemptStatus.UNKNOWN: "{provider} did not answer",
    AttemptStatus.EXPIRED: "no receipt came from {provider} in time",
    AttemptStatus.ACCEPTED: "{provider} accepted it",
    AttemptStatus.DELIVERED: "{provider} delivered it",
    AttemptStatus.SUBMITTING: "{provider} has not answered yet",
}


def failure(attempt: StoredAttempt, known: Known, *, brief: bool = False) -> str:
    """What an attempt failed with; brief without the meaning of its code."""
    text = FAILURES[attempt.status].format(provider=attempt.provider)
    if attempt.status is AttemptStatus.UNDELIVERED:
        receipt = _receipt_of(attempt, known.events)
        if receipt is None:
            return text
        text = RECEIPTS[receipt.status or ""].format(provider=attempt.provider)
        return text + coded(
            receipt.code, receipt_code(known, attempt.provider, receipt.code or ""), brief=brief
        )
    code = attempt.code or None
    return text + coded(code, response_code(known, attempt.provider, code or ""), brief=brief)


def _receipt_of(attempt: StoredAttempt, events: Sequence[Event]) -> Event | None:
    """The receipt by which an attempt failed."""
    found = (
        event
        for event in events
        if event.kind == "receipt" and event.attempt == attempt.number and event.status in RECEIPTS
    )
    return next(found, None)


RECEIPTS: Final[Mapping[str, str]] = {
    ReceiptState.UNDELIVERABLE: "{provider} reported it as undeliverable",
    ReceiptState.REJECTED: "{provider} reported it as rejected",
    ReceiptState.DELETED: "{provider} reported it as deleted",
    ReceiptState.EXPIRED: "{provider} could not deliver it in time",
}
"""What a final, negative receipt says."""


def coded(code: str | None, meaning: CodeMeaning | None, *, brief: bool = False) -> str:
    """` (ESME_RTHROTTLED, 0x58: more messages than …)`, or nothing."""
    if not code or not code.strip("0"):
        return ""
    number = status_number(code)
    shown = f"code {code}" if number is None else f"0x{number:02X}"
    if meaning is None:
        return f" ({shown})"
    if brief:
        return f" ({meaning.name or shown})"
    name = f"{meaning.name}, {shown}" if meaning.name else shown
    return f" ({name}: {meaning.meaning})"

"""An event of a message as a short sentence: for people, while it comes about."""

import re
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue
from smsgateway import Event, Message, MessageStatus

REASONS: Final[Mapping[str, str]] = {
    "provider_gives_no_receipts": "the provider gives no receipts",
    "no_receipt": "no receipt came",
    "outcome_unknown": "nobody knows whether it was sent",
    "validity_over": "its validity is over",
    "no_route": "no route takes it",
    "no_provider_up": "no provider was up",
    "attempts_exhausted": "every provider was tried as often as allowed",
    "throttled": "the provider took no more messages",
    "queue_full": "a queue of the provider was full",
    "temporary": "the provider had a temporary error",
    "route": "every provider refused it",
    "invalid_recipient": "the recipient's number is invalid",
    "invalid_message": "the message is invalid",
    "blocked": "the recipient is blocked",
    "opted_out": "the recipient has opted out",
    "landline": "the number cannot receive texts",
    "unregistered_sender": "the sender is not registered with the provider",
    "content_filtered": "a filter of the provider blocked the text",
    "account": "the account at the provider cannot send",
    "session": "the provider refused the session",
    "unreachable": "the provider could not be reached",
    "undelivered": "the recipient did not get it",
    "unknown": "nobody knows whether it was sent",
}
"""What the reasons of the gateway mean."""

CODES: Final[Mapping[int, str]] = {
    0x01: "ESME_RINVMSGLEN",
    0x02: "ESME_RINVCMDLEN",
    0x03: "ESME_RINVCMDID",
    0x04: "ESME_RINVBNDSTS",
    0x05: "ESME_RALYBND",
    0x06: "ESME_RINVPRTFLG",
    0x07: "ESME_RINVREGDLVFLG",
    0x08: "ESME_RSYSERR",
    0x0A: "ESME_RINVSRCADR",
    0x0B: "ESME_RINVDSTADR",
    0x0C: "ESME_RINVMSGID",
    0x0D: "ESME_RBINDFAIL",
    0x0E: "ESME_RINVPASWD",
    0x0F: "ESME_RINVSYSID",
    0x11: "ESME_RCANCELFAIL",
    0x13: "ESME_RREPLACEFAIL",
    0x14: "ESME_RMSGQFUL",
    0x15: "ESME_RINVSERTYP",
    0x33: "ESME_RINVNUMDESTS",
    0x34: "ESME_RINVDLNAME",
    0x40: "ESME_RINVDESTFLAG",
    0x42: "ESME_RINVSUBREP",
    0x43: "ESME_RINVESMCLASS",
    0x44: "ESME_RCNTSUBDL",
    0x45: "ESME_RSUBMITFAIL",
    0x48: "ESME_RINVSRCTON",
    0x49: "ESME_RINVSRCNPI",
    0x50: "ESME_RINVDSTTON",
    0x51: "ESME_RINVDSTNPI",
    0x53: "ESME_RINVSYSTYP",
    0x54: "ESME_RINVREPFLAG",
    0x55: "ESME_RINVNUMMSGS",
    0x58: "ESME_RTHROTTLED",
    0x61: "ESME_RINVSCHED",
    0x62: "ESME_RINVEXPIRY",
    0x63: "ESME_RINVDFTMSGID",
    0x64: "ESME_RX_T_APPN",
    0x65: "ESME_RX_P_APPN",
    0x66: "ESME_RX_R_APPN",
    0x67: "ESME_RQUERYFAIL",
    0xC0: "ESME_RINVOPTPARSTREAM",
    0xC1: "ESME_ROPTPARNOTALLWD",
    0xC2: "ESME_RINVPARLEN",
    0xC3: "ESME_RMISSINGOPTPARAM",
    0xC4: "ESME_RINVOPTPARAMVAL",
    0xFE: "ESME_RDELIVERYFAILURE",
    0xFF: "ESME_RUNKNOWNERR",
}
"""The names of command statuses in SMPP 3.4."""

_STATUSES: Final[Mapping[str, str]] = {
    MessageStatus.QUEUED: "Queued",
    MessageStatus.SCHEDULED: "Scheduled",
    MessageStatus.SENDING: "Submitted{to}",
    MessageStatus.SENT: "Accepted{by}",
    MessageStatus.RETRIED: "To be retried after {provider}",
    MessageStatus.UNKNOWN: "Outcome unknown: no response from {provider}",
    MessageStatus.DELIVERED: "Delivered{by}",
    MessageStatus.FAILED: "Failed",
    MessageStatus.DEAD_LETTER: "Dead letter",
    MessageStatus.EXPIRED: "Expired",
    MessageStatus.CANCELED: "Cancelled",
}
_KINDS: Final[Mapping[str, str]] = {
    "accepted": "Accepted",
    "cancel_requested": "Cancellation requested",
    "replayed": "Replayed",
    "promoted": "It has a workflow of its own from here on",
    "taken_over": "The reconciler restarted its workflow",
    "duplicate": "Delivered a second time{by}",
}
_RECEIPTS: Final[Mapping[str, str]] = {
    "enroute": "on its way",
    "expired": "not delivered in time",
    "unknown": "state not known",
}


def sentence(event: Event) -> str:
    """What happened, with the provider, the code's name and the reason, but no other detail."""
    match event.kind:
        case "decided":
            return _decided(event)
        case "receipt":
            state = _RECEIPTS.get(event.status or "", words(event.status or "received"))
            return f"Receipt{_from(event)}: {state}{_code(event)}."
        case "cancelled_at_provider":
            did = "cancelled" if event.reason == "cancelled_at_provider" else "did not cancel"
            return f"{event.provider or 'The provider'} {did} it."
        case kind if kind in _KINDS:
            return f"{_about(_KINDS[kind], event)}."
        case _ if event.status in _STATUSES:
            return f"{_moved(event)}."
        case kind:
            return f"{words(kind).capitalize()}{_from(event)}{_code(event)}."


def ended_as(message: Message) -> str:
    """How a message ended, or what it is so far."""
    verb = "Ended as" if message.has_ended else "Not ended in time: it is still"
    reason = because(message.status, message.reason)
    if message.status in {MessageStatus.DELIVERED, MessageStatus.SENT}:
        by = f" by {message.provider}" if message.provider else ""
        return f"{verb} {words(message.status)}{by}{reason}."
    last = f"; the last provider was {message.provider}" if message.provider else ""
    return f"{verb} {_as(message.status)}{reason}{last}."


def because(status: str | None, reason: str | None) -> str:
    """The reason in words; nothing where the status says it."""
    if not reason or reason == status:
        return ""
    return f": {REASONS.get(reason, words(reason))}"


def words(name: str) -> str:
    """A name of the interface as words: `dead letter` for `dead_letter`."""
    return "cancelled" if name == MessageStatus.CANCELED else name.replace("_", " ")


def _as(status: str) -> str:
    return "a dead letter" if status == MessageStatus.DEAD_LETTER else words(status)


def _decided(event: Event) -> str:
    which = "" if event.attempt is None else f" for attempt {event.attempt}"
    match event.reason:
        case "submit":
            return f"{event.provider} is chosen{which}{_ranking(event.detail)}."
        case "resume":
            return f"{event.provider} is to get the missing parts of attempt {event.attempt}."
        case "cancel_at_provider":
            return f"{event.provider} is asked to cancel it."
        case _:
            if event.status is None:
                return f"Decided: {words(event.reason or event.kind)}."
            return f"It is to end as {_as(event.status)}{because(event.status, event.reason)}."


def _ranking(detail: JsonValue) -> str:
    """The providers of the route in order: `: primary > backup`."""
    ranking = detail.get("ranking") if isinstance(detail, dict) else None
    if not isinstance(ranking, list):
        return ""
    names = [
        f"{each['provider']}{'' if each.get('up', True) else ' (down)'}"
        for each in ranking
        if isinstance(each, dict) and each.get("provider")
    ]
    return f": {' > '.join(names)}" if names else ""


def _moved(event: Event) -> str:
    status = event.status or ""
    text = _about(_STATUSES[status], event)
    code = _code(event) if status in _FAILED else ""
    says_why = status in _ENDS or (status == MessageStatus.RETRIED and not code)
    return text + code + (because(status, event.reason) if says_why else "")


_FAILED: Final = frozenset(
    {MessageStatus.RETRIED, MessageStatus.FAILED, MessageStatus.DEAD_LETTER, MessageStatus.EXPIRED}
)
_ENDS: Final = frozenset(
    {MessageStatus.FAILED, MessageStatus.DEAD_LETTER, MessageStatus.EXPIRED, MessageStatus.SENT}
)


def _about(text: str, event: Event) -> str:
    provider = event.provider
    return (
        text.replace("{to}", f" to {provider}" if provider else "")
        .replace("{by}", f" by {provider}" if provider else "")
        .replace("{provider}", provider or "a provider")
    )


def _from(event: Event) -> str:
    return f" from {event.provider}" if event.provider else ""


def _code(event: Event) -> str:
    """` (ESME_RTHROTTLED)`, or the code as it is; nothing for one that says all is well."""
    code = event.code or ""
    if not code.strip("0"):
        return ""
    if not _STATUS.fullmatch(code):
        return f" (code {code})"
    number = int(code, 16)
    return f" ({CODES.get(number, f'0x{number:02X}')})" if number else ""


_STATUS: Final = re.compile("0x[0-9A-Fa-f]{1,8}")

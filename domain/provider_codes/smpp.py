"""Statuses of SMPP (3.4, 5.1.3): their error classes, and their names and meanings for people.

`errors` of a provider's configuration changes the class of a status for that provider.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from domain.error_classes import ErrorClass
from domain.provider_codes import OWN_CODES, CodeMeaning

# SMPP 3.4, 5.1.3. The question for each status: does it speak of the message, so that every carrier
# would refuse it, or of this carrier's view of it, so that the next route may take it?
_CLASSES: dict[int, ErrorClass] = {
    # The recipient's number is the same on every route.
    0x0000000B: ErrorClass.INVALID_RECIPIENT,  # ESME_RINVDSTADR
    # The carrier asks to wait.
    0x00000014: ErrorClass.QUEUE_FULL,  # ESME_RMSGQFUL
    0x00000058: ErrorClass.THROTTLED,  # ESME_RTHROTTLED
    # A fault inside the carrier that usually passes.
    0x00000008: ErrorClass.TEMPORARY,  # ESME_RSYSERR
    0x00000064: ErrorClass.TEMPORARY,  # ESME_RX_T_APPN
    # The session is not bound as the SMSC requires; the message was not looked at.
    0x00000004: ErrorClass.SESSION,  # ESME_RINVBNDSTS
    0x00000005: ErrorClass.SESSION,  # ESME_RALYBND
    0x0000000D: ErrorClass.SESSION,  # ESME_RBINDFAIL
    0x0000000E: ErrorClass.SESSION,  # ESME_RINVPASWD
    0x0000000F: ErrorClass.SESSION,  # ESME_RINVSYSID
    # The sender: each carrier registers senders for itself, in its own forms.
    0x0000000A: ErrorClass.ROUTE,  # ESME_RINVSRCADR
    0x00000048: ErrorClass.ROUTE,  # ESME_RINVSRCTON
    0x00000049: ErrorClass.ROUTE,  # ESME_RINVSRCNPI
    # Fields that we write as this provider is configured, or that this SMSC does not support.
    # The text was split to the length that every carrier takes, so a length is a local limit, too.
    0x00000001: ErrorClass.ROUTE,  # ESME_RINVMSGLEN
    0x00000033: ErrorClass.ROUTE,  # ESME_RINVNUMDESTS
    0x00000043: ErrorClass.ROUTE,  # ESME_RINVESMCLASS
    0x00000050: ErrorClass.ROUTE,  # ESME_RINVDSTTON
    0x00000051: ErrorClass.ROUTE,  # ESME_RINVDSTNPI
    0x00000061: ErrorClass.ROUTE,  # ESME_RINVSCHED
    0x00000062: ErrorClass.ROUTE,  # ESME_RINVEXPIRY
    0x00000063: ErrorClass.ROUTE,  # ESME_RINVDFTMSGID
    **dict.fromkeys(range(0xC0, 0xC5), ErrorClass.ROUTE),  # ESME_RINVOPTPARSTREAM …
    # This carrier's own decision, whose reason it does not give in terms of the specification.
    0x00000045: ErrorClass.ROUTE,  # ESME_RSUBMITFAIL
    0x00000065: ErrorClass.ROUTE,  # ESME_RX_P_APPN
    0x00000066: ErrorClass.ROUTE,  # ESME_RX_R_APPN
    0x000000FE: ErrorClass.ROUTE,  # ESME_RDELIVERYFAILURE
    0x000000FF: ErrorClass.ROUTE,  # ESME_RUNKNOWNERR
    **dict.fromkeys(range(0x400, 0x500), ErrorClass.ROUTE),  # reserved for SMSC vendors
    # What is not listed is ROUTE, too: to ask one more carrier costs little, not to ask loses the
    # message. A carrier whose codes mean more says so in the `errors` of its configuration.
}
SMPP_ERRORS: Mapping[int, ErrorClass] = MappingProxyType(_CLASSES)


def classify_smpp(status: int, overrides: Mapping[int, ErrorClass] | None = None) -> ErrorClass:
    """The class of a non-zero SMPP command_status; `overrides` are a provider's own meanings."""
    if overrides and status in overrides:
        return overrides[status]
    return SMPP_ERRORS.get(status, ErrorClass.ROUTE)


# SMPP 3.4, 5.1.3.
_NAMES: Final[Mapping[int, tuple[str, str]]] = {
    0x01: ("ESME_RINVMSGLEN", "the message is too long for this SMSC"),
    0x02: ("ESME_RINVCMDLEN", "the length of the PDU is wrong"),
    0x03: ("ESME_RINVCMDID", "the SMSC does not know this kind of PDU"),
    0x04: ("ESME_RINVBNDSTS", "the session is not bound for this"),
    0x05: ("ESME_RALYBND", "this account is bound already"),
    0x06: ("ESME_RINVPRTFLG", "the priority is invalid"),
    0x07: ("ESME_RINVREGDLVFLG", "the request for a receipt is invalid"),
    0x08: ("ESME_RSYSERR", "system error in the SMSC"),
    0x0A: ("ESME_RINVSRCADR", "the sender is not allowed or invalid"),
    0x0B: ("ESME_RINVDSTADR", "the recipient's number is invalid"),
    0x0C: ("ESME_RINVMSGID", "the SMSC does not know this message id"),
    0x0D: ("ESME_RBINDFAIL", "the bind failed"),
    0x0E: ("ESME_RINVPASWD", "the password is wrong"),
    0x0F: ("ESME_RINVSYSID", "the system_id is wrong"),
    0x11: ("ESME_RCANCELFAIL", "the SMSC could not cancel it"),
    0x13: ("ESME_RREPLACEFAIL", "the SMSC could not replace it"),
    0x14: ("ESME_RMSGQFUL", "a message queue of the SMSC is full"),
    0x15: ("ESME_RINVSERTYP", "the service type is invalid"),
    0x33: ("ESME_RINVNUMDESTS", "the number of destinations is invalid"),
    0x34: ("ESME_RINVDLNAME", "the distribution list is not known"),
    0x40: ("ESME_RINVDESTFLAG", "the destination flag is invalid"),
    0x42: ("ESME_RINVSUBREP", "replacing a message is not allowed"),
    0x43: ("ESME_RINVESMCLASS", "the SMSC does not support this esm_class"),
    0x44: ("ESME_RCNTSUBDL", "the SMSC cannot submit to a distribution list"),
    0x45: ("ESME_RSUBMITFAIL", "the submit failed"),
    0x48: ("ESME_RINVSRCTON", "the sender's type of number is invalid"),
    0x49: ("ESME_RINVSRCNPI", "the sender's numbering plan is invalid"),
    0x50: ("ESME_RINVDSTTON", "the recipient's type of number is invalid"),
    0x51: ("ESME_RINVDSTNPI", "the recipient's numbering plan is invalid"),
    0x53: ("ESME_RINVSYSTYP", "the system_type is invalid"),
    0x54: ("ESME_RINVREPFLAG", "the flag for replacement is invalid"),
    0x55: ("ESME_RINVNUMMSGS", "the number of messages is invalid"),
    0x58: ("ESME_RTHROTTLED", "more messages than the SMSC allows"),
    0x61: ("ESME_RINVSCHED", "the time of delivery is invalid"),
    0x62: ("ESME_RINVEXPIRY", "the validity is invalid"),
    0x63: ("ESME_RINVDFTMSGID", "the predefined message is not known"),
    0x64: ("ESME_RX_T_APPN", "temporary error of the receiving application"),
    0x65: ("ESME_RX_P_APPN", "permanent error of the receiving application"),
    0x66: ("ESME_RX_R_APPN", "the receiving application refused it"),
    0x67: ("ESME_RQUERYFAIL", "the query failed"),
    0xC0: ("ESME_RINVOPTPARSTREAM", "the optional parameters are invalid"),
    0xC1: ("ESME_ROPTPARNOTALLWD", "an optional parameter is not allowed"),
    0xC2: ("ESME_RINVPARLEN", "the length of a parameter is wrong"),
    0xC3: ("ESME_RMISSINGOPTPARAM", "an expected optional parameter is missing"),
    0xC4: ("ESME_RINVOPTPARAMVAL", "the value of an optional parameter is invalid"),
    0xFE: ("ESME_RDELIVERYFAILURE", "the delivery failed"),
    0xFF: ("ESME_RUNKNOWNERR", "an error that the SMSC does not name"),
}
SMPP_STATUSES: Final = MappingProxyType({n: CodeMeaning(*each) for n, each in _NAMES.items()})

_STATUS: Final = re.compile("0x[0-9A-Fa-f]{1,8}")
_NUMBER: Final = re.compile("[0-9]{1,4}")
_VENDORS: Final = range(0x400, 0x500)

# 3GPP TS 29.002, 17.6.6 and 17.5: the MAP errors, which many SMSCs put into their receipts as `err`.
_MAP: Final[Mapping[int, str]] = {
    1: "unknown subscriber",
    5: "unidentified subscriber",
    6: "absent subscriber",
    8: "roaming not allowed",
    9: "illegal subscriber",
    11: "SMS not provisioned for the subscriber",
    12: "illegal equipment",
    13: "the subscriber's service is barred",
    21: "the network does not support it",
    27: "absent subscriber",
    31: "the subscriber is busy",
    32: "the phone could not take it",
    33: "too many messages wait for the subscriber",
    34: "system failure in the network",
    35: "data are missing",
    36: "unexpected data",
}


def response_meaning(code: str) -> CodeMeaning | None:
    """What the code of a response stands for: `0x00000058`, or one of our own; None if not known."""
    if code in OWN_CODES:
        return OWN_CODES[code]
    number = status_number(code)
    if number is None:
        return None
    if number in _VENDORS:
        return CodeMeaning("", "a code of this SMSC's own: ask the carrier")
    return SMPP_STATUSES.get(number)


def status_number(code: str) -> int | None:
    """The command status that a code is, as in `0x00000058`; None if it is something else."""
    return int(code, 16) if _STATUS.fullmatch(code) else None


def receipt_meaning(code: str) -> CodeMeaning | None:
    """What the code of a negative receipt probably stands for; carriers have codes of their own."""
    if not _NUMBER.fullmatch(code) or int(code) not in _MAP:
        return None
    return CodeMeaning("", f"{_MAP[int(code)]}, if the carrier uses the codes of GSM")

"""Names and meanings of the codes that providers give, for people.

The names are those of the specification. What a code is worth is decided by `domain.error_classes` and by the
`errors` of a provider's configuration, not by these sentences.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class CodeMeaning:
    """What a code stands for; `name` is empty where nobody gave it one."""

    name: str
    meaning: str


# SMPP 3.4, 5.1.3.
_SMPP: Final[Mapping[int, tuple[str, str]]] = {
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
SMPP_STATUSES: Final = MappingProxyType({n: CodeMeaning(*each) for n, each in _SMPP.items()})

_STATUS: Final = re.compile("0x[0-9A-Fa-f]{1,8}")
_NUMBER: Final = re.compile("[0-9]{1,4}")
_VENDORS: Final = range(0x400, 0x500)

# Codes of our own, of attempts that ended before a provider answered.
_OWN: Final[Mapping[str, CodeMeaning]] = {
    "parts_changed": CodeMeaning("", "the text makes other parts now than those sent before"),
    "unsendable_text": CodeMeaning("", "the text does not fit this provider's alphabet"),
}

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
    if code in _OWN:
        return _OWN[code]
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

"""Delivery receipts as SMSCs send them: TLVs where there are any, else the text of appendix B."""

from __future__ import annotations

import functools
import re
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from domain.receipts import ReceiptState
from domain.values import value
from smpp.pdus import Pdu, Tag

if TYPE_CHECKING:
    from collections.abc import Mapping

# esm_class, message type (SMPP 3.4, 5.2.12).
_MESSAGE_TYPE: Final = 0b0011_1100
_RECEIPT: Final = 0b0000_0100
_INTERMEDIATE_NOTIFICATION: Final = 0b0010_0000
_UCS2: Final = 0x08

# message_state (SMPP 3.4, 5.2.28); 0 and 9 are SMPP 5.0's SCHEDULED and SKIPPED.
MESSAGE_STATES: Final[Mapping[int, ReceiptState]] = {
    0: ReceiptState.ENROUTE,
    1: ReceiptState.ENROUTE,
    2: ReceiptState.DELIVERED,
    3: ReceiptState.EXPIRED,
    4: ReceiptState.DELETED,
    5: ReceiptState.UNDELIVERABLE,
    6: ReceiptState.ACCEPTED,
    7: ReceiptState.UNKNOWN,
    8: ReceiptState.REJECTED,
    9: ReceiptState.UNDELIVERABLE,
}

# stat: in the text. The seven letters of appendix B, and what SMSCs write instead.
_STATS: Final[Mapping[str, ReceiptState]] = {
    "ACCEPTD": ReceiptState.ACCEPTED,
    "ACCEPTED": ReceiptState.ACCEPTED,
    "BUFFERED": ReceiptState.ENROUTE,
    "BUFFRED": ReceiptState.ENROUTE,
    "DELETED": ReceiptState.DELETED,
    "DELIVERED": ReceiptState.DELIVERED,
    "DELIVRD": ReceiptState.DELIVERED,
    "ENROUTE": ReceiptState.ENROUTE,
    "EXPIRED": ReceiptState.EXPIRED,
    "FAILED": ReceiptState.UNDELIVERABLE,
    "REJECTD": ReceiptState.REJECTED,
    "REJECTED": ReceiptState.REJECTED,
    "SCHEDULED": ReceiptState.ENROUTE,
    "SKIPPED": ReceiptState.UNDELIVERABLE,
    "UNDELIV": ReceiptState.UNDELIVERABLE,
    "UNDELIVERABLE": ReceiptState.UNDELIVERABLE,
    "UNDELIVERED": ReceiptState.UNDELIVERABLE,
    "UNKNOWN": ReceiptState.UNKNOWN,
}

# The keys as vendors spell them. A value ends at white space, and may be missing.
_KEYS_PATTERN: Final = r"(?P<key>id|submit[ _]?date|done[ _]?date|stat(?:us)?|err(?:or)?)"
_ANY_KEY: Final = r"(?:id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat(?:us)?|err(?:or)?)"
_KEY: Final = re.compile(
    rf"(?<![^\s,;]){_KEYS_PATTERN}\s*[:=]\s*(?P<value>(?!{_ANY_KEY}\s*[:=])[^\s,;]*)",
    re.IGNORECASE,
)
# The text as the specification has it (SMPP 3.4, appendix B), which most SMSCs write to the letter.
_VALUE: Final = r"[^\s,;:=]*"
_USUAL: Final = re.compile(
    rf"id:(?P<id>{_VALUE}) sub:{_VALUE} dlvrd:{_VALUE} submit date:(?P<submit>{_VALUE})"
    rf" done date:(?P<done>{_VALUE}) stat:(?P<stat>{_VALUE}) err:(?P<err>{_VALUE})(?: text:|$)",
    re.IGNORECASE,
)
_TEXT_KEY: Final = re.compile(r"(?<![^\s,;])text\s*[:=]", re.IGNORECASE)
# Twelve digits are first read as the short year with seconds: no 20th month is a valid one.
_DATES: Final[Mapping[int, tuple[str, ...]]] = {
    10: ("%y%m%d%H%M",),
    12: ("%y%m%d%H%M%S", "%Y%m%d%H%M"),
    14: ("%Y%m%d%H%M%S",),
}


@value
class NetworkError:
    """network_error_code (SMPP 3.4, 5.3.2.31): the kind of network, and its own code."""

    network_type: int
    code: int


@value
class Receipt:
    """What an SMSC says has become of a part.

    `provider_message_id` is as the SMSC wrote it, and empty where it wrote none. Times are in the
    SMSC's own time zone, which SMPP does not tell. `reference` is the user_message_reference of
    the submit_sm, where the SMSC echoes it. `source` and `destination` are the receipt's own: it
    comes from the recipient and goes to the sender.
    """

    provider_message_id: str
    state: ReceiptState
    error: str | None
    network_error: NetworkError | None
    submitted_at: datetime | None
    done_at: datetime | None
    reference: int | None
    source: str = field(repr=False)
    destination: str = field(repr=False)


def parse_receipt(pdu: Pdu) -> Receipt | None:
    """Read the receipt in a deliver_sm or data_sm; None where it carries something else.

    A receipt says so in its esm_class, or by the TLVs that only a receipt has. A text that merely
    looks like one is a message from a phone, whose owner could otherwise deliver anything.
    """
    message_id = pdu.tlv(Tag.RECEIPTED_MESSAGE_ID)
    state = _state(pdu.tlv(Tag.MESSAGE_STATE))
    kind = pdu.number("esm_class") & _MESSAGE_TYPE
    if kind not in {_RECEIPT, _INTERMEDIATE_NOTIFICATION} and (message_id is None or state is None):
        return None
    written = _keys_of(_text(pdu))
    if message_id is None:
        provider_message_id = written.get("id", "")
    else:
        provider_message_id = message_id.rstrip(b"\0").decode("latin-1").strip()
    if state is None:
        state = _STATS.get(written.get("stat", "").upper(), ReceiptState.UNKNOWN)
    return Receipt(
        provider_message_id=provider_message_id,
        state=state,
        error=written.get("err") or None,
        network_error=_network_error(pdu.tlv(Tag.NETWORK_ERROR_CODE)),
        submitted_at=_date(written.get("submit", "")),
        done_at=_date(written.get("done", "")),
        reference=_reference(pdu.tlv(Tag.USER_MESSAGE_REFERENCE)),
        source=pdu.octets("source_addr").decode("latin-1"),
        destination=pdu.octets("destination_addr").decode("latin-1"),
    )


def _state(tlv: bytes | None) -> ReceiptState | None:
    return MESSAGE_STATES.get(tlv[0]) if tlv is not None and len(tlv) == 1 else None


def _network_error(tlv: bytes | None) -> NetworkError | None:
    if tlv is None or len(tlv) != 3:  # noqa: PLR2004 - one octet and two, by definition
        return None
    return NetworkError(tlv[0], int.from_bytes(tlv[1:], "big"))


def _reference(tlv: bytes | None) -> int | None:
    return int.from_bytes(tlv, "big") if tlv is not None and len(tlv) == 2 else None  # noqa: PLR2004 - as above


def _text(pdu: Pdu) -> str:
    octets = pdu.octets("short_message") or pdu.tlv(Tag.MESSAGE_PAYLOAD) or b""
    encoding = "utf-16-be" if pdu.number("data_coding") == _UCS2 else "latin-1"
    return octets.decode(encoding, "replace")


def _keys_of(text: str) -> dict[str, str]:
    """The values by the first letters of their keys; each key's first one counts.

    What follows `text:` is the message's own words, and is searched only for what was not said
    before it, since a few SMSCs write it first.
    """
    usual = _USUAL.match(text)
    return usual.groupdict() if usual is not None else _searched(text)


def _searched(text: str) -> dict[str, str]:
    """The same, whatever their order and their spelling."""
    head = _TEXT_KEY.split(text, maxsplit=1)
    found: dict[str, str] = {}
    for stretch in head:
        if "id" in found and "stat" in found:
            break
        for match in _KEY.finditer(stretch):
            found.setdefault(_KEYS[match["key"][:2].lower()], match["value"])
    return found


_KEYS: Final = {"id": "id", "su": "submit", "do": "done", "st": "stat", "er": "err"}


@functools.lru_cache(maxsize=256)  # an SMSC writes the same minute in all receipts of a minute
def _date(digits: str) -> datetime | None:
    for layout in _DATES.get(len(digits), ()):
        try:
            return datetime.strptime(digits, layout)  # noqa: DTZ007 - the SMSC's zone is not told
        except ValueError:
            continue
    return None

"""Delivery receipts as SMSCs send them: TLVs where there are any, else the text of appendix B."""

from __future__ import annotations

import functools
import re
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from domain.receipts import ReceiptState
from domain.values import value
from smpp.pdus import Pdu
from smpp.tlvs import Tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# esm_class (SMPP 3.4, 5.2.12): a delivery receipt or an intermediate notification, which a phone
# cannot send, and a header before the text.
_RECEIPT_BITS: Final = 0b0010_0100
_UDHI: Final = 0b0100_0000
# data_coding (SMPP 3.4, 5.2.19, and 3GPP TS 23.038, 4): the bits of the alphabet, and UCS-2.
_ALPHABET_BITS: Final = 0b0000_1100
_UCS2: Final = 0b0000_1000
_LONGEST_HEADER: Final = 140  # a header is part of the 140 octets of a message
_NARROW: Final = ("latin-1", "utf-16-be", "utf-16-le")

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
RECEIPT_STATES: Final[Mapping[str, ReceiptState]] = {
    word: state
    for state, words in {
        ReceiptState.ACCEPTED: "ACCEPTD ACCEPTED",
        ReceiptState.DELETED: "DELETED CANCELED CANCELLED",
        ReceiptState.DELIVERED: "DELIVRD DELIVERD DELIVERED DELIVRED",
        ReceiptState.ENROUTE: "ENROUTE EN_ROUTE BUFFERED BUFFRED PENDING QUEUED SCHEDULED",
        ReceiptState.EXPIRED: "EXPIRED EXPIRD",
        ReceiptState.REJECTED: "REJECTD REJECTED",
        ReceiptState.UNDELIVERABLE: (
            "UNDELIV UNDELIVRD UNDELIVERD UNDELIVERED UNDELIVRED UNDELIVERABLE FAILED"
            " NOT_DELIVERED SKIPPED"
        ),
        ReceiptState.UNKNOWN: "UNKNOWN",
    }.items()
    for word in words.split()
}

# The keys as vendors spell them. A value ends at white space, and may be missing.
_ID_KEY: Final = r"(?:(?:message|msg)[ _-]?)?id"
_DATE_KEYS: Final = r"submit[ _-]?date|done[ _-]?date"
_STATE_KEY: Final = r"(?:message[ _-]?)?stat(?:us|e)?"
_ERROR_KEY: Final = r"err(?:or)?(?:[ _-]?code)?"
_KEYS_PATTERN: Final = rf"(?P<key>{_ID_KEY}|{_DATE_KEYS}|{_STATE_KEY}|{_ERROR_KEY})"
_ANY_KEY: Final = rf"(?:{_ID_KEY}|sub|dlvrd|{_DATE_KEYS}|{_STATE_KEY}|{_ERROR_KEY})"
_KEY: Final = re.compile(
    rf"(?<![^\s,;]){_KEYS_PATTERN}\s*[:=]\s*(?P<value>(?!{_ANY_KEY}\s*[:=])[^\s,;]*)",
    re.IGNORECASE,
)
# A key that nobody here knows has its value, too.
_PAIR: Final = re.compile(
    rf"(?<![^\s,;])(?:{_ANY_KEY}|[\w.-]+)\s*[:=]\s*(?!{_ANY_KEY}\s*[:=])[^\s,;]*", re.IGNORECASE
)
# The text as the specification has it (SMPP 3.4, appendix B), which most SMSCs write to the letter.
_VALUE: Final = r"[^\s,;:=\"'<>]*"
_USUAL: Final = re.compile(
    rf"id:(?P<id>{_VALUE}) sub:{_VALUE} dlvrd:{_VALUE} submit date:(?P<su>{_VALUE})"
    rf" done date:(?P<do>{_VALUE}) stat:(?P<st>{_VALUE}) err:(?P<er>{_VALUE})(?: text:|$)",
    re.IGNORECASE,
)
_TEXT_KEY: Final = re.compile(r"(?<![^\s,;])text\s*[:=]", re.IGNORECASE)
# What pads fields or is left of a header: control characters, half a character of UTF-16, and the
# mark of the byte order.
_PADDING: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufeff\ufffd\ufffe]")
_MESSAGE: Final = re.compile(r"^(?:message|msg)[ _-]?")
_QUOTES: Final = "\"'<>"
# Twelve digits are first read as the short year with seconds: no 20th month is a valid one.
_DATES: Final[Mapping[int, tuple[str, ...]]] = {
    10: ("%y%m%d%H%M",),
    12: ("%y%m%d%H%M%S", "%Y%m%d%H%M"),
    14: ("%Y%m%d%H%M%S",),
}
_LONGEST_TEXT: Final = 4096  # octets; a message_payload may have 16 times as many
_LONGEST_ID: Final = 1024
_LONGEST_CODE: Final = 32
_LONGEST_ADDRESS: Final = 65  # of data_sm, with its NUL (3.4, 4.7.1)


@value
class NetworkError:
    """network_error_code (SMPP 3.4, 5.3.2.31): the kind of network, and its own code."""

    network_type: int
    code: int


@value
class Receipt:
    """The outcome of a part, as an SMSC reports it.

    `id_in_text` and `id_in_tlv` are as the SMSC wrote them, possibly in two number bases, and empty
    if missing. `state` is None if it is missing or not a known state. Times are in the SMSC's own
    time zone, which SMPP does not transmit. `reference` is the user_message_reference of the
    submit_sm, if the SMSC echoes it. `source` and `destination` are the receipt's own: it comes from
    the recipient and goes to the sender.

    Whatever the PDU holds, texts are short, and without control characters and surrogates.
    """

    id_in_text: str
    id_in_tlv: str
    state: ReceiptState | None
    error: str | None
    network_error: NetworkError | None
    submitted_at: datetime | None
    done_at: datetime | None
    reference: int | None
    source: str = field(repr=False)
    destination: str = field(repr=False)

    @property
    def provider_message_id(self) -> str:
        """The id in the TLV, else the one in the text."""
        return self.id_in_tlv or self.id_in_text


def parse_receipt(pdu: Pdu, states: Mapping[str, ReceiptState] | None = None) -> Receipt | None:
    """Read the receipt in a deliver_sm or data_sm; None where it carries something else.

    A receipt says so in its esm_class, or by the TLVs that only a receipt has. A text that merely
    looks like one is a message from a phone, whose owner could otherwise deliver anything.

    Args:
        pdu: the PDU.
        states: what the SMSC writes as `stat:`, in capitals, where it differs from the usual.
    """
    id_in_tlv = pdu.tlv(Tag.RECEIPTED_MESSAGE_ID)
    state_tlv = pdu.tlv(Tag.MESSAGE_STATE)
    if not pdu.number("esm_class") & _RECEIPT_BITS and id_in_tlv is None and state_tlv is None:
        return None
    known = {**RECEIPT_STATES, **states} if states else RECEIPT_STATES
    written = _written(pdu, known)
    # 0 is no state of SMPP 3.4, and what an SMSC may write that leaves the field empty.
    state = MESSAGE_STATES.get(state_tlv[0]) if state_tlv and len(state_tlv) == 1 else None
    if state is None or state_tlv == b"\0":
        state = _state(written, known) or state
    if state is None and state_tlv:
        state = _padded_state(state_tlv)
    return Receipt(
        id_in_text=written.get("id", "")[:_LONGEST_ID],
        id_in_tlv=storable(id_in_tlv or b"", _LONGEST_ID),
        state=state,
        error=written.get("er", "")[:_LONGEST_CODE] or None,
        network_error=_network_error(pdu.tlv(Tag.NETWORK_ERROR_CODE)),
        submitted_at=_date(written.get("su", "")),
        done_at=_date(written.get("do", "")),
        reference=_reference(pdu.tlv(Tag.USER_MESSAGE_REFERENCE)),
        source=storable(pdu.octets("source_addr"), _LONGEST_ADDRESS),
        destination=storable(pdu.octets("destination_addr"), _LONGEST_ADDRESS),
    )


def storable(octets: bytes, longest: int = _LONGEST_ID) -> str:
    """Octets as a text that any database takes: short, without control characters."""
    text = octets.rstrip(b"\0").decode("latin-1")
    return (text if text.isalnum() else _PADDING.sub(" ", text).strip())[:longest]


def _padded_state(tlv: bytes) -> ReceiptState | None:
    """The state in a message_state of a wrong length, or written as a digit."""
    octets = tlv.strip(b"\0 ")
    if len(octets) != 1:
        return None
    return MESSAGE_STATES.get(int(octets) if octets.isdigit() else octets[0])


def _network_error(tlv: bytes | None) -> NetworkError | None:
    if tlv is None or len(tlv) != 3:  # noqa: PLR2004 - one octet and two, by definition
        return None
    return NetworkError(tlv[0], int.from_bytes(tlv[1:], "big"))


def _reference(tlv: bytes | None) -> int | None:
    return int.from_bytes(tlv, "big") if tlv is not None and len(tlv) == 2 else None  # noqa: PLR2004 - as above


def _written(pdu: Pdu, states: Mapping[str, ReceiptState]) -> Mapping[str, str]:
    """The values in the text, by the first two letters of their keys.

    Most SMSCs write the text to the letter of the specification. Others write ASCII under the
    data_coding of UCS-2 and the other way, a header with or without its bit in esm_class, and the
    text in either of two places. The reading that has both an id and a state is the right one; if
    none has both, the one that has most.
    """
    usual = _USUAL.match(pdu.octets("short_message").decode("latin-1"))
    if usual is not None and usual["id"] and usual["st"] in states and usual.group().isprintable():
        return usual.groupdict()
    best: Mapping[str, str] = {}
    for text in _readings(pdu):
        found = _searched(_PADDING.sub(" ", text), states)
        if found.get("id") and _state(found, states) is not None:
            return found
        if _worth(found) > _worth(best):
            best = found
    return best


def _worth(found: Mapping[str, str]) -> tuple[bool, int]:
    return bool(found.get("id")), sum(map(bool, found.values()))


def _state(found: Mapping[str, str], states: Mapping[str, ReceiptState]) -> ReceiptState | None:
    word = found.get("st", "")
    return states.get(word) or states.get(word.rstrip(".").upper())


def _readings(pdu: Pdu) -> Iterator[str]:
    wide = pdu.number("data_coding") & _ALPHABET_BITS == _UCS2
    encodings = ("utf-16-be", "latin-1", "utf-16-le") if wide else _NARROW
    for octets in (pdu.octets("short_message"), pdu.tlv(Tag.MESSAGE_PAYLOAD)):
        if not octets:
            continue
        octets = octets[:_LONGEST_TEXT]  # noqa: PLW2901 - no receipt is longer
        header = octets[0] + 1 if octets[0] < min(len(octets), _LONGEST_HEADER) else 0
        first = header if pdu.number("esm_class") & _UDHI else 0
        for start in (first, header - first) if header else (0,):
            for encoding in encodings:
                yield octets[start:].decode(encoding, "replace")


def _searched(text: str, states: Mapping[str, ReceiptState]) -> dict[str, str]:
    """The values, whatever their order and their spelling; each key's first one counts.

    What follows `text:` is the message's own words, and is searched only for what was not said
    before it, since a few SMSCs write it first.
    """
    head = _TEXT_KEY.split(text, maxsplit=1)
    found: dict[str, str] = {}
    for stretch in head:
        if "id" in found and "st" in found:
            break
        for match in _KEY.finditer(stretch):
            found.setdefault(_short(match["key"]), match["value"].strip(_QUOTES))
    if not found.get("st"):
        # The state without its key is all that stands there beside keys and their values.
        rest = _PAIR.sub(" ", head[0]).strip(" ,;")
        if rest.upper() in states:
            found["st"] = rest
    return found


def _short(key: str) -> str:
    """The first two letters, without the `message` that may stand before them."""
    return _MESSAGE.sub("", key.lower())[:2]


@functools.lru_cache(maxsize=256)  # an SMSC writes the same minute in all receipts of a minute
def _date(digits: str) -> datetime | None:
    for layout in _DATES.get(len(digits), ()):
        try:
            return datetime.strptime(digits, layout)  # noqa: DTZ007 - the SMSC's zone is unknown
        except ValueError:
            continue
    return None

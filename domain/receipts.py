"""Delivery receipts: what an SMSC says has become of a part."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from domain.values import value


class ReceiptState(StrEnum):
    """Message states of SMPP 3.4, 5.2.28, which other carriers' states are mapped to."""

    ENROUTE = "enroute"
    DELIVERED = "delivered"
    EXPIRED = "expired"
    DELETED = "deleted"
    UNDELIVERABLE = "undeliverable"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"
    REJECTED = "rejected"

    @property
    def is_final(self) -> bool:
        """Whether nothing more can come after it; UNKNOWN is the SMSC's doubt, not an end."""
        return self in _FINAL


FAILURES: Final = (
    ReceiptState.REJECTED,
    ReceiptState.DELETED,
    ReceiptState.UNDELIVERABLE,
    ReceiptState.EXPIRED,
)
"""Final states other than DELIVERED, the worst first: that of an attempt's parts which counts.

What a carrier refused comes before what a handset did not take: another carrier may deliver it."""

_FINAL = frozenset({ReceiptState.DELIVERED, *FAILURES})


@value
class PartIdentity:
    """The part that a receipt is for, where the receipt itself names it.

    A provider that calls back an address of ours with an attempt's receipt token does.
    """

    message_id: UUID
    attempt: int
    number: int = 1


# --- what can be stored --------------------------------------------------------------------------

LONGEST_SMPP_ID: Final = 65
"""Octets of a message_id (SMPP 3.4, 5.2.23)."""
LONGEST_ID: Final = 255
"""Characters of a provider's message id; HTTP APIs have no limit of their own."""
LONGEST_CODE: Final = 255
"""Characters of a provider's error code."""
LONGEST_ADDRESS: Final = 40
"""Characters of a sender or a recipient (SMPP 3.4, 5.2.8: 20 octets)."""

# Postgres' text has neither NUL nor half of a surrogate pair.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"
_DIGEST: Final = 16


def storable(text: str, longest: int) -> str:
    """A text that Postgres can store, of at most `longest` characters.

    NULs at the end are padding, and are dropped. A text that has to be changed otherwise ends with a
    digest of the original, so that two different texts stay different.
    """
    text = text.rstrip("\0")
    if len(text) <= longest and not _UNSTORABLE.search(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{_UNSTORABLE.sub(_REPLACEMENT, text[: longest - _DIGEST - 1])}~{digest}"


_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)


def storable_time(moment: datetime | None) -> datetime | None:
    """A time in UTC that Postgres and Python can both read again; None for any other."""
    if moment is None:
        return None
    try:
        in_utc = moment.astimezone(UTC)
    except (OverflowError, ValueError):
        return None
    return in_utc if _EARLIEST <= in_utc <= _LATEST else None


# --- retries -------------------------------------------------------------------------------------

_FIRST_RETRY: Final = timedelta(seconds=5)
_RETRY_FACTOR: Final = 3
_LAST_RETRY: Final = timedelta(days=3)


def first_match_at(received_at: datetime) -> datetime:
    """When a receipt that matches no part yet is matched again."""
    return received_at + _FIRST_RETRY


def next_match_at(received_at: datetime, tries: int, now: datetime) -> datetime | None:
    """When to match it again after so many more tries (at least 1); None if never.

    The waits are 15 s, 45 s and so on, three times as long each, until the receipt is three days old.
    """
    if now >= received_at + _LAST_RETRY:
        return None
    wait: timedelta = _FIRST_RETRY * _RETRY_FACTOR ** min(tries, 20)
    return min(now + wait, received_at + _LAST_RETRY)

"""Delivery receipts: what an SMSC says has become of a part."""

from enum import StrEnum


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


_FINAL = frozenset(
    {
        ReceiptState.DELIVERED,
        ReceiptState.EXPIRED,
        ReceiptState.DELETED,
        ReceiptState.UNDELIVERABLE,
        ReceiptState.REJECTED,
    }
)

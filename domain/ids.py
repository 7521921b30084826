"""Public ids: a prefix that says what the thing is, and a UUIDv7, which sorts by time (RFC 9562, 5.7)."""

from enum import StrEnum
from uuid import UUID


class IdPrefix(StrEnum):
    """What an id names."""

    MESSAGE = "msg"
    ACCOUNT = "acc"
    KEY = "key"
    CALLBACK = "cb"
    CALLBACK_REQUEST = "cbr"
    BATCH = "bat"


def public_id(prefix: IdPrefix, uuid: UUID) -> str:
    """`msg_` and 32 hexadecimal digits."""
    return f"{prefix}_{uuid.hex}"


def parse_id(prefix: IdPrefix, text: str) -> UUID | None:
    """The UUID of a public id, or None if the text is not an id of that kind."""
    head, _, digits = text.partition("_")
    if head != prefix or len(digits) != 32:  # noqa: PLR2004 - 128 bits in hexadecimal
        return None
    try:
        return UUID(hex=digits)
    except ValueError:
        return None

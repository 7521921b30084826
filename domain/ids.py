"""Public ids: a prefix that says what the thing is, and a UUIDv7, which sorts by time (RFC 9562, 5.7)."""

import re
from enum import StrEnum
from typing import Final
from uuid import UUID

_DIGITS: Final = re.compile(r"[0-9a-f]{32}")
"""As `public_id` writes them: each thing has one id, so that ids can be compared as texts."""


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
    if head != prefix or not _DIGITS.fullmatch(digits):
        return None
    return UUID(hex=digits)

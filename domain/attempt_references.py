"""References of attempts that a provider is given beside a message, and that its receipts have back.

A reference names an attempt, and proves nothing: it counts only in a request that is known to be the
provider's. It has letters and digits of one case, which every provider keeps as they are.
"""

import binascii
import struct
from base64 import b32hexdecode, b32hexencode
from typing import Final
from uuid import UUID

from domain.receipts import PartIdentity

_NAMED: Final = struct.Struct(">16sH")
LENGTH: Final = -(-_NAMED.size * 8 // 5)
"""Characters of a reference: base32hex (RFC 4648, 7) without padding."""
_PADDING: Final = "=" * (-LENGTH % 8)


def attempt_reference(message_id: UUID, attempt: int) -> str:
    """The reference of an attempt, 29 lower-case letters and digits."""
    named = _NAMED.pack(message_id.bytes, attempt)
    return b32hexencode(named).decode().removesuffix(_PADDING).lower()


def part_of_reference(reference: str) -> PartIdentity | None:
    """The first part of the attempt that a reference names, in capitals or not; None for any other text."""
    if len(reference) != LENGTH or not reference.isascii():
        return None
    try:
        octets = b32hexdecode(reference.upper() + _PADDING)
    except binascii.Error:
        return None
    message_id, attempt = _NAMED.unpack(octets)
    return PartIdentity(UUID(bytes=message_id), attempt)

"""How a recipient is found without its number: a keyed hash, whose key has a version."""

import hashlib
import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecipientHash:
    """HMAC-SHA-256 (RFC 2104) of E.164 numbers; without the key nobody can try all numbers."""

    key: bytes
    version: int

    def of(self, e164: str) -> bytes:
        """32 octets for a number with its plus sign."""
        return hmac.digest(self.key, e164.encode(), hashlib.sha256)

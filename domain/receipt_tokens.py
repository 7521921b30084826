"""Receipt tokens: how an address that a provider calls back names its attempt, or the provider.

A token holds the ids of a message and of its attempt, and proves that we made it: an HMAC-SHA-256
(RFC 2104), truncated to 128 bits (RFC 2104, 5). It is the same each time that it is made, so a resumed
attempt keeps its token. Whoever has it can report receipts of that attempt: it is never logged.
"""

import binascii
import hashlib
import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final
from uuid import UUID

from domain.receipts import PartIdentity

_PURPOSE: Final = b"smsgateway receipt token 1"
_OF_PROVIDER: Final = b"smsgateway provider token 1"
_NAMED: Final = struct.Struct(">16sH")
_MAC: Final = 16
_OCTETS: Final = _NAMED.size + _MAC
LENGTH: Final = -(-_OCTETS * 4 // 3)
"""Characters of a token: base64 for URLs (RFC 4648, 5) without padding."""


class ReceiptTokens:
    """Makes and reads the tokens of one installation.

    `secret` is any secret that all processes share; the key of the tokens is derived from it. When it
    changes, receipts that name earlier tokens are not recognized.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, _PURPOSE, hashlib.sha256)
        self._provider_key = hmac.digest(secret, _OF_PROVIDER, hashlib.sha256)

    def token(self, message_id: UUID, attempt: int) -> str:
        """The token of an attempt, 46 characters that need no escaping in a URL."""
        named = _NAMED.pack(message_id.bytes, attempt)
        mac = hmac.digest(self._key, named, hashlib.sha256)[:_MAC]
        return urlsafe_b64encode(named + mac).rstrip(b"=").decode()

    def read(self, token: str, number: int = 1) -> PartIdentity | None:
        """The part with this number of the attempt that a token names; None if it is not one of ours."""
        if len(token) != LENGTH or not token.isascii():
            return None
        try:
            octets = urlsafe_b64decode(token + "=" * (-LENGTH % 4))
            named, attempt = _NAMED.unpack_from(octets)
        except (binascii.Error, ValueError, struct.error):
            return None
        message_id = UUID(bytes=named)
        # Compared as written, so that each attempt has one token.
        if not hmac.compare_digest(token, self.token(message_id, attempt)):
            return None
        return PartIdentity(message_id, attempt, number)

    def token_of_provider(self, provider: str) -> str:
        """The token of the fixed addresses at which a provider reports, 22 characters.

        For providers that have one address for all messages, entered by hand at the provider.
        """
        mac = hmac.digest(self._provider_key, provider.encode(), hashlib.sha256)[:_MAC]
        return urlsafe_b64encode(mac).rstrip(b"=").decode()

    def is_of_provider(self, token: str, provider: str) -> bool:
        """Whether a token is that of a provider's fixed addresses, compared in constant time."""
        return token.isascii() and hmac.compare_digest(token, self.token_of_provider(provider))

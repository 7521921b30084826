"""An account at Telnyx, which sends by its API v2."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from domain.configuration.durations import Duration
from domain.configuration.providers.base import ProviderSecret
from domain.configuration.providers.http import HttpConfiguration, checked_token
from domain.configuration.secret_references import SecretReference
from domain.provider_codes import ProviderCode
from domain.provider_codes.telnyx import TELNYX_CODES

_Uuid = StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")

_KEY_OCTETS: Final = 32
"""Of an Ed25519 public key (RFC 8032, 5.1.5)."""


def public_key_octets(written: str) -> bytes:
    """The octets of an Ed25519 public key in base64.

    Raises:
        ValueError: it is something else.
    """
    try:
        octets = b64decode(written, validate=True)
    except ValueError:
        octets = b""
    if len(octets) != _KEY_OCTETS:
        raise ValueError("it is no public key: copy the 44 characters that Telnyx's portal shows")
    return octets


def _checked_public_key(written: str) -> str:
    public_key_octets(written)
    return written


class TelnyxConfiguration(HttpConfiguration):
    """One account at Telnyx."""

    default_url: ClassVar[str] = "https://api.telnyx.com"

    type: Literal["telnyx"] = Field(description="the API v2 of Telnyx")
    api_key: SecretReference = Field(description="reference to an API key, `KEY…`")
    public_key: Annotated[str, AfterValidator(_checked_public_key)] = Field(
        description="public key of the account, in base64, which verifies Telnyx's requests; no secret"
    )
    messaging_profile: Annotated[str, _Uuid] | None = Field(
        None, description="id of the messaging profile that sends from alphanumeric senders"
    )
    encoding: Literal["auto", "gsm7", "ucs2"] | None = Field(
        None,
        description="how Telnyx encodes texts; by default as the sender's messaging profile says. `gsm7` "
        "refuses texts that have other characters",
    )
    poll_after: Duration | None = Field(
        timedelta(minutes=2),
        description="how long after the submit a missing receipt is asked for; Telnyx tries three times "
        "to send each",
    )

    def codes(self) -> Mapping[str, ProviderCode]:
        return TELNYX_CODES

    def secrets(self) -> Sequence[ProviderSecret]:
        return (ProviderSecret("api_key", self.api_key, is_literal=False, check=checked_token),)

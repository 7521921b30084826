"""An account at Twilio, which sends by its Messages API (2010-04-01)."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

from domain.configuration.durations import Duration
from domain.configuration.providers.base import ProviderSecret
from domain.configuration.providers.http import HttpConfiguration, checked_token
from domain.configuration.secret_references import SecretReference, allowed_reference
from domain.provider_codes import ProviderCode
from domain.provider_codes.twilio import TWILIO_CODES

_AccountSid = StringConstraints(pattern=r"^AC[0-9a-fA-F]{32}$")
_KeySid = StringConstraints(pattern=r"^SK[0-9a-fA-F]{32}$")
_ServiceSid = StringConstraints(pattern=r"^MG[0-9a-fA-F]{32}$")

SIMULATED_ACCOUNT: Final = f"AC{0:032}"
SIMULATED_TOKEN: Final = "simulated-auth-token"  # noqa: S105 - no secret
"""The account of the simulator (`simulator.twilio`), and its auth token, which is no secret."""

PARAMETERS = frozenset({"MessageIntent", "RiskCheck", "ShortenUrls", "SmartEncoded"})
"""Parameters of a message that are sent as fields of the request."""


def _token_or_reference(token: str, info: ValidationInfo) -> str:
    """A reference, or the token itself for the simulator's account."""
    if info.data.get("account_sid") == SIMULATED_ACCOUNT and token == SIMULATED_TOKEN:
        return token
    return allowed_reference(token, info)


class TwilioConfiguration(HttpConfiguration):
    """One account at Twilio."""

    default_url: ClassVar[str] = "https://api.twilio.com"

    type: Literal["twilio"] = Field(description="the Messages API of Twilio")
    account_sid: Annotated[str, _AccountSid] = Field(description="SID of the account, `AC…`")
    auth_token: Annotated[str, AfterValidator(_token_or_reference)] = Field(
        description="reference to the auth token, which also signs Twilio's requests"
    )
    previous_auth_token: SecretReference | None = Field(
        None,
        description="reference to the auth token before or after a rotation, which may sign as well",
    )
    api_key_sid: Annotated[str, _KeySid] | None = Field(
        None, description="SID of an API key, `SK…`, with which requests are made instead"
    )
    api_key_secret: SecretReference | None = Field(
        None, description="reference to the secret of that API key"
    )
    shared_key: SecretReference | None = Field(
        None,
        description="reference to the shared key that signs Twilio's requests by HMAC-SHA-256, if "
        "the account has one",
    )
    messaging_service: Annotated[str, _ServiceSid] | None = Field(
        None, description="SID of a messaging service, `MG…`, that chooses or completes the sender"
    )
    smart_encoded: StrictBool = Field(
        False, description="whether Twilio replaces look-alike characters by those of GSM-7"
    )
    poll_after: Duration | None = Field(
        timedelta(minutes=5),
        description="how long after the submit a missing receipt is asked for; Twilio sends each only "
        "twice",
    )

    @model_validator(mode="after")
    def _key_has_its_secret(self) -> Self:
        if (self.api_key_sid is None) != (self.api_key_secret is None):
            raise ValueError("api_key_sid and api_key_secret belong together: give both or neither")
        return self

    def codes(self) -> Mapping[str, ProviderCode]:
        return TWILIO_CODES

    def known_parameters(self) -> frozenset[str]:
        return PARAMETERS

    def secrets(self) -> Sequence[ProviderSecret]:
        given = {
            "auth_token": self.auth_token,
            "previous_auth_token": self.previous_auth_token,
            "api_key_secret": self.api_key_secret,
            "shared_key": self.shared_key,
        }
        return [
            ProviderSecret(
                key, reference, is_literal=reference == SIMULATED_TOKEN, check=checked_token
            )
            for key, reference in given.items()
            if reference is not None
        ]

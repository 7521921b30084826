"""An account at Infobip, which sends by its SMS API (v3)."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from domain.configuration.durations import Duration
from domain.configuration.providers.base import ProviderSecret
from domain.configuration.providers.http import HttpConfiguration, Url, checked_token
from domain.configuration.secret_references import SecretReference
from domain.provider_codes import ProviderCode
from domain.provider_codes.infobip import INFOBIP_CODES

_User = StringConstraints(pattern=r"^[\x21-\x39\x3b-\x7e]{1,255}$")
"""Of Basic authentication (RFC 7617): without a colon."""

INDIA_DLT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "entity_id": "principalEntityId",
        "template_id": "contentTemplateId",
        "telemarketer_id": "telemarketerId",
    }
)
"""Parameters of a message that are fields of `options.regional.indiaDlt`, by their names there."""
INDIA_DLT_REQUIRED: Final = "entity_id"
"""Without it Infobip takes none of the others."""
CAMPAIGN: Final = "campaign_reference_id"
"""Parameter of a message that is sent as `options.campaignReferenceId`."""


def checked_password(password: str) -> str:
    """A password of Basic authentication (RFC 7617), in UTF-8.

    Raises:
        ValueError: it is empty, or has control characters; the sentence does not repeat it.
    """
    if not password or not password.isprintable():
        raise ValueError("the password is empty, or has characters that cannot be sent")
    return password


class InfobipConfiguration(HttpConfiguration):
    """One account at Infobip. Each has its own host."""

    type: Literal["infobip"] = Field(description="the SMS API of Infobip")
    url: Url = Field(
        "",
        description="base URL of the account, which Infobip's portal shows, such as "
        "https://xyz123.api.infobip.com",
    )
    api_key: SecretReference | None = Field(
        None, description="reference to an API key with the scope `sms:message:send`"
    )
    user: Annotated[str, _User] | None = Field(
        None, description="user name with which requests are made instead"
    )
    password: SecretReference | None = Field(
        None, description="reference to the password of `user`"
    )
    webhook_user: Annotated[str, _User] | None = Field(
        None,
        description="user name that Infobip's reports carry (Basic authentication); messages then name "
        "no address for their reports: those of Infobip's subscription count",
    )
    webhook_password: SecretReference | None = Field(
        None, description="reference to the password of `webhook_user`"
    )
    poll_after: Duration | None = Field(
        timedelta(minutes=10),
        description="how long after the submit a missing receipt is queried in Infobip's logs, "
        "which are kept for 48 hours",
    )

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together: give both or neither")
        if (self.api_key is None) == (self.user is None):
            raise ValueError("give either api_key, or user and password")
        if (self.webhook_user is None) != (self.webhook_password is None):
            raise ValueError("webhook_user and webhook_password belong together")
        return self

    def codes(self) -> Mapping[str, ProviderCode]:
        return INFOBIP_CODES

    def known_parameters(self) -> frozenset[str]:
        return frozenset({*INDIA_DLT, CAMPAIGN})

    def secrets(self) -> Sequence[ProviderSecret]:
        given = [
            ("api_key", self.api_key, checked_token),
            ("password", self.password, checked_password),
            ("webhook_password", self.webhook_password, checked_password),
        ]
        return [
            ProviderSecret(key, reference, is_literal=False, check=check)
            for key, reference, check in given
            if reference is not None
        ]

"""An account at Vonage, which sends by its Messages API (v1)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import Field, StringConstraints, model_validator

from domain.configuration.providers.base import ProviderSecret
from domain.configuration.providers.http import HttpConfiguration, checked_token
from domain.configuration.secret_references import SecretReference
from domain.provider_codes import ProviderCode
from domain.provider_codes.vonage import VONAGE_CODES

_Uuid = StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
_ApiKey = StringConstraints(pattern=r"^[0-9A-Za-z]{1,64}$")

EncodingType: TypeAlias = Literal["auto", "text", "unicode"]
"""`sms.encoding_type`: `text` is GSM-7, `unicode` is UCS-2."""

PARAMETERS = frozenset({"content_id", "encoding_type", "entity_id", "trusted_recipient"})
"""Parameters of a message that are sent as fields of the request."""

_SHORTEST_KEY = 2048


def checked_private_key(pem: str) -> RSAPrivateKey:
    """The private key of an application, from PEM without a password.

    Raises:
        ValueError: it is something else, or shorter than RFC 7518, 3.3 wants it; the sentence does not
            repeat it.
    """
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        raise ValueError("it is no private key in PEM without a password") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < _SHORTEST_KEY:
        raise ValueError(f"it is no RSA key of at least {_SHORTEST_KEY} bits")
    return key


class VonageConfiguration(HttpConfiguration):
    """One account at Vonage."""

    default_url: ClassVar[str] = "https://api.nexmo.com"

    type: Literal["vonage"] = Field(description="the Messages API of Vonage")
    application_id: Annotated[str, _Uuid] | None = Field(
        None, description="id of the application in whose name requests are made"
    )
    private_key: SecretReference | None = Field(
        None, description="reference to the private key of that application, in PEM"
    )
    api_key: Annotated[str, _ApiKey] | None = Field(
        None,
        description="key of the account, with which requests are made if there is no application",
    )
    api_secret: SecretReference | None = Field(
        None, description="reference to the secret of that key"
    )
    signature_secret: SecretReference = Field(
        description="reference to the account's signature secret, which signs Vonage's requests"
    )
    previous_signature_secret: SecretReference | None = Field(
        None,
        description="reference to the signature secret before or after a rotation, which may sign as well",
    )
    encoding_type: EncodingType = Field(
        "auto",
        description="alphabet of the texts: chosen by Vonage (`auto`), GSM-7 (`text`) or UCS-2 (`unicode`)",
    )
    pool_id: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = Field(
        None, description="id of a pool of numbers, from which Vonage chooses the sender"
    )

    @model_validator(mode="after")
    def _has_credentials_of_one_kind(self) -> Self:
        application = (self.application_id is not None, self.private_key is not None)
        key = (self.api_key is not None, self.api_secret is not None)
        if (application, key) not in {((True,) * 2, (False,) * 2), ((False,) * 2, (True,) * 2)}:
            raise ValueError(
                "give either application_id and private_key, or api_key and api_secret"
            )
        return self

    def codes(self) -> Mapping[str, ProviderCode]:
        return VONAGE_CODES

    def known_parameters(self) -> frozenset[str]:
        return PARAMETERS

    def secrets(self) -> Sequence[ProviderSecret]:
        given = {
            "private_key": (self.private_key, checked_private_key),
            "api_secret": (self.api_secret, checked_token),
            "signature_secret": (self.signature_secret, checked_token),
            "previous_signature_secret": (self.previous_signature_secret, checked_token),
        }
        return [
            ProviderSecret(key, reference, is_literal=False, check=check)
            for key, (reference, check) in given.items()
            if reference is not None
        ]

"""How requests to a declared provider are authenticated, and how its own requests are recognized."""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from domain.configuration.declared import Declared, mistake_at, refuse
from domain.configuration.durations import Duration
from domain.configuration.providers.declared.templates import (
    SecretTemplate,
    WithSecret,
    parse_template,
)

_OF_THE_TRANSPORT: Final = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
    }
)


def _checked_header(name: str) -> str:
    if name.lower() in _OF_THE_TRANSPORT:
        raise ValueError("this header is written by the gateway itself")
    return name


HeaderName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"),
    AfterValidator(_checked_header),
]
"""RFC 9110, 5.6.2."""
Prefix = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e ]{0,64}$")]


class Hash(StrEnum):
    """Hash of an HMAC (RFC 2104)."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


class DigestForm(StrEnum):
    """How the octets of an HMAC are written."""

    HEX = "hex"
    BASE64 = "base64"


def written_hmac(key: str, signed: bytes, digest: Hash, form: DigestForm) -> str:
    """An HMAC as text; hexadecimal digits are small letters."""
    octets = hmac.digest(key.encode(), signed, getattr(hashlib, digest))
    return octets.hex() if form is DigestForm.HEX else b64encode(octets).decode()


class AuthenticationType(StrEnum):
    """Where the credentials of a request are."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    HEADER = "header"
    QUERY = "query"
    FORM = "form"
    HMAC = "hmac"


class _ByType(Declared):
    """A table whose `type` says which of its other keys are needed and allowed."""

    def _refuse_other_keys(self, needed: frozenset[str], allowed: frozenset[str]) -> None:
        given = self.model_fields_set - {"type"}
        refuse(
            type(self).__name__,
            [
                *(mistake_at(name, sentence="it is missing") for name in sorted(needed - given)),
                *(
                    mistake_at(name, sentence="this type does not have it")
                    for name in sorted(given - needed - allowed)
                ),
            ],
        )


_AUTHENTICATION: Final[Mapping[AuthenticationType, tuple[str, str]]] = MappingProxyType(
    {
        AuthenticationType.NONE: ("", ""),
        AuthenticationType.BASIC: ("user password", ""),
        AuthenticationType.BEARER: ("token", ""),
        AuthenticationType.HEADER: ("header value", ""),
        AuthenticationType.QUERY: ("fields", ""),
        AuthenticationType.FORM: ("fields", ""),
        AuthenticationType.HMAC: ("header secret", "hash encoding prefix"),
    }
)
"""The keys that each type needs, and those that it may have."""


class Authentication(_ByType):
    """How requests are made in the account's name."""

    type: AuthenticationType = Field(
        AuthenticationType.NONE, description="where the credentials of a request are"
    )
    user: SecretTemplate | None = Field(None, description="`basic`: the user")
    password: SecretTemplate | None = Field(
        None, description="`basic`: the password; it may be empty"
    )
    token: WithSecret | None = Field(None, description="`bearer`: the token")
    header: HeaderName | None = Field(None, description="`header`, `hmac`: name of the header")
    value: WithSecret | None = Field(
        None, description='`header`: its value, such as "AccessKey {secret:key}"'
    )
    fields: dict[str, SecretTemplate] | None = Field(
        None, description="`query`, `form`: the credentials, by the names of their fields"
    )
    secret: WithSecret | None = Field(None, description="`hmac`: the key that signs the body")
    hash: Hash = Field(Hash.SHA256, description="`hmac`: the hash")
    encoding: DigestForm = Field(DigestForm.HEX, description="`hmac`: how the digest is written")
    prefix: Prefix = Field("", description="`hmac`: what is written before the digest")

    @model_validator(mode="after")
    def _has_the_keys_of_its_type(self) -> Self:
        needed, allowed = _AUTHENTICATION[self.type]
        self._refuse_other_keys(frozenset(needed.split()), frozenset(allowed.split()))
        if self.type is AuthenticationType.BASIC and not any(
            parse_template(each or "").placeholders for each in (self.user, self.password)
        ):
            raise ValueError("user or password is a secret: write {secret:NAME}")
        return self

    def templates(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Where each template is in the table, and the template."""
        yield from _templates(self, ("user", "password", "token", "value", "secret"))
        for name, template in (self.fields or {}).items():
            yield ("fields", name), template


class SignatureType(StrEnum):
    """How the provider's requests are recognized, beside the secret token of their address."""

    NONE = "none"
    BASIC = "basic"
    HEADER = "header"
    HMAC = "hmac"


_SIGNATURE: Final[Mapping[SignatureType, tuple[str, str]]] = MappingProxyType(
    {
        SignatureType.NONE: ("", ""),
        SignatureType.BASIC: ("user password", ""),
        SignatureType.HEADER: ("header value", ""),
        SignatureType.HMAC: (
            "header secret",
            "hash encoding prefix signed timestamp_header tolerance",
        ),
    }
)
BODY: Final = "{body}"
TIMESTAMP: Final = "{timestamp}"


class Signature(_ByType):
    """How the provider's requests are recognized."""

    type: SignatureType = Field(
        description='how a request is recognized beside the secret token of its address; `signature = "none"` '
        "if it is not"
    )
    user: SecretTemplate | None = Field(None, description="`basic`: the user")
    password: WithSecret | None = Field(None, description="`basic`: the password")
    header: HeaderName | None = Field(None, description="`header`, `hmac`: name of the header")
    value: WithSecret | None = Field(None, description="`header`: its value")
    secret: WithSecret | None = Field(None, description="`hmac`: the key that signs")
    hash: Hash = Field(Hash.SHA256, description="`hmac`: the hash")
    encoding: DigestForm = Field(DigestForm.HEX, description="`hmac`: how the digest is written")
    prefix: Prefix = Field("", description="`hmac`: what is written before the digest")
    signed: Annotated[str, StringConstraints(max_length=200)] = Field(
        BODY, description="`hmac`: what is signed, such as `{timestamp}.{body}`"
    )
    timestamp_header: HeaderName | None = Field(
        None,
        description="`hmac`: header with the time of the request, in Unix seconds or milliseconds",
    )
    tolerance: Duration = Field(
        timedelta(minutes=5), description="`hmac`: how old, or how far ahead, that time may be"
    )

    @model_validator(mode="after")
    def _has_the_keys_of_its_type(self) -> Self:
        needed, allowed = _SIGNATURE[self.type]
        self._refuse_other_keys(frozenset(needed.split()), frozenset(allowed.split()))
        sentence = None
        if self.signed.count(BODY) != 1 or self.signed.count(TIMESTAMP) > 1:
            sentence = "it has {body} once, and {timestamp} at most once"
        elif (TIMESTAMP in self.signed) != (self.timestamp_header is not None):
            sentence = "{timestamp} and timestamp_header belong together: give both or neither"
        if sentence:
            refuse(type(self).__name__, [mistake_at("signed", sentence=sentence)])
        return self

    def signed_octets(self, timestamp: str, body: bytes) -> bytes:
        """What the provider has signed, of a request with this time and body."""
        before, _, after = self.signed.partition(BODY)
        filled = [each.replace(TIMESTAMP, timestamp).encode() for each in (before, after)]
        return filled[0] + body + filled[1]

    def templates(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Where each template is in the table, and the template."""
        yield from _templates(self, ("user", "password", "value", "secret"))


def signature_from_word(value: object) -> object:
    """`signature = "none"` as a table with that type."""
    return {"type": value} if isinstance(value, str) else value


def _templates(table: Declared, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name in names:
        template = getattr(table, name)
        if template is not None:
            yield (name,), template

"""What all providers have in common that are reached by HTTP requests."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator

from domain.callbacks.urls import InvalidCallbackUrl, may_receive, parse_url
from domain.configuration.declared import mistake_at, refuse
from domain.configuration.durations import Duration
from domain.configuration.providers.base import ProviderConfiguration
from domain.configuration.providers.connections import TlsOptions
from domain.error_classes import ErrorClass


def checked_url(url: str) -> str:
    """The address of a provider's API, without a slash at its end.

    Raises:
        ValueError: it is no http or https URL, or has a query; the sentence does not repeat it.
    """
    try:
        parsed = parse_url(url)
    except InvalidCallbackUrl as error:
        raise ValueError(str(error).replace("callback URL", "URL")) from None
    if "?" in url or "#" in url:
        raise ValueError("the URL of the API has no query and no fragment")
    return str(parsed).rstrip("/")


Url = Annotated[str, AfterValidator(checked_url)]


class HttpConfiguration(ProviderConfiguration):
    """One account at a provider with an HTTP API; each type has a subclass.

    Such a provider splits long messages itself, and cancels none that it has sent. A session
    (`binds`) is one request that may be unanswered.
    """

    default_url: ClassVar[str] = ""
    """Of the vendor's API; empty where each account has its own."""

    url: Url = Field("", description="address of the API; by default the vendor's")
    binds: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        20,
        alias="connections",
        description="maximum number of concurrent requests, over all processes",
    )
    window: Annotated[StrictInt, Field(ge=1, le=1)] = Field(
        1, description="1: a connection carries one request at a time"
    )
    connect_timeout: Duration = Field(
        timedelta(seconds=5), description="timeout for a connection, its TLS handshake included"
    )
    tls: TlsOptions = Field(
        TlsOptions(), description="options of TLS, which the scheme of `url` switches on"
    )
    private_network: StrictBool = Field(
        False,
        description="whether the API is in a private network or on this machine; only there may `url` "
        "begin with http://",
    )
    cancel: StrictBool = Field(False, description="HTTP providers cancel no message that was sent")
    poll_after: Duration | None = Field(
        None,
        description="how long after the submit a missing receipt is asked for, if the provider can be "
        "asked; by default never, or as the page of the type says",
    )
    errors: Mapping[str, ErrorClass] = Field(
        {},
        description="error classes of this provider's codes, where they differ from the built-in table",
    )

    @model_validator(mode="before")
    @classmethod
    def _vendors_address(cls, data: object) -> object:
        if isinstance(data, Mapping) and cls.default_url and not data.get("url"):
            return {**data, "url": cls.default_url}
        return data

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        sentence = None
        if not self.url:
            sentence = "the address of the API is missing: url"
        elif self.private_network:
            sentence = _not_private(self.url)
        else:
            sentence = _not_public(self.url)
        if sentence:
            refuse(type(self).__name__, [mistake_at("url", sentence=sentence)])
        return self

    @property
    def receipt_poll_after(self) -> timedelta | None:
        return self.poll_after

    def key_files(self) -> Sequence[str]:
        return () if self.tls.key is None else (self.tls.key,)


def _not_private(url: str) -> str | None:
    """Why a URL without TLS cannot be that of an API in a private network, as far as the URL shows it."""
    address = parse_url(url).address
    is_public = address is not None and may_receive(address, allow_private=False)
    if urlsplit(url).scheme == "http" and is_public:
        return "its address is public, where requests are not sent without TLS: write https://"
    return None


def _not_public(url: str) -> str | None:
    """Why a URL cannot be that of a public API, as far as the URL itself shows it."""
    if urlsplit(url).scheme != "https":
        return "it begins with https://, unless private_network is true"
    address = parse_url(url).address
    if address is not None and not may_receive(address, allow_private=False):
        return "its address is not public: set private_network if the API is in your own network"
    return None


def checked_token(token: str) -> str:
    """A secret that can be a part of a header.

    Raises:
        ValueError: it is empty, or has blanks or other characters than ASCII; the sentence does not
            repeat it.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the secret is empty, or has blanks or characters that no key has")
    return token

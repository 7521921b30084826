"""Requests that carriers send to the gateway: verified over the raw body, then read as receipts."""

from __future__ import annotations

import hmac
import json
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from urllib.parse import parse_qsl

from domain.configuration.providers.http import HttpConfiguration
from domain.values import value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from domain.receipts import PartIdentity
    from providers.base import ReceivedReceipt

_Configuration = TypeVar("_Configuration", bound=HttpConfiguration)


@value
class WebhookRequest:
    """A request as it arrived.

    Attributes:
        method: such as POST.
        url: the address that the carrier called: the gateway's public address, with path and query as they
            came. Never the Host or the scheme of the request itself, which a proxy changes.
        headers: by their names in lower case.
        body: the raw octets.
        at: when it came, UTC.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            UnreadableWebhook: it is something else.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise UnreadableWebhook from None

    def form(self) -> Sequence[tuple[str, str]]:
        """The names and values of a form (application/x-www-form-urlencoded), empty values included.

        Raises:
            UnreadableWebhook: it is no form in UTF-8, or has more than 1,000 fields.
        """
        try:
            return parse_qsl(
                self.body.decode(),
                keep_blank_values=True,
                strict_parsing=bool(self.body),
                errors="strict",
                max_num_fields=_MOST_FIELDS,
            )
        except ValueError:
            raise UnreadableWebhook from None


_MOST_FIELDS = 1000


@value
class WebhookResponse:
    """What a carrier is answered with: never text that it could send to a person."""

    status: int = 204
    content_type: str | None = None
    body: bytes = b""


class ForgedReason(StrEnum):
    """Why a request is not one of the carrier's."""

    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"
    BODY_CHANGED = "body_changed"
    TOO_OLD = "too_old"


class WebhookForged(Exception):
    """A request is not signed as the carrier signs it."""

    loggable = True

    def __init__(self, reason: ForgedReason) -> None:
        super().__init__(f"the request is not the carrier's: {reason}")
        self.reason = reason


class UnreadableWebhook(Exception):
    """A request is the carrier's, and cannot be read as its documentation says."""


class ProviderWebhooks(ABC, Generic[_Configuration]):
    """What one provider reports over HTTP; made for each version of its configuration.

    `secrets` are those of the configuration, by their keys.
    """

    stored: ClassVar[WebhookResponse] = WebhookResponse()
    """Answered once all of a request is committed, and to duplicates as well."""

    def __init__(
        self, name: str, configuration: _Configuration, secrets: Mapping[str, str]
    ) -> None:
        self.name = name
        self._configuration = configuration
        self._secrets = secrets

    @abstractmethod
    def verify(self, request: WebhookRequest) -> None:
        """Check that the carrier has sent a request, in constant time where secrets are compared.

        Raises:
            WebhookForged: it has not.
        """

    @abstractmethod
    def receipts(
        self, request: WebhookRequest, part: PartIdentity | None
    ) -> Sequence[ReceivedReceipt]:
        """The receipts in a request, in its order; none if it reports something else.

        `part` is the one that the request's address names, if it does.

        Raises:
            UnreadableWebhook: it cannot be read.
        """


def same_secret(given: str, expected: str) -> bool:
    """Whether two secrets are equal, compared in constant time; an empty one equals nothing."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())

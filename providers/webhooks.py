"""Requests that carriers send to the gateway: verified over the raw body, then read as receipts."""

from __future__ import annotations

import hmac
import json
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from urllib.parse import parse_qsl

from domain.configuration.providers.http import HttpConfiguration
from domain.provider_codes import as_code
from domain.values import value
from providers.base import ReceivedReceipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.error_classes import ErrorClass
    from domain.receipts import PartIdentity, ReceiptState

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
_POST = frozenset({"POST"})


@value
class WebhookResponse:
    """What a carrier is answered with: never text that it could send to a person."""

    status: int = 204
    content_type: str | None = None
    body: bytes = b""


def stored_request(body: bytes) -> WebhookRequest:
    """A request that was verified when it came, and of which the body was kept."""
    return WebhookRequest("POST", "", {}, body, datetime.now(UTC))


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
    """A request is the carrier's, and cannot be read as its documentation says, or not all of it.

    `receipts` are those that could be read.
    """

    def __init__(self, receipts: Sequence[ReceivedReceipt] = ()) -> None:
        super().__init__("a request of a provider cannot be read")
        self.receipts = receipts


class ProviderWebhooks(ABC, Generic[_Configuration]):
    """What one provider reports over HTTP; made for each version of its configuration.

    `secrets` are those of the configuration, by their keys.
    """

    stored: ClassVar[WebhookResponse] = WebhookResponse()
    """Answered by default."""

    def __init__(
        self, name: str, configuration: _Configuration, secrets: Mapping[str, str]
    ) -> None:
        self.name = name
        self._configuration = configuration
        self._secrets = secrets

    def response(self) -> WebhookResponse:
        """What a request is answered with, once all of it is committed, and duplicates as well."""
        return self.stored

    def kept(self, request: WebhookRequest) -> bytes:
        """What is kept of a request that cannot be read; `receipts` reads it again as a body."""
        return request.body

    @property
    def methods(self) -> frozenset[str]:
        """The methods by which the provider reports; a request by another one is none of its."""
        return _POST

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
            UnreadableWebhook: it cannot be read; the exception has the receipts that can be.
        """


def same_secret(given: str, *expected: str) -> bool:
    """Whether a secret equals one of those expected; an empty one equals nothing.

    All are compared, in constant time: the time taken does not show how much of which one fits.
    """
    octets = given.encode(errors="surrogatepass")
    matches = [hmac.compare_digest(octets, each.encode()) for each in expected if each]
    return any(matches)


def receipt_of(
    provider: str,
    configuration: HttpConfiguration,
    *,
    provider_message_id: str,
    state: ReceiptState,
    code: str = "",
    otherwise: ErrorClass | None = None,
    part: PartIdentity | None = None,
    sender: str | None = None,
    recipient: str | None = None,
    network: str | None = None,
    done_at: datetime | None = None,
) -> ReceivedReceipt:
    """A receipt, with what the provider's table of codes says of `code`: an error class, or another state.

    `otherwise` is the class of a failure whose code has none.
    """
    known = configuration.codes().get(code)
    if known is not None and known.state is not None:
        state = known.state
    found = (
        configuration.errors.get(code)
        or (None if known is None else known.error_class)
        or otherwise
    )
    return ReceivedReceipt(
        provider=provider,
        provider_message_id=provider_message_id,
        state=state,
        code=as_code(code),
        network=network,
        reference=None,
        sender=sender,
        recipient=recipient,
        done_at=done_at,
        part=part,
        error_class=found if state.is_final else None,
    )

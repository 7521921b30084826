"""Vonage's Messages API (v1): messages out, status webhooks in.

developer.vonage.com: api/messages, api-errors/messages, messages/concepts/signed-webhooks.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeGuard, get_args
from uuid import uuid4

import jwt

from domain.configuration.providers.vonage import (
    EncodingType,
    VonageConfiguration,
    checked_private_key,
)
from domain.encoding import is_gsm7
from domain.error_classes import ErrorClass
from domain.http_statuses import class_of_status
from domain.ids import IdPrefix, parse_id, public_id
from domain.outcomes import OutcomeKind, PartOutcome
from domain.parameters import UnusableParameter
from domain.receipts import PartIdentity, ReceiptState
from domain.segments import UnsendableText
from providers.http import HttpProvider, basic
from providers.json_values import as_e164, as_sender, as_text, as_time
from providers.webhooks import (
    ForgedReason,
    ProviderWebhooks,
    UnreadableWebhook,
    WebhookForged,
    receipt_of,
    same_secret,
)
from settings.secrets import SecretMissing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from providers.base import Outbound, ProviderSinks, ReceivedReceipt
    from providers.http import HttpResponse
    from providers.webhooks import WebhookRequest

_LONGEST_TEXT: Final = 3200
_SHORTEST_VALIDITY: Final = 20
_LONGEST_VALIDITY: Final = 604_800
"""Seconds (ttl)."""

_TOKEN_LIFETIME: Final = timedelta(minutes=15)
_RENEWED_BEFORE: Final = timedelta(minutes=1)
"""The end of a token, so that none ends on its way."""

_OLDEST_SIGNATURE: Final = timedelta(hours=24)
"""Vonage sends a webhook for up to 24 hours, and need not sign each try anew."""
_CLOCK_DIFFERENCE: Final = timedelta(minutes=5)
"""That Vonage's clock may be ahead."""

STATES: Final[Mapping[str, ReceiptState]] = MappingProxyType(
    {
        "submitted": ReceiptState.ENROUTE,
        "delivered": ReceiptState.DELIVERED,
        "read": ReceiptState.DELIVERED,
        "rejected": ReceiptState.REJECTED,
        "undeliverable": ReceiptState.REJECTED,
    }
)
"""`status`; a word that is not here is ENROUTE, never a failure."""

_BY_STATUS: Final[Mapping[str, ErrorClass]] = MappingProxyType(
    {"undeliverable": ErrorClass.TEMPORARY}
)
"""What a status means without a code that is known: Vonage did not reach its supplier."""


class ApplicationToken:
    """The token with which requests are made in an application's name: a JWT, signed by its key (RS256).

    Raises:
        ValueError: `private_key` is no private key.
    """

    def __init__(self, application_id: str, private_key: str) -> None:
        self._application_id = application_id
        self._key = checked_private_key(private_key)
        self._made = ""
        self._made_at = datetime.min.replace(tzinfo=UTC)

    def at(self, now: datetime) -> str:
        """A token that is valid at `now` (UTC), the same one until shortly before its end."""
        age = now - self._made_at
        # A negative age: the clock was set back, and the token would be one of the future.
        if not timedelta() <= age < _TOKEN_LIFETIME - _RENEWED_BEFORE:
            issued_at = int(now.timestamp())
            claims = {
                "application_id": self._application_id,
                "iat": issued_at,
                "jti": str(uuid4()),
                "exp": issued_at + int(_TOKEN_LIFETIME.total_seconds()),
            }
            self._made = jwt.encode(claims, self._key, algorithm="RS256")
            self._made_at = now
        return self._made


class VonageProvider(HttpProvider[VonageConfiguration]):
    """An account at Vonage. A message that may have been sent is not repeated: Vonage would send it twice.

    Raises:
        SecretMissing: the private key is none.
    """

    def __init__(
        self,
        name: str,
        configuration: VonageConfiguration,
        secrets: Mapping[str, str],
        sinks: ProviderSinks,
    ) -> None:
        self._token = _application_token(configuration, secrets)
        super().__init__(name, configuration, secrets, sinks)

    def _authorization(self) -> Mapping[str, str]:
        if self._token is not None:
            return {"authorization": f"Bearer {self._token.at(datetime.now(UTC))}"}
        return basic(self._configuration.api_key or "", self._secrets["api_secret"])

    def _request(self, outbound: Outbound) -> httpx.Request:
        if len(outbound.text) > _LONGEST_TEXT:
            raise UnsendableText(f"Vonage takes at most {_LONGEST_TEXT} characters")
        message: dict[str, Any] = {
            "channel": "sms",
            "message_type": "text",
            "to": outbound.recipient.removeprefix("+"),
            "from": outbound.sender.removeprefix("+"),
            "text": outbound.text,
            "client_ref": _reference(outbound),
            "sms": self._options(outbound),
        }
        receipt_url = self.receipt_url(outbound)
        if receipt_url is not None:
            message |= {"webhook_url": receipt_url, "webhook_version": "v1"}
        validity = self.validity(outbound)
        if validity is not None:
            seconds = int(validity.total_seconds())
            message["ttl"] = min(max(_SHORTEST_VALIDITY, seconds), _LONGEST_VALIDITY)
        trusted = outbound.parameters.get("trusted_recipient")
        if trusted is not None:
            if trusted not in {"true", "false"}:
                raise UnusableParameter("trusted_recipient")
            message["trusted_recipient"] = trusted == "true"
        return self._build_request("POST", "/v1/messages", json=message)

    def _options(self, outbound: Outbound) -> Mapping[str, str]:
        """What is sent as `sms`: the options of this channel."""
        declared, parameters = self._configuration, outbound.parameters
        encoding = parameters.get("encoding_type", declared.encoding_type)
        if encoding not in get_args(EncodingType):
            raise UnusableParameter("encoding_type")
        if encoding == "text" and not is_gsm7(outbound.text):
            raise UnsendableText("the text has characters that GSM-7 does not have")
        options = {"encoding_type": encoding}
        if declared.pool_id is not None:
            options["pool_id"] = declared.pool_id
        # Required in India (DLT): the ids of the registered template and of its owner.
        ids = ("content_id", "entity_id")
        return options | {name: parameters[name] for name in ids if name in parameters}

    def _outcome(self, number: int, response: HttpResponse) -> PartOutcome:
        body = response.json_object()
        message_id = as_text(body.get("message_uuid"))
        if response.is_success and message_id:
            return PartOutcome(number, OutcomeKind.ACCEPTED, provider_message_id=message_id)
        if response.is_success:  # the message was taken, and its id is lost
            return self._refused(number, "", response, otherwise=ErrorClass.UNKNOWN)
        code = _fragment(body.get("type"))
        outcome = self._refused(number, code, response)
        is_declared = code in self._configuration.errors
        if outcome.error_class is ErrorClass.TEMPORARY and not is_declared:
            # Vonage failed: whether it did so before it took the message, only the status says.
            found = class_of_status(response.status)
            if found is ErrorClass.UNKNOWN:
                return replace(outcome, kind=OutcomeKind.UNKNOWN, error_class=found)
        return outcome


def _application_token(
    configuration: VonageConfiguration, secrets: Mapping[str, str]
) -> ApplicationToken | None:
    """What makes the tokens of the application; None where requests are made with the API key.

    Raises:
        SecretMissing: the private key is none.
    """
    if configuration.application_id is None:
        return None
    try:
        return ApplicationToken(configuration.application_id, secrets["private_key"])
    except ValueError as error:
        raise SecretMissing(
            f'the secret "{configuration.private_key}" cannot be used: {error}'
        ) from None


class VonageWebhooks(ProviderWebhooks[VonageConfiguration]):
    """Status webhooks of Vonage: each carries a JWT, signed with the signature secret (HS256)."""

    def verify(self, request: WebhookRequest) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise WebhookForged(ForgedReason.UNSIGNED)
        claims = self._claims(token.strip())
        _check_times(claims, request.at.timestamp())
        # The token binds the body by this hash alone. Repeats of a request are harmless, and need no
        # memory of `jti`: a try that Vonage has not signed anew has the same.
        expected = hashlib.sha256(request.body).hexdigest()
        if not same_secret(as_text(claims.get("payload_hash")).lower(), expected):
            raise WebhookForged(ForgedReason.BODY_CHANGED)

    def _claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that one of the secrets has signed.

        Raises:
            WebhookForged: none has.
        """
        for name in ("signature_secret", "previous_signature_secret"):
            if name not in self._secrets:
                continue
            try:
                return jwt.decode(
                    token, self._secrets[name], algorithms=["HS256"], options=_SIGNATURE_ALONE
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError:
                break
        raise WebhookForged(ForgedReason.BAD_SIGNATURE)

    def receipts(
        self, request: WebhookRequest, part: PartIdentity | None
    ) -> Sequence[ReceivedReceipt]:
        body = request.json()
        if not isinstance(body, dict):
            raise UnreadableWebhook
        message_id, status = as_text(body.get("message_uuid")), as_text(body.get("status"))
        if message_id and not status and _is_inbound(body):
            return []
        if not message_id or not status:
            raise UnreadableWebhook
        state = STATES.get(status.lower(), ReceiptState.ENROUTE)
        is_failure = state is ReceiptState.REJECTED
        return [
            receipt_of(
                self.name,
                self._configuration,
                provider_message_id=message_id,
                state=state,
                code=_code(body.get("error")) if is_failure else "",
                otherwise=_BY_STATUS.get(status.lower()),
                # The reference is signed, and the address is not.
                part=_part(body.get("client_ref")) or part,
                sender=as_sender(_address(body.get("from"))),
                recipient=as_e164(_address(body.get("to"))),
                network=_network(body.get("destination")),
                done_at=as_time(body.get("timestamp")),
            )
        ]


# The times are compared with when the request came, in `_check_times`; no other claim is used.
_SIGNATURE_ALONE: Final[Any] = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    """Check the times of a token against `now`, in Unix seconds.

    Raises:
        WebhookForged: it has none, it is too old, or it is of the future.
    """
    issued_at, ends_at = claims.get("iat"), claims.get("exp")
    oldest = now - _OLDEST_SIGNATURE.total_seconds()
    newest = now + _CLOCK_DIFFERENCE.total_seconds()
    if not _is_number(issued_at) or not oldest <= issued_at <= newest:
        raise WebhookForged(ForgedReason.TOO_OLD)
    if ends_at is not None and not (_is_number(ends_at) and now < ends_at):
        raise WebhookForged(ForgedReason.TOO_OLD)


def _is_number(written: object) -> TypeGuard[float]:
    return isinstance(written, int | float) and not isinstance(written, bool)


# --- our reference -------------------------------------------------------------------------------

_REFERENCE: Final = re.compile(r"(msg_[0-9a-f]{32})\.([1-9][0-9]{0,4})", re.ASCII)
_MOST_ATTEMPTS: Final = 32_767
"""That a reference can name: as many as can be stored."""


def _reference(outbound: Outbound) -> str:
    """`client_ref`, which comes back in receipts: the attempt, by ids that are neither secret nor personal."""
    return f"{public_id(IdPrefix.MESSAGE, outbound.message_id)}.{outbound.attempt}"


def _part(reference: object) -> PartIdentity | None:
    """The part that a `client_ref` names; None if it is not one of ours."""
    found = _REFERENCE.fullmatch(as_text(reference))
    if found is None or int(found[2]) > _MOST_ATTEMPTS:
        return None
    message_id = parse_id(IdPrefix.MESSAGE, found[1])
    return None if message_id is None else PartIdentity(message_id, int(found[2]))


# --- codes ---------------------------------------------------------------------------------------

_CODE: Final = re.compile(r"[0-9]{1,5}|[a-z][a-z-]{1,39}", re.ASCII)


def _code(error: object) -> str:
    """The code in a receipt's error, in the shape of v1 or v0.1; some are nested once more."""
    inner = error.get("error", error) if isinstance(error, dict) else None
    if not isinstance(inner, dict):
        return ""
    title = as_text(inner.get("title"))
    if title.isascii() and title.isdigit():
        return _as_code(title)
    return _fragment(inner.get("type")) or _as_code(as_text(inner.get("code")))


def _fragment(type_: object) -> str:
    """The code in the `type` of an error (RFC 7807): its fragment, or the last word of its path."""
    if not isinstance(type_, str):
        return ""
    path, hash_, fragment = type_.partition("#")
    return _as_code(fragment if hash_ else path.rpartition("/")[2])


def _as_code(text: str) -> str:
    """A code, if that is what a text is: nothing else of a response becomes part of logs and metrics."""
    code = text.lower()
    return code if _CODE.fullmatch(code) else ""


# --- other members of a receipt ------------------------------------------------------------------


def _is_inbound(body: Mapping[str, Any]) -> bool:
    """Whether a body without a status is an inbound message, in the shape of v1 or v0.1."""
    return "message_type" in body or "text" in body or "message" in body


def _address(written: object) -> str:
    """`to` or `from`: text, or in v0.1 an object."""
    return as_text(written.get("number") if isinstance(written, dict) else written)


def _network(destination: object) -> str | None:
    """MCC and MNC of the recipient's network."""
    code = as_text(destination.get("network_code")) if isinstance(destination, dict) else ""
    return code or None

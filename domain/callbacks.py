"""What customers are told about their messages: which moves, where to, how signed, how often tried.

Signatures follow Standard Webhooks 1.0.0. Everything here is pure: names are resolved and sockets
opened by `connectors/webhooks.py`, which asks `reach` about every address that it connects to.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from domain.ids import IdPrefix, public_id
from domain.states import MessageStatus
from domain.values import value

TOLD: Final = frozenset(
    {
        MessageStatus.SENT,
        MessageStatus.DELIVERED,
        MessageStatus.FAILED,
        MessageStatus.EXPIRED,
        MessageStatus.DEAD_LETTER,
        MessageStatus.CANCELED,
    }
)
"""The moves that a callback is made of; the others are steps on the way."""


class CallbackState(StrEnum):
    """Where a callback is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up: refused for good, or tried as often as the policy allows. It can be replayed."""


# --- where to ----------------------------------------------------------------------------------

LONGEST_URL: Final = 2048


class InvalidCallbackUrl(ValueError):
    """A URL that callbacks cannot go to; the sentence says why, and never repeats the URL."""


class Reach(StrEnum):
    """Whom an address reaches."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Loopback and private networks: allowed where the installation says so."""
    NEVER = "never"
    """Metadata services, link-local, multicast, documentation, reserved: never a receiver."""


# IANA's special-purpose address registries (RFC 6890 and its successors), and the addresses at
# which clouds serve their metadata outside of 169.254.0.0/16. The narrowest network that holds an
# address decides.
_SPECIAL: Final[Mapping[IPv4Network | IPv6Network, Reach]] = MappingProxyType(
    {
        ip_network(network): reach
        for network, reach in {
            "0.0.0.0/0": Reach.PUBLIC,
            "0.0.0.0/8": Reach.NEVER,  # "this host": Linux connects it to loopback
            "10.0.0.0/8": Reach.PRIVATE,
            "100.64.0.0/10": Reach.PRIVATE,  # carrier-grade NAT, RFC 6598
            "100.100.100.200/32": Reach.NEVER,  # metadata of Alibaba Cloud
            "127.0.0.0/8": Reach.PRIVATE,
            "168.63.129.16/32": Reach.NEVER,  # Azure's own services on each machine
            "169.254.0.0/16": Reach.NEVER,  # link-local, where most metadata is served
            "172.16.0.0/12": Reach.PRIVATE,
            "192.0.0.0/24": Reach.NEVER,  # protocol assignments; metadata of Oracle Cloud
            "192.0.2.0/24": Reach.NEVER,  # documentation
            "192.88.99.0/24": Reach.NEVER,  # relays of 6to4, deprecated
            "192.168.0.0/16": Reach.PRIVATE,
            "198.18.0.0/15": Reach.PRIVATE,  # benchmarks
            "198.51.100.0/24": Reach.NEVER,  # documentation
            "203.0.113.0/24": Reach.NEVER,  # documentation
            "224.0.0.0/4": Reach.NEVER,  # multicast
            "240.0.0.0/4": Reach.NEVER,  # reserved, and broadcast
            "::/0": Reach.NEVER,  # what is not global unicast has no receivers
            "::1/128": Reach.PRIVATE,
            "2000::/3": Reach.PUBLIC,  # global unicast, RFC 4291
            "2001::/23": Reach.NEVER,  # protocol assignments, Teredo among them
            "2001:db8::/32": Reach.NEVER,  # documentation
            "2002::/16": Reach.NEVER,  # 6to4, which carries any IPv4 address
            "3fff::/20": Reach.NEVER,  # documentation
            "fc00::/7": Reach.PRIVATE,
            "fd00:ec2::254/128": Reach.NEVER,  # metadata of AWS
            "fd20:ce::254/128": Reach.NEVER,  # metadata of Google Cloud
        }.items()
    }
)
_NARROWEST_FIRST: Final = sorted(_SPECIAL, key=lambda network: network.prefixlen, reverse=True)
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def reach(address: IPv4Address | IPv6Address) -> Reach:
    """Whom an address reaches; an IPv4 address within an IPv6 one counts as itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return reach(address.ipv4_mapped)
        if address in _NAT64:
            return reach(IPv4Address(int(address) & 0xFFFFFFFF))
    return next(_SPECIAL[network] for network in _NARROWEST_FIRST if address in network)


def may_receive(address: IPv4Address | IPv6Address, *, allow_private: bool) -> bool:
    """Whether a callback may go to this address."""
    return reach(address) in ({Reach.PUBLIC, Reach.PRIVATE} if allow_private else {Reach.PUBLIC})


_DEFAULT_PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})
# RFC 3986, appendix A: unreserved, reserved, and "%". Whatever else a parser might read in its own
# way (backslashes, control characters, letters of other scripts) does not get as far as a parser.
_URL_CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", re.ASCII)
_NAME: Final = re.compile(
    r"(?=.{1,253}\.?\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?\Z",
    re.ASCII,
)
# A name whose last label looks like a number is an IPv4 address to many parsers (WHATWG URL, 3.5:
# "ends in a number"), which read "127.1", "0x7f000001" and "017700000001" as 127.0.0.1.
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
# RFC 6761, 6762, 8375, 9476, and ICANN's reservation of "internal".
_LOCAL_NAMES: Final = ("localhost", "localdomain", "local", "internal", "home.arpa", "alt")


@dataclass(frozen=True, slots=True)
class CallbackUrl:
    """A URL, taken apart once for whoever connects: `host` is lower case, without brackets."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query, as sent in the request line."""

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address, if the host is one and not a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL; the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port (RFC 6454, 4)."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"


def parse_url(text: str) -> CallbackUrl:
    """Take a URL apart, whomever it reaches.

    Raises:
        InvalidCallbackUrl: it is no http or https URL that every parser reads in the same way.
    """
    if len(text) > LONGEST_URL:
        raise InvalidCallbackUrl(f"a callback URL has at most {LONGEST_URL} characters")
    if not _URL_CHARACTERS.fullmatch(text):
        raise InvalidCallbackUrl(
            "a callback URL is written in ASCII without blanks: percent-encode its path, and give "
            'an international name in its "xn--" form'
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InvalidCallbackUrl("the host or the port of the callback URL is malformed") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidCallbackUrl("a callback URL begins with https:// (or http://)")
    if "@" in parts.netloc:
        raise InvalidCallbackUrl(
            "a callback URL carries no user name or password: verify the signature instead"
        )
    if port == 0 or parts.netloc.endswith(":"):
        raise InvalidCallbackUrl("the port of the callback URL is between 1 and 65535")
    host = _checked_host(parts.hostname or "", bracketed="[" in parts.netloc)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return CallbackUrl(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], target)


def _checked_host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            return str(IPv6Address(host)) if "%" not in host else _malformed()
        except ValueError:
            return _malformed()
    if not _NAME.match(host):
        return _malformed()
    host = host.removesuffix(".")
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise InvalidCallbackUrl(
                "an IPv4 address in a callback URL is written as four decimal numbers"
            ) from None
    return host


def _malformed() -> str:
    raise InvalidCallbackUrl("the host of the callback URL is malformed")


def check_url(text: str, *, allow_private: bool = False) -> str:
    """The URL, in normal form and without a fragment, as far as it can be judged by looking at it.

    The addresses behind a name are judged at each connection, since they change.

    Args:
        text: what a customer gave.
        allow_private: whether the installation lets callbacks go to its own networks.

    Raises:
        InvalidCallbackUrl: with a sentence for the customer, which does not repeat the URL.
    """
    url = parse_url(text)
    address = url.address
    if address is not None:
        if not may_receive(address, allow_private=allow_private):
            raise InvalidCallbackUrl(
                "callbacks go to public addresses only, and this one is private, local or reserved"
            )
    elif not allow_private and _is_local(url.host):
        raise InvalidCallbackUrl(
            "callbacks go to public names only, and this one exists in a local network at most"
        )
    return str(url)


def _is_local(name: str) -> bool:
    return "." not in name or any(
        name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES
    )


def origin_of(url: str) -> str:
    """Scheme, host and port of a callback URL, in one spelling: what shares a lane.

    Raises:
        InvalidCallbackUrl: as `parse_url`.
    """
    return parse_url(url).origin


# --- what is said ------------------------------------------------------------------------------

_json = json.JSONEncoder().encode  # less than half of what `json.dumps` takes for a short text


@value
class CallbackEvent:
    """One move of a message, as it is told."""

    id: UUID
    message_id: UUID
    to: str | None
    """The recipient's number in E.164, read for this very delivery; None once it was erased."""
    status: MessageStatus
    provider_code: str
    occurred_at: datetime

    @property
    def webhook_id(self) -> str:
        """The same for each try and replay of a callback: what a receiver tells copies by."""
        return public_id(IdPrefix.CALLBACK, self.id)

    def body(self) -> bytes:
        """The JSON that is sent and signed when it travels alone: five fields, in UTF-8."""
        return f"{{{self._fields()}}}".encode()

    def _fields(self) -> str:
        # Put together by hand: this is the greater part of what a callback costs in a batch.
        moment = self.occurred_at.astimezone(UTC).isoformat(timespec="milliseconds")
        return (
            f'"message_id":"{public_id(IdPrefix.MESSAGE, self.message_id)}",'
            f'"to":{_json(self.to)},"status":"{self.status.value.upper()}",'
            f'"provider_code":{_json(self.provider_code)},'
            f'"timestamp":"{moment.removesuffix("+00:00")}Z"'
        )

    def _entry(self) -> str:
        return f'{{{self._fields()},"id":"{self.webhook_id}"}}'


MOST_EVENTS: Final = 100
"""How many events a request carries at most, where an account prefers many."""


def body_of_many(events: Sequence[CallbackEvent]) -> bytes:
    """The JSON that is sent and signed when events travel together: each with its `id`."""
    return f'{{"events":[{",".join([event._entry() for event in events])}]}}'.encode()  # noqa: SLF001


def webhook_id_of_many(events: Sequence[CallbackEvent]) -> str:
    """The id of a request with many events: the same whenever the same ones travel together."""
    digest = hashlib.sha256(b"".join(sorted(event.id.bytes for event in events))).digest()
    return public_id(IdPrefix.CALLBACK_REQUEST, UUID(bytes=digest[:16]))


# --- signatures --------------------------------------------------------------------------------

WEBHOOK_ID: Final = "webhook-id"
WEBHOOK_TIMESTAMP: Final = "webhook-timestamp"
WEBHOOK_SIGNATURE: Final = "webhook-signature"

TOLERANCE: Final = timedelta(minutes=5)
"""How far a signature's time may be from ours: what bounds a replay by whoever overheard it."""

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the scheme's prefix, not a secret
SECRET_BYTES: Final = range(24, 65)
"""Sizes of a secret's key (Standard Webhooks, "Signature scheme")."""


class InvalidSecret(ValueError):
    """A text that is no signing secret; the sentence does not repeat it."""


class SignatureRefused(Exception):
    """A webhook that was not signed by whoever holds the secret, or not just now."""


def secret_of(key: bytes) -> str:
    """A signing secret as it is shown, from 24 to 64 random bytes."""
    if len(key) not in SECRET_BYTES:
        raise InvalidSecret("a signing secret is made of 24 to 64 bytes")
    return _SECRET_PREFIX + base64.b64encode(key).decode()


def _key_of(secret: str) -> bytes:
    encoded = secret.removeprefix(_SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in SECRET_BYTES:
        raise InvalidSecret('a signing secret is "whsec_" and base64 of 24 to 64 bytes')
    return key


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One signature, as it stands in `webhook-signature`: "v1," and base64 of an HMAC-SHA256.

    Args:
        secret: "whsec_…".
        webhook_id: what `webhook-id` carries.
        timestamp: what `webhook-timestamp` carries, seconds since 1970.
        body: the very bytes that are sent.

    Raises:
        InvalidSecret: `secret` is not one.
    """
    return _signature(_key_of(secret), webhook_id, timestamp, body)


def _signature(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signed_headers(secret: str, webhook_id: str, at: datetime, body: bytes) -> Mapping[str, str]:
    """The three headers that make a request a Standard Webhook."""
    timestamp = int(at.timestamp())
    return {
        WEBHOOK_ID: webhook_id,
        WEBHOOK_TIMESTAMP: str(timestamp),
        WEBHOOK_SIGNATURE: sign(secret, webhook_id, timestamp, body),
    }


_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_MOST_SIGNATURES: Final = 20


def verify(
    secrets: Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    tolerance: timedelta = TOLERANCE,
) -> str:
    """The id of a webhook that holds: signed with one of the secrets, at about this time.

    Whoever must not act on a webhook twice remembers its id for at least twice the tolerance.

    Args:
        secrets: those in force; two while one is being replaced.
        headers: of the request, in any case.
        body: the very bytes that came.
        now: with a time zone.
        tolerance: how far the signature's time may be from `now`, either way.

    Raises:
        SignatureRefused: with a sentence for whoever sent it.
        InvalidSecret: one of the secrets is none, whatever was sent.
    """
    keys = [_key_of(secret) for secret in secrets]
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id = given.get(WEBHOOK_ID, "")
    timestamp = given.get(WEBHOOK_TIMESTAMP, "")
    signatures = given.get(WEBHOOK_SIGNATURE, "").split(" ")[:_MOST_SIGNATURES]
    if not webhook_id or not timestamp or not any(signatures):
        raise SignatureRefused(
            "the headers webhook-id, webhook-timestamp and webhook-signature are required"
        )
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureRefused("webhook-timestamp is a number of seconds since 1970")
    age = now.timestamp() - int(timestamp)
    if abs(age) > tolerance.total_seconds():
        raise SignatureRefused(
            f"webhook-timestamp is more than {int(tolerance.total_seconds())} s from now: "
            "sign each try anew, and keep the clock right"
        )
    # Every pair is compared, so that the time taken does not tell which one fits.
    expected = [_signature(key, webhook_id, int(timestamp), body).encode() for key in keys]
    matches = [
        hmac.compare_digest(ours, theirs.encode()) for ours in expected for theirs in signatures
    ]
    if not any(matches):
        raise SignatureRefused("no signature in webhook-signature fits the body and the secret")
    return webhook_id


# --- what comes of a try -----------------------------------------------------------------------


class Trouble(StrEnum):
    """Why a try did not deliver; a closed set, so that it can be stored, counted and shown."""

    REFUSED = "refused"
    """Answered, but not with 2xx."""
    GONE = "gone"
    """Answered with 410: the receiver wants no more of this."""
    TIMEOUT = "timeout"
    NAME_NOT_FOUND = "name_not_found"
    ADDRESS_REFUSED = "address_refused"
    """The name leads to an address that callbacks may not go to."""
    UNREACHABLE = "unreachable"
    """No connection, or it broke off."""
    TLS = "tls"
    NOT_HTTP = "not_http"
    REDIRECT = "redirect"
    """Redirected too often, to what is no callback URL, or from https to http."""
    INVALID_URL = "invalid_url"


GONE: Final = 410
_THROTTLED: Final = 429
_SUCCESS: Final = range(200, 300)
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request; `trouble` is None only if it was delivered."""

    status: int | None
    """The last HTTP status, if one came."""
    trouble: Trouble | None
    seconds: float

    @property
    def delivered(self) -> bool:
        return self.trouble is None

    @property
    def concerns_origin(self) -> bool:
        """Whether the receiver as a whole is in trouble, and not just this callback."""
        if self.trouble is Trouble.REFUSED:
            return self.status == _THROTTLED or (self.status or 0) >= _SERVER_ERROR
        return self.trouble not in {None, Trouble.GONE}


def trouble_of(status: int) -> Trouble | None:
    """What an HTTP status means for a callback."""
    if status in _SUCCESS:
        return None
    return Trouble.GONE if status == GONE else Trouble.REFUSED


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of a callback after a try."""

    state: CallbackState
    tries: int
    next_at: datetime


def judge(answer: Answer, tries: int, at: datetime, delays: Sequence[timedelta]) -> Judgement:
    """What becomes of a callback after one more try.

    Args:
        answer: what came of it.
        tries: how many there were before.
        at: when it ended.
        delays: the waits between tries; there are no more than one more try than waits.
    """
    made = tries + 1
    if answer.delivered:
        return Judgement(CallbackState.DELIVERED, made, at)
    if answer.trouble is Trouble.GONE or made > len(delays):
        return Judgement(CallbackState.FAILED, made, at)
    return Judgement(CallbackState.PENDING, made, at + delays[made - 1])


_FIRST_PAUSE: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(minutes=1)


def pause_after(failing_slices: int) -> timedelta:
    """How long to leave alone an origin that answered nothing in so many slices, one after another.

    Each callback has its own schedule; this keeps a backlog of many from running into a wall.
    """
    doubled = _FIRST_PAUSE * (1 << min(max(failing_slices, 1) - 1, 16))
    return min(doubled, _LONGEST_PAUSE)

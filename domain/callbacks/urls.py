"""Where callbacks may go: URLs that are well formed, and addresses that are safe to connect to.

`connectors/webhooks.py` checks every address that it connects to by `may_receive`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
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

"""Requests to URLs that customers chose: POST, and never to where they must not go (SSRF).

The host is resolved here, each of its addresses is judged by `domain.callbacks.reach`, and the
connection goes to the very address that was judged, so that a name cannot lead elsewhere a moment
later (DNS rebinding). The Host header, SNI and the certificate's check keep the name. Redirects are
followed by hand, and each target goes through the same gate. No proxy of the environment is used.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, Final, Self
from urllib.parse import urljoin

import httpcore

from domain.callbacks import (
    Answer,
    CallbackUrl,
    InvalidCallbackUrl,
    Trouble,
    may_receive,
    parse_url,
    trouble_of,
)

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host's name and a port to its addresses, IPv4 and IPv6; raises OSError if there are none."""

MOST_REDIRECTS: Final = 3
# 303 tells that the request was dealt with and where to look for more: nothing to send there.
_REDIRECTS: Final = frozenset({301, 302, 307, 308})

_MOST_OF_ANSWER: Final = 4096  # bytes; what a callback's answer says is read by nobody
_MOST_CONNECTIONS: Final = 1000
_MOST_IDLE: Final = 200
# Shorter than what common servers wait (5 s: Node and uvicorn), or both ends meet at the door.
_IDLE_SECONDS: Final = 4.0
# Enough for a lost SYN or two; then the next of the host's addresses is tried.
_CONNECT_SECONDS: Final = 5.0


class _AddressRefused(Exception):
    """All addresses of the host are such that callbacks may not go there."""


class _NameNotFound(Exception):
    """The host's name has no address."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses that the machine's resolver gives, in its order (RFC 6724)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _CheckedConnections(httpcore.AsyncNetworkBackend):
    """Connects to a host's permitted addresses only, and to the very ones that it checked."""

    def __init__(self, resolver: Resolver, allow_private: Callable[[], bool]) -> None:
        self._resolve = resolver
        self._allow_private = allow_private
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = await self._permitted(host, port)
        for address in others:
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(last, port, timeout, local_address, socket_options)

    async def _permitted(self, host: str, port: int) -> Sequence[str]:
        try:
            found = await self._resolve(host, port)
        except OSError:
            found = []
        if not found:
            raise _NameNotFound
        allowed = self._allow_private()
        permitted = [
            address for address in found if may_receive(ip_address(address), allow_private=allowed)
        ]
        if not permitted:
            raise _AddressRefused
        return permitted

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


class Webhooks:
    """A client for callbacks; its connections are kept alive and shared by all that use it.

    Args:
        allow_private: asked at each connection whether it may go to loopback and private networks.
        resolver: how names become addresses.
        tls: what receivers' certificates are checked against; the system's authorities by default.
    """

    def __init__(
        self,
        *,
        allow_private: Callable[[], bool],
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=_MOST_CONNECTIONS,
            max_keepalive_connections=_MOST_IDLE,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=_CheckedConnections(resolver, allow_private),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._pool.aclose()

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, within: timedelta
    ) -> Answer:
        """POST a JSON body; never raises for what the other side does.

        Args:
            url: where to.
            headers: beside Host, Content-Type, Content-Length and User-Agent.
            body: as it was signed.
            within: the time for everything together, redirects too.
        """
        started = time.monotonic()
        status: int | None = None
        trouble: Trouble | None = None
        try:
            async with asyncio.timeout(within.total_seconds()):
                status, trouble = await self._follow(url, headers, body)
        except (TimeoutError, httpcore.TimeoutException):
            trouble = Trouble.TIMEOUT
        except _NameNotFound:
            trouble = Trouble.NAME_NOT_FOUND
        except _AddressRefused:
            trouble = Trouble.ADDRESS_REFUSED
        except InvalidCallbackUrl:
            trouble = Trouble.INVALID_URL
        except httpcore.ProtocolError:
            trouble = Trouble.NOT_HTTP
        except (httpcore.NetworkError, OSError) as error:
            trouble = Trouble.TLS if _is_tls(error) else Trouble.UNREACHABLE
        return Answer(status, trouble, time.monotonic() - started)

    async def _follow(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Trouble | None]:
        target = parse_url(url)
        redirects = 0
        while True:
            status, location = await self._request(target, headers, body)
            if status not in _REDIRECTS or location is None:
                return status, trouble_of(status)
            redirects += 1
            next_target = _redirected(target, location)
            if next_target is None or redirects > MOST_REDIRECTS:
                return status, Trouble.REDIRECT
            target = next_target

    async def _request(
        self, target: CallbackUrl, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str | None]:
        """The status, and where a redirect leads."""
        async with self._pool.stream(
            "POST",
            httpcore.URL(
                scheme=target.scheme, host=target.host, port=target.port, target=target.target
            ),
            headers=[
                ("Host", target.authority),
                ("Content-Type", "application/json"),
                ("User-Agent", "smsgateway"),
                *headers.items(),
            ],
            content=body,
            extensions={"timeout": {"connect": _CONNECT_SECONDS}},
        ) as response:
            await self._read_a_little(response)
            location = next(
                (value for name, value in response.headers if name.lower() == b"location"), None
            )
            return response.status, location.decode("latin-1") if location is not None else None

    @staticmethod
    async def _read_a_little(response: httpcore.Response) -> None:
        """Read a short answer, so that its connection can be used again; a long one is cut off."""
        size = 0
        async for piece in response.aiter_stream():
            size += len(piece)
            if size > _MOST_OF_ANSWER:
                return


def _redirected(source: CallbackUrl, location: str) -> CallbackUrl | None:
    """Where a redirect leads, if callbacks may follow: never from https to http."""
    try:
        target = parse_url(urljoin(str(source), location))
    except ValueError:
        return None
    return None if source.scheme == "https" and target.scheme != "https" else target


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False

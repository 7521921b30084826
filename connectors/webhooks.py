"""Requests to URLs that customers chose: POST, and never to where they must not go (SSRF).

The host is resolved here, each of its addresses is judged by `domain.callbacks.reach`, and the
connection goes to the very address that was judged, so that a name cannot lead elsewhere a moment
later (DNS rebinding). The Host header, SNI and the certificate's check keep the name. Redirects are
followed by hand, and each target goes through the same gate. No proxy of the environment is used.

Origins share nothing but the event loop: each has its own connections, which are kept for a while.
"""

import asyncio
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Self, cast
from urllib.parse import urljoin

import h11

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


class _NotHttp(Exception):
    """What came is not an answer in HTTP/1.1."""


class _Connection(asyncio.Protocol):
    """One connection: a request and its answer at a time (RFC 9112)."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[h11.Response] | None = None
        self._answer: h11.Response | None = None
        self._size = 0
        self.heard = False
        """Whether anything was answered to the last request."""
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether it may carry another request."""
        return (
            self._transport is not None
            and not self._transport.is_closing()
            and self._http.our_state is h11.IDLE
        )

    async def exchange(
        self, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> h11.Response:
        """POST a body; the head of the answer.

        Raises:
            _NotHttp: that was no answer.
            ConnectionError: the connection broke off before it came.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        self._answered = asyncio.get_running_loop().create_future()
        self._answer, self._size, self.heard = None, 0, False
        send = self._http.send
        pieces = (
            send(h11.Request(method="POST", target=target, headers=headers)),
            send(h11.Data(data=body)),
            send(h11.EndOfMessage()),
        )
        self._transport.write(b"".join(piece for piece in pieces if piece))
        try:
            answer = await self._answered
        except BaseException:
            self.close()
            raise
        complete = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        # What follows an answer uncalled for would be read as the answer to the next request.
        if complete and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
        else:
            self.close()
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._answered.done():
            self.close()  # uncalled for, as above
            return
        self._read(data)

    def eof_received(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._read(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError())

    def _read(self, data: bytes) -> None:
        """Read a short answer, so that the connection can be used again; a long one is cut off."""
        assert self._answered is not None  # noqa: S101 - see data_received
        self.heard = self.heard or bool(data)
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    self._answer = event
                elif isinstance(event, h11.Data):
                    self._size += len(event.data)
                elif event is h11.PAUSED or isinstance(
                    event, h11.EndOfMessage | h11.ConnectionClosed
                ):
                    break
                if self._size > _MOST_OF_ANSWER:
                    break
            else:
                return
        except h11.RemoteProtocolError:
            self._answered.set_exception(_NotHttp() if self.heard else ConnectionResetError())
            return
        if self._answer is None:
            self._answered.set_exception(ConnectionResetError())
        else:
            self._answered.set_result(self._answer)


class _Connections:
    """Makes connections to permitted addresses only, the very ones that were checked; keeps them."""

    def __init__(
        self, resolver: Resolver, allow_private: Callable[[], bool], tls: ssl.SSLContext
    ) -> None:
        self._resolve = resolver
        self._allow_private = allow_private
        self._tls = tls
        self._idle: defaultdict[str, list[_Connection]] = defaultdict(list)
        self._kept = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def idle(self, target: CallbackUrl) -> _Connection | None:
        """A kept connection to the origin, the one that was used last; None if there is none."""
        kept = self._idle.get(target.origin, [])
        while kept:
            connection = kept.pop()
            self._kept -= 1
            if connection.usable and not _is_stale(connection):
                return connection
            connection.close()
        return None

    def keep(self, target: CallbackUrl, connection: _Connection) -> None:
        """Take a connection back after an exchange."""
        if not connection.usable or self._kept >= _MOST_IDLE:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle[target.origin].append(connection)
        self._kept += 1
        if self._sweeper is None:
            self._sweep_later()

    async def connect(self, target: CallbackUrl) -> _Connection:
        """A new connection.

        Raises:
            _NameNotFound, _AddressRefused: there is no address to connect to.
            OSError, TimeoutError: the last of its addresses cannot be reached.
        """
        *others, last = await self._permitted(target.host, target.port)
        for address in others:
            try:
                return await self._connect_to(address, target)
            except ssl.SSLError:
                raise
            except OSError:  # TimeoutError is one, too
                continue
        return await self._connect_to(last, target)

    async def _connect_to(self, address: str, target: CallbackUrl) -> _Connection:
        secure = target.scheme == "https"
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection,
                address,
                target.port,
                ssl=self._tls if secure else None,
                server_hostname=target.host if secure else None,
            )
        return connection

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

    def _sweep_later(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody has used for a while."""
        self._sweeper = None
        for origin, kept in list(self._idle.items()):
            fresh = [connection for connection in kept if not _is_stale(connection)]
            for connection in kept[: len(kept) - len(fresh)]:  # the oldest ones come first
                connection.close()
            self._kept -= len(kept) - len(fresh)
            if fresh:
                self._idle[origin] = fresh
            else:
                del self._idle[origin]
        if self._idle:
            self._sweep_later()

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for kept in self._idle.values():
            for connection in kept:
                connection.close()
        self._idle.clear()
        self._kept = 0


def _is_stale(connection: _Connection) -> bool:
    return time.monotonic() - connection.idle_since >= _IDLE_SECONDS


# Many requests in a row go to the same few URLs.
_parsed = lru_cache(maxsize=1000)(parse_url)


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
        self._connections = _Connections(
            resolver, allow_private, tls or ssl.create_default_context()
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._connections.close()

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
        except TimeoutError:
            trouble = Trouble.TIMEOUT
        except _NameNotFound:
            trouble = Trouble.NAME_NOT_FOUND
        except _AddressRefused:
            trouble = Trouble.ADDRESS_REFUSED
        except InvalidCallbackUrl:
            trouble = Trouble.INVALID_URL
        except _NotHttp:
            trouble = Trouble.NOT_HTTP
        except ssl.SSLError:
            trouble = Trouble.TLS
        except OSError:
            trouble = Trouble.UNREACHABLE
        return Answer(status, trouble, time.monotonic() - started)

    async def _follow(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Trouble | None]:
        target = _parsed(url)
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
        fields = [
            ("Host", target.authority),
            ("Content-Type", "application/json"),
            ("User-Agent", "smsgateway"),
            *headers.items(),
            ("Content-Length", str(len(body))),
        ]
        answer = await self._exchange(target, fields, body)
        location = next((value for name, value in answer.headers if name == b"location"), None)
        return answer.status_code, None if location is None else location.decode("latin-1")

    async def _exchange(
        self, target: CallbackUrl, fields: list[tuple[str, str]], body: bytes
    ) -> h11.Response:
        kept = self._connections.idle(target)
        if kept is not None:
            try:
                answer = await kept.exchange(target.target, fields, body)
            except ConnectionError:
                # Mostly the other end has grown tired of it at this very moment.
                if kept.heard:
                    raise
            else:
                self._connections.keep(target, kept)
                return answer
        fresh = await self._connections.connect(target)
        answer = await fresh.exchange(target.target, fields, body)
        self._connections.keep(target, fresh)
        return answer


def _redirected(source: CallbackUrl, location: str) -> CallbackUrl | None:
    """Where a redirect leads, if callbacks may follow: never from https to http."""
    try:
        target = parse_url(urljoin(str(source), location))
    except ValueError:
        return None
    return None if source.scheme == "https" and target.scheme != "https" else target

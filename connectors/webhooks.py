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
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Final, Self, cast
from urllib.parse import urljoin
from weakref import WeakSet

import h11

from domain.callbacks.retries import Response, Trouble, trouble_of
from domain.callbacks.urls import CallbackUrl, InvalidCallbackUrl, may_receive, parse_url

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host's name and a port to its addresses, IPv4 and IPv6; raises OSError if there are none."""

MOST_REDIRECTS: Final = 3
# 303 means that the request was handled, and where to look for more: nothing is sent there.
_REDIRECTS: Final = frozenset({301, 302, 307, 308})

# The status line decides. Nobody reads the body of a response: it is dropped, within these bounds, only
# so that the connection can be used again.
_MOST_OF_BODY: Final = 4096  # octets
_BODY_SECONDS: Final = 1.0
# Interim responses (RFC 9110, 15.2) before the one that counts.
_MOST_INTERIM: Final = 20
_MOST_IDLE: Final = 200
# Shorter than what common servers wait (5 s: Node and uvicorn), or both ends meet at the door.
_IDLE_SECONDS: Final = 4.0
# Enough for a lost SYN or two; then the next of the host's addresses is tried.
_CONNECT_SECONDS: Final = 5.0


class _AddressRefused(Exception):
    """All addresses of the host are such that callbacks may not go there."""


class _NameNotFound(Exception):
    """The host's name has no address."""


class SystemResolver:
    """Asks the machine's resolver for addresses, in its order (RFC 6724), on threads of its own.

    A look-up cannot be cancelled: a name whose servers do not answer holds its thread until the system
    gives up, some ten seconds or more. Names that were slow the last time share a few threads, so that
    they do not take those of all others.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, "resolver")
        self._few_threads = ThreadPoolExecutor(_SLOW_RESOLVER_THREADS, "resolver-slow")
        self._slow: dict[str, None] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        threads = self._few_threads if host in self._slow else self._threads
        return await asyncio.wrap_future(threads.submit(self._look_up, host, port))

    def _look_up(self, host: str, port: int) -> Sequence[str]:
        began = time.monotonic()
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        finally:
            if time.monotonic() - began < _SLOW_LOOK_UP_SECONDS:
                self._slow.pop(host, None)
            elif len(self._slow) < _MOST_SLOW_NAMES:
                self._slow[host] = None
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


_RESOLVER_THREADS: Final = 32
_SLOW_RESOLVER_THREADS: Final = 4
_SLOW_LOOK_UP_SECONDS: Final = 2.0
_MOST_SLOW_NAMES: Final = 10_000

resolve: Final[Resolver] = SystemResolver()
"""The resolver of this machine, for all clients of this process."""


class _NotHttp(Exception):
    """What came is not a response in HTTP/1.1."""


class _Connection(asyncio.Protocol):
    """One connection: a request and its response at a time (RFC 9112).

    An exchange returns with the head of the response. Its body is dropped as it comes; when all of it
    came within the bounds, `on_free` is called, else the connection is closed.
    """

    def __init__(self, on_free: Callable[["_Connection"], None]) -> None:
        self._on_free = on_free
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._head: asyncio.Future[h11.Response] | None = None
        self._reading = False
        self._interim = 0
        self._size = 0
        self._body_timer: asyncio.TimerHandle | None = None
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
        """POST a body; the head of the response, as soon as it has come.

        Raises:
            _NotHttp: that was no response.
            ConnectionError: the connection broke off before it came.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        head: asyncio.Future[h11.Response] = asyncio.get_running_loop().create_future()
        self._head = head
        self._reading, self.heard = True, False
        self._interim = self._size = 0
        send = self._http.send
        pieces = (
            send(h11.Request(method="POST", target=target, headers=headers)),
            send(h11.Data(data=body)),
            send(h11.EndOfMessage()),
        )
        self._transport.write(b"".join(piece for piece in pieces if piece))
        try:
            return await head
        except BaseException:
            if self._head is head:  # else it has gone on to the next request
                self.close()
            raise

    def close(self) -> None:
        self._end_of_reading()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._reading:
            self._read(data)
        else:
            self.close()  # what comes uncalled for would be read as the response to the next request

    def eof_received(self) -> None:
        if self._reading:
            self._read(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_of_reading()
        self._fail(exc or ConnectionResetError())

    def _read(self, data: bytes) -> None:
        self.heard = self.heard or bool(data)
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    self._head_came(event)
                elif isinstance(event, h11.InformationalResponse):
                    self._interim += 1
                elif isinstance(event, h11.Data):
                    self._size += len(event.data)
                else:  # the end of the body, or of the connection, or of HTTP
                    self._response_ended()
                    return
                if self._size > _MOST_OF_BODY or self._interim > _MOST_INTERIM:
                    self._fail(_NotHttp())
                    self.close()
                    return
        except h11.RemoteProtocolError:
            self._fail(_NotHttp() if self.heard else ConnectionResetError())
            self.close()

    def _head_came(self, head: h11.Response) -> None:
        if self._head is not None and not self._head.done():
            self._head.set_result(head)
        self._body_timer = asyncio.get_running_loop().call_later(_BODY_SECONDS, self.close)

    def _response_ended(self) -> None:
        self._end_of_reading()
        self._fail(ConnectionResetError())  # where no head had come
        complete = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        # What follows a response uncalled for would be read as the response to the next request.
        if complete and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
            self._on_free(self)
        else:
            self.close()

    def _end_of_reading(self) -> None:
        self._reading = False
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _fail(self, error: Exception) -> None:
        """Fail the wait for a head; a head that already came is kept."""
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)


class _Connections:
    """Makes connections to permitted addresses only, the very ones that were checked; keeps them."""

    def __init__(
        self, resolver: Resolver, allow_private: Callable[[], bool], tls: ssl.SSLContext
    ) -> None:
        self._resolve = resolver
        self._allow_private = allow_private
        self._tls = tls
        self._idle: defaultdict[str, list[_Connection]] = defaultdict(list)
        self._open: WeakSet[_Connection] = WeakSet()
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

    def _keep(self, target: CallbackUrl, connection: _Connection) -> None:
        """Take a connection back after a response that was read to its end."""
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
                lambda: _Connection(partial(self._keep, target)),
                address,
                target.port,
                ssl=self._tls if secure else None,
                server_hostname=target.host if secure else None,
            )
        self._open.add(connection)
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
        for connection in list(self._open):
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
    ) -> Response:
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
        return Response(status, trouble, time.monotonic() - started)

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
        response = await self._exchange(target, fields, body)
        location = next((value for name, value in response.headers if name == b"location"), None)
        return response.status_code, None if location is None else location.decode("latin-1")

    async def _exchange(
        self, target: CallbackUrl, fields: list[tuple[str, str]], body: bytes
    ) -> h11.Response:
        kept = self._connections.idle(target)
        if kept is not None:
            try:
                return await kept.exchange(target.target, fields, body)
            except ConnectionError:
                # Mostly the other end has grown tired of it at this very moment.
                if kept.heard:
                    raise
        fresh = await self._connections.connect(target)
        return await fresh.exchange(target.target, fields, body)


def _redirected(source: CallbackUrl, location: str) -> CallbackUrl | None:
    """Where a redirect leads, if callbacks may follow: never from https to http."""
    try:
        target = parse_url(urljoin(str(source), location))
    except ValueError:
        return None
    return None if source.scheme == "https" and target.scheme != "https" else target

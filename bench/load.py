"""HTTP from both ends at little cost: the processors belong to what is measured.

One loop sends the requests and takes the callbacks. Of HTTP it knows what such peers say: heads,
`Content-Length`, connections that are kept.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self, cast

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_TAKEN: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class LoadFailed(RuntimeError):
    """What was asked for over HTTP was not done; the text says what came instead."""


async def send_all(
    port: int, requests: Iterable[bytes], *, connections: int, within: float
) -> None:
    """Send requests to 127.0.0.1, each when its connection has the response to the one before.

    Args:
        port: where the server listens.
        requests: each as it goes over the wire.
        connections: how many are kept open, so how many requests are open at a time.
        within: how long all of it may take, in seconds.

    Raises:
        LoadFailed: a response was not 202, a connection was closed, or the time is over.
    """
    loop = asyncio.get_running_loop()
    left = iter(requests)
    ends = [loop.create_future() for _ in range(connections)]
    opened = [
        await loop.create_connection(partial(_Sender, left, end), "127.0.0.1", port) for end in ends
    ]
    try:
        await asyncio.wait_for(asyncio.gather(*ends), within)
    except TimeoutError:
        raise LoadFailed(f"Not all requests were answered within {within:g} s.") from None
    finally:
        for transport, _ in opened:
            transport.close()


@asynccontextmanager
async def callbacks(port: int, taken: Callable[[bytes, bytes], None]) -> AsyncIterator[None]:
    """Listen on 127.0.0.1, answer every request with 200, and hand over its head and its body."""
    server = await asyncio.get_running_loop().create_server(
        partial(_Receiver, taken), "127.0.0.1", port, backlog=1000
    )
    try:
        yield
    finally:
        server.close()


class _Connection(asyncio.Protocol):
    """One connection that is kept."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one, and does not say so
        self._transport = cast("asyncio.Transport", transport)


class _Sender(_Connection):
    """One that sends request after request."""

    def __init__(self, left: Iterator[bytes], end: asyncio.Future[None]) -> None:
        super().__init__()
        self._left = left
        self._end = end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send_next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if (response := _first(self._received)) is None:
            return
        head, body, self._received = response
        if int(head[9:12]) == HTTPStatus.ACCEPTED:
            self._send_next()
        else:
            self._fail(f"A request was answered with {(head[9:] + b' ' + body)[:300]!r}.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"The server closed a connection that was to be kept ({exc}).")

    def _send_next(self) -> None:
        request = next(self._left, None)
        if request is not None:
            self._transport.write(request)
        elif not self._end.done():
            self._end.set_result(None)

    def _fail(self, why: str) -> None:
        if not self._end.done():
            self._end.set_exception(LoadFailed(why))


class _Receiver(_Connection):
    """One of somebody who calls back."""

    def __init__(self, taken: Callable[[bytes, bytes], None]) -> None:
        super().__init__()
        self._taken = taken

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (request := _first(self._received)) is not None:
            head, body, self._received = request
            self._taken(head, body)
            self._transport.write(_TAKEN)


def _first(received: bytes) -> tuple[bytes, bytes, bytes] | None:
    """The first message's head and body, and what came after it; None while it is not all there."""
    head, end, rest = received.partition(_END_OF_HEAD)
    if not end:
        return None
    found = _LENGTH.search(head)
    length = int(found[1]) if found else 0
    return None if len(rest) < length else (head, rest[:length], rest[length:])


class Connections:
    """So many connections to one address; each carries one request at a time.

    Args:
        host, port: where to.
        count: how many connections, and so requests at once.
    """

    def __init__(self, host: str, port: int, count: int) -> None:
        self._host = host
        self._port = port
        self._count = count
        self._idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )

    async def __aenter__(self) -> Self:
        for _ in range(self._count):
            self._idle.put_nowait(await asyncio.open_connection(self._host, self._port))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while not self._idle.empty():
            self._idle.get_nowait()[1].close()

    async def request(self, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request, and read the response's status and body.

        Args:
            head: the request's first line and headers without Host and Content-Length, each ended
                by CRLF.
            body: what follows.
        """
        reader, writer = await self._idle.get()
        try:
            status, response = await self._ask(reader, writer, head, body)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The server closes what was idle for some seconds, at any moment.
            writer.close()
            reader, writer = await asyncio.open_connection(self._host, self._port)
            status, response = await self._ask(reader, writer, head, body)
        self._idle.put_nowait((reader, writer))
        return status, response

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes
    ) -> tuple[int, bytes]:
        writer.write(
            head + f"Host: {self._host}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        response = await reader.readuntil(b"\r\n\r\n")
        status = int(response[9:12])
        length = response.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        return status, await reader.readexactly(int(length or 0))

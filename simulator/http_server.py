"""An HTTP/1.1 server that can also not answer: a carrier's API, with the faults of a carrier."""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

import h11

_LARGEST_BODY: Final = 64 * 1024
_CHUNK: Final = 16 * 1024
# struct linger: on, 0 s. The close then sends a reset.
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request; the names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class NoResponse(Enum):
    """What a client may get instead of a response."""

    SILENCE = auto()
    """Nothing, until it closes the connection."""
    RESET = auto()
    """A reset of the connection."""


Handler = Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse | NoResponse]]


class HttpServer:
    """Serves one handler. It keeps its port when it is stopped and started again."""

    def __init__(self, host: str, port: int, handler: Handler) -> None:
        """A server that listens once it is started; port 0 is a free one."""
        self._host = host
        self._port = port
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._handling: set[asyncio.Task[HttpResponse | NoResponse]] = set()

    @property
    def port(self) -> int:
        return self._port

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.start_server(self._serve, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.reset_connections()

    async def close(self) -> None:
        """Stop, and cancel the requests that are still handled."""
        await self.stop()
        tasks = list(self._handling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reset_connections(self) -> int:
        """Reset every connection, and return how many there were."""
        connections = dict(self._connections)
        for writer in connections.values():
            _reset(writer)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        return len(connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs it in one
        self._connections[task] = writer
        connection = h11.Connection(h11.SERVER)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await self._converse(connection, reader, writer)
        finally:
            del self._connections[task]
            writer.close()

    async def _converse(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            try:
                request = await _next_request(connection, reader)
            except (h11.RemoteProtocolError, _TooLarge) as error:
                if connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    status = 413 if isinstance(error, _TooLarge) else 400
                    await _send(connection, writer, HttpResponse(status), close=True)
                return
            if request is None:
                return
            # Not cancelled with its connection: what the carrier has taken stays taken.
            match await asyncio.shield(self._handle(request)):
                case NoResponse.SILENCE:
                    while await reader.read(_CHUNK):
                        pass
                    return
                case NoResponse.RESET:
                    _reset(writer)
                    return
                case HttpResponse() as response:
                    await _send(connection, writer, response)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    def _handle(self, request: HttpRequest) -> asyncio.Task[HttpResponse | NoResponse]:
        task = asyncio.create_task(self._handler(request))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        return task


class _TooLarge(Exception):
    pass


async def _next_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> HttpRequest | None:
    """The next request, or None when the client has closed the connection.

    Raises:
        h11.RemoteProtocolError: it is no HTTP.
        _TooLarge: its body is larger than any that a carrier reads.
    """
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _LARGEST_BODY:
                raise _TooLarge
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
            return HttpRequest(
                head.method.decode(), head.target.decode("latin-1"), headers, bytes(body)
            )
        elif isinstance(event, h11.ConnectionClosed):
            return None


async def _send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    response: HttpResponse,
    *,
    close: bool = False,
) -> None:
    headers = [*response.headers.items(), ("content-length", str(len(response.body)))]
    if close:
        headers.append(("connection", "close"))
    for event in (
        h11.Response(status_code=response.status, headers=headers),
        h11.Data(data=response.body),
        h11.EndOfMessage(),
    ):
        writer.write(connection.send(event) or b"")
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    writer.transport.abort()

"""HTTP on the socket: uvicorn's protocol, with limits to what it reads and waits for.

uvicorn gathers the head of a request without a limit, waits for ever for its next octet, and responses
what is not HTTP with plain text. The limit and the deadline of bodies are in `api.body_limiter`, which
knows the endpoints.
"""

import asyncio
import json
import socket
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from api.problems import (
    HEADERS_TOO_LARGE,
    MALFORMED,
    MEDIA_TYPE,
    REQUEST_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    Kind,
    Problem,
)
from telemetry import metrics

_NOT_HTTP: Final = "The request is not HTTP/1.1: check its request line, headers and length."
_MOST_PIPELINED: Final = 100
"""Requests that wait on one connection for the answers to those before them."""
_NO_PROXY: Final = "The gateway is no proxy: send another method than CONNECT."
_FRAGMENTED: Final = "The chunks of the body are too small: send larger ones, or a Content-Length."
_AFTER_A_RESPONSE: Final = 64 * 1024
"""Octets of a body that are still parsed after its request was answered."""
_MOST_DISCARDED: Final = 16 * 1024 * 1024
_DISCARDING_SECONDS: Final = 5.0
_SEND_BUFFER: Final = 128 * 1024
_AROUND_A_FIELD: Final = 4
"""Octets of a header field beside its name and value: colon, space, CR, LF."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one process takes.

    Attributes:
        header_bytes: of the request line and all header fields together.
        request_timeout: for a head to arrive; for a body that nobody reads any more; and for a
            client to read something of a response.
        connections: open at once.
    """

    header_bytes: int
    request_timeout: timedelta
    connections: int


def protocol_class(limits: HttpLimits) -> type[HttpToolsProtocol]:
    """The protocol with these limits, as uvicorn takes one: it makes an instance per connection."""

    class Protocol(BoundedHttp):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self.limits = limits

    return Protocol


class _Refused(Exception):
    """Ends the parsing of a request; httptools hands on nothing else."""


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    limits: HttpLimits

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._refusal: tuple[Kind, str | None] = (MALFORMED, _NOT_HTTP)
        # Between requests, and until the end of a head, a head is waited for.
        self._in_head = True
        self._head_began = False
        self._part_ended = False  # a head or a message, in the octets that are being parsed
        # Octets of the fields of this request: httptools hands a field on only when it is whole.
        self._parsed = 0
        self._reset_counts()
        self._body_in_data = 0
        self._upgrading = False
        self._discarding = False
        self._discarded = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._unwritten = 0
        self._write_deadline: asyncio.TimerHandle | None = None
        # The request that is being answered; `cycle` is the last one that was read.
        self._started: RequestResponseCycle | None = None

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # So that writing pauses whenever the client has something left to read.
        transport.set_write_buffer_limits(high=0)
        # What the system keeps beside that shows no progress, so it is kept small.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER
        )
        if len(self.connections) > self.limits.connections:
            self._refuse(TOO_MANY_CONNECTIONS)
        else:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        self._cancel_write_deadline()
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (self._started, *waiting):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_write_deadline()

    def resume_writing(self) -> None:
        self._cancel_write_deadline()
        super().resume_writing()

    def _set_write_deadline(self) -> None:
        self._unwritten = self.transport.get_write_buffer_size()
        seconds = self.limits.request_timeout.total_seconds()
        self._write_deadline = self.loop.call_later(seconds, self._check_progress)

    def _cancel_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _check_progress(self) -> None:
        """Abort a connection whose client does not read; to close it would wait for the client."""
        if self.transport.get_write_buffer_size() < self._unwritten:
            self._set_write_deadline()
        else:
            self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is idle; one whose client reads no responses is not waited for."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    # Requests

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            self._discarded += len(data)
            if self._discarded > _MOST_DISCARDED:
                self.transport.abort()
            return
        if self._in_head and self._deadline is None:
            self._set_deadline()
        self._part_ended = False
        self._body_in_data = 0
        self._unset_keepalive_if_required()
        self._parse(data)
        # Where in these octets a head or a message ended is unknown: they are few, and not counted.
        if not self._part_ended and not self.transport.is_closing():
            self._count_read(len(data))

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                try:
                    self.parser.feed_data(rest)
                    rest = rest[len(rest) :]
                except httptools.HttpParserUpgrade as after_head:
                    rest = rest[after_head.args[0] :]
                    self._parse_head_without_upgrade()
        except httptools.HttpParserError:
            self._refuse(*self._refusal)

    def _parse_head_without_upgrade(self) -> None:
        """Parse the head again, as if it asked for no other protocol (RFC 9110, 7.8).

        The parser takes a request that asks for one to have no body.
        """
        line = b"%s %s HTTP/%s" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        fields = [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._upgrading = False
        self._parsed = 0
        self.parser.feed_data(b"\r\n".join([line, *fields, b"", b""]))

    def _reset_counts(self) -> None:
        # Octets as they were read: of the body, around it, and those since the last of the body.
        self._body = self._framing = self._since_body = 0
        self._after_response = 0

    def _count_read(self, octets: int) -> None:
        framing = octets - self._body_in_data
        self._body += self._body_in_data
        self._framing += framing
        self._since_body = 0 if self._body_in_data else self._since_body + framing
        most = self.limits.header_bytes
        if self._since_body > most:
            self._refuse(HEADERS_TOO_LARGE)
        elif self._framing > most + self._body:
            self._refuse(MALFORMED, _FRAGMENTED)
        elif not self._in_head and not self._responding:
            self._after_response += octets
            if self._after_response > _AFTER_A_RESPONSE:
                self._discard()

    def _discard(self) -> None:
        """End the connection, but first give the client the time to see its response.

        To close while octets arrive would reset the connection, and the response could be lost.
        """
        self._discarding = True
        self._unset_keepalive_if_required()
        self._cancel_deadline()
        self.transport.write_eof()
        self._deadline = self.loop.call_later(_DISCARDING_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_began = True
        if self._deadline is None:
            self._set_deadline()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + _AROUND_A_FIELD)
        if self._in_head:  # a trailer is no header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise _Refused
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refusal = (MALFORMED, _NO_PROXY)
                raise _Refused
            self._upgrading = True
            return
        super().on_headers_complete()
        self._in_head = False
        self._part_ended = True
        self._reset_counts()
        self._cancel_deadline()

    def on_body(self, body: bytes) -> None:
        self._body_in_data += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        super().on_message_complete()
        self._in_head = self._part_ended = True
        self._head_began = False
        self._parsed = 0
        self._reset_counts()
        self._cancel_deadline()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._started = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Refused without its body: the client may finish sending it, but not for ever.
        if not self._in_head and self._deadline is None:
            self._set_deadline()

    def _count(self, octets: int) -> None:
        self._parsed += octets
        if self._parsed > self.limits.header_bytes:
            self._refusal = (HEADERS_TOO_LARGE, None)
            raise _Refused

    # Refusals

    def _set_deadline(self) -> None:
        seconds = self.limits.request_timeout.total_seconds()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self._responding:
            self._set_deadline()
        elif self._in_head and self._head_began:
            self._refuse(REQUEST_TIMEOUT)
        else:
            self.transport.close()

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, kind: Kind, detail: str | None = None) -> None:
        """Answer with a problem and close; only close if that would be a second response."""
        if self.transport.is_closing():
            return
        if self._in_head and not self._responding:
            self.transport.write(_response(Problem(kind, detail)))
            metrics.request_refused(kind.slug)
        self.transport.close()


def _response(problem: Problem) -> bytes:
    content = json.dumps(problem.document()).encode()
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(content)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **(problem.headers or {}),
    }
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    status = STATUS_LINE[HTTPStatus(problem.status_code)]
    return b"".join([status, "".join(lines).encode(), b"\r\n", content])

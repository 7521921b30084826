"""HTTP on a real socket: what is not HTTP, what is too large, and what takes too long."""

import asyncio
import contextlib
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from api.batches import PATH as BATCHES
from api.protocol import BoundedHttp, HttpLimits, protocol_class
from services.assembly import assemble
from telemetry.metrics import metric_value
from tests.api.conftest import ORDER, SEND, Api, serving, temporal_is_away

pytestmark = pytest.mark.stack

HEADER_BYTES = 8192
LONG = timedelta(minutes=10)
SOON = timedelta(seconds=0.3)
PATIENCE = 120.0


@dataclass
class Response:
    """A response as it came over the socket."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def problem(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        document = json.loads(self.content)
        assert document["status"] == self.status
        assert document["detail"]
        return str(document["type"]).removeprefix("urn:smsgateway:problem:")


class Connection:
    """A connection to the API, on which anything can be written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def response(self, *, head_only: bool = False) -> Response:
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
            }
            length = 0 if head_only else int(headers.get("content-length", 0))
            content = await self._reader.readexactly(length)
        return Response(int(first.split()[1]), headers, content)

    async def is_closed(self) -> bool:
        """Wait until the server closes the connection, with nothing more said on it."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self._writer.close()


class Server:
    """The API on a socket of its own."""

    def __init__(self, port: int, state: ServerState) -> None:
        self._port = port
        self._state = state
        self.opened: list[Connection] = []

    async def connect_without_reading(self) -> socket.socket:
        """A connection of which this side reads only what the caller reads."""
        opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(opened, ("127.0.0.1", self._port))
        return opened

    @property
    def tasks(self) -> int:
        return len(self._state.tasks)

    @property
    def connections(self) -> int:
        return len(self._state.connections)

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self._port))
        self.opened.append(connection)
        return connection


@asynccontextmanager
async def listening(api: Api, **limits: Any) -> AsyncIterator[Server]:
    bounds = HttpLimits(
        **{"header_bytes": HEADER_BYTES, "request_timeout": LONG, "connections": 100} | limits
    )
    config = uvicorn.Config(
        api.app,
        http=protocol_class(bounds),
        lifespan="off",
        log_config=None,
        ws="none",
        port=0,
        timeout_keep_alive=600,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(PATIENCE):
        while not server.started:
            await asyncio.sleep(0.01)
    found = Server(server.servers[0].sockets[0].getsockname()[1], server.server_state)
    try:
        yield found
    finally:
        for connection in found.opened:
            connection.close()
        server.should_exit = server.force_exit = True
        await task


def head(*lines: str, path: str = "/healthz", method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: gateway", *lines, "", "")).encode()


async def still_serves(server: Server) -> bool:
    connection = await server.connect()
    await connection.write(head())
    return (await connection.response()).status == 200


# What is not HTTP

NOT_HTTP = {
    "no request line": b"hello\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two lengths": head("Content-Length: 1", "Content-Length: 2", path=SEND, method="POST"),
    "a length that is none": head("Content-Length: many", path=SEND, method="POST"),
    "a negative length": head("Content-Length: -1", path=SEND, method="POST"),
    "an endless length": head(f"Content-Length: {'9' * 5000}", path=SEND, method="POST"),
    "length and chunks": head("Content-Length: 1", "Transfer-Encoding: chunked", method="POST"),
    "a field without a name": head(": x"),
    "a path of other octets": "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "no path": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "a request to a proxy": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
}


async def test_what_is_not_http_is_a_problem_too(api: Api) -> None:
    async with listening(api) as server:
        for situation, data in NOT_HTTP.items():
            connection = await server.connect()
            await connection.write(data)
            response = await connection.response()
            assert (response.status, response.problem) == (400, "malformed-request"), situation
            assert response.headers["connection"] == "close"
            assert await connection.is_closed()
        assert await still_serves(server)


async def test_chunks_that_are_none_end_the_connection(api: Api) -> None:
    async with listening(api) as server:
        connection = await server.connect()
        authorization = f"Authorization: Bearer {api.key}"
        await connection.write(
            head("Transfer-Encoding: chunked", authorization, path=SEND, method="POST")
        )
        await connection.write(b"zz\r\n")
        assert await connection.is_closed()
        assert await still_serves(server)


UPGRADES = [
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA"),
    ("Upgrade: websocket", "connection: keep-alive", "CONNECTION: upgrade"),
]


@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_an_upgrade_is_ignored(api: Api, upgrade: tuple[str, ...]) -> None:
    order = json.dumps(ORDER).encode()
    key = f"Authorization: Bearer {api.key}"
    media = "Content-Type: application/json"
    bodies = {
        f"Content-Length: {len(order)}": order,
        "Transfer-Encoding: chunked": b"%x\r\n%s\r\n0\r\n\r\n" % (len(order), order),
    }
    async with listening(api) as server:
        for framing, body in bodies.items():
            request = head(*upgrade, key, media, framing, path=SEND, method="POST") + body
            for cut in (len(request), len(request) - len(body), len(request) - 20, 40):
                connection = await server.connect()
                await connection.write(request[:cut])
                await asyncio.sleep(0.05)
                await connection.write(request[cut:] + head(*upgrade) + head(path="/nowhere"))
                responses = [(await connection.response()).status for _ in range(3)]
                assert responses == [202, 200, 404]


async def test_a_body_behind_an_upgrade_is_no_request(api: Api) -> None:
    hidden = head()
    key = f"Authorization: Bearer {api.key}"
    media = "Content-Type: application/json"
    length = f"Content-Length: {len(hidden)}"
    async with listening(api) as server:
        connection = await server.connect()
        await connection.write(head(*UPGRADES[0], key, media, length, path=SEND, method="POST"))
        await asyncio.sleep(0.05)
        await connection.write(hidden + head(path="/nowhere"))
        assert [(await connection.response()).status for _ in range(2)] == [400, 404]


# Heads


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ((f"X: {'x' * HEADER_BYTES}",), "/healthz"),
        (tuple(f"X{n}: x" for n in range(HEADER_BYTES // 6)), "/healthz"),
        ((), "/healthz?" + "x" * HEADER_BYTES),
    ],
    ids=["one", "many", "address"],
)
async def test_headers_that_are_too_large_are_refused(
    api: Api, lines: tuple[str, ...], path: str
) -> None:
    async with listening(api) as server:
        connection = await server.connect()
        await connection.write(head(*lines, path=path))
        response = await connection.response()
        assert (response.status, response.problem) == (431, "headers-too-large")
        assert await connection.is_closed()


async def test_a_header_without_an_end_is_read_up_to_the_limit(api: Api) -> None:
    async with listening(api) as server:
        connection = await server.connect()
        await connection.write(b"GET / HTTP/1.1\r\nX: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                await connection.write(b"x" * 10_000)
                sent += 10_000
                await asyncio.sleep(0)
        # What was on its way in the buffers of both ends counts as sent.
        assert sent < 64 * 1024 * 1024


async def test_headers_of_just_the_limit_are_read(api: Api) -> None:
    async with listening(api) as server:
        connection = await server.connect()
        # As they are counted: the address, and four octets for each field beside its text.
        rest = len("/healthz") + len("Host") + len("gateway") + 4 + len("X") + 4
        await connection.write(head("X: " + "x" * (HEADER_BYTES - rest)))
        assert (await connection.response()).status == 200
        await connection.write(head("X: " + "x" * (HEADER_BYTES - rest + 1)))
        assert (await connection.response()).status == 431


async def test_a_large_body_is_no_head(api: Api) -> None:
    """The end of a body and the next head arrive together."""
    body = json.dumps(ORDER).encode().ljust(8192 - 1)
    authorization = f"Authorization: Bearer {api.key}"
    request = head(
        authorization,
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        path=SEND,
        method="POST",
    )
    async with listening(api, header_bytes=4096) as server:
        connection = await server.connect()
        for _ in range(3):
            await connection.write(request + body)
            assert (await connection.response()).status == 202
        await connection.write((request + body) * 2 + head())
        assert [(await connection.response()).status for _ in range(3)] == [202, 202, 200]


CHUNKED = {
    "an unread body": head("Transfer-Encoding: chunked", path="/nowhere", method="POST"),
    "no key": head("Transfer-Encoding: chunked", path=SEND, method="POST"),
}
ENDLESS = {
    "the name of a trailer": (b"0\r\n", b"x" * 10_000),
    "the value of a trailer": (b"0\r\nX: ", b"x" * 10_000),
    "trailers": (b"0\r\n", b"x: y\r\n" * 2000),
    "the extension of a chunk": (b"1;x=", b"x" * 10_000),
    "the size of a chunk": (b"0", b"0" * 10_000),
    "small chunks": (b"", b"1\r\na\r\n" * 2000),
    "large chunks": (b"", b"2710\r\n" + b"x" * 10_000 + b"\r\n"),
}


@pytest.mark.parametrize("situation", CHUNKED)
@pytest.mark.parametrize("endless", ENDLESS)
async def test_a_chunked_body_without_an_end_is_parsed_up_to_a_limit(
    api: Api, situation: str, endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = 0
    parse = BoundedHttp._parse

    def counted(self: BoundedHttp, data: bytes) -> None:
        nonlocal parsed
        parsed += len(data)
        parse(self, data)

    monkeypatch.setattr(BoundedHttp, "_parse", counted)
    begin, more = ENDLESS[endless]
    async with listening(api) as server:
        connection = await server.connect()
        await connection.write(CHUNKED[situation])
        assert (await connection.response()).status in {401, 404}
        sent = 0
        with contextlib.suppress(ConnectionError):
            await connection.write(begin)
            while sent < 1 << 28:
                await connection.write(more)
                sent += len(more)
                await asyncio.sleep(0)
        assert sent < 1 << 28
        assert parsed < 1 << 20
        assert await still_serves(server)


@pytest.mark.parametrize("endless", sorted(set(ENDLESS) - {"large chunks"}))
async def test_a_body_that_is_waited_for_has_little_beside_it(api: Api, endless: str) -> None:
    begin, more = ENDLESS[endless]
    key = f"Authorization: Bearer {api.key}"
    media = "Content-Type: application/json"
    async with listening(api) as server:
        connection = await server.connect()
        await connection.write(
            head(key, media, "Transfer-Encoding: chunked", path=BATCHES, method="POST") + begin
        )
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 26:
                await connection.write(more)
                sent += len(more)
                await asyncio.sleep(0)
        assert sent < 1 << 26
        assert await still_serves(server)


async def test_a_body_in_chunks_with_a_trailer_is_read(api: Api) -> None:
    body = json.dumps(ORDER).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % octet for octet in body) + b"0\r\nX: y\r\n\r\n"
    key = f"Authorization: Bearer {api.key}"
    media = "Content-Type: application/json"
    request = head(key, media, "Transfer-Encoding: chunked", path=SEND, method="POST")
    async with listening(api) as server:
        connection = await server.connect()
        for _ in range(2):
            await connection.write(request)
            for start in range(0, len(chunks), 50):
                await connection.write(chunks[start : start + 50])
                await asyncio.sleep(0)
            assert (await connection.response()).status == 202


async def test_the_answer_to_a_large_refused_body_arrives(api: Api) -> None:
    request = head("Content-Length: 4000000", path=SEND, method="POST")
    async with listening(api) as server:
        connection = await server.connect()
        await connection.write(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                await connection.write(b"x" * 10_000)
        assert (await connection.response()).status == 401
        assert await connection.is_closed()


async def test_requests_that_wait_for_answers_are_bounded(api: Api) -> None:
    async with listening(api) as server:
        connection = await server.connect()
        await connection.write(head() * 50)
        assert {(await connection.response()).status for _ in range(50)} == {200}
        await connection.write(head() * 5000)
        answered = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while answered < 5000:
                await connection.response()
                answered += 1
        assert answered < 5000
        assert await still_serves(server)


# Time


async def test_a_head_that_does_not_end_is_refused_in_time(api: Api) -> None:
    async with listening(api, request_timeout=SOON) as server:
        for begun in (b"GET /healthz HTTP/1.1\r\nX: ", head() + b"GET"):
            connection = await server.connect()
            await connection.write(begun)
            response = await connection.response()
            if response.status == 200:
                response = await connection.response()
            assert (response.status, response.problem) == (408, "request-timeout")
            assert await connection.is_closed()


async def test_a_slow_head_is_refused_however_it_is_fed(api: Api) -> None:
    async with listening(api, request_timeout=SOON) as server:
        connection = await server.connect()
        await connection.write(b"GET /healthz HTTP/1.1\r\nX: ")

        async def feed() -> None:
            while True:
                await connection.write(b"x")
                await asyncio.sleep(0.05)

        feeding = asyncio.create_task(feed())
        assert (await connection.response()).problem == "request-timeout"
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def test_a_connection_on_which_nothing_comes_is_closed(api: Api) -> None:
    async with listening(api, request_timeout=SOON) as server:
        silent = await server.connect()
        assert await silent.is_closed()
        blank = await server.connect()
        await blank.write(b"\r\n")
        assert await blank.is_closed()


async def test_a_kept_connection_outlives_the_time_for_a_request(api: Api) -> None:
    async with listening(api, request_timeout=SOON) as server:
        connection = await server.connect()
        for _ in range(2):
            await connection.write(head())
            assert (await connection.response()).status == 200
            await asyncio.sleep(2 * SOON.total_seconds())
        await connection.write(head())
        assert (await connection.response()).status == 200


async def test_a_refused_body_may_be_sent_to_its_end_but_not_for_ever(api: Api) -> None:
    request = head("Content-Length: 60000", path=SEND, method="POST")
    async with listening(api) as server:
        connection = await server.connect()
        await connection.write(request)
        assert (await connection.response()).status == 401
        await connection.write(b"x" * 60_000 + head())
        assert (await connection.response()).status == 200
    async with listening(api, request_timeout=SOON) as server:
        connection = await server.connect()
        await connection.write(request)
        assert (await connection.response()).status == 401
        assert await connection.is_closed()


async def test_a_body_that_does_not_end_is_refused_in_time(api: Api) -> None:
    impatient = api.services.settings.model_copy(update={"request_timeout": SOON})
    services = assemble(impatient, connect=temporal_is_away)
    async with serving(services) as quick, listening(quick) as server:
        for path in (SEND, BATCHES, "/api/v1/config/check"):
            media = "application/toml" if "config" in path else "application/json"
            key = api.operator if "config" in path else api.key
            connection = await server.connect()
            await connection.write(
                head(
                    f"Authorization: Bearer {key}",
                    f"Content-Type: {media}",
                    "Content-Length: 1000",
                    path=path,
                    method="POST",
                )
                + b"{"
            )
            response = await connection.response()
            assert (response.status, response.problem) == (408, "request-timeout"), path
            assert await connection.is_closed()
    await services.close()


ASSET = "/docs/swagger-ui-bundle.js"


@pytest.mark.parametrize(
    "request_",
    [head(path=ASSET) * 20, head("Connection: close", path="/openapi.json")],
    ids=["many", "the last"],
)
async def test_a_client_that_does_not_read_is_left(api: Api, request_: bytes) -> None:
    async with listening(api, request_timeout=SOON) as server:
        opened = [await server.connect_without_reading() for _ in range(5)]
        for one in opened:
            await asyncio.get_running_loop().sock_sendall(one, request_)
        async with asyncio.timeout(PATIENCE):
            while server.connections:
                await asyncio.sleep(0.05)
        for one in opened:
            one.close()
        assert await still_serves(server)


async def test_a_client_that_reads_slowly_gets_all_of_its_answer(api: Api) -> None:
    impatient = api.services.settings.model_copy(update={"request_timeout": SOON})
    services = assemble(impatient, connect=temporal_is_away)
    async with (
        serving(services) as quick,
        listening(quick, request_timeout=timedelta(seconds=10)) as server,
    ):
        loop = asyncio.get_running_loop()
        opened = await server.connect_without_reading()
        await loop.sock_sendall(opened, head("Connection: close", path=ASSET))
        length = 0
        began = loop.time()
        async with asyncio.timeout(PATIENCE):
            while data := await loop.sock_recv(opened, 16 * 1024):
                length += len(data)
                if loop.time() - began < 10 * SOON.total_seconds():
                    await asyncio.sleep(0.05)
        opened.close()
        asset = await api.http.get(ASSET)
        assert length > len(asset.content)
    await services.close()


async def test_requests_whose_client_left_are_no_faults(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {"method": "GET", "route": "/docs/{name}", "status": "500"}
    before = metric_value("smsgateway_http_requests_total", labels)
    impatient = api.services.settings.model_copy(update={"request_timeout": SOON})
    services = assemble(impatient, connect=temporal_is_away)
    caplog.set_level(logging.WARNING)
    async with serving(services) as quick, listening(quick) as server:
        for path in (ASSET, "/openapi.json"):
            opened = await server.connect_without_reading()
            await asyncio.get_running_loop().sock_sendall(opened, head(path=path) * 60)
            await asyncio.sleep(0.5)
            # Closed so, the connection is reset.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            opened.close()
        async with asyncio.timeout(PATIENCE):
            while server.connections or server.tasks:
                await asyncio.sleep(0.05)
    await services.close()
    assert metric_value("smsgateway_http_requests_total", labels) == before
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_there_are_no_more_connections_than_allowed(api: Api) -> None:
    async with listening(api, connections=3) as server:
        kept = [await server.connect() for _ in range(3)]
        for connection in kept:
            await connection.write(head())
            assert (await connection.response()).status == 200
        refused = await server.connect()
        response = await refused.response()
        assert (response.status, response.problem) == (503, "too-many-connections")
        assert response.headers["retry-after"] == "2"
        kept[0].close()
        async with asyncio.timeout(PATIENCE):
            while True:
                connection = await server.connect()
                await connection.write(head())
                if (await connection.response()).status == 200:
                    break
                await asyncio.sleep(0.05)


# Methods and caches


async def test_head_is_get_without_the_body(api: Api) -> None:
    key = f"Authorization: Bearer {api.key}"
    await api.sent()
    async with listening(api) as server:
        connection = await server.connect()
        for path in ("/healthz", "/api/v1/sms", "/api/v1/sms/none", "/nowhere", SEND):
            await connection.write(head(key, path=path))
            got = await connection.response()
            await connection.write(head(key, path=path, method="HEAD"))
            without_body = await connection.response(head_only=True)
            assert without_body.status == got.status, path
            assert without_body.headers["content-type"] == got.headers["content-type"]
            assert without_body.headers["content-length"] == got.headers["content-length"]
        assert await still_serves(server)

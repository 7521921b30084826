"""A customer's server: HTTP/1.1 over a real socket, with set responses; it keeps every request."""

import asyncio
import json
import ssl
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered; `raw` goes out instead of HTTP, and then the connection is cut.

    With `trickle` the reply never ends: these octets follow it `every` so many seconds, for ever.
    """

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    raw: bytes | None = None
    trickle: bytes = b""
    every: float = 0.02


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    began: float
    """Of the event loop's clock."""

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its events; a request has one event or a list."""
        return self.content.get("events", [self.content])

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]


class CallbackReceiver:
    """Listens on 127.0.0.1; responds with 204, or with the replies set for the path.

    With `host` "0.0.0.0" it stands for as many origins as the loopback network has addresses.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._tls = tls
        self._host = host
        self._server: asyncio.Server | None = None
        self._replies: dict[str, deque[Reply]] = defaultdict(deque)
        self._always: dict[str, Reply] = {}
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Received] = []
        self.connections = 0
        self.under_way = 0
        self.most_at_once = 0
        self.port = 0
        self.server_names: list[str | None] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, at the same port as before if it was stopped."""
        if self._tls is not None:
            self._tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._server = await asyncio.start_server(
            self._connected, self._host, self.port, ssl=self._tls, backlog=2000
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut all connections and listen no more."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def will_respond(self, *replies: Reply | int, path: str = "/hook") -> None:
        """Answer the next requests to a path so, one after the other."""
        self._replies[path] += [Reply(r) if isinstance(r, int) else r for r in replies]

    def always_responds(self, reply: Reply | int, path: str = "/hook") -> None:
        """Respond to a path like this from now on, after the replies of `will_respond`."""
        self._always[path] = Reply(reply) if isinstance(reply, int) else reply

    async def received(self, count: int, within: float = 120) -> list[Received]:
        """The first `count` requests, as soon as they are there."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)
        return self.requests[:count]

    def to(self, path: str) -> list[Received]:
        return [request for request in self.requests if request.path == path]

    def statuses_of(self, message_id: str) -> list[str]:
        """The statuses received for a message, in the order in which they came."""
        events = [event for request in self.requests for event in request.events]
        return [event["status"] for event in events if event["message_id"] == message_id]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer, self.connections)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            lines = (line.partition(":") for line in head[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in lines}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            began = asyncio.get_running_loop().time()
            async with self._news:
                self.requests.append(Received(method, path, headers, body, connection, began))
                self._news.notify_all()
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            try:
                if not await self._reply(path, writer):
                    return
            finally:
                self.under_way -= 1

    async def _reply(self, path: str, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        waiting = self._replies[path]
        reply = waiting.popleft() if waiting else self._always.get(path, Reply())
        await asyncio.sleep(reply.delay)
        headers = {"Content-Length": str(len(reply.body)), **reply.headers}
        if reply.raw is not None:
            writer.write(reply.raw)
        else:
            lines = [f"HTTP/1.1 {reply.status} Answer", *(f"{n}: {v}" for n, v in headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode() + reply.body)
        await writer.drain()
        while reply.trickle:
            await asyncio.sleep(reply.every)
            writer.write(reply.trickle)
            await writer.drain()
        return reply.raw is None and headers.get("Connection") != "close"


def is_signed_with(secret: str, request: Received) -> bool:
    """Whether the reference implementation of Standard Webhooks takes the signature for good."""
    try:
        Webhook(secret).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return False
    return True

"""HTTP/1.1 over connections that are kept, for load: it costs little of the processors it shares."""

import asyncio
from types import TracebackType
from typing import Self


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
        """Send a request, and read the answer's status and body.

        Args:
            head: the request's first line and headers without Host and Content-Length, each ended
                by CRLF.
            body: what follows.
        """
        reader, writer = await self._idle.get()
        try:
            status, answer = await self._ask(reader, writer, head, body)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The server closes what was idle for some seconds, at any moment.
            writer.close()
            reader, writer = await asyncio.open_connection(self._host, self._port)
            status, answer = await self._ask(reader, writer, head, body)
        self._idle.put_nowait((reader, writer))
        return status, answer

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes
    ) -> tuple[int, bytes]:
        writer.write(
            head + f"Host: {self._host}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer[9:12])
        length = answer.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        return status, await reader.readexactly(int(length or 0))

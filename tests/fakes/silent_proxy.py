"""A TCP proxy that can go silent: it keeps its connections open, takes what is sent, forwards nothing.

So does a host that lost its network or its power behind a load balancer, and a server process that is
stopped (SIGSTOP): its kernel still acknowledges every byte, so TCP itself never notices.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 64 * 1024


class SilentProxy:
    """Forwards 127.0.0.1:`port` to a server, except while it is silent.

    It has a thread of its own, so that tests with and without an event loop can use it.
    """

    port: int

    def __init__(self, host: str, port: int) -> None:
        self._upstream = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._requests = asyncio.Event()
        self._responses = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return f"127.0.0.1:{self.port}"

    def url(self, url: str) -> str:
        """The URL of a server, with this proxy in place of its host and port."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{self.address}"))

    def silence(self) -> None:
        """Forward nothing from now on; new connections are accepted, and as silent."""
        self._do(self._requests.clear, self._responses.clear)

    def silence_responses(self) -> None:
        """From now on the server gets everything, and nobody hears of it."""
        self._do(self._responses.clear)

    def resume(self) -> None:
        """Forward again, first what came meanwhile."""
        self._do(self._requests.set, self._responses.set)

    def start(self) -> None:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._connected, "127.0.0.1", 0), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        self.resume()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, *changes: Callable[[], None]) -> None:
        """Make changes in the proxy's own thread; returns when they hold."""
        done = threading.Event()
        for change in (*changes, done.set):
            self._loop.call_soon_threadsafe(change)
        done.wait()

    async def _close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        upstream: asyncio.StreamWriter | None = None
        try:
            await self._requests.wait()
            from_upstream, upstream = await asyncio.open_connection(*self._upstream)
            pumps = [
                asyncio.create_task(self._pump(reader, upstream, self._requests)),
                asyncio.create_task(self._pump(from_upstream, writer, self._responses)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, upstream):
                if each is not None:
                    each.close()

    @staticmethod
    async def _pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forwarding: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await forwarding.wait()
                writer.write(data)
                await writer.drain()


@contextmanager
def silent_proxy(host: str, port: int) -> Iterator[SilentProxy]:
    """A proxy before a server, which forwards until a test silences it."""
    proxy = SilentProxy(host, port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()

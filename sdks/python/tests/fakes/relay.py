"""A relay before a server, which loses things on the way as networks do."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_LONGEST = 1 << 20


class Relay:
    """Carries bytes between a client and the server at `target`, and loses what a test chooses."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self._responses_to_lose = 0
        self._connections: list[socket.socket] = []
        self.connections_made = 0
        self.url = ""

    def lose_responses(self, count: int) -> None:
        """The server gets the next `count` requests, but its responses get lost."""
        self._responses_to_lose = count

    def close_connections(self) -> None:
        """Closes every connection that is kept alive, as a server that was restarted does."""
        while self._connections:
            _cut(self._connections.pop())

    @contextmanager
    def running(self) -> Iterator["Relay"]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        accepting = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            _cut(listener)
            self.close_connections()
            accepting.join(5)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections_made += 1
            server = socket.create_connection(self._target)
            self._connections += [client, server]
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while read := client.recv(_LONGEST):
                server.sendall(read)
        _cut(server)
        _cut(client)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while read := server.recv(_LONGEST):
                if self._responses_to_lose:
                    self._responses_to_lose -= 1
                    break
                client.sendall(read)
        _cut(client)
        _cut(server)


def _cut(connection: socket.socket) -> None:
    # Both ends first, so that a thread that reads from it wakes.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()

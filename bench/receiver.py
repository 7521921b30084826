"""A customer's server for measurements, in a process of its own: cheap, and remembers what it got.

`python -m bench.receiver PORT`, with the signing secret in SMSGATEWAY_BENCH_SECRET. What comes to
`/warm` is answered and forgotten; `GET /seen` returns the counts of the rest.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import uvloop

from domain.callbacks.signatures import InvalidSecret, SignatureRefused, verify

SECRET: Final = "SMSGATEWAY_BENCH_SECRET"  # noqa: S105 - the name of the variable
_CHECKED_EVERY: Final = 50
_RANKS: Final = {"SENT": 1, "DELIVERED": 2}
_TAKEN: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(slots=True)
class Seen:
    """What came: `messages` are those with a callback of a final status; `last_at` is Unix time."""

    requests: int = 0
    events: int = 0
    copies: int = 0
    messages: int = 0
    out_of_order: int = 0
    badly_signed: int = 0
    last_at: float = 0.0


class Receiver(asyncio.Protocol):
    """One connection; all of them share what was seen."""

    seen = Seen()
    ids: set[str] = set()  # noqa: RUF012
    ranks: dict[str, int] = {}  # noqa: RUF012
    secret = ""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._received[:end].decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            size = end + 4 + int(headers.get("content-length", "0"))
            if len(self._received) < size:
                return
            body, self._received = self._received[end + 4 : size], self._received[size:]
            self._transport.write(self._response(first, headers, body))  # type: ignore[attr-defined]

    def _response(self, first: str, headers: Mapping[str, str], body: bytes) -> bytes:
        method, path, _ = first.split(" ")
        if method == "GET":
            counts = json.dumps(asdict(self.seen)).encode()
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(counts), counts)
        if path != "/warm":
            self._take(headers, body)
        return _TAKEN

    def _take(self, headers: Mapping[str, str], body: bytes) -> None:
        seen = self.seen
        seen.requests += 1
        if seen.requests % _CHECKED_EVERY == 0:
            try:
                verify([self.secret], headers, body, datetime.now(UTC))
            except (SignatureRefused, InvalidSecret):
                seen.badly_signed += 1
        content: dict[str, Any] = json.loads(body)
        for event in content.get("events") or [content | {"id": headers["webhook-id"]}]:
            if event["id"] in self.ids:
                seen.copies += 1
                continue
            self.ids.add(event["id"])
            seen.events += 1
            rank, before = _RANKS.get(event["status"], 2), self.ranks.get(event["message_id"], 0)
            seen.out_of_order += rank <= before
            seen.messages += rank == len(_RANKS)
            self.ranks[event["message_id"]] = rank
        seen.last_at = time.time()


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    Receiver.secret = os.environ[SECRET]
    uvloop.run(_serve(int(sys.argv[1])))

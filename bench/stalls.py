"""How long the API does nothing else, while it is sent what costs the most."""

import asyncio
import http.client
import json
import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import uvloop

from bench.figures import Figure
from bench.single import running
from local.folders import temporary_folder
from local.stack import Stack

_AT_ONCE: Final = 8
"""Connections on which each of the hostile requests is sent at the same time."""
_NOTHING: Final = "nothing"
_ROUNDS: Final = 3
_IDLE_SECONDS: Final = 10.0
_PAUSE: Final = 0.005
"""Seconds between the probes."""
_PATIENCE: Final = 120.0
"""Seconds for a response."""
_BATCHES: Final = "/api/v1/sms/batches"
_CHECK: Final = "/api/v1/config/check"


def hostile_requests() -> dict[str, tuple[str, bytes]]:
    """Path and body of each, by what it is."""

    def batch(body: str | None, *recipients: dict[str, Any], **more: Any) -> tuple[str, bytes]:
        # Scheduled, so that what is accepted is not sent beside the measurement.
        later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        content = {"from": "AbilIT", "scheduled_at": later, "recipients": recipients} | more
        if body is not None:
            content["body"] = body
        return _BATCHES, json.dumps(content, ensure_ascii=False).encode()

    def many(count: int, **members: Any) -> Iterator[dict[str, Any]]:
        return ({"to": f"+4477009{number:05}", **members} for number in range(count))

    to = {"to": "+447700900123"}
    return {
        "places times emoji": batch("{a}" * 30_000, to | {"variables": {"a": "😀" * 1000}}),
        "places times letters": batch("{a}" * 100_000, to | {"variables": {"a": "x" * 1000}}),
        "empty places for many": batch("{a}" * 1500, *many(10_000, variables={"a": ""})),
        "long texts for many": batch("{a}x{a}", *many(10_000, variables={"a": "y" * 760})),
        "long emoji for many": batch("{a}", *many(10_000, variables={"a": "👩‍👩‍👧" * 40})),
        "too long for many": batch("{a}" * 1500, *many(10_000, variables={"a": "zz"})),
        "parameters of emoji for many": batch(
            "a", *many(2000), parameters={f"n{n}": "😀" * 255 for n in range(7)}
        ),
        "metadata of emoji for many": batch(
            "a", *many(900, metadata={f"n{n}": "😀" * 255 for n in range(7)})
        ),
        "an own text of emoji": batch(None, to | {"body": "😀" * 1_900_000}),
        "braces": batch("{{" * 1_950_000, to),
        "unknown fields": batch("a", to, **{f"x{number}": 1 for number in range(400_000)}),
        "unknown fields of many": batch("a", *many(10_000, **{f"x{n}": 1 for n in range(60)})),
        "empty objects": (_BATCHES, b"[" + b"{}," * 2_700_000 + b"{}]"),
        "empty recipients": (_BATCHES, b'{"recipients": [' + b"{}," * 2_700_000 + b"{}]}"),
        "nested lists": (_BATCHES, b'{"recipients": ' + b"[" * 8_000_000),
        "one text without an end": (_BATCHES, b'{"recipients": ["' + b'\\"' * 4_000_000),
        "a dotted key": (_CHECK, b".".join([b"a"] * 15_000) + b" = 1"),
        "a long integer": (_CHECK, b"a = " + b"9" * 60_000),
        "unknown keys": (_CHECK, b"".join(b"x%d = 1\n" % number for number in range(6000))),
        "a long list": (_CHECK, b"a = [" + b"1," * 30_000 + b"]"),
    }


class _Prober:
    """Asks again and again whether the process lives.

    Attributes:
        beside: the request that is sent meanwhile.
        longest: the milliseconds that the slowest answer took, by what was sent meanwhile.
        count: of the responses.
    """

    def __init__(self, stack: Stack) -> None:
        self.beside = _NOTHING
        self.longest: dict[str, float] = {}
        self.count = 0
        self._port = stack.ports.of("api")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._probe)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _probe(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.connect()
        while not self._over.wait(_PAUSE):
            began, beside = time.perf_counter(), self.beside
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            took = (time.perf_counter() - began) * 1000
            self.longest[beside] = max(took, self.longest.get(beside, 0.0))
            self.count += 1
        connection.close()


def event_loop_stall() -> list[Figure]:
    """The longest answer to `/healthz`, while each hostile request comes on several connections.

    Of each kind the best of three rounds: what the API does is in all of them, what other programs
    on the machine do is not.
    """
    rounds: list[_Prober] = []
    with temporary_folder() as folder, running(folder) as stack:
        with _Prober(stack) as idle:
            time.sleep(_IDLE_SECONDS)
        for _ in range(_ROUNDS):
            with _Prober(stack) as prober:
                uvloop.run(_attack(stack, prober))
            rounds.append(prober)
    kinds = {kind for each in rounds for kind in each.longest} - {_NOTHING}
    best = {kind: min(each.longest.get(kind, math.inf) for each in rounds) for kind in kinds}
    worst = max(best, key=best.__getitem__)
    return [
        Figure(
            "event_loop_stall_ms",
            value=round(best[worst], 1),
            unit="ms",
            note=f"longest of {sum(each.count for each in rounds)} answers to /healthz beside "
            f"{len(best)} kinds of hostile requests, the best of {_ROUNDS} rounds for each kind; "
            f"each comes {_AT_ONCE} times at once with a key, and without; it was beside "
            f"'{worst}', and {max(idle.longest.values()):.1f} ms beside nothing",
        )
    ]


async def _attack(stack: Stack, prober: _Prober) -> None:
    """Send all of them, one kind after the other.

    Raises:
        RuntimeError: a response was a server error.
    """
    port = stack.ports.of("api")
    for name, (path, body) in hostile_requests().items():
        media = "application/toml" if path == _CHECK else "application/json"
        key = (stack.operator_key if path == _CHECK else stack.api_key).secret
        head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: {media}\r\n"
        length = f"Content-Length: {len(body)}\r\n\r\n"
        prober.beside = name
        for authorization in (f"Authorization: Bearer {key}\r\n", ""):
            request = (head + authorization + length).encode() + body
            await asyncio.gather(*(_ask(port, request) for _ in range(_AT_ONCE)))
    prober.beside = "headers without an end"
    await _ask(port, b"GET / HTTP/1.1\r\nX: " + b"x" * 60_000_000)


async def _ask(port: int, request: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        response = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE)
    except (ConnectionError, asyncio.IncompleteReadError):
        return  # the API may close a connection on which more is sent than it reads
    finally:
        writer.transport.abort()
    if response[9:10] == b"5":
        raise RuntimeError(f"The API answered {response!r}.")

"""One workflow for each message, on the embedded stack: how soon on the wire, how many a second."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import psycopg
import uvloop

from bench.figures import Figure, percentile
from bench.load import Connections
from local.folders import temporary_folder
from local.stack import Stack
from local.temporal import OwnTemporal
from simulator.smsc import Smsc

BODY = "ALERT: your service has triggered an incident, please look at it."
WARM_UP = 20

MakeTemporal = Callable[[Stack], OwnTemporal]
"""Makes the Temporal to measure on; None in its place is the development server."""

A_WORKFLOW_EACH = {"SMSGATEWAY_WORKFLOW_STARTS": "1000"}

_PROVIDER = """\
[providers.{name}]
type = "smpp"
host = "127.0.0.1"
port = {port}
system_id = "bench"
password = "env:SMSGATEWAY_SECRET_BENCH"
{more}

"""


def configuration_for(ports: Mapping[str, int], more: str = "") -> str:
    """A configuration with these SMSCs by name; their order is that of the only route.

    `more` goes into what is said of each.
    """
    providers = [_PROVIDER.format(name=name, port=port, more=more) for name, port in ports.items()]
    return "".join([*providers, f"[[routes]]\nproviders = {json.dumps(list(ports))}\n"])


@contextmanager
def running(
    folder: Path,
    configuration: Path | None = None,
    *,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    temporal: MakeTemporal | None = None,
) -> Iterator[Stack]:
    """A stack of its own, removed afterwards; arguments as those of `Stack`."""
    stack = Stack(
        folder,
        configuration=configuration,
        environment={"SMSGATEWAY_SECRET_BENCH": "bench", **(environment or {})},
        workers=workers,
        own_servers=True,
        temporal=temporal,
        progress=lambda _: None,
    )
    try:
        with stack:
            _until_shared(stack, workers)
            yield stack
    finally:
        stack.remove()


_ARE_SHARED = """
SELECT count(*) = %s * count(DISTINCT provider)
       AND max(binds_held) - min(binds_held) <= 1 AND bool_and(binds_up = binds_held)
FROM provider_workers
"""


def _until_shared(stack: Stack, workers: int) -> None:
    """Returns when each worker has its part of the binds: an SMSC here reports only where it was sent."""
    ends = time.monotonic() + 60
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        while connection.execute(_ARE_SHARED, [workers]).fetchall() != [(True,)]:
            if time.monotonic() > ends:
                raise RuntimeError("the workers have not shared the binds within a minute")
            time.sleep(0.1)


class Sender:
    """A client of the API that sends one message in a request."""

    def __init__(self, connections: Connections, stack: Stack) -> None:
        self._connections = connections
        self._head = (
            "POST /api/v1/sms/send HTTP/1.1\r\n"
            f"Authorization: Bearer {stack.api_key.secret}\r\n"
            "Content-Type: application/json\r\n"
        ).encode()

    async def send(self, number: int, text: str = BODY) -> None:
        """Send to one of 900 numbers; returns when the message is accepted."""
        body = {"to": f"+447700900{100 + number % 900}", "from": "AbilIT", "body": text}
        status, response = await self._connections.request(self._head, json.dumps(body).encode())
        if status != HTTPStatus.ACCEPTED:
            raise RuntimeError(f"the API answered {status}: {response.decode()}")


@asynccontextmanager
async def sender(stack: Stack, connections: int = 100) -> AsyncIterator[Sender]:
    """A client of the API, over so many connections that are kept."""
    async with Connections("127.0.0.1", stack.ports.of("api"), connections) as kept:
        yield Sender(kept, stack)


def request_to_wire(temporal: MakeTemporal | None = None) -> list[Figure]:
    """From before the request to the SMSC's reading of the submit_sm, at 5 requests a second."""
    return uvloop.run(_request_to_wire(temporal, rate=5, seconds=30))


async def _request_to_wire(
    temporal: MakeTemporal | None, *, rate: float, seconds: float
) -> list[Figure]:
    async with with_own_smsc(environment=A_WORKFLOW_EACH, temporal=temporal) as (stack, smsc):
        latencies = await _wire_latencies(stack, smsc, rate, seconds)
    return [
        Figure(
            "request_to_wire_ms",
            value=round(percentile(latencies, 50), 1),
            unit="ms",
            p50=round(percentile(latencies, 50), 1),
            p99=round(percentile(latencies, 99), 1),
            note=f"p50 of {len(latencies)} messages at {rate:g}/s, transactional",
        )
    ]


@asynccontextmanager
async def with_own_smsc(
    *,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    temporal: MakeTemporal | None = None,
) -> AsyncIterator[tuple[Stack, Smsc]]:
    """A stack whose SMSC is in this process, whose one clock then sees both ends."""
    async with Smsc("primary") as smsc:
        with temporary_folder() as folder:
            configuration = folder / "bench.toml"
            configuration.write_text(
                configuration_for({"primary": smsc.port}, f"binds = {2 * workers}")
            )
            context = running(
                folder / "stack",
                configuration,
                workers=workers,
                environment=environment,
                temporal=temporal,
            )
            stack = await asyncio.to_thread(context.__enter__)
            try:
                yield stack, smsc
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)


async def _wire_latencies(stack: Stack, smsc: Smsc, rate: float, seconds: float) -> list[float]:
    async with sender(stack) as client:
        for number in range(WARM_UP):
            await client.send(number)
        await smsc.until(lambda: smsc.counts.messages >= WARM_UP, within=60)
        smsc.forget()
        began = []
        start = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            began.append(datetime.now(UTC))
            await client.send(number)
            await smsc.until(lambda: len(smsc.messages) >= len(began), within=60)
    reached = [message.parts[0].accepted_at for message in smsc.messages]
    return [(at - since).total_seconds() * 1000 for since, at in zip(began, reached, strict=True)]


def single_sends(temporal: MakeTemporal | None = None) -> list[Figure]:
    """Messages a second, accepted to delivered, 50 undelivered at a time; and the worker's memory."""
    with (
        temporary_folder() as folder,
        running(folder, environment=A_WORKFLOW_EACH, temporal=temporal) as stack,
    ):
        return uvloop.run(_single_sends(stack, messages=1500, undelivered=50))


async def _single_sends(stack: Stack, *, messages: int, undelivered: int) -> list[Figure]:
    async with sender(stack) as client:
        for number in range(WARM_UP):
            await client.send(number)
        await delivered(stack, WARM_UP)
        room = asyncio.Semaphore(undelivered)
        began = time.perf_counter()
        watcher = asyncio.create_task(_release(stack, room, WARM_UP, WARM_UP + messages))
        senders = set()
        for number in range(messages):
            await room.acquire()
            task = asyncio.create_task(client.send(number))
            senders.add(task)
            task.add_done_callback(senders.discard)
        await watcher
        took = time.perf_counter() - began
    durations = _durations(stack, messages)
    memory = memory_mb(stack.child("worker").pid)
    return [
        Figure(
            "single_sends_per_s",
            value=round(messages / took, 1),
            unit="messages/s",
            p50=round(percentile(durations, 50), 1),
            p99=round(percentile(durations, 99), 1),
            note=f"{messages} messages, {undelivered} undelivered at a time, a workflow each; "
            "p50 and p99 in ms from accepted to delivered",
        ),
        Figure(
            "worker_rss_mb",
            value=round(memory, 1),
            unit="MB",
            note=f"one worker with all roles, after {messages} messages",
        ),
    ]


async def _release(stack: Stack, room: asyncio.Semaphore, known: int, until: int) -> None:
    """Make room for as many messages as were delivered."""
    async with await psycopg.AsyncConnection.connect(
        stack.database_url, autocommit=True
    ) as connection:
        while known < until:
            found = await _count(connection)
            for _ in range(found - known):
                room.release()
            known = found
            await asyncio.sleep(0.05)


async def delivered(stack: Stack, count: int) -> None:
    """Return when so many messages are delivered."""
    async with (
        await psycopg.AsyncConnection.connect(stack.database_url, autocommit=True) as connection,
        asyncio.timeout(120),
    ):
        while await _count(connection) < count:
            await asyncio.sleep(0.05)


async def _count(connection: psycopg.AsyncConnection) -> int:
    cursor = await connection.execute("SELECT count(*) FROM messages WHERE status = 'delivered'")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def _durations(stack: Stack, newest: int) -> list[float]:
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM transitioned_at - accepted_at) * 1000 FROM messages"
            " WHERE status = 'delivered' ORDER BY id DESC LIMIT %s",
            (newest,),
        ).fetchall()
    return [float(row[0]) for row in rows]


def memory_mb(pid: int) -> float:
    """What a process holds in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError("the worker's memory is not reported")

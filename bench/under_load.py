"""Single messages while batches go at full speed: how soon accepted, how soon with the carrier."""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any

import httpx
import psycopg
import uvloop

from bench.bulk import BATCH, Peers, gateway, send
from bench.figures import Figure, percentile
from bench.load import Connections
from bench.single import MakeTemporal
from local.stack import Stack

_SECONDS = 30
_RATE = 4
"""Single messages a second; every second one is an alert."""


def under_bulk(temporal: MakeTemporal | None = None) -> list[Figure]:
    """Accept latency of single sends, and request to wire of alerts, beside a stream of batches."""
    with gateway(temporal=temporal) as peers:
        peers.warm_up()
        with _batches(peers) as sent:
            time.sleep(3)
            before, began = sent.value, time.perf_counter()
            accepted, alerts = uvloop.run(_singles(peers.stack))
            rate = (sent.value - before) / (time.perf_counter() - began)
        peers.until_delivered()
        wire = _until_response(peers.stack, alerts)
    beside = f"beside batches of {BATCH}, {rate:.0f} messages/s of them accepted"
    return [
        Figure(
            "accept_p99_under_bulk_ms",
            value=round(percentile(accepted, 99), 1),
            unit="ms",
            p50=round(percentile(accepted, 50), 1),
            p99=round(percentile(accepted, 99), 1),
            note=f"p99 of {len(accepted)} single sends at {_RATE}/s {beside}",
        ),
        Figure(
            "alert_under_bulk_ms",
            value=round(percentile(wire, 50), 1),
            unit="ms",
            p50=round(percentile(wire, 50), 1),
            p99=round(percentile(wire, 99), 1),
            note=f"p50 of {len(wire)} alerts, from before the request until the carrier has "
            f"answered, which is later than the wire, {beside}",
        ),
    ]


@contextmanager
def _batches(peers: Peers) -> Iterator["Synchronized[int]"]:
    """Send one batch after the other, with a few open at a time; gives how many messages so far.

    By a process of its own: making ten thousand recipients would hold up who measures.
    """
    processes = multiprocessing.get_context("spawn")
    stop, sent = processes.Event(), processes.Value("i", 0)
    stack = peers.stack
    where = (stack.api_url, stack.api_key.secret, stack.database_url)
    process = processes.Process(target=_send_batches, args=(*where, stop, sent))
    process.start()
    try:
        yield sent
    finally:
        stop.set()
        process.join()


def _send_batches(
    api_url: str, api_key: str, database_url: str, stop: Event, sent: "Synchronized[int]"
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        httpx.Client(base_url=api_url, headers=headers, timeout=60) as client,
    ):
        while not stop.is_set():
            waiting = connection.execute(
                "SELECT FROM bulks b JOIN messages m ON m.id = b.last_id"
                " WHERE b.messages = %s AND m.status = 'queued' LIMIT 3",
                [BATCH],
            ).fetchall()
            if len(waiting) > 2:
                time.sleep(0.2)
                continue
            sent.value += BATCH
            send(client, sent.value, BATCH)


async def _singles(stack: Stack) -> tuple[list[float], dict[str, float]]:
    """Milliseconds of each response; and when each alert was asked for, by its id."""
    accepted: list[float] = []
    alerts: dict[str, float] = {}
    head = (
        "POST /api/v1/sms/send HTTP/1.1\r\n"
        f"Authorization: Bearer {stack.api_key.secret}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()

    async def one(number: int, connections: Connections) -> None:
        body: dict[str, Any] = {
            "to": f"+447700900{100 + number}",
            "from": "AbilIT",
            "body": f"Disk full on db-{number}",
            "mode": "alert" if number % 2 else "transactional",
        }
        began, at = time.perf_counter(), time.time()
        status, response = await connections.request(head, json.dumps(body).encode())
        accepted.append((time.perf_counter() - began) * 1000)
        if status != httpx.codes.ACCEPTED:
            raise RuntimeError(f"the API answered {status}: {response.decode()}")
        if number % 2:
            alerts[json.loads(response)["message_id"]] = at

    async with Connections("127.0.0.1", stack.ports.of("api"), 20) as connections:
        start = time.perf_counter()
        tasks = []
        for number in range(_SECONDS * _RATE):
            await asyncio.sleep(max(0.0, start + number / _RATE - time.perf_counter()))
            tasks.append(asyncio.create_task(one(number, connections)))
        await asyncio.gather(*tasks)
    return accepted, alerts


def _until_response(stack: Stack, alerts: dict[str, float]) -> list[float]:
    """Milliseconds from each request until the carrier had answered for the message's first part."""
    ids = {message_id.removeprefix("msg_"): at for message_id, at in alerts.items()}
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            "SELECT replace(message_id::text, '-', ''), extract(epoch FROM responded_at)"
            " FROM all_parts WHERE attempt = 1 AND number = 1"
            " AND replace(message_id::text, '-', '') = ANY(%s)",
            (list(ids),),
        ).fetchall()
    return [(float(answered) - ids[message_id]) * 1000 for message_id, answered in rows]

"""Batches with a callback for every delivery: messages per second until the last callback came."""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.bulk import gateway, send
from bench.figures import Figure
from bench.peers.kannel import kannel_per_s
from bench.peers.smsc import running_smsc
from bench.receiver import SECRET, Seen
from bench.single import MakeTemporal
from local.folders import temporary_folder
from local.processes import Child, free_port, listens

EVENTS_A_REQUEST = 100
TO_THIS_MACHINE = """
[callbacks]
allow_private_addresses = true
"""
CONFIGURATION = f"""
[accounts.default]
callback_final_only = true
callback_events_per_request = {EVENTS_A_REQUEST}
{TO_THIS_MACHINE}"""
_BATCHES = 10


def bulk_callbacks(temporal: MakeTemporal | None = None, messages: int = 100_000) -> list[Figure]:
    """Messages in ten batches, from the first request until the last callback has come.

    Raises:
        RuntimeError: a callback is missing, came before an earlier one, or was not signed.
    """
    with gateway(CONFIGURATION, temporal=temporal) as peers, receiver(peers.client) as url:
        client = peers.client
        send(client, 0, 1000, callback_url=f"{url}/warm")  # plans are made, caches are filled
        peers.until_delivered()
        began = time.time()
        with ThreadPoolExecutor(2) as threads:
            list(
                threads.map(
                    lambda n: send(client, n, messages // _BATCHES, callback_url=f"{url}/sms"),
                    range(1, _BATCHES + 1),
                )
            )
        figure = _figure(_reported(url, messages), messages, began)
    return [figure]


def kannel_ratio(temporal: MakeTemporal | None = None, messages: int = 100_000) -> list[Figure]:
    """Ours against Kannel, each with a callback for each delivery, one after the other, five times."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(5):
        with temporary_folder() as folder, running_smsc(folder) as smsc:
            theirs.append(kannel_per_s(smsc.port, folder, messages))
        ours.append(bulk_callbacks(temporal, messages)[0].value)
    return [
        Figure(
            "kannel_ratio",
            value=round(statistics.median(ours) / statistics.median(theirs), 2),
            unit="ratio",
            note=f"medians of five runs in turns, {messages} messages each: "
            f"{statistics.median(ours):.0f}/s against {statistics.median(theirs):.0f}/s of "
            "Kannel 1.4.5, which keeps nothing durable",
        )
    ]


def _figure(seen: Seen, messages: int, began: float) -> Figure:
    took = seen.last_at - began
    return Figure(
        "bulk_callbacks_per_s",
        value=round(messages / took, 1),
        unit="messages/s",
        note=f"ten batches of {messages // _BATCHES}, from acceptance to the last callback; "
        f"{seen.events} callbacks in {seen.requests} requests, {seen.copies} copies, each "
        "in order, every 50th request's signature checked",
    )


def _reported(url: str, messages: int, within: float = 600) -> Seen:
    """What the receiver has seen, once all callbacks have come."""
    ends = time.perf_counter() + within
    seen = Seen()
    with httpx.Client() as client:
        while time.perf_counter() < ends:
            seen = Seen(**client.get(f"{url}/seen").json())
            if seen.out_of_order or seen.badly_signed:
                raise RuntimeError(f"callbacks out of order or badly signed: {seen}")
            if seen.messages == messages:
                if seen.events != messages:
                    raise RuntimeError(f"more callbacks than deliveries: {seen}")
                return seen
            time.sleep(0.5)
    raise RuntimeError(f"callbacks are missing after {within:g} s: {seen}")


@contextmanager
def receiver(client: httpx.Client) -> Iterator[str]:
    """A customer's server in a process of its own; gives its address."""
    secret = client.get("/api/v1/callbacks/secret").json()["secret"]
    port = free_port()
    with temporary_folder() as folder:
        child = Child(
            "receiver",
            [sys.executable, "-m", "bench.receiver", str(port)],
            log=folder / "receiver.log",
            environment={**os.environ, SECRET: secret},
            folder=Path(__file__).parent.parent,
        )
        child.start()
        try:
            child.wait_for(lambda: listens(port), seconds=20, what="listening")
            yield f"http://127.0.0.1:{port}"
        finally:
            child.stop()

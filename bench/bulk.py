"""Batches on the embedded stack, against an SMSC of others: how many messages a second."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from bench.figures import Figure, percentile
from bench.peers.smsc import running_smsc
from bench.single import BODY, memory_mb, running
from local.folders import temporary_folder
from local.stack import Stack

BATCH = 10_000
CONFIGURATION = """\
[providers.primary]
type = "smpp"
host = "127.0.0.1"
port = {port}
system_id = "bench"
password = "env:SMSGATEWAY_BENCH_PASSWORD"
binds = 2
window = 500

[[routes]]
providers = ["primary"]
"""


def bulk_100k() -> list[Figure]:
    """100,000 messages in ten batches, from the first request to the last delivery."""
    with gateway() as (stack, client):
        send(client, 0, 1000)  # plans are made, caches are filled
        until_delivered(client, 1)
        began = time.perf_counter()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda n: send(client, n, BATCH), range(1, 11)))
        until_delivered(client, 11)
        took = time.perf_counter() - began
        memory = memory_mb(stack.child("worker").pid)
    return [
        Figure(
            "bulk_100k_per_s",
            value=round(10 * BATCH / took, 1),
            unit="messages/s",
            note=f"ten batches of {BATCH}, accepted to delivered with receipts; one worker, which "
            f"holds {memory:.0f} MB at the end",
        )
    ]


def batch_accept() -> list[Figure]:
    """Recipients accepted a second, 1,000 in a request, two requests at a time, nothing sent."""
    with gateway() as (stack, client):
        stack.kill_worker()
        send(client, 0, 1000)
        took: list[float] = []

        def request(number: int) -> None:
            began = time.perf_counter()
            send(client, number, 1000)
            took.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(request, range(1, 41)))
        seconds = time.perf_counter() - began
    return [
        Figure(
            "batch_accept_per_s",
            value=round(40_000 / seconds, 1),
            unit="recipients/s",
            p50=round(percentile(took, 50), 1),
            p99=round(percentile(took, 99), 1),
            note="1,000 a request, two at a time, no worker; p50 and p99 in ms of a request",
        )
    ]


@contextmanager
def gateway(more: str = "") -> Iterator[tuple[Stack, httpx.Client]]:
    """The stack with the SMSC of others behind it; `more` goes into its configuration."""
    with temporary_folder() as folder, running_smsc(folder) as port:
        configuration = folder / "bench.toml"
        configuration.write_text(CONFIGURATION.format(port=port) + more)
        with running(folder / "stack", configuration) as stack:
            headers = {"Authorization": f"Bearer {stack.api_key.secret}"}
            with httpx.Client(base_url=stack.api_url, headers=headers, timeout=60) as client:
                yield stack, client


def send(client: httpx.Client, number: int, count: int, **more: str) -> None:
    """Send a batch to so many numbers; `more` goes into the request."""
    recipients = [
        {"to": f"+4477{10_000_000 + place}", "variables": {"n": str(place)}}
        for place in range(count)
    ]
    body: dict[str, Any] = {"from": "AbilIT", "body": f"{BODY} ({number}/{{n}})", **more}
    answer = client.post(
        "/api/v1/sms/batches",
        content=json.dumps(body | {"recipients": recipients}),
        headers={"Content-Type": "application/json"},
    )
    if answer.status_code != httpx.codes.ACCEPTED:
        raise RuntimeError(f"the API answered {answer.status_code}: {answer.text[:300]}")


def until_delivered(client: httpx.Client, batches: int, within: float = 600) -> None:
    """Returns when the newest batches have nothing open any more."""
    ends = time.perf_counter() + within
    while time.perf_counter() < ends:
        found = client.get("/api/v1/sms/batches", params={"limit": batches}).json()["items"]
        if len(found) == batches and not any(batch["open"] for batch in found):
            return
        time.sleep(0.5)
    raise RuntimeError(f"not all messages were delivered within {within:g} s")

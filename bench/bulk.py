"""Batches on the embedded stack, against an SMSC of others: how many messages a second."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg

from bench.figures import Figure, percentile
from bench.peers.smsc import PeerSmsc, running_smsc
from bench.single import BODY, MakeTemporal, configuration_for, memory_mb, running
from local.folders import temporary_folder
from local.stack import WORKERS, Stack
from store.transitions import OPEN as IS_OPEN

BATCH = 10_000
_OPEN_MESSAGES = f"""
SELECT FROM bulks b CROSS JOIN LATERAL (
    SELECT FROM messages m WHERE m.id BETWEEN b.first_id AND b.last_id AND m.bulk_id = b.id
      AND {IS_OPEN} LIMIT 1
) m
WHERE b.check_by IS NOT NULL
UNION ALL SELECT FROM messages WHERE check_by IS NOT NULL
"""  # noqa: S608 - constants of ours
OPEN = f"{_OPEN_MESSAGES} LIMIT 1"
"""Finds something for as long as a message is not at its end."""
OPEN_OF_BATCHES = f"{_OPEN_MESSAGES} AND bulk_id IS NOT NULL LIMIT 1"
"""The same for messages that came in batches or groups."""
_WINDOWS = "binds = {binds}\nwindow = 500\n"


def bulk_100k(temporal: MakeTemporal | None = None) -> list[Figure]:
    """100,000 messages in ten batches, from the first request to the last delivery."""
    with gateway(temporal=temporal) as peers:
        rate, memory = _measured(peers, 100_000)
    return [
        Figure(
            "bulk_100k_per_s",
            value=round(rate, 1),
            unit="messages/s",
            note=f"ten batches of {BATCH}, accepted to delivered with receipts; {WORKERS} workers, "
            f"of {memory:.0f} MB at most",
        )
    ]


def bulk_1m(temporal: MakeTemporal | None = None) -> list[Figure]:
    """A million messages against ten thousand, one after the other in the same database."""
    with gateway(temporal=temporal) as peers:
        few = max(_measured(peers, 10_000)[0] for _ in range(3))
        many, memory = _measured(peers, 1_000_000)
    return [
        Figure(
            "bulk_1m_over_10k",
            value=round(many / few, 2),
            unit="ratio",
            note=f"{many:.0f}/s for 1,000,000 in batches of {BATCH}; {few:.0f}/s for 10,000, the "
            "best of three",
        ),
        Figure(
            "bulk_1m_rss_mb",
            value=round(memory, 1),
            unit="MB",
            note=f"the largest of {WORKERS} workers, at any time during the 1,000,000",
        ),
    ]


def _measured(peers: "Peers", messages: int) -> tuple[float, float]:
    """Messages a second, from the first request to the last delivery; the most that a worker held."""
    peers.warm_up()
    memory = 0.0
    began = time.time()
    with ThreadPoolExecutor(2) as threads:
        for _ in threads.map(
            lambda n: send(peers.client, n, BATCH), range(1, messages // BATCH + 1)
        ):
            memory = max(memory, peers.memory_mb())
    took = peers.until_delivered() - began
    return messages / took, max(memory, peers.memory_mb())


def receipts_in(temporal: MakeTemporal | None = None) -> list[Figure]:
    """Receipts a second, of messages that were sent long before, while nothing else runs."""
    messages = 50_000
    with gateway(holding=True, temporal=temporal) as peers:
        send(peers.client, 0, BATCH // 10)
        for number in range(1, messages // BATCH + 1):
            send(peers.client, number, BATCH)
        peers.until("SELECT FROM messages WHERE status IN ('queued', 'sending') LIMIT 1")
        began = time.time()
        peers.smsc.report()
        took = peers.until_delivered() - began
    return [
        Figure(
            "receipts_in_per_s",
            value=round((messages + BATCH // 10) / took, 1),
            unit="receipts/s",
            note=f"{messages + BATCH // 10} held by the SMSC until all messages were sent, then "
            "reported over the binds that they came by; until the last message was delivered",
        )
    ]


def batch_accept(temporal: MakeTemporal | None = None) -> list[Figure]:
    """Recipients accepted a second, 1,000 in a request, two requests at a time, nothing sent."""
    with gateway(workers=1, temporal=temporal) as peers:
        client = peers.client
        peers.stack.kill_worker()
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


@dataclass(frozen=True, slots=True)
class Peers:
    """A gateway, a client of it, and the SMSC of others behind it."""

    stack: Stack
    client: httpx.Client
    smsc: PeerSmsc

    def warm_up(self) -> None:
        """Send some; plans are made, caches are filled."""
        send(self.client, 0, 1000)
        self.until_delivered()

    def until_delivered(self, within: float = 900) -> float:
        """When the last message was delivered, in seconds since 1970; once none is open any more.

        Raises:
            RuntimeError: some still are, or have ended otherwise.
        """
        self.until(OPEN, within)
        with psycopg.connect(self.stack.database_url) as connection:
            others, last = connection.execute(
                "SELECT count(*) FILTER (WHERE status <> 'delivered'),"
                " CAST(extract(epoch FROM max(transitioned_at)) AS float8) FROM messages"
            ).fetchall()[0]
        if others:
            raise RuntimeError(f"{others} messages were not delivered")
        return float(last)

    def until(self, something: str, within: float = 900) -> None:
        """Returns when a query finds nothing any more; it is asked once a second, since it is work."""
        ends = time.perf_counter() + within
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            while connection.execute(something).fetchone() is not None:
                if time.perf_counter() > ends:
                    raise RuntimeError(f"still so after {within:g} s: {something}")
                time.sleep(1)

    def memory_mb(self) -> float:
        """What the largest worker holds."""
        return max(memory_mb(worker.pid) for worker in self.stack.workers)


@contextmanager
def gateway(
    more: str = "",
    *,
    provider: str = "",
    workers: int = WORKERS,
    holding: bool = False,
    beside: Sequence[str] = (),
    temporal: MakeTemporal | None = None,
) -> Iterator[Peers]:
    """The stack with the SMSC of others behind it.

    Args:
        more: goes into its configuration.
        provider: goes into what that says of each provider.
        workers: how many there are.
        holding: whether the SMSC keeps its receipts until they are released.
        beside: names of providers with SMSCs of their own, for what `primary` does not deliver.
        temporal: makes the Temporal, if it is not to be the development server.
    """
    with temporary_folder() as folder, ExitStack() as smscs:
        peers = {
            name: smscs.enter_context(running_smsc(folder / name, holding=holding))
            for name in ("primary", *beside)
        }
        ports = {name: smsc.port for name, smsc in peers.items()}
        configuration = folder / "bench.toml"
        configuration.write_text(
            configuration_for(ports, _WINDOWS.format(binds=2 * workers) + provider) + more
        )
        with running(folder / "stack", configuration, workers=workers, temporal=temporal) as stack:
            headers = {"Authorization": f"Bearer {stack.api_key.secret}"}
            with httpx.Client(base_url=stack.api_url, headers=headers, timeout=60) as client:
                yield Peers(stack, client, peers["primary"])


def send(client: httpx.Client, number: int, count: int, **more: str | int) -> None:
    """Send a batch to so many numbers; `more` goes into the request."""
    recipients = [
        {"to": f"+4477{10_000_000 + place}", "variables": {"n": str(place)}}
        for place in range(count)
    ]
    body: dict[str, Any] = {"from": "AbilIT", "body": f"{BODY} ({number}/{{n}})", **more}
    response = client.post(
        "/api/v1/sms/batches",
        content=json.dumps(body | {"recipients": recipients}),
        headers={"Content-Type": "application/json"},
    )
    if response.status_code != httpx.codes.ACCEPTED:
        raise RuntimeError(f"the API answered {response.status_code}: {response.text[:300]}")

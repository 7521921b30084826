"""A carrier that is dead for a minute in the middle of batches, with another one beside it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg

from bench.bulk import BATCH, OPEN_OF_BATCHES, Peers, gateway, send
from bench.figures import percentile
from bench.peers.smsc import PeerSmsc

_DEAD_SECONDS = 60
_ALERT_EVERY = 0.5
_ALERT_WITHIN = 2.0
"""Seconds in which a carrier has answered for an alert; one that was unknown is sent again."""


def outage(messages: int) -> dict[str, bool]:
    """Kill the first carrier for a minute; both lose what they had to report with a connection.

    The mode of the batches is one that must arrive: what is unknown is sent again, and what has no
    receipt in time goes to the next route.
    """
    with gateway(provider='receipt_deadline = "45s"', beside=["backup"]) as peers:
        return _proved(peers, messages)


def _proved(peers: Peers, messages: int) -> dict[str, bool]:
    began = time.monotonic()
    with _alerts(peers.client) as alerts, ThreadPoolExecutor(1) as thread:
        dying = thread.submit(_dead_for_a_minute, peers.smsc, messages // 4)
        for number in range(1, messages // BATCH + 1):
            send(peers.client, number, BATCH, mode="verification")
        dying.result()
        peers.until(OPEN_OF_BATCHES, within=600)
    took = time.monotonic() - began
    with psycopg.connect(peers.stack.database_url) as rows:
        statuses: dict[str, int] = dict(
            rows.execute("SELECT status, count(*) FROM messages GROUP BY status").fetchall()
        )
        by_backup = rows.execute(
            "SELECT count(*) FROM attempts WHERE provider = 'backup'"
        ).fetchone()
        waited = _waited(rows, alerts)
    print(
        f"{messages} messages in {took:.0f} s: {statuses}, {by_backup and by_backup[0]} attempts by "
        f"the backup; {len(waited)} alerts of {len(alerts)} answered by a carrier after "
        f"{percentile(waited, 50):.2f} s (p50), {max(waited):.2f} s (the last)"
    )
    return {
        "every message is delivered": set(statuses) == {"delivered"},
        "every alert has its response": len(waited) == len(alerts),
        f"no alert waited more than {_ALERT_WITHIN:g} s": max(waited) <= _ALERT_WITHIN,
    }


def _dead_for_a_minute(primary: PeerSmsc, after: int) -> None:
    primary.until_taken(after)
    print(f"{primary.so_far()} messages at the first carrier: it dies", flush=True)
    primary.kill()
    time.sleep(_DEAD_SECONDS)
    primary.start()
    print("it is back", flush=True)


@contextmanager
def _alerts(client: httpx.Client) -> Iterator[dict[str, float]]:
    """Send one after the other, two a second; gives when each was asked for, by its id."""
    stop = threading.Event()
    asked: dict[str, float] = {}

    def go_on() -> None:
        number = 0
        while not stop.wait(_ALERT_EVERY):
            number += 1
            body: dict[str, Any] = {
                "to": f"+447700900{100 + number % 900}",
                "from": "AbilIT",
                "body": f"Disk full on db-{number}",
                "mode": "alert",
            }
            at = time.time()
            response = client.post("/api/v1/sms/send", json=body).raise_for_status().json()
            asked[response["message_id"].removeprefix("msg_")] = at

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


def _waited(rows: psycopg.Connection[Any], alerts: dict[str, float]) -> list[float]:
    """Seconds from each request until a carrier had accepted the alert."""
    found = rows.execute(
        "SELECT replace(message_id::text, '-', ''), min(extract(epoch FROM responded_at))"
        " FROM all_parts WHERE provider_message_id IS NOT NULL"
        " AND replace(message_id::text, '-', '') = ANY(%s) GROUP BY 1",
        (list(alerts),),
    ).fetchall()
    return [float(answered) - alerts[message_id] for message_id, answered in found]

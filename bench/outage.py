"""A carrier that is dead for a minute in the middle of batches, with another one beside it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg

from bench.bulk import BATCH, send
from bench.figures import percentile
from bench.peers.smsc import PeerSmsc, running_smsc
from bench.single import running
from local.folders import temporary_folder
from local.stack import WORKERS, Stack

_CONFIGURATION = """\
[providers.primary]
type = "smpp"
host = "127.0.0.1"
port = {primary}
system_id = "bench"
password = "env:SMSGATEWAY_BENCH_PASSWORD"
binds = 2
window = 500
receipt_deadline = "45s"

[providers.backup]
type = "smpp"
host = "127.0.0.1"
port = {backup}
system_id = "bench"
password = "env:SMSGATEWAY_BENCH_PASSWORD"
binds = 2
window = 500
receipt_deadline = "45s"

[[routes]]
providers = ["primary", "backup"]
"""
_DEAD_SECONDS = 60
_ALERT_EVERY = 0.5
_ALERT_WITHIN = 2.0
"""Seconds in which a carrier has answered for an alert; one that was in doubt is sent again."""


def outage(messages: int) -> dict[str, bool]:
    """Kill the first carrier for a minute; both lose what they had to report with a connection.

    The mode of the batches is one that must arrive: what is in doubt is sent again, and what has no
    receipt in time goes to the next route.
    """
    with temporary_folder() as folder:
        for name in ("primary", "backup"):
            (folder / name).mkdir()
        with (
            running_smsc(folder / "primary") as primary,
            running_smsc(folder / "backup") as backup,
        ):
            file = folder / "bench.toml"
            file.write_text(_CONFIGURATION.format(primary=primary.port, backup=backup.port))
            with running(folder / "stack", file, workers=WORKERS) as stack:
                return _proved(stack, primary, messages)


def _proved(stack: Stack, primary: PeerSmsc, messages: int) -> dict[str, bool]:
    headers = {"Authorization": f"Bearer {stack.api_key.secret}"}
    began = time.monotonic()
    with (
        httpx.Client(base_url=stack.api_url, headers=headers, timeout=60) as client,
        psycopg.connect(stack.database_url, autocommit=True) as rows,
        _alerts(stack, headers) as alerts,
    ):
        dying = threading.Thread(target=_dead_for_a_minute, args=(primary, messages // 4))
        dying.start()
        for number in range(1, messages // BATCH + 1):
            send(client, number, BATCH, mode="verification")
        dying.join()
        _until_final(rows)
    took = time.monotonic() - began
    with psycopg.connect(stack.database_url) as rows:
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
        "every alert has its answer": len(waited) == len(alerts),
        f"no alert waited more than {_ALERT_WITHIN:g} s": max(waited) <= _ALERT_WITHIN,
    }


def _dead_for_a_minute(primary: PeerSmsc, after: int) -> None:
    while primary.so_far() < after:
        time.sleep(0.05)
    print(f"{primary.so_far()} messages at the first carrier: it dies", flush=True)
    primary.kill()
    time.sleep(_DEAD_SECONDS)
    primary.start()
    print("it is back", flush=True)


@contextmanager
def _alerts(stack: Stack, headers: dict[str, str]) -> Iterator[dict[str, float]]:
    """Send one after the other, two a second; gives when each was asked for, by its id."""
    stop = threading.Event()
    asked: dict[str, float] = {}

    def go_on() -> None:
        with httpx.Client(base_url=stack.api_url, headers=headers, timeout=60) as client:
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
                answer = client.post("/api/v1/sms/send", json=body).raise_for_status().json()
                asked[answer["message_id"].removeprefix("msg_")] = at

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


def _until_final(rows: psycopg.Connection[Any], within: float = 600) -> None:
    ends = time.monotonic() + within
    open_bulk = "SELECT FROM messages WHERE check_by IS NOT NULL AND bulk_id IS NOT NULL LIMIT 1"
    while rows.execute(open_bulk).fetchone() is not None:
        if time.monotonic() > ends:
            raise RuntimeError(f"messages are still open after {within:g} s")
        time.sleep(0.5)


def _waited(rows: psycopg.Connection[Any], alerts: dict[str, float]) -> list[float]:
    """Seconds from each request until a carrier had accepted the alert."""
    found = rows.execute(
        "SELECT replace(message_id::text, '-', ''), min(extract(epoch FROM answered_at))"
        " FROM all_parts WHERE provider_message_id IS NOT NULL"
        " AND replace(message_id::text, '-', '') = ANY(%s) GROUP BY 1",
        (list(alerts),),
    ).fetchall()
    return [float(answered) - alerts[message_id] for message_id, answered in found]

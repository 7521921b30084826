"""Promises kept at full speed: `python -m bench.proof deaths --messages 50000`, `pause`, `outage`.

Real servers, an SMSC of others, a customer's server for callbacks. Each says what it found, and ends
with 1 if a promise is not kept.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
import psycopg
from temporalio.client import Client

from bench.bulk import BATCH, OPEN, Peers, gateway, send
from bench.callbacks import EVENTS_A_REQUEST, TO_THIS_MACHINE, receiver
from bench.outage import outage
from bench.pause import pause
from bench.receiver import Seen
from telemetry.process import exit_cleanly

# Both transitions of each message, so that there is an order to be kept.
_EVERY_TRANSITION = f"""
[accounts.default]
callback_events_per_request = {EVENTS_A_REQUEST}
{TO_THIS_MACHINE}"""
_WINDOWS = 2 * 500
"""What a killed worker, or a reset, may leave unknown: the windows of two binds."""
_VALID_SECONDS = 150
"""Long enough for all that is done here: a receipt that a reset has lost is waited for until then."""
_KILLS = 5
_RESETS = 2


@dataclass(frozen=True, slots=True)
class Found:
    """What the rows say in the end."""

    by_status: dict[str, int]
    attempts: int
    ever_unknown: int
    longest_history: int


def main() -> int:
    """Run one of them."""
    proofs: Mapping[str, Callable[[int], Mapping[str, bool]]] = {
        "deaths": deaths,
        "pause": pause,
        "outage": outage,
    }
    parser = argparse.ArgumentParser(prog="python -m bench.proof")
    parser.add_argument("proof", choices=proofs)
    parser.add_argument("--messages", type=int, default=50_000)
    asked = parser.parse_args()
    promises = proofs[asked.proof](asked.messages)
    for promise, kept in promises.items():
        print(f"{'kept  ' if kept else 'BROKEN'} {promise}")
    return 0 if all(promises.values()) else 1


def deaths(messages: int) -> dict[str, bool]:
    """Batches while everything around them dies, some of it several times."""
    with gateway(_EVERY_TRANSITION, workers=1, provider='receipt_deadline = "45s"') as peers:
        with receiver(peers.client) as url:
            began = time.monotonic()
            for number in range(1, messages // BATCH + 1):
                send(
                    peers.client,
                    number,
                    BATCH,
                    callback_url=f"{url}/sms",
                    validity_period=_VALID_SECONDS,
                )
            _let_everything_die(peers, messages)
            peers.until(OPEN, within=600)
            took = time.monotonic() - began
            found = _found(peers)
            api = _api_counts(peers, messages // BATCH)
            seen = _reported(url, found.by_status.get("delivered", 0))
        counted = peers.smsc.counted()
    duplicates = counted["submitted"] - counted["different"]
    print(f"{messages} messages in {took:.0f} s: {found}; SMSC {counted}; callbacks {seen}")
    return {
        "every message is in a final state": sum(found.by_status.values()) == messages
        and set(found.by_status) <= {"delivered", "expired", "dead_letter", "failed"},
        "unknown are at most the windows for each kill and reset": found.ever_unknown
        <= _WINDOWS * (_KILLS + _RESETS),
        "the SMSC counts the attempts, but for those unknown": found.attempts - found.ever_unknown
        <= counted["submitted"]
        <= found.attempts,
        "duplicates are at most the unknown": duplicates <= found.ever_unknown,
        "the API counts as the rows do": api == found.by_status,
        "every delivery had its callback, in order, signed": seen.messages
        >= found.by_status.get("delivered", 0)
        and not seen.out_of_order
        and not seen.badly_signed,
        "no history above 5,000 events": found.longest_history <= 5000,
    }


def _let_everything_die(peers: Peers, messages: int) -> None:
    stack = peers.stack

    def kill_worker() -> None:
        stack.kill_worker()
        stack.start_worker()

    def kill_api() -> None:
        stack.kill_api()
        stack.start_api()

    def restart_temporal() -> None:
        stack.kill_temporal()
        stack.start_temporal()

    deaths: list[tuple[str, Callable[[], None]]] = [
        ("worker killed", kill_worker),
        ("SMSC reset", peers.smsc.reset),
        ("worker killed", kill_worker),
        ("API killed", kill_api),
        ("worker killed", kill_worker),
        ("Postgres restarted", stack.restart_postgres),
        ("worker killed", kill_worker),
        ("Temporal killed and started", restart_temporal),
        ("SMSC reset", peers.smsc.reset),
        ("worker killed", kill_worker),
    ]
    step = messages // (len(deaths) + 2)
    for number, (what, die) in enumerate(deaths, start=1):
        _until_begun(peers, number * step)
        print(f"{_begun(peers)} of {messages} begun: {what}", flush=True)
        die()


def _begun(peers: Peers) -> int:
    """How many messages were claimed at least once."""
    with psycopg.connect(peers.stack.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM attempts").fetchone()
    return int(row[0]) if row else 0


def _until_begun(peers: Peers, count: int, within: float = 300) -> None:
    ends = time.monotonic() + within
    while _begun(peers) < count:
        if time.monotonic() > ends:
            raise RuntimeError(f"{count} messages were not begun within {within:g} s")
        time.sleep(0.2)


async def _longest_history(peers: Peers) -> int:
    client = await Client.connect(peers.stack.temporal.address)
    lengths = [each.history_length async for each in client.list_workflows()]
    return max((length for length in lengths if length is not None), default=0)


def _found(peers: Peers) -> Found:
    with psycopg.connect(peers.stack.database_url) as connection:

        def one(statement: str) -> int:
            row = connection.execute(statement).fetchone()
            return int(row[0]) if row and row[0] is not None else 0

        by_status = connection.execute(
            "SELECT status, count(*) FROM messages GROUP BY status"
        ).fetchall()
        return Found(
            by_status={status: int(count) for status, count in by_status},
            attempts=one("SELECT count(*) FROM attempts"),
            ever_unknown=one(
                "SELECT sum(cardinality(message_ids)) FROM events_of_many"
                " WHERE kind = 'moved' AND status = 'unknown'"
            ),
            longest_history=asyncio.run(_longest_history(peers)),
        )


def _api_counts(peers: Peers, batches: int) -> dict[str, int]:
    listed = peers.client.get("/api/v1/sms/batches", params={"limit": batches}).json()["items"]
    found: dict[str, int] = {}
    for batch in listed:
        for each in batch["counts"]:
            found[each["status"]] = found.get(each["status"], 0) + each["messages"]
    return found


def _reported(url: str, delivered: int, within: float = 120) -> Seen:
    ends = time.monotonic() + within
    while True:
        seen = Seen(**httpx.get(f"{url}/seen").json())
        if seen.messages >= delivered or time.monotonic() > ends:
            return seen
        time.sleep(0.5)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_cleanly(main())

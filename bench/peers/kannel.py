"""Kannel 1.4.5 with delivery callbacks: how many messages a second, until the last callback.

bearerbox and smsbox run on the same cores as the SMSC and the load. Two binds with windows of 500
(`max-pending-submits`), as the gateway has them. Kannel keeps nothing durable here: no store file,
and `dlr-storage = internal`, so that what it has accepted, and whom to call back, is in its memory
alone. Its log level is 3 (errors), and there is no access log.

`dlr-mask=3` asks for a callback when a message was delivered or has failed. That is one for each
message, since an SMSC's response to a submit (8 and 16) is not asked for.

What was tried, alternating, on two cores that others used too: hence the spread, and the CPU time of
bearerbox and smsbox for a message beside the rate. Only what is in one block compares.

| 7 runs of 3,000 messages | best | median | CPU, median |
|---|---|---|---|
| 50 HTTP connections | 2,278/s | 1,748/s | 513 µs |
| the same, `smsbox-max-pending` 100 (default) | 2,237/s | 1,810/s | 523 µs |
| 100 connections | 2,247/s | 2,173/s | 540 µs |
| the same, `smsbox-max-pending` 100 (default): kept | 2,842/s | 2,011/s | 490 µs |
| 100 connections, windows of 100 | 3,061/s | 2,346/s | 487 µs |
| 100 connections, one bind | 2,627/s | 1,957/s | 493 µs |
| 100 connections, `immediate-sendsms-reply` | 2,724/s | 1,456/s | 530 µs |
| 150 connections | 2,688/s | 2,242/s | 527 µs |

| 4 runs of 4,000 messages | best | median | CPU, median |
|---|---|---|---|
| 20 connections | 2,147/s | 1,516/s | 521 µs |
| 50 connections | 2,871/s | 2,439/s | 494 µs |
| 100 connections | 3,554/s | 2,002/s | 440 µs |
| 200 connections | 3,129/s | 2,449/s | 476 µs |
| 200 connections, `immediate-sendsms-reply` | 2,816/s | 1,464/s | 542 µs |
| 50 connections, `immediate-sendsms-reply` | 2,750/s | 2,269/s | 594 µs |
| 50 connections, one bind | 2,124/s | 1,867/s | 516 µs |
| 50 connections, windows of 100 | 2,822/s | 1,776/s | 559 µs |
| 50 connections, ten recipients in a request | 1,954/s | 1,911/s | 481 µs |

Where both blocks say `smsbox-max-pending` nothing, it was 1,000. In two runs of 8,000 windows of 10
(2,072/s at best), `max-pending-requests` of 64 (2,618) and of 4,096 (2,059) were no faster than its
default of 512 (2,531), and `dlr-mask=1` (2,304) costs what `dlr-mask=3` does. The processors are the
limit, and no setting changes by much what a message costs of them: 100 connections keep them busy,
the windows are the gateway's, and all else is Kannel's default. Four binds are no faster (README.md).
"""

import argparse
import asyncio
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import httpx
import uvloop

from bench.load import callbacks, send_all
from bench.peers.smsc import running_smsc
from bench.single import BODY
from local.folders import temporary_folder
from local.processes import Child, free_port, listens
from telemetry.process import exit_cleanly

CONNECTIONS: Final = 100
BINDS: Final = 2
WARM_UP: Final = 1000
SLOWEST: Final = 100  # messages a second; slower than that is no measurement
DELIVERED_OR_FAILED: Final = 3  # dlr-mask: 1 delivered, 2 failed

# The passwords stand here because nobody but this process can reach the ports: 127.0.0.1 alone.
_CONFIGURATION: Final = """\
group = core
admin-port = {ports.admin}
admin-interface = 127.0.0.1
admin-password = bench
status-password = bench
smsbox-port = {ports.smsbox}
smsbox-interface = 127.0.0.1
box-allow-ip = 127.0.0.1
dlr-storage = internal

group = smsc
smsc = smpp
smsc-id = primary
host = 127.0.0.1
port = {ports.smsc}
smsc-username = bench
smsc-password = bench
system-type = ""
transceiver-mode = true
instances = {binds}
max-pending-submits = 500
source-addr-autodetect = yes

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {ports.sendsms}
sendsms-interface = 127.0.0.1

group = sendsms-user
username = bench
password = bench
"""
_CALLBACK: Final = re.compile(rb"GET /\?message=(?P<message>[0-9]+)&kind=(?P<kind>[0-9]+) ")
_DELIVERED: Final = b"1"


@dataclass(frozen=True, slots=True)
class _Ports:
    """All of 127.0.0.1."""

    smsc: int
    admin: int
    smsbox: int
    sendsms: int


def kannel_per_s(smsc_port: int, folder: Path, messages: int) -> float:
    """Measure messages a second, from the first request to the last delivery callback.

    Args:
        smsc_port: where the SMSC listens on 127.0.0.1.
        folder: for the configuration and the logs of both programs.
        messages: how many are measured; 1,000 more go before them.

    Raises:
        RuntimeError: Kannel is not installed, or did not take or report every message.
    """
    with _running(smsc_port, folder) as sendsms:
        return uvloop.run(_measure(sendsms, messages))


@contextmanager
def _running(smsc_port: int, folder: Path) -> Iterator[int]:
    """Both programs, all binds up; gives the port of sendsms."""
    ports = _Ports(smsc_port, free_port(), free_port(), free_port())
    configuration = folder / "kannel.conf"
    configuration.write_text(_CONFIGURATION.format(ports=ports, binds=BINDS))
    bearerbox, smsbox = (
        Child(name, [_program(name), "-v", "3", str(configuration)], log=folder / f"{name}.log")
        for name in ("bearerbox", "smsbox")
    )
    try:
        bearerbox.start()
        bearerbox.wait_for(lambda: listens(ports.admin), seconds=20, what="listening")
        bearerbox.wait_for(lambda: _binds(ports.admin) == BINDS, seconds=20, what="bound")
        smsbox.start()
        smsbox.wait_for(lambda: listens(ports.sendsms), seconds=20, what="listening")
        yield ports.sendsms
    finally:
        smsbox.stop()
        bearerbox.stop()


def _program(name: str) -> str:
    # Debian keeps them where the path of a user who is not root does not lead.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise RuntimeError(f"{name} is not installed: install Debian's package kannel.")
    return found


def _binds(admin: int) -> int:
    status = httpx.get(f"http://127.0.0.1:{admin}/status.txt", params={"password": "bench"})
    return status.text.count("(online ")


class _Reports:
    """Which messages were reported as delivered."""

    def __init__(self) -> None:
        self._delivered: set[bytes] = set()
        self._unexpected: list[bytes] = []
        self._awaited = 0
        self._complete = asyncio.Event()

    def take(self, head: bytes, _body: bytes) -> None:
        found = _CALLBACK.match(head)
        if found is None or found["kind"] != _DELIVERED or found["message"] in self._delivered:
            self._unexpected.append(head)
            return
        self._delivered.add(found["message"])
        if len(self._delivered) >= self._awaited:
            self._complete.set()

    async def until(self, count: int, *, within: float) -> None:
        """Wait until so many distinct messages were reported; `within` is in seconds.

        Raises:
            RuntimeError: some are missing, or a callback was not the only one about a delivery.
        """
        self._awaited = count
        if len(self._delivered) < count:
            self._complete.clear()
            try:
                await asyncio.wait_for(self._complete.wait(), within)
            except TimeoutError:
                raise RuntimeError(
                    f"Callbacks about {count - len(self._delivered)} of {count} messages were "
                    f"missing {within:g} s after the last request."
                ) from None
        if self._unexpected:
            raise RuntimeError(
                f"{len(self._unexpected)} callbacks were not the first about a delivery; "
                f"one of them: {self._unexpected[0][:200]!r}."
            )


async def _measure(sendsms: int, messages: int) -> float:
    reports = _Reports()
    port = free_port()
    total = WARM_UP + messages
    within = 60 + total / SLOWEST
    requests = [_request(number, port) for number in range(total)]
    async with callbacks(port, reports.take):
        await send_all(sendsms, requests[:WARM_UP], connections=CONNECTIONS, within=within)
        await reports.until(WARM_UP, within=within)
        began = time.perf_counter()
        await send_all(sendsms, requests[WARM_UP:], connections=CONNECTIONS, within=within)
        await reports.until(total, within=within)
        return messages / (time.perf_counter() - began)


def _request(number: int, callback_port: int) -> bytes:
    """One GET of sendsms; Kannel writes into `%d` what became of the message."""
    query = urlencode(
        {
            "username": "bench",
            "password": "bench",
            "from": "AbilIT",
            "to": f"+4477{10_000_000 + number}",
            "text": BODY,
            "dlr-mask": DELIVERED_OR_FAILED,
            "dlr-url": f"http://127.0.0.1:{callback_port}/?message={number}&kind=%d",
        }
    )
    return f"GET /cgi-bin/sendsms?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def main() -> int:
    """Measure once, with the SMSC started for it."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.kannel")
    parser.add_argument("--messages", type=int, default=20_000)
    messages = parser.parse_args().messages
    with temporary_folder() as folder, running_smsc(folder) as smsc:
        figure = kannel_per_s(smsc.port, folder, messages)
    print(f"Kannel: {figure:.0f} messages/s, {messages} with a callback for each delivery")
    return 0


if __name__ == "__main__":
    exit_cleanly(main())

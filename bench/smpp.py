"""The SMPP client alone: one bind, window 100, against jsmpp's SMSC, which nobody here wrote."""

import asyncio
import time

import uvloop

from bench.figures import Figure, percentile
from local.folders import temporary_folder
from smpp.client import connect
from smpp.commands import Command
from smpp.pdus import Pdu
from smpp.session import BindType, Session
from tests.conftest import Maven
from tests.foreign.jsmpp import COORDINATES, PASSWORD, SYSTEM_ID, Jsmpp

WINDOW = 100
MESSAGES = 60_000
WARM_UP = 20_000


def submits() -> list[Figure]:
    """Submits answered a second."""
    with temporary_folder() as folder:
        smsc = Jsmpp(Maven().classpath(COORDINATES), folder)
        smsc.start()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_submits(smsc.port))
        finally:
            smsc.stop()


async def _submits(port: int) -> list[Figure]:
    session = await connect(
        "127.0.0.1",
        port,
        system_id=SYSTEM_ID,
        password=PASSWORD,
        bind_type=BindType.TRANSCEIVER,
        window=WINDOW,
        on_request=_taken,
    )
    await _submit(session, WARM_UP)
    began = time.perf_counter()
    latencies = await _submit(session, MESSAGES)
    took = time.perf_counter() - began
    await session.unbind()
    return [
        Figure(
            "smpp_submit_per_s",
            value=round(MESSAGES / took),
            unit="submit_sm/s",
            p50=round(percentile(latencies, 50), 2),
            p99=round(percentile(latencies, 99), 2),
            note=f"{MESSAGES} submits, window {WINDOW}, one bind, jsmpp on the same cores; "
            "p50 and p99 in ms from request to answer",
        )
    ]


async def _taken(_: Session, request: Pdu) -> Pdu:
    """Jsmpp greets every bind with a message, and waits for its response."""
    return request.reply()


async def _submit(session: Session, count: int) -> list[float]:
    latencies: list[float] = []
    left = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in left:
            began = time.perf_counter()
            response = await session.request(Command.SUBMIT_SM, _FIELDS)
            latencies.append((time.perf_counter() - began) * 1000)
            if response.status:
                raise RuntimeError(f"the SMSC answered with 0x{response.status:08x}")

    await asyncio.gather(*(one_after_the_other() for _ in range(WINDOW)))
    return latencies


_FIELDS: dict[str, int | bytes] = {
    "source_addr_ton": 5,
    "source_addr": b"AbilIT",
    "dest_addr_ton": 1,
    "dest_addr_npi": 1,
    "destination_addr": b"447700900123",
    "short_message": b"ALERT: your service has triggered an incident, look at it.",
}

"""Single messages that come too fast for a workflow each: how many a second, how soon on the wire."""

import asyncio
import time

import uvloop

from bench.bulk import gateway
from bench.figures import Figure, percentile
from bench.single import BODY, WARM_UP, MakeTemporal, Sender, delivered, sender, with_own_smsc
from local.stack import WORKERS, Stack
from simulator.smsc import Smsc


def single_grouped(temporal: MakeTemporal | None = None) -> list[Figure]:
    """Messages a second, accepted to delivered, 256 requests in flight, by the SMSC of others."""
    with gateway(temporal=temporal) as peers:
        return uvloop.run(_single_grouped(peers.stack, messages=20_000, in_flight=256))


async def _single_grouped(stack: Stack, *, messages: int, in_flight: int) -> list[Figure]:
    answered: list[float] = []
    async with sender(stack, connections=in_flight) as client:
        await _send_all(client, 1000, in_flight, [])
        await delivered(stack, 1000)
        began = time.perf_counter()
        await _send_all(client, messages, in_flight, answered)
        accepted = time.perf_counter() - began
        await delivered(stack, 1000 + messages)
        took = time.perf_counter() - began
    return [
        Figure(
            "single_grouped_per_s",
            value=round(messages / took, 1),
            unit="messages/s",
            p50=round(percentile(answered, 50), 1),
            p99=round(percentile(answered, 99), 1),
            note=f"{messages} requests, {in_flight} in flight, accepted at "
            f"{messages / accepted:.0f}/s; p50 and p99 in ms of a response",
        )
    ]


async def _send_all(client: Sender, messages: int, in_flight: int, answered: list[float]) -> None:
    numbers = iter(range(messages))

    async def send() -> None:
        for number in numbers:
            began = time.perf_counter()
            await client.send(number)
            answered.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(send() for _ in range(in_flight)))


def grouped_wire(temporal: MakeTemporal | None = None) -> list[Figure]:
    """From before the request to the SMSC's reading of the submit_sm, at 300 requests a second."""
    return uvloop.run(_grouped_wire(temporal, rate=300, seconds=20))


async def _grouped_wire(temporal: MakeTemporal | None, *, rate: int, seconds: int) -> list[Figure]:
    async with (
        with_own_smsc(workers=WORKERS, temporal=temporal) as (stack, smsc),
        sender(stack, connections=256) as client,
    ):
        latencies = await _latencies(stack, smsc, client, rate, rate * seconds)
    return [
        Figure(
            "grouped_wire_ms",
            value=round(percentile(latencies, 50), 1),
            unit="ms",
            p50=round(percentile(latencies, 50), 1),
            p99=round(percentile(latencies, 99), 1),
            note=f"p50 of {len(latencies)} messages at {rate}/s",
        )
    ]


async def _latencies(
    stack: Stack, smsc: Smsc, client: Sender, rate: int, messages: int
) -> list[float]:
    for number in range(WARM_UP):
        await client.send(number)
    await delivered(stack, WARM_UP)
    smsc.forget()
    began: dict[str, float] = {}
    requests: set[asyncio.Task[None]] = set()
    start = time.perf_counter()
    for number in range(messages):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        text = f"{BODY} ({number})"
        began[text] = time.time()
        task = asyncio.create_task(client.send(number, text))
        requests.add(task)
        task.add_done_callback(requests.discard)
    await asyncio.gather(*requests)
    await smsc.until(lambda: len(smsc.messages) >= messages, within=60)
    return [
        (message.parts[0].accepted_at.timestamp() - began[message.text]) * 1000
        for message in smsc.messages
    ]

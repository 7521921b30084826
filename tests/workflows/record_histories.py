"""Records histories for `test_replay.py`, each a situation on the real parts.

Not a test, and run by hand, when a situation is new or a workflow has changed:

    python -m pytest tests/workflows/record_histories.py

What is recorded already stays as it is: messages may be under way that began with the code of that
time. Delete a file only when that cannot be any more, and give a new recording a new name.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from domain import deadlines
from domain.modes import Mode
from domain.receipts import ReceiptState
from services.batches import BatchCommand, Recipient
from services.submission import Accepted
from simulator.behaviour import Behaviour, ReceiptStep, Response
from store import providers
from telemetry.temporal import DATA_CONVERTER
from tests.fakes.callback_receiver import CallbackReceiver, Reply
from tests.gateway import CONFIGURATION, Gateway, running_gateway, uuid_of
from tests.workflows.test_days import QuietSweeps
from workflows import reconciler
from workflows.callbacks import callback_workflow_id
from workflows.ports.bulk import bulk_workflow_id
from workflows.ports.send import send_workflow_id
from workflows.reconciler import RECONCILER, ReconcilerWorkflow, SweepResult

HISTORIES = Path(__file__).parent / "histories"

NUMBER = "+447700900123"
BODY = "Xylophone rehearsal moved"
LONG = "Xylophone rehearsal moved 🎶 again, and nobody told the bassoons. " * 3
SECRETS = ("7700900", "447700900123", "xylophone", "rehearsal", "bassoons", "whsec_")
"""Of what was sent while recording: none of it may stand in a history, in any case of letters."""


@pytest.fixture
async def client(temporal_server: Any, temporal_namespace: str) -> Client:
    """A client as production has it, by a name that tells nothing of this machine."""
    return await Client.connect(
        temporal_server.address,
        namespace=temporal_namespace,
        data_converter=DATA_CONVERTER,
        identity="client",
    )


@pytest.fixture
async def open_gateway(
    database_url: str, client: Client
) -> AsyncIterator[Callable[..., Awaitable[Gateway]]]:
    async with AsyncExitStack() as stack:

        async def opened(**what: Any) -> Gateway:
            what.setdefault("response_timeout", "1s")
            return await stack.enter_async_context(running_gateway(database_url, client, **what))

        yield opened


@pytest.fixture
async def gateway(open_gateway: Callable[..., Awaitable[Gateway]]) -> Gateway:
    return await open_gateway()


async def keep(client: Client, workflow_id: str, path: str, *, ends: bool = True) -> None:
    """Write a history down, once it has ended, unless there is one of this name."""
    file = HISTORIES / f"{path}.json"
    if file.exists():
        pytest.skip(f"{file.name} is recorded already")
    handle = client.get_workflow_handle(workflow_id)
    if ends:
        await asyncio.wait_for(handle.result(), 20)
    history = json.loads((await handle.fetch_history()).to_json())
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(_without_names(history), indent=1) + "\n")


# What stands in for that which tells of the machine that recorded.
_IN_PLACE_OF = {"identity": "worker", "stackTrace": ""}


def _without_names(value: Any) -> Any:
    """Without the names of the machine, of its processes and of its folders."""
    if isinstance(value, dict):
        return {
            key: _IN_PLACE_OF.get(key, _without_names(content)) for key, content in value.items()
        }
    if isinstance(value, list):
        return [_without_names(content) for content in value]
    if isinstance(value, str) and (socket.gethostname() in value or f"{os.getpid()}@" in value):
        return "worker"
    return value


async def send(gateway: Gateway, **what: Any) -> Accepted:
    return await gateway.send(to=NUMBER, **{"body": BODY} | what)


async def keep_send(gateway: Gateway, message: Accepted, situation: str, status: str) -> None:
    await gateway.until(message, status)
    await keep(gateway.client, send_workflow_id(message.message_id), f"send/{situation}")


# --- a message's way ---------------------------------------------------------------------------

REFUSED = Behaviour(response=Response.REFUSE, status="ESME_RSUBMITFAIL")
SILENT = Behaviour(response=Response.SILENCE, receipts=())

# By situation: how the primary behaves, what is sent, and how it ends.
SITUATIONS: dict[str, tuple[Behaviour, dict[str, Any], str]] = {
    "delivered": (Behaviour(), {}, "delivered"),
    "delivered_by_a_step_decided_at_accept": (Behaviour(), {}, "delivered"),
    "delivered_in_parts": (Behaviour(), {"body": LONG}, "delivered"),
    "delivered_before_it_was_answered": (
        Behaviour(receipts=(ReceiptStep(early=True),), latency=0.2),
        {},
        "delivered",
    ),
    "delivered_after_enroute": (
        Behaviour(
            receipts=(
                ReceiptStep(state=ReceiptState.ENROUTE, after=0.1),
                ReceiptStep(after=0.5),
            )
        ),
        {},
        "delivered",
    ),
    "refused_then_delivered_by_the_next": (REFUSED, {}, "delivered"),
    "refused_for_good": (
        Behaviour(response=Response.REFUSE, status="ESME_RINVDSTADR"),
        {},
        "failed",
    ),
    "rejected_by_receipt_then_delivered_by_the_next": (
        Behaviour(receipts=(ReceiptStep(state=ReceiptState.REJECTED),)),
        {},
        "delivered",
    ),
    "undeliverable": (
        Behaviour(receipts=(ReceiptStep(state=ReceiptState.UNDELIVERABLE),)),
        {},
        "failed",
    ),
    "throttled_then_delivered": (
        Behaviour(response=Response.REFUSE, status="ESME_RTHROTTLED", times=1),
        {},
        "delivered",
    ),
    "a_part_sent_again": (
        Behaviour(response=Response.REFUSE, status="ESME_RTHROTTLED", part=2, times=1),
        {"body": LONG},
        "delivered",
    ),
    "unknown_then_delivered": (
        Behaviour(response=Response.SILENCE, taken=True, receipts=(ReceiptStep(after=2),)),
        {},
        "delivered",
    ),
    "unknown_then_sent_again": (SILENT, {"mode": Mode.ALERT}, "delivered"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_send(gateway: Gateway, situation: str):
    behaviour, what, status = SITUATIONS[situation]
    gateway.primary.set_default(behaviour)
    await keep_send(gateway, await send(gateway, **what), situation, status)


async def test_send_unknown_to_its_end(open_gateway):
    gateway = await open_gateway(receipt_deadline="2s")
    gateway.primary.set_default(SILENT)
    waits, never = await send(gateway), await send(gateway, mode=Mode.PROMOTIONAL)
    await keep_send(gateway, waits, "unknown_then_a_dead_letter", "dead_letter")
    await keep_send(gateway, never, "unknown_then_expired", "expired")


async def test_send_cancelled_at_provider_for_the_next_route(open_gateway):
    gateway = await open_gateway(receipt_deadline="2s")
    gateway.primary.set_default(Behaviour(receipts=()))
    message = await send(gateway, mode=Mode.ALERT)
    await keep_send(
        gateway, message, "cancelled_at_provider_then_delivered_by_the_next", "delivered"
    )


async def test_send_expired(gateway: Gateway, monkeypatch):
    monkeypatch.setattr(deadlines, "AFTER_VALIDITY", timedelta())
    gateway.primary.set_default(Behaviour(receipts=()))
    message = await send(gateway, validity=timedelta(seconds=5))
    await keep_send(gateway, message, "expired_without_a_receipt", "expired")


async def test_send_in_an_outage(open_gateway):
    gateway = await open_gateway(more='[modes.transactional]\noutage_patience = "2s"')
    await gateway.primary.outage()
    await gateway.backup.outage()
    await gateway.providers_up()
    message = await send(gateway)
    await keep_send(gateway, message, "outage_then_a_dead_letter", "dead_letter")
    await gateway.backup.outage(on=False)
    await gateway.providers_up("backup")
    await gateway.services.dead_letters.replay(
        gateway.caller, message_ids=[message.message_id], provider=None, limit=1
    )
    await gateway.services.dead_letters.drained()
    await keep_send(gateway, message, "replayed_then_delivered", "delivered")


async def test_send_scheduled(gateway: Gateway):
    message = await send(gateway, scheduled_at=datetime.now(UTC) + timedelta(seconds=2))
    await keep_send(gateway, message, "scheduled_then_delivered", "delivered")


async def test_send_scheduled_and_cancelled(gateway: Gateway):
    message = await send(gateway, scheduled_at=datetime.now(UTC) + timedelta(hours=2))
    await began(gateway, message)
    await gateway.services.messages.cancel(gateway.caller, message.message_id)
    await keep_send(gateway, message, "scheduled_then_cancelled", "canceled")


async def test_send_cancelled_at_provider_for_a_cancel(gateway: Gateway):
    gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=600),)))
    message = await send(gateway)
    await gateway.until(message, "sent")
    await gateway.services.messages.cancel(gateway.caller, message.message_id)
    await keep_send(gateway, message, "cancelled_at_provider_for_a_cancel", "canceled")


async def test_send_taken_over(gateway: Gateway):
    gateway.primary.set_default(Behaviour(hold=True))
    message = await send(gateway)
    await gateway.until(message, "sent")
    await gateway.execute(
        "UPDATE messages SET epoch = epoch + 1 WHERE id = :id", id=uuid_of(message)
    )
    gateway.services.publisher.signal_runner(send_workflow_id(message.message_id), "sent")
    await keep_send(gateway, message, "taken_over_by_another_runner", "sent")


async def test_send_to_a_worker_that_is_gone(gateway: Gateway):
    await gateway.primary.outage()
    await gateway.providers_up("backup")
    async with gateway.services.database.begin() as connection:
        providers.record_heartbeat(
            connection,
            providers.Heartbeat("primary", "ghost", ["providers"], 1, 1, "up", ["providers"]),
        )
    await gateway.execute(
        "UPDATE provider_workers SET heartbeat_at = now() - interval '6 s' WHERE worker = 'ghost'"
    )
    message = await send(gateway, mode=Mode.ALERT)
    await keep_send(gateway, message, "no_worker_then_delivered_by_the_next", "delivered")


async def test_send_whose_answer_was_not_recorded(gateway: Gateway, monkeypatch):
    async def lost(*_: object) -> None:
        monkeypatch.undo()
        raise ConnectionResetError(104, f"{NUMBER}: {BODY}")

    gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=3),)))
    monkeypatch.setattr(gateway.services.delivery, "record", lost)
    message = await send(gateway)
    await keep_send(gateway, message, "delivered_though_its_answer_was_not_recorded", "delivered")


async def test_send_while_the_database_is_away(gateway: Gateway, monkeypatch):
    real, failures = gateway.services.delivery.decide, iter(range(3))

    async def decide(*arguments: Any) -> Any:
        if next(failures, None) is not None:
            raise ConnectionResetError(104, f"{NUMBER}: {BODY}")
        return await real(*arguments)

    monkeypatch.setattr(gateway.services.delivery, "decide", decide)
    message = await send(gateway)
    await keep_send(gateway, message, "delivered_after_the_database_was_away", "delivered")


async def test_send_under_way(gateway: Gateway):
    gateway.primary.set_default(Behaviour(hold=True))
    message = await send(gateway)
    await gateway.until(message, "sent")
    await asyncio.sleep(0.5)
    workflow_id = send_workflow_id(message.message_id)
    await keep(gateway.client, workflow_id, "send/waiting_for_a_receipt", ends=False)


async def began(gateway: Gateway, message: Accepted) -> None:
    handle = gateway.client.get_workflow_handle(send_workflow_id(message.message_id))
    while (await handle.describe()).history_length < 5:
        await asyncio.sleep(0.05)


# --- many messages -----------------------------------------------------------------------------

SMALL_WINDOWS = CONFIGURATION.replace("echoes_reference", "window = 5\nechoes_reference")


async def send_batch(gateway: Gateway, count: int, **what: Any) -> str:
    """Send a batch to numbers that are documented for tests; its id."""
    command = BatchCommand(
        sender="AbilIT",
        body=BODY,
        recipients=[Recipient(f"{NUMBER[:-3]}{n + 100}") for n in range(count)],
        digest=b"",
        **what,
    )
    accepted = await gateway.services.batches.accept(gateway.caller, command)
    return f"bat_{accepted.view.batch.id.hex}"


async def keep_bulk(gateway: Gateway, batch: str, situation: str) -> None:
    await keep(gateway.client, bulk_workflow_id(batch), f"bulk/{situation}")


async def test_bulk(gateway: Gateway):
    await keep_bulk(gateway, await send_batch(gateway, 50), "delivered")


async def test_bulk_refused_then_delivered_by_the_next(gateway: Gateway):
    gateway.primary.set_default(REFUSED)
    batch = await send_batch(gateway, 20)
    await keep_bulk(gateway, batch, "refused_then_delivered_by_the_next")


async def test_bulk_paused_and_resumed(open_gateway):
    gateway = await open_gateway(configuration=SMALL_WINDOWS)
    gateway.primary.set_default(Behaviour(latency=0.2))
    batch = await send_batch(gateway, 60)
    await asyncio.sleep(0.5)
    await gateway.services.batches.pause(gateway.caller, batch)
    await asyncio.sleep(1.5)
    await gateway.services.batches.resume(gateway.caller, batch)
    await keep_bulk(gateway, batch, "paused_and_resumed")


async def test_bulk_scheduled(gateway: Gateway):
    batch = await send_batch(gateway, 5, scheduled_at=datetime.now(UTC) + timedelta(seconds=2))
    await keep_bulk(gateway, batch, "scheduled_then_delivered")


async def test_bulk_while_no_carrier_is_up(gateway: Gateway):
    for smsc in (gateway.primary, gateway.backup):
        await smsc.outage()
    await gateway.providers_up()
    batch = await send_batch(gateway, 5)
    await asyncio.sleep(2)
    for smsc in (gateway.primary, gateway.backup):
        await smsc.outage(on=False)
    await keep_bulk(gateway, batch, "outage_then_delivered")


# --- callbacks ---------------------------------------------------------------------------------


async def test_callbacks(gateway: Gateway):
    async with CallbackReceiver() as customer:
        message = await send(gateway, callback_url=customer.url())
        await gateway.until(message, "delivered")
        await customer.received(2)
        await keep_lane(gateway, "sent_and_delivered")


async def test_callbacks_that_are_retried(open_gateway):
    gateway = await open_gateway(more='[callbacks]\nretry_delays = ["1s", "1s", "1s"]')
    async with CallbackReceiver() as customer:
        customer.will_respond(500, 500)
        gateway.primary.set_default(Behaviour(receipts=()))
        await send(gateway, callback_url=customer.url())
        await customer.received(3)
        await keep_lane(gateway, "retried_then_delivered")


async def test_callbacks_whose_receiver_hangs(open_gateway, monkeypatch):
    monkeypatch.setattr("services.callbacks.slice._HANGS_FROM_SECONDS", 0.5)
    gateway = await open_gateway(more='[callbacks]\ntimeout = "1s"\nretry_delays = ["1s", "1s"]')
    async with CallbackReceiver() as customer:
        customer.will_respond(Reply(delay=60), Reply(delay=60))
        gateway.primary.set_default(Behaviour(receipts=()))
        await send(gateway, callback_url=customer.url())
        await customer.received(3, within=60)
        await keep_lane(gateway, "drained_apart_while_its_receiver_hangs")


async def keep_lane(gateway: Gateway, situation: str) -> None:
    (lane,) = await gateway.fetch("SELECT id FROM endpoints")
    await keep(gateway.client, callback_workflow_id(str(lane["id"])), f"callbacks/{situation}")


# --- the reconciler ----------------------------------------------------------------------------


class BusySweeps(QuietSweeps):
    """Finds a full batch at first."""

    @activity.defn
    async def sweep(self) -> SweepResult:
        self.rounds += 1
        return SweepResult(200, 0, 0, more=self.rounds < 3)


@pytest.mark.parametrize(
    ("sweeps", "situation"), [(QuietSweeps(), "quiet"), (BusySweeps(), "busy")]
)
async def test_reconciler(client: Client, monkeypatch, sweeps: QuietSweeps, situation: str):
    async with reconciling(client, sweeps):
        await client.start_workflow(ReconcilerWorkflow.run, id="reconciler", task_queue=RECONCILER)
        while sweeps.rounds < 4:
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        await keep(client, "reconciler", f"reconciler/{situation}", ends=False)


async def test_reconciler_begun_anew(client: Client, monkeypatch):
    sweeps = QuietSweeps()
    with monkeypatch.context() as patched:
        patched.setattr(reconciler, "_ROUNDS", 1)
        async with reconciling(client, sweeps, workflow_runner=UnsandboxedWorkflowRunner()):
            await client.start_workflow(
                ReconcilerWorkflow.run, id="reconciler", task_queue=RECONCILER
            )
            while sweeps.rounds < 2:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
            await keep(client, "reconciler", "reconciler/begun_anew", ends=False)


def reconciling(client: Client, sweeps: QuietSweeps, **what: Any) -> Worker:
    return Worker(
        client,
        task_queue=RECONCILER,
        workflows=[ReconcilerWorkflow],
        activities=[sweeps.mark_everything_due, sweeps.sweep],
        **what,
    )

"""What was forgotten is taken up again: Temporal away, runners gone, signals lost, races."""

import asyncio
from collections.abc import Callable

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from simulator.behaviour import Behaviour, ReceiptStep
from tests.gateway import Gateway, gateway, running_gateway, uuid_of
from workflows.ports.send import send_workflow_id
from workflows.reconciler import ReconcilerWorkflow

__all__ = ["gateway"]


async def check_now(gateway: Gateway, *messages) -> None:
    """Let the reconciler look at messages at once, not when their time has come."""
    await gateway.execute(
        "UPDATE messages SET check_by = now() - interval '1 second' WHERE id = ANY(:ids)"
        " AND check_by IS NOT NULL",
        ids=[uuid_of(message) for message in messages],
    )


class Away:
    """A Temporal that can be switched off and on for the one who connects."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.away = True

    async def connect(self) -> Client:
        if self.away:
            raise RuntimeError("nobody listens")
        return self.client


async def test_what_is_accepted_while_temporal_is_away_is_delivered_when_it_is_back(
    database_url, temporal_client
):
    away = Away(temporal_client)
    async with running_gateway(database_url, temporal_client, connect=away.connect) as gateway:
        messages = [await gateway.send(body=f"Number {n}") for n in range(5)]
        assert [await gateway.status(message) for message in messages] == ["queued"] * 5
        away.away = False
        await asyncio.sleep(2.1)  # as long as a failed connection is not tried again
        await check_now(gateway, *messages)
        for message in messages:
            await gateway.until(message, "delivered")
        assert sorted(m.text for m in gateway.primary.messages) == [f"Number {n}" for n in range(5)]


async def test_a_start_that_succeeded_and_whose_answer_was_lost_sends_once(
    gateway: Gateway, monkeypatch
):
    real = gateway.client.start_workflow

    async def start_and_lose_the_answer(*args, **kwargs):
        await real(*args, **kwargs)
        raise RPCError("the response was lost", RPCStatusCode.UNAVAILABLE, b"")

    monkeypatch.setattr(gateway.client, "start_workflow", start_and_lose_the_answer)
    message = await gateway.send()
    monkeypatch.undo()
    await check_now(gateway, message)
    await gateway.until(message, "delivered")
    assert len(gateway.primary.messages) == 1
    assert await gateway.attempts(message) == [("primary", "delivered")]


async def test_a_message_whose_runner_is_gone_is_taken_over_and_not_sent_again(gateway: Gateway):
    gateway.primary.set_default(Behaviour(hold=True))
    message = await gateway.send()
    await gateway.until(message, "sent")
    await gateway.client.get_workflow_handle(send_workflow_id(message.message_id)).terminate()
    await check_now(gateway, message)
    row = uuid_of(message)
    while (await gateway.fetch("SELECT epoch FROM messages WHERE id = :id", id=row))[0][
        "epoch"
    ] == 1:
        await asyncio.sleep(0.05)
    await gateway.release_receipts()
    await gateway.until(message, "delivered")
    assert len(gateway.primary.messages) == 1


async def test_a_runner_with_an_old_epoch_can_write_nothing(gateway: Gateway):
    gateway.primary.set_default(Behaviour(hold=True))
    message = await gateway.send()
    await gateway.until(message, "sent")
    await gateway.execute(
        "UPDATE messages SET epoch = epoch + 1 WHERE id = :id", id=uuid_of(message)
    )
    gateway.services.publisher.signal_runner(send_workflow_id(message.message_id), "sent")
    handle = gateway.client.get_workflow_handle(send_workflow_id(message.message_id))
    await asyncio.wait_for(handle.result(), 60)
    assert await gateway.status(message) == "sent"
    assert len(gateway.primary.messages) == 1


async def test_a_lost_signal_costs_a_wait_and_no_message(gateway: Gateway, monkeypatch):
    monkeypatch.setattr(gateway.services.publisher, "publish", lambda *_, **__: None)
    gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(state="rejected"),)))
    message = await gateway.send()
    await gateway.until(message, "retried")
    assert not gateway.backup.messages
    await check_now(gateway, message)
    await gateway.until(message, "delivered")
    assert len(gateway.backup.messages) == 1


async def test_of_a_replay_and_a_late_receipt_one_wins_and_both_are_recorded(gateway: Gateway):
    gateway.primary.set_default(Behaviour(hold=True))
    messages = [await gateway.send(body=f"Number {n}") for n in range(8)]
    for message in messages:
        await gateway.until(message, "sent")
        handle = gateway.client.get_workflow_handle(send_workflow_id(message.message_id))
        await handle.terminate()
    await gateway.execute(
        "UPDATE messages SET verdict = 'dead_letter', status = 'dead_letter', check_by = NULL"
    )
    gateway.primary.set_default()
    await gateway.receipts_held(8)
    replay = gateway.services.dead_letters.replay(
        gateway.caller, message_ids=None, provider=None, limit=100
    )
    await asyncio.gather(replay, in_a_moment(gateway.primary.release_receipts))
    for message in messages:
        await gateway.until(message, "delivered")
        delivered = sum(status == "delivered" for _, status in await gateway.attempts(message))
        explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
        noted = any(event.kind == "duplicate" for event in explained.events)
        if delivered == 2:
            await wait_for_duplicate(gateway, message)
        else:
            assert not noted


async def wait_for_duplicate(gateway: Gateway, message) -> None:
    for _ in range(1200):
        explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
        if any(event.kind == "duplicate" for event in explained.events):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("two attempts were delivered, and nothing says so")


async def in_a_moment(act: Callable[[], object]) -> None:
    await asyncio.sleep(0.01)
    act()


async def test_the_reconciler_is_started_again_when_temporal_has_forgotten_it(gateway: Gateway):
    handle = gateway.client.get_workflow_handle_for(ReconcilerWorkflow.run, "reconciler/reconciler")
    first = (await handle.describe()).run_id
    await handle.terminate()
    for _ in range(1200):
        if (await handle.describe()).run_id != first:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("nobody started the reconciler again")

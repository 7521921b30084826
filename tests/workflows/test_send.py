"""One message at a time, end to end: real Temporal, real Postgres, real SMPP."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import workflow

from domain import deadlines
from domain.binds import ProviderRole
from domain.modes import Mode
from domain.receipts import ReceiptState
from simulator.behaviour import Behaviour, ReceiptStep, Response
from store.providers import Heartbeat, record_heartbeat
from tests.gateway import CONFIGURATION, RECIPIENT, Gateway, gateway, running_gateway
from workers.roles import Role
from workflows.ports.send import send_workflow_id

__all__ = ["gateway"]

# A local activity leaves one in the history.
MARKER = "marker_recorded_event_attributes"
LONG = "The disk of the database is full 💾 — please look at it. " * 4


async def test_a_message_is_delivered(gateway: Gateway):
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert await gateway.transitions(message) == ["queued", "sending", "sent", "delivered"]
    (received,) = gateway.primary.messages
    assert received.text == "Disk full on db-1"
    assert not gateway.backup.messages


async def test_the_first_step_is_decided_when_the_message_is_accepted(gateway: Gateway):
    message = await gateway.send()
    await gateway.until(message, "delivered")
    history = await gateway.client.get_workflow_handle(
        send_workflow_id(message.message_id)
    ).fetch_history()
    assert not [event for event in history.events if event.HasField(MARKER)]
    explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
    assert [event.kind for event in explained.events][:3] == ["accepted", "decided", "moved"]
    assert explained.events[1].detail["ranking"][0]["provider"] == "primary"


async def test_what_cannot_be_sent_at_once_is_decided_by_its_runner(gateway: Gateway):
    message = await gateway.send(scheduled_at=datetime.now(UTC) + timedelta(seconds=1))
    await gateway.until(message, "delivered")
    history = await gateway.client.get_workflow_handle(
        send_workflow_id(message.message_id)
    ).fetch_history()
    assert [event for event in history.events if event.HasField(MARKER)]


async def test_a_long_message_is_delivered_only_when_all_its_parts_are(gateway: Gateway):
    gateway.primary.set_number(
        RECIPIENT,
        Behaviour(part_receipts={2: (ReceiptStep(after=1.0),)}),
    )
    message = await gateway.send(body=LONG)
    assert message.encoding == "ucs2"
    assert message.segments > 2
    await gateway.until(message, "sent")
    await gateway.primary.until(lambda: len(gateway.primary.messages[0].states) > 0)
    assert await gateway.status(message) == "sent"
    await gateway.until(message, "delivered")
    assert gateway.primary.messages[0].text == LONG


EIGHT_PARTS = "The disk of the database is full; please look at it. " * 23
SLOW = Behaviour(latency=1.2)


async def test_many_parts_at_a_slow_carrier_are_sent_once(gateway: Gateway):
    gateway.primary.set_default(SLOW)
    message = await gateway.send(body=EIGHT_PARTS, mode=Mode.ALERT)
    assert message.segments == 8
    await gateway.until(message, "delivered", within=60)
    assert await gateway.attempts(message) == [("primary", "delivered")]
    (received,) = gateway.primary.messages
    assert received.text == EIGHT_PARTS
    assert len(received.parts) == 8
    assert not gateway.backup.messages


async def test_parts_of_many_messages_to_one_phone_have_references_of_their_own(gateway: Gateway):
    texts = [f"No {n}: " + "the disk is full, please look at it. " * 5 for n in range(40)]
    sent = await asyncio.gather(*(gateway.send(body=text) for text in texts))
    assert {message.segments for message in sent} == {2}
    for message in sent:
        await gateway.until(message, "delivered", within=60)
    used = [
        {part.pdu.octets("short_message")[3] for part in m.parts} for m in gateway.primary.messages
    ]
    assert sorted(m.text for m in gateway.primary.messages) == sorted(texts)
    assert len(set.union(*used)) == 40


async def test_the_wait_for_a_receipt_begins_when_the_last_part_was_accepted(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client, receipt_deadline="3s") as gateway:
        gateway.primary.set_default(SLOW)
        message = await gateway.send(body=EIGHT_PARTS, mode=Mode.ALERT)
        await gateway.until(message, "delivered", within=60)
        assert await gateway.attempts(message) == [("primary", "delivered")]


async def test_parts_that_could_not_be_started_in_time_are_sent_later_by_the_same_carrier(
    database_url, temporal_client, monkeypatch: pytest.MonkeyPatch
):
    """As where a claim took long: the deadline of the attempt is as it was."""
    start_within = deadlines.start_within
    monkeypatch.setattr(
        deadlines,
        "start_within",
        lambda timeout, parts, **more: start_within(timeout, parts, **more) / 4,
    )
    async with running_gateway(database_url, temporal_client) as gateway:
        gateway.primary.set_default(SLOW)
        message = await gateway.send(body=EIGHT_PARTS, mode=Mode.ALERT)
        await gateway.until(message, "delivered", within=60)
        assert await gateway.attempts(message) == [("primary", "delivered")]
        (received,) = gateway.primary.messages
        assert (received.text, len(received.parts)) == (EIGHT_PARTS, 8)
        assert "retried" in await gateway.transitions(message)


async def test_what_the_primary_refuses_the_backup_delivers(gateway: Gateway):
    gateway.primary.set_default(Behaviour(response=Response.REFUSE, status="ESME_RSUBMITFAIL"))
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("primary", "refused"), ("backup", "delivered")]
    assert "retried" in await gateway.transitions(message)


async def test_a_number_that_no_carrier_takes_fails_the_message(gateway: Gateway):
    gateway.primary.set_default(Behaviour(response=Response.REFUSE, status="ESME_RINVDSTADR"))
    message = await gateway.send()
    await gateway.until(message, "failed")
    assert (await gateway.row(message)).reason == "invalid_recipient"
    assert not gateway.backup.messages


async def test_a_throttled_message_waits_and_is_sent_by_the_same_carrier(gateway: Gateway):
    gateway.primary.throttle(next_submits=1)
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("primary", "throttled"), ("primary", "delivered")]


async def test_a_sender_that_one_carrier_does_not_know_is_taken_by_the_next(gateway: Gateway):
    gateway.primary.set_default(Behaviour(response=Response.REFUSE, status="ESME_RINVSRCADR"))
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("primary", "refused"), ("backup", "delivered")]


async def test_a_message_that_waits_for_long_goes_on_in_a_new_run(gateway: Gateway, monkeypatch):
    monkeypatch.setattr(workflow.Info, "is_continue_as_new_suggested", lambda _: True)
    gateway.primary.throttle(next_submits=2)
    message = await gateway.send()
    await gateway.until(message, "delivered")
    handle = gateway.client.get_workflow_handle(send_workflow_id(message.message_id))
    began = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    assert began.continued_execution_run_id
    assert (await gateway.attempts(message))[-1] == ("primary", "delivered")


async def test_a_throttled_alert_does_not_wait(gateway: Gateway):
    gateway.primary.throttle(next_submits=5)
    message = await gateway.send(mode=Mode.ALERT)
    await gateway.until(message, "delivered")
    assert (await gateway.attempts(message))[-1] == ("backup", "delivered")


async def test_an_alert_whose_receipt_never_comes_is_delivered_by_the_next_route(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client, receipt_deadline="2s") as gateway:
        gateway.primary.set_default(Behaviour(receipts=()))
        message = await gateway.send(mode=Mode.ALERT)
        await gateway.until(message, "delivered")
        assert await gateway.attempts(message) == [("primary", "expired"), ("backup", "delivered")]
        explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
        assert "cancelled_at_provider" in {event.kind for event in explained.events}


@pytest.mark.parametrize(
    ("more", "request_"),
    [
        ('[modes.verification]\nreceipt_deadline = "3s"', {}),
        ("", {"receipt_deadline": timedelta(seconds=5)}),
    ],
)
async def test_a_code_whose_receipt_never_comes_reaches_the_phone_by_the_next_route_in_time(
    database_url, temporal_client, more, request_
):
    async with running_gateway(database_url, temporal_client, more=more) as gateway:
        gateway.primary.set_default(Behaviour(receipts=()))
        message = await gateway.send(mode=Mode.VERIFICATION, **request_)
        await gateway.until(message, "delivered", within=60)
        assert await gateway.attempts(message) == [("primary", "expired"), ("backup", "delivered")]


async def test_with_no_other_route_an_alert_waits_for_its_receipt_as_long_as_it_is_valid(
    database_url, temporal_client
):
    """A phone that is off for longer than the deadline still gets it from the only carrier."""
    alone = CONFIGURATION.replace('providers = ["primary", "backup"]', 'providers = ["primary"]')
    async with running_gateway(
        database_url,
        temporal_client,
        configuration=alone,
        more='[modes.alert]\nreceipt_deadline = "1s"',
    ) as gateway:
        gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=5),)))
        message = await gateway.send(mode=Mode.ALERT)
        await gateway.until(message, "delivered", within=60)
        assert await gateway.attempts(message) == [("primary", "delivered")]
        (received,) = gateway.primary.messages
        assert received.parts[0].validity > timedelta(minutes=50)


async def test_a_receipt_that_is_quicker_than_the_answer_is_not_lost(gateway: Gateway):
    gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(early=True),), latency=0.05))
    message = await gateway.send()
    await gateway.until(message, "delivered")


async def test_receipts_that_come_twice_and_out_of_order_count_once(gateway: Gateway):
    gateway.primary.set_default(
        Behaviour(
            receipts=(
                ReceiptStep(after=0.1, copies=3),
                ReceiptStep(state=ReceiptState.ENROUTE, after=0.3),
            )
        )
    )
    message = await gateway.send()
    await gateway.until(message, "delivered")
    await gateway.primary.until(lambda: not gateway.primary.waiting)
    explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
    states = {receipt.state: receipt.copies for receipt in explained.receipts}
    assert states["delivered"] == 3
    assert await gateway.transitions(message) == ["queued", "sending", "sent", "delivered"]


async def test_an_unanswered_alert_is_sent_again_and_a_plain_message_is_not(gateway: Gateway):
    gateway.primary.set_default(Behaviour(response=Response.SILENCE, receipts=()))
    alert = await gateway.send(mode=Mode.ALERT)
    plain = await gateway.send()
    await gateway.until(alert, "delivered")
    await gateway.until(plain, "unknown")
    assert await gateway.attempts(alert) == [("primary", "unknown"), ("backup", "delivered")]
    assert await gateway.attempts(plain) == [("primary", "unknown")]


async def test_a_message_unknown_is_delivered_when_its_receipt_comes(gateway: Gateway):
    gateway.primary.set_default(
        Behaviour(response=Response.SILENCE, taken=True, receipts=(ReceiptStep(after=3),))
    )
    message = await gateway.send()
    await gateway.until(message, "unknown")
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("primary", "delivered")]


async def test_with_every_carrier_down_a_message_is_a_dead_letter_and_can_be_replayed(
    database_url, temporal_client
):
    impatient = '[modes.transactional]\noutage_patience = "1s"'
    async with running_gateway(database_url, temporal_client, more=impatient) as gateway:
        await gateway.primary.outage()
        await gateway.backup.outage()
        await gateway.providers_up()
        message = await gateway.send()
        await gateway.until(message, "dead_letter")
        assert (await gateway.row(message)).reason == "no_provider_up"
        await gateway.backup.outage(on=False)
        await gateway.providers_up("backup")
        # No provider has an attempt of it: it is found by what its route offered.
        replayed = await gateway.services.dead_letters.replay(
            gateway.caller, message_ids=None, provider="primary", limit=10
        )
        assert replayed.replayed == (message.message_id,)
        await gateway.services.dead_letters.drained()
        await gateway.until(message, "delivered")


async def test_a_scheduled_message_is_cancelled_before_its_time(gateway: Gateway):
    later = datetime.now(UTC) + timedelta(hours=2)
    message = await gateway.send(scheduled_at=later)
    assert await gateway.status(message) == "scheduled"
    await gateway.services.messages.cancel(gateway.caller, message.message_id)
    assert await gateway.status(message) == "canceled"
    assert not gateway.primary.messages


async def test_a_message_that_the_carrier_holds_is_recalled(gateway: Gateway):
    gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=600),)))
    message = await gateway.send()
    await gateway.until(message, "sent")
    await gateway.services.messages.cancel(gateway.caller, message.message_id)
    await gateway.until(message, "canceled")


async def test_a_part_that_was_refused_for_now_is_sent_again_without_the_others(gateway: Gateway):
    gateway.primary.set_default(
        Behaviour(response=Response.REFUSE, status="ESME_RTHROTTLED", part=2, times=1)
    )
    message = await gateway.send(body=LONG)
    await gateway.until(message, "delivered")
    (received,) = gateway.primary.messages
    assert received.text == LONG
    assert await gateway.attempts(message) == [("primary", "delivered")]


async def test_a_carrier_that_is_down_is_passed_over_without_an_attempt(gateway: Gateway):
    await gateway.primary.outage()
    await gateway.providers_up("backup")
    message = await gateway.send()
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("backup", "delivered")]


async def last_heartbeat(gateway: Gateway, worker: str, role: str, *, after: str) -> None:
    """The primary was up for a role of a worker, by a heartbeat `after` now."""
    heartbeat = Heartbeat("primary", worker, [role], 1, 1, "up", polls=[role])
    async with gateway.services.database.begin() as connection:
        record_heartbeat(connection, heartbeat)
    await gateway.execute(
        "UPDATE provider_workers SET heartbeat_at = now() + CAST(:after AS interval)"
        " WHERE worker = :worker",
        after=after,
        worker=worker,
    )


async def test_a_provider_that_is_polled_for_another_role_only_is_never_ranked_and_explain_says_so(
    database_url, temporal_client
):
    only_primary = CONFIGURATION.replace('["primary", "backup"]', '["primary"]')
    async with running_gateway(
        database_url, temporal_client, configuration=only_primary, with_worker=False
    ) as gateway:
        await last_heartbeat(gateway, "a/1", "chunks", after="1 hour")
        await gateway.start_worker(Role.SENDS)
        message = await gateway.send()
        async with asyncio.timeout(60):
            while (await gateway.row(message)).waiting_for != "provider":
                await asyncio.sleep(0.05)
        story = await gateway.story(message)
        assert "Waiting for a provider of its route: primary is down." in story
        assert "no worker polls its task queues for the role providers" in story
        assert "primary" in story
        (primary,) = (
            status
            for status in await gateway.services.providers.listed(gateway.caller)
            if status.name == "primary"
        )
        assert (primary.up, primary.roles) == (False, {ProviderRole.CHUNKS})


async def test_a_provider_whose_worker_is_gone_counts_as_down(gateway: Gateway):
    await last_heartbeat(gateway, "a/dead/one", "providers", after="-1 minute")
    await gateway.primary.outage()
    await gateway.providers_up("backup")
    message = await gateway.send(mode=Mode.ALERT)
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("backup", "delivered")]


async def test_an_alert_goes_before_what_waits_for_the_same_carrier(database_url, temporal_client):
    slow = CONFIGURATION.replace("[providers.primary]", "[providers.primary]\nrate = 1.0")
    async with running_gateway(database_url, temporal_client, configuration=slow) as gateway:
        crowd = [await gateway.send(body=f"Offer {n}", mode=Mode.PROMOTIONAL) for n in range(12)]
        alert = await gateway.send(body="Disk full", mode=Mode.ALERT)
        await gateway.until(alert, "delivered")
        waiting = [message for message in crowd if await gateway.status(message) == "queued"]
        assert waiting
        for message in crowd:
            await gateway.until(message, "delivered")

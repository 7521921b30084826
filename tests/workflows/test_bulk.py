"""Many messages under one workflow, end to end: real Temporal, real Postgres, real SMPP."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

import services.bulk.claims
import services.bulk.sender
import services.transitions
import workflows.bulk
from domain import deadlines
from domain.ids import IdPrefix, parse_id
from domain.modes import Mode
from domain.receipts import ReceiptState
from services.batches import BatchCommand, BatchView, Recipient
from simulator.behaviour import Behaviour, Outage, ReceiptStep, Response
from store import bulks
from store.bulks import IdRange
from telemetry.metrics import metric_value
from tests.gateway import CONFIGURATION, Gateway, gateway, running_gateway
from tests.workflows.test_reconciler import Away
from workers.roles import Role
from workflows.ports.bulk import BulkRef, PlanTask, bulk_workflow_id
from workflows.ports.send import send_workflow_id

__all__ = ["gateway"]

pytestmark = pytest.mark.stack

LONG = "The disk of the database is full 💾 — please look at it, {name}. " * 3
SMALL_WINDOWS = CONFIGURATION.replace("echoes_reference", "window = 10\nechoes_reference")


def number(place: int) -> str:
    """Of those documented for tests, in which the simulator sees no instruction."""
    return f"+447700900{100 + place}" if place < 900 else f"+3363998{place:04d}"


class Batch:
    """A batch of a test: sent, watched, and compared with what the carriers got."""

    def __init__(self, gateway: Gateway, count: int, body: str = "Hello {name}", **what: Any):
        self.gateway = gateway
        self.count = count
        recipients = [Recipient(number(n), {"name": f"No {n}"}) for n in range(count)]
        self.command = BatchCommand(
            sender="AbilIT",
            body=body,
            recipients=recipients,
            digest=hashlib.sha256(body.encode()).digest(),
            **what,
        )
        self.texts = Counter(body.replace("{name}", f"No {n}") for n in range(count))
        self.id = ""
        self.messages: list[str] = []

    async def send(self) -> "Batch":
        accepted = await self.gateway.services.batches.accept(self.gateway.caller, self.command)
        self.id = (await self.results())[0]
        self.messages = [result.message_id or "" for result in accepted.results]
        return self

    async def results(self) -> list[str]:
        found = await self.gateway.services.batches.listed(
            self.gateway.caller, before=None, limit=1
        )
        return [f"bat_{view.batch.id.hex}" for view in found]

    async def view(self) -> BatchView:
        return await self.gateway.services.batches.one(self.gateway.caller, self.id)

    async def counts(self) -> dict[str, int]:
        counted: Counter[str] = Counter()
        for row in (await self.view()).counts:
            counted[row.status] += row.messages
        return dict(counted)

    async def until(
        self, condition: Callable[[dict[str, int]], bool], within: float = 120
    ) -> dict[str, int]:
        end = time.monotonic() + within
        while not condition(counts := await self.counts()):
            assert time.monotonic() < end, f"still {counts}"
            await asyncio.sleep(0.05)
        return counts

    async def until_all(self, status: str, within: float = 120) -> None:
        await self.until(lambda counts: counts == {status: self.count}, within)

    async def ended(self, within: float = 120) -> None:
        """Its workflow has nothing left to do."""
        handle = self.gateway.client.get_workflow_handle(bulk_workflow_id(self.id))
        async with asyncio.timeout(within):
            await handle.result()


def carried(gateway: Gateway) -> Counter[str]:
    """The texts that the carriers got, all parts of them."""
    return Counter(m.text for smsc in (gateway.primary, gateway.backup) for m in smsc.messages)


async def test_every_message_of_a_batch_is_delivered_once(gateway: Gateway):
    batch = await Batch(gateway, 300).send()
    await batch.until_all("delivered")
    assert carried(gateway) == batch.texts
    await batch.ended()
    assert (await batch.view()).status == "finished"


async def test_single_messages_and_shares_may_have_workers_of_their_own(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        await gateway.start_worker(Role.SENDS, Role.PROVIDERS)
        await gateway.providers_up("primary", "backup", within=60)
        batch = await Batch(gateway, 20).send()
        await batch.until_all("delivered", within=60)  # whoever has a bind serves every role
        await gateway.start_worker(Role.CHUNKS)
        async with asyncio.timeout(60):
            while await roles_polled(gateway) != [["chunks"], ["providers"]]:
                await asyncio.sleep(0.05)
        other = await Batch(gateway, 20, body="Good bye {name}").send()
        single = await gateway.send(to=number(99), body="Hello No 99")
        await gateway.until(single, "delivered", within=60)
        await other.until_all("delivered", within=60)
        assert carried(gateway) == batch.texts + other.texts + Counter(["Hello No 99"])


async def roles_polled(gateway: Gateway) -> list[list[str]]:
    """For which roles each worker polls at the primary."""
    rows = await gateway.fetch("SELECT polls FROM provider_workers WHERE provider = 'primary'")
    return sorted(row["polls"] for row in rows)


async def test_one_of_many_is_explained_as_a_single_message_is(gateway: Gateway):
    batch = await Batch(gateway, 20).send()
    single = await gateway.send(to=number(99), body="Hello No 99")
    await gateway.until(single, "delivered")
    await batch.until_all("delivered")
    one = await gateway.services.messages.explain(gateway.caller, batch.messages[7])
    other = await gateway.services.messages.explain(gateway.caller, single.message_id)

    def events_of(explained: Any) -> list[Any]:
        names = ("kind", "previous", "status", "attempt", "provider", "reason")
        return [
            [*(getattr(event, name) for name in names), sorted(event.detail)]
            for event in explained.events
        ]

    assert events_of(one) == events_of(other)
    assert [receipt.provider for receipt in one.receipts] == [
        receipt.provider for receipt in other.receipts
    ]
    for rows, name in (("attempts", "provider"), ("parts", "status")):
        mine, theirs = getattr(one, rows), getattr(other, rows)
        assert [getattr(row, name) for row in mine] == [getattr(row, name) for row in theirs]
    assert one.events[1].detail["ranking"][0]["provider"] == "primary"


async def test_long_messages_are_delivered_only_when_all_their_parts_are(gateway: Gateway):
    silent = ReceiptStep(after=1.5)
    gateway.primary.set_number(number(3), Behaviour(part_receipts={2: (silent,)}))
    batch = await Batch(gateway, 30, LONG).send()
    await batch.until(lambda counts: counts.get("delivered") == 29)
    assert (await batch.counts())["sent"] == 1
    await batch.until_all("delivered")
    assert carried(gateway) == batch.texts


async def test_what_the_primary_refuses_the_backup_delivers(gateway: Gateway):
    gateway.primary.set_default(Behaviour(response=Response.REFUSE, status="ESME_RSUBMITFAIL"))
    batch = await Batch(gateway, 100).send()
    await batch.until_all("delivered")
    assert not gateway.primary.messages
    explained = await gateway.services.messages.explain(gateway.caller, batch.messages[0])
    assert [(a.provider, a.status) for a in explained.attempts] == [
        ("primary", "refused"),
        ("backup", "delivered"),
    ]


async def test_recipients_whose_queue_is_full_do_not_slow_a_batch_down(gateway: Gateway):
    full = Behaviour(response=Response.REFUSE, status="ESME_RMSGQFUL", times=3)
    for place in range(7, 600, 33):
        gateway.primary.set_number(number(place), full)
    began = time.monotonic()
    batch = await Batch(gateway, 600).send()
    lowest = 1.0
    while (await batch.counts()).get("delivered", 0) < 600 - 18:
        ratio = metric_value("smsgateway_rate_ratio", {"provider": "primary"})
        lowest = min(lowest, ratio)
        assert time.monotonic() - began < 120
        await asyncio.sleep(0.02)
    assert lowest == 1
    await batch.until_all("delivered")
    assert carried(gateway) == batch.texts


async def test_numbers_that_no_carrier_takes_fail_alone(gateway: Gateway):
    refused = Behaviour(response=Response.REFUSE, status="ESME_RINVDSTADR")
    for place in (1, 5):
        gateway.primary.set_number(number(place), refused)
    batch = await Batch(gateway, 40).send()
    await batch.until(lambda counts: counts == {"delivered": 38, "failed": 2})
    reasons = {row.reason for row in (await batch.view()).counts}
    assert reasons == {"delivered", "invalid_recipient"}


async def test_outcomes_wait_for_no_others_once_nothing_is_under_way(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(services.bulk.sender, "_GATHERING", 60)
    gateway.primary.set_default(Behaviour(receipts=()))
    batch = await Batch(gateway, 40).send()
    await batch.until_all("sent")


async def test_outcomes_wait_for_no_others_once_they_fill_a_quarter_of_the_windows(
    database_url: str, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(services.bulk.sender, "_LONGEST_GATHERING", 60)
    async with running_gateway(
        database_url, temporal_client, configuration=SMALL_WINDOWS, response_timeout="20s"
    ) as gateway:
        gateway.primary.set_number(number(3), Behaviour(latency=8))
        batch = await Batch(gateway, 40).send()
        counts = await batch.until(lambda counts: counts.get("delivered", 0) > 20)
        assert counts["sending"] >= 1
        await batch.until_all("delivered")


async def test_receipts_that_come_before_the_answers_count(gateway: Gateway):
    early = (ReceiptStep(after=0, early=True),)
    gateway.primary.set_default(Behaviour(receipts=early, latency=0.05))
    batch = await Batch(gateway, 150).send()
    await batch.until_all("delivered")
    assert carried(gateway) == batch.texts


async def test_receipts_that_follow_their_answers_at_once_are_written_with_them(gateway: Gateway):
    gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=0),), latency=0.05))
    batch = await Batch(gateway, 200).send()
    await batch.until_all("delivered")
    assert carried(gateway) == batch.texts
    (found,) = await gateway.fetch(
        "SELECT count(*) FILTER (WHERE responded_at = settled_at) AS together FROM attempts"
    )
    # How many depends on the speed of the machine: receipts that are later are written alone.
    assert found["together"] > 0


async def test_a_paused_batch_sends_nothing_more_and_goes_on_where_it_was(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, configuration=SMALL_WINDOWS
    ) as gateway:
        gateway.primary.set_default(Behaviour(latency=0.2))
        batch = await Batch(gateway, 200).send()
        await batch.until(lambda counts: counts.get("delivered", 0) > 10)
        paused = await gateway.services.batches.pause(gateway.caller, batch.id)
        assert paused.status == "paused"
        await asyncio.sleep(1.0)
        left = len(gateway.primary.messages)
        await asyncio.sleep(1.0)
        assert len(gateway.primary.messages) == left < 200
        assert (await batch.counts())["queued"] == 200 - left
        resumed = await gateway.services.batches.resume(gateway.caller, batch.id)
        assert resumed.status == "running"
        await batch.until_all("delivered")
        assert carried(gateway) == batch.texts


async def test_a_cancelled_batch_ends_what_no_carrier_has(database_url, temporal_client):
    async with running_gateway(
        database_url, temporal_client, configuration=SMALL_WINDOWS
    ) as gateway:
        gateway.primary.set_default(Behaviour(latency=0.2))
        batch = await Batch(gateway, 200).send()
        await batch.until(lambda counts: counts.get("delivered", 0) > 10)
        canceled = await gateway.services.batches.cancel(gateway.caller, batch.id)
        assert canceled.status == "canceled"
        counts = await batch.until(
            lambda counts: counts.get("delivered", 0) + counts.get("canceled", 0) == 200
        )
        assert counts["canceled"] > 100
        assert len(gateway.primary.messages) == counts["delivered"]
        await batch.ended()


async def test_one_message_of_a_batch_can_be_cancelled(database_url, temporal_client):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        batch = await Batch(gateway, 10).send()
        await gateway.services.messages.cancel(gateway.caller, batch.messages[4])
        await gateway.start_worker()
        await batch.until(lambda counts: counts == {"delivered": 9, "canceled": 1})
        assert "Hello No 4" not in carried(gateway)


async def test_no_more_is_unknown_than_the_windows_hold(database_url, temporal_client):
    async with running_gateway(
        database_url,
        temporal_client,
        configuration=SMALL_WINDOWS,
        more='[modes.promotional]\nunknown = "wait"',
    ) as gateway:
        gateway.primary.set_default(Behaviour(response=Response.SILENCE, taken=True, hold=True))
        batch = await Batch(gateway, 100, mode=Mode.PROMOTIONAL).send()
        await batch.until(lambda counts: counts.get("sending") == 20)
        await asyncio.sleep(0.3)
        assert (await batch.counts()) == {"sending": 20, "queued": 80}
        gateway.primary.set_default()
        await batch.until(lambda counts: counts.get("unknown", 0) >= 20)
        await gateway.release_receipts(20)
        await batch.until_all("delivered")
        assert carried(gateway) == batch.texts


async def test_alerts_unknown_are_sent_again_by_the_other_carrier(gateway: Gateway):
    gateway.primary.set_default(Behaviour(response=Response.SILENCE))
    batch = await Batch(gateway, 30, mode=Mode.ALERT).send()
    await batch.until_all("delivered")
    assert Counter(m.text for m in gateway.backup.messages) == batch.texts


async def test_parts_of_a_batch_to_one_phone_have_references_of_their_own(gateway: Gateway):
    batch = Batch(gateway, 40, "No {name}: " + "the disk is full, please look at it. " * 5)
    recipients = [replace(each, to=number(0)) for each in batch.command.recipients]
    batch.command = replace(batch.command, recipients=recipients)
    await batch.send()
    await batch.until_all("delivered", within=60)
    assert carried(gateway) == batch.texts
    used = [
        {part.pdu.octets("short_message")[3] for part in m.parts} for m in gateway.primary.messages
    ]
    assert len(set.union(*used)) == 40


async def test_many_parts_of_a_batch_at_a_slow_carrier_are_sent_once(gateway: Gateway):
    gateway.primary.set_default(Behaviour(latency=1.2))
    text = "The disk of the database is full; please look at it, {name}. " * 20
    batch = await Batch(gateway, 5, text, mode=Mode.ALERT).send()
    await batch.until_all("delivered", within=60)
    assert carried(gateway) == batch.texts
    assert [len(m.parts) for m in gateway.primary.messages] == [8] * 5
    assert not gateway.backup.messages


async def test_one_text_that_a_carrier_cannot_be_given_goes_to_the_next_and_hurts_no_other(
    database_url, temporal_client
):
    """The euro sign is in GSM-7 and not in Latin-1: there the text is UCS-2, of too many parts."""
    latin = CONFIGURATION.replace("echoes_reference", 'alphabet = "latin1"\nechoes_reference', 1)
    async with running_gateway(
        database_url,
        temporal_client,
        configuration=latin,
        more="[accounts.default]\nmax_segments = 255",
    ) as gateway:
        too_long = "€" + "a" * 20_000
        batch = Batch(gateway, 20)
        recipients = [*batch.command.recipients]
        recipients[7] = replace(recipients[7], body=too_long)
        batch.command = replace(batch.command, recipients=recipients)
        await batch.send()
        single = await gateway.send(to=number(99), body=too_long)
        await batch.until_all("delivered", within=60)
        await gateway.until(single, "delivered", within=60)
        assert len(gateway.primary.messages) == 19
        assert [m.text == too_long for m in gateway.backup.messages] == [True, True]
        assert await gateway.attempts(single) == [("primary", "refused"), ("backup", "delivered")]


async def test_a_bulk_that_is_extended_while_its_end_is_written_goes_on(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    batch = await Batch(gateway, 3).send()
    await batch.until_all("delivered")
    await batch.ended()
    bulk_id = parse_id(IdPrefix.BATCH, batch.id)
    await gateway.execute("UPDATE bulks SET check_by = now() + interval '1 hour'")
    end = bulks.end

    def extended_before(connection: Any, id_range: IdRange) -> Any:
        async def both() -> bool:
            async with gateway.services.database.begin() as other:
                later = replace(id_range, last_id=UUID(int=id_range.last_id.int + 1))
                bulks.extend(other, later, 1, check_by=datetime.now(UTC))
            return await end(connection, id_range)

        return both()

    monkeypatch.setattr(bulks, "end", extended_before)
    now = datetime.now(UTC)
    plan = await gateway.services.bulk_planner.plan(PlanTask(BulkRef(batch.id), now))
    assert (plan.open, plan.look_at) == (1, now)
    (row,) = await gateway.fetch("SELECT id, check_by FROM bulks")
    assert row["id"] == bulk_id
    assert row["check_by"] is not None


async def test_a_bulk_that_is_extended_after_its_end_is_checked_again(gateway: Gateway):
    batch = await Batch(gateway, 3).send()
    await batch.until_all("delivered")
    await batch.ended()
    (row,) = await gateway.fetch("SELECT id, first_id, last_id, check_by FROM bulks")
    assert row["check_by"] is None
    at = datetime.now(UTC) + timedelta(seconds=15)
    id_range = IdRange(row["id"], row["first_id"], UUID(int=row["last_id"].int + 1), "bulk/x")
    async with gateway.services.database.begin() as connection:
        bulks.extend(connection, id_range, 1, check_by=at)
    (row,) = await gateway.fetch("SELECT check_by FROM bulks")
    assert row["check_by"] == at


async def test_a_chunk_at_a_slow_carrier_leaves_its_place_in_time_and_its_validities_are_exact(
    database_url, temporal_client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deadlines, "CHUNK_TIME", timedelta(seconds=2))
    done: list[float] = []
    send_chunk = services.bulk.sender.BulkSender.send_chunk

    async def timed(self: Any, *what: Any) -> int:
        began = time.monotonic()
        try:
            return await send_chunk(self, *what)
        finally:
            done.append(time.monotonic() - began)

    monkeypatch.setattr(services.bulk.sender.BulkSender, "send_chunk", timed)
    slow = CONFIGURATION.replace("echoes_reference", "rate = 8\nechoes_reference")
    async with running_gateway(database_url, temporal_client, configuration=slow) as gateway:
        batch = await Batch(gateway, 120, validity=timedelta(seconds=600)).send()
        await batch.until_all("delivered", within=90)
        assert carried(gateway) == batch.texts
        assert len(done) >= 4
        (row,) = await gateway.fetch("SELECT min(valid_until) AS at FROM messages")
        for received in gateway.primary.messages:
            part = received.parts[0]
            assert abs(part.accepted_at + part.validity - row["at"]) < timedelta(seconds=2)


async def test_a_message_of_a_batch_that_waits_long_for_its_slot_leaves_the_process_responsive(
    database_url, temporal_client
):
    slow = CONFIGURATION.replace("echoes_reference", "rate = 0.25\nechoes_reference")
    longest = 0.0

    async def measure() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            longest = max(longest, time.monotonic() - began)

    async with running_gateway(database_url, temporal_client, configuration=slow) as gateway:
        measuring = asyncio.create_task(measure())
        batch = await Batch(gateway, 3).send()
        await batch.until_all("delivered")
        measuring.cancel()
        assert carried(gateway) == batch.texts
        assert longest < 2, "three of the four seconds of a slot are no reason to be busy"


async def test_alerts_without_a_receipt_go_to_the_next_route(database_url, temporal_client):
    async with running_gateway(database_url, temporal_client, receipt_deadline="1s") as gateway:
        gateway.primary.set_default(Behaviour(receipts=()))
        batch = await Batch(gateway, 40, mode=Mode.ALERT).send()
        await batch.until_all("delivered")
        assert len(gateway.primary.messages) == len(gateway.backup.messages) == 40


async def test_what_a_receipt_says_much_later_is_decided_upon_within_seconds(
    database_url, temporal_client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workflows.bulk, "_FIRST_REST", timedelta(minutes=5))
    monkeypatch.setattr(services.transitions, "_GATHERED_FOR", 1.0)
    lost = ReceiptStep(state=ReceiptState.UNDELIVERABLE)
    async with running_gateway(database_url, temporal_client, receipt_deadline="1h") as gateway:
        gateway.primary.set_default(Behaviour(hold=True, receipts=(lost,)))
        batch = await Batch(gateway, 30, mode=Mode.ALERT).send()
        await batch.until(lambda counts: counts == {"sent": 30})
        await gateway.release_receipts(30)
        await batch.until_all("delivered")
        assert Counter(m.text for m in gateway.backup.messages) == batch.texts


async def test_a_long_run_goes_on_in_a_new_one_when_its_shares_are_done(
    database_url, temporal_client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deadlines, "CHUNK_TIME", timedelta(seconds=0.1))
    monkeypatch.setattr(services.bulk.claims, "_PAGE", 4)
    monkeypatch.setattr(
        workflow.Info,
        "is_continue_as_new_suggested",
        lambda info: info.get_current_history_length() > 12,
    )
    slow = CONFIGURATION.replace("echoes_reference", "rate = 20\nechoes_reference")
    async with running_gateway(database_url, temporal_client, configuration=slow) as gateway:
        batch = await Batch(gateway, 120).send()
        await batch.until_all("delivered")
        assert carried(gateway) == batch.texts
        await batch.ended()
        lengths, run_id = [], None
        while run_id != "":
            run = gateway.client.get_workflow_handle(bulk_workflow_id(batch.id), run_id=run_id)
            history = await run.fetch_history()
            lengths.append(len(history.events))
            started = history.events[0].workflow_execution_started_event_attributes
            run_id = started.continued_execution_run_id
    assert len(lengths) > 1
    assert max(lengths) < 40


async def test_a_batch_waits_while_every_carrier_is_down(database_url, temporal_client):
    async with running_gateway(
        database_url, temporal_client, configuration=SMALL_WINDOWS
    ) as gateway:
        gateway.primary.set_default(Behaviour(latency=0.2))
        batch = await Batch(gateway, 200).send()
        await batch.until(lambda counts: counts.get("delivered", 0) > 20)
        for smsc in (gateway.primary, gateway.backup):
            await smsc.outage(kind=Outage.NOT_LISTENING)
        await asyncio.sleep(2)
        assert (await batch.counts())["queued"] > 0
        for smsc in (gateway.primary, gateway.backup):
            await smsc.outage(on=False)
        counts = await batch.until(
            lambda counts: counts.get("delivered", 0) + counts.get("unknown", 0) == 200,
            within=60,
        )
        # What was on its way when the connections broke is unknown, and is not guessed at.
        assert counts.get("unknown", 0) <= 20
        assert max(carried(gateway).values()) == 1


async def test_a_worker_that_stops_in_the_middle_leaves_the_rest_to_the_next(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, configuration=SMALL_WINDOWS
    ) as gateway:
        gateway.primary.set_default(Behaviour(latency=0.2))
        batch = await Batch(gateway, 200).send()
        await batch.until(lambda counts: counts.get("delivered", 0) > 20)
        await gateway.end_workers()
        assert (await batch.counts())["queued"] > 0
        await gateway.start_worker()
        await batch.until_all("delivered", within=60)
        assert carried(gateway) == batch.texts


async def test_a_batch_by_a_carrier_that_gives_no_receipts_ends_as_sent(
    database_url, temporal_client
):
    without = CONFIGURATION.replace("echoes_reference = true", "receipts = false")
    async with running_gateway(database_url, temporal_client, configuration=without) as gateway:
        batch = await Batch(gateway, 30).send()
        single = await gateway.send(to=number(99))
        await batch.until_all("sent")
        await batch.ended()
        assert (await batch.view()).status == "finished"
        await gateway.until(single, "sent")
        for table in ("messages", "bulks"):
            asked_after = await gateway.fetch(f"SELECT id FROM {table} WHERE check_by IS NOT NULL")
            assert not asked_after, "nobody needs to ask after them"


@pytest.mark.parametrize(
    ("receipts", "end"), [("echoes_reference = true", "delivered"), ("receipts = false", "sent")]
)
async def test_an_account_with_callback_final_only_gets_final_statuses_only(
    database_url, temporal_client, receipts, end
):
    async with running_gateway(
        database_url,
        temporal_client,
        configuration=CONFIGURATION.replace("echoes_reference = true", receipts),
        more="[accounts.default]\ncallback_final_only = true",
    ) as gateway:
        url = "https://shop.example.com/sms"
        batch = await Batch(gateway, 30, callback_url=url).send()
        single = await gateway.send(to=number(99), callback_url=url)
        await batch.until_all(end)
        await batch.ended()
        await gateway.until(single, end)
        # What ends as sent has moved before it has ended.
        events: list[object] = []
        for _ in range(1200):
            events = await gateway.fetch("SELECT subject_id AS message_id, status FROM outbox")
            if len(events) >= 31:
                break
            await asyncio.sleep(0.1)
        assert len({row["message_id"] for row in events}) == len(events) == 31
        assert {row["status"] for row in events} == {end}


async def test_a_part_that_was_throttled_is_sent_again_by_a_runner_of_its_own(gateway: Gateway):
    throttled = Behaviour(response=Response.REFUSE, status="ESME_RTHROTTLED", part=2, times=1)
    gateway.primary.set_number(number(2), throttled)
    batch = await Batch(gateway, 5, LONG).send()
    await batch.until_all("delivered")
    assert carried(gateway) == batch.texts
    explained = await gateway.services.messages.explain(gateway.caller, batch.messages[2])
    assert [a.tries for a in explained.attempts] == [2]
    assert "promoted" in [event.kind for event in explained.events]


async def test_what_is_cancelled_and_what_is_too_late_end_each_for_its_reason(
    database_url, temporal_client
):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        batch = await Batch(gateway, 10, validity=timedelta(seconds=5)).send()
        await gateway.execute("UPDATE messages SET cancel_requested_at = now() WHERE position < 4")
        await gateway.execute(
            "UPDATE messages SET valid_until = now() WHERE position BETWEEN 4 AND 6"
        )
        await gateway.start_worker()
        await batch.until(lambda counts: counts == {"canceled": 4, "expired": 3, "delivered": 3})


async def test_a_scheduled_batch_leaves_when_its_time_has_come(gateway: Gateway):
    at = datetime.now(UTC) + timedelta(seconds=2)
    batch = await Batch(gateway, 20, scheduled_at=at).send()
    assert await batch.counts() == {"scheduled": 20}
    await batch.until_all("delivered")
    assert min(m.parts[0].accepted_at for m in gateway.primary.messages) >= at


async def test_a_dead_letter_of_a_batch_is_replayed_as_a_message_of_its_own(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, more='[modes.transactional]\noutage_patience = "1s"'
    ) as gateway:
        for smsc in (gateway.primary, gateway.backup):
            await smsc.outage(kind=Outage.NOT_LISTENING)
        await gateway.providers_up()
        batch = await Batch(gateway, 15).send()
        await batch.until_all("dead_letter")
        for smsc in (gateway.primary, gateway.backup):
            await smsc.outage(on=False)
        await gateway.providers_up("primary", "backup")
        done = await gateway.services.dead_letters.replay(
            gateway.caller, message_ids=None, provider="backup", limit=100
        )
        assert len(done.replayed) == 15
        await gateway.services.dead_letters.drained()
        await batch.until_all("delivered")
        owners = await gateway.fetch("SELECT owner FROM messages ORDER BY id")
        assert [row["owner"] for row in owners] == [send_workflow_id(m) for m in batch.messages]


async def test_a_batch_that_was_accepted_while_temporal_was_away_is_taken_up(
    database_url, temporal_client
):
    away = Away(temporal_client)
    async with running_gateway(database_url, temporal_client, connect=away.connect) as gateway:
        batch = await Batch(gateway, 50).send()
        assert await batch.counts() == {"queued": 50}
        away.away = False
        await batch.until_all("delivered")
        assert carried(gateway) == batch.texts


@asynccontextmanager
async def without_its_runner(
    database_url: str, temporal_client: Client
) -> AsyncIterator[tuple[Gateway, Batch]]:
    """A batch under way whose runner is gone; behind the block all of it is delivered, each once."""
    async with running_gateway(
        database_url, temporal_client, configuration=SMALL_WINDOWS
    ) as gateway:
        gateway.primary.set_default(Behaviour(latency=0.2))
        batch = await Batch(gateway, 100).send()
        await batch.until(lambda counts: counts.get("delivered", 0) > 5)
        await gateway.client.get_workflow_handle(bulk_workflow_id(batch.id)).terminate()
        yield gateway, batch
        await batch.until_all("delivered", within=60)
        assert carried(gateway) == batch.texts


async def test_a_batch_whose_runner_is_gone_is_taken_up(database_url, temporal_client):
    async with without_its_runner(database_url, temporal_client) as (gateway, _):
        await gateway.execute("UPDATE bulks SET check_by = now() WHERE check_by IS NOT NULL")


async def test_a_reconciler_that_none_precedes_asks_after_every_batch(
    database_url, temporal_client
):
    async with without_its_runner(database_url, temporal_client) as (gateway, _):
        await gateway.services.reconciler.mark_everything_due()


async def test_a_batch_of_the_version_before_is_asked_after_by_its_messages(
    database_url, temporal_client
):
    async with without_its_runner(database_url, temporal_client) as (gateway, batch):
        await gateway.execute("UPDATE bulks SET check_by = NULL")
        await gateway.execute(
            "UPDATE messages SET check_by = now() + interval '1 second' WHERE status = 'queued'"
        )
        await batch.until_all("delivered", within=60)
        (row,) = await gateway.fetch("SELECT count(check_by) AS times FROM messages")
        assert row["times"] == 0


async def test_a_runner_that_lives_says_so_by_when_its_batch_is_asked_after(gateway: Gateway):
    gateway.primary.set_default(Behaviour(hold=True))
    batch = await Batch(gateway, 5).send()
    await batch.until_all("sent")
    in_nine_minutes = datetime.now(UTC) + timedelta(minutes=9)
    asked_after = "SELECT check_by FROM bulks"
    while (await gateway.fetch(asked_after))[0]["check_by"] < in_nine_minutes:
        await asyncio.sleep(0.05)
    await gateway.release_receipts(5)
    await batch.ended()
    assert (await gateway.fetch(asked_after))[0]["check_by"] is None


async def test_what_a_workflow_remembers_names_nobody(gateway: Gateway):
    batch = await Batch(gateway, 20).send()
    await batch.until_all("delivered")
    await batch.ended()
    handle = gateway.client.get_workflow_handle(bulk_workflow_id(batch.id))
    history = await handle.fetch_history()
    text = history.to_json()
    assert "447700900" not in text
    assert "Hello" not in text
    assert len(history.events) < 100


async def test_the_workflow_id_of_a_batch_contains_the_id_of_the_batch(gateway: Gateway):
    batch = await Batch(gateway, 3).send()
    handle = gateway.client.get_workflow_handle(bulk_workflow_id(batch.id))
    assert (await handle.describe()).workflow_type == "BulkSendWorkflow"
    with pytest.raises(RPCError) as unknown:
        await gateway.client.get_workflow_handle(bulk_workflow_id("bat_0")).describe()
    assert unknown.value.status is RPCStatusCode.NOT_FOUND


async def test_messages_that_are_forbidden_at_the_last_moment_keep_no_others_back(
    gateway: Gateway, monkeypatch
):
    """All of the first claim are cancelled between the plan and their submit."""
    claim, chunks = services.bulk.claims.BulkClaims.claim, []

    async def cancel_and_claim(self, id_range, provider, wanted, now):
        if not chunks:
            ids = [each.outbound.message_id for each in wanted]
            await gateway.execute(
                "UPDATE messages SET cancel_requested_at = now() WHERE id = ANY(:ids)", ids=ids
            )
            chunks.append(len(ids))
        return await claim(self, id_range, provider, wanted, now)

    send_chunk, runs = services.bulk.sender.BulkSender.send_chunk, []

    async def count_and_send(self, *arguments):
        runs.append(1)
        return await send_chunk(self, *arguments)

    monkeypatch.setattr(services.bulk.claims.BulkClaims, "claim", cancel_and_claim)
    monkeypatch.setattr(services.bulk.sender.BulkSender, "send_chunk", count_and_send)
    batch = await Batch(gateway, 300).send()
    await batch.until(lambda counts: counts.get("delivered", 0) + counts.get("canceled", 0) == 300)
    assert (await batch.counts())["canceled"] == chunks[0]
    await batch.ended()
    assert len(runs) == 1, "the chunk went on with the others"


TWO_PARTS = "{name} " + "z" * 190


async def partial_batch(gateway: Gateway, count: int) -> Batch:
    """A batch of two-part messages whose second parts are throttled, so that they leave the batch."""
    gateway.primary.set_default(
        Behaviour(response=Response.REFUSE, status="ESME_RTHROTTLED", part=2)
    )
    batch = await Batch(gateway, count, body=TWO_PARTS).send()
    left = 0
    async with asyncio.timeout(120):
        while left < count:
            await asyncio.sleep(0.1)
            rows = await gateway.fetch(
                "SELECT count(*) AS n FROM messages WHERE owner LIKE 'send/%'"
            )
            left = rows[0]["n"]
    return batch


def whole_messages(gateway: Gateway) -> list[str]:
    """The texts of which a carrier has all parts."""
    return [
        message.text
        for smsc in (gateway.primary, gateway.backup)
        for message in smsc.messages
        if len(message.by_number) == message.total
    ]


async def test_a_cancelled_batch_sends_no_more_of_messages_that_have_left_it(gateway: Gateway):
    batch = await partial_batch(gateway, 6)
    await gateway.services.batches.cancel(gateway.caller, batch.id)
    gateway.primary.set_default(Behaviour())
    await batch.until(lambda counts: set(counts) <= {"canceled", "sent", "delivered", "expired"})
    assert not whole_messages(gateway)


async def test_accepted_parts_of_a_cancelled_batch_are_cancelled_at_the_provider(
    database_url, temporal_client
):
    waits = '[retries.throttled]\ndelay = "60s"'
    async with running_gateway(database_url, temporal_client, more=waits) as gateway:
        later = (ReceiptStep(after=600),)
        gateway.primary.set_default(
            Behaviour(response=Response.REFUSE, status="ESME_RTHROTTLED", part=2, receipts=later)
        )
        batch = await Batch(gateway, 4, body=TWO_PARTS).send()
        await batch.until(lambda counts: counts == {"retried": 4})
        owners = await gateway.fetch("SELECT DISTINCT owner FROM messages")
        assert [row["owner"] for row in owners] == [f"bulk/{batch.id}"]
        await gateway.services.batches.cancel(gateway.caller, batch.id)
        await batch.until_all("canceled")
        assert gateway.primary.counts.cancels == 4


async def test_a_paused_batch_sends_no_more_of_messages_that_have_left_it(gateway: Gateway):
    batch = await partial_batch(gateway, 6)
    await gateway.services.batches.pause(gateway.caller, batch.id)
    await asyncio.sleep(3)  # what was under way when it was paused
    gateway.primary.set_default(Behaviour())
    await asyncio.sleep(8)  # longer than the pause between two tries
    assert not whole_messages(gateway)
    await gateway.services.batches.resume(gateway.caller, batch.id)
    await batch.until_all("delivered")


async def test_what_was_under_way_when_its_batch_was_cancelled_ends_and_is_not_replayed(
    database_url, temporal_client
):
    impatient = '[modes.transactional]\noutage_patience = "2s"'
    async with running_gateway(
        database_url, temporal_client, response_timeout="20s", more=impatient
    ) as gateway:
        gateway.primary.set_default(
            Behaviour(response=Response.REFUSE, status="ESME_RTHROTTLED", latency=3)
        )
        await gateway.backup.outage()
        batch = await Batch(gateway, 20).send()
        await batch.until(lambda counts: counts.get("sending", 0) > 5)
        await gateway.services.batches.pause(gateway.caller, batch.id)
        await gateway.services.batches.cancel(gateway.caller, batch.id)
        await batch.until_all("canceled")
        replayed = await gateway.services.dead_letters.replay(
            gateway.caller, message_ids=None, provider=None, limit=100
        )
        assert replayed.replayed == ()

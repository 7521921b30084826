"""Single messages that come too fast for a workflow each: accepted in groups, sent by one runner."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client

from domain.modes import Mode, Priority
from services.submission import Accepted, KeyInFlight, KeyReused, Refused
from simulator.behaviour import Behaviour, ReceiptStep
from store import accounts
from store.database import DatabaseAway, sql
from telemetry.metrics import metric_value
from tests.gateway import Gateway, running_gateway
from tests.rows import row_of
from tests.workflows.test_reconciler import Away
from workflows.ports.send import send_workflow_id

pytestmark = pytest.mark.stack

OTHER_RECIPIENT = "+447700900124"


@pytest.fixture
async def gateway(database_url: str, temporal_client: Client) -> AsyncIterator[Gateway]:
    """A gateway that starts no workflow for a single message."""
    async with running_gateway(database_url, temporal_client, workflow_starts=0) as running:
        yield running


async def owners(gateway: Gateway) -> Counter[str]:
    rows = await gateway.fetch("SELECT owner FROM messages")
    return Counter(row["owner"] for row in rows)


async def all_of(*sending: Any) -> list[Any]:
    return await asyncio.gather(*sending, return_exceptions=True)


def number(place: int) -> str:
    return f"+447700900{100 + place}"


async def test_messages_that_come_together_share_a_runner_and_all_arrive(gateway):
    grouped = metric_value("smsgateway_group_messages_sum")
    gateway.primary.set_default(Behaviour(receipts=(ReceiptStep(after=0.5),)))
    sent = await asyncio.gather(*(gateway.send(number(n), f"No {n}") for n in range(60)))
    [(owner, messages)] = (await owners(gateway)).items()
    assert owner.startswith("bulk/")
    assert messages == 60
    for message in sent:
        await gateway.until(message, "delivered")
    assert await gateway.transitions(sent[0]) == ["queued", "sending", "sent", "delivered"]
    assert Counter(m.text for m in gateway.primary.messages) == Counter(
        f"No {n}" for n in range(60)
    )
    assert metric_value("smsgateway_group_messages_sum") - grouped == 60


async def test_the_explanation_says_that_a_message_shares_its_runner(gateway):
    message = await gateway.send()
    await gateway.until(message, "delivered")
    explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
    assert any("and shares one with those" in sentence for sentence in explained.summary)
    assert [e.kind for e in explained.events][:3] == ["accepted", "decided", "moved"]
    assert explained.events[0].actor == gateway.caller.key_id


async def test_several_commits_within_a_moment_share_a_runner(gateway):
    sent = [await gateway.send(number(n)) for n in range(4)]
    bulks = await gateway.fetch("SELECT id, first_id, last_id, messages FROM bulks")
    commits = await gateway.fetch("SELECT 1 FROM events_of_many WHERE kind = 'accepted'")
    assert len(bulks) < len(commits) == 4
    assert sum(bulk["messages"] for bulk in bulks) == 4
    for message in sent:
        await gateway.until(message, "delivered")
    inside = await gateway.fetch(
        "SELECT 1 FROM messages m JOIN bulks b ON b.id = m.bulk_id"
        " AND m.id BETWEEN b.first_id AND b.last_id"
    )
    assert len(inside) == 4


async def test_one_that_is_refused_hurts_nobody_else(gateway):
    good, bad, also_good = await all_of(
        gateway.send(number(1), idempotency_key="a"),
        gateway.send("+44", "?", idempotency_key="b"),
        gateway.send(number(2), idempotency_key="c"),
    )
    assert isinstance(bad, Refused)
    assert await gateway.until(good, "delivered")
    assert await gateway.until(also_good, "delivered")
    assert len(await gateway.fetch("SELECT 1 FROM idempotency_keys")) == 2


async def test_an_equal_key_in_a_group_makes_one_message_and_hurts_nobody_else(gateway):
    first, second, other = await all_of(
        gateway.send(idempotency_key="once"),
        gateway.send(idempotency_key="once"),
        gateway.send(OTHER_RECIPIENT),
    )
    assert isinstance(second, KeyInFlight)
    assert isinstance(other, Accepted)
    again = await gateway.send(idempotency_key="once")
    assert again == replace(first, replayed=True)
    with pytest.raises(KeyReused):
        await gateway.send(body="Another text", idempotency_key="once")
    assert len(await gateway.fetch("SELECT 1 FROM messages")) == 2


async def test_one_that_the_database_refuses_is_alone_with_its_error(gateway):
    good, bad, also_good = await all_of(
        gateway.send(number(1)),
        gateway.send(number(2), metadata={"not": "text \x00"}),
        gateway.send(number(3)),
    )
    assert isinstance(bad, Exception)
    assert await gateway.until(good, "delivered")
    assert await gateway.until(also_good, "delivered")


async def test_no_send_is_accepted_when_the_commit_failed(gateway, monkeypatch):
    def away(*_: Any, **__: Any) -> None:
        raise DatabaseAway

    monkeypatch.setattr("services.grouped_sends.bulk_messages.insert", away)
    responses = await all_of(gateway.send(number(1)), gateway.send(number(2)))
    assert [type(response) for response in responses] == [DatabaseAway, DatabaseAway]
    assert await gateway.fetch("SELECT 1 FROM messages") == []
    monkeypatch.undo()
    assert await gateway.until(await gateway.send(number(3)), "delivered")


async def test_accounts_in_one_group_see_only_their_own(gateway):
    async with gateway.services.database.begin() as connection:
        accounts.ensure_account(connection, "other", "whsec_" + "B" * 44)
    stranger = replace(gateway, caller=replace(gateway.caller, account_id="other"))
    mine, theirs = await asyncio.gather(
        gateway.send(body="Mine", metadata={"of": "me"}), stranger.send(body="Theirs")
    )
    assert len(await owners(gateway)) == 1
    assert (await gateway.row(mine)).metadata == {"of": "me"}
    assert (await stranger.row(theirs)).body == "Theirs"
    recipients = await gateway.fetch("SELECT account_id FROM recipients ORDER BY account_id")
    assert [row["account_id"] for row in recipients] == ["default", "other"]
    await gateway.until(mine, "delivered")
    await stranger.until(theirs, "delivered")


async def test_what_differs_between_messages_of_a_group_is_kept_apart(gateway):
    soon = datetime.now(UTC) + timedelta(hours=1)
    plain, scheduled, short, with_url = await asyncio.gather(
        gateway.send(),
        gateway.send(scheduled_at=soon),
        gateway.send(sender="72404", validity=timedelta(minutes=5)),
        gateway.send(callback_url="https://shop.example.com/sms"),
    )
    assert len(await owners(gateway)) == 1
    assert await gateway.status(scheduled) == "scheduled"
    assert (await gateway.row(scheduled)).scheduled_at == soon
    row = await gateway.row(short)
    assert row.sender == "72404"
    assert row.valid_until - row.accepted_at == timedelta(minutes=5)
    for message in (plain, short, with_url):
        await gateway.until(message, "delivered")
    events = await gateway.fetch("SELECT target AS url, status FROM outbox ORDER BY position")
    assert [event["status"] for event in events] == ["sent", "delivered"]
    assert await gateway.status(scheduled) == "scheduled"
    await gateway.services.messages.cancel(gateway.caller, scheduled.message_id)
    assert await gateway.until(scheduled, "canceled")


async def test_a_group_that_temporal_never_heard_of_is_taken_up_by_the_reconciler(
    database_url, temporal_client
):
    away = Away(temporal_client)
    async with running_gateway(
        database_url, temporal_client, connect=away.connect, workflow_starts=0
    ) as gateway:
        away.away = True
        sent = await asyncio.gather(*(gateway.send(number(n)) for n in range(3)))
        await gateway.services.grouped_sends.drained()
        away.away = False
        await asyncio.sleep(2.1)  # for so long Temporal is not asked again
        await gateway.services.reconciler.sweep()
        for message in sent:
            await gateway.until(message, "delivered")


async def test_messages_get_a_workflow_each_until_they_come_too_fast(database_url, temporal_client):
    async with running_gateway(database_url, temporal_client, workflow_starts=10) as gateway:
        calm = [await gateway.send(number(n)) for n in range(3)]
        began = time.monotonic()
        busy = await asyncio.gather(*(gateway.send(number(10 + n)) for n in range(100)))
        took = time.monotonic() - began
        runners = await owners(gateway)
        alone = sum(messages for owner, messages in runners.items() if owner.startswith("send/"))
        # Half a second's worth after a rest, what a second brings, and what was taken in one go.
        assert 3 <= alone <= 3 + 5 + 10 * took + 4 < 100
        assert sum(runners.values()) == 103
        for message in [*calm, *busy]:
            await gateway.until(message, "delivered")
        await asyncio.sleep(1.2)
        later = await gateway.send(number(200))
        assert (await gateway.row(later)).owner.startswith("send/")


@pytest.mark.parametrize("what", [{"mode": Mode.ALERT}, {"priority": Priority.CRITICAL}])
async def test_a_critical_message_waits_neither_for_a_group_nor_for_the_budget(gateway, what):
    """While a group cannot be committed, and no query about the budget is answered."""
    accept = gateway.services.accept
    groups, budget = accept._groups, accept._budget
    budget._rate = 1
    async with groups._turn, gateway.services.database.begin() as connection:
        await row_of(connection, sql("SELECT 1 AS one"))
        connection.send(sql("LOCK TABLE workflow_starts"))
        await connection.flush()
        held_up = [asyncio.create_task(gateway.send(number(n))) for n in range(250)]
        await asyncio.sleep(0.5)
        async with asyncio.timeout(60):
            alert = await gateway.send(number(300), **what)
        assert not any(sending.done() for sending in held_up)
    await asyncio.gather(*held_up)
    assert (await gateway.row(alert)).owner == send_workflow_id(alert.message_id)
    await gateway.until(alert, "delivered")

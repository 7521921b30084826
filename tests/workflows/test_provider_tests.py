"""Tests of providers, end to end: the message keeps its provider whatever happens to it."""

import pytest

from services.keys import Operator, OperatorScope
from services.messages import UnknownMessage
from services.provider_tests import ProviderDown, ProviderTest
from services.submission import Accepted
from simulator.behaviour import Behaviour, Response
from smpp.statuses import Status
from store.providers import Heartbeat, record_heartbeat
from tests.gateway import CONFIGURATION, RECIPIENT, Gateway, gateway, running_gateway, uuid_of
from tests.workflows.test_reconciler import check_now
from workflows.ports.send import send_workflow_id

__all__ = ["gateway"]

OPERATOR = Operator("key_operator", frozenset({OperatorScope.MANAGE_CONFIG.value}))
WITH_CALLBACKS = """
[accounts.default]
default_callback_url = "http://127.0.0.1:9/sms"
"""


async def sent_through(gateway: Gateway, provider: str) -> Accepted:
    test = ProviderTest(to=RECIPIENT, body="A test", sender="AbilIT")
    accepted = await gateway.services.provider_tests.send(
        OPERATOR, provider, test, idempotency_key=None
    )
    await gateway.services.accept.drained()
    return accepted


async def test_a_test_is_delivered_by_its_provider_which_the_route_would_not_choose(
    gateway: Gateway,
):
    message = await sent_through(gateway, "backup")
    await gateway.until(message, "delivered")
    assert await gateway.attempts(message) == [("backup", "delivered")]
    assert not gateway.primary.messages
    explained = await gateway.services.provider_tests.explain("backup", message.message_id)
    assert explained.summary[0] == "Delivered by backup."
    assert "It tests backup, which was given with it: no route was looked up." in explained.summary
    (accepted, *_) = explained.events
    assert accepted.actor == OPERATOR.key_id
    with pytest.raises(UnknownMessage):
        await gateway.services.provider_tests.explain("primary", message.message_id)


async def test_a_provider_that_is_on_no_route_can_be_tested(database_url, temporal_client):
    configuration = CONFIGURATION.replace('["primary", "backup"]', '["primary"]')
    async with running_gateway(
        database_url, temporal_client, configuration=configuration
    ) as gateway:
        message = await sent_through(gateway, "backup")
        await gateway.until(message, "delivered")
        assert await gateway.attempts(message) == [("backup", "delivered")]


async def test_a_test_that_is_refused_goes_to_no_other_provider_even_when_it_is_replayed(
    gateway: Gateway,
):
    refuses = Behaviour(response=Response.REFUSE, status=Status.ESME_RINVSRCADR)
    gateway.backup.set_default(refuses)
    message = await sent_through(gateway, "backup")
    status = await gateway.until(message, "failed", "dead_letter", "delivered")
    assert status in {"failed", "dead_letter"}
    explained = await gateway.services.provider_tests.explain("backup", message.message_id)
    assert any("ESME_RINVSRCADR" in step.text and step.meaning for step in explained.steps)
    assert {each.provider for each in explained.attempts} == {"backup"}
    await gateway.execute(
        "UPDATE messages SET verdict = 'dead_letter', status = 'dead_letter' WHERE id = :id",
        id=uuid_of(message),
    )
    gateway.backup.set_default()
    replayed = await gateway.services.dead_letters.replay(
        gateway.caller, message_ids=[message.message_id], provider=None, limit=1
    )
    assert replayed.replayed == (message.message_id,)
    await gateway.until(message, "delivered")
    assert {provider for provider, _ in await gateway.attempts(message)} == {"backup"}
    assert not gateway.primary.messages


async def test_a_test_whose_runner_is_lost_keeps_its_provider(database_url, temporal_client):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        async with gateway.services.database.begin() as connection:
            polls = ["providers", "chunks"]
            record_heartbeat(connection, Heartbeat("backup", "gone/1", polls, 1, 1, "up", polls))
        message = await sent_through(gateway, "backup")
        workflow = gateway.client.get_workflow_handle(send_workflow_id(message.message_id))
        await workflow.terminate()
        await gateway.execute("DELETE FROM provider_workers")
        await gateway.start_worker()
        await gateway.providers_up("primary", "backup")
        await check_now(gateway, message)
        await gateway.until(message, "delivered")
        assert await gateway.attempts(message) == [("backup", "delivered")]
        assert not gateway.primary.messages


async def test_a_test_has_a_workflow_of_its_own_above_the_budget_and_sends_no_callbacks(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, workflow_starts=1, more=WITH_CALLBACKS
    ) as gateway:
        others = [await gateway.send(body=f"Number {n}") for n in range(5)]
        message = await sent_through(gateway, "backup")
        (row,) = await gateway.fetch(
            "SELECT bulk_id, only_provider, callback_url FROM messages WHERE id = :id",
            id=uuid_of(message),
        )
        assert tuple(row.values()) == (None, "backup", None)
        await gateway.until(message, "delivered")
        for each in others:
            await gateway.until(each, "delivered")
        told = await gateway.fetch("SELECT DISTINCT subject_id FROM outbox")
        assert {row["subject_id"] for row in told} == {uuid_of(each) for each in others}


async def test_a_provider_without_a_session_is_refused_with_the_reason(gateway: Gateway):
    await gateway.backup.outage()
    await gateway.providers_up("primary")
    with pytest.raises(ProviderDown, match=r"backup is down\. "):
        await sent_through(gateway, "backup")
    assert not await gateway.fetch("SELECT id FROM messages")


async def test_a_provider_that_leaves_the_configuration_ends_its_tests_with_the_reason(
    gateway: Gateway,
):
    gateway.backup.set_default(Behaviour(response=Response.REFUSE, status=Status.ESME_RTHROTTLED))
    message = await sent_through(gateway, "backup")
    await gateway.until(message, "retried")
    ports = {"primary": gateway.primary.port, "receipt_deadline": "30m", "response_timeout": "2s"}
    text = CONFIGURATION.format(backup=gateway.backup.port, more="", **ports)
    head, _, rest = text.partition("[providers.backup]")
    without = head + rest[rest.index("[[routes]]") :].replace(', "backup"', "")
    await gateway.services.configurations.apply(without, applied_by="test")
    await gateway.until(message, "dead_letter")
    explained = await gateway.services.provider_tests.explain("backup", message.message_id)
    assert explained.summary[0] == (
        "Dead letter: the provider that it tests is not in the configuration any more."
    )
    assert not gateway.primary.messages

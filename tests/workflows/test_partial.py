"""Messages of which a provider accepted some parts."""

import asyncio

from domain.modes import Mode
from domain.receipts import ReceiptState
from simulator.behaviour import Behaviour, ReceiptStep, Response
from tests.gateway import CONFIGURATION, Gateway, gateway, running_gateway

__all__ = ["gateway"]

TWO_PARTS = "x" * 200
SECOND_IS_THROTTLED = Behaviour(
    response=Response.REFUSE, status="ESME_RTHROTTLED", part=2, receipts=(ReceiptStep(after=600),)
)


async def test_accepted_parts_of_a_cancelled_message_are_cancelled_at_the_provider(
    gateway: Gateway,
):
    gateway.primary.set_default(SECOND_IS_THROTTLED)
    message = await gateway.send(body=TWO_PARTS)
    await gateway.until(message, "retried")
    await gateway.services.messages.cancel(gateway.caller, message.message_id)
    await gateway.until(message, "canceled")
    assert gateway.primary.counts.cancels == 1


async def test_missing_parts_are_sent_as_the_first_were_when_the_configuration_has_changed(
    gateway: Gateway,
):
    gateway.primary.set_default(SECOND_IS_THROTTLED)
    message = await gateway.send(body=TWO_PARTS)
    await gateway.until(message, "retried")
    changed = CONFIGURATION.replace('type = "simulator"', 'type = "simulator"\nparts = "payload"')
    await gateway.services.configurations.apply(
        changed.format(
            primary=gateway.primary.port,
            backup=gateway.backup.port,
            receipt_deadline="30m",
            response_timeout="2s",
            more="",
        ),
        applied_by="test",
    )
    gateway.primary.set_default(Behaviour())
    await gateway.until(message, "sent", "dead_letter", "failed", "expired")
    assert await gateway.attempts(message) == [("primary", "accepted")]


async def test_an_alert_whose_phone_comes_on_late_is_delivered_while_the_other_provider_is_down(
    database_url, temporal_client
):
    more = '[modes.alert]\nreceipt_deadline = "2s"\noutage_patience = "4s"'
    async with running_gateway(database_url, temporal_client, more=more) as gateway:
        gateway.primary.set_default(
            Behaviour(receipts=(ReceiptStep(state=ReceiptState.DELIVERED, after=8),))
        )
        await gateway.backup.outage()
        await gateway.providers_up("primary")
        message = await gateway.send(mode=Mode.ALERT)
        while len(await gateway.attempts(message)) < 2:
            await asyncio.sleep(0.1)
        gateway.primary.set_default(Behaviour())  # the phone is on
        await gateway.until(message, "delivered", "dead_letter", "failed", "expired")
        attempts = await gateway.attempts(message)
        assert {provider for provider, _ in attempts} == {"primary"}
        assert attempts[-1] == ("primary", "delivered")

"""Cancelling at the provider what it accepted: many parts, and an SMSC that does not answer."""

from typing import Any

import pytest

import activities.send
from domain.modes import Mode
from simulator.behaviour import Behaviour
from simulator.smsc import Smsc
from smpp.commands import Command
from smpp.pdus import Pdu
from tests.gateway import Gateway, gateway, running_gateway, uuid_of

__all__ = ["gateway"]

EIGHT_PARTS = "The disk of the database is full; please look at it. " * 23
QUICK = '[modes.alert]\nreceipt_deadline = "1s"'


def leaves_cancels_without_response(smsc: Smsc) -> list[Pdu]:
    """From now on; what it was asked."""
    asked: list[Pdu] = []

    async def silent(_session: object, pdu: Pdu) -> None:
        asked.append(pdu)

    smsc._responses = {**smsc._responses, Command.CANCEL_SM: silent}
    return asked


async def cancelled_at_provider(gateway: Gateway, message: Any) -> list[bool | None]:
    rows = await gateway.fetch(
        "SELECT cancelled_at_provider FROM attempts WHERE message_id = :id ORDER BY number",
        id=uuid_of(message),
    )
    return [row["cancelled_at_provider"] for row in rows]


async def test_an_smsc_that_does_not_answer_cancels_does_not_keep_an_alert_from_the_next_route(
    database_url, temporal_client
):
    async with running_gateway(
        database_url, temporal_client, more=QUICK, response_timeout="1s"
    ) as gateway:
        gateway.primary.set_default(Behaviour(receipts=()))
        asked = leaves_cancels_without_response(gateway.primary)
        message = await gateway.send(body=EIGHT_PARTS, mode=Mode.ALERT)
        await gateway.until(message, "delivered", within=60)
        assert await gateway.attempts(message) == [("primary", "expired"), ("backup", "delivered")]
        assert len(asked) == len({pdu.octets("message_id") for pdu in asked}) == 8
        assert await cancelled_at_provider(gateway, message) == [False, None]
        events = await gateway.services.messages.events(gateway.caller, message.message_id)
        assert [e.reason for e in events if e.kind == "cancelled_at_provider"] == ["refused"]


async def test_all_parts_of_a_message_are_cancelled_at_its_provider(gateway: Gateway):
    gateway.primary.set_default(Behaviour(receipts=()))
    message = await gateway.send(body=EIGHT_PARTS)
    await gateway.until(message, "sent", within=60)
    await gateway.services.messages.cancel(gateway.caller, message.message_id)
    await gateway.until(message, "canceled", within=60)
    assert gateway.primary.counts.cancels == 8
    assert await cancelled_at_provider(gateway, message) == [True]


async def test_a_try_to_cancel_that_died_is_one_try(
    database_url, temporal_client, monkeypatch: pytest.MonkeyPatch
):
    """As where a worker is killed between the cancels and their record."""
    tries: list[int] = []

    async def dies(_provider: object, cancellation: Any) -> bool:
        tries.append(len(cancellation.ids))
        raise MemoryError

    monkeypatch.setattr(activities.send, "_cancel", dies)
    async with running_gateway(database_url, temporal_client, more=QUICK) as gateway:
        gateway.primary.set_default(Behaviour(receipts=()))
        message = await gateway.send(body=EIGHT_PARTS, mode=Mode.ALERT)
        await gateway.until(message, "delivered", within=60)
        assert await gateway.attempts(message) == [("primary", "expired"), ("backup", "delivered")]
        assert tries == [8]
        assert await cancelled_at_provider(gateway, message) == [False, None]

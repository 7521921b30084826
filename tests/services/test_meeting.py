"""Receipts that are quicker than what this process writes of their answers."""

import asyncio
import time

import pytest

import services.meeting
from domain.receipts import ReceiptState
from providers.base import ReceivedReceipt
from tests.gateway import Gateway, gateway

__all__ = ["gateway"]

pytestmark = pytest.mark.stack


def receipt_of(provider_message_id: str) -> ReceivedReceipt:
    return ReceivedReceipt(
        provider="primary",
        provider_message_id=provider_message_id,
        state=ReceiptState.DELIVERED,
        code="",
        network=None,
        reference=None,
        sender=None,
        recipient=None,
        done_at=None,
    )


async def test_a_receipt_waits_for_its_answer_that_is_about_to_be_written(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(services.meeting, "_WRITTEN_WITHIN", 60)
    answers = gateway.services.bulks.meeting.answers("primary")
    answers.add(["one", None])
    early = asyncio.create_task(gateway.services.receipts.take(receipt_of("one")))
    await asyncio.sleep(0.3)
    assert not early.done()
    answers.written()
    async with asyncio.timeout(10):
        await early


async def test_a_receipt_waits_for_a_second_at_most(gateway: Gateway):
    gateway.services.bulks.meeting.answers("primary").add(["one"])
    began = time.monotonic()
    async with asyncio.timeout(10):
        await gateway.services.receipts.take(receipt_of("one"))
    assert time.monotonic() - began > 0.9


async def test_a_receipt_whose_answer_is_written_waits_for_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(services.meeting, "_WRITTEN_WITHIN", 60)
    written, others = (gateway.services.bulks.meeting.answers("primary") for _ in range(2))
    written.add(["one"])
    others.add(["two"])
    written.written()
    async with asyncio.timeout(10):
        await gateway.services.receipts.take(receipt_of("one"))

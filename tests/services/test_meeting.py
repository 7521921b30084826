"""Receipts that are quicker than what this process writes of their answers."""

import asyncio
import contextlib
import time

import pytest

import services.meeting
from domain.receipts import ReceiptState
from providers.base import ReceivedReceipt
from store.database import DatabaseAway
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
    early = gateway.services.receipts.take(receipt_of("one"))
    await asyncio.sleep(0.3)
    assert not early.done()
    answers.written()
    async with asyncio.timeout(10):
        await early


async def test_a_receipt_waits_for_two_seconds_at_most(gateway: Gateway):
    gateway.services.bulks.meeting.answers("primary").add(["one"])
    began = time.monotonic()
    async with asyncio.timeout(10):
        await gateway.services.receipts.take(receipt_of("one"))
    assert 0.9 < time.monotonic() - began < 5


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


async def test_a_receipt_that_is_written_with_its_answer_is_not_written_again(gateway: Gateway):
    answers = gateway.services.bulks.meeting.answers("primary")
    answers.add(["one"])
    early = gateway.services.receipts.take(receipt_of("one"))
    await asyncio.sleep(0.1)
    with answers.receipts() as (kept, written):
        written.update(kept)
    async with asyncio.timeout(10):
        await early
    assert list(kept) == ["one"]
    assert not await gateway.fetch("SELECT 1 FROM receipts")


async def test_a_receipt_whose_answer_could_not_be_written_is_written_by_itself(gateway: Gateway):
    answers = gateway.services.bulks.meeting.answers("primary")
    answers.add(["one"])
    early = gateway.services.receipts.take(receipt_of("one"))
    await asyncio.sleep(0.1)
    with contextlib.suppress(DatabaseAway), answers.receipts() as (kept, written):
        written.update(kept)
        raise DatabaseAway
    answers.written()
    async with asyncio.timeout(10):
        await early
    (stored,) = await gateway.fetch("SELECT copies FROM receipts")
    assert stored["copies"] == 1


async def test_of_two_copies_that_are_quicker_than_their_answer_both_are_counted(gateway: Gateway):
    answers = gateway.services.bulks.meeting.answers("primary")
    answers.add(["one"])
    both = asyncio.gather(*[gateway.services.receipts.take(receipt_of("one")) for _ in range(2)])
    await asyncio.sleep(0.1)
    answers.written()
    async with asyncio.timeout(10):
        await both
    (stored,) = await gateway.fetch("SELECT copies FROM receipts")
    assert stored["copies"] == 2

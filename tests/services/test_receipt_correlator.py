"""Receipts that are quicker than what this process writes of their responses."""

import asyncio
import contextlib
import time

import pytest

import services.receipt_correlator
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
    monkeypatch.setattr(services.receipt_correlator, "_WRITTEN_WITHIN", 60)
    responses = gateway.services.correlator.responses("primary")
    responses.add(["one", None])
    early = gateway.services.receipts.take(receipt_of("one"))
    await asyncio.sleep(0.3)
    assert not early.done()
    responses.written()
    async with asyncio.timeout(60):
        await early


async def test_a_receipt_waits_for_two_seconds_at_most(gateway: Gateway):
    gateway.services.correlator.responses("primary").add(["one"])
    began = time.monotonic()
    async with asyncio.timeout(60):
        await gateway.services.receipts.take(receipt_of("one"))
    assert 0.9 < time.monotonic() - began < 30


async def test_a_receipt_whose_answer_is_written_waits_for_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(services.receipt_correlator, "_WRITTEN_WITHIN", 60)
    written, others = (gateway.services.correlator.responses("primary") for _ in range(2))
    written.add(["one"])
    others.add(["two"])
    written.written()
    async with asyncio.timeout(60):
        await gateway.services.receipts.take(receipt_of("one"))


async def test_a_receipt_that_is_written_with_its_answer_is_not_written_again(gateway: Gateway):
    responses = gateway.services.correlator.responses("primary")
    responses.add(["one"])
    early = gateway.services.receipts.take(receipt_of("one"))
    await asyncio.sleep(0.1)
    with responses.receipts() as (kept, written):
        written.update(kept)
    async with asyncio.timeout(60):
        await early
    assert list(kept) == ["one"]
    assert not await gateway.fetch("SELECT 1 FROM receipts")


async def test_a_receipt_whose_answer_could_not_be_written_is_written_by_itself(gateway: Gateway):
    responses = gateway.services.correlator.responses("primary")
    responses.add(["one"])
    early = gateway.services.receipts.take(receipt_of("one"))
    await asyncio.sleep(0.1)
    with contextlib.suppress(DatabaseAway), responses.receipts() as (kept, written):
        written.update(kept)
        raise DatabaseAway
    responses.written()
    async with asyncio.timeout(60):
        await early
    (stored,) = await gateway.fetch("SELECT copies FROM receipts")
    assert stored["copies"] == 1


async def test_of_two_copies_that_are_quicker_than_their_answer_both_are_counted(gateway: Gateway):
    responses = gateway.services.correlator.responses("primary")
    responses.add(["one"])
    both = asyncio.gather(*[gateway.services.receipts.take(receipt_of("one")) for _ in range(2)])
    await asyncio.sleep(0.1)
    responses.written()
    async with asyncio.timeout(60):
        await both
    (stored,) = await gateway.fetch("SELECT sum(copies) AS copies FROM receipts")
    assert stored["copies"] == 2

"""Receipts on their way in: whatever a carrier sends is stored, or refused alone."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from domain.receipts import ReceiptState
from providers.base import ReceivedReceipt
from services.receipt_rules import ReceiptRules
from simulator.behaviour import Behaviour
from telemetry import metrics
from tests.gateway import CONFIGURATION, RECIPIENT, Gateway, gateway, running_gateway
from tests.services.test_receipt_correlator import receipt_of

__all__ = ["gateway"]

pytestmark = pytest.mark.stack

HOSTILE = ("", "\0", "000\0", "\ud800", "a\udfffb", "x" * 70_000, "é" * 300, "'\"\\{},NULL", "\n")
MOMENTS = (
    None,
    datetime.max.replace(tzinfo=timezone(-timedelta(hours=23, minutes=59))),
    datetime.min.replace(tzinfo=UTC),
    datetime(2026, 11, 28, tzinfo=UTC),
)


def hostile(chance: random.Random) -> ReceivedReceipt:
    def text() -> str:
        return "".join(chance.choices(HOSTILE, k=chance.randint(1, 3)))

    return ReceivedReceipt(
        provider="primary",
        provider_message_id=text(),
        state=chance.choice(list(ReceiptState)),
        code=text(),
        network=chance.choice([None, text()]),
        reference=chance.choice([None, 0, 0xFFFF]),
        sender=chance.choice([None, text(), "+447700900999"]),
        recipient=chance.choice([None, text(), RECIPIENT, "+0", "+1" * 40]),
        done_at=chance.choice(MOMENTS),
    )


async def test_whatever_a_carrier_writes_into_receipts_is_stored_and_can_be_read(gateway: Gateway):
    chance = random.Random(26)
    count = 600
    async with asyncio.timeout(300):
        await asyncio.gather(
            *[gateway.services.receipts.take(hostile(chance)) for _ in range(count)]
        )
    stored = await gateway.fetch("SELECT * FROM receipts")
    assert sum(row["copies"] for row in stored) == count
    assert max(len(row["provider_message_id"]) for row in stored) <= 255
    assert max(len(row["code"]) for row in stored) <= 255


@pytest.mark.parametrize(
    ("recipient", "status"),
    [
        (RECIPIENT, "delivered"),
        ("+44 7700 900123", "delivered"),
        ("+7700900123", "delivered"),  # in national form: it says nothing
        (None, "delivered"),
        ("+447700900124", "sent"),
    ],
)
async def test_a_recipient_that_differs_contradicts_and_a_number_in_national_form_does_not(
    gateway: Gateway, recipient, status
):
    gateway.primary.set_default(Behaviour(hold=True))
    message = await gateway.send()
    await gateway.until(message, "sent", within=120)
    (row,) = await gateway.fetch("SELECT provider_message_id FROM attempts")
    its = replace(receipt_of(row["provider_message_id"]), recipient=recipient)
    await gateway.services.receipts.take(its)
    assert await gateway.status(message) == status


def rules_of(gateway: Gateway) -> ReceiptRules:
    return ReceiptRules(gateway.services.configurations)


async def test_a_receipt_group_joins_the_hosts_of_an_account_and_a_former_name(
    database_url, temporal_client
):
    configuration = CONFIGURATION.replace("[providers.primary]", "[providers.primary]\nGROUP")
    configuration = configuration.replace("[providers.backup]", "[providers.backup]\nGROUP")
    configuration = configuration.replace("GROUP", 'receipt_group = "old-name"')
    async with running_gateway(
        database_url, temporal_client, configuration=configuration, with_worker=False
    ) as gateway:
        rules = rules_of(gateway)
        assert rules.providers("primary") == ("primary", "backup", "old-name")
        assert rules.providers("backup") == ("backup", "primary", "old-name")
        assert rules.declared() == {"primary", "backup", "old-name"}


async def test_a_provider_without_a_group_has_its_own_receipts_only(gateway: Gateway):
    assert rules_of(gateway).providers("primary") == ("primary",)
    assert rules_of(gateway).providers("removed") == ("removed",)


async def test_a_sweep_counts_receipts_that_match_nothing_and_those_that_never_will(
    gateway: Gateway,
):
    def counted(name: str) -> float:
        return metrics.REGISTRY.get_sample_value(name, {"provider": "primary"}) or 0

    before = counted("smsgateway_receipts_never_matched_total")
    for its_id in ("nobody's", "old"):
        await gateway.services.receipts.take(receipt_of(its_id))
    await gateway.execute(
        "UPDATE receipts SET received_at = :old, match_at = :old WHERE provider_message_id = 'old'",
        old=datetime.now(UTC) - timedelta(days=3),
    )
    async with asyncio.timeout(120):
        while counted("smsgateway_receipts_never_matched_total") == before:
            await gateway.services.reconciler.sweep()
    await gateway.services.reconciler.sweep()
    assert counted("smsgateway_receipts_never_matched_total") == before + 1
    assert counted("smsgateway_unmatched_receipts") == 1
    listed = await gateway.services.providers.listed(gateway.caller)
    (unmatched,) = [each.unmatched for each in listed if each.name == "primary"]
    assert (unmatched.waiting, unmatched.never_matched) == (1, 0), "the old one is too old to show"

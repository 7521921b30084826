"""The reconciler's steps: each is tried in every round, whatever became of the others."""

import asyncio
import secrets
from datetime import datetime, timedelta

import pytest
from pydantic import SecretStr

from services import reconciler
from services.assembly import Services, assemble
from services.reconciler_kinds import TakenUp
from settings.settings import Settings
from telemetry.metrics import metric_value

pytestmark = pytest.mark.stack

STEPS = (
    "messages",
    "bulks",
    "late_receipts",
    "callbacks",
    "retention",
    "partitions",
    "idempotency_keys",
    "unmatched_receipts",
    "open_messages",
)


async def nowhere():
    raise RuntimeError("nobody listens")


@pytest.fixture
async def services(database_url: str):
    settings = Settings(
        database_url=SecretStr(database_url),
        recipient_hash_key=SecretStr(secrets.token_hex(32)),
    )
    assembled = assemble(settings, connect=nowhere)
    yield assembled
    await assembled.close()


def steps(outcome: str) -> dict[str, float]:
    return {
        step: metric_value("smsgateway_reconciler_steps_total", {"step": step, "outcome": outcome})
        for step in STEPS
    }


def break_step(services: Services, step: str, monkeypatch, work) -> None:
    """Let a step do this instead of its work."""
    reconciler = services.reconciler
    checked = {each.name: (each, "take_up") for each in reconciler._checked}
    owner, name = {
        **checked,
        "late_receipts": (services.receipts, "match_late"),
        "callbacks": (services.callbacks, "sweep"),
        "retention": (reconciler._retention, "delete"),
        "partitions": (reconciler._retention, "turn_partitions"),
        "idempotency_keys": (reconciler, "_expire_keys"),
        "unmatched_receipts": (reconciler, "_count_unmatched"),
        "open_messages": (reconciler, "_count_open"),
    }[step]
    monkeypatch.setattr(owner, name, work)


@pytest.mark.parametrize("broken", STEPS)
async def test_a_step_that_fails_keeps_no_other_from_its_work(services, monkeypatch, broken):
    async def fail(*_):
        raise RuntimeError("a fault of ours")

    break_step(services, broken, monkeypatch, fail)
    done, failed = steps("done"), steps("failed")
    await services.reconciler.sweep()
    now_done, now_failed = steps("done"), steps("failed")
    assert {s for s in STEPS if now_failed[s] > failed[s]} == {broken}
    assert {s for s in STEPS if now_done[s] > done[s]} == set(STEPS) - {broken}


async def test_a_step_that_hangs_is_given_up(services, monkeypatch):
    async def hang(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(reconciler, "LONGEST_STEP", timedelta(milliseconds=50))
    break_step(services, "late_receipts", monkeypatch, hang)
    failed = steps("failed")["late_receipts"]
    async with asyncio.timeout(60):
        await services.reconciler.sweep()
    assert steps("failed")["late_receipts"] == failed + 1


async def test_another_kind_of_row_with_a_check_by_is_taken_up_once_it_is_listed(services):
    class Incidents:
        name = "incidents"
        rounds = 0

        async def make_all_due(self, now: datetime) -> int:
            return 3

        async def take_up(self, now: datetime) -> TakenUp:
            self.rounds += 1
            return TakenUp(overdue=1, restarted=1)

    incidents = Incidents()
    services.reconciler._checked = (*services.reconciler._checked, incidents)
    swept = await services.reconciler.sweep()
    assert (incidents.rounds, swept.restarted) == (1, 1)

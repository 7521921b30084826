"""What takes a gateway days takes these tests seconds: Temporal's time is skipped, nothing else's.

So the clocks of the gateway are set to Temporal's before each situation goes on; what Postgres and
the carriers measure by themselves goes by the real time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial

import pytest
from temporalio import activity
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

import services.accept
import services.receipts
from domain.modes import Mode
from domain.receipts import ReceiptState
from services.submission import Accepted
from simulator.behaviour import Behaviour, ReceiptStep, Response
from tests.fakes.callback_receiver import CallbackReceiver
from tests.gateway import Gateway, running_gateway
from workers import provider_queues
from workers.roles import Role
from workers.search_attributes import add_search_attributes
from workflows import reconciler
from workflows.reconciler import RECONCILER, ReconcilerActivities, ReconcilerWorkflow, SweepResult

pytestmark = pytest.mark.java

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
A_MOMENT = timedelta(seconds=30)
"""How far a moment that was waited for may be off, for what really takes time meanwhile."""


class Days:
    """A gateway whose time passes when a test says so."""

    def __init__(self, gateway: Gateway, environment: WorkflowEnvironment) -> None:
        self.gateway = gateway
        self._environment = environment
        self._ahead = timedelta()

    def now(self, _: tzinfo | None = None) -> datetime:
        """Temporal's time."""
        return datetime.now(UTC) + self._ahead

    async def pass_(self, span: timedelta) -> None:
        """Let time pass; timers that end within it are acted upon in their order."""
        await self._environment.sleep(span)
        self._ahead = await self._environment.get_current_time() - datetime.now(UTC)
        # What Temporal has handed out by now is still to be worked on.
        await asyncio.sleep(0.1)

    async def transitioned_at(self, message: Accepted, status: str) -> datetime:
        return await self._at(message, kind="moved", status=status)

    async def cancelled_at(self, message: Accepted) -> datetime:
        """When it was decided to wait no longer; the receipt of a cancel_at_provider may be the first to move it."""
        return await self._at(message, kind="decided", reason="cancel_at_provider")

    async def _at(self, message: Accepted, **what: str) -> datetime:
        events = await self.gateway.services.messages.events(
            self.gateway.caller, message.message_id
        )
        return next(e.at for e in events if what.items() <= asdict(e).items())


@pytest.fixture
def running(
    database_url: str, time_skipping: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AsyncIterator[Days]]:
    """A gateway on a Temporal whose time can be skipped, with no reconciler to wake anybody."""

    @asynccontextmanager
    async def run(**what: object) -> AsyncIterator[Days]:
        await add_search_attributes(time_skipping.client, "default")
        async with running_gateway(
            database_url, time_skipping.client, with_worker=False, response_timeout="1s", **what
        ) as gateway:
            days = Days(gateway, time_skipping)
            for module in (services.accept, services.receipts):
                monkeypatch.setattr(module, "datetime", days)
            monkeypatch.setattr(
                provider_queues,
                "Submitting",
                partial(provider_queues.Submitting, now=_as_the_task_started),
            )
            await gateway.start_worker(Role.SENDS, Role.PROVIDERS, Role.CALLBACKS)
            await gateway.providers_up("primary", "backup")
            yield days

    return run


def _as_the_task_started() -> datetime:
    return activity.info().started_time


async def test_a_message_scheduled_for_tomorrow_is_sent_tomorrow(running):
    async with running() as days:
        tomorrow = days.now() + 24 * HOUR
        message = await days.gateway.send(scheduled_at=tomorrow)
        await days.pass_(24 * HOUR - MINUTE)
        assert await days.gateway.status(message) == "scheduled"
        assert not days.gateway.primary.messages
        await days.pass_(2 * MINUTE)
        await days.gateway.until(message, "delivered")
        assert abs(await days.transitioned_at(message, "sending") - tomorrow) < A_MOMENT
        assert len(days.gateway.primary.messages) == 1


async def test_a_message_whose_receipt_never_comes_expires_after_its_day(running):
    async with running() as days:
        days.gateway.primary.set_default(Behaviour(receipts=()))
        message = await days.gateway.send()
        await days.gateway.until(message, "sent")
        await days.pass_(24 * HOUR - MINUTE)
        assert await days.gateway.status(message) == "sent"
        await days.pass_(5 * MINUTE)
        await days.gateway.until(message, "expired")
        assert (await days.gateway.row(message)).reason == "no_receipt"
        assert len(days.gateway.primary.messages) == 1
        assert not days.gateway.backup.messages


async def test_a_promotional_message_unknown_expires_without_being_sent_again(running):
    async with running() as days:
        days.gateway.primary.set_default(Behaviour(response=Response.SILENCE, receipts=()))
        message = await days.gateway.send(mode=Mode.PROMOTIONAL)
        await days.gateway.until(message, "unknown")
        unknown = await days.transitioned_at(message, "unknown")
        await days.pass_(48 * HOUR)
        await days.gateway.until(message, "expired")
        assert (await days.gateway.row(message)).reason == "outcome_unknown"
        assert (
            abs(await days.transitioned_at(message, "expired") - unknown - 30 * MINUTE) < A_MOMENT
        )
        assert days.gateway.primary.counts.submits == 1
        assert not days.gateway.backup.messages


async def test_an_alert_that_is_still_on_its_way_is_waited_for_longer(running):
    patient = '[modes.alert]\nreceipt_deadline = "30m"'
    async with running(more=patient) as days:
        days.gateway.primary.set_default(
            Behaviour(hold=True, receipts=(ReceiptStep(state=ReceiptState.ENROUTE),))
        )
        alert = await days.gateway.send(mode=Mode.ALERT)
        await days.gateway.until(alert, "sent")
        await days.pass_(25 * MINUTE)
        await days.gateway.release_receipts()
        await came(days.gateway, alert, "enroute")
        await days.pass_(20 * MINUTE)  # past the 30 that it has without such news
        assert await days.gateway.attempts(alert) == [("primary", "accepted")]
        for _ in range(15):  # the clock of receipts is set only in between
            await days.pass_(MINUTE)
        await days.gateway.until(alert, "delivered")
        providers = [provider for provider, _ in await days.gateway.attempts(alert)]
        assert providers == ["primary", "backup"]
        waited = await days.cancelled_at(alert) - await days.transitioned_at(alert, "sent")
        assert abs(waited - 55 * MINUTE) < A_MOMENT


async def test_an_alert_of_which_nothing_is_heard_goes_on_after_a_minute(running):
    async with running() as days:
        days.gateway.primary.set_default(Behaviour(receipts=()))
        alert = await days.gateway.send(mode=Mode.ALERT)
        await days.gateway.until(alert, "sent")
        await days.pass_(2 * MINUTE)
        await days.gateway.until(alert, "delivered")
        waited = await days.cancelled_at(alert) - await days.transitioned_at(alert, "sent")
        assert abs(waited - MINUTE) < A_MOMENT


async def came(gateway: Gateway, message: Accepted, state: str) -> None:
    async with asyncio.timeout(60):
        while True:
            explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
            if state in {receipt.state for receipt in explained.receipts}:
                return
            await asyncio.sleep(0.02)


async def test_an_outage_is_waited_out_for_half_an_hour_and_then_a_person_decides(running):
    async with running() as days:
        for carrier in (days.gateway.primary, days.gateway.backup):
            await carrier.outage()
        await days.gateway.providers_up()
        message = await days.gateway.send()
        await days.pass_(29 * MINUTE)
        assert await days.gateway.status(message) == "queued"
        await days.pass_(2 * MINUTE)
        await days.gateway.until(message, "dead_letter")
        assert (await days.gateway.row(message)).reason == "no_provider_up"


async def test_a_message_that_no_worker_can_submit_is_tried_rarely_until_it_expires(
    running, monkeypatch
):
    tried = 0

    async def claim(*_: object, **__: object) -> list[int]:
        nonlocal tried
        tried += 1
        raise ValueError("this one fails whenever it is tried")

    async with running() as days:
        monkeypatch.setattr(days.gateway.services.delivery, "claim", claim)
        message = await days.gateway.send(validity=HOUR)
        await days.pass_(HOUR + 10 * MINUTE)
        await days.gateway.until(message, "expired")
        assert (await days.gateway.row(message)).reason == "validity_over"
        assert 10 < tried < 30


async def test_a_callback_that_fails_for_a_day_is_delivered_in_the_end(running):
    async with running() as days, CallbackReceiver() as customer:
        customer.will_respond(*[500] * 8)
        message = await days.gateway.send(callback_url=customer.url())
        began = days.now()
        await days.gateway.until(message, "delivered")
        await customer.received(1)
        await days.pass_(72 * HOUR)
        await customer.received(10)
        assert customer.statuses_of(message.message_id)[-2:] == ["SENT", "DELIVERED"]
        tried = [int(request.headers["webhook-timestamp"]) for request in customer.requests]
        assert tried[-1] - began.timestamp() > 24 * 3600


# --- the reconciler ----------------------------------------------------------------------------


class QuietSweeps(ReconcilerActivities):
    """Sweeps where there is nothing to do."""

    def __init__(self) -> None:
        self.rounds = 0
        self.unknowns = 0

    @activity.defn
    async def mark_everything_due(self) -> None:
        self.unknowns += 1

    @activity.defn
    async def sweep(self) -> SweepResult:
        self.rounds += 1
        return SweepResult(0, 0, 0, more=False)


# Temporal warns from 10,240 events on, and ends a workflow that has 51,200.
LONGEST_HISTORY = 10_240


async def test_the_reconciler_begins_anew_before_its_history_grows_long(time_skipping, monkeypatch):
    usual_rounds, rounds = reconciler._ROUNDS, 20
    monkeypatch.setattr(reconciler, "_ROUNDS", rounds)
    sweeps = QuietSweeps()
    async with Worker(
        time_skipping.client,
        task_queue=RECONCILER,
        workflows=[ReconcilerWorkflow],
        activities=[sweeps.mark_everything_due, sweeps.sweep],
        workflow_runner=UnsandboxedWorkflowRunner(),  # or it would not see what was patched
    ):
        started = await time_skipping.client.start_workflow(
            ReconcilerWorkflow.run, id=reconciler.RECONCILER_WORKFLOW_ID, task_queue=RECONCILER
        )
        await time_skipping.sleep(2.5 * rounds * timedelta(seconds=5))
    first = time_skipping.client.get_workflow_handle(started.id, run_id=started.result_run_id)
    history = await first.fetch_history()
    ended = history.events[-1].workflow_execution_continued_as_new_event_attributes
    assert ended.new_execution_run_id
    assert len(history.events) / rounds * usual_rounds < LONGEST_HISTORY
    assert sweeps.rounds >= 2 * rounds
    assert sweeps.unknowns == 1

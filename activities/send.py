"""What `SendWorkflow` asks for: decisions from the database, submits and recalls to a provider."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from temporalio import activity

from domain.delivery import Submit, Wait, WaitFor
from domain.ids import IdPrefix, public_id
from providers.base import NoSlot, Provider
from services.delivery import Delivery, Loaded
from telemetry import metrics
from telemetry.logs import get_logger, log_context
from telemetry.tracing import SpanKind, span
from workflows.ports.send import (
    DecideActivities,
    DecideTask,
    MessageRef,
    ProviderActivities,
    RecallTask,
    Step,
    SubmitTask,
)

_log = get_logger(__name__)


_REST = timedelta(seconds=5)


def utc_now() -> datetime:
    """The time; tests that skip time bring their own."""
    return datetime.now(UTC)


class Deciding(DecideActivities):
    """The part of the work that needs only the database; polled for on `sends`."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    @activity.defn
    async def decide(self, task: DecideTask) -> Step:
        """Look at the rows, decide, and store the decision."""
        with log_context(message_id=task.message.message_id):
            return await self._delivery.decide(task.message, task.now)


class Submitting(ProviderActivities):
    """The part that holds the binds of providers; polled for on `provider/<name>`."""

    def __init__(
        self,
        delivery: Delivery,
        providers: Mapping[str, Provider],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._delivery = delivery
        self._providers = providers
        self._now = now

    @activity.defn
    async def submit(self, task: SubmitTask) -> Step:
        """Write the attempt, hand it to the provider, record what came of it."""
        message, wanted = task.message, task.submit
        with log_context(message_id=message.message_id, provider=wanted.provider):
            loaded = await self._delivery.load(message, wanted, self._now())
            provider = self._providers.get(wanted.provider)
            if loaded is None or provider is None:
                # Nothing to send, or no longer by this worker; a rest keeps it from asking again
                # and again.
                return Step(Wait(self._now() + _REST, WaitFor.BACKOFF))
            with span(
                "submit",
                parent=loaded.traceparent,
                kind=SpanKind.CLIENT,
                message_id=public_id(IdPrefix.MESSAGE, loaded.outbound.message_id),
                provider=wanted.provider,
                attempt=wanted.number,
            ):
                try:
                    async with provider.slot(loaded.outbound.priority):
                        return await self._submit_now(message, wanted, loaded, provider)
                except NoSlot as full:
                    # Nothing was written: the message waits without an attempt, then looks anew.
                    return Step(Wait(self._now() + full.after, WaitFor.BACKOFF))

    @activity.defn
    async def recall(self, task: RecallTask) -> Step:
        """Ask the provider to forget an attempt, record whether it did, and decide anew."""
        message, recall = task.message, task.recall
        with log_context(message_id=message.message_id, provider=recall.provider):
            content, ids = await self._delivery.sent_parts(message, recall)
            provider = self._providers.get(recall.provider)
            done = False
            if content is not None and provider is not None and ids:
                forgotten = [
                    await provider.recall(
                        part, sender=content["sender"], recipient=content["recipient"]
                    )
                    for part in ids
                ]
                done = all(forgotten)
            return await self._delivery.recalled(message, recall, done=done, now=self._now())

    async def _submit_now(
        self, message: MessageRef, wanted: Submit, loaded: Loaded, provider: Provider
    ) -> Step:
        """Claim, send, record; what is claimed is sent and recorded, whoever stops waiting."""
        return await asyncio.shield(
            asyncio.ensure_future(self._claim_and_send(message, wanted, loaded, provider))
        )

    async def _claim_and_send(
        self, message: MessageRef, wanted: Submit, loaded: Loaded, provider: Provider
    ) -> Step:
        numbers = await self._delivery.claim(
            message,
            wanted,
            loaded,
            parts=provider.count_parts(loaded.outbound),
            now=self._now(),
        )
        if not numbers:
            return await self._delivery.decide(message, self._now())
        if loaded.first:
            metrics.message_reached_wire(
                mode=loaded.mode,
                seconds=(self._now() - loaded.accepted_at).total_seconds(),
            )
        outcomes = await provider.submit(loaded.outbound, numbers)
        return await self._delivery.record(message, wanted, outcomes, self._now)

"""What `SendWorkflow` asks for: decisions from the database, submits and cancels to a provider."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from temporalio import activity

from domain.delivery import Submit, Wait, WaitFor
from domain.ids import IdPrefix, public_id
from providers.base import NoSlot, Provider
from services.delivery import Cancellation, Delivery, Loaded
from telemetry import metrics
from telemetry.logs import get_logger, log_context
from telemetry.tracing import SpanKind, span
from workflows.ports.send import (
    CancelAtProviderTask,
    DecideActivities,
    DecideTask,
    MessageRef,
    ProviderActivities,
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
                    async with provider.acquire(loaded.outbound.priority):
                        return await self._submit_now(message, wanted, loaded, provider)
                except NoSlot as full:
                    # Nothing was written: the message waits without an attempt, then looks anew.
                    return Step(Wait(self._now() + full.after, WaitFor.BACKOFF))

    @activity.defn
    async def cancel_at_provider(self, task: CancelAtProviderTask) -> Step:
        """Ask the provider to forget an attempt, record whether it did, and decide anew.

        It is asked once, also where the result could not be recorded.
        """
        message, cancel_at_provider = task.message, task.cancel_at_provider
        with log_context(message_id=message.message_id, provider=cancel_at_provider.provider):
            provider = self._providers.get(cancel_at_provider.provider)
            cancellation = await self._delivery.begin_cancel(message, cancel_at_provider)
            if cancellation is None:
                return await self._delivery.decide(message, self._now())
            done = provider is not None and await _cancel(provider, cancellation)
            return await self._delivery.cancelled_at_provider(
                message, cancel_at_provider, done=done, now=self._now()
            )

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
        claimed = await self._delivery.claim(
            message,
            wanted,
            loaded,
            parts=provider.count_parts(loaded.outbound),
            now=self._now(),
        )
        if claimed is None:
            return await self._after_refusal(message)
        if loaded.first:
            metrics.message_reached_wire(
                mode=loaded.mode,
                seconds=(self._now() - loaded.accepted_at).total_seconds(),
            )
        outcomes = await provider.submit(
            claimed.outbound, claimed.parts, start_within=claimed.start_within
        )
        return await self._delivery.record(message, wanted, outcomes, self._now)

    async def _after_refusal(self, message: MessageRef) -> Step:
        """Decide anew; where the decision is to submit again, after a rest, and not at once."""
        step = await self._delivery.decide(message, self._now())
        if isinstance(step.decision, Submit):
            return Step(Wait(self._now() + _REST, WaitFor.BACKOFF))
        return step


async def _cancel(provider: Provider, cancellation: Cancellation) -> bool:
    """Cancel all parts of an attempt at once; whether the provider confirmed each of them in time.

    A part without an id cannot be cancelled, and then the message is not.
    """
    ids = [each for each in cancellation.ids if each is not None]
    cancelling = [
        provider.cancel_at_provider(
            each, sender=cancellation.sender, recipient=cancellation.recipient
        )
        for each in ids
    ]
    try:
        async with asyncio.timeout(cancellation.within.total_seconds()):
            confirmed = await asyncio.gather(*cancelling)
    except TimeoutError:
        return False
    return bool(ids) and len(ids) == len(cancellation.ids) and all(confirmed)

"""One message, from its acceptance to its end."""

from datetime import datetime, timedelta
from typing import assert_never

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from domain.delivery import (
        CancelAtProvider,
        Finish,
        MarkAttempt,
        ReportMissingReceipt,
        Submit,
        Wait,
    )
    from workflows.ports.attributes import MESSAGE_MODE, MESSAGE_STATUS, PROVIDER
    from workflows.ports.send import (
        UNTIL_THE_DATABASE_RESPONDS,
        CancelAtProviderTask,
        DecideActivities,
        DecideTask,
        MessageChanged,
        MessageRef,
        ProviderActivities,
        Start,
        Step,
        SubmitTask,
        provider_queue,
    )

# A submit is never repeated by Temporal: whether it may be is a decision about the message.
_ONCE = RetryPolicy(maximum_attempts=1)
# What fails without having been sent fails again at once, if it is the message's own fault.
_FIRST_REST = timedelta(seconds=1)
_LONGEST_REST = timedelta(minutes=5)


@workflow.defn
class SendWorkflow:
    """Takes one message to its end: delivered, failed, expired, or set aside as a dead letter.

    Postgres stores the message, `domain.delivery` has the rules, this workflow waits in between.
    A receipt arrives as a signal. A lost signal only adds delay: each deadline rereads the rows.
    """

    def __init__(self) -> None:
        self._news = 0
        self._ended: str | None = None
        self._step: Step | None = None
        self._provider: str | None = None
        self._attempt: int | None = None
        self._failures = 0

    @workflow.run
    async def run(self, start: Start) -> str:
        status = await self._until_the_end(start)
        self._show_end(status)
        return status

    async def _until_the_end(self, start: Start) -> str:
        message, seen = start.message, self._news
        step = start.first or await self._decide(message)
        while self._ended is None:
            self._step = step
            self._show_step(step)
            match step.decision:
                case Finish(status=status):
                    return status
                case Submit() | CancelAtProvider():
                    # News that comes meanwhile may be newer than the step that comes back.
                    seen, step = self._news, await self._ask_provider(message, step)
                case Wait(until=until):
                    await self._until_news_or(until, seen)
                    if self._ended is None:
                        if workflow.info().is_continue_as_new_suggested():
                            # It may wait for a provider that throttles until its validity is over.
                            workflow.continue_as_new(Start(message.message_id, message.epoch))
                        seen, step = self._news, await self._decide(message)
                # Taken back into the decision by whoever decides.
                case MarkAttempt() | ReportMissingReceipt():
                    step = await self._decide(message)
        return self._ended

    @workflow.signal
    def message_changed(self, news: MessageChanged) -> None:
        self._news += 1
        if news.final:
            self._ended = news.status

    def _show_step(self, step: Step) -> None:
        """Show people in Temporal's UI and CLI what the workflow does now; ids and codes only."""
        match step.decision:
            case Submit(provider=provider, number=number):
                self._provider, self._attempt = provider, number
                doing = f"Attempt {number}: being submitted to `{provider}`"
            case CancelAtProvider(provider=provider, number=number):
                doing = f"Attempt {number}: being cancelled at `{provider}`"
            case Wait(until=until, why=why):
                doing = f"Waits for {why} until {until:%Y-%m-%d %H:%M:%S} UTC"
                if self._attempt is not None:
                    doing += f"; the last attempt was {self._attempt}, by `{self._provider}`"
            case Finish(status=status, reason=reason):
                doing = f"Ended as {status} ({reason})"
            case MarkAttempt() | ReportMissingReceipt():
                return
            case _:
                assert_never(step.decision)
        workflow.set_current_details(doing)

    def _show_end(self, status: str) -> None:
        # Only where the namespace knows our attributes: an unknown one would fail the task for ever.
        if workflow.info().typed_search_attributes.get(MESSAGE_MODE) is None:
            return
        found_by = [MESSAGE_STATUS.value_set(status)]
        if self._provider is not None:
            found_by.append(PROVIDER.value_set(self._provider))
        workflow.upsert_search_attributes(found_by)

    @workflow.query
    def state(self) -> Step | None:
        """What this workflow is about now: its latest step, or None before the first."""
        return self._step

    async def _decide(self, message: MessageRef) -> Step:
        return await workflow.execute_local_activity_method(
            DecideActivities.decide,
            DecideTask(message, workflow.now()),
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=UNTIL_THE_DATABASE_RESPONDS,
        )

    async def _ask_provider(self, message: MessageRef, step: Step) -> Step:
        """Let a worker of the provider act; if none does, or none answers, decide anew."""
        decision = step.decision
        try:
            if isinstance(decision, Submit):
                return await workflow.execute_activity_method(
                    ProviderActivities.submit,
                    SubmitTask(message, decision),
                    task_queue=provider_queue(decision.provider),
                    schedule_to_start_timeout=step.queue_within,
                    start_to_close_timeout=step.response_within,
                    retry_policy=_ONCE,
                    priority=Priority(priority_key=step.priority),
                    summary=f"attempt {decision.number} by {decision.provider}",
                )
            if isinstance(decision, CancelAtProvider):
                return await workflow.execute_activity_method(
                    ProviderActivities.cancel_at_provider,
                    CancelAtProviderTask(message, decision),
                    task_queue=provider_queue(decision.provider),
                    schedule_to_start_timeout=step.queue_within,
                    start_to_close_timeout=step.response_within,
                    retry_policy=_ONCE,
                    priority=Priority(priority_key=step.priority),
                    summary=f"cancel attempt {decision.number} at {decision.provider}",
                )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.info("the provider's worker did not respond; deciding again")
            if isinstance(error.cause, ApplicationError):
                await self._rest()
        return await self._decide(message)

    async def _rest(self) -> None:
        """Leave the provider's worker alone, longer after each time that it failed."""
        rest = min(_LONGEST_REST, _FIRST_REST * 2 ** min(self._failures, 10))
        self._failures += 1
        await self._until_news_or(workflow.now() + rest, self._news)

    async def _until_news_or(self, until: datetime, seen: int) -> None:
        pause = max(timedelta(), until - workflow.now())
        try:
            await workflow.wait_condition(lambda: self._news != seen, timeout=pause)
        except TimeoutError:
            return

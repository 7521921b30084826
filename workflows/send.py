"""One message, from its acceptance to its end."""

from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from domain.delivery import Declare, Finish, Recall, Submit, Wait
    from workflows.ports.send import (
        UNTIL_THE_DATABASE_ANSWERS,
        DecideActivities,
        DecideTask,
        MessageChanged,
        MessageRef,
        ProviderActivities,
        RecallTask,
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

    Postgres holds the message, `domain.delivery` the rules, this workflow the time in between.
    A receipt arrives as a signal; a lost one costs a wait, since every deadline reads the rows again.
    """

    def __init__(self) -> None:
        self._news = 0
        self._ended: str | None = None
        self._step: Step | None = None
        self._failures = 0

    @workflow.run
    async def run(self, start: Start) -> str:
        message, seen = start.message, self._news
        step = start.first or await self._decide(message)
        while self._ended is None:
            self._step = step
            match step.decision:
                case Finish(status=status):
                    return status
                case Submit() | Recall():
                    # News that comes meanwhile may be newer than the step that comes back.
                    seen, step = self._news, await self._ask_provider(message, step)
                case Wait(until=until):
                    await self._until_news_or(until, seen)
                    if self._ended is None:
                        seen, step = self._news, await self._decide(message)
                case Declare():  # taken back into the decision by whoever decides
                    step = await self._decide(message)
        return self._ended

    @workflow.signal
    def message_changed(self, news: MessageChanged) -> None:
        self._news += 1
        if news.final:
            self._ended = news.status

    @workflow.query
    def state(self) -> Step | None:
        """What this workflow is about now: its latest step, or None before the first."""
        return self._step

    async def _decide(self, message: MessageRef) -> Step:
        return await workflow.execute_local_activity_method(
            DecideActivities.decide,
            DecideTask(message, workflow.now()),
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=UNTIL_THE_DATABASE_ANSWERS,
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
                    start_to_close_timeout=step.answer_within,
                    retry_policy=_ONCE,
                    priority=Priority(priority_key=step.priority),
                    summary=f"attempt {decision.number}",
                )
            if isinstance(decision, Recall):
                return await workflow.execute_activity_method(
                    ProviderActivities.recall,
                    RecallTask(message, decision),
                    task_queue=provider_queue(decision.provider),
                    schedule_to_start_timeout=step.queue_within,
                    start_to_close_timeout=step.answer_within,
                    retry_policy=_ONCE,
                    priority=Priority(priority_key=step.priority),
                    summary=f"recall attempt {decision.number}",
                )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.info("the provider's worker did not answer; deciding anew")
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

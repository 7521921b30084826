"""One message, from its acceptance to its end."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from temporalio import activity, workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from pydantic import Field

    from domain.delivery import Decision, Declare, Finish, Recall, Submit, Wait

SENDS = "sends"
"""Task queue of the workflows, and of the activities that only need the database."""


def provider_queue(provider: str) -> str:
    """Task queue of the workers that hold binds to a provider."""
    return f"provider/{provider}"


def send_workflow_id(message_id: str) -> str:
    """The runner of a message; the epoch, not this id, keeps a second one off it."""
    return f"send/{message_id}"


@dataclass(frozen=True, slots=True)
class MessageRef:
    """Which message, and the epoch in which this runner owns it."""

    message_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, and how.

    Attributes:
        decision: what to do.
        priority: 1 (first) to 4, among the tasks of one queue.
        answer_within: how long a provider's answer takes at most, the wait for a turn included.
        queue_within: how long the task may wait for a worker before another route is looked for.
    """

    decision: Annotated[Decision, Field(discriminator="kind")]
    priority: int = 3
    answer_within: timedelta = timedelta(seconds=15)
    queue_within: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class DecideTask:
    """Decide about a message, at the workflow's time."""

    message: MessageRef
    now: datetime


@dataclass(frozen=True, slots=True)
class SubmitTask:
    """Hand a message to a provider."""

    message: MessageRef
    submit: Submit


@dataclass(frozen=True, slots=True)
class RecallTask:
    """Ask a provider to forget an attempt."""

    message: MessageRef
    recall: Recall


@dataclass(frozen=True, slots=True)
class MessageChanged:
    """News of a message: its status now, and whether that is its end."""

    status: str
    final: bool


class DecideActivities(ABC):
    """What this workflow asks the database; `activities.send` does it."""

    @activity.defn
    @abstractmethod
    async def decide(self, task: DecideTask) -> Step:
        """Look at the rows, decide, and store the decision."""


class ProviderActivities(ABC):
    """What this workflow asks of whoever holds binds to a provider.

    Each ends by deciding, so that a step costs one round trip and not two.
    """

    @activity.defn
    @abstractmethod
    async def submit(self, task: SubmitTask) -> Step:
        """Write the attempt, hand it to the provider, record what came of it."""

    @activity.defn
    @abstractmethod
    async def recall(self, task: RecallTask) -> Step:
        """Ask the provider to forget the attempt, record whether it did."""


_UNTIL_THE_DATABASE_ANSWERS = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)
)
# A submit is never repeated by Temporal: whether it may be is a decision about the message.
_ONCE = RetryPolicy(maximum_attempts=1)


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

    @workflow.run
    async def run(self, message: MessageRef) -> str:
        seen = self._news
        step = await self._decide(message)
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
            retry_policy=_UNTIL_THE_DATABASE_ANSWERS,
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
        return await self._decide(message)

    async def _until_news_or(self, until: datetime, seen: int) -> None:
        pause = max(timedelta(), until - workflow.now())
        try:
            await workflow.wait_condition(lambda: self._news != seen, timeout=pause)
        except TimeoutError:
            return

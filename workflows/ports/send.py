"""The input, signals and activities of `SendWorkflow`, and their task queues, for all that use it.

A module of its own, because the workflow's module is executed anew in the sandbox of each run, and
these values need not be.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field
from temporalio import activity
from temporalio.common import RetryPolicy

from domain.delivery import CancelAtProvider, Decision, Submit

SENDS = "sends"
"""Task queue of the workflows, and of the activities that only need the database."""


UNTIL_THE_DATABASE_RESPONDS = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)
)
"""How activities are repeated that read and decide, and send nothing."""


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
        response_within: how long a provider's response takes at most, the wait for a turn included.
        queue_within: how long the task may wait for a worker before another route is looked for.
    """

    decision: Annotated[Decision, Field(discriminator="kind")]
    priority: int = 3
    response_within: timedelta = timedelta(seconds=15)
    queue_within: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Start:
    """What a runner begins with.

    Attributes:
        message_id, epoch: as in `MessageRef`.
        first: the first step, if it was decided when the message was accepted.
    """

    message_id: str
    epoch: int
    first: Step | None = None

    @property
    def message(self) -> MessageRef:
        return MessageRef(self.message_id, self.epoch)


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
class CancelAtProviderTask:
    """Ask a provider to forget an attempt."""

    message: MessageRef
    cancel_at_provider: CancelAtProvider


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
    async def cancel_at_provider(self, task: CancelAtProviderTask) -> Step:
        """Ask the provider to forget the attempt, record whether it did."""

"""The input, signals and activities of `BulkSendWorkflow`, and their task queues."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from temporalio import activity

_PREFIX = "bulk/"


def bulk_workflow_id(bulk_id: str) -> str:
    """The runner of the messages of a bulk."""
    return f"{_PREFIX}{bulk_id}"


def is_bulk(owner: str) -> bool:
    """Whether the runner with this workflow id runs many messages."""
    return owner.startswith(_PREFIX)


MOST_OF_A_GROUP = 1000
"""Messages of a chunk that does not wait behind larger ones."""


def chunk_queue(provider: str, messages: int) -> str:
    """Task queue of the workers that hold binds to a provider, for chunks of so many messages.

    One of their own, since chunks take long, and must not fill the places of single messages; and
    another for small ones, such as single messages that came too fast for a workflow each.
    """
    return f"provider/{provider}/{'groups' if messages <= MOST_OF_A_GROUP else 'chunks'}"


@dataclass(frozen=True, slots=True)
class BulkRef:
    """Which bulk."""

    bulk_id: str


@dataclass(frozen=True, slots=True)
class PlanTask:
    """Look at a bulk, at the workflow's time."""

    bulk: BulkRef
    now: datetime


@dataclass(frozen=True, slots=True)
class ProviderChunk:
    """What one provider should send of a bulk now.

    Attributes:
        provider: which.
        messages: how many, for the people who look.
        priority: 1 (first) to 4, among the tasks of its queue.
    """

    provider: str
    messages: int
    priority: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done about a bulk.

    Attributes:
        chunks: what can be sent now.
        open: how many of its messages are not final; with none the bulk is done.
        look_at: when the next step is due that no signal announces; None if none is known.
    """

    chunks: tuple[ProviderChunk, ...]
    open: int
    look_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SubmitChunkTask:
    """Send what is a provider's of a bulk."""

    bulk: BulkRef
    provider: str


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """What came of a chunk: how many messages were handed to the provider."""

    submitted: int


class PlanActivities(ABC):
    """What this workflow asks the database; `activities.bulk` does it."""

    @activity.defn
    @abstractmethod
    async def plan(self, task: PlanTask) -> Plan:
        """Look at the rows, write what time has made of them, and say what can be sent."""


class BulkProviderActivities(ABC):
    """What this workflow asks of whoever holds binds to a provider."""

    @activity.defn
    @abstractmethod
    async def submit_chunk(self, task: SubmitChunkTask) -> ChunkDone:
        """Claim, send and record until nothing of the bulk is left for this provider."""

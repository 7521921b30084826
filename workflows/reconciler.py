"""The reconciler's clock: a workflow that sweeps every few seconds, for as long as there is one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy

RECONCILER = "reconciler"
"""Task queue."""

RECONCILER_WORKFLOW_ID = "reconciler/reconciler"
"""There is one; running workers see to it that it exists, also after Temporal lost its database."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one round found, for the Temporal UI."""

    reminded: int
    restarted: int
    matched: int
    more: bool


class ReconcilerActivities(ABC):
    """What this workflow asks for; `activities.reconciler` does it."""

    @activity.defn
    @abstractmethod
    async def mark_everything_due(self) -> None:
        """Make every open message one whose runner may be gone, for the next sweeps to look at."""

    @activity.defn
    @abstractmethod
    async def sweep(self) -> SweepResult:
        """Look for messages, receipts and callbacks that were forgotten, and take them up."""


_EVERY = timedelta(seconds=5)
_ROUNDS = 500
_LONGEST_ROUND = timedelta(minutes=5)
# A round whose answer was lost, because Temporal or the worker went away, is soon done again.
_SIGN_OF_LIFE = timedelta(seconds=5)
_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=15))


@workflow.defn
class ReconcilerWorkflow:
    """Sweeps, rests, sweeps again; begins anew before its history grows long.

    A reconciler that no other one precedes may have been started because Temporal lost its
    database, and the runners of all open messages with it: it asks after each of them at once.
    """

    @workflow.run
    async def run(self) -> None:
        if workflow.info().continued_run_id is None:
            await workflow.execute_activity_method(
                ReconcilerActivities.mark_everything_due,
                start_to_close_timeout=_LONGEST_ROUND,
                heartbeat_timeout=_SIGN_OF_LIFE,
                retry_policy=_RETRY,
            )
        for _ in range(_ROUNDS):
            found = await workflow.execute_activity_method(
                ReconcilerActivities.sweep,
                start_to_close_timeout=_LONGEST_ROUND,
                heartbeat_timeout=_SIGN_OF_LIFE,
                retry_policy=_RETRY,
            )
            if not found.more:
                await workflow.sleep(_EVERY)
        workflow.continue_as_new()

"""Callbacks: one workflow drains the outbox of one account and origin, its lane."""

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from domain.callbacks.retries import pause_after

CALLBACKS = "callbacks"
"""Task queue of the workflows and of their one activity."""

HANGING_CALLBACKS = "callbacks/hanging"
"""Task queue of that activity for lanes whose receiver hangs. Each of its few places is taken for as long
as a request is waited for; the places of other lanes stay free."""


# A slice takes up no new callback after some 20 s, and heartbeats every second. What follows is a
# margin for the last requests; then another worker may take over.
_SLICE_ENDS = timedelta(minutes=3)
_HEARTBEAT = timedelta(seconds=20)
# A slice fails only with the database, which comes back.
_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=30),
)


@dataclass(frozen=True, slots=True)
class CallbackLane:
    """Which lane to drain, and what the run before knew of it."""

    lane_id: str
    failing_slices: int = 0
    """How many slices in a row found the origin in trouble."""
    hanging: bool = False
    """Whether the last request was waited for in vain."""


@dataclass(frozen=True, slots=True)
class DrainResult:
    """What a slice left behind; ids, addresses and texts stay in the database."""

    next_at: datetime | None
    """When the next callback is due, in the past if it is now; None if none is left."""
    delivered: int = 0
    failed: int = 0
    """Tries that did not deliver, whether or not they will be repeated."""
    failing: bool = False
    """Whether the origin seems to be down, so that the rest was left for later."""
    hanging: bool = False
    """Whether the last request was waited for in vain."""


def callback_workflow_id(lane_id: str) -> str:
    """The one workflow of a lane."""
    return f"callbacks/{lane_id}"


class CallbackActivities(ABC):
    """What the workflow asks for; `activities/callbacks.py` does it."""

    @activity.defn
    @abstractmethod
    async def drain_lane(self, lane: CallbackLane) -> DrainResult:
        """Deliver what is due in a lane, for a while."""


@workflow.defn
class CallbackWorkflow:
    """Delivers the callbacks of one lane until none is left, then ends.

    The outbox in Postgres holds the callbacks and when each is due; this workflow holds the time
    in between. It is signalled when a lane that nobody looks at gets a callback, and started with
    that signal if it has ended. A lost signal is made good by a sweep.
    """

    def __init__(self) -> None:
        self._woken = False

    @workflow.signal
    def woken(self) -> None:
        """There is a callback that may be due before the one that is waited for."""
        self._woken = True

    @workflow.run
    async def run(self, lane: CallbackLane) -> None:
        while True:
            self._woken = False
            drained = await self._drain(lane)
            lane = replace(
                lane,
                failing_slices=lane.failing_slices + 1 if drained.failing else 0,
                hanging=drained.hanging,
            )
            if drained.failing:
                # Signals do not shorten this: what is new would run into the same wall.
                await workflow.sleep(pause_after(lane.failing_slices))
            elif drained.next_at is not None:
                await self._until_woken_or(drained.next_at)
            elif not self._woken:
                return
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(lane)

    async def _drain(self, lane: CallbackLane) -> DrainResult:
        workflow.set_current_details("Delivers what is due.")
        return await workflow.execute_activity_method(
            CallbackActivities.drain_lane,
            lane,
            task_queue=HANGING_CALLBACKS if lane.hanging else None,
            start_to_close_timeout=_SLICE_ENDS,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_RETRY,
        )

    async def _until_woken_or(self, due: datetime) -> None:
        wait = due - workflow.now()
        if wait <= timedelta():
            return
        workflow.set_current_details("Waits until the next try is due.")
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._woken, timeout=wait, timeout_summary="next try"
            )

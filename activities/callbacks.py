"""What `CallbackWorkflow` asks for, done."""

from uuid import UUID

from temporalio import activity

from services.callbacks.drain import LaneDrain
from workflows.callbacks import CallbackActivities, CallbackLane, DrainResult


class CallbackDelivery(CallbackActivities):
    """The activities of the task queues `callbacks` and `callbacks/hanging`."""

    def __init__(self, drain: LaneDrain) -> None:
        self._drain = drain

    @activity.defn
    async def drain_lane(self, lane: CallbackLane) -> DrainResult:
        # The time is Temporal's, at the start of this very try: the workflow's own would be stale
        # after a wait for a worker, and signatures have to be fresh.
        return await self._drain.drain(
            UUID(lane.lane_id),
            now=activity.info().started_time,
            heartbeat=activity.heartbeat,
            stopping=activity.is_worker_shutdown,
            was_down=lane.failing_slices > 0,
            was_hanging=lane.hanging,
        )

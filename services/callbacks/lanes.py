"""Starts the workflows of lanes."""

from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import UUID

from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from services.workflow_client import RPC_TIMEOUT, rpc_deadline
from services.workflow_kinds import CALLBACK_LANE
from telemetry.logs import get_logger
from workflows.callbacks import CallbackLane
from workflows.ports.attributes import ACCOUNT

_log = get_logger(__name__)


class LaneStarter(Protocol):
    """Sees to it that somebody drains a lane."""

    async def start(self, lane_id: UUID, account_id: str) -> bool:
        """Start or wake the lane's workflow; False, and no error, if Temporal is away."""


class TemporalLanes:
    """Starts the workflows of lanes, or signals those that run (signal-with-start).

    Args:
        connected: gives the client, or None while Temporal is away.
    """

    def __init__(self, connected: Callable[[], Awaitable[Client | None]]) -> None:
        self._connected = connected

    async def start(self, lane_id: UUID, account_id: str) -> bool:
        client = await self._connected()
        if client is None:
            return False
        workflow_id = CALLBACK_LANE.workflow_id(str(lane_id))
        try:
            async with rpc_deadline():
                await client.start_workflow(
                    CALLBACK_LANE.name,
                    args=CALLBACK_LANE.arguments(CallbackLane(str(lane_id))),
                    id=workflow_id,
                    task_queue=CALLBACK_LANE.task_queue,
                    start_signal="woken",
                    static_summary=f"Callbacks of {account_id}",
                    search_attributes=TypedSearchAttributes(
                        [SearchAttributePair(ACCOUNT, account_id)]
                    ),
                    rpc_timeout=RPC_TIMEOUT,
                )
        except (RPCError, RuntimeError, TimeoutError) as error:
            status = error.status.name if isinstance(error, RPCError) else type(error).__name__
            _log.warning("lane_not_started", workflow_id=workflow_id, code=status)
            return False
        return True

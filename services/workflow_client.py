"""Temporal, as services use it: start and signal runners, and find out whether Temporal is reachable.

If Temporal is away, nothing here raises: the result says so, and the reconciler starts or signals the
runner later. Meanwhile calls fail at once instead of making every request wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import Priority as TaskPriority
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from domain.ids import IdPrefix, public_id
from domain.modes import Priority
from services.workflow_kinds import BULK, SEND, Input, WorkflowKind
from store.messages import RunnableMessage
from telemetry.logs import get_logger
from workflows.ports.attributes import ACCOUNT, COUNTRY, MESSAGE_MODE
from workflows.ports.bulk import BulkRef
from workflows.ports.send import MessageChanged, Start, Step
from workflows.send import SendWorkflow

_log = get_logger(__name__)

RPC_TIMEOUT = timedelta(seconds=2)
"""How long an accepted message waits for Temporal before it is left to the reconciler."""
_REST_AFTER_FAILURE = timedelta(seconds=2)


def rpc_deadline() -> asyncio.Timeout:
    """Bounds a call as a whole: `rpc_timeout` alone bounds each of the SDK's own tries."""
    return asyncio.timeout(RPC_TIMEOUT.total_seconds())


class StartResult(StrEnum):
    """What became of the start of a workflow."""

    STARTED = "started"
    ALREADY_RUNNING = "already_running"
    TEMPORAL_AWAY = "temporal_away"


class SignalResult(StrEnum):
    """What became of news for a workflow."""

    YES = "yes"
    NOT_RUNNING = "not_running"
    TEMPORAL_AWAY = "temporal_away"


class WorkflowClient:
    """A connection to Temporal that may come late, and may be away for a while."""

    def __init__(self, connect: Callable[[], Awaitable[Client]]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._away_until = 0.0
        self._connecting = asyncio.Lock()

    async def client(self) -> Client | None:
        """The client, connected on first use; None while Temporal is away."""
        if self._client is not None:
            return self._client
        if self._resting():
            return None
        async with self._connecting:
            if self._client is None and not self._resting():
                try:
                    async with asyncio.timeout(RPC_TIMEOUT.total_seconds()):
                        self._client = await self._connect()
                except (RPCError, RuntimeError, TimeoutError) as error:
                    self._failed(error)
        return self._client

    async def start_send(
        self,
        message_id: UUID,
        epoch: int,
        *,
        mode: str,
        country: str,
        account: str,
        priority: Priority,
        first: Step | None = None,
    ) -> bool:
        """Start a message's runner; True also if it runs already, False if Temporal is away.

        `priority` orders its workflow tasks among those of others that wait for a worker. `first` is
        what it does first, if that is decided.
        """
        public = public_id(IdPrefix.MESSAGE, message_id)
        started = await self.start(
            SEND,
            public,
            Start(public, epoch, first),
            summary=f"{mode} to {country}",
            priority=priority,
            attributes={MESSAGE_MODE: mode, COUNTRY: country, ACCOUNT: account},
        )
        return started is not StartResult.TEMPORAL_AWAY

    async def start_runner(self, message: RunnableMessage) -> bool:
        """As `start_send`, of a message that was given a new epoch."""
        return await self.start_send(
            message.id,
            message.epoch,
            mode=message.mode,
            country=message.country,
            account=message.account_id,
            priority=message.priority,
        )

    async def start_bulk(
        self,
        bulk_id: str,
        *,
        priority: Priority,
        mode: str | None = None,
        account: str | None = None,
    ) -> bool:
        """Start the runner of a bulk; True also if it runs already, False if Temporal is away.

        `priority` is that of its messages. `mode` and `account` are for the people who look, where
        they are known.
        """
        started = await self.start(
            BULK,
            bulk_id,
            BulkRef(bulk_id),
            summary=f"{mode or 'any mode'}, many messages",
            priority=priority,
            attributes={MESSAGE_MODE: mode, ACCOUNT: account},
        )
        return started is not StartResult.TEMPORAL_AWAY

    async def start(
        self,
        kind: WorkflowKind[Input],
        subject: str,
        argument: Input,
        *,
        summary: str,
        priority: Priority = Priority.NORMAL,
        attributes: Mapping[SearchAttributeKey[str], str | None] = MappingProxyType({}),
    ) -> StartResult:
        """Start a workflow of any kind, unless it runs already.

        Args:
            kind: which workflow, and where.
            subject: the id of what it runs, from which its own id is made.
            argument: its input.
            summary: for the people who look at it in Temporal.
            priority: of its workflow tasks, among those of others that wait for a worker.
            attributes: by which people find it; those without a value are left out.
        """
        client = None if self._resting() else await self.client()
        if client is None:
            return StartResult.TEMPORAL_AWAY

        async def start(search_attributes: TypedSearchAttributes) -> None:
            async with rpc_deadline():
                await client.start_workflow(
                    kind.name,
                    args=kind.arguments(argument),
                    id=kind.workflow_id(subject),
                    task_queue=kind.task_queue,
                    task_timeout=kind.task_timeout,
                    id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    static_summary=summary,
                    priority=TaskPriority(priority_key=priority.rank),
                    search_attributes=search_attributes,
                    rpc_timeout=RPC_TIMEOUT,
                )

        known = [(key, value) for key, value in attributes.items() if value is not None]
        found_by = TypedSearchAttributes([SearchAttributePair(*each) for each in known])
        try:
            try:
                await start(found_by)
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                # A Temporal that lost its database does not know our search attributes either,
                # until a worker adds them. They are for people who look; the message goes first.
                _log.warning("search_attributes_missing")
                await start(TypedSearchAttributes.empty)
        except WorkflowAlreadyStartedError:
            return StartResult.ALREADY_RUNNING
        except (RPCError, TimeoutError) as error:
            self._failed(error)
            return StartResult.TEMPORAL_AWAY
        return StartResult.STARTED

    async def signal(self, owner: str, news: MessageChanged) -> SignalResult:
        """Signal a message's runner; `owner` is its workflow id."""

        async def signal(handle: WorkflowHandle[SendWorkflow, str]) -> None:
            await handle.signal(SendWorkflow.message_changed, news, rpc_timeout=RPC_TIMEOUT)

        client = None if self._resting() else await self.client()
        if client is None:
            return SignalResult.TEMPORAL_AWAY
        try:
            async with rpc_deadline():
                await signal(client.get_workflow_handle_for(SendWorkflow.run, owner))
        except (RPCError, TimeoutError) as error:
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                return SignalResult.NOT_RUNNING
            self._failed(error)
            return SignalResult.TEMPORAL_AWAY
        return SignalResult.YES

    async def signal_listener(
        self, workflow_id: str, name: str, report: Mapping[str, Any]
    ) -> SignalResult:
        """Signal a workflow by its id and the signal's name, whatever workflow it is."""
        client = None if self._resting() else await self.client()
        if client is None:
            return SignalResult.TEMPORAL_AWAY
        try:
            async with rpc_deadline():
                handle = client.get_workflow_handle(workflow_id)
                await handle.signal(name, report, rpc_timeout=RPC_TIMEOUT)
        except (RPCError, TimeoutError) as error:
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                return SignalResult.NOT_RUNNING
            self._failed(error)
            return SignalResult.TEMPORAL_AWAY
        return SignalResult.YES

    async def is_reachable(self) -> bool:
        """Whether Temporal answers right now."""
        client = await self.client()
        if client is None:
            return False
        try:
            await client.workflow_service.get_system_info(
                GetSystemInfoRequest(), timeout=timedelta(seconds=1)
            )
        except RPCError as error:
            self._failed(error)
            return False
        return True

    def _resting(self) -> bool:
        return asyncio.get_running_loop().time() < self._away_until

    def _failed(self, error: Exception) -> None:
        self._away_until = asyncio.get_running_loop().time() + _REST_AFTER_FAILURE.total_seconds()
        status = error.status.name if isinstance(error, RPCError) else type(error).__name__
        _log.warning("temporal_away", code=status)

"""Temporal, as services use it: start a message's runner, tell it news, see whether it lives.

Temporal may be away: then nothing here raises, the answer says so, and the reconciler makes up for
it later. While it is away, calls fail at once instead of making every request wait.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client, WorkflowHandle
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
from telemetry.logs import get_logger
from workflows.bulk import BulkSendWorkflow
from workflows.ports.bulk import BulkRef, bulk_workflow_id
from workflows.ports.send import SENDS, MessageChanged, Start, Step, send_workflow_id
from workflows.send import SendWorkflow

_log = get_logger(__name__)

RPC_TIMEOUT = timedelta(seconds=2)
"""How long an accepted message waits for Temporal before it is left to the reconciler."""
_REST_AFTER_FAILURE = timedelta(seconds=2)
# A worker that died with a task of a message holds it up no longer than this.
_TASK_TIMEOUT = timedelta(seconds=5)

MODE = SearchAttributeKey.for_keyword("Mode")
COUNTRY = SearchAttributeKey.for_keyword("Country")
ACCOUNT = SearchAttributeKey.for_keyword("Account")
SEARCH_ATTRIBUTES = ("Mode", "Country", "Provider", "Campaign", "Account", "Incident")
"""Keyword attributes that `worker.py bootstrap` and running workers see to."""


def in_time() -> asyncio.Timeout:
    """Bounds a call as a whole: `rpc_timeout` alone bounds each of the SDK's own tries."""
    return asyncio.timeout(RPC_TIMEOUT.total_seconds())


class Told(StrEnum):
    """What became of news for a workflow."""

    YES = "yes"
    NOT_RUNNING = "not_running"
    TEMPORAL_AWAY = "temporal_away"


class Orchestration:
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
        first: Step | None = None,
    ) -> bool:
        """Start a message's runner; True also if it runs already, False if Temporal is away.

        `first` is what it does first, if that is decided.
        """
        client = None if self._resting() else await self.client()
        if client is None:
            return False
        public = public_id(IdPrefix.MESSAGE, message_id)
        found_by = TypedSearchAttributes(
            [
                SearchAttributePair(MODE, mode),
                SearchAttributePair(COUNTRY, country),
                SearchAttributePair(ACCOUNT, account),
            ]
        )

        async def start(search_attributes: TypedSearchAttributes) -> None:
            await client.start_workflow(
                SendWorkflow.run,
                Start(public, epoch, first),
                id=send_workflow_id(public),
                task_queue=SENDS,
                task_timeout=_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                static_summary=f"{mode} to {country}",
                search_attributes=search_attributes,
                rpc_timeout=RPC_TIMEOUT,
            )

        return await self._started(start, found_by)

    async def start_bulk(
        self, bulk_id: str, *, mode: str | None = None, account: str | None = None
    ) -> bool:
        """Start the runner of a bulk; True also if it runs already, False if Temporal is away.

        `mode` and `account` are for the people who look, where they are known.
        """
        client = None if self._resting() else await self.client()
        if client is None:
            return False
        found_by = TypedSearchAttributes(
            [
                SearchAttributePair(key, value)
                for key, value in ((MODE, mode), (ACCOUNT, account))
                if value is not None
            ]
        )

        async def start(search_attributes: TypedSearchAttributes) -> None:
            await client.start_workflow(
                BulkSendWorkflow.run,
                BulkRef(bulk_id),
                id=bulk_workflow_id(bulk_id),
                task_queue=SENDS,
                task_timeout=_TASK_TIMEOUT,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                static_summary="many messages at once",
                search_attributes=search_attributes,
                rpc_timeout=RPC_TIMEOUT,
            )

        return await self._started(start, found_by)

    async def _started(
        self,
        start: Callable[[TypedSearchAttributes], Awaitable[None]],
        found_by: TypedSearchAttributes,
    ) -> bool:
        """Whether a workflow runs after `start`; False if Temporal is away."""
        try:
            try:
                async with in_time():
                    await start(found_by)
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                # A Temporal that lost its database does not know our search attributes either,
                # until a worker adds them. They are for people who look; the message goes first.
                _log.warning("search_attributes_missing")
                async with in_time():
                    await start(TypedSearchAttributes.empty)
        except WorkflowAlreadyStartedError:
            return True
        except (RPCError, TimeoutError) as error:
            self._failed(error)
            return False
        return True

    async def tell_send(self, owner: str, news: MessageChanged) -> Told:
        """Signal a message's runner; `owner` is its workflow id."""

        async def signal(handle: WorkflowHandle[SendWorkflow, str]) -> None:
            await handle.signal(SendWorkflow.message_changed, news, rpc_timeout=RPC_TIMEOUT)

        client = None if self._resting() else await self.client()
        if client is None:
            return Told.TEMPORAL_AWAY
        try:
            async with in_time():
                await signal(client.get_workflow_handle_for(SendWorkflow.run, owner))
        except (RPCError, TimeoutError) as error:
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                return Told.NOT_RUNNING
            self._failed(error)
            return Told.TEMPORAL_AWAY
        return Told.YES

    async def answers(self) -> bool:
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

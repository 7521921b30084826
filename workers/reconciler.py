"""Sees to it that the reconciler's workflow exists."""

import asyncio
from typing import Final

from temporalio.client import Client
from temporalio.service import RPCError

from services.workflow_client import StartResult, WorkflowClient
from services.workflow_kinds import RECONCILE
from telemetry.logs import get_logger
from workers.search_attributes import add_search_attributes

_log = get_logger(__name__)

_CHECK_EVERY: Final = 2.0


class ReconcilerStarter:
    """Starts the reconciler whenever it does not exist."""

    def __init__(self, workflow_client: WorkflowClient, client: Client, namespace: str) -> None:
        self._workflow_client = workflow_client
        self._client = client
        self._namespace = namespace

    async def run(self) -> None:
        """See to it that the reconciler exists, also after Temporal lost its database.

        One that did not exist is the sign of that loss: then the search attributes are gone, too.
        """
        while True:
            started = await self._workflow_client.start(
                RECONCILE, "", None, summary="Takes up what was forgotten"
            )
            if started is StartResult.STARTED:
                _log.info("reconciler_started")
                await self._see_to_search_attributes()
            await asyncio.sleep(_CHECK_EVERY)

    async def _see_to_search_attributes(self) -> None:
        try:
            await add_search_attributes(self._client, self._namespace)
        except RPCError as error:
            # Not every Temporal lets its users add them; messages are sent without them, too.
            _log.warning("search_attributes_not_added", code=error.status.name)

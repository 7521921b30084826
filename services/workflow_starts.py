"""When a message's runner starts, and what brings it about if that fails.

A workflow costs as much as dozens of messages that share one. So single messages get one each only
as far as a budget goes, a rate that all processes of the API share; above it they are accepted in
groups (`services.grouped_sends`). What counts is the rate of messages and never the requests in flight: at
a hundred requests a second hardly two are ever in flight.
"""

import asyncio
import time
from contextlib import suppress
from datetime import datetime
from typing import Final
from uuid import UUID

from store import bulks, messages, workflow_starts
from store.database import DATABASE_ERRORS, Database
from telemetry.logs import get_logger

_log = get_logger(__name__)

_BURST_SECONDS: Final = 0.5
_AT_ONCE: Final = 4
"""Starts that are asked for in one go."""
_WEIGHT_IN_A_GROUP: Final = 0.25
"""What a message of a group takes from the budget, in starts."""
_LONGEST_REST: Final = 1.0
"""Seconds after which single messages start again when no more come in groups."""
_LONGEST_QUERY: Final = 0.25
"""Seconds that a message waits for the budget; a group is quicker than a database that hangs."""


class WorkflowStartBudget:
    """How many more single messages may have a workflow each.

    Args:
        database: where the processes share it.
        rate: starts a second over all of them; 0 for none.
    """

    def __init__(self, database: Database, rate: int) -> None:
        self._database = database
        self._rate = rate
        self._burst = max(1, round(rate * _BURST_SECONDS))
        self._left = 0
        self._overdrawn = 0
        self._rests_until = 0.0
        self._querying: asyncio.Task[None] | None = None

    async def take(self) -> bool:
        """Whether one more message may have a workflow of its own.

        Callers share one query. A query that takes long holds up nobody: its callers get False, and
        their messages are accepted in a group.

        Raises:
            DatabaseAway, psycopg.Error: the query failed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_QUERY):
                while not self._left and self._rate and time.monotonic() >= self._rests_until:
                    await asyncio.shield(self._query())
        if not self._left:
            return False
        self._left -= 1
        return True

    def overdraw(self) -> None:
        """Count a message that has a workflow of its own whatever is left, without a query.

        Those that come later pay for it: half a second of the budget at most.
        """
        if self._left:
            self._left -= 1
        else:
            self._overdrawn = min(self._overdrawn + 1, self._burst)

    def _query(self) -> asyncio.Task[None]:
        """The query that is under way, or a new one."""
        if self._querying is None or self._querying.done():
            self._querying = asyncio.create_task(self._refill())
            self._querying.add_done_callback(_retrieve_exception)
        return self._querying

    async def _refill(self) -> None:
        async with self._database.begin() as connection:
            taken = workflow_starts.take(
                connection, rate=self._rate, burst=self._burst, wanted=_AT_ONCE
            )
        response = await taken
        owed = min(response.starts, self._overdrawn)
        self._overdrawn -= owed
        self._left += response.starts - owed
        if not response.starts:
            self._rests_until = time.monotonic() + response.ahead - (self._burst - 1) / self._rate

    async def spend(self, messages: int) -> None:
        """Count messages that were accepted in a group.

        They get no workflow each, but show how many are asked for: the further that is above the
        budget, the fewer single ones start, and from four times the budget on none, since then a
        few that are quicker than the rest are not worth what they cost.
        """
        if self._rate:
            async with self._database.begin() as connection:
                workflow_starts.spend(
                    connection,
                    rate=self._rate,
                    starts=messages * _WEIGHT_IN_A_GROUP,
                    most=_LONGEST_REST,
                )


def _retrieve_exception(query: asyncio.Task[None]) -> None:
    """Mark a failure as seen, also where every caller has stopped waiting for it."""
    if not query.cancelled():
        query.exception()


async def schedule_reconcile_now(
    database: Database, now: datetime, *, message: UUID | None = None, bulk: UUID | None = None
) -> None:
    """Have the runner of one or the other started as soon as Temporal is back, without its grace."""
    try:
        async with database.begin() as connection:
            if message is not None:
                messages.reschedule_check(connection, [message], now)
            if bulk is not None:
                bulks.check_sooner(connection, bulk, now)
    except DATABASE_ERRORS as error:
        _log.warning("check_not_brought_forward", error_type=type(error).__name__)

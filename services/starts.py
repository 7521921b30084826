"""When a message's runner starts, and what brings it about if that fails.

A workflow costs as much as dozens of messages that share one. So single messages get one each only
as far as a budget goes, a rate that all processes of the API share; above it they are accepted in
groups (`services.groups`). What counts is the rate of messages and never the requests in flight: at
a hundred requests a second hardly two are ever in flight.
"""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from store import bulks, messages, starts
from store.database import DATABASE_ERRORS, Database
from telemetry.logs import get_logger

_log = get_logger(__name__)

START_GRACE = timedelta(seconds=15)
"""How long a runner may take to start before the reconciler starts it."""

_BURST_SECONDS: Final = 0.5
_AT_ONCE: Final = 4
"""Starts that are asked for in one go."""
_WEIGHT_IN_A_GROUP: Final = 0.25
"""What a message of a group takes from the budget, in starts."""
_LONGEST_REST: Final = 1.0
"""Seconds after which single messages start again when no more come in groups."""


class StartBudget:
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
        self._rests_until = 0.0
        self._asking = asyncio.Lock()

    async def take(self) -> bool:
        """Whether one more message may have a workflow of its own."""
        async with self._asking:
            if not self._left and self._rate and time.monotonic() >= self._rests_until:
                await self._ask()
            if not self._left:
                return False
            self._left -= 1
            return True

    async def _ask(self) -> None:
        async with self._database.begin() as connection:
            taken = starts.take(connection, rate=self._rate, burst=self._burst, wanted=_AT_ONCE)
        answer = await taken
        self._left = answer.starts
        if not answer.starts:
            self._rests_until = time.monotonic() + answer.ahead - (self._burst - 1) / self._rate

    async def spend(self, messages: int) -> None:
        """Count messages that were accepted in a group.

        They get no workflow each, but show how many are asked for: the further that is above the
        budget, the fewer single ones start, and from four times the budget on none, since then a
        few that are quicker than the rest are not worth what they cost.
        """
        if self._rate:
            async with self._database.begin() as connection:
                starts.spend(
                    connection,
                    rate=self._rate,
                    starts=messages * _WEIGHT_IN_A_GROUP,
                    most=_LONGEST_REST,
                )


async def leave_to_the_reconciler(
    database: Database, now: datetime, *, message: UUID | None = None, bulk: UUID | None = None
) -> None:
    """Have the runner of one or the other started as soon as Temporal is back, without its grace."""
    try:
        async with database.begin() as connection:
            if message is not None:
                messages.push_check(connection, [message], now)
            if bulk is not None:
                bulks.check_sooner(connection, bulk, now)
    except DATABASE_ERRORS as error:
        _log.warning("check_not_brought_forward", error_type=type(error).__name__)

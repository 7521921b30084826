"""Retention: messages that are over are kept for as long as the installation wants, and deleted then.

Their events go by the month, with a partition whose messages are all deleted; partitions for the months
to come are made here, too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from psycopg.errors import CheckViolation

from store import partitions, retention
from store.database import BACKGROUND, DATABASE_ERRORS, Connection, Database, TransactionLost
from store.partitions import Partition, Table
from telemetry import metrics
from telemetry.logs import get_logger

_log = get_logger(__name__)

_AT_ONCE: Final = 500
"""Messages that one transaction deletes: others are not to wait for more."""
_SLICES: Final = 20
"""Transactions of one round: with one round in five seconds, some 2,000 messages a second."""

_MONTHS_AHEAD: Final = 2
_LOOK_AGAIN: Final = 3600.0
"""Seconds between two looks at the partitions."""
_LOOK_AGAIN_SOON: Final = 60.0
"""The same after a look that did not do everything."""

_TRIES: Final = 20
_BETWEEN_TRIES: Final = 0.25
"""Tries to get a table's lock, and seconds between them, in which those who write have it."""


class Retention:
    """What `ReconcilerWorkflow` has deleted in each of its rounds; `keep` is None for ever."""

    def __init__(self, database: Database, keep: timedelta | None) -> None:
        self._database = database
        self._keep = keep
        self._look_at = 0.0

    async def delete(self, now: datetime) -> int:
        """Delete some of what is older than it is kept; how many messages those were."""
        if self._keep is None:
            return 0
        deleted = 0
        for _ in range(_SLICES):
            async with self._database.begin(within=BACKGROUND) as connection:
                some = await retention.delete(connection, now - self._keep, _AT_ONCE)
            deleted += some
            if some < _AT_ONCE:
                break
        if deleted:
            metrics.messages_deleted(deleted)
            _log.info("old_messages_deleted", count=deleted)
        return deleted

    async def turn_partitions(self, now: datetime) -> None:
        """Once an hour, make the partitions of the months to come, and drop those that are over.

        What cannot be done just now is done a minute later: until then the last partition takes what
        no other does.
        """
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_AGAIN
        for table in partitions.TABLES:
            async with self._database.begin() as connection:
                known = await partitions.stored(connection, table)
            try:
                await self._make(table, known, now)
                await self._drop(known, now)
            except DATABASE_ERRORS as error:
                _log.warning("partitions_not_turned", table=table, error_type=type(error).__name__)
                self._look_at = time.monotonic() + _LOOK_AGAIN_SOON

    async def _make(self, table: Table, known: list[Partition], now: datetime) -> None:
        ahead = _month(now, _MONTHS_AHEAD + 1)
        since = partitions.moment_of(known[-1].until) if known else _month(now, 0)
        while since < ahead:
            until = _month(since, 1)
            try:
                await self._patiently(
                    partial(partitions.make, table=table, since=since, until=until)
                )
                _log.info("partition_made", table=table, until=until)
            except CheckViolation:
                # It stays in the last partition, and is deleted there row by row.
                _log.warning("month_is_in_the_last_partition", table=table, until=until)
            since = until

    async def _patiently(self, change: Callable[[Connection], Awaitable[None]]) -> None:
        """Change a table in a transaction of its own, as soon as no other one uses it.

        Raises:
            TransactionLost: it was used whenever this was tried.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                async with self._database.begin() as connection:
                    await change(connection)
            except TransactionLost:
                if not tries_left:
                    raise
                await asyncio.sleep(_BETWEEN_TRIES)
            else:
                return

    async def _drop(self, known: list[Partition], now: datetime) -> None:
        if self._keep is None:
            return
        for partition in known:
            if partition.until > partitions.first_id(now - self._keep):
                break
            async with self._database.begin(within=BACKGROUND) as connection:
                if await partitions.is_needed(connection, partition):
                    break
            await self._patiently(partial(partitions.drop, partition=partition))
            until = partitions.moment_of(partition.until)
            _log.info("partition_dropped", table=partition.table, until=until)


def _month(moment: datetime, later: int) -> datetime:
    """The beginning of a month, so many after that of a moment."""
    months = moment.month - 1 + later
    return datetime(moment.year + months // 12, months % 12 + 1, 1, tzinfo=UTC)

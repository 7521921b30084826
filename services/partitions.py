"""Partitions by time: new ones are cut ahead of time, old ones are dropped when their time is over.

Rows of messages are never deleted one by one. What is smaller than messages is deleted in slices
when the messages are gone: batches, and recipients of whom no message is left.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from domain.partitions import PartitionWidth, cut_after, first_id_at
from store import bulks, partitions, recipients
from store.database import DATABASE_ERRORS, Database
from store.partitions import CALLBACKS, MESSAGES, Detached, Partition, RowsBeyond, TableBusy
from telemetry import metrics
from telemetry.logs import get_logger

_log = get_logger(__name__)

AHEAD: Final = 2
"""How many partitions there are for the time to come, besides the last one, which has no end."""

_EVERY: Final = timedelta(minutes=10)
_AGAIN: Final = timedelta(seconds=15)
"""When something is left to do: a table was busy, or there are more recipients to look at."""

_SLICE: Final = 500
_AT_ONCE: Final = timedelta(seconds=15)
"""How long one round forgets recipients and batches, at most; a sweep has two minutes."""

_USERS_LEAVE_WITHIN: Final = timedelta(seconds=10)

# While a cut through the last partition is proved, nothing may come behind it, even if whoever
# makes it dies and is away for days.
_ROOM: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Kept:
    """What one round did; `left` tells that there is more to do soon."""

    cut: int = 0
    dropped: int = 0
    left: bool = False


class Partitions:
    """Keeps partitions ahead of the time and, if a retention is set, drops those behind it."""

    def __init__(
        self,
        database: Database,
        width: PartitionWidth = PartitionWidth.MONTH,
        retention: timedelta | None = None,
    ) -> None:
        self._database = database
        self._width = width
        self._retention = retention
        self._next = 0.0
        self._seen: dict[str, UUID] = {}

    async def keep_now_and_then(self, now: datetime) -> None:
        """`keep`, if some time has passed since; what it cannot do must not hold up the rest."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _AGAIN.total_seconds()
        try:
            # Nothing is dropped because one clock is wrong.
            kept = await self.keep(min(now, await partitions.clock(self._database)))
        except DATABASE_ERRORS as error:
            _log.error("partitions_not_kept", error_type=type(error).__name__)
            return
        if not kept.left:
            self._next = time.monotonic() + _EVERY.total_seconds()

    async def keep(self, now: datetime) -> Kept:
        """Cut what is missing, and drop what nobody needs any more, as far as tables are free."""
        cut = dropped = 0
        left = False
        for table in partitions.CUT_BY:
            try:
                cut += await self._cut_ahead(table, now)
            except (TableBusy, RowsBeyond) as error:
                left = True
                _log.warning("partition_not_cut", table=table, error_type=type(error).__name__)
        if cut:
            _log.info("partitions_cut", count=cut)
        if self._retention is not None:
            try:
                dropped, finished = await self._drop_before(now - self._retention)
                left = left or not finished
            except TableBusy as error:
                left = True
                _log.info("partition_not_dropped", error_type=type(error).__name__)
        await self._count(now)
        return Kept(cut, dropped, left)

    async def _count(self, now: datetime) -> None:
        found = await partitions.attached(self._database)
        ahead = min(len(_ahead(_of(found, table), now)) for table in partitions.CUT_BY)
        metrics.partitions_counted(ahead=ahead, oldest=_of(found, MESSAGES)[0].begin)

    # Ahead

    async def _cut_ahead(self, table: str, now: datetime) -> int:
        cut = 0
        while True:
            found = _of(await partitions.attached(self._database), table)
            if len(_ahead(found, now)) >= AHEAD and await partitions.is_empty(
                self._database, found[-1]
            ):
                return cut
            await self._cut_one(found[-1], now)
            cut += 1

    async def _cut_one(self, rest: Partition, now: datetime) -> Partition:
        begin = rest.begin or now
        if await partitions.is_empty(self._database, rest):
            return await partitions.cut_rest(
                self._database, rest, cut_after(max(begin, now), self._width)
            )
        # Nobody has cut for a while: what has come meanwhile becomes a partition as it lies.
        return await partitions.close_rest(
            self._database, rest, cut_after(max(begin, now + _ROOM), self._width)
        )

    # Behind

    async def _drop_before(self, before: datetime) -> tuple[int, bool]:
        """Drop what is older; how many partitions, and whether that is all for now."""
        deadline = time.monotonic() + _AT_ONCE.total_seconds()
        dropped = 0
        for former in await partitions.detached(self._database):
            if not await self._finish(former, deadline):
                return dropped, False
            dropped += 1
        while (oldest := await self._oldest(MESSAGES)).end and oldest.end <= before:
            if await partitions.anything_open(self._database, oldest.end):
                _log.info("partition_has_open_messages", table=MESSAGES, until=oldest.end)
                break
            former = await partitions.detach(self._database, oldest)
            if not await self._finish(former, deadline):
                return dropped, False
            dropped += 1
        dropped += await self._drop_what_belonged(oldest)
        return dropped, await self._forget_batches(oldest, deadline)

    async def _oldest(self, table: str) -> Partition:
        return _of(await partitions.attached(self._database), table)[0]

    async def _finish(self, former: Detached, deadline: float) -> bool:
        """Drop a detached partition, of messages with the recipients that nobody needs."""
        if former.table == MESSAGES:
            # Somebody may have replayed one before it was detached.
            if await partitions.anything_open_in(self._database, former):
                await partitions.attach_again(self._database, former)
                return False
            if not await self._forget_recipients(former, deadline):
                return False
        await partitions.drop(self._database, former)
        self._seen.pop(former.name, None)
        metrics.partition_dropped(former.table)
        _log.info("partition_dropped", table=former.table)
        return True

    async def _drop_what_belonged(self, oldest: Partition) -> int:
        """Drop what belonged to messages before the oldest ones that are left."""
        if oldest.begin is None:
            return 0
        dropped = 0
        for partition in await partitions.attached(self._database):
            if partition.table == MESSAGES or partition.end is None:
                continue
            # The messages of a bulk may lie on both sides of a cut, and it is before the first.
            bulks_go_on = partition.table == "events_of_many" and partition.end == oldest.begin
            if partition.end > oldest.begin or bulks_go_on:
                continue
            if partition.table == CALLBACKS and await partitions.anything_open(
                self._database, partition.end
            ):
                continue
            former = await partitions.detach(self._database, partition)
            await self._finish(former, 0)
            dropped += 1
        return dropped

    async def _forget_recipients(self, former: Detached, deadline: float) -> bool:
        """Delete those who have no message in what is left; whether all were looked at."""
        while True:
            after = self._seen.get(former.name, UUID(int=0))
            ids = await recipients.of_table(self._database, former.name, after, 10 * _SLICE)
            if not ids:
                return True
            if not await self._set_aside(ids):
                return False
            deleted = 0
            for some in _slices(ids):
                deleted += await recipients.delete(self._database, some)
            _log.info("recipients_forgotten", count=deleted)
            self._seen[former.name] = ids[-1]
            if time.monotonic() > deadline:
                return False

    async def _set_aside(self, ids: Sequence[UUID]) -> bool:
        """Set recipients aside until there are none left to be, and nobody has them from before."""
        aside = 1
        while aside:
            aside = 0
            for some in _slices(ids):
                aside += await recipients.set_aside(self._database, some)
            if not await self._users_left():
                return False
        return True

    async def _users_left(self) -> bool:
        """Wait for the transactions of this moment; whether they have ended."""
        until = time.monotonic() + _USERS_LEAVE_WITHIN.total_seconds()
        users = await recipients.users(self._database)
        while users and time.monotonic() < until:
            await asyncio.sleep(0.05)
            users &= await recipients.users(self._database)
        return not users

    async def _forget_batches(self, oldest: Partition, deadline: float) -> bool:
        if oldest.begin is None:
            return True
        before = first_id_at(oldest.begin)
        while time.monotonic() < deadline:
            async with self._database.begin() as connection:
                forgotten = await bulks.forget(connection, before, _SLICE)
            if forgotten < _SLICE:
                return True
        return False


def _of(found: Iterable[Partition], table: str) -> list[Partition]:
    return [each for each in found if each.table == table]


def _ahead(found: Sequence[Partition], now: datetime) -> list[Partition]:
    """Those of the time to come that have an end."""
    return [each for each in found if each.begin and each.begin > now and each.end]


def _slices(ids: Sequence[UUID]) -> Iterable[Sequence[UUID]]:
    return (ids[first : first + _SLICE] for first in range(0, len(ids), _SLICE))

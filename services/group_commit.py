"""Group commit: many items in one transaction, and for each a response of its own.

While one commit is on its way to the disk, the items that arrive gather for the next one. If the
database refuses a group, its halves are committed separately, down to the items at fault: one of them
never keeps others from being written. (docs/decisions/0011)
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

import psycopg

from telemetry.logs import get_logger

_log = get_logger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Write = Callable[[Sequence[_Item]], Awaitable[Sequence[_Result | Exception]]]
"""Commits items in one transaction: a result for each, in order, or the exception that its caller gets.

Raises:
    REFUSED: the database, or its driver, refused the items; none was written.
    Exception: none was written, and a smaller group would fare no better.
"""

REFUSED: Final = (psycopg.Error, OverflowError, ValueError)
"""What is raised for values that can never be written; `DatabaseAway` is none of them."""


class GroupCommit(Generic[_Item, _Result]):
    """Commits the items of many callers together.

    Args:
        write: commits items.
        most: how many of them in one transaction.
        gather: returns when it is worth committing what has come; at once where it is left out.
    """

    def __init__(
        self,
        write: "Write[_Item, _Result]",
        *,
        most: int,
        gather: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._write = write
        self._most: Final = most
        self._gather = gather
        self._waiting: list[tuple[_Item, asyncio.Future[_Result]]] = []
        self._committer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many items wait for the next commit."""
        return len(self._waiting)

    def submit(
        self, item: _Item, result: asyncio.Future[_Result] | None = None
    ) -> asyncio.Future[_Result]:
        """Have an item committed with others; its result, after the commit.

        An item whose future is cancelled before its commit begins is not written. `result` is the
        future to set, where the caller has one already.
        """
        if result is None:
            result = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all())
        return result

    async def drained(self) -> None:
        """Wait until every item was committed or refused."""
        while self._committer is not None and not self._committer.done():
            await asyncio.wait([self._committer])

    async def _commit_all(self) -> None:
        while self._waiting:
            if self._gather is not None:
                await self._gather()
            taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            group = [(item, result) for item, result in taken if not result.done()]
            if group:
                await self._commit(group)

    async def _commit(self, group: Sequence[tuple[_Item, asyncio.Future[_Result]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
        except REFUSED as error:
            if len(group) > 1:
                _log.warning(
                    "group_refused",
                    error_type=type(error).__name__,
                    sqlstate=error.sqlstate if isinstance(error, psycopg.Error) else None,
                    count=len(group),
                )
                middle = len(group) // 2
                await self._commit(group[:middle])
                await self._commit(group[middle:])
                return
            results = [error]
        except Exception as error:  # noqa: BLE001 - those who wait get it
            results = [error] * len(group)
        for (_, waiting), result in zip(group, results, strict=True):
            if waiting.done():
                continue  # nobody waits any more
            if isinstance(result, Exception):
                waiting.set_exception(result)
            else:
                waiting.set_result(result)

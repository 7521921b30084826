"""Reads of lists: on a pool of their own, each with a limit to how long it may take."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from store.database import Connection, Database, StatementTimeout

LOCK_SHARE: Final = 0.25
"""What part of its time a read may wait for a lock. Narrowing a list does not help against a lock, so
that wait has to end before the statement's time does."""


class QueryTooWide(Exception):
    """A list would look at more rows than can be read in time; says what narrows it."""

    loggable = True

    def __init__(self, narrows: str) -> None:
        super().__init__(f"the query looks at too many rows: {narrows}")
        self.narrows = narrows


@asynccontextmanager
async def listing(reads: Database, *, narrows: str) -> AsyncIterator[Connection]:
    """A transaction that reads a list.

    Args:
        reads: the pool for reads.
        narrows: what the caller can do if it takes too long, as an instruction.

    Raises:
        QueryTooWide: a statement took longer than the pool allows.
        DatabaseAway: it waited for a lock, or Postgres is away.
    """
    try:
        async with reads.begin() as connection:
            yield connection
    except StatementTimeout:
        raise QueryTooWide(narrows) from None

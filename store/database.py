"""The way to Postgres: an engine, transactions, and rows as they come."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Self

from sqlalchemy import TextClause, make_url, text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

Row = RowMapping
Parameters = Mapping[str, Any]


def sql(statement: str) -> TextClause:
    """A statement with `:named` parameters, prepared once at import."""
    return text(statement)


class Database:
    """Connections to one Postgres database.

    Errors of the driver never carry parameters (`hide_parameters`), since those are numbers and
    bodies; Postgres' own DETAIL lines are cut by the log redaction.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    def connect(
        cls, url: str, *, pool_size: int = 10, timeout: timedelta = timedelta(seconds=5)
    ) -> Self:
        """A pool to `url` ("postgresql://…"); nothing is opened before the first use.

        Args:
            url: as in DATABASE_URL.
            pool_size: connections kept open, at most; half as many again for bursts.
            timeout: how long to wait for a free or a new connection.
        """
        seconds = timeout.total_seconds()
        engine = create_async_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=pool_size // 2,
            pool_timeout=seconds,
            pool_pre_ping=False,
            hide_parameters=True,
            connect_args={
                "connect_timeout": max(1, int(seconds)),
                "prepare_threshold": 2,
                "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=30000",
            },
        )
        return cls(engine)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block."""
        async with self._engine.begin() as connection:
            yield connection

    async def rows(
        self, statement: TextClause, parameters: Parameters | None = None
    ) -> Sequence[Row]:
        """What one statement returns, in a transaction of its own."""
        async with self.begin() as connection:
            return await rows(connection, statement, parameters)

    async def close(self) -> None:
        await self._engine.dispose()

    @property
    def url(self) -> str:
        """As it was given, password included: for LISTEN, which needs a connection of its own."""
        plain = self._engine.url.set(drivername="postgresql")
        return plain.render_as_string(hide_password=False)

    @property
    def engine(self) -> AsyncEngine:
        return self._engine


async def rows(
    connection: AsyncConnection, statement: TextClause, parameters: Parameters | None = None
) -> Sequence[Row]:
    """All rows that a statement returns."""
    result = await connection.execute(statement, parameters or {})
    return result.mappings().all()


async def row(
    connection: AsyncConnection, statement: TextClause, parameters: Parameters | None = None
) -> Row | None:
    """The first row that a statement returns, or None."""
    result = await connection.execute(statement, parameters or {})
    return result.mappings().first()

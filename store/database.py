"""The way to Postgres: a pool, transactions, and statements that travel together.

Most of what a short transaction costs is the way to Postgres and back. So statements are sent and
their answers awaited apart from each other: what was sent stays in the process until an answer is
needed or the transaction ends, and then all of it goes in one trip (libpq's pipeline mode). The
statements run one after the other as they would alone, each seeing what others have committed.

SQLAlchemy keeps the pool; statements run on psycopg directly (docs/decisions/0008).
"""

from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, NewType, Self, TypeVar

import psycopg
import sqlalchemy.exc
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.rows import dict_row
from sqlalchemy import make_url, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from store.arrays import as_array

Row = Mapping[str, Any]
Parameters = Mapping[str, Any]
_T = TypeVar("_T")
_U = TypeVar("_U")

_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]


class DatabaseAway(Exception):
    """Postgres does not answer, or had no connection free in time.

    If it went away during a commit, nobody knows whether that commit holds.
    """

    loggable = True

    def __init__(self) -> None:
        super().__init__("the database does not answer")


DATABASE_ERRORS: Final = (DatabaseAway, psycopg.Error, SQLAlchemyError, OSError)
"""All that the use of a database may raise, for those who can go on without it."""


Statement = NewType("Statement", bytes)
"""SQL as the driver takes it; made by `sql`."""


def sql(statement: str) -> Statement:
    """A statement with `:named` parameters."""
    return Statement(str(text(statement).compile(dialect=_DIALECT)).encode())


_SESSION: Final = {
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "30000",
    # Statements are prepared while tables are small and run when they are large: a plan that reads
    # a whole table because it is still empty would stay for minutes.
    "enable_seqscan": "off",
    # What is switched off is reckoned as very dear by some versions, which would then compile every
    # statement anew at each run.
    "jit": "off",
}


class Planner:
    """What Postgres' planner is told not to do for one statement, where its estimates mislead it.

    Nobody tells it how long the arrays of a prepared statement are, or how many rows lie between two
    ids. `avoids` are its ways by their names in `enable_…` (manual, 19.7.1): "nestloop", "sort".
    """

    __slots__ = ("as_usual", "told")

    def __init__(self, *avoids: str) -> None:
        self.told = _set(avoids, "off")
        self.as_usual = _set(avoids, "on")


def _set(ways: Sequence[str], value: str) -> Statement:
    return sql(
        "SELECT " + ", ".join(f"set_config('enable_{way}', '{value}', true)" for way in ways)
    )


_BEGIN: Final = sql("BEGIN")
_COMMIT: Final = sql("COMMIT")


@dataclass(slots=True)
class _Sent:
    statement: Statement
    parameters: Parameters
    rows: Sequence[Row] | None = None


class Answer(Generic[_T]):
    """What a statement returns; it may be awaited any number of times, also after the commit."""

    __slots__ = ("_connection", "_read", "_sent")

    def __init__(
        self, connection: "Connection", sent: _Sent, read: Callable[[Sequence[Row]], _T]
    ) -> None:
        self._connection = connection
        self._sent = sent
        self._read = read

    def then(self, make: Callable[[_T], _U]) -> "Answer[_U]":
        """What `make` makes of it."""
        return Answer(self._connection, self._sent, lambda rows: make(self._read(rows)))

    def __await__(self) -> Generator[Any, None, _T]:
        if self._sent.rows is None:
            yield from self._connection.flush().__await__()
        if self._sent.rows is None:
            message = "this statement was sent in a transaction that failed"
            raise LookupError(message)
        return self._read(self._sent.rows)


class Connection:
    """A connection in a transaction, used by one task at a time."""

    def __init__(self, driver: psycopg.AsyncConnection[Any]) -> None:
        self._driver = driver
        self._waiting: list[_Sent] = []

    def send(self, statement: Statement, parameters: Parameters | None = None) -> None:
        """Send a statement whose answer nobody needs; if it fails, so does the transaction."""
        self._send(statement, parameters)

    def rows(
        self,
        statement: Statement,
        parameters: Parameters | None = None,
        *,
        planner: Planner | None = None,
    ) -> Answer[Sequence[Row]]:
        """Send a statement; all rows that it returns. `planner` is told of it, and of it alone."""
        if planner is None:
            return Answer(self, self._send(statement, parameters), _all)
        self._send(planner.told, None)
        found = Answer(self, self._send(statement, parameters), _all)
        self._send(planner.as_usual, None)
        return found

    def row(self, statement: Statement, parameters: Parameters | None = None) -> Answer[Row | None]:
        """Send a statement; the first row that it returns, or None."""
        return Answer(self, self._send(statement, parameters), _first)

    async def flush(self) -> None:
        """Make everything that was sent so far happen."""
        waiting, self._waiting = self._waiting, []
        if waiting and not self._begun:
            waiting.insert(0, _Sent(_BEGIN, {}))
        await _run(self._driver, waiting)

    async def commit(self) -> None:
        """End the transaction, in one trip with what was sent before. The end of its block does.

        Raises:
            psycopg.errors.InFailedSqlTransaction: a statement was refused before, which somebody
                has caught; Postgres would undo everything without a word.
        """
        if self._driver.info.transaction_status is TransactionStatus.INERROR:
            raise psycopg.errors.InFailedSqlTransaction("a statement of it was refused")
        if len(self._waiting) == 1 and not self._begun:
            waiting, self._waiting = self._waiting, []
            await _run(self._driver, waiting)  # a transaction by itself
        elif self._waiting or self._begun:
            self._send(_COMMIT, None)
            await self.flush()

    @property
    def _begun(self) -> bool:
        return self._driver.info.transaction_status is not TransactionStatus.IDLE

    def _send(self, statement: Statement, parameters: Parameters | None) -> _Sent:
        sent = _Sent(statement, parameters or {})
        self._waiting.append(sent)
        return sent


class Database:
    """Connections to one Postgres database.

    Errors never carry parameters, since those are numbers and bodies; Postgres' own DETAIL lines
    are cut by the log redaction.
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
            pool_size: how many connections, at most.
            timeout: how long to wait for a free or a new connection.
        """
        seconds = timeout.total_seconds()
        engine = create_async_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=pool_size,
            max_overflow=0,  # a new connection costs more than waiting for a free one
            pool_timeout=seconds,
            pool_use_lifo=True,  # few connections busy, all else at rest: plans are made for each
            pool_pre_ping=False,
            hide_parameters=True,
            # The driver is not to begin transactions by itself: BEGIN travels with what follows.
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": max(1, int(seconds)),
                "prepare_threshold": 2,
                "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
            },
        )
        return cls(engine)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        """A transaction, committed at the end of the block; answers may be awaited after it.

        Raises:
            DatabaseAway: at any await in it, or at its end.
            psycopg.Error: a statement was refused; nothing of the transaction holds.
        """
        async with self._driver() as driver:
            connection = Connection(driver)
            yield connection
            await connection.commit()

    async def rows(
        self, statement: Statement, parameters: Parameters | None = None
    ) -> Sequence[Row]:
        """What one statement returns, in a transaction of its own.

        Raises:
            DatabaseAway, psycopg.Error: as `begin`.
        """
        async with self.begin() as connection:
            found = connection.rows(statement, parameters)
        return await found

    @asynccontextmanager
    async def _driver(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A free connection; given back clean, or not at all."""
        with _away():
            async with self._engine.connect() as pooled:
                driver = await _driver_of(pooled)
                while _ended(driver):  # with the server that it was made to, while it was at rest
                    await pooled.invalidate()
                    driver = await _driver_of(pooled)
                try:
                    yield driver
                except BaseException:
                    await _abandon(pooled, driver)
                    raise

    async def close(self) -> None:
        await self._engine.dispose()

    @property
    def url(self) -> str:
        """As it was given, password included: for LISTEN, which needs a connection of its own."""
        plain = self._engine.url.set(drivername="postgresql")
        return plain.render_as_string(hide_password=False)

    @property
    def engine(self) -> AsyncEngine:
        """SQLAlchemy's, for migrations; it commits every statement by itself unless told."""
        return self._engine


def _all(rows: Sequence[Row]) -> Sequence[Row]:
    return rows


def _first(rows: Sequence[Row]) -> Row | None:
    return rows[0] if rows else None


async def _run(driver: psycopg.AsyncConnection[Any], sent: Sequence[_Sent]) -> None:
    """Run statements in one trip, and keep what they return."""
    cursors = []
    if len(sent) == 1:
        cursors.append(await _execute(driver, sent[0]))
    elif sent:
        async with driver.pipeline():
            cursors += [await _execute(driver, each) for each in sent]
    for each, cursor in zip(sent, cursors, strict=True):
        result = cursor.pgresult
        has_rows = result is not None and result.status == ExecStatus.TUPLES_OK
        each.rows = await cursor.fetchall() if has_rows else ()


async def _execute(driver: psycopg.AsyncConnection[Any], sent: _Sent) -> psycopg.AsyncCursor[Row]:
    cursor = driver.cursor(row_factory=dict_row, binary=True)
    parameters = {name: as_array(value) for name, value in sent.parameters.items()}
    return await cursor.execute(sent.statement, parameters)


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.TimeoutError,
    ) as error:
        raise DatabaseAway from error


async def _driver_of(pooled: AsyncConnection) -> psycopg.AsyncConnection[Any]:
    driver = (await pooled.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        message = f"the pool holds a {type(driver).__name__}"
        raise TypeError(message)
    return driver


def _ended(driver: psycopg.AsyncConnection[Any]) -> bool:
    """Whether the server has ended a connection that nobody used; no trip to it is made."""
    try:
        driver.pgconn.consume_input()  # its last words, if it has said any
        driver.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return driver.pgconn.status != ConnStatus.OK


async def _abandon(pooled: AsyncConnection, driver: psycopg.AsyncConnection[Any]) -> None:
    """Undo what was begun; a connection that is broken, or in the middle of something, is closed."""
    at_rest = {TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR}
    usable = (
        driver.pgconn.pipeline_status is PipelineStatus.OFF
        and driver.info.transaction_status in at_rest
    )
    try:
        if usable:
            await driver.rollback()
            return
    except psycopg.Error:
        pass
    await pooled.invalidate()

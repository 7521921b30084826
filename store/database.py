"""The way to Postgres: a pool, transactions, and statements that travel together.

Most of what a short transaction costs is the way to Postgres and back. So statements are sent and
their answers awaited apart from each other: what was sent stays in the process until a response is
needed or the transaction ends, and then all of it goes in one trip (libpq's pipeline mode). The
statements run one after the other as they would alone, each seeing what others have committed.

SQLAlchemy keeps the pool; statements run on psycopg directly (docs/decisions/0008). How long anything
may take is bounded here, at both ends (docs/decisions/0020).
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, NewType, Self, TypeVar

import psycopg
import psycopg.sql
import sqlalchemy.exc
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.rows import AsyncRowFactory, tuple_row
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from store.arrays import as_array
from store.connections import BoundedConnection, NoResponse, connect, connection_parameters
from store.sqlstates import STALE, TIMED_OUT, Remedy, remedy
from telemetry import metrics

Parameters = Mapping[str, Any]
_T = TypeVar("_T")
_U = TypeVar("_U")

_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]


class DatabaseAway(Exception):
    """Postgres does not respond, or cannot do it now: the same transaction may succeed later.

    If it went away during a commit, nobody knows whether that commit holds. `sqlstate` is the code
    of Postgres, if it gave one.
    """

    loggable = True
    sentence = "the database does not answer"

    def __init__(self, sqlstate: str | None = None) -> None:
        super().__init__(self.sentence)
        self.sqlstate = sqlstate


class TransactionLost(DatabaseAway):
    """Postgres rolled the transaction back for a reason that passes, such as a deadlock."""

    sentence = "the database could not carry out the transaction this time"


class StatementTimeout(TransactionLost):
    """A statement took longer than its statement_timeout; nothing of its transaction holds."""

    sentence = "the database did not finish a statement in time"


STATEMENT_TIMEOUT: Final = timedelta(seconds=10)
"""How long a statement may take, unless its transaction or its pool says otherwise."""

BACKGROUND: Final = timedelta(minutes=2)
"""The same for work over very many rows, for which no caller waits."""

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
    """Settings of Postgres' planner for one statement, whose costs the planner estimates wrongly.

    The planner does not know how long the arrays of a prepared statement are, or how many rows lie
    between two ids. `avoids` are the methods to switch off, by their names in `enable_…` (manual,
    19.7.1): "nestloop", "sort".
    """

    __slots__ = ("as_usual", "avoiding")

    def __init__(self, *avoids: str) -> None:
        self.avoiding = _set(avoids, "off")
        self.as_usual = _set(avoids, "on")


def _set(ways: Sequence[str], value: str) -> Statement:
    return sql(
        "SELECT " + ", ".join(f"set_config('enable_{way}', '{value}', true)" for way in ways)
    )


_MARGIN: Final = timedelta(seconds=2)
"""How much longer than a statement may take a response is waited for: the server reports its own
timeout, if it lives."""

_WITHIN: Final = sql("SELECT set_config('statement_timeout', :milliseconds, true)")
_BEGIN: Final = sql("BEGIN")
_COMMIT: Final = sql("COMMIT")


@dataclass(slots=True)
class _Sent:
    statement: Statement
    parameters: Parameters
    row_factory: AsyncRowFactory[Any] | None = None
    rows: Sequence[Any] | None = None


class PendingResult(Generic[_T]):
    """What a statement returns; it may be awaited any number of times, also after the commit."""

    __slots__ = ("_connection", "_read", "_sent")

    def __init__(
        self, connection: "Connection", sent: _Sent, read: Callable[[Sequence[Any]], _T]
    ) -> None:
        self._connection = connection
        self._sent = sent
        self._read = read

    def then(self, make: Callable[[_T], _U]) -> "PendingResult[_U]":
        """What `make` makes of it."""
        return PendingResult(self._connection, self._sent, lambda rows: make(self._read(rows)))

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

    def fetch(
        self,
        statement: Statement,
        parameters: Parameters | None,
        row_factory: AsyncRowFactory[_T],
        *,
        planner: Planner | None = None,
    ) -> PendingResult[Sequence[_T]]:
        """Send a statement; all rows that it returns, as `store.rows.Query` reads them.

        `planner` holds for this statement only.
        """
        if planner is None:
            return PendingResult(self, self._send(statement, parameters, row_factory), _all)
        self._send(planner.avoiding, None)
        found = PendingResult(self, self._send(statement, parameters, row_factory), _all)
        self._send(planner.as_usual, None)
        return found

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

    def _send(
        self,
        statement: Statement,
        parameters: Parameters | None,
        row_factory: AsyncRowFactory[Any] | None = None,
    ) -> _Sent:
        sent = _Sent(statement, parameters or {}, row_factory)
        self._waiting.append(sent)
        return sent


class Database:
    """Connections to one Postgres database.

    Errors never carry parameters, since those are numbers and bodies; Postgres' own DETAIL lines
    are cut by the log redaction.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        parameters: Mapping[str, Any],
        *,
        pool: str,
        statement_timeout: timedelta,
    ) -> None:
        self._engine = engine
        self._parameters = parameters
        self._pool = pool
        self._statement_timeout = statement_timeout
        self._generation = 0

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        pool_size: int = 10,
        timeout: timedelta = timedelta(seconds=5),
        statement_timeout: timedelta = STATEMENT_TIMEOUT,
        lock_timeout: timedelta | None = None,
        pool: str = "main",
    ) -> Self:
        """A pool to `url` ("postgresql://…"); nothing is opened before the first use.

        Args:
            url: as in DATABASE_URL.
            pool_size: how many connections, at most.
            timeout: how long to wait for a free connection, or for a new one to one host.
            statement_timeout: how long a statement may take. A server that stays silent for a
                little longer than that counts as away.
            lock_timeout: how long a statement may wait for each lock, if such a wait is to be
                distinguished from a slow statement; it raises TransactionLost.
            pool: name of the pool in metrics.
        """

        async def create() -> BoundedConnection:
            connection = await connect(parameters, silence=statement_timeout + _MARGIN)
            connection.generation = database._generation
            return connection

        session = _SESSION | {"statement_timeout": str(_milliseconds(statement_timeout))}
        if lock_timeout is not None:
            session["lock_timeout"] = str(_milliseconds(lock_timeout))
        parameters = connection_parameters(
            url, timeout=timeout, silence=statement_timeout + _MARGIN, session=session
        )
        engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=create,
            pool_size=pool_size,
            max_overflow=0,  # a new connection costs more than waiting for a free one
            pool_timeout=timeout.total_seconds(),
            pool_use_lifo=True,  # few connections busy, all else at rest: plans are made for each
            pool_pre_ping=False,
            hide_parameters=True,
            # The driver is not to begin transactions by itself: BEGIN travels with what follows.
            isolation_level="AUTOCOMMIT",
        )
        database = cls(engine, parameters, pool=pool, statement_timeout=statement_timeout)
        metrics.database_pool_watched(pool, size=pool_size, in_use=engine.pool.checkedout)  # type: ignore[attr-defined]
        return database

    @asynccontextmanager
    async def begin(self, *, within: timedelta | None = None) -> AsyncIterator[Connection]:
        """A transaction, committed at the end of the block; answers may be awaited after it.

        Args:
            within: how long each of its statements may take, where that is not as usual.

        Raises:
            DatabaseAway: at any await in it, or at its end.
            psycopg.Error: a statement was refused; nothing of the transaction holds.
        """
        async with self._driver() as driver:
            connection = Connection(driver)
            if within is None:
                yield connection
                await connection.commit()
                return
            usual, driver.silence = driver.silence, (within + _MARGIN).total_seconds()
            try:
                connection.send(_WITHIN, {"milliseconds": str(_milliseconds(within))})
                yield connection
                await connection.commit()
            finally:
                driver.silence = usual

    @asynccontextmanager
    async def _driver(self) -> AsyncIterator[BoundedConnection]:
        """A free connection; given back clean, or not at all."""
        with self._explained():
            async with self._engine.connect() as pooled:
                driver = await _driver_of(pooled)
                # With the server that it was made to, while it was at rest; or to one that is away.
                while _ended(driver) or driver.generation < self._generation:
                    await pooled.invalidate()
                    driver = await _driver_of(pooled)
                try:
                    yield driver
                except BaseException as error:
                    await self._abandon(pooled, driver, error)
                    raise

    async def _abandon(
        self, pooled: AsyncConnection, driver: BoundedConnection, error: BaseException
    ) -> None:
        """Undo what was begun; a connection that is of no use any more is closed.

        If the server is away, so are the pool's other connections to it.
        """
        if isinstance(error, psycopg.Error):
            if _remedy(error) is Remedy.RECONNECT:
                self._generation = max(self._generation, driver.generation + 1)
                await pooled.invalidate()
                return
            if error.sqlstate in STALE:
                await pooled.invalidate()
                return
        if not await _rolled_back(driver):
            await pooled.invalidate()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise DatabaseAway for what passes, and leave alone what Postgres refuses for good."""
        try:
            yield
        except sqlalchemy.exc.TimeoutError as error:
            metrics.database_failed(self._pool, "pool_timeout")
            raise DatabaseAway from error
        except sqlalchemy.exc.DBAPIError as error:
            if not isinstance(error.orig, psycopg.Error):
                raise
            self._explain(error.orig)
            raise
        except psycopg.Error as error:
            self._explain(error)
            raise

    def _explain(self, error: psycopg.Error) -> None:
        found = _remedy(error)
        if isinstance(error, NoResponse):
            metrics.database_failed(self._pool, "no_response")
            raise DatabaseAway from error
        if found is Remedy.RECONNECT:
            metrics.database_failed(self._pool, "connection_lost")
            raise DatabaseAway(error.sqlstate) from error
        if error.sqlstate == TIMED_OUT:
            metrics.database_failed(self._pool, "statement_timeout")
            raise StatementTimeout(error.sqlstate) from error
        if found is Remedy.RETRY:
            metrics.database_failed(self._pool, "transaction_lost")
            raise TransactionLost(error.sqlstate) from error

    async def listen(self, channel: str, *, every: timedelta) -> AsyncGenerator[None, None]:
        """Yield at once, at each notification, and every so often without one.

        It has a connection of its own, which is checked each time, since a server that is silent
        sends no notification either.

        Raises:
            DatabaseAway: the connection is lost.
        """
        with self._explained():
            driver = await connect(self._parameters, silence=self._statement_timeout + _MARGIN)
            async with driver:
                await driver.execute(
                    psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel))
                )
                while True:
                    yield
                    notices = driver.notifies(timeout=every.total_seconds(), stop_after=1)
                    async with aclosing(notices):
                        async for _ in notices:
                            pass
                    await driver.execute("SELECT")

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def unhurried(self, statement_timeout: timedelta) -> AsyncIterator[AsyncConnection]:
        """SQLAlchemy's connection, for migrations, whose statements may take so long.

        It commits every statement by itself unless configured otherwise, and is closed at the end.
        """
        async with self._engine.connect() as pooled:
            driver = await _driver_of(pooled)
            driver.silence = (statement_timeout + _MARGIN).total_seconds()
            await driver.execute(
                "SELECT set_config('statement_timeout', %s, false)",
                [str(_milliseconds(statement_timeout))],
            )
            try:
                yield pooled
            finally:
                await pooled.invalidate()

    @property
    def engine(self) -> AsyncEngine:
        """SQLAlchemy's."""
        return self._engine


def _all(rows: Sequence[_T]) -> Sequence[_T]:
    return rows


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
        if each.row_factory is None or result is None or result.status != ExecStatus.TUPLES_OK:
            each.rows = ()
            continue
        # Only now: an error of a factory in the pipeline would break the connection.
        cursor.row_factory = each.row_factory
        each.rows = await cursor.fetchall()


async def _execute(driver: psycopg.AsyncConnection[Any], sent: _Sent) -> psycopg.AsyncCursor[Any]:
    cursor = driver.cursor(row_factory=tuple_row, binary=True)
    parameters = {name: as_array(value) for name, value in sent.parameters.items()}
    return await cursor.execute(sent.statement, parameters)


def _remedy(error: psycopg.Error) -> Remedy:
    """What helps; an error without a SQLSTATE is the driver's, about a connection or about us."""
    if error.sqlstate is None and not isinstance(
        error, psycopg.OperationalError | psycopg.InterfaceError
    ):
        return Remedy.NONE
    return remedy(error.sqlstate)


async def _driver_of(pooled: AsyncConnection) -> BoundedConnection:
    driver = (await pooled.get_raw_connection()).driver_connection
    if not isinstance(driver, BoundedConnection):
        message = f"the pool holds a {type(driver).__name__}"
        raise TypeError(message)
    return driver


def _ended(driver: BoundedConnection) -> bool:
    """Whether the server has ended a connection that nobody used; no trip to it is made."""
    try:
        driver.pgconn.consume_input()  # its last words, if it has said any
        driver.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return driver.pgconn.status != ConnStatus.OK


async def _rolled_back(driver: BoundedConnection) -> bool:
    """Undo what was begun; False if the connection is broken, or in the middle of something."""
    at_rest = {TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR}
    if (
        driver.closed
        or driver.pgconn.pipeline_status != PipelineStatus.OFF
        or driver.info.transaction_status not in at_rest
    ):
        return False
    try:
        await driver.rollback()
    except psycopg.Error:
        return False
    return True


def _milliseconds(span: timedelta) -> int:
    return max(1, int(span.total_seconds() * 1000))

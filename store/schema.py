"""The schema's versions: migrations run forward, one process at a time."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import LockNotAvailable, UndefinedTable
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database
from store.rows import Query
from telemetry.logs import get_logger

_log = get_logger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"
# Any constant will do, as long as every process that migrates takes the same one.
_MIGRATION_LOCK = 0x534D5347


_NUMBER = re.compile(r"\d{4}")
_CURRENT = Query.of(str, "SELECT version_num FROM alembic_version")

STATEMENT_TIMEOUT: Final = timedelta(hours=6)
"""How long one statement of a migration may take, such as an index on a table with a billion rows.

A host that is gone is noticed sooner, by TCP."""


class UnknownRevision(Exception):
    """The database has a revision that is none of the gateway's."""

    def __init__(self, revision: str) -> None:
        super().__init__(f"the database has the unknown schema revision {revision!r}")
        self.revision = revision


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def newest_version() -> str:
    """The revision that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        message = "store/migrations holds no revision"
        raise RuntimeError(message)
    return head


def _upgrade(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def migrate(
    database: Database,
    revision: str = "head",
    *,
    statement_timeout: timedelta = STATEMENT_TIMEOUT,
) -> str:
    """Bring the database forward to `revision`; returns the revision that it has then.

    Two processes that migrate at once take turns; the second finds nothing to do. A migration that
    needs a table for itself waits for it a second at a time, so that sending goes on meanwhile.
    A database that a later release has migrated stays as it is: this code can use it (`serves`).

    Raises:
        UnknownRevision: the database has a revision that no release has.
    """
    async with database.unhurried(statement_timeout) as pooled:
        # Each migration is a transaction: all of it, or nothing.
        connection = await pooled.execution_options(isolation_level="READ COMMITTED")
        # Queried for again and again: who waits for a lock within a statement holds up an index that
        # the other one builds beside the work.
        take = text("SELECT pg_try_advisory_lock(:lock)")
        while not await connection.scalar(take, {"lock": _MIGRATION_LOCK}):
            await connection.rollback()
            await asyncio.sleep(0.2)
        await connection.commit()
        try:
            found = await connection.run_sync(_version)
            await connection.rollback()
            if found is not None and _is_of_a_later_release(found):
                _log.warning("database_newer", version=found, needed=newest_version())
                return found
            await _upgraded(connection, revision)
            return await connection.run_sync(_version) or ""
        finally:
            await connection.execute(
                text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK}
            )
            await connection.commit()


def _is_of_a_later_release(revision: str) -> bool:
    known = {each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision in known:
        return False
    if not _NUMBER.fullmatch(revision) or revision <= newest_version():
        raise UnknownRevision(revision)
    return True


async def _upgraded(connection: AsyncConnection, revision: str) -> None:
    """Migrate, and begin anew where another transaction had a table for too long."""
    while True:
        try:
            await connection.run_sync(_upgrade, revision)
            await connection.commit()
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            await connection.rollback()
            _log.warning("migration_waits_for_a_table")
            await asyncio.sleep(1)
        else:
            return


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def serves(version: str | None) -> bool:
    """Whether a database of this revision has what this code needs.

    Revisions are numbered in order. A newer one is no hindrance: migrations only add until the last
    old process is gone.
    """
    return version is not None and version >= newest_version()


async def current_version(database: Database) -> str | None:
    """The revision of the database, or None if it was never migrated."""
    try:
        async with database.begin() as connection:
            return await _CURRENT.row(connection)
    except UndefinedTable:
        return None

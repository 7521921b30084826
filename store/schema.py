"""The schema's versions: migrations run forward, one process at a time."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database
from telemetry.logs import get_logger

_log = get_logger(__name__)

_MIGRATIONS = Path(__file__).parent / "migrations"
# Any constant will do, as long as every process that migrates takes the same one.
_MIGRATION_LOCK = 0x534D5347


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


async def migrate(database: Database, revision: str = "head") -> str:
    """Bring the database forward to `revision`; returns the revision that it has then.

    Two processes that migrate at once take turns; the second finds nothing to do. A migration that
    needs a table for itself waits for it a second at a time, so that sending goes on meanwhile.
    """
    async with database.engine.connect() as pooled:
        # Each migration is a transaction: all of it, or nothing.
        connection = await pooled.execution_options(isolation_level="READ COMMITTED")
        # Asked for again and again: who waits for a lock within a statement holds up an index that
        # the other one builds beside the work.
        take = text("SELECT pg_try_advisory_lock(:lock)")
        while not await connection.scalar(take, {"lock": _MIGRATION_LOCK}):
            await connection.rollback()
            await asyncio.sleep(0.2)
        await connection.commit()
        try:
            await _upgraded(connection, revision)
            return await connection.run_sync(_version) or ""
        finally:
            await connection.execute(
                text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK}
            )
            await connection.commit()


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
    async with database.engine.connect() as connection:
        return await connection.run_sync(_version)

"""Rows of statements that only a test has, as mappings; those of the store are typed."""

from collections.abc import Awaitable, Sequence
from typing import Any

from psycopg.rows import dict_row

from store.database import Connection, Database, Parameters, Statement


def rows_of(
    where: Connection | Database, statement: Statement, parameters: Parameters | None = None
) -> Awaitable[Sequence[dict[str, Any]]]:
    """All rows that a statement returns, in a transaction, or in one of its own."""
    if isinstance(where, Connection):
        return where.fetch(statement, parameters, dict_row)
    return _alone(where, statement, parameters)


async def row_of(
    where: Connection | Database, statement: Statement, parameters: Parameters | None = None
) -> Any:
    """The first row that a statement returns, or None."""
    found = await rows_of(where, statement, parameters)
    return found[0] if found else None


async def _alone(
    database: Database, statement: Statement, parameters: Parameters | None
) -> Sequence[dict[str, Any]]:
    async with database.begin() as connection:
        found = connection.fetch(statement, parameters, dict_row)
    return await found

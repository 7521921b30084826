"""What Postgres does for the statements of the store, as they are prepared in production."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.sql import SQL, Identifier, Literal

from store import database as store_database
from store.database import Connection, sql

Plan = dict[str, Any]


class Watched:
    """Statements that were run, and how they would be run again."""

    def __init__(self) -> None:
        self.sent: dict[bytes, dict[str, object]] = {}

    async def plans(self, connection: Connection) -> dict[str, Plan]:
        """Of each statement the plan that it has for all values, with what was done for these ones.

        It is done again, in a transaction that is undone.
        """
        found: dict[str, Plan] = {}
        prepared = {
            row["statement"]: row["name"]
            for row in await connection.rows(
                sql("SELECT name, statement FROM pg_prepared_statements")
            )
        }
        driver = connection._driver
        for statement, values in self.sent.items():
            names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement.decode())))
            text = statement.decode().replace("%%", "%")
            for place, name in enumerate(names, 1):
                text = text.replace(f"%({name})s", f"${place}")
            if text not in prepared or not re.match(r"\s*(WITH|SELECT|UPDATE|INSERT|DELETE)", text):
                continue
            arguments = SQL(", ").join(
                Literal(store_database._as_array(values[name])) for name in names
            )
            call = SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {}{}").format(
                Identifier(prepared[text]), SQL("({})").format(arguments) if names else SQL("")
            )
            await driver.execute("SAVEPOINT explained")
            many = b"-- many" in statement
            await driver.execute(f"SET LOCAL enable_nestloop = {'off' if many else 'on'}".encode())
            cursor = await driver.execute(call)
            (row,) = await cursor.fetchall()
            # Not by the driver, which would forget what it has prepared.
            driver.pgconn.exec_(b"ROLLBACK TO SAVEPOINT explained")
            plan = row[0]
            found[text] = json.loads(plan)[0] if isinstance(plan, str) else plan[0]
        return found


@contextmanager
def watched(connection: Connection) -> Iterator[Watched]:
    """Note every statement that a connection runs, each prepared at once."""
    watching, execute = Watched(), store_database._execute

    async def noting(driver, sent):
        if driver is connection._driver:
            watching.sent[bytes(sent.statement)] = dict(sent.parameters)
        return await execute(driver, sent)

    before = connection._driver.prepare_threshold
    connection._driver.prepare_threshold = 0
    store_database._execute = noting
    try:
        yield watching
    finally:
        store_database._execute = execute
        connection._driver.prepare_threshold = before


def nodes(plan: Plan) -> Iterator[Plan]:
    """All nodes of a plan."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def touched(plan: Plan) -> set[str]:
    """The tables of which a plan read anything when it ran."""
    return {
        node["Relation Name"]
        for node in nodes(plan["Plan"])
        if "Relation Name" in node
        and node.get("Actual Loops", 0) > 0
        and "Scan" in node["Node Type"]
    }

"""What Postgres does for the statements of the store, as they are prepared in production."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.sql import SQL, Identifier, Literal

from store import database as store_database
from store.database import Connection

Plan = dict[str, Any]

_CAN_BE_EXPLAINED = re.compile(rb"\s*(WITH|SELECT|UPDATE|INSERT|DELETE)\b")


@contextmanager
def explained(connection: Connection) -> Iterator[list[tuple[str, Plan]]]:
    """Every statement that a connection runs in a transaction, with the plan by which it is run.

    The plan is that for all values; each statement is run once more to see what it does, and that
    is undone.
    """
    driver, run, found = connection._driver, store_database._run, list[tuple[str, Plan]]()

    async def explaining(running, sent):
        if running is not driver:
            await run(running, sent)
            return
        for each in sent:
            if _CAN_BE_EXPLAINED.match(each.statement):
                found.append((each.statement.decode(), await _plan_of(driver, each)))
            await run(driver, [each])

    threshold, driver.prepare_threshold = driver.prepare_threshold, 0
    store_database._run = explaining
    try:
        yield found
    finally:
        store_database._run = run
        driver.prepare_threshold = threshold


async def _plan_of(driver, sent) -> Plan:
    # Not by the driver, which forgets what it has prepared when something is rolled back.
    driver.pgconn.exec_(b"SAVEPOINT explaining")
    await store_database._execute(driver, sent)
    names = dict.fromkeys(re.findall(r"%\((\w+)\)s", sent.statement.decode()))
    values = [Literal(store_database._as_array(sent.parameters[name])) for name in names]
    text = SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {}").format(
        Identifier(await _prepared_as(driver, sent.statement))
    )
    if values:
        text += SQL("({})").format(SQL(", ").join(values))
    driver.pgconn.exec_(b"ROLLBACK TO SAVEPOINT explaining")
    cursor = await driver.execute(text, prepare=False)
    (row,) = await cursor.fetchall()
    driver.pgconn.exec_(b"ROLLBACK TO SAVEPOINT explaining")
    return row[0][0]["Plan"]


async def _prepared_as(driver, statement: bytes) -> str:
    """The name under which the driver has prepared a statement."""
    text = statement.decode().replace("%%", "%")
    for place, name in enumerate(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)), 1):
        text = text.replace(f"%({name})s", f"${place}")
    cursor = await driver.execute(
        "SELECT name FROM pg_prepared_statements WHERE statement = %s", [text], prepare=False
    )
    (row,) = await cursor.fetchall()
    return row[0]


def touched(plan: Plan) -> set[str]:
    """The tables of which a plan read anything when it ran."""
    read = plan["Actual Loops"] > 0 and "Scan" in plan["Node Type"]
    own = {plan["Relation Name"]} if read and "Relation Name" in plan else set()
    return own.union(*(touched(inner) for inner in plan.get("Plans", ())))

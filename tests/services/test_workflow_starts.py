"""The budget of workflow starts, on a real Postgres."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from services.workflow_starts import WorkflowStartBudget
from store.database import Database, sql
from tests.rows import rows_of

pytestmark = pytest.mark.stack


@pytest.fixture
async def databases(database_url: str) -> AsyncIterator[list[Database]]:
    """Those of two processes."""
    both = [Database.connect(database_url, pool_size=2) for _ in range(2)]
    yield both
    for database in both:
        await database.close()


async def granted(budget: WorkflowStartBudget, wanted: int) -> int:
    return sum([await budget.take() for _ in range(wanted)])


async def all_granted(budget: WorkflowStartBudget) -> int:
    """Those until the first no: of a machine that is slow just now as many as of a quick one."""
    starts = 0
    while await budget.take():
        starts += 1
    return starts


async def test_after_a_rest_half_a_seconds_worth_starts_at_once_and_no_more(databases):
    budget = WorkflowStartBudget(databases[0], rate=20)
    await granted(budget, 1)  # makes the row
    await asyncio.sleep(0.6)
    assert 10 <= await granted(budget, 50) <= 12


async def test_all_processes_together_keep_the_rate(databases):
    budgets = [WorkflowStartBudget(database, rate=20) for database in databases]
    began = time.monotonic()
    starts = 0
    while time.monotonic() < began + 1.5:
        starts += sum(await asyncio.gather(*(all_granted(budget) for budget in budgets)))
        await asyncio.sleep(0.005)
    took = time.monotonic() - began
    assert 20 * took * 0.8 <= starts <= 20 * took + 10 + 4


async def test_who_asks_at_the_same_moment_shares_one_question(databases):
    budget = WorkflowStartBudget(databases[0], rate=1000)
    await granted(budget, 1)
    await asyncio.sleep(0.1)
    assert all(await asyncio.gather(*(budget.take() for _ in range(12))))


async def test_messages_in_groups_leave_none_to_single_ones(databases):
    busy, other = (WorkflowStartBudget(database, rate=20) for database in databases)
    await granted(other, 1)
    await busy.spend(400)
    assert await granted(other, 8) <= 3  # what was granted before in one go
    assert await granted(other, 8) == 0
    await asyncio.sleep(1.2)
    assert await other.take()


async def test_without_a_budget_no_single_message_starts(databases):
    budget = WorkflowStartBudget(databases[0], rate=0)
    await budget.spend(10)
    assert not await budget.take()


async def test_a_crash_of_the_database_begins_the_budget_anew(databases):
    budget = WorkflowStartBudget(databases[0], rate=20)
    await granted(budget, 1)
    async with databases[0].begin() as connection:
        connection.send(sql("TRUNCATE workflow_starts"))  # as an unlogged table is after a crash
    await granted(budget, 3)
    assert await budget.take()


async def test_a_query_that_hangs_holds_up_no_message(databases):
    budget = WorkflowStartBudget(databases[0], rate=20)
    await granted(budget, 1)
    await asyncio.sleep(0.5)
    async with databases[1].begin() as connection:
        await rows_of(connection, sql("LOCK TABLE workflow_starts IN ACCESS EXCLUSIVE MODE"))
        budget._left = 0
        async with asyncio.timeout(60):  # the lock is held for as long as this takes
            assert await asyncio.gather(*(budget.take() for _ in range(20))) == [False] * 20
    async with asyncio.timeout(60):
        while not await budget.take():
            await asyncio.sleep(0.05)


async def test_every_caller_gets_the_error_of_a_database_that_is_away():
    gone = Database.connect("postgresql://postgres@127.0.0.1:1/none")
    budget = WorkflowStartBudget(gone, rate=20)
    outcomes = await asyncio.gather(*(budget.take() for _ in range(5)), return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["DatabaseAway"] * 5
    await gone.close()

"""Many items in one transaction: each has its own response, and one at fault hurts no other."""

import asyncio
from collections.abc import Sequence

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.group_commit import GroupCommit
from store.database import Database, DatabaseAway, sql
from tests.rows import rows_of


class Sink:
    """Takes items in groups, and refuses each group that holds a bad one, as Postgres would."""

    def __init__(self, bad: frozenset[int] = frozenset()) -> None:
        self.bad = bad
        self.written: list[int] = []
        self.groups: list[int] = []
        self.failure: Exception | None = None

    async def write(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.groups.append(len(items))
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if self.bad.intersection(items):
            raise psycopg.errors.UntranslatableCharacter
        self.written += items
        return [item * 10 for item in items]


@given(st.sets(st.integers(0, 80)), st.integers(1, 30))
def test_only_the_items_at_fault_are_refused_and_each_other_is_written_once(bad, most):
    async def scenario() -> None:
        sink = Sink(frozenset(bad))
        commits = GroupCommit(sink.write, most=most)
        results = await asyncio.gather(
            *(commits.submit(item) for item in range(60)), return_exceptions=True
        )
        good = [item for item in range(60) if item not in bad]
        assert sorted(sink.written) == good
        for item, result in enumerate(results):
            if item in bad:
                assert isinstance(result, psycopg.Error)
            else:
                assert result == item * 10
        assert max(sink.groups) <= most

    asyncio.run(scenario())


async def test_items_that_arrive_during_a_commit_share_the_next_one():
    sink = Sink()
    commits = GroupCommit(sink.write, most=100)
    first = commits.submit(1)
    await asyncio.sleep(0)
    rest = [commits.submit(item) for item in range(2, 22)]
    await asyncio.gather(first, *rest)
    assert sink.groups == [1, 20]


async def test_an_item_whose_caller_is_gone_is_not_written():
    sink = Sink()
    commits = GroupCommit(sink.write, most=100)
    kept, gone = commits.submit(1), commits.submit(2)
    gone.cancel()
    assert await kept == 10
    await commits.drained()
    assert sink.written == [1]


async def test_a_database_that_is_away_fails_all_of_a_group_and_none_of_the_next():
    sink = Sink()
    sink.failure = DatabaseAway()
    commits = GroupCommit(sink.write, most=100)
    results = await asyncio.gather(*(commits.submit(n) for n in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [DatabaseAway] * 5
    assert sink.groups == [5]  # a smaller group would fare no better
    sink.failure = None
    assert await commits.submit(7) == 70


@pytest.mark.stack
async def test_one_text_that_postgres_cannot_store_keeps_no_other_of_its_group_from_being_written(
    database_url,
):
    database = Database.connect(database_url, pool_size=2)
    async with database.begin() as connection:
        connection.send(sql("CREATE TABLE noted (item text)"))

    async def write(items: Sequence[str]) -> Sequence[None]:
        async with database.begin() as connection:
            connection.send(
                sql("INSERT INTO noted SELECT unnest(CAST(:items AS text[]))"),
                {"items": list(items)},
            )
        return [None] * len(items)

    commits = GroupCommit(write, most=500)
    items = [f"item {n}" for n in range(200)]
    items[77] = "bad\0"
    results = await asyncio.gather(*(commits.submit(i) for i in items), return_exceptions=True)
    assert [n for n, result in enumerate(results) if result is not None] == [77]
    rows = await rows_of(database, sql("SELECT count(*) AS n FROM noted"))
    assert rows[0]["n"] == 199
    await database.close()

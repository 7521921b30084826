"""Rows that are instances of a dataclass."""

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import pytest

from domain.values import value
from store.database import Database, Planner, sql
from store.rows import ColumnsDiffer, Query, read_with
from store.transitions import SizedQuery
from tests.rows import rows_of


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Thing:
    id: UUID
    name: str | None
    size: int


@value
class Painted:
    color: Color
    other: Color | None
    colors: tuple[Color, ...]
    names: frozenset[str] | None
    sizes: tuple[int, ...] | None
    extra: str = field(metadata=read_with(lambda stored: (stored or {}).get("a", "none")))


ID = UUID(int=7)
THINGS = Query.of(
    Thing,
    "SELECT CAST(:id AS uuid) AS id, 'n' || i AS name, i AS size FROM generate_series(1, :count) i",
)
PAINTED = """
SELECT 'red' AS color, CAST(:other AS text) AS other, ARRAY['red', 'blue'] AS colors,
       CAST(:names AS text[]) AS names, CAST(:sizes AS integer[]) AS sizes,
       CAST(:extra AS jsonb) AS extra
"""


@pytest.fixture
async def connection(database_url):
    database = Database.connect(database_url, pool_size=1)
    async with database.begin() as connection:
        yield connection
    await database.close()


async def test_rows_are_instances_of_the_dataclass(connection):
    found = THINGS.rows(connection, {"id": ID, "count": 2})
    none = THINGS.row(connection, {"id": ID, "count": 0})
    assert await found == [Thing(ID, "n1", 1), Thing(ID, "n2", 2)]
    assert await found.then(len) == 2
    assert await none is None
    assert await THINGS.row(connection, {"id": ID, "count": 9}) == Thing(ID, "n1", 1)


@pytest.mark.parametrize("is_null", [False, True])
async def test_values_become_what_the_type_of_their_field_says(connection, is_null):
    query = Query.of(Painted, PAINTED)
    if is_null:
        values = dict.fromkeys(["other", "names", "sizes", "extra"])
        expected = Painted(Color.RED, None, (Color.RED, Color.BLUE), None, None, "none")
    else:
        values = {"other": "blue", "names": ["x", "y"], "sizes": [1, 2], "extra": '{"a": "b"}'}
        names = frozenset({"x", "y"})
        expected = Painted(Color.RED, Color.BLUE, (Color.RED, Color.BLUE), names, (1, 2), "b")
    (found,) = await query.rows(connection, values)
    assert found == expected
    assert type(found.color) is Color


async def test_a_value_that_no_member_of_its_enum_has_is_refused(connection):
    values = {"other": "green", "names": None, "sizes": None, "extra": None}
    with pytest.raises(ValueError, match="'green' is not a valid Color"):
        await Query.of(Painted, PAINTED).rows(connection, values)


@pytest.mark.parametrize(
    "columns",
    [
        "gen_random_uuid() AS id, 'a' AS name",
        "gen_random_uuid() AS id, 1 AS size, 'a' AS name",
        "gen_random_uuid() AS id, 'a' AS name, 1 AS size, 2 AS more",
        "gen_random_uuid() AS id, 'a' AS title, 1 AS size",
    ],
)
@pytest.mark.parametrize("has_rows", [True, False])
@pytest.mark.parametrize("sends_another", [True, False])
async def test_columns_other_than_the_fields_are_refused_even_without_rows(
    database_url, columns, has_rows, sends_another
):
    query = Query.of(Thing, f"SELECT {columns} WHERE :has_rows")
    database = Database.connect(database_url, pool_size=1)

    async def run():
        async with database.begin() as connection:
            if sends_another:
                connection.send(sql("SELECT 1"))
            await query.rows(connection, {"has_rows": has_rows})

    with pytest.raises(ColumnsDiffer, match="Thing has the columns id, name, size; the result has"):
        await run()
    (row,) = await rows_of(database, sql("SELECT 1 AS one"))
    assert row["one"] == 1, "the pool is of use still"
    await database.close()


async def test_a_type_that_is_no_dataclass_is_that_of_the_only_column(connection):
    assert await Query.of(int, "SELECT generate_series(1, 3)").rows(connection) == [1, 2, 3]
    assert await Query.of(Color, "SELECT 'red'").row(connection) is Color.RED
    with pytest.raises(ColumnsDiffer):
        await Query.of(int, "SELECT 1 AS a, 2 AS b").rows(connection)


async def test_a_statement_that_returns_nothing_has_no_rows(connection):
    made = Query.of(Thing, "CREATE TEMPORARY TABLE gone (id uuid) ON COMMIT DROP")
    assert await made.rows(connection) == ()


async def test_the_statement_for_many_is_planned_without_nested_loops(connection):
    query = SizedQuery.of(str, "SELECT current_setting('enable_nestloop') WHERE :yes")
    few, many = [query.rows(connection, {"yes": True}, count=count) for count in (1, 1000)]
    assert (await few, await many) == (["on"], ["off"])
    again = Query.of(str, "SELECT current_setting('enable_nestloop')")
    assert await again.row(connection) == "on"
    assert await again.rows(connection, planner=Planner("nestloop")) == ["off"]


def test_a_dataclass_with_keyword_only_fields_is_refused():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Keyed:
        id: int

    with pytest.raises(TypeError, match="Keyed has fields that are keyword-only"):
        Query.of(Keyed, "SELECT 1 AS id")

"""Lists of JSON values as they are sent to Postgres."""

import time
from typing import Any

from psycopg.types.json import Jsonb

from store.arrays import as_array
from store.database import sql
from tests.rows import rows_of
from tests.store.test_folds import database

__all__ = ["database"]

_NUMBERED = sql("""
SELECT n.value FROM unnest(CAST(:all AS jsonb[])) WITH ORDINALITY AS n (value, place) ORDER BY place
""")


async def test_json_values_are_stored_as_they_were_given(database):
    lists: list[list[Any]] = [
        [{"a": 'quote " backslash \\ \\u0041 brace } comma , tab \t line \n'}],
        [None, {"emoji": "🎉" * 255}, None, {}],
        [{"é": ["🎈", 1, None]}, {"b": "ß"}],
    ]
    for values in lists:
        written = [None if each is None else Jsonb(each) for each in values]
        rows = await rows_of(database, _NUMBERED, {"all": written})
        assert [row["value"] for row in rows] == values


async def test_one_json_object_for_all_is_stored_for_each(database):
    rows = await rows_of(database, _NUMBERED, {"all": [Jsonb({"one object": "🎉"})] * 3})
    assert [row["value"] for row in rows] == [{"one object": "🎉"}] * 3


def test_a_thousand_values_beyond_ascii_are_written_fast():
    """Written as escapes in a text array, they took more than six seconds."""
    values = [Jsonb({f"name{n}": "🎉" * 255 for n in range(20)}) for _ in range(1000)]
    began = time.process_time()
    written = as_array(values)
    assert time.process_time() - began < 3
    assert isinstance(written, bytes)
    assert len(written) < 1000 * 20 * (255 * 4 + 20)

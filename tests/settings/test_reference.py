"""The tables in the documentation are those of the code."""

from pathlib import Path

import pytest

from settings.reference import keys_table, variables_table, with_tables

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


def test_the_page_has_the_tables_of_the_code():
    page = PAGE.read_text()
    assert page == with_tables(page), "run: python -m settings.reference docs/configuration.md"


def test_every_key_and_variable_is_explained():
    for line in (keys_table() + "\n" + variables_table()).splitlines():
        assert not line.endswith("|   |"), line


def test_tables_name_keys_as_they_are_written():
    table = keys_table()
    for key in (
        "`providers.<name>.rebind_backoff.min`",
        "`routes[].match.countries`",
        "`modes.<mode>.validity`",
        "`retries.<error class>.delay`",
    ):
        assert key in table


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="no place for the table"):
        with_tables("# Nothing")

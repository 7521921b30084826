import io
from datetime import UTC, datetime

import pytest
from rich.console import Console
from smsgateway import Event

from smsctl.columns import Column, Grid, masked, text_of, timeline
from smsctl.screen import visible

ROWS = [("msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f", "delivered", None, 3), ("msg_2", "up", None, 12)]
COLUMNS = [
    Column("id", lambda row: row[0]),
    Column("status", lambda row: row[1], is_status=True),
    Column("error", lambda row: row[2]),
    Column("tries", lambda row: row[3]),
]


def drawn(renderable, width, *, terminal=True):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, _environ={}
    )
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_table_that_fits_has_a_row_for_each_thing_and_no_empty_columns():
    heading, rule, first, second = drawn(Grid(COLUMNS, ROWS), 80)
    assert heading.split() == ["id", "status", "tries"]
    assert set(rule) == {"─"}
    assert first.split() == [ROWS[0][0], "delivered", "3"]
    assert second.endswith(" 12")


def test_without_a_terminal_the_columns_are_always_the_same_and_there_is_no_rule():
    heading, *rows = drawn(Grid(COLUMNS, ROWS), 4000, terminal=False)
    assert heading.split() == ["id", "status", "error", "tries"]
    assert len(rows) == 2


@pytest.mark.parametrize("width", [30, 45, 50])
def test_a_table_that_does_not_fit_becomes_blocks(width):
    lines = drawn(Grid(COLUMNS, ROWS, title="Messages"), width)
    if width == 50:
        assert lines[:2] == ["Messages", f"id      {ROWS[0][0]}"]
        assert lines[4:6] == ["", "id      msg_2"]
    assert lines[0] == "Messages"
    assert "".join(line.strip() for line in lines).count("msg_2") == 1


def event(seq, detail=None, **more):
    at = datetime(2026, 12, 1, 9, 0, seq, tzinfo=UTC)
    return Event(seq=seq, at=at, kind="moved", detail=detail or {}, **more)


EVENTS = [
    event(1, status="queued"),
    event(
        3,
        {
            "route": 0,
            "ranking": [{"up": True, "provider": "primary", "order": 0.5}, {"x": "y"}],
        },
        status="sending",
    ),
]


def test_a_timeline_shows_the_time_since_the_first_event_and_all_details():
    _, _, first, second = drawn(timeline(EVENTS), 200)
    assert "0.000 s" in first
    assert "2.000 s" in second
    assert second.endswith("route=0 ranking=primary(order=0.5 up=yes), (x=y)")


def test_a_timeline_folds_its_sentences_before_it_gives_up_being_a_table():
    heading, _, _, second, *folded = drawn(timeline(EVENTS), 80)
    assert heading.split()[:2] == ["at", "after"]
    assert second.endswith("route=0")
    assert " ".join(" ".join(folded).split()) == "ranking=primary(order=0.5 up=yes), (x=y)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (4.25, "4.25"),
        (datetime.fromisoformat("2026-12-01T10:00:00.123456+01:00"), "2026-12-01 09:00:00.123Z"),
        ("a\tb\x9b", "a\\u0009b\\u009b"),
    ],
)
def test_values_are_read_easily(value, text):
    assert text_of(value) == text


def test_only_what_steers_or_misleads_is_spelled_out():
    assert visible("Grüße 🎉\n\u200d") == "Grüße 🎉\n\u200d"
    assert visible("\r\u2066\u001b") == "\\u000d\\u2066\\u001b"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("sg_live_0123456789abcdef_" + "s" * 43, "sg_live_0123456789abcdef…"),
        ("sg_short", "…"),
        ("something else entirely, and secret", "…"),
        ("env:KEY", "env:KEY"),
        ("file:/run/key", "file:/run/key"),
    ],
)
def test_a_key_is_shown_without_its_secret(key, shown):
    assert masked(key) == shown

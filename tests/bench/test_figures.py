"""Figures of two servers: side by side in the table, beside each other in the file."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench import figures
from bench.__main__ import MEASUREMENTS, Measurement, measure, real_server
from bench.figures import Figure, Measured, keep, table
from bench.single import MakeTemporal

EMBEDDED = Figure("wire_ms", value=36.7, unit="ms", p50=36.7, p99=54.3, note="150 messages")
REAL = Figure("wire_ms", value=53.3, unit="ms", p50=53.3, p99=167.3, note="150 of others")
NO_GO = "Go, with which it could be built, is not installed."


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "build" / "bench.json"
    monkeypatch.setattr(figures, "RESULTS", file)
    return file


def printed(*measured: Measured) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table(measured))
    return console.file.getvalue()


def on(temporal: MakeTemporal | None) -> list[Figure]:
    return [EMBEDDED if temporal is None else REAL]


def test_the_file_has_the_second_value_beside_the_first(results: Path):
    keep([Measured(EMBEDDED, REAL)])
    [entry] = json.loads(results.read_text())
    assert entry == {
        "name": "wire_ms",
        "value": 36.7,
        "unit": "ms",
        "p50": 36.7,
        "p99": 54.3,
        "note": "150 messages",
        "real_server": {"value": 53.3, "p50": 53.3, "p99": 167.3, "note": "150 of others"},
    }


def test_the_file_says_why_a_second_value_is_missing(results: Path):
    keep([Measured(EMBEDDED, NO_GO)])
    [entry] = json.loads(results.read_text())
    assert entry["value"] == 36.7
    assert entry["real_server"] == {"value": None, "note": NO_GO}


def test_a_second_value_of_an_earlier_run_goes_with_the_first(results: Path):
    other = Measured(Figure("other", value=1, unit="ms"), Figure("other", value=2, unit="ms"))
    keep([Measured(EMBEDDED, REAL), other])
    keep([Measured(EMBEDDED)])
    entries = {entry["name"]: entry for entry in json.loads(results.read_text())}
    assert "real_server" not in entries["wire_ms"]
    assert entries["other"]["real_server"]["value"] == 2, "other figures stay"


def test_the_table_has_both_values_and_both_percentiles():
    text = printed(Measured(EMBEDDED, REAL))
    assert "on the real server" in text
    [row] = [line for line in text.splitlines() if "wire_ms" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == [
        *("wire_ms", "36.7", "53.3", "ms", "36.7 · 53.3", "54.3 · 167.3", "150 messages"),
    ]


def test_the_table_says_why_a_second_value_is_missing():
    said = " ".join(printed(Measured(EMBEDDED, NO_GO)).replace("│", " ").split())
    for word in NO_GO.split():
        assert word in said


def test_a_figure_with_a_temporal_in_it_is_measured_on_both_servers():
    of_temporal = Measurement(("wire_ms",), on)
    real: MakeTemporal = lambda _: pytest.fail("only the figure itself makes one")  # noqa: E731
    assert measure(of_temporal, real) == [Measured(EMBEDDED, REAL)]
    assert measure(of_temporal, NO_GO) == [Measured(EMBEDDED, NO_GO)]
    assert measure(of_temporal, None) == [Measured(EMBEDDED)]
    assert measure(Measurement(("wire_ms",), on, twice=False), real) == [Measured(EMBEDDED)]


def test_without_go_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("local.temporal.GO_FOLDER", str(tmp_path))
    assert real_server(print) == NO_GO


def test_every_figure_is_of_one_measurement():
    names = [name for measurement in MEASUREMENTS for name in measurement.figures]
    assert len(names) == len(set(names))

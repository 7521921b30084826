"""Figures: what was measured, on what, and where it is written down."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

RESULTS = Path(os.environ.get("SMSGATEWAY_BUILD_FOLDER") or "build") / "bench.json"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; `value` is the statistic that its floor names, p50 and p99 where they mean something."""

    name: str
    value: float
    unit: str
    p50: float | None = None
    p99: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure on the embedded stack, and the same one on Temporal's own server.

    Attributes:
        real: the second one; a sentence where it cannot be had; None where it was not asked for.
    """

    figure: Figure
    real: Figure | str | None = None

    def entry(self) -> dict[str, object]:
        """As it is written down: the second value stands beside the first one, as `real_server`."""
        first = asdict(self.figure)
        match self.real:
            case None:
                return first
            case str(why):
                return first | {"real_server": {"value": None, "note": why}}
            case Figure(value=value, p50=p50, p99=p99, note=note):
                second = {"value": value, "p50": p50, "p99": p99, "note": note}
                return first | {"real_server": second}


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent lie."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def machine() -> str:
    """Processor, cores and versions; no name of the machine."""
    model = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{model}, {cores} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, temporalio {version('temporalio')}, "
        f"psycopg {version('psycopg')}"
    )


def keep(measured: Sequence[Measured]) -> None:
    """Write figures down; those of other names stay.

    A second value of an earlier run goes with the first one: only what was measured side by side
    compares.
    """
    known: dict[str, dict[str, object]] = {}
    if RESULTS.exists():
        known = {entry["name"]: entry for entry in json.loads(RESULTS.read_text())}
    known.update({each.figure.name: each.entry() for each in measured})
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    fresh = RESULTS.with_suffix(".tmp")
    fresh.write_text(json.dumps(list(known.values()), indent=2) + "\n")
    fresh.replace(RESULTS)


def table(measured: Sequence[Measured]) -> Table:
    """All of them; p50 and p99 are those of both servers where there are two."""
    columns = ("figure", "value", "on the real server", "unit", "p50", "p99", "note")
    rows = Table(*columns)
    for each in measured:
        figure, real = each.figure, each.real
        pair = (figure, real) if isinstance(real, Figure) else (figure,)
        rows.add_row(
            figure.name,
            f"{figure.value:g}",
            f"{real.value:g}" if isinstance(real, Figure) else real or "",
            figure.unit,
            " · ".join(f"{one.p50:g}" for one in pair if one.p50 is not None),
            " · ".join(f"{one.p99:g}" for one in pair if one.p99 is not None),
            figure.note,
        )
    return rows

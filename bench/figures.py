"""Figures: what was measured, on what, and where it is written down."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

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


def keep(figures: Sequence[Figure]) -> None:
    """Write figures down; those of other names stay."""
    known: dict[str, dict[str, object]] = {}
    if RESULTS.exists():
        known = {entry["name"]: entry for entry in json.loads(RESULTS.read_text())}
    known.update({figure.name: asdict(figure) for figure in figures})
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    fresh = RESULTS.with_suffix(".tmp")
    fresh.write_text(json.dumps(list(known.values()), indent=2) + "\n")
    fresh.replace(RESULTS)

"""`make bench`: the figures of this machine, as a table and in build/bench.json.

Each that involves Temporal is measured twice, one right after the other: on the embedded development
server, and on Temporal's own server with its databases in Postgres (bench/temporal_server.py).
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rich.console import Console

from bench import bulk, callbacks, grouped, single, smpp, stalls, under_load
from bench.figures import RESULTS, Figure, Measured, keep, machine, table
from bench.single import MakeTemporal
from bench.temporal_server import find_or_build, on_postgres
from local.temporal import Progress, TemporalUnavailable
from telemetry.process import exit_cleanly


@dataclass(frozen=True, slots=True)
class Measurement:
    """What gives these figures, on any Temporal.

    Attributes:
        twice: whether it is measured on both servers.
    """

    figures: tuple[str, ...]
    measure: Callable[[MakeTemporal | None], list[Figure]]
    twice: bool = True


MEASUREMENTS: Final = (
    Measurement(("request_to_wire_ms",), single.request_to_wire),
    Measurement(("single_sends_per_s", "worker_rss_mb"), single.single_sends),
    # Without any Temporal.
    Measurement(("smpp_submit_per_s",), lambda _: smpp.submits(), twice=False),
    Measurement(("single_grouped_per_s",), grouped.single_grouped),
    Measurement(("grouped_wire_ms",), grouped.grouped_wire),
    Measurement(("bulk_100k_per_s",), bulk.bulk_100k),
    Measurement(("batch_accept_per_s",), bulk.batch_accept),
    Measurement(("bulk_callbacks_per_s",), callbacks.bulk_callbacks),
    Measurement(("receipts_in_per_s",), bulk.receipts_in),
    Measurement(("accept_p99_under_bulk_ms", "alert_under_bulk_ms"), under_load.under_bulk),
    # Nothing that is sent in it reaches Temporal.
    Measurement(("event_loop_stall_ms",), lambda _: stalls.event_loop_stall(), twice=False),
    Measurement(("kannel_ratio",), callbacks.kannel_ratio),
    Measurement(("bulk_1m_over_10k", "bulk_1m_rss_mb"), bulk.bulk_1m),
)


def main() -> int:
    """Measure what was asked for, all of it by default."""
    names = [name for measurement in MEASUREMENTS for name in measurement.figures]
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "--only", choices=names, help="measure one figure, and those that are measured with it"
    )
    parser.add_argument(
        "--embedded-only", action="store_true", help="leave the real server's column out"
    )
    options = parser.parse_args()
    chosen = [each for each in MEASUREMENTS if options.only in {None, *each.figures}]
    console = Console(width=120)
    console.print(machine(), highlight=False)
    real: MakeTemporal | str | None = None
    if not options.embedded_only and any(each.twice for each in chosen):
        real = real_server(lambda sentence: console.print(f"· {sentence}", highlight=False))
    everything: list[Measured] = []
    for measurement in chosen:
        measured = measure(measurement, real)
        keep(measured)
        everything += measured
    console.print(table(everything))
    console.print(f"written to {RESULTS}", highlight=False)
    return 0


def real_server(progress: Progress) -> MakeTemporal | str:
    """Temporal's own server for a stack, or why there is none."""
    try:
        return partial(on_postgres, find_or_build(progress))
    except TemporalUnavailable as error:
        return str(error)


def measure(measurement: Measurement, real: MakeTemporal | str | None) -> Sequence[Measured]:
    """Measure on the embedded server and then, if it is to be and can be, on the real one."""
    first = measurement.measure(None)
    if not measurement.twice or real is None:
        return [Measured(figure) for figure in first]
    if isinstance(real, str):
        return [Measured(figure, real) for figure in first]
    return [Measured(*pair) for pair in zip(first, measurement.measure(real), strict=True)]


if __name__ == "__main__":
    exit_cleanly(main())

"""`make bench`: the figures of this machine, as a table and in build/bench.json."""

import argparse
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from bench import bulk, callbacks, grouped, single, smpp, under_load
from bench.figures import RESULTS, Figure, keep, machine
from telemetry.process import exit_cleanly

MEASUREMENTS: Mapping[tuple[str, ...], Callable[[], list[Figure]]] = {
    ("request_to_wire_ms",): single.request_to_wire,
    ("single_sends_per_s", "worker_rss_mb"): single.single_sends,
    ("smpp_submit_per_s",): smpp.submits,
    ("single_grouped_per_s",): grouped.single_grouped,
    ("grouped_wire_ms",): grouped.grouped_wire,
    ("bulk_100k_per_s",): bulk.bulk_100k,
    ("batch_accept_per_s",): bulk.batch_accept,
    ("bulk_callbacks_per_s",): callbacks.bulk_callbacks,
    ("receipts_in_per_s",): bulk.receipts_in,
    ("accept_p99_under_bulk_ms", "alert_under_bulk_ms"): under_load.under_bulk,
    ("kannel_ratio",): callbacks.kannel_ratio,
    ("bulk_1m_over_10k", "bulk_1m_rss_mb"): bulk.bulk_1m,
}


def main() -> int:
    """Measure what was asked for, all of it by default."""
    names = [name for group in MEASUREMENTS for name in group]
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "--only", choices=names, help="measure one figure, and those that are measured with it"
    )
    only = parser.parse_args().only
    console = Console(width=120)
    console.print(machine(), highlight=False)
    table = Table("figure", "value", "unit", "p50", "p99", "note")
    for group, measure in MEASUREMENTS.items():
        if only is None or only in group:
            figures = measure()
            keep(figures)
            for figure in figures:
                table.add_row(
                    figure.name,
                    f"{figure.value:g}",
                    figure.unit,
                    "" if figure.p50 is None else f"{figure.p50:g}",
                    "" if figure.p99 is None else f"{figure.p99:g}",
                    figure.note,
                )
    console.print(table)
    console.print(f"written to {RESULTS}", highlight=False)
    return 0


if __name__ == "__main__":
    exit_cleanly(main())

"""`python -m local COMMAND`: what the Makefile calls."""

import argparse
import shutil
from collections.abc import Callable, Mapping
from typing import Final

from local.demo import demo
from local.folders import InUse, exclusively
from local.postgres import PostgresServer
from local.run import build_folder, run
from local.temporal import TemporalUnavailable, address_from_environment, find_or_install_temporal
from telemetry.process import exit_cleanly


def find_temporal() -> int:
    """Find a Temporal server, or install one."""
    if address := address_from_environment():
        print(f"Temporal: yours, at {address}")
        return 0
    try:
        program = find_or_install_temporal(lambda sentence: print(f"· {sentence}", flush=True))
    except TemporalUnavailable as failure:
        print(failure)
        return 1
    print(f"Temporal: {program}")
    return 0


def reset() -> int:
    """Forget all messages, keys and workflows of `make run`."""
    build = build_folder()
    build.mkdir(parents=True, exist_ok=True)
    try:
        with exclusively(build / "run.lock"):
            PostgresServer(build / "stack" / "postgres").remove()
            shutil.rmtree(build / "stack", ignore_errors=True)
    except InUse:
        print("`make run` is running in this checkout: stop it first.")
        return 1
    return 0


COMMANDS: Final[Mapping[str, Callable[[], int]]] = {
    "demo": demo,
    "temporal": find_temporal,
    "run": run,
    "reset": reset,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m local",
        description="The embedded stack.",
        epilog="  ".join(f"{name}: {act.__doc__}" for name, act in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS)
    exit_cleanly(COMMANDS[parser.parse_args().command]())


if __name__ == "__main__":
    main()

"""`make run` as a process, for tests that use it as a person does."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

COMMAND: Final = [sys.executable, "-m", "local", "run"]


class Run:
    """One `make run` in a checkout of its own: a build folder."""

    def __init__(self, build: Path, process: "subprocess.Popen[str]", output: Path) -> None:
        self.build = build
        self.process = process
        self._output = output

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_until_up(self) -> dict[str, str]:
        deadline = time.monotonic() + 120
        while not (self.build / "run.json").exists():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)
        announced: dict[str, str] = json.loads((self.build / "run.json").read_text())
        return announced

    def descendants(self) -> set[int]:
        """All processes that it started, and that they started."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except FileNotFoundError:
                continue
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found - {self.process.pid}

    def log_of(self, name: str) -> str:
        return (self.build / "stack" / f"{name}.log").read_text()


@contextmanager
def make_run(build: Path, **environment: str) -> Iterator[Run]:
    output = build.with_name("output")
    with output.open("w") as written:
        process = subprocess.Popen(
            COMMAND,
            stdout=written,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"SMSGATEWAY_BUILD_FOLDER": str(build)} | environment,
        )
    try:
        yield Run(build, process, output)
    finally:
        process.kill()
        process.wait()


def remove_data(build: Path) -> None:
    """Remove the data of a stopped `make run`, which lies outside the folder when run as root."""
    subprocess.run(
        [sys.executable, "-m", "local", "reset"],
        check=True,
        env=os.environ | {"SMSGATEWAY_BUILD_FOLDER": str(build)},
    )

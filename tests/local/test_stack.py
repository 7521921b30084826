"""The embedded stack's servers: in which order they come and go."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.processes import Child
from local.stack import Stack
from local.temporal import OwnTemporal


class OnPostgres(OwnTemporal):
    """One that needs the stack's Postgres, and notes whether it is there."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack.folder / "temporal", {"grpc": 0, "metrics": 0})
        self.stack = stack
        self.found_postgres: list[tuple[str, bool]] = []

    def start(self, *, empty: bool = False) -> None:
        self.found_postgres.append(("start", self.stack.postgres.running))
        super().start(empty=empty)

    def stop(self) -> None:
        if self.running:
            self.found_postgres.append(("stop", self.stack.postgres.running))
        super().stop()

    def _process(self) -> Child:
        sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
        return Child("temporal", sleeps, log=self.folder / "temporal.log")

    def _serves(self) -> bool:
        return True

    def _remove_database(self) -> None: ...


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """Servers and simulators; nothing of ours, since nobody answers as Temporal."""
    for name in ("bootstrap", "start_worker", "start_api"):
        monkeypatch.setattr(Stack, name, lambda *_, **__: None)
    stack = Stack(tmp_path, own_servers=True, temporal=OnPostgres, progress=lambda _: None)
    yield stack
    stack.remove()


def test_a_temporal_in_the_stacks_postgres_starts_after_it_and_stops_before_it(stack: Stack):
    stack.start()
    temporal = stack.temporal
    stack.stop()
    assert not stack.postgres.running
    stack.start_what_is_down()
    stack.stop()
    assert temporal.found_postgres == [
        *(("start", True), ("stop", True)),
        *(("start", True), ("stop", True)),
    ]


def test_only_the_development_server_brings_a_ui(stack: Stack):
    stack.find_temporal()
    assert stack.temporal_ui_url is None
    assert f"http://127.0.0.1:{stack.temporal.ports['metrics']}/metrics" in stack.metrics_urls

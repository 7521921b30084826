"""The embedded Temporal: where it comes from, and what it keeps."""

import asyncio
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from local import temporal
from local.temporal import (
    TemporalServer,
    TemporalUnavailable,
    address_from_environment,
    cache_folder,
    find_or_install_temporal,
)


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty PATH and cache, on which nothing can be downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(temporal, "_download", _unreachable)
    monkeypatch.setattr(temporal, "GO_FOLDER", str(tmp_path / "no-go"))
    return tmp_path


def _unreachable(workplace: Path, progress: temporal.Progress) -> Path:
    (workplace / "half-downloaded").touch()
    raise TemporalUnavailable("The download did not work: no network.")


def go_that_builds(machine: Path) -> None:
    """Stand in for `go install`: it notes what was asked for, and takes a moment."""
    program(
        machine / "bin" / "go",
        f'echo "$@" >> {machine}/asked\n/bin/sleep 0.3\n: > "$GOBIN/temporal"',
    )


def test_an_address_of_the_users_own_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal.example:7233")
    assert address_from_environment() == "temporal.example:7233"
    monkeypatch.setenv("TEMPORAL_ADDRESS", "")
    assert address_from_environment() is None


def test_a_temporal_on_the_path_is_taken(machine: Path) -> None:
    says = "echo 'temporal version 1.6.0 (Server 1.30.0, UI 2.43.0)'"
    installed = program(machine / "bin" / "temporal", says)
    assert find_or_install_temporal(print) == installed


def test_one_that_is_too_old_is_passed_over_for_the_one_in_the_cache(machine: Path) -> None:
    says = "echo 'temporal version 1.1.0 (Server 1.25.0, UI 2.30.0)'"
    program(machine / "bin" / "temporal", says)
    cached = program(cache_folder() / "temporal-1.5.1" / "temporal", "")
    output: list[str] = []
    assert find_or_install_temporal(output.append) == cached
    assert any("passed over" in line for line in output)


def test_without_download_it_is_built_with_go(machine: Path) -> None:
    go_that_builds(machine)
    output: list[str] = []
    built = find_or_install_temporal(output.append)
    assert built == machine / "cache" / "smsgateway" / "temporal-1.5.1" / "temporal"
    asked = (machine / "asked").read_text()
    assert asked == "install github.com/temporalio/cli/cmd/temporal@v1.5.1\n"
    assert "The download did not work: no network." in output
    assert [path.name for path in built.parent.iterdir()] == ["temporal"], "nothing half-made"


def test_two_set_ups_at_once_build_it_once(machine: Path) -> None:
    go_that_builds(machine)
    found: list[Path] = []
    output: list[str] = []
    set_ups = [
        threading.Thread(target=lambda: found.append(find_or_install_temporal(output.append)))
        for _ in range(2)
    ]
    for set_up in set_ups:
        set_up.start()
    for set_up in set_ups:
        set_up.join()
    assert len(found) == 2
    assert len((machine / "asked").read_text().splitlines()) == 1
    assert any("another set-up is installing Temporal" in line for line in output)


def test_where_nothing_helps_one_error_says_what_to_install(machine: Path) -> None:
    program(machine / "bin" / "go", "echo 'go: no route to proxy' >&2; exit 1")
    with pytest.raises(TemporalUnavailable) as error:
        find_or_install_temporal(print)
    said = str(error.value)
    for help_offered in ("TEMPORAL_ADDRESS", "docs.temporal.io/cli", "go.dev/dl"):
        assert help_offered in said
    assert "go: no route to proxy" in said
    assert list((cache_folder() / "temporal-1.5.1").iterdir()) == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TemporalServer]:
    server = TemporalServer(find_or_install_temporal(print), tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.stack
async def test_a_stop_and_a_kill_keep_workflows_and_address_and_an_empty_start_forgets_them(
    server: TemporalServer,
) -> None:
    address = server.address
    await server.create_namespace("here", keywords=("Mode",))
    client = await Client.connect(address, namespace="here")
    await client.start_workflow("Waits", id="kept", task_queue="nobody")

    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    kept = await client.get_workflow_handle("kept").describe()
    assert kept.status is WorkflowExecutionStatus.RUNNING

    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    kept = await client.get_workflow_handle("kept").describe()
    assert kept.status is WorkflowExecutionStatus.RUNNING
    assert server.address == address

    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start, empty=True)
    with pytest.raises(RPCError, match="not found"):
        await client.get_workflow_handle("kept").describe()


@pytest.mark.stack
def test_it_serves_its_ui_and_metrics_on_loopback_and_writes_for_its_owner_alone(
    server: TemporalServer,
) -> None:
    command = " ".join(server.child.command)
    assert "--ip 127.0.0.1" in command
    assert "journal_mode=WAL" in command
    log = server.folder / "temporal.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.stack
def test_a_running_one_keeps_its_database(server: TemporalServer) -> None:
    with pytest.raises(RuntimeError, match="stop it before"):
        server.forget_everything()
    assert server.database.exists()


@pytest.mark.stack
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "temporal.db").write_text("this is no database " * 100)
    server = TemporalServer(find_or_install_temporal(print), tmp_path)
    with pytest.raises(TemporalUnavailable, match=r"Temporal does not start\. temporal ended"):
        server.start()
    assert os.path.exists(server.database)  # noqa: PTH110  not removed by us

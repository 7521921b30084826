"""A real Temporal server: found, installed where it can be, started, stopped.

The order in which it is looked for: `TEMPORAL_ADDRESS` (then none is started), a `temporal` on
PATH, the cache, the download that the SDK knows, `go install` of the pinned version.
"""

import asyncio
import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    RegisterNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from local.folders import exclusively
from local.processes import Child, ChildEnded, Server, free_port, listens
from telemetry.process import exit_cleanly

Progress = Callable[[str], None]

Install = Callable[[Path, Progress], Path]
"""Makes a program in a folder and returns its path, or raises `TemporalUnavailable`."""

# Of the tags of the command line, the newest one whose modules the Go proxy serves in full; the
# download takes the same, so that everybody tries things on the same server (1.29.1).
VERSION: Final = "v1.5.1"
GO_MODULE: Final = "github.com/temporalio/cli/cmd/temporal"
GO_FOLDER: Final = "/usr/local/go/bin"  # where its own installer puts it, often not on PATH
OLDEST_SERVER: Final = (1, 29)  # task queue priorities and the matcher that honours them

DYNAMIC_CONFIGURATION: Final = {
    # By default 20 a second for each host; with the one shard of this server every hop of a
    # workflow would wait 50 ms for it.
    "history.transferProcessorMaxPollRPS": "1000",
    "history.timerProcessorMaxPollRPS": "1000",
    # With four partitions first tasks starve under load (p99 5-6 s instead of 1.5 s).
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    # Priorities need the new matcher. Fairness keeps its tasks in other tables, so it is on from
    # the first day: switched on later, it would strand a backlog.
    "matching.useNewMatcher": "true",
    "matching.enableFairness": "true",
}

# As every other server has it by default.
LIKE_A_SERVER: Final = {
    # The development server reads the search attributes from its database whenever it looks at
    # one, nine times for each workflow: 7% of its processor time. Without that, new ones are known
    # after two seconds.
    "system.forceSearchAttributesCacheRefreshOnRead": "false",
}

# Workflows of one regular activity, 50 at once, on 2 busy cores: synchronous=OFF 40/s, NORMAL 35/s,
# FULL 26/s; one at a time 41, 47 and 57 ms. NORMAL loses nothing when the process is killed, and
# at a power cut at most the last moments, which the gateway's own rows bring back.
PRAGMAS: Final = {
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    # Pages are written back to the database in larger portions and read from it less often: 4% less
    # CPU for each workflow.
    "wal_autocheckpoint": "10000",
    "cache_size": "-65536",  # KiB
}

# Go's collector at its default takes another 4%; the server then holds some 100 MB more.
GO_COLLECTOR: Final = "400"

DOWNLOAD_SECONDS: Final = 300
KNOWN_WITHIN_SECONDS: Final = 30
INSTALL_HELP: Final = (
    "There is no Temporal server and none could be installed. Any one of these helps: set "
    "TEMPORAL_ADDRESS to a running one; put the `temporal` command line on your PATH "
    "(https://docs.temporal.io/cli, server 1.29 or newer); make https://temporal.download "
    "reachable; or install Go (https://go.dev/dl), with which it is built from source."
)


class TemporalUnavailable(RuntimeError):
    """There is no Temporal server, and the text says what to do about it."""


# Finding and installing


def cache_folder() -> Path:
    """Where programs are kept between runs: `smsgateway` in the user's cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given else Path.home() / ".cache") / "smsgateway"


def address_from_environment() -> str | None:
    """The address of the Temporal that the user runs, `host:port`, if there is one."""
    return os.environ.get("TEMPORAL_ADDRESS") or None


def find_or_install_temporal(progress: Progress) -> Path:
    """Return the path of a `temporal` command line that can serve, installing it if need be.

    Raises:
        TemporalUnavailable: there is none and it cannot be installed; says what to install.
    """
    if (on_path := shutil.which("temporal")) and _is_new_enough(Path(on_path), progress):
        return Path(on_path)
    program = cache_folder() / f"temporal-{VERSION.removeprefix('v')}" / "temporal"
    try:
        return install_once("Temporal", program, (_download, _build_with_go), progress)
    except TemporalUnavailable as failure:
        tried = f"{INSTALL_HELP}\nWhat was tried:\n{failure}"
        raise TemporalUnavailable(tried) from None


def install_once(name: str, program: Path, ways: Sequence[Install], progress: Progress) -> Path:
    """Return a program of the cache, after installing it by the first way that works if need be.

    Two at once do not disturb each other: the second prints by `name` what it waits for, and finds
    it installed.

    Raises:
        TemporalUnavailable: none works; says of each why.
    """
    if program.exists():
        return program
    folder = program.parent
    folder.mkdir(parents=True, exist_ok=True)
    waiting = functools.partial(progress, f"another set-up is installing {name}: waiting for it")
    with exclusively(folder.with_name(f"{folder.name}.lock"), waiting):
        if program.exists():
            return program
        failures = []
        started = time.monotonic()
        for install in ways:
            with tempfile.TemporaryDirectory(prefix="installing-", dir=folder) as workplace:
                try:
                    install(Path(workplace), progress).replace(program)
                except TemporalUnavailable as failure:
                    progress(str(failure))
                    failures.append(str(failure))
                else:
                    progress(f"{name} is installed ({time.monotonic() - started:.0f} s)")
                    return program
    raise TemporalUnavailable("\n".join(failures))


def _is_new_enough(program: Path, progress: Progress) -> bool:
    said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
    found = re.search(r"Server (\d+)\.(\d+)", said.stdout)
    if found is not None and tuple(map(int, found.groups())) >= OLDEST_SERVER:
        return True
    wanted = ".".join(map(str, OLDEST_SERVER))
    progress(f"{program} is passed over: it is no Temporal server of version {wanted} or newer")
    return False


def _download(workplace: Path, progress: Progress) -> Path:
    """Let the SDK download it.

    In a process of its own, since the SDK can only download and start, and may abort at the end.
    """
    progress(f"downloading Temporal {VERSION}")
    try:
        result = subprocess.run(
            [sys.executable, "-m", "local.temporal", str(workplace)],
            check=False,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
            cwd=Path(__file__).parent.parent,
        )
    except subprocess.TimeoutExpired:
        raise TemporalUnavailable(f"The download took more than {DOWNLOAD_SECONDS} s.") from None
    programs = list(workplace.glob("temporal*"))
    if result.returncode != 0 or len(programs) != 1:
        said = result.stderr.strip().splitlines() or ["no reason given"]
        raise TemporalUnavailable(f"The download did not work: {said[-1]}")
    return programs[0]


async def _download_and_try(folder: str) -> None:
    environment = await WorkflowEnvironment.start_local(
        download_dest_dir=folder, dev_server_download_version=VERSION
    )
    await environment.shutdown()


def _build_with_go(workplace: Path, progress: Progress) -> Path:
    cost = "some 3 minutes and 2 GB of Go's caches"
    return go_install(f"{GO_MODULE}@{VERSION}", workplace, progress, cost=cost)


def go_install(package: str, workplace: Path, progress: Progress, *, cost: str) -> Path:
    """Build a program with Go, and return its path in `workplace`.

    Args:
        package: its path and version, as `go install` takes them.
        workplace: an empty folder.
        progress: called with a sentence when it begins, and while it continues.
        cost: what it takes, for whoever waits.

    Raises:
        TemporalUnavailable: there is no Go, or it fails; says why.
    """
    go = shutil.which("go") or shutil.which("go", path=GO_FOLDER)
    if go is None:
        raise TemporalUnavailable("Go, with which it could be built, is not installed.")
    path, _, version = package.partition("@")
    program = path.rpartition("/")[2]
    progress(f"building Temporal {version} with Go ({program}: {cost})")
    started = time.monotonic()
    with (workplace / "said").open("w+") as said:
        command = [go, "install", package]
        environment = os.environ | {"GOBIN": str(workplace)}
        with subprocess.Popen(command, env=environment, stdout=said, stderr=said) as building:
            try:
                while building.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        building.wait(15)
                        break
                    progress(f"still building Temporal ({time.monotonic() - started:.0f} s)")
            except BaseException:  # an interrupt must not wait for the end of the build
                building.kill()
                raise
        said.seek(0)
        complaints = [line for line in said if not line.startswith("go: downloading")]
    if building.returncode != 0:
        raise TemporalUnavailable(f"`go install` failed: {''.join(complaints)[-500:].strip()}")
    return workplace / program


# Running


class Temporal:
    """What one can do with any Temporal server: connect to it and make namespaces."""

    def __init__(self, address: str) -> None:
        self._address = address

    @property
    def address(self) -> str:
        """`host:port` of its gRPC service."""
        return self._address

    async def create_namespace(
        self, name: str, *, keywords: tuple[str, ...] = (), retention: timedelta = timedelta(days=3)
    ) -> None:
        """Make a namespace with these search attributes, usable at once."""
        client = await Client.connect(self.address)
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(
                namespace=name,
                workflow_execution_retention_period=Duration(
                    seconds=int(retention.total_seconds())
                ),
            )
        )
        if keywords:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=name,
                    search_attributes=dict.fromkeys(
                        keywords, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
                    ),
                )
            )
            await _until_known(client, name, keywords)


async def _until_known(client: Client, namespace: str, keywords: tuple[str, ...]) -> None:
    """Wait until the server has read its search attributes anew (every two seconds)."""
    query = " AND ".join(f"`{keyword}` = ''" for keyword in keywords)
    async with asyncio.timeout(KNOWN_WITHIN_SECONDS):
        while True:
            try:
                await client.workflow_service.count_workflow_executions(
                    CountWorkflowExecutionsRequest(namespace=namespace, query=query)
                )
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                await asyncio.sleep(0.1)
            else:
                return


class OwnTemporal(Temporal, Server):
    """A Temporal that is a process of ours; a restart keeps everything.

    Args:
        folder: for its log, and what else it writes.
        ports: what it listens on, `grpc` and `metrics` among them; those of 0 are chosen at the
            first start and then kept.
    """

    name = "Temporal"
    unavailable = TemporalUnavailable

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self.folder = folder.absolute()
        self.ports = dict(ports)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['metrics']}/metrics"

    def start(self, *, empty: bool = False) -> None:
        """Start it; returns when it serves. `empty` forgets all workflows first.

        Raises:
            TemporalUnavailable: it does not start; says why.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if empty:
            self.forget_everything()
        given = self.ports
        for attempts_left in (2, 1, 0):
            self.ports = {name: port or free_port() for name, port in given.items()}
            try:
                self._launch()
            except (ChildEnded, TimeoutError) as error:
                self.kill()
                # Its inner services take free ports of their own choice, which others may take
                # a moment before.
                if attempts_left == 0:
                    raise TemporalUnavailable(f"Temporal does not start. {error}") from error
            else:
                return

    def _launch(self) -> None:
        self._child = self._process()
        self._child.start()
        self._child.wait_for(self._serves, seconds=60, what="healthy")

    @abstractmethod
    def _process(self) -> Child:
        """The server as it is to be started, on `ports`."""

    @abstractmethod
    def _serves(self) -> bool: ...

    def forget_everything(self) -> None:
        """Remove its database, as if its disk had been lost. Only while it is stopped."""
        if self.running:
            raise RuntimeError("Temporal is running; stop it before its database is removed.")
        self._remove_database()

    @abstractmethod
    def _remove_database(self) -> None: ...


class TemporalServer(OwnTemporal):
    """The development server, on one database file in `folder`."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        port: int = 0,
        ui_port: int = 0,
        metrics_port: int = 0,
    ) -> None:
        super().__init__(folder, {"grpc": port, "ui": ui_port, "metrics": metrics_port})
        self.program = program
        self.database = self.folder / "temporal.db"

    @property
    def ui_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['ui']}"

    def _process(self) -> Child:
        options = {
            "--db-filename": str(self.database),
            "--ip": "127.0.0.1",
            "--port": str(self.ports["grpc"]),
            "--ui-port": str(self.ports["ui"]),
            "--metrics-port": str(self.ports["metrics"]),
            "--log-level": "error",
        }
        repeated = [
            ("--dynamic-config-value", f"{k}={v}")
            for k, v in (DYNAMIC_CONFIGURATION | LIKE_A_SERVER).items()
        ]
        repeated += [("--sqlite-pragma", f"{k}={v}") for k, v in PRAGMAS.items()]
        return Child(
            "temporal",
            [
                *(str(self.program), "server", "start-dev"),
                *(part for option in (*options.items(), *repeated) for part in option),
            ],
            log=self.folder / "temporal.log",
            folder=self.folder,
            environment={"GOGC": GO_COLLECTOR, **os.environ},
        )

    def _serves(self) -> bool:
        if not (listens(self.ports["grpc"]) and listens(self.ports["ui"])):
            return False
        check = ["operator", "cluster", "health", "--address", self.address]
        response = subprocess.run([self.program, *check], check=False, capture_output=True)
        return response.returncode == 0

    def _remove_database(self) -> None:
        for file in self.folder.glob(f"{self.database.name}*"):
            file.unlink()


if __name__ == "__main__":
    asyncio.run(_download_and_try(sys.argv[1]))
    exit_cleanly()

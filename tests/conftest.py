"""The real parts that tests run on: Postgres, Temporal, its time-skipping server, Maven's programs.

Each starts when the first test asks for it, serves the whole session, and ends with it; what a test
writes is its own: a database cloned from a migrated template, a Temporal namespace.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import psycopg
import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from local.folders import exclusively, temporary_folder
from local.postgres import Postgres, free_database_name
from local.processes import free_port
from local.stack import Stack
from local.temporal import (
    Temporal,
    TemporalServer,
    address_from_environment,
    cache_folder,
    find_or_install_temporal,
)
from store.database import Database
from store.schema import migrate
from telemetry.process import exit_cleanly
from tests.postgres import own_postgres
from workflows.ports.attributes import SEARCH_ATTRIBUTES

# By marker, the programs without which such a test cannot run.
FOREIGN_PROGRAMS = {
    "java": ("java", "mvn"),
    "go": ("go",),
    "chromium": ("chromium",),
    "nginx": ("nginx", "openssl"),
    "openssl": ("openssl",),
    "shell": ("curl", "jq"),
    "npm": ("npm", "node"),
}

# No example of a property has a time limit, also where CI is not set: the machine may be busy.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
if os.environ.get("CI") != "true":
    hypothesis.settings.load_profile("unhurried")

TIME_SKIPPING_SERVER = "io.temporal:temporal-test-server:1.38.0"


# What is missing, and how the session ends


def skip_unless_installed(marker: str) -> None:
    """Skip the test by the name of what it lacks; where everything must run, fail it."""
    missing = [name for name in FOREIGN_PROGRAMS[marker] if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{' and '.join(missing)} must be installed where CI=true")
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}, which is not installed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in FOREIGN_PROGRAMS:
        if item.get_closest_marker(marker):
            skip_unless_installed(marker)


_exit_status = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_exit_status] = exitstatus


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End without the interpreter's own end, in which threads of Temporal's SDK may abort it."""
    status = config.stash.get(_exit_status, None)
    if status is not None and "temporalio.bridge.runtime" in sys.modules:
        exit_cleanly(int(status))


# Folders


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """Where the session's servers keep their data."""
    with temporary_folder() as folder:
        yield folder


# Postgres


@pytest.fixture(scope="session")
def postgres_server(session_folder: Path) -> Iterator[Postgres]:
    if url := os.environ.get("DATABASE_URL"):
        yield Postgres(url)
        return
    with own_postgres(session_folder / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: Postgres) -> Iterator[str]:
    """The name of a database with all migrations applied, to clone from."""
    name = free_database_name("template")
    url = postgres_server.create_database(name)
    with ThreadPoolExecutor() as thread:  # this one may have an event loop that must stay as it is
        thread.submit(asyncio.run, _migrate(url)).result()
    yield name
    postgres_server.drop_database(name)


async def _migrate(url: str) -> None:
    database = Database.connect(url, pool_size=1)
    try:
        await migrate(database)
    finally:
        await database.close()


@pytest.fixture
def database_url(postgres_server: Postgres, migrated_template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = free_database_name("test")
    url = postgres_server.create_database(name, template=migrated_template)
    with psycopg.connect(url, autocommit=True) as connection:
        # Of many messages, too, every fold is checked, and not a sample.
        connection.execute(f"ALTER DATABASE {name} SET smsgateway.folds_checked = 'all'")
    yield url
    postgres_server.drop_database(name)


@pytest.fixture
def empty_database_url(postgres_server: Postgres) -> Iterator[str]:
    """A database of the test's own without a table."""
    name = free_database_name("test")
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


# Temporal


@pytest.fixture(scope="session")
def temporal_server(session_folder: Path) -> Iterator[Temporal]:
    if address := address_from_environment():
        yield Temporal(address)
        return
    server = TemporalServer(find_or_install_temporal(print), session_folder / "temporal")
    server.start()
    try:
        yield server
    finally:
        server.kill()  # a good end would take 1.5 s, for data that nobody reads again


@pytest.fixture
async def temporal_namespace(temporal_server: Temporal) -> str:
    """A namespace of the test's own, with the search attributes of the gateway."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    await temporal_server.create_namespace(name, keywords=SEARCH_ATTRIBUTES)
    return name


@pytest.fixture
async def temporal_client(temporal_server: Temporal, temporal_namespace: str) -> Client:
    return await Client.connect(
        temporal_server.address,
        namespace=temporal_namespace,
        data_converter=pydantic_data_converter,
    )


# All of it, as processes that tests may kill


@pytest.fixture(scope="session")
def session_stack() -> Iterator[Stack]:
    with temporary_folder() as folder:
        stack = Stack(folder, own_servers=True)
        try:
            stack.start()
            yield stack
        finally:
            stack.remove()


@pytest.fixture
def stack(session_stack: Stack) -> Iterator[Stack]:
    """The whole gateway, everything up; afterwards nothing of it may have died by itself."""
    session_stack.start_what_is_down()
    yield session_stack
    session_stack.check()


# What Maven has


class Maven:
    """Java programs and what they need, kept between runs."""

    def classpath(self, coordinates: str) -> str:
        """Return the class path of `group:artifact:version` with all that it depends on."""
        skip_unless_installed("java")
        folder = cache_folder() / "maven" / coordinates.replace(":", "_")
        complete = folder / "complete"
        folder.mkdir(parents=True, exist_ok=True)
        with exclusively(folder.with_suffix(".lock"), lambda: None):
            if not complete.exists():
                self._fetch(coordinates, folder)
                complete.touch()
        return os.pathsep.join(sorted(map(str, folder.glob("*.jar"))))

    def _fetch(self, coordinates: str, folder: Path) -> None:
        group, artifact, version = coordinates.split(":")
        (folder / "pom.xml").write_text(
            textwrap.dedent(f"""\
                <project>
                  <modelVersion>4.0.0</modelVersion>
                  <groupId>local</groupId><artifactId>class-path</artifactId><version>1</version>
                  <dependencies><dependency>
                    <groupId>{group}</groupId>
                    <artifactId>{artifact}</artifactId>
                    <version>{version}</version>
                  </dependency></dependencies>
                </project>
                """)
        )
        command = ["mvn", "-B", "-q", "-f", str(folder / "pom.xml")]
        command += ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="session")
def maven() -> Maven:
    return Maven()


@pytest.fixture(scope="session")
def time_skipping_program(maven: Maven, session_folder: Path) -> Path:
    """Starts in a third of a second: its classes are in an archive (java(1), AppCDS), and compiled once."""
    classpath = maven.classpath(TIME_SKIPPING_SERVER)
    archive = cache_folder() / "maven" / "time-skipping-server.jsa"
    java = f"java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp '{classpath}'"
    server = "io.temporal.testserver.TestServer"
    with exclusively(archive.with_suffix(".lock"), lambda: None):
        if not archive.exists():
            _archive_classes(f"exec {java} -XX:ArchiveClassesAtExit={archive} {server}")
    script = session_folder / "temporal-test-server"
    script.write_text(f'#!/bin/sh\nexec {java} -XX:SharedArchiveFile={archive} {server} "$@"\n')
    script.chmod(0o700)
    return script


def _archive_classes(command: str) -> None:
    """Run the server until it listens: what it has loaded by then is archived when it ends."""
    port = free_port()
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"{command} {port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(120)


async def _start_time_skipping(program: Path, tries: int = 20) -> WorkflowEnvironment:
    """Start it; the SDK waits 5 s for it, which is short for Java on a busy machine."""
    for _ in range(tries - 1):
        with contextlib.suppress(RuntimeError):
            return await _time_skipping_once(program)
    return await _time_skipping_once(program)


async def _time_skipping_once(program: Path) -> WorkflowEnvironment:
    return await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(program), data_converter=pydantic_data_converter
    )


@pytest.fixture
async def time_skipping(time_skipping_program: Path) -> AsyncIterator[WorkflowEnvironment]:
    """A Temporal on which days pass in seconds, while every workflow is asleep."""
    async with await _start_time_skipping(time_skipping_program) as environment:
        yield environment

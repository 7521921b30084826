"""Setup of Postgres and Temporal: a real Postgres runs the scripts and reads the settings."""

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.errors import InsufficientPrivilege

from api.health import DatabaseState, database_state
from domain.configuration import Environment
from local.postgres import SETTINGS as POSTGRES_OF_THE_TESTS
from local.postgres import PostgresServer, database_url, postgres_binaries
from local.temporal import DYNAMIC_CONFIGURATION as TEMPORAL_OF_THE_TESTS
from services.assembly import assemble
from services.retention import Retention
from services.submission import Caller, SendCommand
from settings.settings import Settings
from store import accounts, partitions
from store.database import Database
from store.schema import migrate
from tests.api.conftest import CONFIGURATION, temporal_is_away
from tests.deploy.compose import CHECKOUT, LONG_RUNNING, OURS, SERVICES, mounts
from tests.postgres import own_postgres

SECRETS = CHECKOUT / "deploy/secrets.sh"
DATABASES = CHECKOUT / "deploy/postgres/databases.sh"
POSTGRES = CHECKOUT / "deploy/postgres/postgresql.conf"
DYNAMIC = CHECKOUT / "deploy/temporal/dynamicconfig.yaml"
BYTES = {"kB": 1024, "MB": 1024**2, "GB": 1024**3, "M": 1024**2, "G": 1024**3}

# Temporal's four services each have a pool of this size for each of its two databases
# (SQL_MAX_CONNS and SQL_VIS_MAX_CONNS of its image).
OF_TEMPORAL = 4 * (20 + 10)
FOR_PEOPLE_AND_SUPERUSERS = 20


def postgres_settings() -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in POSTGRES.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if line)
    return {name.strip(): value.strip().strip("'") for name, value in pairs}


def size(written: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]+)", written).groups()
    return int(number) * BYTES[unit]


@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("-h", 0), ("--folder", 2)])
def test_an_option_of_the_secrets_script_is_never_taken_for_a_folder(tmp_path, option, code):
    done = subprocess.run(
        ["sh", SECRETS, option], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert "secrets.sh [FOLDER]" in done.stdout
    assert list(tmp_path.iterdir()) == []


def make_secrets(folder: Path) -> list[str]:
    """Run the script; what it says that it made."""
    done = subprocess.run(["sh", SECRETS, folder], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with own_postgres(tmp_path_factory.mktemp("deploy") / "postgres") as server:
        yield server


@pytest.fixture(scope="module")
def binaries(server: PostgresServer) -> Path:
    return postgres_binaries(server._user)


# --- secrets -------------------------------------------------------------------------------------


def test_secrets_are_made_once_and_then_left_alone(tmp_path: Path):
    folder = tmp_path / "secrets"
    first = make_secrets(folder)
    before = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    assert len(first) == len(before)
    assert make_secrets(folder) == []
    assert {name: (folder / name).read_text() for name in before} == before


def test_secrets_differ_and_are_long_enough(tmp_path: Path):
    values = []
    for name in ("one", "two"):
        make_secrets(tmp_path / name)
        files = (path for path in (tmp_path / name).iterdir() if path.is_file())
        values += [path.read_text().strip() for path in files]
    assert len(values) == len(set(values))
    assert min(map(len, values)) >= 32


def test_only_their_owner_finds_the_secrets_and_every_container_can_read_them(tmp_path: Path):
    make_secrets(tmp_path / "secrets")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for path in (tmp_path / "secrets").iterdir():
        wanted = 0o755 if path.is_dir() else 0o444
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path.name


def test_git_and_the_image_builder_see_no_secret():
    ignored = (CHECKOUT / "deploy/secrets/.gitignore").read_text().split()
    assert ignored == ["*", "!.gitignore"]
    assert "!deploy" not in (CHECKOUT / ".dockerignore").read_text()


# --- databases -----------------------------------------------------------------------------------


def make_databases(server: PostgresServer, binaries: Path, secrets: Path) -> None:
    """Run the job as docker-compose.yml does, against the test's server."""
    address = psycopg.conninfo.conninfo_to_dict(server.admin_url)
    (secrets / "postgres_password").unlink()
    (secrets / "postgres_password").write_text(f"{address['password']}\n")
    files = {
        name: value.replace("/run/secrets", str(secrets))
        for name, value in SERVICES["databases"]["environment"].items()
        if name.endswith("_FILE")
    }
    where = {
        "PGHOST": address["host"],
        "PGPORT": str(address["port"]),
        "PGUSER": address["user"],
        "PGDATABASE": address["dbname"],
    }
    assert set(SERVICES["databases"]["environment"]) == {*files, *where} - {"PGPORT"}
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", DATABASES],
        check=False,
        env={**files, **where, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def url_of(secrets: Path, role: str, server: PostgresServer, database: str) -> str:
    password = (secrets / f"{role}_database_password").read_text().strip()
    address = f"postgresql://{role}:{password}@127.0.0.1:{server.port}/"
    return database_url(address, database)


def test_each_role_has_its_databases_and_reaches_no_other(
    server: PostgresServer, binaries: Path, tmp_path: Path
):
    make_secrets(tmp_path / "secrets")
    secrets = tmp_path / "secrets"
    make_databases(server, binaries, secrets)
    allowed = {
        ("temporal", "temporal"),
        ("temporal", "temporal_visibility"),
        ("gateway_owner", "gateway"),
        ("gateway", "gateway"),
    }
    for role in ("temporal", "gateway_owner", "gateway"):
        for database in ("temporal", "temporal_visibility", "gateway", "postgres"):
            url = url_of(secrets, role, server, database)
            if (role, database) in allowed:
                with psycopg.connect(url) as connection:
                    may = (
                        nullcontext() if role != "gateway" else pytest.raises(InsufficientPrivilege)
                    )
                    with may:
                        connection.execute("CREATE TABLE its_own (id integer)")
                    connection.rollback()
            else:
                with pytest.raises(psycopg.OperationalError, match="permission denied"):
                    psycopg.connect(url)


def test_our_url_is_that_of_our_role(server: PostgresServer, binaries: Path, tmp_path: Path):
    secrets = tmp_path / "secrets"
    make_secrets(secrets)
    make_databases(server, binaries, secrets)
    url = (secrets / "gateway_database_url").read_text().strip()
    here = url.replace("@postgres:5432/", f"@127.0.0.1:{server.port}/")
    assert here != url
    with psycopg.connect(here) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("gateway",)


TABLES_OF_EVENTS = ("events", "events_of_many")
NOW = datetime.now(UTC)


async def use(url: str) -> None:
    """What processes do with the database that is not simply reading and writing rows."""
    settings = Settings(database_url=url, recipient_hash_key="k" * 32)
    services = assemble(settings, connect=temporal_is_away)
    caller = Caller("default", Environment.LIVE, "key_x", frozenset())
    try:
        assert await database_state(services) is DatabaseState.UP
        async with services.database.begin() as connection:
            accounts.ensure_account(connection, "default", "whsec_x")
        await services.configurations.apply(CONFIGURATION, applied_by="test")
        sent = await services.accept(
            caller, SendCommand(to="+447700900123", sender="ACME", body="Hello")
        )
        assert await services.messages.events(caller, sent.message_id)
        await Retention(services.database, timedelta(days=7)).delete(NOW + timedelta(days=400))
        later = NOW + timedelta(days=1000)
        await Retention(services.database, None).turn_partitions(later)
        async with services.database.begin() as connection:
            (*_, last) = await partitions.stored(connection, "events")
        assert partitions.moment_of(last.until) > later
        async with services.database.begin() as connection:
            await partitions.drop(connection, last)
    finally:
        await services.close()


def assert_only_added_to(url: str) -> None:
    """Nothing that this role can say changes events, or the tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'events%' AND relkind IN ('r', 'p')"
        )
        tables = {row[0] for row in names}
        assert {*TABLES_OF_EVENTS, "events_first", "events_last"} <= tables
        refused = [f"TRUNCATE {table}" for table in tables]
        refused += [f"UPDATE {table} SET at = now()" for table in tables]
        refused += [f"DROP TABLE {table}" for table in tables]
        refused += [f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in tables]
        refused += [f"DELETE FROM {table}" for table in tables if not table.endswith("_last")]
        refused += ["TRUNCATE messages", "DROP TABLE messages", "DELETE FROM alembic_version"]
        refused += ["SELECT keep_append_only('events', 'UPDATE')"]
        for statement in refused:
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)
        for misused in (
            "SELECT drop_partition('messages')",
            "SELECT drop_partition('events_last')",
            "SELECT make_partition('messages', 'messages_203001', NULL, NULL)",
            "SELECT make_partition('events', 'x; DROP TABLE messages', NULL, NULL)",
        ):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                connection.execute(misused)


async def migrated(url: str) -> None:
    database = Database.connect(url, pool_size=1)
    await migrate(database)
    await database.close()


async def test_processes_do_their_work_with_a_role_that_cannot_change_what_happened(
    server: PostgresServer, binaries: Path, tmp_path: Path
):
    make_secrets(tmp_path)
    make_databases(server, binaries, tmp_path)
    await migrated(url_of(tmp_path, "gateway_owner", server, "gateway"))
    for _ in range(2):  # and when the job has run again
        await use(url_of(tmp_path, "gateway", server, "gateway"))
        assert_only_added_to(url_of(tmp_path, "gateway", server, "gateway"))
        make_databases(server, binaries, tmp_path)


async def test_a_database_whose_processes_own_it_gets_an_owner(
    server: PostgresServer, binaries: Path, tmp_path: Path
):
    make_secrets(tmp_path)
    make_databases(server, binaries, tmp_path)
    with psycopg.connect(server.admin_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE gateway WITH (FORCE)")
        connection.execute("CREATE DATABASE gateway OWNER gateway")
    await migrated(url_of(tmp_path, "gateway", server, "gateway"))
    make_databases(server, binaries, tmp_path)
    await migrated(url_of(tmp_path, "gateway_owner", server, "gateway"))
    await use(url_of(tmp_path, "gateway", server, "gateway"))
    assert_only_added_to(url_of(tmp_path, "gateway", server, "gateway"))


def test_the_job_runs_again_and_takes_over_new_passwords(
    server: PostgresServer, binaries: Path, tmp_path: Path
):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        make_secrets(folder)
        make_databases(server, binaries, folder)
    with psycopg.connect(url_of(new, "gateway", server, "gateway")):
        pass
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url_of(old, "gateway", server, "gateway"))


# --- postgresql.conf -----------------------------------------------------------------------------


def test_postgres_takes_every_setting(binaries: Path, tmp_path: Path):
    """`-C` reads the whole file, and stops at a name or a value that the server does not know."""
    command = [binaries / "postgres", "-C", "shared_buffers", "-D", tmp_path]
    done = subprocess.run(
        [*command, "-c", f"config_file={POSTGRES}"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert size(f"{done.stdout.strip()}kB") * 8 == size(postgres_settings()["shared_buffers"])


def test_what_was_accepted_survives_a_power_cut():
    settings = postgres_settings()
    assert {settings[name] for name in ("fsync", "synchronous_commit", "full_page_writes")} == {
        "on"
    }


def test_the_log_of_postgres_has_no_numbers():
    settings = postgres_settings()
    for name in ("log_error_verbosity", "log_min_error_statement"):
        assert settings[name] == POSTGRES_OF_THE_TESTS[name]
    assert settings["log_min_duration_statement"] == "-1"
    assert settings["log_statement"] == "none"


def test_there_is_a_connection_for_everybody():
    defaults = Settings.model_fields
    # Those of both pools, and one that listens.
    pools = [defaults[f"database_{which}pool_size"].default for which in ("", "read_")]
    each = sum(pools) + 1
    processes = len(set(OURS) & set(LONG_RUNNING)) - 1  # all but the simulator
    doubled = 2 * processes * each
    wanted = OF_TEMPORAL + doubled + FOR_PEOPLE_AND_SUPERUSERS
    assert wanted <= int(postgres_settings()["max_connections"])


def test_postgres_fits_into_its_memory():
    settings = postgres_settings()
    limit = size(SERVICES["postgres"]["deploy"]["resources"]["limits"]["memory"])
    assert size(settings["shared_buffers"]) * 4 == limit
    assert size(settings["effective_cache_size"]) * 4 == limit * 3


# --- Temporal ------------------------------------------------------------------------------------


def dynamic_configuration() -> dict[str, object]:
    content = yaml.safe_load(DYNAMIC.read_text())
    for key, values in content.items():
        assert [set(value) for value in values] == [{"value"}], key
    return {key: values[0]["value"] for key, values in content.items()}


def test_temporal_runs_with_what_the_tests_run_with():
    deployed = {key: str(value).lower() for key, value in dynamic_configuration().items()}
    assert deployed.items() >= TEMPORAL_OF_THE_TESTS.items()


def test_every_dynamic_setting_says_why():
    sections = re.split(r"^# --- .*$", DYNAMIC.read_text(), flags=re.MULTILINE)[1:]
    for section in sections:
        comment, _, settings = section.strip().partition("\n")
        assert comment.startswith("# "), section
        assert "value:" in settings, section


def test_workflow_ids_can_be_found():
    """Postgres' visibility keeps them in 255 characters."""
    assert dynamic_configuration()["limit.maxIDLength"] == 255


@pytest.mark.parametrize("script", [SECRETS, DATABASES, *CHECKOUT.glob("deploy/temporal/*.sh")],
                         ids=lambda path: path.name)  # fmt: skip
def test_scripts_are_plain_shell_and_stop_at_the_first_failure(script: Path):
    assert script.read_text().startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in script.read_text()
    subprocess.run(["sh", "-n", script], check=True)


def test_jobs_run_the_scripts_that_are_mounted():
    for name in ("databases", "temporal-schema", "temporal-namespace"):
        [(target, source)] = mounts(SERVICES[name]).items()
        assert SERVICES[name]["entrypoint"] == ["sh", target], name
        script = (CHECKOUT / source).read_text()
        read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", script))
        given = set(SERVICES[name]["environment"])
        made = set(re.findall(r"^([A-Z_]+)=", script, re.MULTILINE))
        assert read - made <= given, name

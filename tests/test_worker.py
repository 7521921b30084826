"""The worker as a process."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from local.processes import free_port

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.parametrize(("roles", "nicer"), [(["chunks"], 5), (["providers", "chunks"], 0)])
def test_a_worker_of_bulks_alone_lets_others_go_first(roles, nicer):
    with subprocess.Popen(
        [sys.executable, "worker.py", *(word for role in roles for word in ("--role", role))],
        cwd=CHECKOUT,
        env=os.environ
        | {
            "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/away",
            "SMSGATEWAY_RECIPIENT_HASH_KEY": "k" * 32,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as worker:
        try:
            assert worker.stdout is not None
            assert any("database" in line for line in worker.stdout), "it waits for its database"
            own = os.getpriority(os.PRIO_PROCESS, 0)
            assert os.getpriority(os.PRIO_PROCESS, worker.pid) == own + nicer
        finally:
            worker.terminate()


def run_bootstrap(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "worker.py", "bootstrap", *options],
        cwd=CHECKOUT,
        env=os.environ | {"SMSGATEWAY_RECIPIENT_HASH_KEY": "k" * 32} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def away() -> str:
    return f"127.0.0.1:{free_port()}"


def test_a_failed_bootstrap_says_which_postgres_it_could_not_use():
    place = away()
    failed = run_bootstrap(DATABASE_URL=f"postgresql://nobody:swordfish@{place}/away")
    assert failed.returncode == 1
    assert f"Postgres at {place} cannot be reached" in failed.stderr
    assert "check DATABASE_URL" in failed.stderr
    assert "process_failed" not in failed.stderr
    assert "swordfish" not in failed.stderr


@pytest.mark.stack
def test_bootstrap_refuses_a_database_whose_revision_no_release_has(database_url: str):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'feature-x'")
    failed = run_bootstrap(DATABASE_URL=database_url)
    assert failed.returncode == 1
    assert "has the schema revision 'feature-x', which no release" in failed.stderr
    assert "check that DATABASE_URL" in failed.stderr
    assert "process_failed" not in failed.stderr


@pytest.mark.stack
def test_a_failed_bootstrap_says_which_temporal_it_could_not_use(empty_database_url: str):
    place = away()
    failed = run_bootstrap(DATABASE_URL=empty_database_url, TEMPORAL_ADDRESS=place)
    assert failed.returncode == 1
    assert f"Temporal at {place} cannot be reached" in failed.stderr
    assert "check TEMPORAL_ADDRESS" in failed.stderr
    assert "process_failed" not in failed.stderr


@pytest.mark.parametrize("option", ["--new-operator-key", "--new-key"])
def test_a_new_key_that_nobody_would_see_is_refused_before_anything_is_changed(option: str):
    """Otherwise the earlier key of the same name is revoked, and nobody has the new one."""
    # Refused before the environment is read: there is no database here.
    refused = run_bootstrap(option, "operator")
    assert refused.returncode == 2
    assert f"{option} needs --print-key" in refused.stderr
    assert "Nothing was changed" in refused.stderr
    assert not refused.stdout


def test_a_provider_for_roles_that_hold_no_binds_is_refused():
    refused = subprocess.run(
        [sys.executable, "worker.py", "--role", "sends", "--provider", "primary"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "--provider needs --role providers, chunks or all" in refused.stderr

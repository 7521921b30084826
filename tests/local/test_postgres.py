"""The embedded Postgres: what it keeps, whom it lets in, what it refuses."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from local.postgres import (
    FOLDERS_WHEN_ROOT,
    Postgres,
    PostgresServer,
    PostgresUnavailable,
    database_url,
)
from tests.postgres import own_postgres

pytestmark = pytest.mark.stack


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    with own_postgres(tmp_path / "postgres") as server:
        yield server


def write_and_read(server: Postgres) -> None:
    with psycopg.connect(server.admin_url) as connection:
        connection.execute("CREATE TABLE kept (message text)")
        connection.execute("INSERT INTO kept VALUES ('hello')")


def kept(server: Postgres) -> list[tuple[str]]:
    with psycopg.connect(server.admin_url) as connection:
        return connection.execute("SELECT message FROM kept").fetchall()


def test_what_was_committed_survives_a_restart_and_a_kill_at_the_same_port(
    server: PostgresServer,
) -> None:
    write_and_read(server)
    url = server.admin_url
    server.restart()
    assert kept(server) == [("hello",)]
    with closing(psycopg.connect(server.admin_url)) as held:  # a session is open when it is killed
        held.execute("SELECT 1")
        server.kill()
        server.start()
    assert kept(server) == [("hello",)]
    assert server.admin_url == url


def test_every_commit_reaches_the_disk(server: PostgresServer) -> None:
    with psycopg.connect(server.admin_url) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)


def test_nobody_gets_in_without_the_password(server: PostgresServer) -> None:
    wrong = server.admin_url.replace("smsgateway:", "smsgateway:x")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    password_file = server.home / "password"
    assert password_file.stat().st_mode & 0o777 == 0o600
    rules = (server.data / "pg_hba.conf").read_text().splitlines()
    methods = {rule.split()[-1] for rule in rules if rule.strip() and not rule.startswith("#")}
    assert methods == {"scram-sha-256"}


def test_it_listens_on_loopback_alone_and_has_no_unix_socket(server: PostgresServer) -> None:
    with psycopg.connect(server.admin_url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    for address in addresses - {"127.0.0.1"}:
        family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
        with socket.socket(family) as probe:
            assert probe.connect_ex((str(address), server.port)) != 0


def test_a_second_server_on_the_same_folder_is_refused_with_a_sentence(
    server: PostgresServer,
) -> None:
    with pytest.raises(PostgresUnavailable, match="Another process runs a Postgres"):
        PostgresServer(server.folder).start()
    server.child.check()


def test_a_stale_process_id_that_is_another_programs_by_now_does_not_matter(
    server: PostgresServer,
) -> None:
    server.kill()
    same_user = "nobody" if os.geteuid() == 0 else None  # of another one Postgres would not mind
    with subprocess.Popen(["sleep", "60"], user=same_user) as somebody_else:
        pid_file = server.data / "postmaster.pid"
        _, *rest = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(somebody_else.pid), *rest]))
        server.start()
        assert somebody_else.poll() is None
        somebody_else.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_it_ends_with_a_killed_owner_and_the_next_one_takes_over(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from local.postgres import PostgresServer
        server = PostgresServer(Path({str(tmp_path / "postgres")!r}))
        server.start()
        print("up", flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        owner.send_signal(signal.SIGKILL)
    with own_postgres(tmp_path / "postgres") as server:
        write_and_read(server)


def test_a_database_is_cloned_from_its_template(server: PostgresServer) -> None:
    with psycopg.connect(server.create_database("template_of_ours")) as connection:
        connection.execute("CREATE TABLE cloned (n int)")
    url = server.create_database("the clone", template="template_of_ours")
    with closing(psycopg.connect(url)) as connection:
        assert connection.execute("SELECT count(*) FROM cloned").fetchone() == (0,)
        server.drop_database("the clone")  # also while somebody is connected
    assert not server.exists("the clone")


def test_a_failed_start_says_why(server: PostgresServer) -> None:
    server.stop()
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("\nno_such_setting = 1\n")
    with pytest.raises(PostgresUnavailable, match="no_such_setting"):
        server.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
def test_as_root_it_runs_unprivileged_in_a_folder_of_its_own_and_widens_none(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o700)
    before = {folder: folder.stat().st_mode for folder in (tmp_path, FOLDERS_WHEN_ROOT)}
    with own_postgres(tmp_path / "postgres") as server:
        nobody = pwd.getpwnam("nobody")
        assert Path(f"/proc/{server.child.pid}").stat().st_uid == nobody.pw_uid
        status = Path(f"/proc/{server.child.pid}/status").read_text()
        assert "Groups:\t \n" in status or "Groups:\t\n" in status
        assert server.home.parent == FOLDERS_WHEN_ROOT
        assert server.home.stat().st_uid == nobody.pw_uid
        assert server.home.stat().st_mode & 0o777 == 0o700
        assert {folder: folder.stat().st_mode for folder in before} == before
        assert (tmp_path / "postgres").stat().st_uid == 0
    assert not server.home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
def test_as_root_a_folder_that_somebody_else_prepared_is_not_trusted(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    server.home.mkdir(mode=0o777)
    try:
        with pytest.raises(PostgresUnavailable, match="belongs to somebody else"):
            server.start()
    finally:
        shutil.rmtree(server.home)


def test_the_url_of_another_database_keeps_everything_else() -> None:
    url = "postgresql://user:p%40ss@db.example:5433/one?sslmode=require"
    assert database_url(url, "two") == (
        "postgresql://user:p%40ss@db.example:5433/two?sslmode=require"
    )

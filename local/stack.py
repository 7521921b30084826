"""The whole gateway on one machine: real servers, simulators, worker and API as children of ours.

`make run`, the demo, the measurements and the tests that kill something use the same `Stack`; each
gives it a folder for all that it writes. Its parts can be stopped, killed and started one by one;
one that ends without being asked to is an error, and is never started again behind one's back.
"""

import contextlib
import json
import os
import secrets
import string
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from domain.configuration import Configuration, ProviderConfiguration
from domain.configuration.providers.smpp import SmppConfiguration
from domain.configuration.providers.twilio import (
    SIMULATED_ACCOUNT,
    SIMULATED_TOKEN,
    TwilioConfiguration,
)
from domain.secrets import AllowedSecrets
from local.postgres import Postgres, PostgresServer
from local.processes import Child, Server, free_port, listens
from local.temporal import (
    OwnTemporal,
    Progress,
    Temporal,
    TemporalServer,
    address_from_environment,
    find_or_install_temporal,
)
from providers.registry import ProviderTypes
from settings.configuration_file import read_configuration
from settings.settings import load_settings

CHECKOUT: Final = Path(__file__).parent.parent
DATABASE: Final = "smsgateway"
KEY_NAME: Final = "local"

# Three carriers of the simulator: two SMSCs, the second one for what the first one does not deliver, and
# a Twilio, which has that part for numbers of the United States.
CONFIGURATION: Final = """\
# Written by the embedded stack; SMSGATEWAY_CONFIG=my.toml runs it with another one.
[providers.primary]
type = "simulator"
port = $primary
binds = $binds
echoes_reference = true

[providers.backup]
type = "simulator"
port = $backup
binds = $binds
echoes_reference = true

# Twilio's Messages API, simulated: an account that exists nowhere else, and a token that is no secret.
[providers.twilio_simulator]
type = "twilio"
url = "http://127.0.0.1:$twilio_simulator"
private_network = true
account_sid = "$twilio_account"
auth_token = "$twilio_token"

[[routes]]
match = { countries = ["US"] }
providers = ["primary", "twilio_simulator"]

[[routes]]
providers = ["primary", "backup"]

# Short, so that a dead letter can be tried; the default is 30m.
[modes.promotional]
outage_patience = "10s"

[callbacks]
allow_private_addresses = true
"""


_SIMULATED: Final = ("primary", "backup", "twilio_simulator")
"""Providers of templates whose ports are chosen here."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})

WORKERS: Final = int(os.environ.get("SMSGATEWAY_WORKERS") or 3)
"""Worker processes: two for the chunks of bulks give most on two processors, and one beside them is
there for single messages at any time (docs/performance.md).

A configuration of the user's own gets one worker with all roles, unless the variable says otherwise:
its providers may have a single bind, which one worker holds.
"""


class StackFailed(RuntimeError):
    """The stack cannot start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key that the stack made for its user; the one that it made before is revoked."""

    secret: str
    key_id: str


class Ports:
    """Ports that were free when they were first asked for, remembered from run to run.

    `SMSGATEWAY_<NAME>_PORT` gives one, such as `SMSGATEWAY_API_PORT`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._settled: dict[str, int] = {}
        self._remembered: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._remembered = json.loads(file.read_text())

    def of(self, name: str) -> int:
        """The port of that part; from the first call on always the same."""
        with self._lock:
            if name not in self._settled:
                self._settled[name] = self._settle(name)
                kept = self._remembered | self._settled
                self._file.write_text(json.dumps(kept, indent=2))
            return self._settled[name]

    def _settle(self, name: str) -> int:
        if given := os.environ.get(f"SMSGATEWAY_{name.upper()}_PORT"):
            return int(given)
        last = self._remembered.get(name)
        return free_port() if last is None or listens(last) else last


class Stack:
    """Everything that runs.

    Args:
        folder: for data and logs; what is in it already is kept and used.
        configuration: the providers and routes; else `template` is written into the folder.
        template: a configuration in which `$primary`, `$backup` and `$twilio_simulator` stand for ports,
            and `$twilio_account` and `$twilio_token` for the account of the simulator.
        environment: further variables for worker and API.
        workers: how many worker processes there are: one with all roles, or one for everything but
            the chunks of bulks and the others for those.
        own_servers: whether to leave out the user's `DATABASE_URL` and `TEMPORAL_ADDRESS`.
        temporal: makes the Temporal in place of the development server, one that may keep its
            workflows in this stack's Postgres, which is started before it and stopped after it.
        progress: called with a sentence at each step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        configuration: Path | None = None,
        template: str = CONFIGURATION,
        environment: Mapping[str, str] | None = None,
        workers: int = 1,
        own_servers: bool = False,
        temporal: "Callable[[Stack], OwnTemporal] | None" = None,
        progress: Progress = print,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.absolute()
        self.ports = Ports(self.folder / "ports.json")
        self._given_configuration = configuration
        self._template = template
        self._environment = dict(environment or {})
        self._workers = [_worker(number) for number in range(1, workers + 1)]
        self._parted = workers > 1
        self._own_servers = own_servers
        self._make_temporal = temporal
        self._progress = progress
        self._children: dict[str, Child] = {}
        self._expected: set[str] = set()
        self._api_key: ApiKey | None = None
        self._operator_key: ApiKey | None = None
        self._database_url = ""
        self.configuration_file = configuration or self.folder / "gateway.toml"
        self.control_urls: dict[str, str] = {}
        self._postgres: Postgres | None = None
        self._temporal: Temporal | None = None

    # Where everything is

    @property
    def postgres(self) -> Postgres:
        """The database server, ours or the user's.

        Raises:
            StackFailed: the stack was not started yet.
        """
        if self._postgres is None:
            raise StackFailed("There is no Postgres before the stack has started.")
        return self._postgres

    @property
    def temporal(self) -> Temporal:
        """The Temporal server, ours or the user's.

        Raises:
            StackFailed: it was not looked for yet.
        """
        if self._temporal is None:
            raise StackFailed("There is no Temporal before the stack has started.")
        return self._temporal

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.of('api')}"

    @property
    def metrics_urls(self) -> list[str]:
        """For Prometheus: the API's, the workers', and the Temporal server's."""
        return list(self.metrics_by_process.values())

    @property
    def metrics_by_process(self) -> dict[str, str]:
        """The same by what they are of, such as "API"; a worker's Temporal SDK has its own."""
        names = {"API": "api_metrics"}
        for worker in self._workers:
            names[worker] = f"{worker}_metrics"
            names[f"{worker}, SDK"] = f"{worker}_temporal_metrics"
        urls = {
            what: f"http://127.0.0.1:{self.ports.of(name)}/metrics" for what, name in names.items()
        }
        own = self.temporal.metrics_url if isinstance(self.temporal, OwnTemporal) else None
        return {**urls, "Temporal": own} if own else urls

    @property
    def temporal_ui_url(self) -> str | None:
        """None when the Temporal is another one than the development server, which brings its UI."""
        return self.temporal.ui_url if isinstance(self.temporal, TemporalServer) else None

    @property
    def database_url(self) -> str:
        return self._database_url

    @property
    def api_key(self) -> ApiKey:
        """The key to send with.

        Raises:
            StackFailed: the stack was not started yet.
        """
        if self._api_key is None:
            raise StackFailed("There is no API key before the stack has started.")
        return self._api_key

    @property
    def operator_key(self) -> ApiKey:
        """The key to manage accounts and the configuration with.

        Raises:
            StackFailed: the stack was not started yet.
        """
        if self._operator_key is None:
            raise StackFailed("There is no operator's key before the stack has started.")
        return self._operator_key

    def child(self, name: str) -> Child:
        """The process of `api`, `worker` (then `worker_2`), or a simulator by its provider's name."""
        return self._children[name]

    @property
    def workers(self) -> list[Child]:
        """The processes of all workers."""
        return [self._children[name] for name in self._workers]

    # Starting and ending

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; returns when the API can accept messages.

        Not to be interrupted by exceptions of signal handlers, since it waits for threads.

        Raises:
            StackFailed, PostgresUnavailable, TemporalUnavailable, ChildEnded, TimeoutError,
            settings.configuration_file.ConfigurationMistakes: each says what to do.
        """
        if self._given_configuration is None:
            text = string.Template(self._template).substitute(
                {name: self.ports.of(name) for name in _SIMULATED},
                binds=2 * len(self._workers),
                twilio_account=SIMULATED_ACCOUNT,
                twilio_token=SIMULATED_TOKEN,
            )
            self.configuration_file.write_text(text)
        _, configuration = read_configuration(
            self.configuration_file, self.allowed_secrets, ProviderTypes.installed().configurations
        )
        self.find_temporal()
        self._progress("starting Postgres, Temporal and the simulators of carriers")
        simulated = list(_simulators(configuration))
        self.control_urls = {
            each.name: f"http://127.0.0.1:{self.ports.of(f'{each.name}_control')}"
            for each in simulated
        }
        simulators = [partial(self._start_simulator, each) for each in simulated]
        temporal = [self.start_temporal] if isinstance(self.temporal, OwnTemporal) else []
        self._servers_do([self._start_database, *temporal], beside=simulators)
        self._progress("preparing the database")
        self.bootstrap()
        self._progress("starting worker and API")
        workers = [partial(self.start_worker, name=name) for name in self._workers]
        _all_at_once([*workers, self.start_api])

    def stop(self) -> None:
        """End everything in good order: the ways in first, the servers last."""
        self._expected.clear()
        ways_in = ("api", *self._workers)
        for name in (*ways_in, *(name for name in self._children if name not in ways_in)):
            if name in self._children:
                self._children[name].stop()
        self._servers_do([server.stop for server in self._own()])

    def kill(self) -> None:
        """SIGKILL to everything."""
        self._expected.clear()
        parts: list[Child | Server] = [*self._children.values(), *self._own()]
        for part in parts:
            part.kill()

    def remove(self) -> None:
        """Stop everything and remove Postgres' data, which may lie outside of the folder."""
        self.stop()
        if isinstance(self._postgres, PostgresServer):
            self._postgres.remove()

    def check(self) -> None:
        """Make sure that everything runs that was started and not stopped or killed on purpose.

        Raises:
            ChildEnded: a part has ended by itself; carries the end of its log.
        """
        for name in sorted(self._expected):
            self._part(name).check()

    def start_what_is_down(self) -> None:
        """Bring back what was stopped or killed on purpose: servers, carriers, worker, API."""
        servers = [
            start
            for own, start in (
                (self._postgres, self.start_postgres),
                (self._temporal, self.start_temporal),
            )
            if isinstance(own, Server) and not own.running
        ]
        self._servers_do(servers)
        down = [name for name, child in self._children.items() if not child.running]
        workers = {name: partial(self.start_worker, name=name) for name in self._workers}
        starts: dict[str, Callable[[], None]] = {**workers, "api": self.start_api}
        _all_at_once([starts.get(name) or partial(self.start_simulator, name) for name in down])

    def _own(self) -> Iterable[Server]:
        for server in (self._temporal, self._postgres):
            if isinstance(server, Server):
                yield server

    def _servers_do(
        self, tasks: Sequence[Callable[[], None]], beside: Sequence[Callable[[], None]] = ()
    ) -> None:
        """All at once, or one after the other where the Temporal may need our Postgres."""
        if self._make_temporal is None:
            _all_at_once([*tasks, *beside])
        else:
            _all_at_once([partial(_one_by_one, tasks), *beside])

    def _part(self, name: str) -> Child:
        match name:
            case "postgres":
                return self._own_postgres().child
            case "temporal":
                return self._own_temporal().child
            case _:
                return self._children[name]

    # Postgres

    def _start_database(self) -> None:
        url = None if self._own_servers else os.environ.get("DATABASE_URL")
        if url:
            self._postgres = Postgres(url)
            self._database_url = url
            return
        server = PostgresServer(self.folder / "postgres", port=self.ports.of("postgres"))
        self._postgres = server
        self.start_postgres()
        if not server.exists(DATABASE):
            server.create_database(DATABASE)
        self._database_url = server.url(DATABASE)

    def _own_postgres(self) -> PostgresServer:
        if not isinstance(self.postgres, PostgresServer):
            raise StackFailed("The Postgres is the one of DATABASE_URL: the stack leaves it alone.")
        return self.postgres

    def start_postgres(self) -> None:
        self._own_postgres().start()
        self._expected.add("postgres")

    def stop_postgres(self) -> None:
        self._expected.discard("postgres")
        self._own_postgres().stop()

    def kill_postgres(self) -> None:
        self._expected.discard("postgres")
        self._own_postgres().kill()

    def restart_postgres(self) -> None:
        self.stop_postgres()
        self.start_postgres()

    # Temporal

    def find_temporal(self) -> None:
        """Find the Temporal to use, or install one, which may take minutes; starts nothing.

        Raises:
            TemporalUnavailable: there is none; says what to install.
        """
        address = None if self._own_servers else address_from_environment()
        if address:
            self._temporal = Temporal(address)
        elif self._temporal is None and self._make_temporal is not None:
            self._temporal = self._make_temporal(self)
        elif self._temporal is None:
            self._temporal = TemporalServer(
                find_or_install_temporal(self._progress),
                self.folder / "temporal",
                port=self.ports.of("temporal"),
                ui_port=self.ports.of("temporal_ui"),
                metrics_port=self.ports.of("temporal_server_metrics"),
            )

    def _own_temporal(self) -> OwnTemporal:
        if not isinstance(self.temporal, OwnTemporal):
            raise StackFailed(
                "The Temporal is the one of TEMPORAL_ADDRESS: the stack leaves it alone."
            )
        return self.temporal

    def start_temporal(self, *, empty: bool = False) -> None:
        """Start it again; `empty` as if its disk had been lost, search attributes and all."""
        self._own_temporal().start(empty=empty)
        self._expected.add("temporal")

    def stop_temporal(self) -> None:
        self._expected.discard("temporal")
        self._own_temporal().stop()

    def kill_temporal(self) -> None:
        self._expected.discard("temporal")
        self._own_temporal().kill()

    # Simulators

    def _start_simulator(self, simulated: "_Simulated") -> None:
        if listens(simulated.port):
            raise StackFailed(
                f"Port {simulated.port}, which {self.configuration_file} gives to the simulated "
                f"provider {simulated.name}, is taken. Give it another one."
            )
        control = self.ports.of(f"{simulated.name}_control")
        command = ["-m", "simulator", "--name", simulated.name, *simulated.arguments]
        command += ["--control-port", str(control)]
        for name, url in self.control_urls.items():
            if name != simulated.name:
                command += ["--other-page", f"{name}={url}"]
        child = self._python(simulated.name, command)
        self._launch(child, lambda: listens(simulated.port) and listens(control), "listening")

    def start_simulator(self, name: str) -> None:
        child = self._children[name]
        control = int(self.control_urls[name].rpartition(":")[2])
        self._launch(child, lambda: listens(control), "listening")

    def stop_simulator(self, name: str) -> None:
        self._stop(name)

    def kill_simulator(self, name: str) -> None:
        self._kill(name)

    # Bootstrap, worker and API

    def bootstrap(self) -> None:
        """Apply migrations, make search attributes and fresh keys; revokes those before them.

        Raises:
            StackFailed: it failed; carries what it said.
        """
        keys = ["--new-operator-key", KEY_NAME, "--new-key", KEY_NAME, "--print-key"]
        command = [sys.executable, "worker.py", "bootstrap", *keys]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            env=self._environment_of("bootstrap"),
        )
        with (self.folder / "bootstrap.log").open("a") as log:
            log.write(done.stderr)
        if done.returncode != 0:
            raise StackFailed(f"The database cannot be prepared:\n{done.stderr.strip()[-2000:]}")
        made = json.loads(done.stdout.strip().splitlines()[-1])
        self._api_key = ApiKey(secret=made["api_key"], key_id=made["key_id"])
        self._operator_key = ApiKey(secret=made["operator_key"], key_id=made["operator_key_id"])

    def start_worker(
        self,
        *,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        name: str = "worker",
    ) -> None:
        """Start a worker; returns when it works.

        Args:
            name: which, if there are several.
            command: arguments for Python in place of `worker.py --role …`.
            environment: further variables, for this start alone.
            wait: False where it cannot become ready, since Temporal or Postgres is down.
        """
        roles = [part for role in self._roles(name) for part in ("--role", role)]
        child = self._python(name, command or ["worker.py", *roles], environment=environment)
        self._launch(child, lambda: not wait or child.has_said("worker_ready"), "ready")

    def _roles(self, worker: str) -> Sequence[str]:
        """One of several leaves the chunks of bulks to the others, so that alerts wait for none."""
        if not self._parted:
            return ["all"]
        if worker == self._workers[0]:
            return ["sends", "providers", "callbacks", "reconciler"]
        return ["chunks"]

    def stop_worker(self) -> None:
        self._stop("worker")

    def kill_worker(self, name: str = "worker") -> None:
        self._kill(name)

    def add_worker(self) -> str:
        """Start one more worker; its name."""
        name = _worker(len(self._workers) + 1)
        self._workers.append(name)
        self.start_worker(name=name)
        return name

    def remove_worker(self, name: str) -> None:
        """Stop a worker that was added, and forget it."""
        self._stop(name)
        self._workers.remove(name)
        del self._children[name]

    def start_api(
        self,
        *,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        """Start the API; returns when it can accept. The arguments are those of `start_worker`."""
        child = self._python("api", command or ["-m", "api"], environment=environment)
        self._launch(child, lambda: not wait or self.is_ready(), "ready")

    def stop_api(self) -> None:
        self._stop("api")

    def kill_api(self) -> None:
        self._kill("api")

    def is_ready(self) -> bool:
        """Whether the API can accept messages now."""
        try:
            with urllib.request.urlopen(f"{self.api_url}/readyz", timeout=5) as response:  # noqa: S310  ours
                return bool(response.status == 200)  # noqa: PLR2004  the status itself
        except (urllib.error.URLError, OSError):
            return False

    # Children

    def _environment_of(self, name: str) -> dict[str, str]:
        ours = {
            "DATABASE_URL": self.database_url,
            "TEMPORAL_ADDRESS": self.temporal.address,
            "SMSGATEWAY_CONFIG": str(self.configuration_file),
            "SMSGATEWAY_RECIPIENT_HASH_KEY": self._recipient_hash_key(),
            "SMSGATEWAY_API_HOST": "127.0.0.1",
            "SMSGATEWAY_API_PORT": str(self.ports.of("api")),
            # Where the simulator reports to; another carrier cannot reach it there.
            "SMSGATEWAY_PUBLIC_URL": os.environ.get("SMSGATEWAY_PUBLIC_URL") or self.api_url,
            "SMSGATEWAY_METRICS_HOST": "127.0.0.1",
            "SMSGATEWAY_METRICS_PORT": "0",
            "SMSGATEWAY_TEMPORAL_METRICS_PORT": "0",
            "SMSGATEWAY_ALLOW_PRIVATE_CALLBACKS": "true",
            "SMSGATEWAY_LOG_FORMAT": "json",
            "SMSGATEWAY_LOG_LEVEL": "info",  # with less, the worker would not say that it is ready
        }
        if self._is_ours(name):
            ours["SMSGATEWAY_METRICS_PORT"] = str(self.ports.of(f"{name}_metrics"))
        if name in self._workers:
            port = str(self.ports.of(f"{name}_temporal_metrics"))
            ours["SMSGATEWAY_TEMPORAL_METRICS_PORT"] = port
        return os.environ | ours | self._environment

    @property
    def allowed_secrets(self) -> AllowedSecrets:
        """What the configuration's secret references may name, by this environment."""
        key = self._recipient_hash_key()
        given = load_settings(database_url="postgresql://", recipient_hash_key=key)
        return given.allowed_secrets

    def _is_ours(self, name: str) -> bool:
        return name == "api" or name in self._workers

    def _recipient_hash_key(self) -> str:
        if given := os.environ.get("SMSGATEWAY_RECIPIENT_HASH_KEY"):
            return given
        file = self.folder / "recipient-hash.key"
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as fresh:
                fresh.write(secrets.token_hex(32))
        return file.read_text()

    def _python(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Child:
        whole = self._environment_of(name) if self._is_ours(name) else dict(os.environ)
        child = Child(
            name,
            [sys.executable, *arguments],
            log=self.folder / f"{name}.log",
            environment=whole | dict(environment or {}),
            folder=CHECKOUT,
        )
        if name in self._children and self._children[name].running:
            raise StackFailed(f"{name} is running already.")
        self._children[name] = child
        return child

    def _launch(self, child: Child, ready: Callable[[], bool], what: str) -> None:
        child.start()
        child.wait_for(ready, seconds=60, what=what)
        self._expected.add(child.name)

    def _stop(self, name: str) -> None:
        self._expected.discard(name)
        self._children[name].stop()

    def _kill(self, name: str) -> None:
        self._expected.discard(name)
        self._children[name].kill()


def _worker(number: int) -> str:
    return "worker" if number == 1 else f"worker_{number}"


@dataclass(frozen=True, slots=True)
class _Simulated:
    """A carrier to simulate, under the name of its provider."""

    name: str
    port: int
    arguments: tuple[str, ...]


def _simulators(configuration: Configuration) -> Iterable[_Simulated]:
    """The providers to simulate, each address once, under the name of the first that has it."""
    seen: set[int] = set()
    for name, provider in configuration.providers.items():
        simulated = _simulated(name, provider)
        if simulated is not None and simulated.port not in seen:
            seen.add(simulated.port)
            yield simulated


def _simulated(name: str, provider: ProviderConfiguration) -> _Simulated | None:
    """What stands for a provider on this machine; None for a carrier elsewhere."""
    match provider:
        case SmppConfiguration(type="simulator", host=host, port=port) if host in _LOOPBACK:
            return _Simulated(name, port, ("--port", str(port)))
        case TwilioConfiguration(account_sid=account, url=url) if account == SIMULATED_ACCOUNT:
            address = urlsplit(url)
            if address.hostname in _LOOPBACK and address.port is not None:
                arguments = ("--no-smpp", "--twilio-port", str(address.port))
                return _Simulated(name, address.port, arguments)
    return None


def _all_at_once(tasks: Sequence[Callable[[], None]]) -> None:
    """Do all of them side by side, wait for all, then raise what the first failed one raised."""
    if not tasks:
        return
    with ThreadPoolExecutor(max_workers=len(tasks)) as threads:
        running = [threads.submit(task) for task in tasks]
    for done in running:
        done.result()


def _one_by_one(tasks: Sequence[Callable[[], None]]) -> None:
    for task in tasks:
        task()

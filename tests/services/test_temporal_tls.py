"""Every client of Temporal speaks TLS where the settings say so: against a real server behind TLS."""

import asyncio
import os
import select
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from local.temporal import Temporal
from services.assembly import connect_temporal
from settings.settings import Settings

pytestmark = [pytest.mark.stack, pytest.mark.openssl, pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).parents[2]
NAME = "temporal.example.com"


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of it for the server and a client; and another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("ca", "other"):
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={authority}", "-addext", "keyUsage=critical,keyCertSign"),
            *("-keyout", folder / f"{authority}.key", "-out", folder / f"{authority}.pem"),
        )
    for name, subject in (("server", NAME), ("client", "smsgateway")):
        extensions = folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{subject}\n")
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={subject}"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr"),
        )
        openssl(
            *("x509", "-req", "-in", folder / f"{name}.csr", "-days", "2"),
            *("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial"),
            *("-extfile", extensions, "-out", folder / f"{name}.pem"),
        )
    return folder


class Terminated(socketserver.ThreadingTCPServer):
    """A TLS port that asks for a client's certificate, before a server that speaks none.

    In threads of its own, so that no connection whose handshake fails is left to the event loop.
    """

    daemon_threads = True

    def __init__(self, server: str, certificates: Path) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        host, _, port = server.partition(":")
        self.target = (host, int(port))
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.passed_on = 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        self.context.load_verify_locations(certificates / "ca.pem")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.set_alpn_protocols(["h2"])


class Passing(socketserver.BaseRequestHandler):
    """One connection: its handshake, then whatever comes from either side."""

    server: Terminated

    def handle(self) -> None:
        with suppress(OSError):  # among them every refusal of a handshake
            self.request.settimeout(60)
            with self.server.context.wrap_socket(self.request, server_side=True) as theirs:
                self.server.passed_on += 1
                with socket.create_connection(self.server.target) as ours:
                    self._pass_on(theirs, ours)

    @staticmethod
    def _pass_on(theirs: ssl.SSLSocket, ours: socket.socket) -> None:
        while True:
            waiting = bool(theirs.pending())
            readable = select.select([theirs, ours], [], [], 0 if waiting else 60)[0]
            for source, target in ((theirs, ours), (ours, theirs)):
                if source in readable or (source is theirs and waiting):
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    target.sendall(data)


@pytest.fixture
def terminated(temporal_server: Temporal, certificates: Path) -> Iterator[Terminated]:
    with Terminated(temporal_server.address, certificates) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join(60)


def variables(terminated: Terminated, certificates: Path) -> dict[str, str]:
    return {
        "TEMPORAL_ADDRESS": terminated.address,
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(certificates / "ca.pem"),
        "TEMPORAL_TLS_SERVER_NAME": NAME,
        "TEMPORAL_TLS_CLIENT_CERT_PATH": str(certificates / "client.pem"),
        "TEMPORAL_TLS_CLIENT_KEY_PATH": str(certificates / "client.key"),
    }


def settings_of(environment: pytest.MonkeyPatch, given: dict[str, str]) -> Settings:
    for variable, value in given.items():
        environment.setenv(variable, value)
    return Settings(database_url="postgresql://", recipient_hash_key="k" * 32)


async def test_a_client_with_its_certificate_reaches_temporal(
    terminated: Terminated, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect_temporal(settings_of(monkeypatch, variables(terminated, certificates)))
    assert await client.service_client.check_health()
    assert terminated.passed_on == 1


async def test_a_key_for_temporal_is_sent_by_tls(
    terminated: Terminated, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = variables(terminated, certificates) | {"TEMPORAL_API_KEY": "temporal-key"}
    client = await connect_temporal(settings_of(monkeypatch, given))
    assert client.service_client.config.api_key == "temporal-key"
    assert await client.service_client.check_health()
    for variable in given:
        monkeypatch.delenv(variable)
    only_key = {"TEMPORAL_ADDRESS": terminated.address, "TEMPORAL_API_KEY": "temporal-key"}
    settings = settings_of(monkeypatch, only_key)
    with pytest.raises(RuntimeError):  # by TLS, too, and so its certificate is not trusted
        await connect_temporal(settings)
    assert terminated.passed_on == 1


@pytest.mark.parametrize(
    ("without", "instead"),
    [
        ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", "other.pem"),
        ("TEMPORAL_TLS_SERVER_NAME", "another.example.com"),
        ("TEMPORAL_TLS_SERVER_NAME", None),
        ("client", None),
        ("everything", None),
    ],
    ids=["another authority", "another name", "no name", "no client certificate", "no TLS"],
)
async def test_what_does_not_fit_is_refused_before_anything_is_said(
    terminated: Terminated,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
    without: str,
    instead: str | None,
) -> None:
    given = variables(terminated, certificates)
    if instead is not None:
        is_file = instead.endswith(".pem")
        given[without] = str(certificates / instead) if is_file else instead
    elif without == "everything":
        given = {"TEMPORAL_ADDRESS": terminated.address}
    else:
        given = {name: value for name, value in given.items() if without.upper() not in name}
    with pytest.raises(RuntimeError):
        await connect_temporal(settings_of(monkeypatch, given))
    assert terminated.passed_on == 0


async def test_bootstrap_reaches_temporal_by_tls_as_its_environment_says(
    terminated: Terminated, certificates: Path, temporal_namespace: str, empty_database_url: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "worker.py",
        "bootstrap",
        cwd=CHECKOUT,
        env={
            **os.environ,
            **variables(terminated, certificates),
            "TEMPORAL_NAMESPACE": temporal_namespace,
            "DATABASE_URL": empty_database_url,
            "SMSGATEWAY_RECIPIENT_HASH_KEY": "k" * 32,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert terminated.passed_on > 0


def test_there_is_one_place_where_the_server_connects_to_temporal() -> None:
    """So none can leave the settings of TLS out; the embedded stack's own server has none."""
    places = [
        path.relative_to(CHECKOUT)
        for path in CHECKOUT.rglob("*.py")
        if path.relative_to(CHECKOUT).parts[0] not in {".venv", "tests", "bench", "build", "local"}
        if "Client.connect(" in path.read_text()
    ]
    assert places == [Path("services/assembly.py")]

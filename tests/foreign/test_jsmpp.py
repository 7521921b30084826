"""The whole gateway with jsmpp's SMSC as its carrier: ids in two bases, throttling, TLS, its death."""

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from domain.configuration.providers.smpp import SmppConfiguration
from domain.modes import Mode
from providers.smpp import SmppProvider
from services.submission import Accepted
from tests.foreign.jsmpp import COORDINATES, PASSWORD, SYSTEM_ID, Jsmpp
from tests.gateway import Gateway, running_gateway

pytestmark = pytest.mark.java

PROVIDER = """
[providers.jsmpp]
type = "smpp"
host = "127.0.0.1"
port = {port}
system_id = "{system_id}"
password = "file:{password}"
message_id = {{ response = "hex", receipt = "decimal" }}
binds = {binds}
window = {window}
enquire_link = "1s"
response_timeout = "{response_timeout}"
receipt_deadline = "4s"
rebind_backoff = {{ min = "100ms", max = "500ms" }}
tls = {tls}

[providers.backup]
type = "simulator"
port = {backup}
rebind_backoff = {{ min = "100ms", max = "500ms" }}

[[routes]]
match = {{ modes = ["alert"] }}
providers = ["jsmpp", "backup"]

[[routes]]
providers = ["jsmpp"]
"""

# What it writes of each submit_sm: a number, the text as it came, and the id of its response.
TALKS = {"org.slf4j.simpleLogger.log.org.jsmpp.examples.SMPPServerSimulator": "info"}
RECEIVED = re.compile(
    r"Receiving submit_sm '(.*?)', and return message id ([0-9a-f]+)$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Submitted:
    """A submit_sm as jsmpp saw it; `text` is without the header that joins parts."""

    text: str
    message_id: int


class Smsc(Jsmpp):
    """jsmpp's simulator: lists what it received, and can be stopped and killed."""

    def __init__(self, classpath: str, folder: Path, **what: Any) -> None:
        super().__init__(classpath, folder, properties=TALKS | what.pop("properties", {}), **what)
        self._log = folder / "jsmpp.log"

    def received(self) -> list[Submitted]:
        """All that it was handed, over all of its lives."""
        log = self._log.read_bytes().decode("utf-8", "replace")
        return [
            Submitted(text[6:] if text.startswith("\x05\x00\x03") else text, int(written, 16))
            for text, written in RECEIVED.findall(log)
        ]

    def freeze(self) -> None:
        """Let it answer nobody, as a machine does whose network is gone."""
        os.kill(self._child.pid, signal.SIGSTOP)

    async def return_(self) -> None:
        await asyncio.to_thread(self.start)


@contextmanager
def running(smsc: Smsc) -> Iterator[Smsc]:
    try:
        smsc.start()
        yield smsc
    finally:
        smsc.stop()


@pytest.fixture(scope="session")
def classpath(maven) -> str:
    return maven.classpath(COORDINATES)


@pytest.fixture(scope="session")
def jsmpp(classpath, tmp_path_factory) -> Iterator[Smsc]:
    with running(Smsc(classpath, tmp_path_factory.mktemp("jsmpp"))) as smsc:
        yield smsc


@pytest.fixture
def own_jsmpp(classpath, tmp_path) -> Iterator[Smsc]:
    """One that a test may kill."""
    with running(Smsc(classpath, tmp_path)) as smsc:
        yield smsc


@pytest.fixture
def connected(database_url, temporal_client, tmp_path, monkeypatch):
    """A gateway whose carrier is a jsmpp."""

    @asynccontextmanager
    async def connect(
        smsc: Smsc,
        *,
        binds: int = 2,
        window: int = 10,
        response_timeout: str = "5s",
        tls: str = "false",
    ) -> AsyncIterator[Gateway]:
        password = tmp_path / "password"
        password.write_text(PASSWORD)
        monkeypatch.setenv("SMSGATEWAY_ALLOWED_SECRET_FOLDERS", str(tmp_path))
        async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
            configuration = PROVIDER.format(
                port=smsc.port,
                system_id=SYSTEM_ID,
                password=password,
                binds=binds,
                window=window,
                response_timeout=response_timeout,
                tls=tls,
                backup=gateway.backup.port,
            )
            await gateway.services.configurations.apply(configuration, applied_by="test")
            await gateway.start_worker()
            await all_bound(gateway, binds)
            yield gateway

    return connect


async def all_bound(gateway: Gateway, binds: int) -> None:
    await gateway.providers_up("jsmpp", "backup")
    await until(lambda: bound(gateway), lambda up: up == binds)


async def bound(gateway: Gateway) -> int:
    listed = await gateway.services.providers.listed(gateway.caller)
    return next(status.binds_up for status in listed if status.name == "jsmpp")


async def until(read: Callable[[], Any], holds: Callable[[Any], bool], within: float = 120) -> Any:
    """What `read` gives as soon as it is as wanted."""
    seen = None
    try:
        async with asyncio.timeout(within):
            while not holds(seen := await read()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"after {within} s it is still {seen!r}")
    return seen


async def statuses(gateway: Gateway) -> Counter[str]:
    found = await gateway.fetch("SELECT status, count(*) AS n FROM messages GROUP BY 1")
    return Counter({row["status"]: row["n"] for row in found})


async def attempts(gateway: Gateway) -> Counter[str]:
    found = await gateway.fetch(
        "SELECT status, count(*) AS n FROM attempts WHERE provider = 'jsmpp' GROUP BY 1"
    )
    return Counter({row["status"]: row["n"] for row in found})


async def send_all(gateway: Gateway, texts: list[str], mode: Mode) -> list[Accepted]:
    """A few at a time, as customers do."""
    turns = asyncio.Semaphore(8)

    async def send(text: str) -> Accepted:
        async with turns:
            return await gateway.send(body=text, mode=mode)

    return list(await asyncio.gather(*[send(text) for text in texts]))


async def test_a_receipt_finds_its_message_though_its_id_is_in_another_base(jsmpp, connected):
    async with connected(jsmpp) as gateway:
        message = await gateway.send(body="Your table is booked")
        await gateway.until(message, "delivered")
        explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
        (part,) = explained.parts
        (receipt,) = explained.receipts
        (submitted,) = [s for s in jsmpp.received() if s.text == "Your table is booked"]
        # As the carrier gave it; the receipt's is the same number.
        assert int(part.provider_message_id, 16) == submitted.message_id
        assert receipt.provider_message_id == str(submitted.message_id)
        assert await gateway.transitions(message) == ["queued", "sending", "sent", "delivered"]


async def test_a_long_message_is_delivered_part_by_part(jsmpp, connected):
    text = "".join(f"Line {n:03}. " for n in range(40))
    async with connected(jsmpp) as gateway:
        message = await gateway.send(body=text)
        assert message.segments == 3
        await gateway.until(message, "sent", "delivered")
        await gateway.until(message, "delivered")
        explained = await gateway.services.messages.explain(gateway.caller, message.message_id)
        ids = {int(part.provider_message_id, 16) for part in explained.parts}
        assert len(ids) == len(explained.receipts) == 3
        assert "".join(s.text for s in jsmpp.received() if s.message_id in ids) == text


# --- throttling --------------------------------------------------------------------------------

# Of one session jsmpp works on 3 PDUs at once and keeps 100; what comes then is throttled.
ROOM = 103


class LogJam:
    """A pipe for jsmpp's log, so that it can work no faster than its log is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # Open both ways, so that neither side waits for the other to come.
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, 4096)
        self.end()

    def begin(self) -> None:
        """From now on nobody reads, and there is no room for another line."""
        self.close()
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._pipe, b"\n")

    def end(self) -> None:
        asyncio.get_running_loop().add_reader(self._pipe, os.read, self._pipe, 4096)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)


@pytest.fixture
async def log_jam(tmp_path) -> AsyncIterator[LogJam]:
    jam = LogJam(tmp_path / "log")
    yield jam
    jam.close()


async def test_what_it_throttles_is_sent_again_until_all_is_delivered(
    classpath, connected, tmp_path, log_jam
):
    properties = {"org.slf4j.simpleLogger.logFile": str(log_jam.path)}
    too_many = ROOM + 10
    smsc = Smsc(classpath, tmp_path, properties=properties)
    await asyncio.to_thread(smsc.start)
    try:
        async with connected(smsc, binds=1, window=2 * ROOM, response_timeout="60s") as gateway:
            log_jam.begin()
            texts = [f"Number {n}" for n in range(too_many)]
            await send_all(gateway, texts, Mode.TRANSACTIONAL)
            await until(lambda: attempts(gateway), lambda now: now["throttled"] >= 10, within=240)
            log_jam.end()
            await until(
                lambda: statuses(gateway), lambda now: now == {"delivered": too_many}, within=240
            )
            # A submit that found no slot in time, on a busy machine, was not sent: it counts as unreachable.
            assert {"throttled", "delivered"} <= set(await attempts(gateway))
            assert set(await attempts(gateway)) <= {"throttled", "delivered", "unreachable"}
    finally:
        smsc.stop()


# --- TLS ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """A server's certificate that is its own authority."""

    keystore: Path
    pem: Path


@pytest.fixture
def certificate(tmp_path) -> Certificate:
    """A certificate for 127.0.0.1, as jsmpp wants to read it and as we do."""
    keystore, pem = tmp_path / "own.p12", tmp_path / "authority.pem"
    store = ["-keystore", str(keystore), "-storepass", "password", "-alias", "smsc"]
    generate = ["-genkeypair", "-keyalg", "EC", "-storetype", "PKCS12", "-dname", "CN=smsc"]
    subprocess.run(
        ["keytool", *generate, *store, "-ext", "san=ip:127.0.0.1", "-ext", "bc=ca:true"],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        ["keytool", "-exportcert", "-rfc", "-file", str(pem), *store],
        check=True,
        capture_output=True,
    )
    return Certificate(keystore, pem)


async def test_a_carrier_whose_certificate_we_trust_is_reached_by_tls(
    classpath, connected, tmp_path, certificate
):
    smsc = Smsc(classpath, tmp_path, tls=True)
    certificate.keystore.replace(tmp_path / "keystore.p12")
    with running(smsc):
        async with connected(smsc, tls=f'{{ ca = "{certificate.pem}" }}') as gateway:
            message = await gateway.send(body="Your table is booked")
            await gateway.until(message, "delivered")
        with capture_logs() as log:
            stranger = provider_that_trusts_nobody_new(smsc.port)
            await stranger.hold(1)
            await until(lambda: written(log), lambda events: "bind_failed" in events)
            await stranger.stop(timedelta())
    assert {entry.get("error_type") for entry in log if entry["event"] == "bind_failed"} == {
        "SSLCertVerificationError"
    }


async def written(log: list[Any]) -> set[str]:
    return {entry["event"] for entry in log}


def provider_that_trusts_nobody_new(port: int) -> SmppProvider:
    configuration = SmppConfiguration.model_validate(
        {
            "type": "smpp",
            "host": "127.0.0.1",
            "port": port,
            "system_id": SYSTEM_ID,
            "password": "env:UNUSED",
            "binds": 1,
            "tls": True,
        }
    )

    async def on_receipt(_: object) -> None:
        raise AssertionError("nothing was sent")

    return SmppProvider("stranger", configuration, PASSWORD, on_receipt)


# --- its death ---------------------------------------------------------------------------------

BINDS = 2
WINDOW = 4


async def test_when_it_is_killed_under_load_nothing_is_lost_and_few_are_unknown(
    own_jsmpp, connected
):
    plain = [f"Plain {n}" for n in range(16)]
    alerts = [f"Alert {n}" for n in range(8)]
    async with connected(own_jsmpp, binds=BINDS, window=WINDOW) as gateway:
        first = await gateway.send(body="Before")
        await gateway.until(first, "delivered")
        own_jsmpp.freeze()  # so that its windows are full when it dies
        messages = await send_all(gateway, plain, Mode.TRANSACTIONAL)
        urgent = await send_all(gateway, alerts, Mode.ALERT)
        await until(lambda: attempts(gateway), lambda now: now["submitting"] == BINDS * WINDOW)
        own_jsmpp.stop()
        await until(lambda: attempts(gateway), lambda now: now["unknown"] > 0)
        await own_jsmpp.return_()
        for message in urgent:
            await gateway.until(message, "delivered")
        for message in messages:
            await gateway.until(message, "delivered", "dead_letter")
        unknowns = (await attempts(gateway))["unknown"]
        assert 0 < unknowns <= BINDS * WINDOW
        # Whoever was unknown and may not be sent twice waits for a person to decide.
        undecided = [m for m in messages if await gateway.status(m) == "dead_letter"]
        assert {(await gateway.row(m)).reason for m in undecided} <= {"outcome_unknown"}
        assert len(undecided) <= unknowns
        copies = Counter(s.text for s in own_jsmpp.received())
        copies.update(m.text for m in gateway.backup.messages)
        assert {text for text, times in copies.items() if times > 1} <= set(alerts)
        assert copies.total() - len(copies) <= unknowns
        assert set(copies) >= {"Before", *alerts}
        assert len(copies) >= 1 + len(plain) + len(alerts) - len(undecided)


async def test_when_it_falls_silent_its_binds_are_given_up_and_made_anew(own_jsmpp, connected):
    async with connected(own_jsmpp, binds=BINDS, response_timeout="1s") as gateway:
        own_jsmpp.freeze()
        await gateway.providers_up("backup")
        message = await gateway.send(body="While it was silent")
        alert = await gateway.send(body="Disk full", mode=Mode.ALERT)
        await gateway.until(alert, "delivered")
        assert await gateway.attempts(alert) == [("backup", "delivered")]
        own_jsmpp.stop()
        await own_jsmpp.return_()
        await all_bound(gateway, BINDS)
        await gateway.until(message, "delivered")
        assert await gateway.attempts(message) == [("jsmpp", "delivered")]
        assert [s.text for s in own_jsmpp.received()] == ["While it was silent"]

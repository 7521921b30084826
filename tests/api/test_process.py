"""The API's process: it starts before everything else is there, says what is missing, and ends well."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from local.processes import free_port
from services.keys import Keys, Scope
from store.database import Database
from store.schema import migrate
from tests.api.conftest import CONFIGURATION, NUMBER, ORDER, SEND

pytestmark = pytest.mark.stack

CHECKOUT = Path(__file__).parent.parent.parent


class Process:
    """`python -m api`, with Temporal at a port that nobody listens on."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.log = folder / "api.log"
        self._environment = {
            **os.environ,
            "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
            "SMSGATEWAY_API_PORT": str(self.port),
            "SMSGATEWAY_RECIPIENT_HASH_KEY": "the key of tests, long enough as it is",
            "SMSGATEWAY_SECRET_PRIMARY_RECEIPTS": "whsec_none",
            **environment,
        }

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "api"],
                stderr=log,
                env=self._environment,
                cwd=CHECKOUT,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()

    def ask(self, path: str) -> httpx.Response | None:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=60)
        return None

    def until(self, path: str, status: int, within: float = 120) -> dict[str, Any]:
        end = time.monotonic() + within
        while True:
            response = self.ask(path)
            if response is not None and response.status_code == status:
                document: dict[str, Any] = response.json()
                return document
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines()]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIGURATION)
    return file


def test_the_api_waits_for_its_database_and_then_accepts(
    empty_database_url: str, tmp_path: Path, configuration: Path
) -> None:
    process = Process(
        tmp_path, DATABASE_URL=empty_database_url, SMSGATEWAY_CONFIG=str(configuration)
    )
    with process:
        outdated = process.until("/readyz", 503)
        assert outdated["database"] == "outdated"
        process.until("/healthz", 200)

        async def prepare() -> str:
            database = Database.connect(empty_database_url)
            await migrate(database)
            key = (
                await Keys(database).create_root("shop", name="test", scopes=[Scope.ADMIN])
            ).secret
            await database.close()
            assert key is not None
            return key

        key = asyncio.run(prepare())
        ready = process.until("/readyz", 200)
        assert ready["temporal"] == "down"
        sent = httpx.post(
            f"http://127.0.0.1:{process.port}{SEND}",
            json=ORDER,
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        )
        assert sent.status_code == 202
        process.child.terminate()
        assert process.child.wait(120) == 0
    assert "schema_too_old" in process.events()
    assert process.events()[-1] == "process_ended"
    log = process.log.read_text()
    assert NUMBER[3:] not in log
    assert str(ORDER["body"]) not in log
    assert key not in log


def test_a_configuration_file_that_cannot_be_used_when_it_is_loaded_is_read_again(
    empty_database_url: str, tmp_path: Path, configuration: Path
) -> None:
    process = Process(
        tmp_path, DATABASE_URL=empty_database_url, SMSGATEWAY_CONFIG=str(configuration)
    )
    with process:
        process.until("/readyz", 503, within=120)
        configuration.write_text("[[")

        async def prepare() -> None:
            database = Database.connect(empty_database_url)
            await migrate(database)
            await database.close()

        asyncio.run(prepare())
        end = time.monotonic() + 120
        while "loop_failed" not in process.events():
            assert time.monotonic() < end, process.log.read_text()[-3000:]
            time.sleep(0.05)
        configuration.write_text(CONFIGURATION)
        process.until("/readyz", 200, within=120)


def test_a_configuration_with_mistakes_keeps_the_api_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIGURATION.replace('"primary",', '"primray",'))
    process = Process(
        tmp_path,
        DATABASE_URL=f"postgresql://me:pw@127.0.0.1:{free_port()}/none",
        SMSGATEWAY_CONFIG=str(file),
    )
    with process:
        assert process.child.wait(120) == 2
    log = process.log.read_text()
    assert "line" in log
    assert 'there is no provider "primray"' in log


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    process = Process(tmp_path, DATABASE_URL=f"postgresql://me:pw@127.0.0.1:{free_port()}/none")
    with socket.create_server(("127.0.0.1", process.port)), process:
        assert process.child.wait(120) == 1
    assert "address_not_usable" in process.events()
    assert "pw@" not in process.log.read_text()

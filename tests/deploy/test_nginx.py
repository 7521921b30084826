"""The recipe for nginx, run by the real nginx before the real API with the largest requests."""

import asyncio
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.__main__ import _KEEP_ALIVE_SECONDS
from api.app import BODY_LIMITS
from api.documentation import POLICY
from local.processes import free_port, listens
from services.keys import Keys, Scope
from settings.settings import Settings
from store.database import Database
from tests.api.conftest import CONFIGURATION
from tests.api.test_process import Process

CHECKOUT = Path(__file__).parent.parent.parent
RECIPE = (CHECKOUT / "deploy/nginx.conf").read_text()
MOST = Settings.model_fields["max_body_bytes"].default
MOST_OF_A_BATCH = Settings.model_fields["max_batch_bytes"].default
SEND, BATCHES = "/api/v1/sms/send", "/api/v1/sms/batches"
MESSAGE = {"to": "+447700900123", "from": "ACME", "body": "Hello"}

MAIN = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/main.log;
events {{ worker_connections 64; }}
http {{
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/responses;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{recipe}
}}
"""


@dataclass
class Proxied:
    """The API behind nginx."""

    http: httpx.Client
    api: Process
    folder: Path

    def logs(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("smsgateway*.log"))

    def files_written(self) -> list[Path]:
        """Bodies and responses that nginx has put on the disk; it numbers them from 1."""
        return [
            path for kind in ("bodies", "responses") for path in (self.folder / kind).rglob("0*")
        ]


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One certificate and key for 127.0.0.1, in a folder."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=sms.example.com", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def key(database_url: str) -> str:
    async def create() -> str:
        database = Database.connect(database_url)
        try:
            made = await Keys(database).create_root("shop", name="test", scopes=[Scope.ADMIN])
        finally:
            await database.close()
        assert made.secret is not None
        return made.secret

    return asyncio.run(create())


@pytest.fixture
def proxied(database_url: str, key: str, certificate: Path, tmp_path: Path) -> Iterator[Proxied]:
    configuration = tmp_path / "gateway.toml"
    configuration.write_text(CONFIGURATION)
    api = Process(tmp_path, DATABASE_URL=database_url, SMSGATEWAY_CONFIG=str(configuration))
    port = free_port()
    file = tmp_path / "nginx.conf"
    file.write_text(
        MAIN.format(
            folder=tmp_path,
            user="user root;" if os.geteuid() == 0 else "",
            recipe=replaced(
                RECIPE,
                ("server 127.0.0.1:8080;", f"server 127.0.0.1:{api.port};"),
                ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
                ("/etc/ssl/sms.example.com.pem", f"{certificate}/cert.pem"),
                ("/etc/ssl/private/sms.example.com.key", f"{certificate}/key.pem"),
                ("/var/log/nginx/smsgateway.log", f"{tmp_path}/smsgateway.log"),
                ("/var/log/nginx/smsgateway-error.log", f"{tmp_path}/smsgateway-error.log"),
            ),
        )
    )
    tested = subprocess.run(
        ["nginx", "-t", "-q", "-c", file], check=False, capture_output=True, text=True
    )
    assert (tested.returncode, tested.stderr) == (0, "")
    nginx = subprocess.Popen(["nginx", "-c", file])
    try:
        with api:
            api.until("/readyz", 200, within=120)
            wait_for(port)
            trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}",
                verify=trusted,
                timeout=110,
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            ) as http:
                yield Proxied(http, api, tmp_path)
    finally:
        nginx.terminate()
        nginx.wait(120)


def wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while not listens(port):
        assert time.monotonic() < end
        time.sleep(0.05)


def of_size(document: dict[str, Any], size: int) -> bytes:
    """A document in JSON of exactly this many bytes, with spaces at its end."""
    written = json.dumps(document).encode()
    assert len(written) <= size
    return written.ljust(size)


def a_batch(recipients: int) -> dict[str, Any]:
    return {
        "from": "ACME",
        "recipients": [
            {"to": f"+447700900{number % 1000:03}", "body": f"{number} " + "x" * 440}
            for number in range(recipients)
        ],
    }


@pytest.mark.nginx
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_the_largest_batch_passes_and_a_larger_one_is_refused_by_the_api(proxied: Proxied) -> None:
    # Of as many recipients, each with a text of its own, as a batch has in three segments.
    largest = of_size(a_batch(10_000), MOST_OF_A_BATCH)
    response = proxied.http.post(BATCHES, content=largest)
    assert response.status_code == 202, response.text[:500]
    assert response.json()["accepted"] == 10_000
    refused = proxied.http.post(BATCHES, content=largest + b" ")
    assert refused.status_code == 413
    assert refused.json()["type"] == "urn:smsgateway:problem:body-too-large"
    assert proxied.files_written() == []


@pytest.mark.nginx
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_the_largest_message_passes_and_a_larger_one_is_refused_by_the_api(
    proxied: Proxied,
) -> None:
    for path in (SEND, "/api/v1/dead-letters/replay"):
        document = MESSAGE if path == SEND else {"limit": 1}
        assert proxied.http.post(path, content=of_size(document, MOST)).status_code in {200, 202}
        refused = proxied.http.post(path, content=of_size(document, MOST + 1))
        assert refused.status_code == 413
        assert refused.json()["type"] == "urn:smsgateway:problem:body-too-large"
    assert proxied.files_written() == []


@pytest.mark.nginx
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_a_body_without_a_length_that_comes_slowly_passes(proxied: Proxied) -> None:
    body = of_size(a_batch(1000), 1 << 20)

    def slowly() -> Iterator[bytes]:
        for first in range(0, len(body), 1 << 18):
            yield body[first : first + (1 << 18)]
            time.sleep(1)

    response = proxied.http.post(BATCHES, content=slowly())
    assert response.status_code == 202, response.text[:500]
    assert proxied.files_written() == []


@pytest.mark.nginx
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_long_headers_and_query_strings_pass(proxied: Proxied) -> None:
    baggage = "name=" + "x" * (8192 - 5)
    sent = proxied.http.post(
        SEND,
        content=json.dumps(MESSAGE),
        headers={"Idempotency-Key": "k" * 200, "baggage": baggage, "tracestate": "v=" + "x" * 500},
    )
    assert sent.status_code == 202, sent.text
    # Refused by the API, and not by nginx.
    refused = proxied.http.get("/api/v1/sms", params={"cursor": "x" * 8000})
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.nginx
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_only_what_is_for_the_outside_is_reachable(proxied: Proxied) -> None:
    page = proxied.http.get("/docs")
    assert page.headers["content-security-policy"] == POLICY
    for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert proxied.http.get(f"/{path}").status_code == 200, path
    for path in ("/healthz", "/readyz", "/metrics", "/", "/docsx", "/api"):
        response = proxied.http.get(path)
        assert (response.status_code, response.headers["content-type"]) == (404, "text/html"), path
    receipt = proxied.http.post("/webhooks/sms-delivery", content="{}")
    assert receipt.json()["type"].startswith("urn:smsgateway:problem:")


@pytest.mark.nginx
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_no_number_is_in_a_log_also_while_the_api_is_down(proxied: Proxied) -> None:
    query = {"to": "+447700900617"}
    assert proxied.http.get("/api/v1/sms", params=query).status_code == 200
    proxied.api.child.kill()
    proxied.api.child.wait()
    assert proxied.http.get("/api/v1/sms", params=query).status_code == 502
    end = time.monotonic() + 60
    while '"GET /api/v1/sms" 502' not in proxied.logs():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "447700900617" not in proxied.logs()


@pytest.mark.nginx
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_the_token_of_an_address_at_which_a_provider_reports_is_in_no_log(proxied: Proxied) -> None:
    for token in ("Zm9vYmFyYmF6cXV4Cg", "Zm9vYmFyYmF6cXV4Cg/more"):
        response = proxied.http.post(f"/webhooks/providers/primary/receipts/{token}", content="x")
        assert response.status_code == 404
    end = time.monotonic() + 60
    while proxied.logs().count('"POST /webhooks/providers/primary/receipts/-" 404') < 2:
        assert time.monotonic() < end, proxied.logs()
        time.sleep(0.05)
    assert "Zm9v" not in proxied.logs()


def sizes_by_prefix(directive: str) -> dict[str, int]:
    """The sizes that the recipe sets, by prefix of the path; "/" is what it sets outside of locations."""
    sizes: dict[str, int] = {}
    prefix = "/"
    for line in RECIPE.splitlines():
        if location := re.fullmatch(r"    location \^~ (\S+) \{", line):
            prefix = location[1]
        elif line == "    }":
            prefix = "/"
        elif size := re.fullmatch(rf" *{directive} (\d+)([km]);", line):
            sizes[prefix] = int(size[1]) << {"k": 10, "m": 20}[size[2]]
    return sizes


def test_the_recipe_allows_larger_bodies_than_the_api_below_each_prefix() -> None:
    limits = sizes_by_prefix("client_max_body_size")
    assert limits.keys() == BODY_LIMITS.keys()
    for prefix, setting in BODY_LIMITS.items():
        assert limits[prefix] > Settings.model_fields[setting].default, prefix
    assert sizes_by_prefix("client_body_buffer_size") == limits
    (kept,) = re.findall(r"keepalive_timeout (\d+)s;", RECIPE)
    assert int(kept) < _KEEP_ALIVE_SECONDS


def test_the_page_about_deployment_refers_to_the_recipe_and_repeats_none_of_it() -> None:
    page = (CHECKOUT / "docs/deployment.md").read_text()
    assert "[`deploy/nginx.conf`](../deploy/nginx.conf)" in page
    directives = set(re.findall(r"^\s*(\w+_\w+) ", RECIPE, re.MULTILINE))
    assert {"client_max_body_size", "proxy_pass"} <= directives
    assert [name for name in directives if f"{name} " in page] == []

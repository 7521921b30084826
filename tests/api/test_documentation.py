"""The page at /docs: served by the gateway alone, and read in a real browser without a network."""

import asyncio
import hashlib
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
import uvicorn

from api import documentation
from api.app import create_app
from api.documentation import POLICY
from local.processes import free_port
from services.assembly import Services

ASSETS = Path(documentation.__file__).parent / "assets"


class Served:
    """The API's pages on a port, and the paths that were asked for."""

    def __init__(self) -> None:
        settings = SimpleNamespace(
            max_body_bytes=1 << 16,
            max_batch_bytes=1 << 23,
            max_webhook_bytes=1 << 20,
            request_timeout=timedelta(minutes=1),
        )
        self._app = create_app(cast("Services", SimpleNamespace(settings=settings)))
        self.asked: list[tuple[str, int]] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.asked.append((scope["path"], message["status"]))
            await send(message)

        await self._app(scope, receive, counted)


@contextmanager
def serving() -> Iterator[Served]:
    served = Served()
    server = uvicorn.Server(
        uvicorn.Config(served, host="127.0.0.1", port=served.port, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.02)
        yield served
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


class Links(HTMLParser):
    """What a page loads, and what stands in it as a script or a style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [
            str(given[name]) for name in ("src", "href") if name in given and tag != "a"
        ]
        self._inside = tag in {"script", "style"}
        assert not [name for name in given if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.inline += data.strip()


@pytest.mark.parametrize("prefix", ["", "/gateway"])
def test_the_page_loads_only_what_the_gateway_serves(served: Served, prefix: str) -> None:
    page = httpx.get(f"{served.url}/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = Links(page.text)
    assert links.inline == ""
    assert len(links.loaded) == 4
    for link in links.loaded:
        assert not urlsplit(link).netloc
        path = urljoin(f"{prefix}/docs", link).removeprefix(prefix)
        asset = httpx.get(f"{served.url}{path}")
        assert asset.status_code == 200, link
        assert asset.headers["x-content-type-options"] == "nosniff"


def test_the_policy_allows_nothing_from_elsewhere_and_no_inline_script(served: Served) -> None:
    sent = httpx.get(f"{served.url}/docs").headers["content-security-policy"]
    assert sent == POLICY
    directives = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    allowed = {source for sources in directives.values() for source in sources.split()}
    assert allowed == {"'none'", "'self'", "data:"}
    assert [name for name, sources in directives.items() if "data:" in sources] == ["img-src"]


@pytest.mark.parametrize(
    "name", ["documentation.html", "README.md", "..", "..%2f..%2fapp.py", "swagger-ui%2fLICENSE"]
)
def test_no_other_file_is_served(served: Served, name: str) -> None:
    assert httpx.get(f"{served.url}/docs/{name}").status_code == 404


def test_the_files_of_swagger_ui_are_those_that_were_released() -> None:
    folder = ASSETS / "swagger-ui"
    hashes = dict(
        re.findall(r"\| `([\w.-]+)` \| `([0-9a-f]{64})` \|", (folder / "README.md").read_text())
    )
    assert {"swagger-ui-bundle.js", "swagger-ui.css"} <= set(hashes)
    for name, digest in hashes.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert "Apache License" in (folder / "LICENSE").read_text()


def test_nothing_but_the_page_and_its_files_is_added_to_the_paths(served: Served) -> None:
    document = httpx.get(f"{served.url}/openapi.json").json()
    assert not [path for path in document["paths"] if path.startswith("/docs")]


# In a real browser

OFFLINE = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--no-first-run",
    # Every name but the gateway's own address is unknown.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1280,1600", "--virtual-time-budget=30000",
    "--enable-logging=stderr", "--v=0",
)  # fmt: skip


def browse(url: str, folder: Path) -> tuple[str, list[str]]:
    """The page as a browser without a network shows it, and what its console complains about."""
    done = subprocess.run(
        [
            "chromium",
            *OFFLINE,
            f"--user-data-dir={folder}/profile",
            f"--screenshot={folder}/page.png",
            "--dump-dom",
            url,
        ],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, [line for line in console if COMPLAINT.search(line)]


COMPLAINT = re.compile("Refused|violates|ERR_|Uncaught|Failed to load|blocked", re.IGNORECASE)


@pytest.mark.chromium
@pytest.mark.timeout(300)
@pytest.mark.parametrize("opened", ["", "#/messages/send_message"])
def test_a_browser_without_a_network_shows_every_operation(
    served: Served, tmp_path: Path, opened: str
) -> None:
    shown, complaints = browse(f"{served.url}/docs{opened}", tmp_path)
    assert complaints == []
    document = httpx.get(f"{served.url}/openapi.json").json()
    operations = [each for item in document["paths"].values() for each in item.values()]
    assert len(operations) > 20
    assert [each["summary"] for each in operations if each["summary"] not in shown] == []
    assert "Authorize" in shown
    assert ("Try it out" in shown) == bool(opened)
    expected = {"/docs", "/openapi.json", *(f"/docs/{name}" for name in documentation._FILES)}
    assert set(served.asked) == {(path, 200) for path in expected}


@pytest.mark.chromium
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "added",
    [
        "<script>document.title = 'inline'</script>",
        '<script src="https://cdn.example.com/swagger-ui.js"></script>',
        '<link rel="stylesheet" href="https://cdn.example.com/swagger-ui.css">',
    ],
)
def test_the_browser_refuses_what_the_policy_does_not_allow(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added: str
) -> None:
    """That the test above would notice it."""
    assets = tmp_path / "assets"
    assets.mkdir()
    page = (ASSETS / "documentation.html").read_text()
    (assets / "documentation.html").write_text(page.replace("</body>", f"{added}</body>"))
    monkeypatch.setattr(documentation, "_ASSETS", assets)
    _, complaints = browse(f"{served.url}/docs", tmp_path)
    assert complaints

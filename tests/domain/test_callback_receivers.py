"""The code that docs/callbacks.md gives to receivers, run as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.callbacks.events import CALLBACK_STATUSES
from domain.callbacks.retries import Trouble
from domain.callbacks.signatures import secret_of, sign, signed_headers

PAGE = Path(__file__).parents[2] / "docs" / "callbacks.md"
SECRET = secret_of(b"a key of these two dozen")
OTHER = secret_of(b"another of these 2 dozen")
BODY = '{"to":"+447700900123","status":"DELIVERED"}'

Verifier = Callable[[str, dict[str, str], str], bool]


def code(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return found


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} must be installed where CI=true")
    if path is None:
        pytest.skip(f"needs {name}, which is not installed")
    return path


def verifier(*command: str) -> Verifier:
    """A program that reads a callback from its standard input and prints whether it holds."""

    def verify(secret: str, headers: dict[str, str], body: str) -> bool:
        given = json.dumps({"secret": secret, "headers": headers, "body": body})
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
        return {"true": True, "false": False}[done.stdout.strip().lower()]

    return verify


PYTHON_MAIN = """
import json, sys
given = json.load(sys.stdin)
print(verify(given["secret"], given["headers"], given["body"].encode()))
"""
NODE_MAIN = """
const given = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
console.log(verify(given.secret, given.headers, Buffer.from(given.body)));
"""
GO_MAIN = """
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

func main() {
	var given struct {
		Secret, Body string
		Headers      map[string]string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	headers := http.Header{}
	for name, value := range given.Headers {
		headers.Set(name, value)
	}
	fmt.Println(Verify(given.Secret, headers, []byte(given.Body)))
}
"""


@pytest.fixture
def python(tmp_path: Path) -> Verifier:
    script = tmp_path / "receiver.py"
    script.write_text(code("python", "def verify") + PYTHON_MAIN)
    return verifier(sys.executable, str(script))


@pytest.fixture
def node(tmp_path: Path) -> Verifier:
    node = program("node")
    script = tmp_path / "receiver.js"
    script.write_text(code("javascript", "function verify") + NODE_MAIN)
    return verifier(node, str(script))


@pytest.fixture
def go(tmp_path: Path) -> Verifier:
    go = program("go")
    shown = code("go", "func Verify").replace("package callbacks", "package main")
    (tmp_path / "verify.go").write_text(shown)
    (tmp_path / "main.go").write_text(GO_MAIN)
    (tmp_path / "go.mod").write_text("module receiver\n\ngo 1.19\n")
    built = tmp_path / "receiver"
    subprocess.run([go, "build", "-o", str(built), "."], cwd=tmp_path, check=True)
    return verifier(str(built))


@pytest.mark.parametrize("language", ["python", "node", pytest.param("go", marks=pytest.mark.go)])
def test_receivers_verify_as_the_documentation_shows(language, request):
    verify: Verifier = request.getfixturevalue(language)
    now = datetime.now(UTC)
    headers = dict(signed_headers(SECRET, "cb_1", now, BODY.encode()))
    timestamp = int(headers["webhook-timestamp"])
    by_other = sign(OTHER, "cb_1", timestamp, BODY.encode())

    assert verify(SECRET, headers, BODY)
    both = {**headers, "webhook-signature": f"{by_other} {headers['webhook-signature']}"}
    assert verify(SECRET, both, BODY)

    assert not verify(OTHER, headers, BODY)
    assert not verify(SECRET, headers, BODY.replace("DELIVERED", "FAILED"))
    assert not verify(SECRET, {**headers, "webhook-id": "cb_2"}, BODY)
    assert not verify(SECRET, {**headers, "webhook-timestamp": str(timestamp + 1)}, BODY)
    assert not verify(SECRET, {**headers, "webhook-timestamp": "now"}, BODY)
    assert not verify(SECRET, {}, BODY)
    for age in (-310, 420):  # the later one stays too early while the verifier starts
        at = datetime.now(UTC) + timedelta(seconds=age)
        then = dict(signed_headers(SECRET, "cb_1", at, BODY.encode()))
        assert not verify(SECRET, then, BODY)


def first_cells(heading: str) -> set[str]:
    """What stands in the first column of the first table after a line."""
    rows = PAGE.read_text().split(heading, 1)[1].split("|---|---|\n", 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"^\| `(\w+)`", rows, re.MULTILINE))


def test_every_status_and_every_error_is_explained():
    assert first_cells("# Callbacks") == {status.upper() for status in CALLBACK_STATUSES}
    assert first_cells("## Look, and replay") == {trouble.value for trouble in Trouble}

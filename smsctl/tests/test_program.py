"""The program as it is installed: a process of its own, with pipes, terminals and signals."""

import ast
import json
import os
import pty
import signal
import subprocess
import sys
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from sdks.python.tests.fakes.gateway import InjectedFault

from smsctl import __version__

PROGRAM = [sys.executable, "-W", "error", "-m", "smsctl"]
PACKAGE = Path(find_spec("smsctl").origin).parent
PROJECT = Path(__file__).parents[1]
TO = "+447700900123"
SEND = ["send", "--to", TO, "--from", "Acme", "--body", "Hello"]


def run(*arguments, **more):
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False, **more
    )


def test_the_program_says_its_version():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"smsctl {__version__}\n", "")


def test_the_program_waits_for_a_delivery(configured):
    done = run(*SEND, "--wait")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Ended as delivered by primary."
    assert "\x1b" not in done.stdout + done.stderr


def test_an_unreachable_address_is_reported_with_its_origin(monkeypatch):
    monkeypatch.setenv("SMSCTL_API", "http://127.0.0.1:1")
    monkeypatch.setenv("SMSCTL_KEY", "sg_test_1")
    done = run("message", "list")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("smsctl: No answer from http://127.0.0.1:1: ")
    assert "(from SMSCTL_API)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "sg_test_1" not in done.stderr


@pytest.mark.parametrize("end", ["", "/", "/api/v1", "/api/v1/"])
def test_every_way_to_write_the_address_of_the_api_is_taken(end, smsctl, configured, monkeypatch):
    address = configured.url + end
    assert smsctl("message", "list", "--api", address, "--key", configured.key).code == 0
    assert smsctl("profile", "add", "here", "--api", address, "--key", configured.key).code == 0
    assert smsctl("message", "list", "--profile", "here").code == 0
    monkeypatch.setenv("SMSCTL_API", address)
    assert smsctl("message", "list").code == 0


def test_a_checkout_that_runs_is_found_from_within(gateway, nothing_configured):
    build = nothing_configured / "build"
    build.mkdir()
    (build / "run.json").write_text(json.dumps({"api": gateway.url, "api_key": gateway.key}))
    inside = nothing_configured / "docs"
    inside.mkdir()
    done = run("provider", "status", "--provider", "", "--output", "json", cwd=inside)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["items"]) == 2


def test_an_interrupted_wait_ends_at_once_with_130(configured):
    waiting = subprocess.Popen(
        [*PROGRAM, "send", "--to", "+447700900198", "--from", "A", "--body", "b", "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As at a terminal, also where these tests run in a background in which it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    with waiting:
        waiting.stdout.readline()
        time.sleep(0.3)
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_goes_away_causes_no_trace(configured):
    listing = subprocess.Popen(
        [*PROGRAM, "message", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with listing:
        listing.stdout.close()
        err = listing.stderr.read()
    assert "Traceback" not in err


def test_a_terminal_gets_colours_and_a_table(configured):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [*PROGRAM, "provider", "status"], stdout=theirs, stdin=theirs, env=environment
    ) as shown:
        os.close(theirs)
        text = b""
        try:
            while read := os.read(ours, 65536):
                text += read
        except OSError:
            pass  # Linux's way of saying that the other side has closed
    os.close(ours)
    assert shown.returncode == 0
    assert b"\x1b[32mup" in text
    assert "─".encode() in text


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("message list --limit 0", "'--limit': it must be at least 1."),
        ("message list --limit x", "'--limit': it must be a whole number."),
        ("callback list --limit 1.5", "'--limit': it must be a whole number."),
        ("dlq replay --limit 5000", "'--limit': it must be at most 1000."),
        ("batch send f --from a --size 99999", "'--size': it must be at most 10000."),
        ("batch watch bat_1 --timeout -1", "'--timeout': it must be at least 0."),
        ("batch watch bat_1 --timeout soon", "'--timeout': it must be a number."),
        (f"message list --limit {'9' * 5000}", "'--limit': it is too large."),
    ],
)
def test_a_value_out_of_range_is_reported_in_plain_words(line, sentence, smsctl):
    run = smsctl(*line.split())
    assert run.code == 2
    assert f"Invalid value for {sentence} `smsctl" in run.err
    assert "Input" not in run.err


OPTIONS_OF_A_SEND = {
    "to": "--to",
    "from": "--from",
    "body": "--body",
    "mode": "--mode",
    "priority": "--priority",
    "callback_url": "--callback-url",
    "validity_period": "--validity",
    "receipt_deadline": "--receipt-deadline",
    "missing_receipt": "--missing-receipt",
    "scheduled_at": "--at",
    "metadata.order": "--metadata",
    "smart_encoding": "--smart-encoding",
    "Idempotency-Key": "--idempotency-key",
    "something_new": "something_new",
}


@pytest.mark.parametrize(("field", "option"), OPTIONS_OF_A_SEND.items())
def test_a_refusal_names_the_option_that_fills_the_field(smsctl, configured, field, option):
    error = {"field": field, "reason": "invalid", "detail": "It is wrong."}
    problem = {"title": "No", "status": 422, "errors": [error]}
    headers = {"content-type": "application/problem+json"}
    configured.faults.append(InjectedFault(422, headers, json.dumps(problem).encode()))
    run = smsctl(*SEND)
    assert f" {option}: It is wrong." in run.err


def test_no_status_is_offered_that_no_message_gets(smsctl):
    run = smsctl("message", "list", "--status", "held")
    assert run.code == 2
    assert "'held' is not one of" in run.err
    assert "'queued'" in run.err


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --command")]
)
def test_completion_can_be_had_for_the_shells(shell, mark, smsctl, monkeypatch):
    monkeypatch.setenv("_SMSCTL_COMPLETE", f"source_{shell}")
    assert mark in smsctl().out


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("smsctl mes", "message"),
        ("smsctl dlq ", "replay"),
        ("smsctl message list --status deliv", "delivered"),
        ("smsctl message list --columns sta", "status"),
        ("smsctl message list --columns to,sta", "to,status"),
        ("smsctl provider status -o t", "tsv"),
        ("smsctl batch ", "resume"),
        ("smsctl batch send --mode al", "alert"),
        ("smsctl --profile la", "lab"),
        ("smsctl profile use la", "lab"),
        ("smsctl key create --scope messages:s", "messages:send"),
    ],
)
def test_completion_offers_commands_values_and_profiles(line, offered, smsctl, monkeypatch):
    smsctl("profile", "add", "lab", "--api", "http://h", "--key", "k")
    monkeypatch.setenv("_SMSCTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    assert offered in smsctl().out.split()


def test_nothing_of_the_server_is_needed():
    found = {
        name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name.partition(".")[0] for alias in node.names]
            if isinstance(node, ast.Import)
            else [(node.module or "").partition(".")[0]]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert found - sys.stdlib_module_names == {"smsctl", "smsgateway", "typer", "rich", "pydantic"}


def test_the_wheel_holds_the_program_alone(tmp_path):
    wheel = Path(next(WheelBuilder(str(PROJECT)).build(directory=str(tmp_path))))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert {n.partition("/")[0] for n in names} == {
        "smsctl",
        f"smsgateway_smsctl-{__version__}.dist-info",
    }
    assert "smsctl = smsctl.main:run" in points
    assert "smsctl/commands/send.py" in names

"""`smsctl events tail` against a gateway that is away in between."""

import json
import signal
import subprocess
import sys
import time

import pytest
from sdks.python.tests.fakes.gateway import InjectedFault

from smsctl import following

PROGRAM = [sys.executable, "-m", "smsctl"]
SEND = ["send", "--to", "+447700900123", "--from", "ACME", "--body", "b"]


@pytest.fixture
def looks(monkeypatch):
    """How many times `events tail` looks before it is interrupted, and what happens in between."""
    between = []

    def pause() -> None:
        if not between:
            raise KeyboardInterrupt
        between.pop(0)()

    monkeypatch.setattr(following, "_pause", pause)
    return between


def statuses(output: str) -> list[str]:
    return [json.loads(line)["status"] for line in output.splitlines()]


def test_each_event_is_shown_once_as_it_comes(smsctl, configured, looks):
    smsctl(*SEND)
    looks += [lambda: time.sleep(0.3), lambda: None, lambda: None]
    run = smsctl("events", "tail", "-o", "json")
    assert run.code == 130
    assert statuses(run.out) == ["queued", "sending", "sent", "delivered"]


def test_events_can_be_filtered_by_the_status_that_messages_get(smsctl, configured, looks):
    smsctl(*SEND)
    time.sleep(0.3)
    run = smsctl("events", "tail", "--status", "delivered", "--since", "1h", "-o", "json")
    assert statuses(run.out) == ["delivered"]
    shown = smsctl("events", "tail", "--status", "delivered")
    assert "Receipt from primary: delivered." in shown.out
    table = smsctl("events", "tail", "--status", "delivered", "-o", "tsv").out.splitlines()
    assert table[0].split("\t")[:3] == ["at", "message", "event"]
    assert len(table) == 2


def test_it_goes_on_when_the_gateway_was_away(smsctl, configured, looks):
    smsctl(*SEND)

    def is_away() -> None:
        configured.faults += [InjectedFault(503)] * 3  # as often as a request is tried

    looks += [is_away, lambda: time.sleep(0.3), lambda: None]
    run = smsctl("events", "tail")
    assert run.out.count("delivered") >= 1
    assert "cannot be reached" in run.err
    assert "can be reached again" in run.err


def test_a_gateway_that_is_away_from_the_beginning_ends_it(smsctl, looks):
    run = smsctl("events", "tail", "--api", "http://127.0.0.1:9", "--key", "k")
    assert run.code == 5


def test_it_ends_by_ctrl_c(smsctl, configured):
    smsctl(*SEND)
    with subprocess.Popen(
        [*PROGRAM, "events", "tail"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as tailing:
        tailing.stdout.readline()
        time.sleep(0.3)
        tailing.send_signal(signal.SIGINT)
        _, err = tailing.communicate(timeout=60)
    assert tailing.returncode == 130
    assert "Traceback" not in err

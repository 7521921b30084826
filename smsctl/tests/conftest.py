import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Pytest calls this file `smsctl.tests.conftest` and, to have somewhere to put it, makes a package of
# the folder `smsctl`, which would stand in the way of the one that is installed.
if getattr(sys.modules.get("smsctl"), "__file__", None) is None:
    sys.modules.pop("smsctl", None)
    importlib.import_module("smsctl")

from sdks.python.tests.fakes.gateway import FakeGateway
from typer.testing import CliRunner

from smsctl import waiting
from smsctl.main import app


@pytest.fixture(scope="session")
def running_gateway() -> Iterator[FakeGateway]:
    with FakeGateway().running() as running:
        yield running


@pytest.fixture
def gateway(running_gateway) -> FakeGateway:
    running_gateway.forget()
    return running_gateway


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch, tmp_path) -> Path:
    """A folder of its own, and no word in the environment about any gateway."""
    for name in list(os.environ):
        if name.startswith("SMSCTL_"):
            monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "COLUMNS", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(waiting, "_FIRST_PAUSE", 0.05)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def configured(gateway, monkeypatch) -> FakeGateway:
    """The environment names the fake gateway."""
    monkeypatch.setenv("SMSCTL_API", gateway.url)
    monkeypatch.setenv("SMSCTL_KEY", gateway.key)
    monkeypatch.setenv("SMSCTL_OPERATOR_KEY", gateway.operator_key)
    return gateway


class Run:
    """What one run of `smsctl` gave."""

    def __init__(self, result) -> None:
        self.code = result.exit_code
        self.out = result.stdout
        self.err = result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception


@pytest.fixture
def smsctl():
    def run(*arguments: str, stdin: str | bytes | None = None) -> Run:
        return Run(CliRunner().invoke(app, list(arguments), input=stdin, prog_name="smsctl"))

    return run

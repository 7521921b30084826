"""`worker.py config check FILE`, which needs no database, Temporal or API."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from settings.configuration_file import ConfigurationMistakes, parse_configuration

GOOD = """
[providers.primary]
type = "smpp"
host = "smsc.example.net"
system_id = "acme"
password = "env:SMSGATEWAY_SECRET_PRIMARY"

[[routes]]
providers = ["primary"]
"""


def check(file: Path | str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "worker.py", "config", "check", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": os.environ["PATH"], **environment},
    )


def test_a_file_without_mistakes_needs_nothing_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(GOOD)
    done = check(file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file}: there are no errors.\n"


def test_all_mistakes_are_reported_at_once_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    text = GOOD.replace('host = "', 'hots = "').replace('["primary"]', '["primary", "backup"]')
    file.write_text(text.replace("system_id", "rate = 0\nsystem_id"))
    done = check(file)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        f"{file}:2:12: providers.primary.host: it is missing",
        f'{file}:4:1: providers.primary.hots: there is no such key; did you mean "host"?',
        f"{file}:5:8: providers.primary.rate: it must be more than 0",
        f'{file}:10:25: routes[0].providers[1]: there is no provider "backup"; declared are: primary',
    ]


def test_a_route_that_no_message_takes_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    hidden = '\n[[routes]]\nmatch = { countries = ["US"] }\nproviders = ["primary"]\n'
    file.write_text(GOOD + hidden)
    done = check(file)
    assert done.returncode == 1
    assert done.stdout == (
        f"{file}:11:3: routes[1]: no message takes this route, since routes[0] before it takes all "
        "of its messages: put it first, or take it out\n"
    )


@pytest.mark.parametrize("name", ["not-there.toml", "."])
def test_a_file_that_cannot_be_read_is_another_exit_code(tmp_path: Path, name: str) -> None:
    done = check(tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read: " in done.stderr


def test_a_secret_that_is_there_and_cannot_be_used_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(GOOD)
    done = check(file, SMSGATEWAY_SECRET_PRIMARY="too long for SMPP")
    assert done.returncode == 1
    assert "providers.primary.password: " in done.stdout
    assert "too long for SMPP" not in done.stdout


def test_a_wrong_reference_is_reported_once() -> None:
    with pytest.raises(ConfigurationMistakes) as wrong:
        parse_configuration(GOOD.replace('["primary"]', '["backup"]'))
    assert len(wrong.value.mistakes) == 1

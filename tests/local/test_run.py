"""`make run`, as its user meets it: started, used, stopped, started again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from domain.secrets import AllowedSecrets
from local.run import out_of_use
from local.stack import WORKERS
from tests.make_run import COMMAND, make_run, remove_data

pytestmark = pytest.mark.stack


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Path]:
    """A build folder whose data, which as root lie elsewhere, are removed afterwards."""
    folder = tmp_path / "build"
    yield folder
    remove_data(folder)


def read(url: str, key: str) -> httpx.Response:
    return httpx.get(url, headers={"Authorization": f"Bearer {key}"})


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # an orphan that nobody reaps


def assert_gone(processes: set[int]) -> None:
    deadline = time.monotonic() + 120
    while alive := set(filter(is_alive, processes)):
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_runs_sends_by_the_printed_line_ends_in_good_order_or_killed_and_keeps_what_it_had(
    build: Path,
) -> None:
    with make_run(build) as first:
        announced = first.wait_until_up()
        assert set(announced) == {
            "api",
            "temporal",
            "temporal_ui",
            "metrics",
            "api_key",
            "operator_key",
        }
        assert (build / "run.json").stat().st_mode & 0o777 == 0o600
        printed = dict(re.findall(r"^  (\S.*?)  +(http\S+)$", first.output, re.MULTILINE))
        assert printed["API"] == announced["api"], "the address of the API has one form"
        assert httpx.get(f"{announced['api']}/readyz").status_code == 200
        assert httpx.get(f"{announced['api']}/docs").status_code == 200
        assert httpx.get(announced["temporal_ui"]).status_code == 200
        of = {line.split()[-1]: line for line in first.output.splitlines() if "Metrics of" in line}
        assert "API" in of[announced["metrics"][0]]
        assert len(set(of.values())) == len(announced["metrics"])
        for metrics in announced["metrics"]:
            assert httpx.get(metrics).status_code == 200

        carriers = {what: url for what, url in printed.items() if what.startswith("Carrier ")}
        assert set(carriers) == {"Carrier primary", "Carrier backup", "Carrier twilio_simulator"}
        page = httpx.get(carriers["Carrier twilio_simulator"]).text
        assert "<h1>Twilio twilio_simulator</h1>" in page
        assert carriers["Carrier primary"] in page

        (line,) = (line for line in first.output.splitlines() if line.startswith("  curl"))
        pasted = subprocess.run(line, shell=True, check=True, capture_output=True, text=True)  # noqa: S602  as pasted
        message = json.loads(pasted.stdout)["message_id"]
        address = f"{announced['api']}/api/v1/sms/{message}"
        deadline = time.monotonic() + 120
        while read(address, announced["api_key"]).json()["status"] != "delivered":
            assert time.monotonic() < deadline, read(address, announced["api_key"]).text
            time.sleep(0.1)

        second = subprocess.run(
            COMMAND,
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"SMSGATEWAY_BUILD_FOLDER": str(build)},
        )
        assert second.returncode == 1
        assert f"running already in this checkout (process {first.process.pid})" in second.stdout

        children = first.descendants()
        assert len(children) >= 6
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(120) == 0, first.output
        assert_gone(children)
        assert not (build / "run.json").exists()

    with make_run(build) as again:
        anew = again.wait_until_up()
        assert anew["api"] == announced["api"], "the address stays"
        assert read(address, announced["api_key"]).status_code == 401, "the old key is revoked"
        assert read(address, anew["api_key"]).json()["status"] == "delivered"
        children = again.descendants()
        again.process.kill()
        assert_gone(children)
    assert anew["api_key"] not in first.log_of("api") + first.log_of("worker")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_part_that_dies_ends_it_with_a_sentence_and_the_end_of_its_log(build: Path) -> None:
    with make_run(build) as run:
        run.wait_until_up()
        children = run.descendants()
        workers = [
            pid
            for pid in children
            if b"worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        assert len(workers) == WORKERS
        os.kill(workers[0], signal.SIGKILL)
        assert run.process.wait(120) == 1
        assert re.search(r"worker(_\d)? was ended by SIGKILL", run.output)
        assert re.search(
            r'"service": "worker".*"event": "\w+"|"event": "\w+".*"service": "worker"', run.output
        )
        assert_gone(children)
        assert not (build / "run.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_while_it_starts_leaves_no_process_behind(build: Path) -> None:
    with make_run(build) as run:
        while "starting worker and API" not in run.output:
            assert run.process.poll() is None, run.output
            time.sleep(0.05)
        children = run.descendants()
        assert children
        run.process.send_signal(signal.SIGINT)
        assert run.process.wait(120) == 0, run.output
        assert_gone(children | run.descendants())
        assert not (build / "run.json").exists()
        assert "curl" not in run.output


def test_a_provider_without_its_password_is_named_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[providers.first]\ntype = "smpp"\nhost = "smsc.example.net"\nsystem_id = "acme"\n'
        'password = "env:SMSGATEWAY_SECRET_FIRST"\n'
        '[providers.second]\ntype = "smpp"\nhost = "smsc.example.net"\nsystem_id = "acme"\n'
        'password = "env:SMSGATEWAY_SECRET_SECOND"\n[[routes]]\nproviders = ["first", "second"]\n'
    )
    monkeypatch.setenv("SMSGATEWAY_SECRET_FIRST", "here")
    monkeypatch.delenv("SMSGATEWAY_SECRET_SECOND", raising=False)
    (sentence,) = out_of_use(file, AllowedSecrets(("SMSGATEWAY_SECRET_",)))
    assert "the provider second" in sentence
    assert "SMSGATEWAY_SECRET_SECOND" in sentence


def test_a_configuration_with_a_mistake_is_refused_with_its_line(
    build: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "my.toml"
    mine.write_text('[providers.acme]\ntype = "smpp"\nhots = "smsc.example"\n')
    with make_run(build, SMSGATEWAY_CONFIG=str(mine)) as run:
        assert run.process.wait(120) == 2
        assert f"{mine} cannot be used" in run.output
        assert "line 3: providers.acme.hots" in run.output

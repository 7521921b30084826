import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

MAKEFILE = Path("Makefile")


def make(*arguments: str, path: str = os.environ["PATH"]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )


def test_help_lists_every_target() -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)$", MAKEFILE.read_text(), re.MULTILINE))
    listed = set(re.findall(r"^  make (\S+) +\S", make("help").stdout, re.MULTILINE))
    assert listed == targets
    assert {"setup", "demo", "run", "test", "lint", "types", "contracts", "bench"} <= targets


def test_help_is_the_default() -> None:
    assert make().stdout == make("help").stdout


def test_figures_are_measured_on_both_servers_unless_one_is_enough() -> None:
    assert (
        "-m bench --only bulk_100k_per_s \n" in make("-n", "bench", "ONLY=bulk_100k_per_s").stdout
    )
    assert "-m bench  --embedded-only\n" in make("-n", "bench", "EMBEDDED=1").stdout


def test_without_a_python_that_is_new_enough_a_sentence_says_what_to_do(tmp_path: Path) -> None:
    done = make("setup", "PYTHON=", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stdout
    assert "make PYTHON=" in done.stdout
    assert list(tmp_path.iterdir()) == []


def set_up_with(tmp_path: Path, pip: str) -> "subprocess.CompletedProcess[str]":
    """What `make setup` does with a Python whose pip is this piece of a script."""
    python = tmp_path / "python3"
    python.write_text(f"""#!/bin/sh
case "$*" in
  *"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
  *"-m pip"*) {pip} ;;
esac
""")
    python.chmod(0o755)
    return make("setup", f"VENV={tmp_path}/venv", f"PYTHON={python}")


def test_a_set_up_prints_a_line_for_each_step_and_how_long_it_took(tmp_path: Path) -> None:
    loud = 'case "$*" in *--quiet*) ;; *) seq 300 ;; esac'
    done = set_up_with(tmp_path, loud)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line for line in done.stdout.splitlines() if line.startswith("· installing")]
    assert len(steps) == 3
    assert len(re.findall(r"^  took \d+ s$", done.stdout, re.MULTILINE)) == len(steps)
    assert len(done.stdout.splitlines()) < 10


@pytest.mark.parametrize("package", ["requirements-dev.lock", "sdks/python", "smsctl"])
def test_a_set_up_in_which_a_package_cannot_be_installed_fails(
    tmp_path: Path, package: str
) -> None:
    done = set_up_with(tmp_path, f'case "$*" in *{package}*) echo "no network" >&2; exit 1 ;; esac')
    assert done.returncode != 0
    assert "no network" in done.stderr
    assert not (tmp_path / "venv" / "set-up").exists()


def found(tmp_path: Path, **seconds: float) -> str:
    """Which Python would be taken, where these stand on the PATH and take so long."""
    for name, took in seconds.items():
        python = tmp_path / name.replace("_", ".")
        python.write_text(f"#!/bin/sh\necho {took} /opt/{python.name}\n")
        python.chmod(0o755)
    said = make("-n", "setup", f"VENV={tmp_path}/venv", path=f"{tmp_path}:/usr/bin:/bin").stdout
    return re.findall(r"making \S+ with (\S+)\"", said)[0]


def test_of_several_pythons_the_first_is_taken_unless_another_is_clearly_faster(
    tmp_path: Path,
) -> None:
    assert found(tmp_path, python3=1e-6, python3_12=0.95e-6) == "/opt/python3"
    assert found(tmp_path, python3=1e-6, python3_12=0.7e-6) == "/opt/python3.12"


def test_a_python_says_how_long_it_takes_and_where_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "local/python_speed.py"], check=True, capture_output=True, text=True
    )
    seconds, path = done.stdout.split()
    assert 0 < float(seconds) < 5
    assert path == sys.executable


def test_the_check_of_all_calls_every_target_that_checks() -> None:
    script = Path(".ci/run").read_text()
    called = {
        word for line in re.findall(r"^make (.+)$", script, re.MULTILINE) for word in line.split()
    }
    assert {"setup", "lint", "types", "contracts", "demo", "test"} <= called


def test_the_hooks_before_a_commit_download_nothing() -> None:
    hooks = yaml.safe_load(Path(".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_lock_files_have_hashes_and_name_no_registry() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        lock = Path(name).read_text()
        assert "--hash=sha256:" in lock
        assert "://" not in lock
        assert "--index-url" not in lock

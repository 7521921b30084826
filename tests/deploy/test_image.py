"""The Dockerfile: what it copies is what runs, and the lock file has all that it imports."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from tests.deploy.compose import (
    CHECKOUT,
    OUR_IMAGE,
    OURS,
    dockerfile,
    image_environment,
    without_digest,
)

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
PACKAGES = set(PROJECT["tool"]["importlinter"]["root_packages"])
SMSCTL = {"sdks/python/src/smsgateway", "smsctl/src/smsctl"}

# Imports the given modules where nothing can be imported but the standard library, what lies in this
# folder, and what the distributions of the first argument own.
WITH_THE_LOCKED_ALONE = """
import importlib, importlib.metadata, json, re, sys

locked = set(json.loads(sys.argv[1]))
owners = importlib.metadata.packages_distributions()

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        names = {re.sub("[-_.]+", "-", owner).lower() for owner in owners.get(name, [])}
        if names and not names & locked:
            raise ModuleNotFoundError(f"{name} is of {names}, which is not locked", name=name)

sys.meta_path.insert(0, Missing)
sys.path.insert(0, "")
for module in sys.argv[2:]:
    importlib.import_module(module)
"""


def copied_from_here() -> list[str]:
    split = [argument.split() for kind, argument in dockerfile() if kind == "COPY"]
    return [source for source, *_ in split if not source.startswith("--from")]


def locked_distributions() -> list[str]:
    lock = (CHECKOUT / "requirements.lock").read_text()
    names = re.findall(r"^([\w.-]+)(?:\[.*?\])?==", lock, re.MULTILINE)
    return [re.sub(r"[-_.]+", "-", name).lower() for name in names]


def test_every_stage_stands_on_one_pinned_python():
    arguments = [argument for kind, argument in dockerfile() if kind == "ARG"]
    assert arguments[0].startswith("PYTHON=3.11.")
    assert "slim" in arguments[0]
    stages = [argument.split()[0] for kind, argument in dockerfile() if kind == "FROM"]
    assert set(stages) == {"python:${PYTHON}"}
    tag = without_digest(arguments[0].removeprefix("PYTHON="))
    [label] = [argument for kind, argument in dockerfile() if kind == "LABEL"]
    assert f'"docker.io/library/python:{tag}"' in label


def test_it_copies_every_top_level_package_but_the_embedded_stack_and_no_tests():
    programs = {"worker.py"} | SMSCTL
    assert set(copied_from_here()) == (PACKAGES - {"local"}) | programs | {"requirements.lock"}
    for source in copied_from_here():
        assert (CHECKOUT / source).exists(), source


def test_the_builder_is_sent_what_is_copied_and_nothing_else():
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == set(
        copied_from_here()
    )
    left_out = [rule.removeprefix("**/") for rule in rules[1:] if not rule.startswith("!")]
    for name in ("__pycache__", "worker.cpython-311.pyc"):
        assert any(fnmatch(name, pattern) for pattern in left_out), name


def test_what_is_copied_and_what_is_locked_suffice(tmp_path: Path):
    for source in set(copied_from_here()) - {"requirements.lock"}:
        if (CHECKOUT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / source, tmp_path / Path(source).name, ignore=ignored)
        else:
            shutil.copy(CHECKOUT / source, tmp_path)
    entries = ["api.app", "api.__main__", "worker", "simulator.__main__", "smsctl.main"]
    locked = json.dumps(locked_distributions())
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITH_THE_LOCKED_ALONE, locked, *entries],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_packages_are_installed_by_their_hashes_and_never_built():
    [install] = [it for kind, it in dockerfile() if kind == "RUN" and " install" in it]
    assert "--require-hashes" in install
    assert "--only-binary :all:" in install
    assert "-r requirements.lock" in install


def test_it_runs_as_nobody_in_particular():
    [user] = [argument for kind, argument in dockerfile() if kind == "USER"]
    number, group = map(int, user.split(":"))
    assert number >= 10_000
    assert group >= 10_000
    [made] = [it for kind, it in dockerfile() if kind == "RUN" and "useradd" in it]
    assert f"--uid {number}" in made
    assert f"--gid {group}" in made
    kinds = [kind for kind, _ in dockerfile()]
    assert kinds.index("USER") > max(n for n, kind in enumerate(kinds) if kind in {"RUN", "COPY"})


def test_it_is_labelled_with_the_version_of_the_project():
    version = PROJECT["project"]["version"]
    assert ("ARG", f"VERSION={version}") in dockerfile()
    assert f"smsgateway:{version}" == OUR_IMAGE
    assert OURS["api"]["build"]["args"]["VERSION"] == version
    [label] = [argument for kind, argument in dockerfile() if kind == "LABEL"]
    assert f'licenses="{PROJECT["project"]["license"]}"' in label


def test_it_asks_itself_whether_it_lives():
    [check] = [argument for kind, argument in dockerfile() if kind == "HEALTHCHECK"]
    assert f"127.0.0.1:{image_environment()['SMSGATEWAY_METRICS_PORT']}/metrics" in check


def test_without_a_command_it_is_the_api():
    assert dockerfile()[-2:] == [("ENTRYPOINT", '["python"]'), ("CMD", '["-m", "api"]')]

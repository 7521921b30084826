"""deploy/pin-images.sh, on copies of the files and with a `docker` that knows some digests."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.compose import CHECKOUT, OUR_IMAGE, SERVICES, without_digest

PINNED = re.compile(r"@sha256:[0-9a-f]{64}")
DOCKER = """#!/bin/sh
test "$1 $2 $3 $4 $5" = 'buildx imagetools inspect --format {{.Manifest.Digest}}' || exit 64
case "$6" in *@*|$UNREACHABLE) echo "no such host" >&2; exit 1;; esac
printf 'sha256:%s\\n' "$(printf '%s' "$6$TRANSITION_COLUMNS" | sha256sum | cut -d ' ' -f 1)"
"""


class Checkout:
    """The two files and the script, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "deploy").mkdir()
        for name in ("docker-compose.yml", "Dockerfile", "deploy/pin-images.sh"):
            shutil.copy(CHECKOUT / name, folder / name)
        for name in ("docker-compose.yml", "Dockerfile"):  # as if none had been pinned yet
            file = folder / name
            file.write_text(PINNED.sub("", file.read_text()))
        (folder / "bin").mkdir()
        docker = folder / "bin/docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "deploy/pin-images.sh", *arguments],
            cwd=self.folder,
            env=os.environ
            | {"PATH": path, "UNREACHABLE": "", "TRANSITION_COLUMNS": ""}
            | environment,
            check=False,
            capture_output=True,
            text=True,
        )

    def texts(self) -> tuple[str, ...]:
        return tuple(
            (self.folder / name).read_text() for name in ("docker-compose.yml", "Dockerfile")
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_every_image_is_pinned_to_the_digest_of_its_tag_and_nothing_else_changes(
    checkout: Checkout,
) -> None:
    before = checkout.texts()
    assert checkout.run("--check").returncode == 1
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    assert checkout.run("--check").returncode == 0
    compose, dockerfile = checkout.texts()
    images = {without_digest(it["image"]) for it in SERVICES.values()} - {OUR_IMAGE}
    assert len(images) == 6
    for image in images:
        digest = hashlib.sha256(image.encode()).hexdigest()
        times = len(re.findall(rf"image: {re.escape(image)}$", before[0], re.MULTILINE))
        assert compose.count(f"image: {image}@sha256:{digest}\n") == times > 0
    (python,) = re.findall(r"^ARG PYTHON=(.*)$", before[1], re.MULTILINE)
    digest = hashlib.sha256(f"python:{python}".encode()).hexdigest()
    assert f"ARG PYTHON={python}@sha256:{digest}\n" in dockerfile
    assert tuple(PINNED.sub("", text) for text in checkout.texts()) == before


def test_digests_are_renewed_where_a_tag_has_moved(checkout: Checkout) -> None:
    assert checkout.run().returncode == 0
    pinned = checkout.texts()
    assert checkout.run().returncode == 0
    assert checkout.texts() == pinned
    assert checkout.run(TRANSITION_COLUMNS="since").returncode == 0
    renewed = checkout.texts()
    assert [PINNED.sub("", text) for text in renewed] == [PINNED.sub("", text) for text in pinned]
    assert not set(PINNED.findall(renewed[0])) & set(PINNED.findall(pinned[0]))


def test_nothing_is_written_unless_every_digest_is_known(checkout: Checkout) -> None:
    before = checkout.texts()
    done = checkout.run(UNREACHABLE="temporalio/ui:*")
    assert done.returncode == 1
    assert "The digest of temporalio/ui:" in done.stderr
    assert checkout.texts() == before

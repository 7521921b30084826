"""Data folders that last as long as their process, and locks that a killed process lets go."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TextIO

PREFIX: Final = f"smsgateway-{os.getuid()}-"
LOCK: Final = "owner.lock"


class InUse(RuntimeError):
    """Another living process holds the lock."""


@contextlib.contextmanager
def exclusively(lock: Path, waiting: Callable[[], None] | None = None) -> Iterator[TextIO]:
    """Hold a file lock, which the kernel lets go when this process ends, however it ends.

    With `waiting`, call it once and wait when another process holds the lock.

    Raises:
        InUse: another process holds it, and there is no `waiting`.
    """
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise InUse(f"{lock} is held by another process.") from None
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a data folder of our own, removed at the end; first remove those of killed processes."""
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with exclusively(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove temporary folders whose process is gone without having done so."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = folder / LOCK
        # One without the lock's file is being made at this moment.
        with contextlib.suppress(InUse, OSError):
            if lock.is_file():
                with exclusively(lock):
                    shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(folder: Path) -> bool:
    """Whether it was such a temporary folder, and is no longer."""
    temporary = folder.is_relative_to(tempfile.gettempdir())
    return (
        temporary and any(part.startswith(PREFIX) for part in folder.parts) and not folder.exists()
    )

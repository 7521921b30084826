"""The name of a worker, and whether the process of another one has ended."""

import contextlib
import hashlib
import itertools
import os
import socket
from pathlib import Path
from typing import Final

_PIDS: Final = Path("/proc/self/ns/pid")
_numbers = itertools.count(1)


def _place() -> str:
    """Where this process has its number: the host's name, and which kernel and container it is."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on Linux
        known += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(_PIDS.readlink())]
    return f"{known[0]}/{hashlib.sha256(repr(known).encode()).hexdigest()[:8]}"


_PLACE: Final = _place()


def new_worker_name() -> str:
    """The name of one more worker in this process: its place, process id and number."""
    return f"{_PLACE}/{os.getpid()}.{next(_numbers)}"


def is_gone(worker: str) -> bool:
    """Whether this was a worker of this place whose process does not run any more (proc(5))."""
    place, _, number = worker.rpartition("/")
    if place != _PLACE or not _PIDS.exists():
        return False
    try:
        stat = Path(f"/proc/{number.partition('.')[0]}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}

"""An SMSC that nobody here wrote the protocol of: npm's `smpp`, as a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.processes import Child, free_port, listens

PEERS: Final = Path(__file__).parent
FILES: Final = ("smsc.js", "package.json", "package-lock.json", ".npmrc")


@dataclass(frozen=True, slots=True)
class PeerSmsc:
    """The SMSC, on this port of 127.0.0.1."""

    port: int
    child: Child
    log: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    def so_far(self) -> int:
        """How many messages it took, a tenth of a second ago at most."""
        said = [line for line in self.log.read_text().splitlines() if line.startswith("so far ")]
        return int(said[-1].removeprefix("so far ")) if said else 0

    def until_taken(self, count: int, within: float = 120) -> None:
        """Returns when it has taken so many messages.

        Raises:
            RuntimeError: it has not after so many seconds.
        """
        ends = time.monotonic() + within
        while self.so_far() < count:
            if time.monotonic() > ends:
                raise RuntimeError(f"the SMSC did not take {count} messages within {within:g} s")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL; what it had to report is lost."""
        self.child.kill()

    def start(self) -> None:
        """Start it again, at the same port; it counts anew."""
        self.child.start()
        self.child.wait_for(lambda: listens(self.port), seconds=20, what="listening")

    def report(self) -> None:
        """Send all receipts that were held, and hold no more."""
        os.kill(self.pid, signal.SIGUSR2)

    def reset(self) -> None:
        """Reset all connections."""
        os.kill(self.pid, signal.SIGHUP)

    def counted(self) -> dict[str, int]:
        """End it; how many messages it took (`submitted`), and of `different` texts."""
        os.kill(self.pid, signal.SIGTERM)
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            for line in self.log.read_text().splitlines():
                if line.startswith("{"):
                    found: dict[str, int] = json.loads(line)
                    return found
            time.sleep(0.1)
        raise RuntimeError("the SMSC did not report what it has counted")


@contextmanager
def running_smsc(folder: Path, *, holding: bool = False) -> Iterator[PeerSmsc]:
    """Start the SMSC, with its files in the folder; `holding` keeps its receipts for later."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("node is not installed; the SMSC of this figure needs it")
    workplace = folder / "peers"
    workplace.mkdir(parents=True)
    for name in FILES:
        shutil.copy(PEERS / name, workplace)
    subprocess.run(["npm", "ci", "--silent"], cwd=workplace, check=True)
    port = free_port()
    child = Child(
        "smsc",
        [node, str(workplace / "smsc.js"), str(port), *(["hold"] if holding else [])],
        log=folder / "smsc.log",
        folder=workplace,
    )
    child.start()
    try:
        child.wait_for(lambda: listens(port), seconds=20, what="listening")
        yield PeerSmsc(port, child, folder / "smsc.log")
    finally:
        child.stop()

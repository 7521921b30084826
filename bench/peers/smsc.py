"""An SMSC that nobody here wrote the protocol of: npm's `smpp`, as a process of its own."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local.processes import Child, free_port, listens

PEERS: Final = Path(__file__).parent
FILES: Final = ("smsc.js", "package.json", "package-lock.json", ".npmrc")


@contextmanager
def running_smsc(folder: Path) -> Iterator[int]:
    """Start the SMSC, with its files in the folder; gives its port."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("node is not installed; the SMSC of this figure needs it")
    workplace = folder / "peers"
    workplace.mkdir()
    for name in FILES:
        shutil.copy(PEERS / name, workplace)
    subprocess.run(["npm", "ci", "--silent"], cwd=workplace, check=True)
    port = free_port()
    child = Child(
        "smsc",
        [node, str(workplace / "smsc.js"), str(port)],
        log=folder / "smsc.log",
        folder=workplace,
    )
    child.start()
    try:
        child.wait_for(lambda: listens(port), seconds=20, what="listening")
        yield port
    finally:
        child.stop()

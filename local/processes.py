"""Child processes that never outlive us, and whose end is never overlooked."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

TETHER: Final = Path(__file__).with_name("parent_death.py")

# Below the range from which kernels take the ports of outgoing connections (32768 and up on Linux,
# 49152 on macOS): a server that restarts must find its port free again.
PORTS: Final = range(20_000, 32_000)

# The kernel takes the end of the *thread* that started a child for the end of its parent, so all
# children are started by one thread that lives as long as the interpreter.
_starter: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter-of-children")

_ports_given_out: Final[set[int]] = set()


class ChildEnded(RuntimeError):
    """A child that should be running has ended; the text carries the end of its log."""


@dataclass(frozen=True, slots=True)
class User:
    """Whom a child runs as: a user and group id without further groups."""

    uid: int
    gid: int


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nothing listens on, never the same one twice."""
    for port in random.sample(PORTS, len(PORTS)):
        if port in _ports_given_out:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given_out.add(port)
        return port
    raise RuntimeError(f"No free TCP port between {PORTS.start} and {PORTS.stop} on 127.0.0.1.")


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts TCP connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


class Child:
    """A program of the stack, in a session of its own, writing to a log file of its own.

    It gets `death_signal` when this process ends, however it ends.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        user: User | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.log = log
        self._environment = environment
        self._folder = folder
        self._user = user
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log_began = 0

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ChildEnded: it was never started.
        """
        if self._process is None:
            raise ChildEnded(f"{self.name} was never started.")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; the log is appended to.

        Raises:
            RuntimeError: it runs already.
        """
        if self.running:
            raise RuntimeError(f"{self.name} is running already.")
        _starter.submit(self._spawn).result()

    def _spawn(self) -> None:
        uid, gid = ("-", "-") if self._user is None else (str(self._user.uid), str(self._user.gid))
        parent_death = [sys.executable, "-I", "-S", str(TETHER)]
        tied = [str(os.getpid()), str(int(self._stop_signal)), uid, gid]
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._log_began = os.fstat(descriptor).st_size
        try:
            self._process = subprocess.Popen(
                [*parent_death, *tied, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env=None if self._environment is None else dict(self._environment),
                cwd=self._folder,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            ChildEnded: it has ended by itself; says how, and ends with the tail of its log.
        """
        if self._process is None:
            raise ChildEnded(f"{self.name} was never started.")
        code = self._process.poll()
        if code is None:
            return
        how = (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        )
        raise ChildEnded(f"{self.name} {how}. The end of {self.log}:\n{self.log_tail()}")

    def stop(self, grace: float = 20.0) -> None:
        """Ask it to end, wait at most `grace` seconds, then kill it."""
        self._wait_for_spawn()
        if self._process is not None and self.running:
            self._process.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to it and all of its process group; returns when it is gone."""
        self._wait_for_spawn()
        if self._process is not None and self.running:  # else its id may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @staticmethod
    def _wait_for_spawn() -> None:
        """Let a start finish that an interrupt did not wait for, or its process would be missed."""
        _starter.submit(lambda: None).result()

    def has_said(self, text: str) -> bool:
        """Whether it has written this to its log since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_began)
            return text.encode() in log.read()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        try:
            text = self.log.read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:]) or "(empty)"

    def wait_for(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Wait until `condition()` is true, watching that the child lives on.

        Raises:
            ChildEnded: it ended instead.
            TimeoutError: it still is not so after `seconds`; the text carries the log's end.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            if condition():
                return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.name} runs, but is not {what} after {seconds:.0f} s. "
                    f"The end of {self.log}:\n{self.log_tail()}"
                )
            time.sleep(0.05)


class Server(ABC):
    """A server of ours, as a child that is started and ended again and again; it keeps its data.

    Attributes:
        name: what people call it.
        unavailable: raised where there is none.
    """

    name: ClassVar[str]
    unavailable: ClassVar[type[RuntimeError]]
    _child: Child | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def child(self) -> Child:
        """The server's process.

        Raises:
            RuntimeError: it was never started; of the kind `unavailable`.
        """
        if self._child is None:
            raise self.unavailable(f"The embedded {self.name} was never started.")
        return self._child

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start it; returns when it serves."""

    def stop(self) -> None:
        """End it in good order."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """SIGKILL; it recovers at the next start."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Stop and start again, at the same ports, with the same data."""
        self.stop()
        self.start()

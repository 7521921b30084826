import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from local.processes import Child, ChildEnded, free_port, listens

SLEEPS = [sys.executable, "-c", "import time; print('asleep', flush=True); time.sleep(600)"]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 120
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
@pytest.mark.parametrize("signal_to_parent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_end_when_their_parent_is_killed(
    tmp_path: Path, signal_to_parent: signal.Signals
) -> None:
    program = textwrap.dedent(f"""
        import signal, threading, time
        from pathlib import Path
        from local.processes import Child
        # A shell ignores it for what it runs in the background, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        child = Child("sleeper", {SLEEPS!r}, log=Path({str(tmp_path / "log")!r}))
        def start():
            child.start()
            child.wait_for(lambda: child.has_said("asleep"), seconds=20, what="asleep")
        # From a thread that ends: the child must outlive the thread, not the process.
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        time.sleep(0.3)
        child.check()
        print(child.pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        assert is_alive(child_pid)
        parent.send_signal(signal_to_parent)
        parent.wait()
    wait_until_gone(child_pid)


def test_a_child_that_ends_by_itself_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    says = [sys.executable, "-c", "import sys; print('no such carrier'); sys.exit(3)"]
    child = Child("worker", says, log=tmp_path / "worker.log")
    child.start()
    with pytest.raises(ChildEnded, match="worker ended with code 3") as error:
        child.wait_for(lambda: False, seconds=10, what="ready")
    assert "no such carrier" in str(error.value)


def test_a_child_that_does_not_get_ready_in_time_is_reported(tmp_path: Path) -> None:
    child = Child("api", SLEEPS, log=tmp_path / "api.log")
    child.start()
    try:
        with pytest.raises(TimeoutError, match="api runs, but is not ready after 1 s"):
            child.wait_for(lambda: False, seconds=1, what="ready")
    finally:
        child.kill()


def test_a_child_that_ignores_the_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); time.sleep(600)"
    )
    child = Child("stubborn", [sys.executable, "-c", stubborn], log=tmp_path / "log")
    child.start()
    child.wait_for(lambda: "deaf" in child.log_tail(), seconds=10, what="deaf")
    child.stop(grace=0.2)
    assert not child.running
    wait_until_gone(child.pid)


def test_a_child_that_was_killed_starts_again_and_what_it_said_before_no_longer_counts(
    tmp_path: Path,
) -> None:
    child = Child("worker", SLEEPS, log=tmp_path / "log")
    child.start()
    child.wait_for(lambda: child.has_said("asleep"), seconds=10, what="asleep")
    first = child.pid
    child.kill()
    with pytest.raises(ChildEnded, match="SIGKILL"):
        child.check()
    child.start()
    try:
        assert not child.has_said("asleep")
        child.wait_for(lambda: child.has_said("asleep"), seconds=10, what="asleep")
        assert child.pid != first
    finally:
        child.stop()


def test_logs_are_for_their_owner_alone(tmp_path: Path) -> None:
    child = Child("worker", ["true"], log=tmp_path / "log")
    child.start()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    child.stop()


def test_free_ports_are_free_and_never_given_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)
    assert not any(listens(port) for port in ports)
    assert all(port < 32_000 for port in ports), "outgoing connections could take these"


def test_the_tether_kills_itself_when_its_parent_is_already_gone() -> None:
    nobody_is_its_parent = "1" if os.getpid() != 1 else "2"
    parent_death = Path("local/parent_death.py").absolute()
    arguments = [nobody_is_its_parent, str(int(signal.SIGTERM)), "-", "-", "true"]
    done = subprocess.run([sys.executable, "-I", "-S", parent_death, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL

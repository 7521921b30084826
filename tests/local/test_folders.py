import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from local.folders import InUse, exclusively, is_abandoned, temporary_folder


def test_a_temporary_folder_is_ours_alone_and_gone_afterwards() -> None:
    with temporary_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        assert not is_abandoned(folder / "deep")
    assert not folder.exists()
    assert is_abandoned(folder / "deep")


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one_and_a_living_ones_is_not() -> (
    None
):
    program = textwrap.dedent("""
        import os, signal
        from local.folders import temporary_folder
        with temporary_folder() as folder:
            print(folder, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    with temporary_folder() as of_the_living:
        killed = subprocess.run(
            [sys.executable, "-c", program], check=False, capture_output=True, text=True
        )
        of_the_killed = Path(killed.stdout.strip())
        assert of_the_killed.is_dir()
        with temporary_folder():
            assert not of_the_killed.exists()
            assert of_the_living.is_dir()


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with (
        exclusively(tmp_path / "lock"),
        pytest.raises(InUse),
        exclusively(tmp_path / "lock"),
    ):
        pass
    with exclusively(tmp_path / "lock"):
        pass

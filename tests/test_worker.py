"""The worker as a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.processes import free_port

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.parametrize(("roles", "nicer"), [(["shares"], 5), (["providers", "shares"], 0)])
def test_a_worker_of_bulks_alone_lets_others_go_first(roles, nicer):
    with subprocess.Popen(
        [sys.executable, "worker.py", *(word for role in roles for word in ("--role", role))],
        cwd=CHECKOUT,
        env=os.environ
        | {
            "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/away",
            "SMSGATEWAY_RECIPIENT_HASH_KEY": "k" * 32,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as worker:
        try:
            assert worker.stdout is not None
            assert any("database" in line for line in worker.stdout), "it waits for its database"
            own = os.getpriority(os.PRIO_PROCESS, 0)
            assert os.getpriority(os.PRIO_PROCESS, worker.pid) == own + nicer
        finally:
            worker.terminate()

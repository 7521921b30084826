"""Foreign programs that check what we deploy."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker; without it a test is skipped by name, and fails where CI=true."""
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("promtool must be installed where CI=true (Debian's package: prometheus)")
    if found is None:
        pytest.skip("needs promtool, which is not installed (Debian's package: prometheus)")
    return found

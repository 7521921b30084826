"""Migrations that a later release might add."""

import os
from pathlib import Path

import pytest
from alembic.config import Config

from store import schema

SAMPLES = Path(__file__).parent / "migrations"


@pytest.fixture
def sample_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two migrations more than ours: one in a transaction, one concurrent with senders."""
    of_ours = schema._config

    def of_ours_and_samples() -> Config:
        config = of_ours()
        ours = schema._MIGRATIONS / "versions"
        config.set_main_option("version_locations", os.pathsep.join([str(ours), str(SAMPLES)]))
        return config

    monkeypatch.setattr(schema, "_config", of_ours_and_samples)

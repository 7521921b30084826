import io
import json
import logging

import pytest
import structlog

from settings.settings import LogFormat, LogLevel
from telemetry.logs import configure_logging


class Written:
    """What was logged, as it was written."""

    def __init__(self, out: io.StringIO) -> None:
        self._out = out

    @property
    def text(self) -> str:
        return self._out.getvalue()

    @property
    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def record(self) -> dict:
        (record,) = self.records
        return record


@pytest.fixture
def logged():
    """Logging as in production, into memory; pytest's own handlers come back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    configure_logging("test", level=LogLevel.DEBUG, log_format=LogFormat.JSON, out=out)
    yield Written(out)
    root.handlers, root.level = handlers, level
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()

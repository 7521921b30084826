"""Postgres servers that tests start for themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.postgres import PostgresServer


@contextmanager
def own_postgres(folder: Path) -> Iterator[PostgresServer]:
    """One that runs, and is gone afterwards with all that it held, wherever that lay."""
    server = PostgresServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.remove()

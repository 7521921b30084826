"""Versions of the configuration; the newest one holds."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from store.database import Connection, sql
from store.rows import Query

CHANNEL = "smsgateway_configuration"
"""NOTIFY channel; the payload is the new version."""


@dataclass(frozen=True, slots=True)
class StoredConfiguration:
    """A version of the configuration, as it was applied."""

    version: int
    content: str
    digest: bytes
    source: str
    applied_by: str
    created_at: datetime


_LATEST = Query.of(
    StoredConfiguration,
    """
SELECT version, content, digest, source, applied_by, created_at
FROM configurations ORDER BY version DESC LIMIT 1
""",
)
_LOCK = sql("SELECT pg_advisory_xact_lock(hashtextextended('configurations', 0))")
_ADD = Query.of(
    int,
    """
INSERT INTO configurations (content, digest, source, applied_by)
VALUES (:content, :digest, :source, :applied_by)
RETURNING version
""",
)
_LOADED = Query.of(
    bytes,
    """
SELECT digest FROM configurations WHERE source = :source ORDER BY version DESC LIMIT 1
""",
)
_NOTIFY = sql("SELECT pg_notify(:channel, :version)")


async def latest(connection: Connection) -> StoredConfiguration | None:
    """The configuration in force, or None before the first."""
    return await _LATEST.row(connection)


async def add(
    connection: Connection, content: str, *, source: str, applied_by: str
) -> tuple[int, bool]:
    """Store a version and notify every process, unless it equals the version in force.

    Returns the version in force, and whether it is new.
    """
    connection.send(_LOCK)
    digest = hashlib.sha256(content.encode()).digest()
    present = await latest(connection)
    if present is not None and present.digest == digest:
        return present.version, False
    added = await _ADD.row(
        connection,
        {"content": content, "digest": digest, "source": source, "applied_by": applied_by},
    )
    if added is None:
        message = "a configuration was not stored"
        raise LookupError(message)
    connection.send(_NOTIFY, {"channel": CHANNEL, "version": str(added)})
    return added, True


async def loaded_before(connection: Connection, content: str, source: str) -> bool:
    """Whether this very content is the last that was loaded from `source`.

    A file that did not change since then does not undo what was applied over the API meanwhile.
    """
    connection.send(_LOCK)
    last = await _LOADED.row(connection, {"source": source})
    return last == hashlib.sha256(content.encode()).digest()

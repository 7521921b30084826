"""Versions of the configuration; the newest one holds."""

import hashlib

from store.database import Connection, Row, sql

CHANNEL = "smsgateway_configuration"
"""NOTIFY channel; the payload is the new version."""

_LATEST = sql("""
SELECT version, content, digest, source, applied_by, created_at
FROM configurations ORDER BY version DESC LIMIT 1
""")
_LOCK = sql("SELECT pg_advisory_xact_lock(hashtextextended('configurations', 0))")
_ADD = sql("""
INSERT INTO configurations (content, digest, source, applied_by)
VALUES (:content, :digest, :source, :applied_by)
RETURNING version
""")
_LOADED = sql("""
SELECT digest FROM configurations WHERE source = :source ORDER BY version DESC LIMIT 1
""")
_NOTIFY = sql("SELECT pg_notify(:channel, :version)")


async def latest(connection: Connection) -> Row | None:
    """The configuration in force, or None before the first."""
    return await connection.row(_LATEST)


async def add(
    connection: Connection, content: str, *, source: str, applied_by: str
) -> tuple[int, bool]:
    """Store a version and tell every process, unless it is what holds already.

    Returns the version in force, and whether it is new.
    """
    connection.send(_LOCK)
    digest = hashlib.sha256(content.encode()).digest()
    present = await latest(connection)
    if present is not None and present["digest"] == digest:
        return int(present["version"]), False
    added = await connection.row(
        _ADD,
        {"content": content, "digest": digest, "source": source, "applied_by": applied_by},
    )
    if added is None:
        message = "a configuration was not stored"
        raise LookupError(message)
    connection.send(_NOTIFY, {"channel": CHANNEL, "version": str(added["version"])})
    return int(added["version"]), True


async def loaded_before(connection: Connection, content: str, source: str) -> bool:
    """Whether this very content is the last that was loaded from `source`.

    A file that did not change since then does not undo what was applied over the API meanwhile.
    """
    connection.send(_LOCK)
    last = await connection.row(_LOADED, {"source": source})
    return last is not None and last["digest"] == hashlib.sha256(content.encode()).digest()

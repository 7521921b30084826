"""What an error of Postgres calls for, by its SQLSTATE (PostgreSQL manual, appendix A).

Away: a new connection helps, sooner or later. Retry: the same transaction may succeed on the same
connection. Refused: the same statement with the same values fails each time.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Remedy(StrEnum):
    """What helps."""

    RECONNECT = "reconnect"
    """Close the connection and try again on a new one, perhaps to another server."""
    RETRY = "retry"
    """Try the transaction again; the connection is sound."""
    NONE = "none"
    """Refused for good. Repeating it only repeats the error."""


REMEDIES: Final[Mapping[str, Remedy]] = {
    # Classes, by their first two characters.
    "08": Remedy.RECONNECT,  # connection exception
    "28": Remedy.RECONNECT,  # login refused: a rotated password, or pg_hba.conf during a failover
    "40": Remedy.RETRY,  # rolled back for another transaction: deadlock, serialization failure
    "53": Remedy.RETRY,  # no disk, no memory: an operator makes room, and nothing may be lost
    "57": Remedy.RETRY,  # operator intervention, such as a statement that was cancelled
    "58": Remedy.RECONNECT,  # errors outside of Postgres, such as I/O: a replica may take over
    # Codes that differ from their class, or stand alone.
    "0A000": Remedy.NONE,  # not supported; also a cached plan after a migration, see `STALE`
    "25006": Remedy.RECONNECT,  # read-only transaction: this server was demoted to a replica
    "25P03": Remedy.RECONNECT,  # idle in a transaction for too long: the server ended the session
    "25P04": Remedy.RECONNECT,  # the transaction took too long: the server ended the session
    "26000": Remedy.RECONNECT,  # a prepared statement is gone: a pooler gave us another session
    "3D000": Remedy.RECONNECT,  # no such database: it is being restored
    "40002": Remedy.NONE,  # a constraint failed at the commit
    "53300": Remedy.RECONNECT,  # too many connections: refused while connecting
    "55006": Remedy.RETRY,  # object in use
    "55P03": Remedy.RETRY,  # lock not available within lock_timeout
    "57P01": Remedy.RECONNECT,  # the server shuts down, or somebody ended the session
    "57P02": Remedy.RECONNECT,  # another session crashed
    "57P03": Remedy.RECONNECT,  # the server starts up, or still recovers
    "57P04": Remedy.RECONNECT,  # the database was dropped, to be restored
    "57P05": Remedy.RECONNECT,  # idle for too long: the server ended the session
}
"""By SQLSTATE, else by its class; what stands for neither is refused: 22 values, 23 constraints, 42
names and rights, 54 limits (an index entry that is too long), and all others."""

STALE: Final = frozenset({"0A000", "26000"})
"""Errors of one connection's prepared statements: after a migration that changed the columns of a
result, each use of the statement fails on that connection and works on a new one."""

TIMED_OUT: Final = "57014"
"""query_canceled: statement_timeout was over."""


def remedy(sqlstate: str | None) -> Remedy:
    """What helps against an error with this SQLSTATE; None is an error of the connection itself."""
    if sqlstate is None:
        return Remedy.RECONNECT
    return REMEDIES.get(sqlstate) or REMEDIES.get(sqlstate[:2]) or Remedy.NONE

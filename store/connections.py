"""Connections to Postgres on which no wait is endless.

A host that lost its network acknowledges nothing: TCP gives up after minutes (`tcp_user_timeout`,
keepalives). A server process that hangs or is stopped is worse, since its kernel goes on acknowledging:
only a limit to each response, on our side, ends that wait.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import _WaitTimeout

_T = TypeVar("_T")

_POLL: Final = 0.1
_CANCEL_WITHIN: Final = 1.0
"""Seconds to reach the server with the request to cancel a statement."""

# An idle connection to a host that is gone is noticed after 10 + 3 * 3 s.
_KEEPALIVES: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
}


class NoResponse(psycopg.OperationalError):
    """The server did not respond in time. The connection is closed, since a response may still come."""


class BoundedConnection(psycopg.AsyncConnection[Any]):
    """A connection that is closed when the server does not respond within `silence` seconds."""

    silence: float
    generation: int = 0
    """Which of the pool's generations it is of; see `store.database`."""

    async def wait(
        self,
        gen: PQGen[_T],
        interval: float = _POLL,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's own signature
    ) -> _T:
        """Every trip to the server passes here; one with a timeout of its own only listens."""
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        try:
            return await super().wait(gen, interval, self.silence)
        except _WaitTimeout:
            self.pgconn.finish()
            raise NoResponse("the server does not respond") from None

    async def cancel_safe(
        self,
        *,
        timeout: float = _CANCEL_WITHIN,  # noqa: ASYNC109 - psycopg's own signature
    ) -> None:
        """As psycopg's; where the server does not take it in time, the connection is closed."""
        try:
            await super().cancel_safe(timeout=min(timeout, _CANCEL_WITHIN))
        except psycopg.Error:
            self.pgconn.finish()
            raise


def connection_parameters(
    url: str, *, timeout: timedelta, silence: timedelta, session: Mapping[str, str]
) -> dict[str, Any]:
    """The parameters of libpq (PostgreSQL manual, 34.1.2) for a URL; what the URL itself says wins.

    With several hosts in the URL, each is tried in order until one is found that can write.

    Args:
        url: as in DATABASE_URL.
        timeout: for a connection to one host.
        silence: how long data may stay unacknowledged.
        session: settings of the session, by name.
    """
    wanted = conninfo_to_dict(url)
    options = " ".join(f"-c {name}={value}" for name, value in session.items())
    return {
        **_KEEPALIVES,
        "tcp_user_timeout": int(silence.total_seconds() * 1000),
        "connect_timeout": max(2, int(timeout.total_seconds())),  # libpq takes 1 for 2
        # A replica, or a primary that was demoted, is no server for us.
        "target_session_attrs": "read-write",
        **wanted,
        "options": f"{options} {wanted.get('options') or ''}".strip(),
    }


async def connect(parameters: Mapping[str, Any], *, silence: timedelta) -> BoundedConnection:
    """Connect, within `connect_timeout` for each host, the lookup of its name included.

    Raises:
        psycopg.OperationalError: no host can be reached, or none can write.
    """
    hosts = str(parameters.get("host") or "").count(",") + 1
    try:
        # psycopg bounds the connection; a name server that is silent would hold up the rest.
        async with asyncio.timeout((hosts + 1) * int(parameters["connect_timeout"])):
            connection = await BoundedConnection.connect(
                autocommit=True, prepare_threshold=2, **parameters
            )
    except TimeoutError:
        raise NoResponse("no host was reached in time") from None
    connection.silence = silence.total_seconds()
    return connection


def place_of(url: str) -> str:
    """The host and port of a database's URL, for messages: neither user nor password."""
    parameters = conninfo_to_dict(url)
    return f"{parameters.get('host') or 'localhost'}:{parameters.get('port') or 5432}"

"""The wire: the one module that knows httpx."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from smsgateway.calls import Call, Response
from smsgateway.exchange import Lost, NeverSent, Outcome

CONNECT_SECONDS = 5.0
# Servers commonly let go of an idle connection after 5 s; letting go first avoids the race in which
# a request is written to a connection that is just being closed.
_KEPT_ALIVE_SECONDS = 4.0
# A proxy of the environment cannot reach this machine's own addresses.
_NEVER_BY_PROXY = ("all://localhost", "all://127.0.0.1", "all://[::1]")
# The request had not begun when these arose.
_BEFORE_SENDING = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
# Of the paths of all calls but those about health.
_VERSION = "/api/v1"
_REASONS: Mapping[type[httpx.TransportError], str] = {
    httpx.ConnectTimeout: "no connection came about in time",
    httpx.PoolTimeout: "all connections are in use",
    httpx.ReadTimeout: "no response came in time",
    httpx.WriteTimeout: "the request could not be written in time",
    httpx.RemoteProtocolError: "the connection was closed before the response",
}


class Wire:
    """What the blocking and the awaiting wire have in common.

    Args:
        address: the address of the API, `http(s)://host[:port][/prefix]`.
        headers: sent with every request.
        timeout: seconds for each write, and for each wait for bytes.
    """

    def __init__(self, address: str, headers: Mapping[str, str], timeout: float) -> None:
        self.address = checked_address(address)
        self._settings: dict[str, Any] = {
            "headers": headers,
            "timeout": httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
            "limits": httpx.Limits(keepalive_expiry=_KEPT_ALIVE_SECONDS),
            "mounts": dict.fromkeys(_NEVER_BY_PROXY),
            # A redirect would take the key elsewhere.
            "follow_redirects": False,
        }
        if self.address.startswith("http:"):
            # Reading the certificates of all authorities takes longer than a request; this context
            # trusts none of them.
            self._settings["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        return {
            "method": call.method,
            "url": self.address + call.path,
            "params": dict(call.query) or None,
            "headers": dict(call.headers),
            "content": call.body,
        }


class BlockingWire(Wire):
    """Exchanges calls for outcomes; may be used by several threads."""

    def __init__(self, address: str, headers: Mapping[str, str], timeout: float) -> None:
        super().__init__(address, headers, timeout)
        self._http = httpx.Client(**self._settings)

    def exchange(self, call: Call[Any]) -> Outcome:
        with _outcomes() as outcomes:
            outcomes.append(_response(self._http.request(**self._request(call))))
        return outcomes[0]

    def close(self) -> None:
        self._http.close()


class AwaitingWire(Wire):
    """Exchanges calls for outcomes, on one event loop."""

    def __init__(self, address: str, headers: Mapping[str, str], timeout: float) -> None:
        super().__init__(address, headers, timeout)
        self._http = httpx.AsyncClient(**self._settings)

    async def exchange(self, call: Call[Any]) -> Outcome:
        with _outcomes() as outcomes:
            outcomes.append(_response(await self._http.request(**self._request(call))))
        return outcomes[0]

    async def close(self) -> None:
        await self._http.aclose()


def checked_address(address: str) -> str:
    """The address of the API as it stands before `/api/v1`; raises ValueError if it cannot be one.

    It may be given with `/api/v1` and with slashes at its end.
    """
    try:
        parts = urlsplit(address.strip())
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or parts.username is not None or parts.query or parts.fragment:
        # The text is not repeated: it may hold a password.
        raise ValueError(
            "The address of the API is http:// or https://, a host, and perhaps a port and a path."
        )
    return address.strip().rstrip("/").removesuffix(_VERSION).rstrip("/")


@contextmanager
def _outcomes() -> Iterator[list[Outcome]]:
    """Converts what httpx raises into an outcome, whose text holds nothing of the request."""
    outcomes: list[Outcome] = []
    try:
        yield outcomes
    except _BEFORE_SENDING as error:
        outcomes.append(NeverSent(_reason(error)))
    except httpx.HTTPError as error:
        outcomes.append(Lost(_reason(error)))


def _reason(error: httpx.HTTPError) -> str:
    known = next((_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS), None)
    return known or str(error) or type(error).__name__


def _response(response: httpx.Response) -> Response:
    return Response(response.status_code, dict(response.headers), response.content)

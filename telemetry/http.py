"""Telemetry of each API request: a metric, a log line, a span; by path template, never by path.

Paths, query strings, headers and addresses of callers can hold personal data, so none of them is
read except `traceparent`, which joins our trace to the caller's.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from types import MappingProxyType
from typing import Any

import structlog

from telemetry import metrics
from telemetry.logs import get_logger
from telemetry.tracing import SpanKind, annotate, span

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FASTAPI_TELEMETRY_OFF: Any = MappingProxyType(
    dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
)
"""For `FastAPI(telemetry=…)`: its own telemetry would send out exceptions with their texts."""

_UNMATCHED = "unmatched"
_SERVER_ERROR = 500
_CLIENT_LEFT = 499  # nginx's word for it: nobody was there to take a response
# Queried every few seconds by whoever watches the process: counted, but not worth a line each.
_UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics"})

_log = get_logger(__name__)


class HttpTelemetry:
    """ASGI middleware, to be the outermost, so that it also sees what other middleware refuses."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        structlog.contextvars.clear_contextvars()
        started = time.perf_counter()
        status = _CLIENT_LEFT
        left = complete = False

        async def receiving() -> Message:
            nonlocal left
            message = await receive()
            # After a complete answer this only says that there is no more to read.
            left = left or (message["type"] == "http.disconnect" and not complete)
            return message

        async def sending(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start" and not left:
                status = int(message["status"])
            complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        method = str(scope["method"])
        with span(
            "http request", parent=_traceparent(scope), kind=SpanKind.SERVER, method=method
        ) as opened:
            try:
                await self._app(scope, receiving, sending)
            except Exception:
                if left:
                    status = _CLIENT_LEFT
                    return
                status = _SERVER_ERROR
                _log.exception("request_failed", method=method, route=route_template(scope))
                raise
            finally:
                seconds = time.perf_counter() - started
                route = route_template(scope)
                metrics.request_completed(
                    method=method, route=route, status=status, seconds=seconds
                )
                annotate(opened, route=route, status=status)
                if route not in _UNLOGGED:
                    _log.info(
                        "http_request",
                        method=method,
                        route=route,
                        status=status,
                        duration_ms=round(seconds * 1000, 1),
                    )


def route_template(scope: Scope) -> str:
    """The template of the route that took the request, such as "/api/v1/sms/{message_id}".

    FastAPI keeps a router that is included under a prefix as it is, and the whole template beside
    it; Starlette's routes have only their own.
    """
    effective = scope.get("fastapi", {}).get("effective_route_context")
    for route in (effective, scope.get("route")):
        path = getattr(route, "path_format", None) or getattr(route, "path", None)
        if isinstance(path, str) and path:
            return path
    return _UNMATCHED


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return str(value.decode("latin-1"))
    return None

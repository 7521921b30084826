"""What stands before all endpoints: what holds for all requests and responses."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect

from api.problems import unexpected

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class HeadAsGet:
    """Answers HEAD as GET without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, as GET if it is HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            scope["method"] = "HEAD"  # the server looks at it again
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # The scope itself, since those around this one look up the route in it.
        scope["method"] = "GET"
        await self._app(scope, receive, without_body)


class NotStored:
    """Forbids caches to keep what the API answers: some responses hold secrets, all hold data."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and forbid that its response is kept."""
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"cache-control", b"no-store")]
            await send(message)

        await self._app(scope, receive, marked)


class Unforeseen:
    """Responds with a problem document if an endpoint fails; only the log has the reason."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer for it if it fails before its response began."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        responding = False

        async def sending(message: Message) -> None:
            nonlocal responding
            responding = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            return  # nobody is there to take a response
        except Exception as error:
            if responding:
                raise
            await unexpected(error)(scope, receive, send)

"""What stands before all endpoints: a limit to bodies, and an answer to what nobody foresaw."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from api.problems import BODY_TOO_LARGE, Problem, unexpected

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyLimit:
    """Refuses a body that is too large as soon as that shows: by its length, or while reading.

    `most` is in bytes; `more` are the paths that take larger ones. A body that no endpoint reads
    is nobody's concern.
    """

    def __init__(self, app: App, most: int, more: Mapping[str, int]) -> None:
        self._app = app
        self._most = most
        self._more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = _announced(scope)
        most = self._more.get(scope["path"], self._most)
        came = 0

        async def counted() -> Message:
            nonlocal came
            if announced > most:
                raise _too_large(most)
            message = await receive()
            if message["type"] == "http.request":
                came += len(message.get("body", b""))
            if came > most:
                raise _too_large(most)
            return message

        await self._app(scope, counted, send)


def _too_large(most: int) -> Problem:
    return Problem(
        BODY_TOO_LARGE, f"The gateway reads bodies of at most {most} bytes here: send less."
    )


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


class Unforeseen:
    """Answers with a problem document where an endpoint failed; only the log tells why."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer for it if it fails before its answer began."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answering = False

        async def sending(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if answering:
                raise
            await unexpected(error)(scope, receive, send)

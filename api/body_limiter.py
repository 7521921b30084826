"""Limits of request bodies, in bytes and in time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from datetime import timedelta
from typing import Any

from api.problems import BODY_TOO_LARGE, REQUEST_TIMEOUT, Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyLimit:
    """Refuses a body that is too large, or too slow, as soon as that shows.

    `limits` are in bytes, by prefixes of paths, one of which is "/". All of a body arrives within
    `timeout` from when it is first asked for. A body that no endpoint reads is nobody's concern:
    once the response has begun, only whether the client is still there is asked for.
    """

    def __init__(self, app: App, limits: Mapping[str, int], timeout: timedelta) -> None:
        self._app = app
        self._limits = limits
        self._seconds = timeout.total_seconds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = _announced(scope)
        prefix = longest_prefix(self._limits, scope["path"])
        most = self._limits[prefix]
        loop = asyncio.get_running_loop()
        came = 0
        deadline: float | None = None
        ended = responding = False

        async def counted() -> Message:
            nonlocal came, deadline, ended
            if ended or responding:
                return await receive()
            if announced > most:
                raise _too_large(prefix, most)
            if deadline is None:
                deadline = loop.time() + self._seconds
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise Problem(REQUEST_TIMEOUT) from None
            ended = not message.get("more_body", False)
            if message["type"] == "http.request":
                came += len(message.get("body", b""))
            if came > most:
                raise _too_large(prefix, most)
            return message

        async def sending(message: Message) -> None:
            nonlocal responding
            responding = True
            await send(message)

        await self._app(scope, counted, sending)


def longest_prefix(prefixes: Iterable[str], path: str) -> str:
    """The longest of these prefixes that the path has, segment by segment; one of them is "/"."""
    return max((prefix for prefix in prefixes if _has(path, prefix)), key=len, default="/")


def _has(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.removesuffix("/") + "/")


def _too_large(prefix: str, most: int) -> Problem:
    where = "here" if prefix == "/" else f"for {prefix}"
    return Problem(
        BODY_TOO_LARGE, f"The gateway reads bodies of at most {most} bytes {where}: send less."
    )


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            # What has more digits is larger than any limit, and Python would not read it.
            return int(value[:_MOST_DIGITS])
    return 0


_MOST_DIGITS = 20

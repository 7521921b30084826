"""The class of all routes: what FastAPI leaves open about how a request comes in."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.dependencies import access_of, authorize
from api.problems import UNSUPPORTED_MEDIA_TYPE, Problem

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Endpoint(APIRoute):
    """A route that looks at who asks before it reads the body, which is JSON where it takes one.

    FastAPI by itself reads and parses the body first, of anybody.
    """

    async def admit(self, request: Request) -> None:
        """Let a request through by its key.

        Raises:
            UnknownKey, Problem: it has none, or one that may not do this.
        """
        access = access_of(self.dependant)
        if access is not None:
            await authorize(request, access)

    @asynccontextmanager
    async def parsed(self, request: Request) -> AsyncIterator[Request]:
        """The request as FastAPI is to parse it; for subclasses that parse the body themselves."""
        yield request

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, behind the checks of key and content type."""
        handle = super().get_route_handler()
        takes_json = self.body_field is not None

        async def checked(request: Request) -> Response:
            await self.admit(request)
            if takes_json and has_body(request):
                if media_type(request) != "application/json":
                    raise Problem(UNSUPPORTED_MEDIA_TYPE)
                async with self.parsed(request) as parsed:
                    return await handle(parsed)
            return await handle(request)

        return checked


def has_body(request: Request) -> bool:
    """Whether a request announces a body (RFC 9112, 6)."""
    length = request.headers.get("content-length")
    return "transfer-encoding" in request.headers or length not in {None, "0"}


def media_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()

"""The class of all routes: what FastAPI leaves open about how a request comes in."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.problems import UNSUPPORTED_MEDIA_TYPE, Problem

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Endpoint(APIRoute):
    """A route that takes JSON where it takes a body, and says so to whoever sends something else."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, behind the check of the content type."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def only_json(request: Request) -> Response:
            if has_body(request) and media_type(request) != "application/json":
                raise Problem(UNSUPPORTED_MEDIA_TYPE)
            return await handle(request)

        return only_json


def has_body(request: Request) -> bool:
    """Whether a request announces a body (RFC 9112, 6)."""
    length = request.headers.get("content-length")
    return "transfer-encoding" in request.headers or length not in {None, "0"}


def media_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()

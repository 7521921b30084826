"""The part of the control that carriers of every kind have: behaviour, throttle, messages, receipts."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.behaviour import AnyBehaviour
from simulator.control_requests import ReleaseRequest, ThrottleRequest, number_of, read
from simulator.steering import Steered

_Message = TypeVar("_Message")
_Kept = TypeVar("_Kept", covariant=True)  # noqa: PLC0105 - private


class Keeps(Protocol[_Kept]):
    """A carrier with the messages that it took."""

    @property
    def messages(self) -> Sequence[_Kept]: ...

    def forget(self) -> None: ...

    def release_receipts(self, *, newest_first: bool = False) -> int: ...


def route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=[method])


def port_taken(port: int) -> HTTPException:
    """An outage cannot end, since something else listens there."""
    return HTTPException(409, f"Port {port} is taken now; end what listens there, and try again.")


class CarrierEndpoints(ABC, Generic[AnyBehaviour, _Message]):
    """The endpoints of one carrier."""

    behaviour: ClassVar[type[Any]]
    """The model of its behaviour."""

    def __init__(self, steered: Steered[AnyBehaviour], keeps: Keeps[_Message]) -> None:
        """Both are the carrier."""
        self._steered = steered
        self._keeps = keeps

    @abstractmethod
    def state_json(self) -> dict[str, Any]:
        """The carrier's state and configuration, without the messages that it received."""

    @abstractmethod
    def counts_json(self) -> dict[str, Any]:
        """Everything that was counted, and the duplicates among the messages that are kept."""

    @abstractmethod
    def message_json(self, message: _Message) -> dict[str, Any]:
        """A message as GET /messages shows it."""

    def messages_json(self, limit: int) -> list[dict[str, Any]]:
        """The last messages, oldest first."""
        return [self.message_json(message) for message in self._keeps.messages[-limit:]]

    def routes(self, prefix: str) -> Sequence[Route]:
        return [
            route(f"{prefix}/state", "GET", self.state),
            route(f"{prefix}/counts", "GET", self.counts),
            route(f"{prefix}/messages", "GET", self.messages),
            route(f"{prefix}/messages", "DELETE", self.forget),
            route(f"{prefix}/behaviour", "PUT", self.set_behaviour),
            route(f"{prefix}/behaviour/{{number}}", "PUT", self.set_number),
            route(f"{prefix}/behaviour/{{number}}", "DELETE", self.forget_number),
            route(f"{prefix}/throttle", "POST", self.throttle),
            route(f"{prefix}/receipts/release", "POST", self.release),
        ]

    async def state(self, _: Request) -> Response:
        return JSONResponse(self.state_json())

    async def counts(self, _: Request) -> Response:
        return JSONResponse(self.counts_json())

    async def messages(self, request: Request) -> Response:
        limit = request.query_params.get("limit", "1000")
        if not limit.isdecimal() or int(limit) == 0:
            raise HTTPException(422, "limit: say with a number from 1 how many messages to show.")
        return JSONResponse(self.messages_json(int(limit)))

    async def forget(self, _: Request) -> Response:
        self._keeps.forget()
        return Response(status_code=204)

    async def set_behaviour(self, request: Request) -> Response:
        self._steered.set_default(await read(request, self.behaviour))
        return JSONResponse(self._steered.default.model_dump(mode="json"))

    async def set_number(self, request: Request) -> Response:
        behaviour = await read(request, self.behaviour)
        self._steered.set_number(number_of(request), behaviour)
        return JSONResponse(behaviour.model_dump(mode="json"))

    async def forget_number(self, request: Request) -> Response:
        self._steered.set_number(number_of(request), None)
        return Response(status_code=204)

    async def throttle(self, request: Request) -> Response:
        asked = await read(request, ThrottleRequest)
        self._steered.throttle(above=asked.above, next_submits=asked.next)
        return JSONResponse(asked.model_dump(mode="json"))

    async def release(self, request: Request) -> Response:
        asked = await read(request, ReleaseRequest)
        released = self._keeps.release_receipts(newest_first=asked.newest_first)
        return JSONResponse({"released": released})

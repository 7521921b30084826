"""The simulator's HTTP control: JSON for programs, one page for people.

Numbers and texts are shown only of documented test numbers; whatever else was sent to the
simulator belongs to somebody.
"""

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Self, TypeVar

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from domain.segments import PartMethod
from simulator.behaviour import TEST_NUMBERS, Behaviour, Outage, digits_of, is_documented
from simulator.inbox import Message
from simulator.page import render
from simulator.smsc import Smsc
from smpp.tlvs import Tag

_MAX_BODY: Final = 64 * 1024
_SHOWN_MESSAGES: Final = 100
_SHORTEST_NUMBER: Final = 7
_HIDDEN: Final = "(hidden)"


class _RequestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OutageRequest(_RequestModel):
    on: bool
    kind: Outage = Outage.NOT_LISTENING


class ResetRequest(_RequestModel):
    after_pdus: int | None = Field(default=None, ge=1)
    """None: now."""


class ThrottleRequest(_RequestModel):
    above: int | None = Field(default=None, ge=1)
    next: int = Field(default=0, ge=0)


class MoRequest(_RequestModel):
    source: str = Field(min_length=1, max_length=21)
    destination: str = Field(min_length=1, max_length=21)
    text: str = Field(min_length=1)
    system_id: str | None = None
    method: PartMethod = PartMethod.UDH8
    order: list[int] | None = Field(default=None, max_length=255)


class ReleaseRequest(_RequestModel):
    newest_first: bool = False


_Model = TypeVar("_Model", bound=BaseModel)


def shown_number(number: str) -> str:
    """A number as it may be shown: a documented one, a short code or a name; else hidden."""
    digits = digits_of(number)
    if is_documented(digits):
        return f"+{digits}"
    return number if not digits.isdecimal() or len(digits) < _SHORTEST_NUMBER else _HIDDEN


def state_of(smsc: Smsc) -> dict[str, Any]:
    """The simulator's state and configuration, without the messages that it received."""
    above, next_submits = smsc.throttling
    return {
        "name": smsc.name,
        "port": smsc.port,
        "outage": smsc.down,
        "binds": [
            {"system_id": s.system_id, "bind_type": s.bind_type, "peer": s.peer}
            for s in sorted(smsc.sessions, key=lambda s: (s.system_id, s.peer))
        ],
        "receipts_held": smsc.held,
        "waiting_for_an_esme": smsc.waiting,
        "throttle": {"above": above, "next": next_submits},
        "behaviour": smsc.default.model_dump(mode="json"),
        "numbers": {
            shown_number(number): behaviour.model_dump(mode="json")
            for number, behaviour in smsc.numbers.items()
            if is_documented(number)
        },
        "dialect": smsc.dialect.model_dump(mode="json"),
    }


def message_as_json(smsc: Smsc, message: Message) -> dict[str, Any]:
    """A message as GET /messages shows it."""
    is_shown = is_documented(message.destination)
    return {
        "source": shown_number(message.source),
        "destination": shown_number(message.destination),
        "text": message.text if is_shown else _HIDDEN,
        "complete": message.complete,
        "total_parts": message.total,
        "repeated_parts": message.repeated,
        "reference": message.reference,
        "parts": [
            {
                "number": part.number,
                "message_id": smsc.dialect.response_id(part.id),
                "state": part.state,
                "system_id": part.system_id,
                "data_coding": part.content.data_coding,
                "accepted_at": part.accepted_at.isoformat(),
                "validity_seconds": part.validity.total_seconds(),
                "tlvs": {
                    f"0x{tlv.tag:04X}": tlv.value.hex() if is_shown else _HIDDEN
                    for tlv in part.tlvs
                    if tlv.tag != Tag.MESSAGE_PAYLOAD
                },
            }
            for part in message.parts
        ],
    }


def counts_of(smsc: Smsc) -> dict[str, Any]:
    """Everything that was counted, and the duplicates among the messages that are kept."""
    return {
        **smsc.counts.as_json(),
        "duplicates_by_text": sum(smsc.inbox.duplicates(by="text").values()),
        "duplicates_by_reference": sum(smsc.inbox.duplicates(by="reference").values()),
        "duplicate_parts": smsc.inbox.duplicate_parts(),
    }


class _Endpoints:
    def __init__(self, smsc: Smsc) -> None:
        self._smsc = smsc

    async def page(self, _: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        messages = self._smsc.messages[-_SHOWN_MESSAGES:]
        page = render(
            state=state_of(self._smsc),
            counts=counts_of(self._smsc),
            messages=[message_as_json(self._smsc, message) for message in reversed(messages)],
            numbers=TEST_NUMBERS,
            nonce=nonce,
        )
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
        )
        return HTMLResponse(
            page, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        )

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def state(self, _: Request) -> Response:
        return JSONResponse(state_of(self._smsc))

    async def counts(self, _: Request) -> Response:
        return JSONResponse(counts_of(self._smsc))

    async def messages(self, request: Request) -> Response:
        limit = request.query_params.get("limit", "1000")
        if not limit.isdecimal() or int(limit) == 0:
            raise HTTPException(422, "limit: say with a number from 1 how many messages to show.")
        kept = self._smsc.messages
        return JSONResponse([message_as_json(self._smsc, m) for m in kept[-int(limit) :]])

    async def forget(self, _: Request) -> Response:
        self._smsc.forget()
        return Response(status_code=204)

    async def set_behaviour(self, request: Request) -> Response:
        self._smsc.set_default(await _read(request, Behaviour))
        return JSONResponse(self._smsc.default.model_dump(mode="json"))

    async def set_number(self, request: Request) -> Response:
        behaviour = await _read(request, Behaviour)
        self._smsc.set_number(_number(request), behaviour)
        return JSONResponse(behaviour.model_dump(mode="json"))

    async def forget_number(self, request: Request) -> Response:
        self._smsc.set_number(_number(request), None)
        return Response(status_code=204)

    async def outage(self, request: Request) -> Response:
        asked = await _read(request, OutageRequest)
        try:
            await self._smsc.outage(on=asked.on, kind=asked.kind)
        except OSError as why:
            raise HTTPException(
                409, f"Port {self._smsc.port} is taken now; end what listens there, and try again."
            ) from why
        return JSONResponse({"outage": self._smsc.down})

    async def reset(self, request: Request) -> Response:
        asked = await _read(request, ResetRequest)
        if asked.after_pdus is None:
            return JSONResponse({"reset": await self._smsc.reset_connections()})
        self._smsc.reset_after(asked.after_pdus)
        return JSONResponse({"after_pdus": asked.after_pdus})

    async def throttle(self, request: Request) -> Response:
        asked = await _read(request, ThrottleRequest)
        self._smsc.throttle(above=asked.above, next_submits=asked.next)
        return JSONResponse(asked.model_dump(mode="json"))

    async def mo(self, request: Request) -> Response:
        asked = await _read(request, MoRequest)
        try:
            deliveries = self._smsc.inject_mo(
                asked.source,
                asked.destination,
                asked.text,
                system_id=asked.system_id,
                method=asked.method,
                order=asked.order,
            )
        except ValueError as why:  # whose sentences hold neither texts nor numbers
            raise HTTPException(422, str(why)) from why
        return JSONResponse({"parts": len(deliveries)}, status_code=202)

    async def release(self, request: Request) -> Response:
        asked = await _read(request, ReleaseRequest)
        released = self._smsc.release_receipts(newest_first=asked.newest_first)
        return JSONResponse({"released": released})


async def _read(request: Request, model: type[_Model]) -> _Model:
    """The request's JSON body; an empty one has only defaults."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f"The body is longer than {_MAX_BODY} octets: shorten it.")
    try:
        return model.model_validate_json(bytes(body) or b"{}")
    except ValidationError as invalid:
        raise HTTPException(422, _in_words(invalid)) from None


def _in_words(invalid: ValidationError) -> str:
    # Places and rules, never the input: it may be somebody's number or text.
    errors = invalid.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'body'}: {_rule(error)}" for error in errors
    )


def _rule(error: ErrorDetails) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "there is no such field: take it out, or correct its name."
        case "missing":
            return "it is missing: add it."
        case "json_invalid":
            return "it is not JSON: check its quotes, commas and brackets."
        case "value_error":
            return f"{error['msg'].removeprefix('Value error, ').removesuffix('.')}."
        case _:
            return f"change the value: {error['msg'].replace('Input should be', 'it must be')}."


def _number(request: Request) -> str:
    number = str(request.path_params["number"])
    if not digits_of(number).isdecimal():
        raise HTTPException(
            422, "number: write it in the path as digits with or without a plus, +447700900123."
        )
    return number


async def _problem(_: Request, error: Exception) -> Response:
    """RFC 9457."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = (
        error.detail if isinstance(error, HTTPException) else "The simulator failed; see its log."
    )
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    body = {"type": "about:blank", "status": status, "title": _TITLES.get(status, "Error"),
            "detail": detail}  # fmt: skip
    return Response(
        json.dumps(body),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


_TITLES: Final = {
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Body too large",
    422: "Not understood",
    500: "Internal error",
}


def control_app(smsc: Smsc) -> Starlette:
    """The ASGI application that steers this SMSC."""
    does = _Endpoints(smsc)

    def route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
        return Route(path, endpoint, methods=[method])

    return Starlette(
        routes=[
            route("/", "GET", does.page),
            route("/healthz", "GET", does.healthz),
            route("/state", "GET", does.state),
            route("/counts", "GET", does.counts),
            route("/messages", "GET", does.messages),
            route("/messages", "DELETE", does.forget),
            route("/behaviour", "PUT", does.set_behaviour),
            route("/behaviour/{number}", "PUT", does.set_number),
            route("/behaviour/{number}", "DELETE", does.forget_number),
            route("/outage", "POST", does.outage),
            route("/reset", "POST", does.reset),
            route("/throttle", "POST", does.throttle),
            route("/mo", "POST", does.mo),
            route("/receipts/release", "POST", does.release),
        ],
        exception_handlers={HTTPException: _problem, Exception: _problem},
    )


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business, which may be a test's."""
        yield


class ControlServer:
    """The control application of an SMSC, served in this event loop; an asynchronous context manager."""

    def __init__(self, smsc: Smsc, host: str, port: int) -> None:
        """A server that listens once it is started; port 0 is a free one."""
        self._host = host
        self._port = port
        self._server = _Uvicorn(
            uvicorn.Config(
                control_app(smsc),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen; raises OSError when the port is taken."""
        listener = socket.create_server((self._host, self._port))
        self._port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise OSError("the control page did not come up")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving

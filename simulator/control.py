"""The simulator's HTTP control: JSON for programs, one page for people."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from simulator.carrier_control import route
from simulator.control_requests import problem
from simulator.page import CarrierView, render
from simulator.smsc import Smsc
from simulator.smsc_control import SmscEndpoints
from simulator.twilio import TwilioCarrier
from simulator.twilio_control import TwilioEndpoints

_SHOWN_MESSAGES: Final = 100
TWILIO: Final = "/twilio"
"""Prefix of the requests that control the simulated Twilio; those of the SMSC have none."""


@dataclass(frozen=True, slots=True)
class Carriers:
    """The carriers of a process.

    Attributes:
        smsc: the one for SMPP, if there is one.
        twilio: the one for HTTP, if there is one.
        others: the pages of other processes, by their carriers' names.
    """

    smsc: Smsc | None = None
    twilio: TwilioCarrier | None = None
    others: Mapping[str, str] = field(default_factory=dict)


class _Pages:
    def __init__(
        self, smsc: SmscEndpoints | None, twilio: TwilioEndpoints | None, others: Mapping[str, str]
    ) -> None:
        self._smsc = smsc
        self._twilio = twilio
        self._others = others

    async def page(self, _: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        page = render(
            smsc=_view(self._smsc), twilio=_view(self._twilio), others=self._others, nonce=nonce
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


def _view(endpoints: SmscEndpoints | TwilioEndpoints | None) -> CarrierView | None:
    if endpoints is None:
        return None
    return CarrierView(
        endpoints.state_json(),
        endpoints.counts_json(),
        list(reversed(endpoints.messages_json(_SHOWN_MESSAGES))),
    )


def control_app(carriers: Carriers) -> Starlette:
    """The ASGI application that steers these carriers."""
    smsc = None if carriers.smsc is None else SmscEndpoints(carriers.smsc)
    twilio = None if carriers.twilio is None else TwilioEndpoints(carriers.twilio)
    pages = _Pages(smsc, twilio, carriers.others)
    return Starlette(
        routes=[
            route("/", "GET", pages.page),
            route("/healthz", "GET", pages.healthz),
            *(smsc.routes("") if smsc else ()),
            *(twilio.routes(TWILIO) if twilio else ()),
        ],
        exception_handlers={HTTPException: problem, Exception: problem},
    )


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business, which may be a test's."""
        yield


class ControlServer:
    """The control application, served in this event loop; an asynchronous context manager."""

    def __init__(self, carriers: Carriers, host: str, port: int) -> None:
        """A server that listens once it is started; port 0 is a free one."""
        self._host = host
        self._port = port
        self._server = _Uvicorn(
            uvicorn.Config(
                control_app(carriers),
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

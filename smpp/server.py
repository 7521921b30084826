"""The SMSC's side: a listener whose sessions bind before they may do anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from smpp.commands import Command
from smpp.pdus import Pdu
from smpp.session import BindType, RequestHandler, Session
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv

if TYPE_CHECKING:
    import ssl

_BINDS: Final = {
    Command.BIND_TRANSMITTER: BindType.TRANSMITTER,
    Command.BIND_RECEIVER: BindType.RECEIVER,
    Command.BIND_TRANSCEIVER: BindType.TRANSCEIVER,
}
# What only an ESME that is bound to transmit may ask (SMPP 3.4, table 2-1).
_TO_TRANSMIT: Final = frozenset(
    {
        Command.SUBMIT_SM,
        Command.SUBMIT_MULTI,
        Command.DATA_SM,
        Command.QUERY_SM,
        Command.CANCEL_SM,
        Command.REPLACE_SM,
    }
)
_INTERFACE_VERSION: Final = Tlv(Tag.SC_INTERFACE_VERSION, b"\x34")


@dataclass(frozen=True, slots=True)
class BindRequest:
    """Who wants to bind, and how (SMPP 3.4, 4.1); `peer` is host:port."""

    system_id: str
    password: str = field(repr=False)
    system_type: str
    bind_type: BindType
    interface_version: int
    address_range: str
    peer: str


BindHandler: TypeAlias = Callable[[Session, BindRequest], Awaitable[int]]


class Server:
    """Accepts binds. `sessions` are the bound ones, with their `bind_type` and `system_id`.

    `on_bind` returns the command_status of the response; with 0 the session is bound. `on_request` is
    called for the requests that a bound session may send; others are refused with ESME_RINVBNDSTS. A
    client that does not bind within `bind_timeout` seconds is disconnected. `on_closed` is called for
    bound sessions.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        on_bind: BindHandler,
        on_request: RequestHandler,
        on_closed: Callable[[Session], None] | None = None,
        tls: ssl.SSLContext | None = None,
        system_id: str = "smsc",
        window: int = 100,
        enquire_link_interval: float | None = 30.0,
        response_timeout: float = 10.0,
        bind_timeout: float = 10.0,
        max_handlers: int = 1000,
    ) -> None:
        self.sessions: set[Session] = set()
        self.port = port
        self._host = host
        self._on_bind = on_bind
        self._on_request = on_request
        self._on_closed = on_closed
        self._tls = tls
        self._system_id = system_id.encode()
        self._window = window
        self._enquire_link_interval = enquire_link_interval
        self._response_timeout = response_timeout
        self._bind_timeout = bind_timeout
        self._max_handlers = max_handlers
        self._listener: asyncio.Server | None = None
        self._unbound: dict[Session, asyncio.TimerHandle] = {}
        self._binding: set[Session] = set()
        self._endings: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen, and return the port: the given one, or a free one for 0."""
        self._listener = await asyncio.get_running_loop().create_server(
            self._new_session, self._host, self.port, ssl=self._tls
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        return self.port

    async def stop(self, *, graceful: bool = True) -> None:
        """Take no more connections, and end those there are: by unbind, or at once."""
        if self._listener is not None:
            self._listener.close()
        ends = [s.unbind() if graceful else s.close() for s in self.sessions]
        ends += [session.close("the server stops") for session in self._unbound]
        await asyncio.gather(*ends, *self._endings)
        if self._listener is not None:
            await self._listener.wait_closed()

    def _new_session(self) -> Session:
        return Session(
            on_request=self._take,
            name="unbound",
            window=self._window,
            enquire_link_interval=self._enquire_link_interval,
            response_timeout=self._response_timeout,
            max_handlers=self._max_handlers,
            on_opened=self._opened,
            on_closed=self._closed,
        )

    def _opened(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        self._unbound[session] = loop.call_later(self._bind_timeout, self._bind_overdue, session)

    def _bind_overdue(self, session: Session) -> None:
        ending = asyncio.get_running_loop().create_task(session.close("the bind is overdue"))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _closed(self, session: Session) -> None:
        overdue = self._unbound.pop(session, None)
        if overdue is not None:
            overdue.cancel()
        if session in self.sessions:
            self.sessions.discard(session)
            if self._on_closed is not None:
                self._on_closed(session)

    async def _take(self, session: Session, pdu: Pdu) -> Pdu | None:
        bind_type = _BINDS.get(pdu.command)
        if bind_type is not None:
            return await self._bind(session, pdu, bind_type)
        if pdu.command is Command.OUTBIND or pdu.command is Command.ALERT_NOTIFICATION:
            return None  # an SMSC's to send; neither has a response
        if session not in self.sessions or (
            session.bind_type is BindType.RECEIVER and pdu.command in _TO_TRANSMIT
        ):
            return pdu.reply(Status.ESME_RINVBNDSTS)
        return await self._on_request(session, pdu)

    async def _bind(self, session: Session, pdu: Pdu, bind_type: BindType) -> Pdu:
        if session in self.sessions or session in self._binding:
            return pdu.reply(Status.ESME_RALYBND)
        request = BindRequest(
            system_id=pdu.octets("system_id").decode("latin-1"),
            password=pdu.octets("password").decode("latin-1"),
            system_type=pdu.octets("system_type").decode("latin-1"),
            bind_type=bind_type,
            interface_version=pdu.number("interface_version"),
            address_range=pdu.octets("address_range").decode("latin-1"),
            peer=session.peer,
        )
        self._binding.add(session)
        try:
            status = await self._on_bind(session, request)
        finally:
            self._binding.discard(session)
        if status != Status.ESME_ROK:
            return pdu.reply(status)
        overdue = self._unbound.pop(session, None)
        if overdue is not None:  # else it is gone already
            overdue.cancel()
            session.bind_type = bind_type
            session.system_id = request.system_id
            session.name = f"{request.system_id}@{request.peer}"
            self.sessions.add(session)
        return pdu.reply(Status.ESME_ROK, {"system_id": self._system_id}, (_INTERFACE_VERSION,))

"""An SMSC on `smpp.server` whose every response a test decides; it speaks the real protocol."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from smpp.client import connect
from smpp.commands import Command
from smpp.pdus import Pdu
from smpp.server import BindRequest, Server
from smpp.session import BindType, Session
from smpp.statuses import Status


class ScriptedSmsc:
    """A server whose answers a test can script; by default it accepts everything."""

    def __init__(self, **options: Any) -> None:
        self.received: list[Pdu] = []
        self.binds: list[BindRequest] = []
        self.closed: list[Session] = []
        self.bind_status: int = Status.ESME_ROK
        self.refused: frozenset[BindType] = frozenset()
        """What may not bind."""
        self.response: Callable[[Session, Pdu], Awaitable[Pdu | None]] = self.accept
        self.server = Server(
            "127.0.0.1",
            0,
            on_bind=self._on_bind,
            on_request=self._on_request,
            on_closed=self.closed.append,
            **options,
        )

    async def _on_bind(self, session: Session, request: BindRequest) -> int:
        self.binds.append(request)
        return Status.ESME_RBINDFAIL if request.bind_type in self.refused else self.bind_status

    async def _on_request(self, session: Session, pdu: Pdu) -> Pdu | None:
        self.received.append(pdu)
        return await self.response(session, pdu)

    async def accept(self, session: Session, pdu: Pdu) -> Pdu | None:
        if pdu.command is Command.SUBMIT_SM:
            return pdu.reply(fields={"message_id": b"%d" % len(self.received)})
        return pdu.reply()

    async def silence(self, session: Session, pdu: Pdu) -> Pdu | None:
        return None

    @property
    def session(self) -> Session:
        """The only bound session."""
        (session,) = self.server.sessions
        return session

    async def connect(self, **options: Any) -> Session:
        options = {
            "system_id": "acme",
            "password": "secret",
            "on_request": _acknowledge,
            **options,
        }
        return await connect("127.0.0.1", self.server.port, **options)


async def _acknowledge(session: Session, pdu: Pdu) -> Pdu | None:
    return pdu.reply()


async def until(condition: Callable[[], object], within: float = 120) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.002)

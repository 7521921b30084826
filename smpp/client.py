"""The ESME's side: connect and bind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from smpp.commands import Command
from smpp.pdus import MalformedPdu
from smpp.session import BindType, MalformedHandler, RequestHandler, Session, SessionError
from smpp.statuses import Status, status_name

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_BINDS: Final = {
    BindType.TRANSMITTER: Command.BIND_TRANSMITTER,
    BindType.RECEIVER: Command.BIND_RECEIVER,
    BindType.TRANSCEIVER: Command.BIND_TRANSCEIVER,
}


class ConnectFailed(Exception):
    """No SMSC there, or none that answered the bind in time."""


class BindRefused(Exception):
    """The SMSC said no; `status` is its command_status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"bind refused: {status_name(status)}")
        self.status = status


async def connect(
    host: str,
    port: int,
    *,
    system_id: str,
    password: str,
    system_type: str = "",
    bind_type: BindType = BindType.TRANSCEIVER,
    interface_version: int = 0x34,
    addr_ton: int = 0,
    addr_npi: int = 0,
    address_range: str = "",
    tls: ssl.SSLContext | None = None,
    connect_timeout: float = 10.0,
    window: int = 10,
    enquire_link_interval: float | None = 30.0,
    response_timeout: float = 10.0,
    max_handlers: int = 500,
    name: str = "",
    on_request: RequestHandler,
    on_malformed: MalformedHandler | None = None,
    on_irregular: Callable[[int, bool], None] | None = None,
    on_closed: Callable[[Session], None] | None = None,
) -> Session:
    """Connect, bind and return the bound session (SMPP 3.4, 4.1).

    `connect_timeout`, in seconds, bounds all of it: name, TCP, TLS and bind. `on_request` may be
    called before this returns, since an SMSC may deliver right behind its bind_resp. `on_malformed`
    and `on_irregular` are those of `Session`.

    Raises:
        ConnectFailed: the connection or the response to the bind did not come about, or the name of
            the host cannot be looked up (UnicodeError).
        BindRefused: the SMSC answered with an error.
        FieldError: system_id, password or another field is longer than SMPP has room for.
    """
    loop = asyncio.get_running_loop()
    session: Session | None = None
    try:
        async with asyncio.timeout(connect_timeout):
            _, session = await loop.create_connection(
                lambda: Session(
                    on_request=on_request,
                    name=name or f"{host}:{port}",
                    window=window,
                    enquire_link_interval=enquire_link_interval,
                    response_timeout=response_timeout,
                    max_handlers=max_handlers,
                    on_malformed=on_malformed,
                    on_irregular=on_irregular,
                    on_closed=on_closed,
                ),
                host,
                port,
                ssl=tls,
            )
            session.bind_type = bind_type
            session.system_id = system_id
            response = await session.request(
                _BINDS[bind_type],
                {
                    "system_id": system_id.encode(),
                    "password": password.encode("utf-8", "surrogateescape"),
                    "system_type": system_type.encode(),
                    "interface_version": interface_version,
                    "addr_ton": addr_ton,
                    "addr_npi": addr_npi,
                    "address_range": address_range.encode(),
                },
                timeout=connect_timeout,
            )
    except TimeoutError as error:
        await _give_up(session)
        raise ConnectFailed(f"no answer within {connect_timeout:g} s") from error
    except (OSError, SessionError, MalformedPdu, UnicodeError) as error:
        await _give_up(session)
        raise ConnectFailed(f"{type(error).__name__}: {error}") from error
    except BaseException:
        await _give_up(session)
        raise
    if response.status != Status.ESME_ROK or response.command is Command.GENERIC_NACK:
        await _give_up(session)
        raise BindRefused(response.status or Status.ESME_RBINDFAIL)
    return session


async def _give_up(session: Session | None) -> None:
    if session is not None:
        await session.close("the bind failed")

"""The sessions with one SMSC: bound, and bound again whenever they end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from typing import TYPE_CHECKING, Final

import structlog

from domain.configuration import BindStyle
from smpp.client import BindRefused, ConnectFailed, connect
from smpp.pdus import FieldError, status_name
from smpp.session import BindType
from telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from domain.configuration import SmppProvider as SmppConfiguration
    from domain.configuration import TlsOptions
    from smpp.session import RequestHandler, Session

_log = structlog.get_logger(logger_name=__name__)

# A bind that stood so many seconds was a good one: the next try to bind does not wait long.
_STEADY: Final = 10.0
# Beyond the time for answers, how long an SMSC may take to say good-bye.
_GOODBYE: Final = 1.0

_BIND_TYPES: Final[Mapping[BindStyle, tuple[BindType, ...]]] = {
    BindStyle.TRANSCEIVER: (BindType.TRANSCEIVER,),
    BindStyle.TRANSMITTER_RECEIVER: (BindType.TRANSMITTER, BindType.RECEIVER),
}


class _Bind:
    """A session that is wanted; `session` is there while it is bound."""

    def __init__(self, provider: str, number: int, bind_type: BindType) -> None:
        self.name = f"{provider}/{number}{'r' if bind_type is BindType.RECEIVER else ''}"
        self.number = number
        self.bind_type = bind_type
        self.session: Session | None = None


class Binds:
    """All sessions of one provider; each has its name, such as "primary/1".

    With `bind = "transmitter_receiver"` each of `configuration.binds` is a pair of sessions, whose
    receivers have an "r" at the end of their names. None is bound before `hold`. `on_change` is called
    whenever a session can be used that could not, or the other way.

    Raises:
        OSError, ssl.SSLError: a file of `configuration.tls` cannot be read or used.
    """

    def __init__(
        self,
        provider: str,
        configuration: SmppConfiguration,
        password: str,
        on_request: RequestHandler,
        on_change: Callable[[], None],
    ) -> None:
        self._provider = provider
        self._configuration = configuration
        self._password = password
        self._on_request = on_request
        self._on_change = on_change
        self._tls = _tls_context(configuration.tls)
        self._binds = [
            _Bind(provider, number, bind_type)
            for number in range(1, configuration.binds + 1)
            for bind_type in _BIND_TYPES[configuration.bind]
        ]
        # Kept, since each message asks for them; `_changed` renews it.
        self._senders: list[Session] = []
        self._keepers: dict[_Bind, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def transmitting(self) -> Sequence[Session]:
        """The sessions that messages may be sent over now."""
        return [session for session in self._senders if session.is_open]

    def open_windows(self) -> int:
        """How many submits may be unanswered at once, over all sessions."""
        return sum([session.window for session in self._senders if session.is_open])

    def freest(self, *, but: Collection[Session] = ()) -> Session | None:
        """The session with the most room in its window; those of `but` are spared."""
        freest, most = None, 0
        for session in self._senders:
            room = session.window - session.in_flight
            if room > most and session.is_open and session not in but:
                freest, most = session, room
        return freest

    @property
    def held(self) -> int:
        """How many binds are kept up, or being ended."""
        return len({bind.number for bind in self._keepers})

    async def hold(self, binds: int, drain_timeout: float) -> None:
        """Keep so many binds up, in the background, for ever; those beyond are ended.

        Answers to what these have sent are waited for `drain_timeout` seconds.
        """
        for bind in self._binds:
            if bind.number <= binds and bind not in self._keepers:
                keeping = asyncio.get_running_loop().create_task(self._keep_bound(bind))
                self._keepers[bind] = keeping
        self._changed()
        surplus = [bind for bind in self._keepers if bind.number > binds]
        await asyncio.gather(*[self._end(bind, drain_timeout) for bind in surplus])

    async def _end(self, bind: _Bind, drain_timeout: float) -> None:
        keeper = self._keepers[bind]
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        if bind.session is not None:
            await _say_goodbye(bind.session, drain_timeout)
            bind.session = None
        self._keepers.pop(bind, None)
        self._changed()

    async def stop(self, drain_timeout: float) -> None:
        """Bind no more, and unbind; answers are waited for `drain_timeout` seconds."""
        await self.hold(0, drain_timeout)
        await asyncio.gather(*self._endings, return_exceptions=True)

    def begin_anew(self, session: Session) -> None:
        """End a session that the SMSC does not think bound; it is bound again after a while."""
        if session.is_open:
            ending = asyncio.get_running_loop().create_task(session.unbind())
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def _keep_bound(self, bind: _Bind) -> None:
        backoff = self._configuration.rebind_backoff
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            session = await self._try_to_bind(bind)
            if session is not None:
                bound_at = loop.time()
                await self._stay_bound(bind, session)
                if loop.time() - bound_at >= _STEADY:
                    failures = 0
            pause = min(backoff.max, backoff.min * 2 ** min(failures, 30)).total_seconds()
            failures += 1
            # Many binds that were lost at once should not come back at once.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - nobody's secret

    async def _try_to_bind(self, bind: _Bind) -> Session | None:
        configuration = self._configuration
        try:
            return await connect(
                configuration.host,
                configuration.port,
                system_id=configuration.system_id,
                password=self._password,
                system_type=configuration.system_type,
                bind_type=bind.bind_type,
                tls=self._tls,
                connect_timeout=configuration.connect_timeout.total_seconds(),
                window=configuration.window,
                enquire_link_interval=configuration.enquire_link.total_seconds(),
                response_timeout=configuration.response_timeout.total_seconds(),
                name=bind.name,
                on_request=self._on_request,
            )
        except BindRefused as refused:
            why = {"reason": "bind_refused", "code": status_name(refused.status)}
        except ConnectFailed as failed:
            why = {"reason": "connect_failed", "error_type": type(failed.__cause__).__name__}
        except FieldError:
            # The secret is the one field whose length could not be checked when it was declared.
            why = {"reason": "password_too_long"}
        _log.warning("bind_failed", provider=self._provider, bind=bind.name, **why)
        return None

    async def _stay_bound(self, bind: _Bind, session: Session) -> None:
        bind.session = session
        _log.info("bind_up", provider=self._provider, bind=bind.name)
        self._changed()
        await session.draining.wait()
        self._changed()
        await session.closed.wait()
        bind.session = None
        reason = session.close_reason.replace(" ", "_")
        _log.warning("bind_down", provider=self._provider, bind=bind.name, reason=reason)
        self._changed()

    def _changed(self) -> None:
        self._senders = [
            bind.session
            for bind in self._binds
            if bind.bind_type is not BindType.RECEIVER and bind.session is not None
        ]
        up = sum(bind.session is not None and bind.session.is_open for bind in self._binds)
        metrics.binds_counted(self._provider, {"up": up, "down": len(self._keepers) - up})
        self._on_change()


async def _say_goodbye(session: Session, drain_timeout: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(drain_timeout + _GOODBYE):
            await session.unbind(drain_timeout=drain_timeout)
    await session.close()


def _tls_context(options: TlsOptions | None) -> ssl.SSLContext | None:
    if options is None:
        return None
    context = ssl.create_default_context(cafile=options.ca)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert is not None:
        context.load_cert_chain(options.cert, options.key)
    return context

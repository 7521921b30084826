"""The sessions with one SMSC: bound, and bound again whenever they end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from domain.binds import BindError, BindFailure, latest
from domain.configuration.providers.smpp import BindStyle
from providers.connections import connect_failure, tls_context
from smpp.client import BindRefused, ConnectFailed, connect
from smpp.commands import command_name
from smpp.fields import FieldError
from smpp.session import BindType
from smpp.statuses import status_name
from telemetry import metrics
from telemetry.supervision import supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from domain.configuration.providers.smpp import SmppConfiguration
    from smpp.session import MalformedHandler, RequestHandler, Session

_log = structlog.get_logger(logger_name=__name__)

# A bind that stood so many seconds was a good one: the next try to bind does not wait long.
_STEADY: Final = 10.0
# Beyond the time for responses, how long an SMSC may take to say good-bye.
_GOODBYE: Final = 1.0

_BIND_TYPES: Final[Mapping[BindStyle, tuple[BindType, ...]]] = {
    BindStyle.TRANSCEIVER: (BindType.TRANSCEIVER,),
    BindStyle.TRANSMITTER_RECEIVER: (BindType.TRANSMITTER, BindType.RECEIVER),
}


class _Bind:
    """A session that is wanted; `session` is there while it is bound.

    `error` is why it is not bound, or, with an `ended_at`, why it was not before.
    """

    def __init__(self, provider: str, number: int, bind_type: BindType) -> None:
        self.name = f"{provider}/{number}{'r' if bind_type is BindType.RECEIVER else ''}"
        self.number = number
        self.bind_type = bind_type
        self.session: Session | None = None
        self.error: BindError | None = None

    def failed(self, reason: BindFailure, code: str | None = None) -> None:
        self.error = BindError(reason, code, self.bind_type.value, at=datetime.now(UTC))

    def bound(self, session: Session) -> None:
        self.session = session
        if self.error is not None:
            self.error = replace(self.error, ended_at=datetime.now(UTC))


class Binds:
    """All sessions of one provider; each has its name, such as "primary/1".

    With `bind = "transmitter_receiver"` each of `configuration.binds` is a pair of sessions, whose
    receivers have an "r" at the end of their names. None is bound before `hold`. `on_change` is called
    whenever a session becomes usable or unusable.

    If the configuration promises receipts, messages are sent only while a session is bound that can
    receive them: a transceiver or a receiver. Otherwise `last_error` names what is missing.

    Raises:
        TlsFileUnusable: a file of `configuration.tls` cannot be read or used.
    """

    def __init__(
        self,
        provider: str,
        configuration: SmppConfiguration,
        password: str,
        on_request: RequestHandler,
        on_malformed: MalformedHandler,
        on_change: Callable[[], None],
    ) -> None:
        self._provider = provider
        self._configuration = configuration
        self._password = password
        self._on_request = on_request
        self._on_malformed = on_malformed
        self._on_change = on_change
        self._tls = tls_context(configuration.tls)
        self._binds = [
            _Bind(provider, number, bind_type)
            for number in range(1, configuration.binds + 1)
            for bind_type in _BIND_TYPES[configuration.bind]
        ]
        # Kept, since each message asks for them; `_changed` renews them.
        self._senders: list[Session] = []
        self._receivers: list[Session] = []
        self._keepers: dict[_Bind, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def transmitting(self) -> Sequence[Session]:
        """The sessions that messages may be sent over now."""
        if not self._can_receive():
            return []
        return [session for session in self._senders if session.is_open]

    def open_windows(self) -> int:
        """How many submits may be unanswered at once, over all sessions."""
        if not self._can_receive():
            return 0
        return sum([session.window for session in self._senders if session.is_open])

    def _can_receive(self) -> bool:
        """Whether a session is bound by which receipts come, or none are expected."""
        if not self._configuration.receipts:
            return True
        return any(session.is_open for session in self._receivers)

    @property
    def last_error(self) -> BindError | None:
        """Why a session that is kept up is not bound just now, or was not at last."""
        return latest(bind.error for bind in self._keepers if bind.error is not None)

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

        Responses to what these have sent are waited for `drain_timeout` seconds.
        """
        for bind in self._binds:
            if bind.number <= binds and bind not in self._keepers:
                keeping = supervised(
                    partial(self._keep_bound, bind),
                    "keep_bound",
                    provider=self._provider,
                    bind=bind.name,
                )
                self._keepers[bind] = asyncio.get_running_loop().create_task(keeping)
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
        bind.error = None
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
                on_malformed=self._on_malformed,
                on_irregular=self._count_irregular,
            )
        except BindRefused as refused:
            bind.failed(BindFailure.BIND_REFUSED, status_name(refused.status))
            why = {"reason": "bind_refused", "code": status_name(refused.status)}
        except ConnectFailed as failed:
            reason, code = connect_failure(failed.__cause__)
            bind.failed(reason, code)
            why = {"reason": reason, "error_type": type(failed.__cause__).__name__}
        except FieldError:
            # The secret is the one field whose length could not be checked when it was declared.
            bind.failed(BindFailure.PASSWORD_TOO_LONG)
            why = {"reason": "password_too_long"}
        except Exception as error:
            bind.failed(BindFailure.UNEXPECTED, type(error).__name__)
            self._count_errors()
            raise
        self._count_errors()
        _log.warning("bind_failed", provider=self._provider, bind=bind.name, **why)
        return None

    def _count_irregular(self, command_id: int, is_malformed: bool) -> None:
        metrics.pdu_irregular(
            provider=self._provider,
            command=command_name(command_id),
            outcome="malformed" if is_malformed else "read",
        )

    async def _stay_bound(self, bind: _Bind, session: Session) -> None:
        bind.bound(session)
        _log.info("bind_up", provider=self._provider, bind=bind.name)
        self._changed()
        await session.draining.wait()
        self._changed()
        await session.closed.wait()
        bind.session = None
        reason = session.close_reason.replace(" ", "_")
        bind.failed(BindFailure.SESSION_ENDED, reason)
        _log.warning("bind_down", provider=self._provider, bind=bind.name, reason=reason)
        self._changed()

    def _changed(self) -> None:
        self._senders = [
            bind.session
            for bind in self._binds
            if bind.bind_type is not BindType.RECEIVER and bind.session is not None
        ]
        self._receivers = [
            bind.session
            for bind in self._binds
            if bind.bind_type is not BindType.TRANSMITTER and bind.session is not None
        ]
        up = sum(bind.session is not None and bind.session.is_open for bind in self._binds)
        metrics.binds_counted(self._provider, {"up": up, "down": len(self._keepers) - up})
        self._count_errors()
        self._on_change()

    def _count_errors(self) -> None:
        errors = (bind.error for bind in self._keepers if bind.error is not None)
        metrics.bind_errors_counted(
            self._provider, Counter(error.reason for error in errors if error.is_current)
        )


async def _say_goodbye(session: Session, drain_timeout: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(drain_timeout + _GOODBYE):
            await session.unbind(drain_timeout=drain_timeout)
    await session.close()

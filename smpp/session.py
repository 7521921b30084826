"""One SMPP connection, the same for both roles: ESME (`smpp.client`) and SMSC (`smpp.server`).

A `Session` is an `asyncio.Protocol` and not a pair of streams, since a bind under load is all small
PDUs: frames are cut where they arrive, answers wake their waiter without a task in between, and
what is written in one turn of the event loop leaves in one call of the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Final, TypeAlias, cast

import structlog

from smpp.commands import RESPONSE_BIT, Command
from smpp.fields import NO_FIELDS, Fields
from smpp.frames import FrameReader, MalformedStream
from smpp.pdus import MAX_SEQUENCE, MalformedPdu, Pdu, decode, encode
from smpp.statuses import Status
from smpp.tlvs import Tlv

_log = structlog.get_logger(logger_name=__name__)

# How long a peer that unbinds, or that does not take our last octets, holds up the end.
_PARTING_GRACE: Final = 1.0
# Requests of the peer that wait for a handler. With so many nothing more is read, so that the peer's
# own buffers fill: many peers drop a receipt that is answered with ESME_RTHROTTLED.
_MAX_BACKLOG: Final = 1000
# Frames that wait for a peer that does not read; one more ends the session.
_MAX_OUTGOING: Final = 10_000
# Requests without a response in time whose answer is still expected.
_MAX_LATE: Final = 1000
# struct linger: on, 0 s. The close then sends a reset.
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


class BindType(StrEnum):
    """What a bind may carry (SMPP 3.4, 2.2)."""

    TRANSMITTER = "transmitter"
    RECEIVER = "receiver"
    TRANSCEIVER = "transceiver"


class SessionError(Exception):
    """A request that got no response.

    `sent` is whether the PDU may have reached the peer: if so, its outcome is unknown; if not, it
    never left.
    """

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(f"{why} ({'sent, outcome unknown' if sent else 'not sent'})")
        self.sent = sent


class SessionClosed(SessionError):
    """The session ended, or is draining, before the response."""


class ResponseTimeout(SessionError):
    """No answer in time. `late` is done when the response still comes, or with SessionClosed."""

    def __init__(self, why: str, *, sent: bool, late: asyncio.Future[Pdu]) -> None:
        super().__init__(why, sent=sent)
        self.late = late


class _Pending:
    """A request of ours that waits for its response."""

    __slots__ = ("deadline", "expects", "future", "holds_slot", "position", "sequence")

    def __init__(
        self,
        future: asyncio.Future[Pdu],
        sequence: int,
        expects: int,
        position: int,
        deadline: float,
        *,
        holds_slot: bool,
    ) -> None:
        self.future = future
        self.sequence = sequence
        self.expects = expects
        self.position = position  # the how-manieth frame of this session it is
        self.deadline = deadline
        self.holds_slot = holds_slot


class Session(asyncio.Protocol):
    """A bound, or about to be bound, connection.

    `on_request(session, pdu)` is awaited for each request of the peer but enquire_link and unbind,
    at most `max_handlers` at once; it returns `pdu.reply(…)`, or None where it answers later with
    `respond`, or never. What it raises is answered with ESME_RSYSERR.

    `on_malformed(session, malformed)` is awaited in the same way for a deliver_sm or data_sm that
    cannot be read; without it, and for all other commands, the response is the error's own status.
    `on_irregular(command_id, is_malformed)` is called for each PDU that was read only in part, or
    not at all.

    `draining` is set when it takes no more requests and `closed` at the end; `close_reason` then
    says whose doing it was, in one of a few constant phrases.

    Times are in seconds. `window` bounds our own unanswered requests. `enquire_link_interval` is
    the silence after which the peer is asked for a sign of life (None: never).
    """

    def __init__(
        self,
        *,
        on_request: RequestHandler,
        name: str,
        window: int = 10,
        enquire_link_interval: float | None = 30.0,
        response_timeout: float = 10.0,
        max_handlers: int = 100,
        on_malformed: MalformedHandler | None = None,
        on_irregular: Callable[[int, bool], None] | None = None,
        on_opened: Callable[[Session], None] | None = None,
        on_closed: Callable[[Session], None] | None = None,
    ) -> None:
        self.name = name
        self.window = window
        self.bind_type: BindType | None = None
        self.system_id = ""
        self.draining = asyncio.Event()
        self.closed = asyncio.Event()
        self.close_reason = ""
        self._on_request = on_request
        self._on_malformed = on_malformed
        self._on_irregular = on_irregular
        self._on_opened = on_opened
        self._on_closed = on_closed
        self._enquire_link_interval = enquire_link_interval
        self._response_timeout = response_timeout
        self._max_handlers = max_handlers

        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._last_received = self._loop.time()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._parting_timer: asyncio.TimerHandle | None = None

        self._outgoing: list[bytes] = []
        self._queued = 0
        self._flushed = 0
        self._flush_scheduled = False
        self._writing_paused = False

        self._sequence = 0
        self._pending: dict[int, _Pending] = {}
        self._late: dict[int, tuple[int, asyncio.Future[Pdu]]] = {}
        self._free_slots = window
        self._slot_waiters: deque[asyncio.Future[None]] = deque()
        self._sweep_at = math.inf
        self._sweep_timer: asyncio.TimerHandle | None = None

        self._arrived: deque[Pdu | MalformedPdu] = deque()
        self._backlog: deque[Pdu | MalformedPdu] = deque()
        self._reading_paused = False
        self._handlers: set[asyncio.Future[Pdu | None]] = set()
        self._deaf = False
        self._parting = False
        self._quiet: asyncio.Future[None] | None = None

    @property
    def in_flight(self) -> int:
        """How many slots of the window are taken."""
        return self.window - self._free_slots

    @property
    def is_open(self) -> bool:
        """Whether `request` would be tried: connected, and neither draining nor parting."""
        return self._transport is not None and not self.draining.is_set()

    @property
    def peer(self) -> str:
        """Where the other side is, as host:port; empty when not known."""
        address = self._transport and self._transport.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if address else ""

    # Requests of ours

    async def request(
        self,
        command: Command,
        fields: Fields = NO_FIELDS,
        tlvs: Sequence[Tlv] = (),
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - for each PDU; a sweep serves all of them
    ) -> Pdu:
        """Send a request and return its response, or the generic_nack that came instead.

        Waits for a slot of the window first, as long as it takes: `timeout` (by default the
        session's `response_timeout`) is the peer's time to answer. When the caller is cancelled
        before the PDU left, it never leaves.

        Raises:
            FieldError: the PDU cannot be written; nothing was sent.
            SessionClosed: `sent` is whether the outcome is unknown.
            ResponseTimeout: likewise; a response that still comes is its `late`.
            MalformedPdu: a response came that cannot be read: the outcome is unknown.
        """
        if self.draining.is_set():
            raise SessionClosed(self.close_reason or "the session is draining", sent=False)
        if self._free_slots:
            self._free_slots -= 1
        else:
            await self._wait_for_slot()
        try:
            pending = self._send(command, fields, tlvs, timeout, holds_slot=True)
        except BaseException:
            self._release_slot()
            raise
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._withdraw(pending)
            raise

    async def _wait_for_slot(self) -> None:
        waiter = self._loop.create_future()
        self._slot_waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:
                self._release_slot()  # it was given to us, and we do not need it any more
            raise

    def _release_slot(self) -> None:
        while self._slot_waiters:
            waiter = self._slot_waiters.popleft()
            if not waiter.cancelled():
                waiter.set_result(None)
                return
        self._free_slots += 1

    def _send(
        self,
        command: Command,
        fields: Fields,
        tlvs: Sequence[Tlv],
        timeout: float | None,
        *,
        holds_slot: bool,
    ) -> _Pending:
        sequence = self._next_sequence()
        frame = encode(Pdu(command, 0, sequence, fields, tuple(tlvs)))
        deadline = self._loop.time() + (self._response_timeout if timeout is None else timeout)
        self._queue(frame)
        pending = _Pending(
            self._loop.create_future(),
            sequence,
            command | RESPONSE_BIT,
            self._queued,
            deadline,
            holds_slot=holds_slot,
        )
        self._pending[sequence] = pending
        if deadline < self._sweep_at:
            self._sweep_later(deadline)
        return pending

    def _next_sequence(self) -> int:
        """1 to 0x7FFFFFFF and around again (3.4, 3.2), and never one whose answer may come."""
        sequence = self._sequence
        while True:
            sequence = 1 if sequence >= MAX_SEQUENCE else sequence + 1
            if sequence not in self._pending and sequence not in self._late:
                self._sequence = sequence
                return sequence

    def _withdraw(self, pending: _Pending) -> None:
        """The caller is gone: a PDU that waits does not leave; one that left keeps its slot."""
        if pending.sequence in self._pending and pending.position > self._flushed:
            self._unqueue(pending)
            self._settle(pending)

    def _settle(self, pending: _Pending) -> None:
        """Forget a request, whatever became of it, and let the next one have its slot."""
        del self._pending[pending.sequence]
        if pending.holds_slot:
            self._release_slot()
        if self._quiet is not None:
            self._notice_quiet()

    def _sweep_later(self, when: float) -> None:
        """One timer for all requests, at the earliest deadline, and hardly ever moved."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._sweep_at = when
        self._sweep_timer = self._loop.call_at(when, self._sweep) if when < math.inf else None

    def _sweep(self) -> None:
        now = self._loop.time()
        earliest = math.inf
        for pending in list(self._pending.values()):
            if pending.deadline <= now:
                self._expire(pending)
            elif pending.deadline < earliest:
                earliest = pending.deadline
        self._sweep_later(earliest)

    def _expire(self, pending: _Pending) -> None:
        sent = pending.position <= self._flushed
        late: asyncio.Future[Pdu] = self._loop.create_future()
        if sent:
            if len(self._late) >= _MAX_LATE:
                _, forgotten = self._late.pop(next(iter(self._late)))
                self._fail_quietly(forgotten, "the response is not waited for any more")
            self._late[pending.sequence] = (pending.expects, late)
        else:
            self._unqueue(pending)
            self._fail_quietly(late, "it never left", sent=False)
        self._settle(pending)
        if not pending.future.done():
            pending.future.set_exception(
                ResponseTimeout("no response in time", sent=sent, late=late)
            )

    @staticmethod
    def _fail_quietly(future: asyncio.Future[Pdu], why: str, *, sent: bool = True) -> None:
        if not future.done():
            future.set_exception(SessionClosed(why, sent=sent))
            future.exception()  # nobody has to listen

    # Writing

    def respond(self, response: Pdu) -> None:
        """Send a response, as `request_pdu.reply(…)` makes it. Nothing happens once closed."""
        self._queue(encode(response))

    def _queue(self, frame: bytes) -> None:
        if self.closed.is_set():
            return
        if len(self._outgoing) >= _MAX_OUTGOING:
            self._abort("the peer does not read")
            return
        self._outgoing.append(frame)
        self._queued += 1
        if not self._flush_scheduled:
            # Whatever else this turn of the loop has to say goes with it.
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _unqueue(self, pending: _Pending) -> None:
        self._outgoing[pending.position - self._flushed - 1] = b""

    def _flush(self, *, even_if_paused: bool = False) -> None:
        self._flush_scheduled = False
        if self._transport is None or self._transport.is_closing() or not self._outgoing:
            return
        if self._writing_paused and not even_if_paused:
            return
        data = b"".join(self._outgoing)
        self._flushed += len(self._outgoing)
        self._outgoing.clear()
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._flush()

    # Reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports are asyncio's in all but their ancestors.
        self._transport = transport = cast("asyncio.Transport", transport)
        # What the kernel does not take stays with us, so that `sent` is known to the PDU. Not 0,
        # with which asyncio's TLS pauses a writer that has nothing waiting.
        transport.set_write_buffer_limits(high=1)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):  # a peer that is gone already; we shall hear of it
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._last_received = self._loop.time()
        self._watch_for_silence()
        if self._on_opened is not None:
            self._on_opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                if self._deaf:
                    return
                # A whole frame: a peer that only sends parts of one is silent.
                self._last_received = self._loop.time()
                self._take(frame)
        except MalformedStream:
            if not self._deaf:
                _log.warning("smpp_stream_out_of_step", session=self.name)
                self._queue(encode(Pdu(Command.GENERIC_NACK, Status.ESME_RINVCMDLEN)))
                self._deaf = True  # whatever follows is nothing that was meant
                self._part_soon("the stream is out of step")
        if self._arrived:
            # Responses that came with these requests are passed on first.
            self._loop.call_soon(self._take_requests, len(self._arrived))

    def _take(self, frame: bytes) -> None:
        try:
            pdu = decode(frame)
        except MalformedPdu as malformed:
            self._take_malformed(malformed)
            return
        if pdu.is_irregular and self._on_irregular is not None:
            self._on_irregular(pdu.command, False)
        if pdu.command & RESPONSE_BIT:
            self._take_response(pdu)
        elif pdu.command is Command.ENQUIRE_LINK:
            self.respond(pdu.reply())
        elif pdu.command is Command.UNBIND:
            self._take_unbind(pdu)
        else:
            self._arrived.append(pdu)

    def _take_response(self, pdu: Pdu) -> None:
        sequence = pdu.sequence
        nack = pdu.command is Command.GENERIC_NACK
        pending = self._pending.get(sequence)
        if pending is not None:
            if pdu.command == pending.expects or nack:
                if not pending.future.done():
                    pending.future.set_result(pdu)
                self._settle(pending)
            return
        late = self._late.get(sequence)
        if late is not None and (pdu.command == late[0] or nack):
            del self._late[sequence]
            if not late[1].done():
                late[1].set_result(pdu)
        # Any other response matches no open request, or is a second one: it is dropped.

    def _take_malformed(self, malformed: MalformedPdu) -> None:
        _log.warning(
            "smpp_malformed_pdu",
            session=self.name,
            code=f"0x{malformed.command_id:08X}",
            status=malformed.status.name,
        )
        if self._on_irregular is not None:
            self._on_irregular(malformed.command_id, True)
        if malformed.command_id & RESPONSE_BIT:
            pending = self._pending.get(malformed.sequence)
            if pending is not None and pending.expects == malformed.command_id:
                if not pending.future.done():
                    pending.future.set_exception(malformed)
                self._settle(pending)
            return  # a response gets no response: two peers could nack each other for ever
        if self._on_malformed is not None and malformed.command_id in _DELIVERIES:
            self._arrived.append(malformed)
        else:
            self._refuse(malformed, malformed.status)

    def _refuse(self, request: Pdu | MalformedPdu, status: int) -> None:
        command_id = request.command if isinstance(request, Pdu) else request.command_id
        if command_id not in _UNANSWERED:
            response = _RESPONSES.get(command_id, Command.GENERIC_NACK)
            self.respond(Pdu(response, status, request.sequence))

    def _take_requests(self, count: int) -> None:
        self._backlog += [self._arrived.popleft() for _ in range(min(count, len(self._arrived)))]
        self._work_off()
        if len(self._backlog) >= _MAX_BACKLOG and not self._reading_paused:
            self._pause_reading()

    def _work_off(self) -> None:
        while self._backlog and len(self._handlers) < self._max_handlers:
            self._handle(self._backlog.popleft())
        if self._reading_paused and len(self._backlog) <= _MAX_BACKLOG // 2:
            self._resume_reading()
        if self._quiet is not None:
            self._notice_quiet()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._reading_paused = False
        self._last_received = self._loop.time()  # the silence was our own
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _handle(self, request: Pdu | MalformedPdu) -> None:
        try:
            if isinstance(request, Pdu):
                handling = asyncio.ensure_future(self._on_request(self, request))
            elif self._on_malformed is not None:
                handling = asyncio.ensure_future(self._on_malformed(self, request))
            else:
                return
        except Exception as error:  # noqa: BLE001 - one bad request must not end the bind
            self._handler_failed(request, error)
            return
        self._handlers.add(handling)
        handling.add_done_callback(partial(self._handled, request))

    def _handled(self, request: Pdu | MalformedPdu, handling: asyncio.Future[Pdu | None]) -> None:
        self._handlers.discard(handling)
        if not handling.cancelled():
            error = handling.exception()
            if error is not None:
                self._handler_failed(request, error)
            elif (response := handling.result()) is not None:
                self.respond(response)
        self._work_off()

    def _handler_failed(self, request: Pdu | MalformedPdu, error: BaseException) -> None:
        # Its text may hold what the PDU held, so only its type is logged.
        _log.error(
            "smpp_handler_failed",
            session=self.name,
            command=request.command.name if isinstance(request, Pdu) else "malformed",
            error_type=type(error).__name__,
        )
        self._refuse(request, Status.ESME_RSYSERR)

    # Signs of life

    def _watch_for_silence(self) -> None:
        interval = self._enquire_link_interval
        if interval is None or self.closed.is_set():
            return
        if self._reading_paused:  # nobody can be heard
            self._last_received = self._loop.time()
        silence = self._loop.time() - self._last_received
        if silence < interval:
            self._idle_timer = self._loop.call_later(interval - silence, self._watch_for_silence)
            return
        enquiry = self._send(Command.ENQUIRE_LINK, NO_FIELDS, (), None, holds_slot=False)
        enquiry.future.add_done_callback(self._enquire_link_done)

    def _enquire_link_done(self, future: asyncio.Future[Pdu]) -> None:
        # Any answer is a sign of life, also a nack, or one that cannot be read.
        if isinstance(future.exception(), ResponseTimeout):
            self._abort("enquire_link was not answered")
        else:
            self._watch_for_silence()

    # The end

    async def unbind(self, *, drain_timeout: float = 5.0) -> None:
        """End gracefully: take no more requests, wait for what is under way, unbind, close.

        Requests that wait for a slot fail at once as not sent; those under way, and the handlers
        of the peer's requests, have `drain_timeout` seconds to end.
        """
        if not self.is_open:
            if self._transport is not None:
                await self.closed.wait()
            return
        self._drain("unbound by us")
        try:
            async with asyncio.timeout(drain_timeout):
                await self._until_quiet()
        except TimeoutError:
            _log.warning("smpp_drain_cut_short", session=self.name, in_flight=len(self._pending))
        if not self.closed.is_set():
            unbind = self._send(Command.UNBIND, NO_FIELDS, (), None, holds_slot=False)
            with contextlib.suppress(SessionError, MalformedPdu):
                await unbind.future
        self._part("unbound by us")
        await self.closed.wait()

    async def close(self, reason: str = "closed by us", *, reset: bool = False) -> None:
        """End at once, without a word; with `reset`, by a TCP reset.

        Handlers of the peer's requests run to their end; their responses go nowhere.
        """
        if reset and self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self._abort(reason)
        if self._transport is not None:
            await self.closed.wait()

    def _take_unbind(self, unbind: Pdu) -> None:
        self.respond(unbind.reply())
        self._part_soon("unbound by the peer")

    def _part_soon(self, reason: str) -> None:
        """Part when all requests, theirs and ours, are answered, or the grace is over."""
        self._drain(reason)
        if self._is_busy:
            self._quiet = self._quiet or self._loop.create_future()
            self._quiet.add_done_callback(lambda _: self._part(reason))
            self._parting_timer = self._loop.call_later(_PARTING_GRACE, self._part, reason)
        else:
            self._part(reason)

    def _drain(self, reason: str) -> None:
        self.draining.set()
        self.close_reason = self.close_reason or reason
        for waiter in self._slot_waiters:
            if not waiter.done():
                waiter.set_exception(SessionClosed(reason, sent=False))
        self._slot_waiters.clear()

    async def _until_quiet(self) -> None:
        if self._is_busy:
            self._quiet = self._quiet or self._loop.create_future()
            await asyncio.shield(self._quiet)

    def _notice_quiet(self) -> None:
        if self._quiet and not self._quiet.done() and not self._is_busy:
            self._quiet.set_result(None)

    @property
    def _is_busy(self) -> bool:
        """Whether requests, theirs or ours, are not answered yet."""
        return bool(self._pending or self._handlers or self._arrived or self._backlog)

    def _part(self, reason: str) -> None:
        """Say what is left to say, and close; what does not leave in the grace never does."""
        if self._parting or self._transport is None:
            return
        self._parting = self._deaf = True
        self._drain(reason)
        self._flush(even_if_paused=True)
        # Python 3.11.2, that of Debian 12, cannot abort a TLS transport that was closed twice.
        if not self._transport.is_closing():
            self._transport.close()
        self._parting_timer = self._loop.call_later(_PARTING_GRACE, self._transport.abort)

    def _abort(self, reason: str) -> None:
        self._parting = self._deaf = True
        self._drain(reason)
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> None:
        self._drain("closed by the peer")

    def connection_lost(self, exc: Exception | None) -> None:
        reset = isinstance(exc, ConnectionResetError | BrokenPipeError)
        self._drain("connection reset" if reset else "connection lost")
        self.closed.set()
        for timer in (self._idle_timer, self._parting_timer, self._sweep_timer):
            if timer is not None:
                timer.cancel()
        self._arrived.clear()  # not answered, so the peer will ask again
        self._backlog.clear()
        for pending in list(self._pending.values()):
            if not pending.future.done():
                sent = pending.position <= self._flushed
                pending.future.set_exception(SessionClosed(self.close_reason, sent=sent))
            self._settle(pending)
        for _, late in self._late.values():
            self._fail_quietly(late, self.close_reason)
        self._late.clear()
        self._outgoing.clear()
        if self._on_closed is not None:
            self._on_closed(self)


RequestHandler: TypeAlias = Callable[[Session, Pdu], Awaitable[Pdu | None]]
MalformedHandler: TypeAlias = Callable[[Session, MalformedPdu], Awaitable[Pdu | None]]

_DELIVERIES: Final = frozenset({Command.DELIVER_SM, Command.DATA_SM})

_UNANSWERED: Final = frozenset({Command.ALERT_NOTIFICATION, Command.OUTBIND})
# Which response a request has, by its id; what is not here is answered with generic_nack.
_RESPONSES: Final = {
    int(command): Command(command | RESPONSE_BIT)
    for command in Command
    if not command.is_response and command not in _UNANSWERED
}

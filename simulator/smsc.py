"""An SMSC to bind to: real SMPP 3.4, with whatever luck a test or a person wants it to have."""

import asyncio
import contextlib
import random
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Self, assert_never

from domain.encoding import DATA_CODING
from domain.receipts import ReceiptState
from domain.segments import PartMethod, segment, wire_parts
from simulator.behaviour import (
    Answer,
    Behaviour,
    Dialect,
    Outage,
    digits_of,
    meaning_of,
    status_name,
)
from simulator.content import UDHI, Unacceptable, read_content
from simulator.control import ControlServer
from simulator.inbox import Counts, Inbox, Message, Part
from simulator.postbox import Delivery, Kind, Postbox
from simulator.receipts import MESSAGE_STATES, error_of, is_end, write_receipt
from simulator.times import absolute_time, time_from_now
from smpp.pdus import Command, Pdu, Status, Tag, Tlv, encode
from smpp.server import BindRequest, Server
from smpp.session import BindType, Session
from telemetry.logs import get_logger

_log = get_logger(__name__)

DEFAULT_VALIDITY: Final = timedelta(hours=24)
"""How long a message is tried whose submit says nothing about it."""
EARLY_HEAD_START: Final = 0.05
"""Seconds that an early receipt is ahead of the answer to its submit, unless it is answered first."""

# The last answer on a connection that is about to be reset must reach the ESME before the reset.
_BEFORE_RESET: Final = 0.05
_WINDOW: Final = 100
_MAX_NUMBERS: Final = 10_000
_MAX_ADDRESS: Final = 20  # 3.4, 5.2.8 and 5.2.9, without the terminator
_ALPHANUMERIC_TON: Final = 5
_MAX_ALPHANUMERIC: Final = 11
_SHORTEST_NUMBER: Final = 7
_REFERENCE_SIZE: Final = 2
_GLANCE: Final = 0.01

# registered_delivery, 3.4, 5.2.17: which ends the ESME wants to hear of.
_WANTED: Final = 0x03
_NOTHING_WANTED: Final = 0
_ONLY_FAILURES: Final = 2

_FAILURES: Final = frozenset(
    {
        ReceiptState.EXPIRED,
        ReceiptState.DELETED,
        ReceiptState.UNDELIVERABLE,
        ReceiptState.REJECTED,
    }
)

_USUAL: Final = Behaviour()
_RECEIVERS: Final = (BindType.RECEIVER, BindType.TRANSCEIVER)


class Smsc:
    """An SMSC in this process's event loop, steered by its methods or over HTTP.

    It is an asynchronous context manager: started within, stopped behind. What waits for an ESME
    outlives an outage, but not `stop`.
    """

    def __init__(
        self,
        name: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int | None = None,
        credentials: Mapping[str, str] | None = None,
        behaviour: Behaviour = _USUAL,
        numbers: Mapping[str, Behaviour] | None = None,
        dialect: Dialect | None = None,
        throttle_above: int | None = None,
        test_numbers: bool = True,
        tls: ssl.SSLContext | None = None,
        keep: int = 10_000,
    ) -> None:
        """An SMSC that listens once it is started.

        Args:
            name: how it calls itself in bind answers, logs and on its page.
            host: where it listens, SMPP and control page alike.
            port: 0 for a free one, which stays the same through outages.
            control_port: of the control page; 0 for a free one, None for no page.
            credentials: passwords by system_id; None lets everybody bind.
            behaviour: what happens to messages to numbers that are not steered.
            numbers: what happens to messages to these; they go before the documented ones.
            dialect: how it writes ids and receipts.
            throttle_above: submits within a second beyond which it throttles.
            test_numbers: whether the documented test numbers mean something here.
            tls: for SMPP over TLS.
            keep: how many parts and messages it remembers.
        """
        self.name = name
        self.counts = Counts()
        self.dialect = dialect or Dialect()
        self.default = behaviour
        self._host = host
        self._port = port
        self._control_port = control_port
        self._credentials = credentials
        self._test_numbers = test_numbers
        self._tls = tls
        self._numbers: OrderedDict[str, Behaviour] = OrderedDict()
        self._troubled: OrderedDict[tuple[str, int], int] = OrderedDict()
        for number, its_behaviour in (numbers or {}).items():
            self.set_number(number, its_behaviour)
        self._inbox = Inbox(self.counts, keep)
        self._postboxes: dict[str, Postbox] = {}
        self._held: deque[tuple[Part, ReceiptState, str, datetime]] = deque()
        self._pending: dict[int, Part] = {}
        # Microseconds, so that a restart does not give out the ids of its last life again.
        self._last_id = time.time_ns() // 1000
        self._mo_reference = 0
        # Jitter only has to be different each time, and the same in each run of a test.
        self._chance = random.Random(0)  # noqa: S311
        self._throttle_above = throttle_above
        self._throttle_next = 0
        self._second = 0.0
        self._in_second = 0
        self._outage: Outage | None = None
        self._reset_in: int | None = None
        self._doomed: set[Session] = set()
        self._server: Server | None = None
        self._control: ControlServer | None = None
        self._switching = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._answers: Mapping[Command, Callable[[Session, Pdu], Awaitable[Pdu | None]]] = {
            Command.SUBMIT_SM: self._submit,
            Command.QUERY_SM: self._query,
            Command.CANCEL_SM: self._cancel,
            Command.REPLACE_SM: self._replace,
        }

    # Life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen for ESMEs, and serve the control page if there is to be one.

        Raises:
            OSError: a port is taken.
        """
        await self._listen()
        if self._control_port is not None:
            control = ControlServer(self, self._host, self._control_port)
            try:
                await control.start()
            except OSError:
                await self.stop()
                raise
            self._control = control

    async def stop(self) -> None:
        """End every session with an unbind, and forget what was still to be sent."""
        if self._control is not None:
            await self._control.stop()
            self._control = None
        for part in self._pending.values():
            part.cancel_timers()
        self._pending.clear()
        for postbox in self._postboxes.values():
            await postbox.close()
        if self._server is not None:
            await self._server.stop(graceful=True)
            self._server = None
        self._postboxes.clear()
        await asyncio.gather(*self._background)

    @property
    def port(self) -> int:
        """Where it listens, once it was started; the same during and after an outage."""
        return self._port

    @property
    def control_url(self) -> str | None:
        """Of the control page; None if there is none."""
        return self._control.url if self._control is not None else None

    @property
    def sessions(self) -> list[Session]:
        """What is bound now."""
        return list(self._server.sessions) if self._server is not None else []

    async def _listen(self) -> None:
        server = Server(
            self._host,
            self._port,
            on_bind=self._bind,
            on_request=self._request,
            on_closed=self._closed,
            tls=self._tls,
            system_id=self.name[:15],
            window=_WINDOW,
        )
        self._port = await server.start()
        self._server = server

    # Steering

    def set_default(self, behaviour: Behaviour = _USUAL) -> None:
        """What happens to messages to numbers that are not steered; without one, delivered."""
        self.default = behaviour
        self._troubled.clear()

    def set_number(self, number: str, behaviour: Behaviour | None) -> None:
        """What happens to messages to one number, whatever its digits; None for the usual again.

        The last 10,000 numbers are remembered.
        """
        digits = digits_of(number)
        self._numbers.pop(digits, None)
        if behaviour is not None:
            self._numbers[digits] = behaviour
            if len(self._numbers) > _MAX_NUMBERS:
                self._numbers.popitem(last=False)
        self._troubled.clear()

    def behaviour_for(self, number: str) -> Behaviour:
        """What would happen to a message to this number."""
        own = self._numbers.get(digits_of(number)) if self._numbers else None
        if own is not None:
            return own
        meaning = meaning_of(number) if self._test_numbers else None
        return self.default if meaning is None else meaning.behaviour

    def throttle(self, *, above: int | None = None, next_submits: int = 0) -> None:
        """Answer ESME_RTHROTTLED to submits `above` so many within a second, and to the next ones.

        Without arguments it throttles no more.
        """
        self._throttle_above = above
        self._throttle_next = next_submits

    async def outage(self, *, on: bool = True, kind: Outage = Outage.NOT_LISTENING) -> None:
        """Go down, cutting every connection, or come back on the same port."""
        wanted = Outage(kind) if on else None
        async with self._switching:
            if wanted is self._outage:
                return
            self._outage = wanted
            _log.info("outage_switched", provider=self.name, state=wanted or "up")
            if wanted is Outage.NOT_LISTENING:
                if self._server is not None:
                    await self._server.stop(graceful=False)
                    self._server = None
                return
            if self._server is None:
                await self._listen()
            if wanted is Outage.REFUSES_BINDS:
                await self._cut_all()

    async def reset_connections(self) -> int:
        """Cut every connection with a TCP reset, and return how many there were."""
        return await self._cut_all()

    def reset_after(self, pdus: int) -> None:
        """Reset the connection on which the `pdus`-th next request arrives, once it is answered.

        What arrives behind it on that connection is not read. enquire_link does not count.
        """
        self._reset_in = max(1, pdus)

    def inject_mo(
        self,
        source: str,
        destination: str,
        text: str,
        *,
        system_id: str | None = None,
        method: PartMethod = PartMethod.UDH8,
        order: Sequence[int] | None = None,
    ) -> list[Delivery]:
        """A person answers: a message from `source` for the ESME, now or when it next binds.

        Args:
            source: the phone's number.
            destination: the number or code that it was sent to.
            text: in GSM-7 where that can carry it, else in UCS-2; in as many parts as it takes.
            system_id: the ESME; may be left out while only one is known.
            method: what ties several parts together.
            order: the parts to send, in this order, counted from 1; by default all in their order.

        Returns:
            What was handed over, a delivery for each part sent; its `settled` tells the answer.

        Raises:
            ValueError: no such ESME or part, no text, or an address that SMPP has no room for.
        """
        postbox = self._postbox(system_id or self._only_system_id())
        self._mo_reference = (self._mo_reference + 1) & 0xFFFF
        segmented = segment(text, method=method, alphabet=self.dialect.alphabet)
        parts = wire_parts(segmented, self._mo_reference)
        numbers = range(1, len(parts) + 1) if order is None else order
        if not set(numbers) <= set(range(1, len(parts) + 1)):
            raise ValueError(
                f"The text has {len(parts)} parts: `order` takes numbers from 1 to that."
            )
        deliveries = [
            Delivery(
                Kind.MO,
                Command.DELIVER_SM,
                {
                    **_address("source_addr", source),
                    **_address("dest_addr", destination),
                    "esm_class": UDHI if part.has_header else 0,
                    "data_coding": DATA_CODING[segmented.encoding],
                    "short_message": part.short_message,
                },
                tuple(Tlv(tag, value) for tag, value in part.tlvs),
            )
            for part in (parts[number - 1] for number in numbers)
        ]
        for delivery in deliveries:
            encode(Pdu(delivery.command, fields=delivery.fields, tlvs=delivery.tlvs))
        for delivery in deliveries:
            postbox.post(delivery)
        return deliveries

    def release_receipts(self, *, newest_first: bool = False) -> int:
        """Send the receipts that were held, and return how many."""
        held = list(reversed(self._held)) if newest_first else list(self._held)
        self._held.clear()
        for part, state, error, done in held:
            self._send_receipt(part, state, error, done)
        return len(held)

    # What it got

    @property
    def messages(self) -> list[Message]:
        """The last messages that it took, oldest first; also those of which parts are missing."""
        return self._inbox.messages

    @property
    def inbox(self) -> Inbox:
        """The same in parts, and the duplicates."""
        return self._inbox

    @property
    def held(self) -> int:
        """Receipts that wait for `release_receipts`."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Receipts and MO messages that no ESME has answered for yet."""
        return sum(postbox.waiting for postbox in self._postboxes.values())

    @property
    def down(self) -> Outage | None:
        """How it is down, if it is."""
        return self._outage

    @property
    def throttling(self) -> tuple[int | None, int]:
        """Submits a second beyond which it throttles, and how many next ones it will."""
        return self._throttle_above, self._throttle_next

    @property
    def numbers(self) -> Mapping[str, Behaviour]:
        """The numbers that were given a behaviour, without plus signs."""
        return self._numbers

    async def received(
        self, destination: str | None = None, *, count: int = 1, within: float = 10
    ) -> list[Message]:
        """Wait until so many whole messages, to this number or to any, are here; return them all.

        Raises:
            TimeoutError: they did not come `within` so many seconds.
        """
        digits = digits_of(destination) if destination is not None else None

        def whole() -> list[Message]:
            return [
                message
                for message in self.messages
                if message.complete and digits in (None, digits_of(message.destination))
            ]

        await self.until(lambda: len(whole()) >= count, within=within)
        return whole()

    async def until(self, condition: Callable[[], bool], *, within: float = 10) -> None:
        """Wait until something is so, such as ``lambda: smsc.counts.receipts_answered == 3``.

        Raises:
            TimeoutError: it was not so `within` so many seconds; says what was counted.
        """
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not so after {within:g} s; counted: {self.counts}")
            await asyncio.sleep(_GLANCE)

    def forget(self) -> None:
        """Empty the list of messages. Counts go on, and receipts still come."""
        self._inbox.forget()

    # Sessions

    async def _bind(self, session: Session, request: BindRequest) -> int:
        status = self._bind_status(request)
        if status != Status.ESME_ROK:
            self.counts.binds_refused += 1
            _log.info("bind_refused", provider=self.name, status=status.name)
            return status
        self.counts.binds += 1
        # Behind the answer to the bind, or a receipt would overtake it.
        asyncio.get_running_loop().call_soon(self._bound, session)
        return status

    def _bind_status(self, request: BindRequest) -> Status:
        if self._outage is not None:
            return Status.ESME_RBINDFAIL
        if self._credentials is None:
            return Status.ESME_ROK
        password = self._credentials.get(request.system_id)
        if password is None:
            return Status.ESME_RINVSYSID
        return Status.ESME_ROK if password == request.password else Status.ESME_RINVPASWD

    def _bound(self, session: Session) -> None:
        if session in self.sessions:
            postbox = self._postbox(session.system_id)
            if session.bind_type in _RECEIVERS:
                postbox.bound(session)

    def _closed(self, session: Session) -> None:
        self._doomed.discard(session)
        postbox = self._postboxes.get(session.system_id)
        if postbox is not None:
            postbox.gone(session)

    def _postbox(self, system_id: str) -> Postbox:
        postbox = self._postboxes.get(system_id)
        if postbox is None:
            postbox = self._postboxes[system_id] = Postbox(self.counts, _WINDOW)
        return postbox

    def _only_system_id(self) -> str:
        known = sorted(self._postboxes.keys() | (self._credentials or {}).keys())
        if len(known) != 1:
            raise ValueError(
                f"Say with `system_id` which ESME the message is for: {', '.join(known)} are known."
                if known
                else "No ESME has bound yet: say with `system_id` which one the message is for."
            )
        return known[0]

    async def _cut(self, session: Session) -> None:
        self.counts.resets += 1
        await session.close("reset by the simulator", reset=True)

    async def _cut_all(self) -> int:
        sessions = self.sessions
        await asyncio.gather(*map(self._cut, sessions))
        return len(sessions)

    async def _request(self, session: Session, pdu: Pdu) -> Pdu | None:
        if session in self._doomed:
            return None
        if self._reset_in is not None:
            self._reset_in -= 1
            if self._reset_in == 0:
                self._reset_in = None
                self._doom(session)
        answer = self._answers.get(pdu.command)
        if answer is None:
            return Pdu(Command.GENERIC_NACK, Status.ESME_RINVCMDID, pdu.sequence)
        return await answer(session, pdu)

    def _doom(self, session: Session) -> None:
        async def reset() -> None:
            await asyncio.sleep(_BEFORE_RESET)
            await self._cut(session)

        self._doomed.add(session)
        task = asyncio.create_task(reset())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Submits

    async def _submit(self, session: Session, pdu: Pdu) -> Pdu | None:
        self.counts.submits += 1
        if self._is_throttled():
            return self._refused(pdu, Status.ESME_RTHROTTLED)
        try:
            part = self._read(session, pdu)
        except Unacceptable as why:
            return self._refused(pdu, why.status)
        behaviour = self.behaviour_for(part.destination)
        answer = self._answer(part, behaviour)
        if answer is Answer.ACCEPT or (behaviour.taken and answer is not Answer.REFUSE):
            self.counts.taken += 1
            self._inbox.add(part)
            await self._send_early_receipts(part, behaviour)
        if behaviour.latency:
            await asyncio.sleep(behaviour.latency)
        match answer:
            case Answer.ACCEPT:
                self._schedule_receipts(part, behaviour)
                message_id = self.dialect.id_in_response.write(part.id)
                return pdu.reply(fields={"message_id": message_id.encode()})
            case Answer.REFUSE:
                return self._refused(pdu, behaviour.status)
            case Answer.SILENCE:
                self.counts.unanswered += 1
            case Answer.RESET:
                self.counts.unanswered += 1
                await self._cut(session)
            case never:
                assert_never(never)
        if behaviour.taken:
            self._schedule_receipts(part, behaviour)
        return None

    def _refused(self, pdu: Pdu, status: int) -> Pdu:
        self.counts.refused[status_name(status)] += 1
        return pdu.reply(status)

    def _is_throttled(self) -> bool:
        if self._throttle_next > 0:
            self._throttle_next -= 1
            return True
        if self._throttle_above is None:
            return False
        now = time.monotonic()
        if now - self._second >= 1:
            self._second = now
            self._in_second = 0
        self._in_second += 1
        return self._in_second > self._throttle_above

    def _read(self, session: Session, pdu: Pdu) -> Part:
        content = read_content(pdu, self.dialect.alphabet)
        now = datetime.now(UTC)
        source = _readable_source(pdu)
        destination = pdu.octets("destination_addr").decode("latin-1")
        if not digits_of(destination).isdecimal() or len(destination) > _MAX_ADDRESS:
            raise Unacceptable(Status.ESME_RINVDSTADR)
        validity = _ahead(pdu, "validity_period", now, Status.ESME_RINVEXPIRY)
        if validity is not None and validity <= timedelta(0):
            raise Unacceptable(Status.ESME_RINVEXPIRY)
        deferred = _ahead(pdu, "schedule_delivery_time", now, Status.ESME_RINVSCHED)
        reference = pdu.tlv(Tag.USER_MESSAGE_REFERENCE) if pdu.tlvs else None
        if reference is not None and len(reference) != _REFERENCE_SIZE:
            raise Unacceptable(Status.ESME_RINVPARLEN)
        self._last_id += 1
        return Part(
            id=self._last_id,
            pdu=pdu,
            content=content,
            system_id=session.system_id,
            source=source,
            destination=destination,
            reference=None if reference is None else int.from_bytes(reference, "big"),
            accepted_at=now,
            validity=DEFAULT_VALIDITY if validity is None else validity,
            deferred=max(deferred, timedelta(0)) if deferred else timedelta(0),
            alphabet=self.dialect.alphabet,
        )

    def _answer(self, part: Part, behaviour: Behaviour) -> Answer:
        if behaviour.answer is Answer.ACCEPT or behaviour.part not in {None, part.number}:
            return Answer.ACCEPT
        if behaviour.times is None:
            return behaviour.answer
        key = (part.destination, part.number)
        so_far = self._troubled.pop(key, 0)
        if so_far >= behaviour.times:
            return Answer.ACCEPT
        self._troubled[key] = so_far + 1
        if len(self._troubled) > _MAX_NUMBERS:
            self._troubled.popitem(last=False)
        return behaviour.answer

    # Receipts

    async def _send_early_receipts(self, part: Part, behaviour: Behaviour) -> None:
        for step in behaviour.receipts_of(part.number):
            if step.early:
                for _ in range(step.copies):
                    delivery = self._report(part, step.state, step.error, hold=behaviour.hold)
                    if delivery is not None:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(delivery.settled.wait(), EARLY_HEAD_START)

    def _schedule_receipts(self, part: Part, behaviour: Behaviour) -> None:
        """Those that are not early, none after the validity: a part not delivered then expires."""
        validity = part.validity.total_seconds()
        deferred = part.deferred.total_seconds()
        steps = behaviour.receipts_of(part.number)
        ended = False
        for step in steps:
            if step.early:
                ended = ended or is_end(step.state)
                continue
            state, error, after = step.state, step.error, deferred + step.after
            if behaviour.receipt_jitter:
                after += self._chance.uniform(0, behaviour.receipt_jitter)
            if after > validity:
                if ended or not is_end(state):
                    continue
                state, error, after = ReceiptState.EXPIRED, "", validity
            ended = ended or is_end(state)
            for _ in range(step.copies):
                self._report_later(part, after, state, error, hold=behaviour.hold)
        if steps and not ended:
            self._report_later(part, validity, ReceiptState.EXPIRED, "", hold=behaviour.hold)

    def _report_later(
        self, part: Part, after: float, state: ReceiptState, error: str, *, hold: bool
    ) -> None:
        def due() -> None:
            part.timers.discard(timer)
            if not part.timers:
                self._pending.pop(part.id, None)
            self._report(part, state, error, hold=hold)

        timer = asyncio.get_running_loop().call_later(after, due)
        part.timers.add(timer)
        self._pending[part.id] = part

    def _report(
        self, part: Part, state: ReceiptState, error: str, *, hold: bool
    ) -> Delivery | None:
        """Something has become of a part: note it, and tell the ESME if it asked for that."""
        now = datetime.now(UTC)
        error = error_of(state, error)
        if part.final_at is None:
            part.state = state
            part.error = error
            part.final_at = now if is_end(state) else None
        wanted = part.pdu.number("registered_delivery") & _WANTED
        if wanted == _NOTHING_WANTED or (wanted == _ONLY_FAILURES and state not in _FAILURES):
            return None
        if hold:
            self._held.append((part, state, error, now))
            return None
        return self._send_receipt(part, state, error, now)

    def _send_receipt(
        self, part: Part, state: ReceiptState, error: str, done: datetime
    ) -> Delivery:
        delivery = write_receipt(part, state, error, done, self.dialect)
        self._postbox(part.system_id).post(delivery)
        return delivery

    # Questions about messages

    async def _query(self, _session: Session, pdu: Pdu) -> Pdu:
        self.counts.queries += 1
        part = self._part_of(pdu)
        if part is None:
            return pdu.reply(Status.ESME_RQUERYFAIL)
        return pdu.reply(
            fields={
                "message_id": pdu.octets("message_id"),
                "final_date": absolute_time(part.final_at) if part.final_at else b"",
                "message_state": MESSAGE_STATES[part.state],
                "error_code": int(part.error) & 0xFF if part.error.isdecimal() else 0,
            }
        )

    async def _cancel(self, _session: Session, pdu: Pdu) -> Pdu:
        """One message by its id, or all from a source to a destination (3.4, 4.9)."""
        if pdu.octets("message_id"):
            part = self._part_of(pdu)
            if part is None:
                return pdu.reply(Status.ESME_RINVMSGID)
            parts = [part]
        else:
            source = pdu.octets("source_addr")
            destination = pdu.octets("destination_addr")
            parts = [
                part
                for part in self._pending.values()
                if part.pdu.octets("source_addr") == source
                and part.pdu.octets("destination_addr") == destination
            ]
        canceled = [self._cancel_part(part) for part in parts]
        return pdu.reply(Status.ESME_ROK if any(canceled) else Status.ESME_RCANCELFAIL)

    def _cancel_part(self, part: Part) -> bool:
        if part.final_at is not None:
            return False
        self.counts.cancels += 1
        reports = bool(part.timers)  # a part whose receipts never come does not report this either
        part.cancel_timers()
        self._pending.pop(part.id, None)
        if reports:
            self._report_later(part, 0, ReceiptState.DELETED, "", hold=False)
        part.state, part.final_at = ReceiptState.DELETED, datetime.now(UTC)
        return True

    async def _replace(self, _session: Session, pdu: Pdu) -> Pdu:
        return pdu.reply(Status.ESME_RREPLACEFAIL)

    def _part_of(self, pdu: Pdu) -> Part | None:
        """The part with the id of a query or cancel, if its source is given rightly (3.4, 4.8.1)."""
        try:
            message_id = self.dialect.id_in_response.read(pdu.octets("message_id").decode("ascii"))
        except UnicodeDecodeError:
            return None
        part = self._inbox.part(message_id) if message_id is not None else None
        if part is None or part.pdu.octets("source_addr") != pdu.octets("source_addr"):
            return None
        return part


def _ahead(pdu: Pdu, name: str, now: datetime, invalid: Status) -> timedelta | None:
    value = pdu.octets(name)
    if not value:
        return None
    try:
        return time_from_now(value, now)
    except (ValueError, OverflowError):
        raise Unacceptable(invalid) from None


def _readable_source(pdu: Pdu) -> str:
    source = pdu.octets("source_addr").decode("latin-1")
    named = pdu.number("source_addr_ton") == _ALPHANUMERIC_TON
    if len(source) > (_MAX_ALPHANUMERIC if named else _MAX_ADDRESS):
        raise Unacceptable(Status.ESME_RINVSRCADR)
    return source


def _address(field: str, address: str) -> dict[str, int | bytes]:
    """The three fields of a source_addr or dest_addr, as SMSCs type addresses (3.4, 5.2.5)."""
    name = "source_addr" if field == "source_addr" else "destination_addr"
    digits = digits_of(address)
    if not digits.isdecimal():
        ton, npi = _ALPHANUMERIC_TON, 0
    elif len(digits) >= _SHORTEST_NUMBER:
        ton, npi = 1, 1
    else:
        ton, npi = 3, 0  # a short code: network specific
    return {f"{field}_ton": ton, f"{field}_npi": npi, name: digits.encode("ascii", "replace")}

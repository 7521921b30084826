"""An SMSC to bind to: real SMPP 3.4, with whatever luck a test or a person wants it to have."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Self, assert_never

from domain.encoding import DATA_CODING
from domain.receipts import ReceiptState
from domain.segments import PartMethod, segment, wire_parts
from simulator.behaviour import (
    TEST_NUMBERS,
    Behaviour,
    Dialect,
    Outage,
    Response,
    digits_of,
    status_name,
)
from simulator.content import UDHI, Unacceptable, read_content
from simulator.delivery_queue import Delivery, DeliveryQueue, Kind
from simulator.inbox import Counts, Inbox, Message, Part
from simulator.receipt_schedule import ReceiptSchedule
from simulator.receipts import MESSAGE_STATES, write_receipt
from simulator.steering import Steered
from simulator.times import absolute_time, time_from_now
from smpp.commands import Command
from smpp.pdus import Pdu, encode
from smpp.server import BindRequest, Server
from smpp.session import BindType, Session
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv
from telemetry.logs import get_logger

_log = get_logger(__name__)

DEFAULT_VALIDITY: Final = timedelta(hours=24)
"""How long a message is tried whose submit says nothing about it."""

# The last response on a connection that is about to be reset must reach the ESME before the reset.
_BEFORE_RESET: Final = 0.05
_WINDOW: Final = 100
_MAX_ADDRESS: Final = 20  # 3.4, 5.2.8 and 5.2.9, without the terminator
_ALPHANUMERIC_TON: Final = 5
_MAX_ALPHANUMERIC: Final = 11
_SHORTEST_NUMBER: Final = 7
_GLANCE: Final = 0.01

_USUAL: Final = Behaviour()
_RECEIVERS: Final = (BindType.RECEIVER, BindType.TRANSCEIVER)


class Smsc(Steered[Behaviour]):
    """An SMSC in this process's event loop, steered by its methods, or over HTTP by a `ControlServer`.

    It is an asynchronous context manager: started within, stopped behind. What waits for an ESME
    outlives an outage, but not `stop`.
    """

    def __init__(
        self,
        name: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
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
            host: where it listens.
            port: 0 for a free one, which stays the same through outages.
            credentials: passwords by system_id; None lets everybody bind.
            behaviour: what happens to messages to numbers that are not steered.
            numbers: what happens to messages to these; they go before the documented ones.
            dialect: how it writes ids and receipts.
            throttle_above: submits within a second beyond which it throttles.
            test_numbers: whether the documented test numbers mean something here.
            tls: for SMPP over TLS.
            keep: how many parts and messages it remembers.
        """
        super().__init__(
            default=behaviour,
            numbers=numbers or {},
            test_numbers=TEST_NUMBERS if test_numbers else {},
            throttle_above=throttle_above,
        )
        self.name = name
        self.counts = Counts()
        self.dialect = dialect or Dialect()
        self._host = host
        self._port = port
        self._credentials = credentials
        self._tls = tls
        self._inbox = Inbox(self.counts, keep)
        self._delivery_queues: dict[str, DeliveryQueue] = {}
        self._receipts = ReceiptSchedule(self._send_receipt)
        # Microseconds, so that a restart does not give out the ids of its last life again.
        self._last_id = time.time_ns() // 1000
        self._mo_reference = 0
        self._outage: Outage | None = None
        self._reset_in: int | None = None
        self._doomed: set[Session] = set()
        self._server: Server | None = None
        self._switching = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._responses: Mapping[Command, Callable[[Session, Pdu], Awaitable[Pdu | None]]] = {
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
        """Listen for ESMEs.

        Raises:
            OSError: the port is taken.
        """
        await self._listen()

    async def stop(self) -> None:
        """End every session with an unbind, and forget what was still to be sent."""
        self._receipts.clear()
        for delivery_queue in self._delivery_queues.values():
            await delivery_queue.close()
        if self._server is not None:
            await self._server.stop(graceful=True)
            self._server = None
        self._delivery_queues.clear()
        await asyncio.gather(*self._background)

    @property
    def port(self) -> int:
        """Where it listens, once it was started; the same during and after an outage."""
        return self._port

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
            One delivery for each part sent; its `settled` is set when the ESME took or refused it.

        Raises:
            ValueError: no such ESME or part, no text, or an address that SMPP has no room for.
        """
        delivery_queue = self._delivery_queue(system_id or self._only_system_id())
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
            delivery_queue.post(delivery)
        return deliveries

    def release_receipts(self, *, newest_first: bool = False) -> int:
        """Send the receipts that were held, and return how many."""
        return self._receipts.release(newest_first=newest_first)

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
        return self._receipts.held

    @property
    def waiting(self) -> int:
        """Receipts and MO messages that no ESME has answered for yet."""
        return sum(delivery_queue.waiting for delivery_queue in self._delivery_queues.values())

    @property
    def down(self) -> Outage | None:
        """How it is down, if it is."""
        return self._outage

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
        """Wait until something is so, such as ``lambda: smsc.counts.receipts_acknowledged == 3``.

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
        # Behind the response to the bind, or a receipt would overtake it.
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
            delivery_queue = self._delivery_queue(session.system_id)
            if session.bind_type in _RECEIVERS:
                delivery_queue.bound(session)

    def _closed(self, session: Session) -> None:
        self._doomed.discard(session)
        delivery_queue = self._delivery_queues.get(session.system_id)
        if delivery_queue is not None:
            delivery_queue.gone(session)

    def _delivery_queue(self, system_id: str) -> DeliveryQueue:
        delivery_queue = self._delivery_queues.get(system_id)
        if delivery_queue is None:
            delivery_queue = self._delivery_queues[system_id] = DeliveryQueue(self.counts, _WINDOW)
        return delivery_queue

    def _only_system_id(self) -> str:
        known = sorted(self._delivery_queues.keys() | (self._credentials or {}).keys())
        if len(known) != 1:
            raise ValueError(
                f"Say with `system_id` which ESME the message is for: {', '.join(known)} are known."
                if known
                else "No ESME has bound yet: say with `system_id` which one the message is for."
            )
        return known[0]

    def _send_receipt(
        self, part: Part, state: ReceiptState, error: str, done: datetime
    ) -> Delivery:
        delivery = write_receipt(part, state, error, done, self.dialect)
        self._delivery_queue(part.system_id).post(delivery)
        return delivery

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
        response = self._responses.get(pdu.command)
        if response is None:
            return Pdu(Command.GENERIC_NACK, Status.ESME_RINVCMDID, pdu.sequence)
        return await response(session, pdu)

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
        if self._throttles():
            return self._refused(pdu, Status.ESME_RTHROTTLED)
        try:
            part = self._read(session, pdu)
        except Unacceptable as why:
            return self._refused(pdu, why.status)
        behaviour = self.behaviour_for(part.destination)
        response = self._response(part, behaviour)
        if response is Response.ACCEPT or (behaviour.taken and response is not Response.REFUSE):
            self.counts.taken += 1
            self._inbox.add(part)
            await self._receipts.send_early(part, behaviour)
        if behaviour.latency:
            await asyncio.sleep(behaviour.latency)
        match response:
            case Response.ACCEPT:
                self._receipts.schedule(part, behaviour)
                message_id = self.dialect.response_id(part.id)
                return pdu.reply(fields={"message_id": message_id.encode()})
            case Response.REFUSE:
                return self._refused(pdu, behaviour.status)
            case Response.SILENCE:
                self.counts.without_response += 1
            case Response.RESET:
                self.counts.without_response += 1
                await self._cut(session)
            case never:
                assert_never(never)
        if behaviour.taken:
            self._receipts.schedule(part, behaviour)
        return None

    def _refused(self, pdu: Pdu, status: int) -> Pdu:
        self.counts.refused[status_name(status)] += 1
        return pdu.reply(status)

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
        if reference is not None and not Tag.USER_MESSAGE_REFERENCE.value_type.fits(reference):
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

    def _response(self, part: Part, behaviour: Behaviour) -> Response:
        if behaviour.part not in {None, part.number}:
            return Response.ACCEPT
        return self._next_response((part.destination, part.number), behaviour)

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
                for part in self._receipts.pending
                if part.pdu.octets("source_addr") == source
                and part.pdu.octets("destination_addr") == destination
            ]
        canceled = [self._cancel_part(part) for part in parts]
        return pdu.reply(Status.ESME_ROK if any(canceled) else Status.ESME_RCANCELFAIL)

    def _cancel_part(self, part: Part) -> bool:
        if part.final_at is not None:
            return False
        self.counts.cancels += 1
        self._receipts.cancel(part)
        part.state, part.final_at = ReceiptState.DELETED, datetime.now(UTC)
        return True

    async def _replace(self, _session: Session, pdu: Pdu) -> Pdu:
        return pdu.reply(Status.ESME_RREPLACEFAIL)

    def _part_of(self, pdu: Pdu) -> Part | None:
        """The part with the id of a query or cancel, if its source is given rightly (3.4, 4.8.1)."""
        written = pdu.octets("message_id").decode("latin-1")
        message_id = self.dialect.id_in_response.read(written)
        if message_id is None or self.dialect.response_id(message_id) != written:
            return None
        part = self._inbox.part(message_id)
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

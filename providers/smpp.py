"""A carrier reached by SMPP 3.4: several binds kept up, and messages sent over them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

import structlog

from domain.configuration import BindStyle, MessageIdForm, TlsOptions, ValidityForm
from domain.encoding import Encoding
from domain.errors import ErrorClass, classify_smpp
from domain.modes import Priority
from domain.numbers import InvalidNumber, parse_number
from domain.outcomes import OutcomeKind, PartOutcome
from domain.segments import Segmented, WirePart, segment, wire_parts
from domain.senders import InvalidSender, parse_sender
from providers.base import (
    Answered,
    LateAnswer,
    LateSink,
    NoSlot,
    Outbound,
    PartSender,
    Provider,
    ReceiptSink,
    ReceivedReceipt,
    not_sent,
)
from providers.turns import Turns
from smpp.client import BindRefused, ConnectFailed, connect
from smpp.pdus import Command, FieldError, MalformedPdu, Pdu, Status, Tag, Tlv, status_name
from smpp.receipts import MESSAGE_STATES, Receipt, parse_receipt
from smpp.session import BindType, ResponseTimeout, Session, SessionClosed, SessionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from domain.configuration import SmppProvider as SmppConfiguration
    from domain.receipts import ReceiptState

from telemetry import metrics

_log = structlog.get_logger(logger_name=__name__)

# A bind that stood so many seconds was a good one: the next try to bind does not wait long.
_STEADY: Final = 10.0
_UDHI: Final = 0x40  # esm_class, 3.4, 5.2.12
_RECEIPT_WANTED: Final = 0x01  # registered_delivery, 3.4, 5.2.17
_INTERNATIONAL: Final = 1  # TON, 3.4, 5.2.5
_E164: Final = 1  # NPI, 3.4, 5.2.6
_NO_ERROR: Final = "000"

# priority_flag, 3.4, 5.2.14, in the words of ANSI-136: bulk, normal, urgent, very urgent.
_PRIORITY_FLAGS: Final[Mapping[Priority, int]] = {
    Priority.LOW: 0,
    Priority.NORMAL: 1,
    Priority.HIGH: 2,
    Priority.CRITICAL: 3,
}

_BIND_TYPES: Final[Mapping[BindStyle, tuple[BindType, ...]]] = {
    BindStyle.TRANSCEIVER: (BindType.TRANSCEIVER,),
    BindStyle.TRANSMITTER_RECEIVER: (BindType.TRANSMITTER, BindType.RECEIVER),
}


class _Bind:
    """One session that is wanted; `session` is there while it is bound."""

    def __init__(self, name: str, bind_type: BindType) -> None:
        self.name = name
        self.bind_type = bind_type
        self.session: Session | None = None

    @property
    def transmitting(self) -> Session | None:
        """The session, if messages may be sent over it now."""
        if self.bind_type is BindType.RECEIVER or self.session is None:
            return None
        return self.session if self.session.is_open else None


class SmppProvider(Provider):
    """An account at an SMSC, or at the simulator.

    `password` is the secret itself. `on_receipt` is awaited before a receipt is answered: if it
    raises, the SMSC is told to send the receipt again. `on_late` is told of answers that came after
    their part had been given up as unknown. With `bind = "transmitter_receiver"` one of
    `configuration.binds` is a pair of sessions.

    Raises:
        OSError, ssl.SSLError: a file of `configuration.tls` cannot be read or used.
    """

    def __init__(
        self,
        name: str,
        configuration: SmppConfiguration,
        password: str,
        on_receipt: ReceiptSink,
        on_late: LateSink | None = None,
    ) -> None:
        self.name = name
        self._configuration = configuration
        self._password = password
        self._on_receipt = on_receipt
        self._on_late = on_late
        self._tls = _tls_context(configuration.tls)
        self._binds = [
            _Bind(f"{name}/{number}{'r' if bind_type is BindType.RECEIVER else ''}", bind_type)
            for number in range(1, configuration.binds + 1)
            for bind_type in _BIND_TYPES[configuration.bind]
        ]
        self._turns = Turns(configuration.rate, self._open_windows)
        self._keepers: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_up = asyncio.Event()
        self._is_down = asyncio.Event()
        self._is_down.set()
        self._stopping = False

    # Up and down

    @property
    def binds_up(self) -> int:
        return len(self._transmitting())

    async def wait_until(self, *, up: bool) -> None:
        await (self._is_up if up else self._is_down).wait()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._keepers = [loop.create_task(self._keep_bound(bind)) for bind in self._binds]
        self._binds_changed()

    async def stop(self, grace: timedelta) -> None:
        self._stopping = True
        deadline = asyncio.get_running_loop().time() + grace.total_seconds()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._turns.close()
        self._turns.end()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        sessions = [bind.session for bind in self._binds if bind.session is not None]
        await asyncio.gather(*[session.unbind(drain_timeout=left) for session in sessions])
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for bind in self._binds:
            bind.session = None
        self._binds_changed()

    async def _keep_bound(self, bind: _Bind) -> None:
        """Bind, wait for the end, and bind again, for ever."""
        backoff = self._configuration.rebind_backoff
        failures = 0
        while True:
            session = await self._bind(bind)
            if session is not None:
                loop = asyncio.get_running_loop()
                since = loop.time()
                bind.session = session
                _log.info("bind_up", provider=self.name, bind=bind.name)
                self._binds_changed()
                await session.closed.wait()
                _log.warning(
                    "bind_down",
                    provider=self.name,
                    bind=bind.name,
                    reason=session.close_reason.replace(" ", "_"),
                )
                bind.session = None
                self._binds_changed()
                if loop.time() - since >= _STEADY:
                    failures = 0
            pause = min(backoff.max, backoff.min * 2 ** min(failures, 30)).total_seconds()
            failures += 1
            # Many binds lost at once should not come back at once.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

    async def _bind(self, bind: _Bind) -> Session | None:
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
                on_request=self._take,
                on_closed=lambda _: self._binds_changed(),
            )
        except BindRefused as refused:
            why = {"reason": "bind_refused", "code": status_name(refused.status)}
        except ConnectFailed as failed:
            why = {"reason": "connect_failed", "error_type": type(failed.__cause__).__name__}
        except FieldError:
            # Only the secret's own length can be wrong; everything else was checked when declared.
            why = {"reason": "password_too_long"}
        _log.warning("bind_failed", provider=self.name, bind=bind.name, **why)
        return None

    def _transmitting(self) -> list[tuple[_Bind, Session]]:
        return [(bind, bind.transmitting) for bind in self._binds if bind.transmitting is not None]

    def _open_windows(self) -> int:
        return sum(session.window for _, session in self._transmitting())

    def _binds_changed(self) -> None:
        """Tell whoever waits: the worker, the messages, the metrics."""
        up = self.up and not self._stopping
        (self._is_up.set if up else self._is_up.clear)()
        (self._is_down.clear if up else self._is_down.set)()
        bound = sum(bind.session is not None and bind.session.is_open for bind in self._binds)
        metrics.binds_counted(self.name, {"up": bound, "down": len(self._binds) - bound})
        self._turns.look_again()

    # Sending

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        await self._turns.take(priority.rank)
        metrics.window_measured(self.name, self._turns.held)
        try:
            yield
        finally:
            self._turns.give_back()
            metrics.window_measured(self.name, self._turns.held)

    def count_parts(self, outbound: Outbound) -> int:
        return len(self._segmented(outbound).parts)

    def _segmented(self, outbound: Outbound) -> Segmented:
        configuration = self._configuration
        return segment(outbound.text, method=configuration.parts, alphabet=configuration.alphabet)

    def _part_sender(self, outbound: Outbound) -> PartSender:
        segmented = self._segmented(outbound)
        return _Submission(self, outbound, segmented).send

    def freest(self, *, but: Sequence[str] = ()) -> tuple[str, Session] | None:
        """The session with the most room in its window, with its name; `but` are spared."""
        free = [
            (session.window - session.in_flight, bind.name, session)
            for bind, session in self._transmitting()
            if session.in_flight < session.window and bind.name not in but
        ]
        if not free:
            return None
        _, name, session = max(free, key=lambda each: each[0])
        return name, session

    def submit_fields(
        self, outbound: Outbound, part: WirePart, encoding: Encoding
    ) -> dict[str, int | bytes]:
        """The fields of a submit_sm (SMPP 3.4, 4.4.1)."""
        configuration = self._configuration
        coding = configuration.data_coding
        return {
            **self._source(outbound.sender),
            **self._destination(outbound.recipient),
            "esm_class": _UDHI if part.has_header else 0,
            "priority_flag": _PRIORITY_FLAGS[outbound.priority],
            "validity_period": validity_period(configuration.validity, outbound.valid_for),
            "registered_delivery": _RECEIPT_WANTED if configuration.receipts else 0,
            "data_coding": coding.gsm7 if encoding is Encoding.GSM7 else coding.ucs2,
            "short_message": part.short_message,
        }

    def submit_tlvs(self, part: WirePart, reference: int) -> list[Tlv]:
        """The TLVs of a submit_sm: our reference, the part's own, and the carrier's wishes."""
        return [
            Tlv(Tag.USER_MESSAGE_REFERENCE, reference.to_bytes(2, "big")),
            *[Tlv(tag, value) for tag, value in part.tlvs],
            *[Tlv(tlv.tag, tlv.value) for tlv in self._configuration.tlvs],
        ]

    def _source(self, sender: str) -> dict[str, int | bytes]:
        configuration = self._configuration
        source = parse_sender(sender)
        ton, npi = configuration.source_ton, configuration.source_npi
        return {
            "source_addr_ton": source.ton if ton is None else ton,
            "source_addr_npi": source.npi if npi is None else npi,
            "source_addr": source.address.encode("ascii"),
        }

    def _destination(self, recipient: str) -> dict[str, int | bytes]:
        configuration = self._configuration
        ton, npi = configuration.destination_ton, configuration.destination_npi
        return {
            "dest_addr_ton": _INTERNATIONAL if ton is None else ton,
            "dest_addr_npi": _E164 if npi is None else npi,
            "destination_addr": recipient.removeprefix("+").encode("ascii"),
        }

    async def rate_allows_further_part(self) -> None:
        """Wait until one more part may leave.

        Raises:
            NoSlot: we are stopping, and none will.
        """
        await self._turns.take_for_part()

    def outcome_of(self, number: int, bind: str, answer: Pdu) -> PartOutcome:
        """What a submit_sm_resp, or a generic_nack in its place, means."""
        if answer.status == Status.ESME_ROK and answer.command is Command.SUBMIT_SM_RESP:
            written = answer.octets("message_id").decode("latin-1")
            message_id = canonical_id(written, self._configuration.message_id.response)
            return PartOutcome(
                number, OutcomeKind.ACCEPTED, provider_message_id=message_id or None, bind=bind
            )
        error_class = classify_smpp(answer.status, self._configuration.errors)
        throttled = error_class is ErrorClass.THROTTLED
        return PartOutcome(
            number,
            OutcomeKind.THROTTLED if throttled else OutcomeKind.REFUSED,
            code=f"0x{answer.status:08x}",
            error_class=error_class,
            bind=bind,
        )

    def heed(self, outcome: PartOutcome, session: Session) -> None:
        """Do what an answer asks for beyond its own message."""
        if outcome.kind is OutcomeKind.THROTTLED:
            self._turns.pace.complain()
        elif outcome.error_class is ErrorClass.SESSION:
            # The SMSC thinks otherwise of this bind than we do: begin anew.
            self._in_background(session.unbind())

    def expect_late(
        self, outbound: Outbound, number: int, bind: str, late: ResponseTimeout
    ) -> None:
        """The answer may still come, and would tell what nobody else can."""
        if self._on_late is not None:
            self._in_background(self._tell_late(self._on_late, outbound, number, bind, late))

    async def _tell_late(
        self, sink: LateSink, outbound: Outbound, number: int, bind: str, late: ResponseTimeout
    ) -> None:
        try:
            answer = await late.late
        except SessionClosed:
            return
        outcome = self.outcome_of(number, bind, answer)
        try:
            await sink(LateAnswer(self.name, outbound.message_id, outbound.attempt, outcome))
        except Exception as error:  # noqa: BLE001 - the attempt stays unknown, which it is
            _log.error(
                "late_answer_not_recorded",
                provider=self.name,
                message_id=outbound.message_id,
                error_type=type(error).__name__,
            )

    def _in_background(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Asking about what was sent

    async def recall(self, provider_message_id: str, *, sender: str, recipient: str) -> bool:
        if not self._configuration.cancel:
            return False
        answer = await self._ask(
            Command.CANCEL_SM,
            {
                "message_id": self._written_id(provider_message_id),
                **self._source(sender),
                **self._destination(recipient),
            },
        )
        return answer is not None and answer.command is Command.CANCEL_SM_RESP

    async def query(self, provider_message_id: str, *, sender: str) -> ReceiptState | None:
        answer = await self._ask(
            Command.QUERY_SM,
            {"message_id": self._written_id(provider_message_id), **self._source(sender)},
        )
        if answer is None or answer.command is not Command.QUERY_SM_RESP:
            return None
        return MESSAGE_STATES.get(answer.number("message_state"))

    async def _ask(self, command: Command, fields: Mapping[str, int | bytes]) -> Pdu | None:
        """The positive answer to a request that may be repeated, so that any doubt is a no."""
        found = self.freest()
        if found is None:
            return None
        try:
            answer = await found[1].request(command, fields)
        except (SessionError, MalformedPdu, FieldError):
            return None
        return answer if answer.status == Status.ESME_ROK else None

    def _written_id(self, provider_message_id: str) -> bytes:
        """The id as the SMSC wrote it in its answer, but for zeros in front."""
        hexadecimal = self._configuration.message_id.response is MessageIdForm.HEX
        if hexadecimal and provider_message_id.isdecimal():
            return format(int(provider_message_id), "x").encode()
        return provider_message_id.encode("latin-1", "replace")

    # What the SMSC asks

    async def _take(self, session: Session, pdu: Pdu) -> Pdu | None:
        match pdu.command:
            case Command.DELIVER_SM | Command.DATA_SM:
                return await self._take_delivery(session, pdu)
            case Command.ALERT_NOTIFICATION | Command.OUTBIND:
                return None  # neither has an answer (3.4, 4.12 and 4.1.7)
            case _:
                return pdu.reply(Status.ESME_RINVCMDID)

    async def _take_delivery(self, session: Session, pdu: Pdu) -> Pdu:
        receipt = parse_receipt(pdu)
        if receipt is None:
            # There is no inbound service to take it; a permanent no keeps the SMSC from insisting.
            _log.warning("inbound_not_taken", provider=self.name, bind=session.name)
            return pdu.reply(Status.ESME_RX_R_APPN)
        try:
            await self._on_receipt(self._received(receipt))
        except Exception as error:  # noqa: BLE001 - whatever it was, the SMSC is to come again
            _log.error(
                "receipt_not_recorded",
                provider=self.name,
                bind=session.name,
                error_type=type(error).__name__,
            )
            return pdu.reply(Status.ESME_RX_T_APPN)
        return pdu.reply()

    def _received(self, receipt: Receipt) -> ReceivedReceipt:
        configuration = self._configuration
        code = receipt.error or ""
        if code in {"", _NO_ERROR}:
            code = str(receipt.network_error.code) if receipt.network_error is not None else ""
        return ReceivedReceipt(
            provider=self.name,
            provider_message_id=canonical_id(
                receipt.provider_message_id, configuration.message_id.receipt
            ),
            state=receipt.state,
            code=code,
            network=None,  # network_error_code tells the kind of network, and not which
            reference=receipt.reference if configuration.echoes_reference else None,
            sender=_as_accepted(receipt.destination),
            recipient=_e164(receipt.source),
            done_at=receipt.done_at and receipt.done_at.replace(tzinfo=UTC),
        )


class _Submission:
    """One message on its way: its parts, and the session that the next one should take."""

    def __init__(self, provider: SmppProvider, outbound: Outbound, segmented: Segmented) -> None:
        self._provider = provider
        self._outbound = outbound
        self._encoding = segmented.encoding
        self._parts = wire_parts(segmented, outbound.reference)
        self._session: tuple[str, Session] | None = None
        self._begun = False

    async def send(self, number: int) -> Answered:
        """Send one part; over another session where the first one closed before it left."""
        if self._begun:
            try:
                await self._provider.rate_allows_further_part()
            except NoSlot:
                return Answered(not_sent(number))
        self._begun = True
        part = self._parts[number - 1]
        provider, outbound = self._provider, self._outbound
        fields = provider.submit_fields(outbound, part, self._encoding)
        tlvs = provider.submit_tlvs(part, (outbound.reference + number - 1) & 0xFFFF)
        tried: list[str] = []
        while True:
            found = self._next_session(tried)
            if found is None:
                return Answered(not_sent(number))
            answered = await self._send_over(*found, number, fields, tlvs)
            if answered is not None:
                return answered
            tried.append(found[0])

    def _next_session(self, tried: Sequence[str]) -> tuple[str, Session] | None:
        """The session of the parts before, while it is good, else the freest."""
        current = self._session
        if current is None or not current[1].is_open or current[1].in_flight >= current[1].window:
            self._session = self._provider.freest(but=tried)
        return self._session

    async def _send_over(
        self,
        bind: str,
        session: Session,
        number: int,
        fields: Mapping[str, int | bytes],
        tlvs: Sequence[Tlv],
    ) -> Answered | None:
        """What came of it, or None where the session closed before the part had left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = await session.request(Command.SUBMIT_SM, fields, tlvs)
        except SessionClosed as closed:
            return Answered(_unknown(number, bind)) if closed.sent else None
        except ResponseTimeout as timeout:
            if not timeout.sent:
                return Answered(not_sent(number, bind))
            self._provider.expect_late(self._outbound, number, bind, timeout)
            return Answered(_unknown(number, bind))
        except MalformedPdu:
            return Answered(_unknown(number, bind))
        except FieldError:
            return Answered(
                PartOutcome(
                    number,
                    OutcomeKind.REFUSED,
                    error_class=ErrorClass.INVALID_MESSAGE,
                    bind=bind,
                )
            )
        outcome = self._provider.outcome_of(number, bind, answer)
        self._provider.heed(outcome, session)
        return Answered(outcome, loop.time() - began)


def _unknown(number: int, bind: str) -> PartOutcome:
    return PartOutcome(number, OutcomeKind.UNKNOWN, error_class=ErrorClass.UNKNOWN, bind=bind)


def canonical_id(written: str, form: MessageIdForm) -> str:
    """A message id in the one form that answers and receipts are compared in.

    Ids declared as hexadecimal or decimal become decimal without zeros in front, since many SMSCs
    answer in the one and send receipts in the other; what is not such a number stays as it is.
    """
    match form:
        case MessageIdForm.AS_IS:
            return written
        case MessageIdForm.HEX:
            base = 16
        case MessageIdForm.DECIMAL:
            base = 10
        case _:
            assert_never(form)
    try:
        return str(int(written, base))
    except ValueError:
        return written


def validity_period(
    form: ValidityForm, valid_for: timedelta | None, now: datetime | None = None
) -> bytes:
    """validity_period (SMPP 3.4, 7.1.1): relative in days and less, or absolute in UTC.

    `now`, by default the clock's, is what an absolute one counts from.
    """
    if valid_for is None or form is ValidityForm.NONE:
        return b""
    if form is ValidityForm.ABSOLUTE:
        end = (now or datetime.now(UTC)) + valid_for
        return f"{end:%y%m%d%H%M%S}000+".encode()
    minutes, seconds = divmod(max(1, int(valid_for.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    months, days = divmod(days, 30)
    return f"00{months:02}{days:02}{hours:02}{minutes:02}{seconds:02}000R".encode()


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


def _e164(address: str) -> str | None:
    """A receipt's source as the recipient that we know, if it can be one."""
    try:
        return parse_number("+" + address.removeprefix("+")).e164
    except InvalidNumber:
        return None


def _as_accepted(address: str) -> str | None:
    """A receipt's destination as the sender that we know, if it can be one."""
    try:
        return parse_sender(address).value
    except InvalidSender:
        return None

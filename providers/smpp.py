"""A carrier reached by SMPP 3.4: messages out, receipts in."""

from __future__ import annotations

import asyncio
import functools
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

import structlog

from domain import deadlines
from domain.configuration.providers.smpp import ValidityForm
from domain.encoding import Encoding, NotEncodable
from domain.error_classes import RETRIES, ErrorClass
from domain.modes import Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.provider_codes.smpp import classify_smpp
from domain.segments import (
    PartMethod,
    UnsendableText,
    WirePart,
    segment_as_counted,
    wire_parts,
)
from domain.senders import parse_sender
from providers.base import (
    Exchange,
    LateResponse,
    NoSlot,
    Outbound,
    PartsChanged,
    ReceiptRefused,
    ReceivedReceipt,
    UnparsedReason,
    UnparsedReceipt,
    not_in_time,
    not_sent,
)
from providers.binds import Binds
from providers.queued import QueuedProvider
from smpp.commands import RESPONSE_BIT, Command
from smpp.fields import FieldError, Fields
from smpp.pdus import MalformedPdu, Pdu, decode
from smpp.receipts import MESSAGE_STATES, parse_receipt, storable
from smpp.session import ResponseTimeout, Session, SessionClosed, SessionError
from smpp.statuses import Status
from smpp.tlvs import Tag, Tlv
from telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from domain.binds import BindError
    from domain.configuration.providers.smpp import SmppConfiguration
    from domain.segments import Segmented
    from providers.base import (
        LateSink,
        PartSender,
        ProviderSinks,
        ReceiptSink,
        UnparsedReceiptSink,
    )
    from providers.submit_queue import SubmitQueue

_log = structlog.get_logger(logger_name=__name__)

_PARTING: Final = 3.0
"""Seconds for the responses of a session that is given to another process."""

_UDHI: Final = 0x40  # esm_class, 3.4, 5.2.12
_RECEIPT_WANTED: Final = 0x01  # registered_delivery, 3.4, 5.2.17
_INTERNATIONAL: Final = 1  # TON, 3.4, 5.2.5
_E164: Final = 1  # NPI, 3.4, 5.2.6

# priority_flag, 3.4, 5.2.14, in the words of ANSI-136: bulk, normal, urgent, very urgent.
_PRIORITY_FLAGS: Final[Mapping[Priority, int]] = {
    Priority.LOW: 0,
    Priority.NORMAL: 1,
    Priority.HIGH: 2,
    Priority.CRITICAL: 3,
}

# The longest short code and the shortest and longest E.164 number (ITU-T E.164, 6.2.1), in digits.
_LONGEST_SHORT_CODE: Final = 8
_SHORTEST_NUMBER: Final = 7
_LONGEST_NUMBER: Final = 15

_LONGEST_ID_SENT: Final = 64  # message_id, 3.4, 5.2.23

_DELIVERIES: Final = frozenset({Command.DELIVER_SM, Command.DATA_SM})


class SmppProvider(QueuedProvider):
    """An account at an SMSC, or at the simulator; made within a running event loop.

    `password` is the secret itself. `on_receipt` is awaited before a receipt is answered: if it
    raises, the response makes the SMSC send the receipt again, unless it raises ReceiptRefused.
    `on_unparsed_receipt` likewise takes receipts that cannot be parsed; without it the SMSC keeps these.
    `on_late` is called with responses that came after their part had been given up as unknown.

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
        on_unparsed_receipt: UnparsedReceiptSink | None = None,
    ) -> None:
        self._configuration = configuration
        self._on_receipt = on_receipt
        self._on_late = on_late
        self._on_unparsed_receipt = on_unparsed_receipt
        self._binds = Binds(
            name,
            configuration,
            password,
            self._take,
            self._take_malformed,
            self._connectivity_changed,
        )
        super().__init__(name, configuration.rate, self._binds.open_windows)
        self._awaiting_late: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[Pdu | None]] = set()

    @classmethod
    def build(
        cls,
        name: str,
        configuration: SmppConfiguration,
        secrets: Mapping[str, str],
        sinks: ProviderSinks,
    ) -> Self:
        """The provider with this section of the configuration; its only secret is `password`."""
        return cls(
            name,
            configuration,
            secrets["password"],
            on_receipt=sinks.on_receipt,
            on_late=sinks.on_late,
            on_unparsed_receipt=sinks.on_unparsed_receipt,
        )

    # Up and down

    @property
    def binds_up(self) -> int:
        return len(self._binds.transmitting())

    @property
    def last_bind_error(self) -> BindError | None:
        return self._binds.last_error

    @property
    def held(self) -> int:
        return self._binds.held

    async def hold(self, binds: int) -> None:
        await self._binds.hold(binds, _PARTING)

    async def stop(self, grace: timedelta) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace.total_seconds()
        await self._end_submits(deadline)
        await self._binds.stop(max(0.0, deadline - loop.time()))
        await asyncio.gather(*self._awaiting_late, *self._asking)

    # Sending

    def count_parts(self, outbound: Outbound) -> int:
        try:
            return len(self._segmented(outbound).parts)
        except (UnsendableText, NotEncodable):
            return 1

    def _segmented(self, outbound: Outbound) -> Segmented:
        configuration = self._configuration
        method = outbound.part_method or configuration.parts
        if method is PartMethod.UDH8 and outbound.long_reference:
            method = PartMethod.UDH16
        return segment_as_counted(outbound.text, method=method, alphabet=configuration.alphabet)

    def _part_sender(self, outbound: Outbound, start_by: float | None) -> PartSender:
        segmented = self._segmented(outbound)
        if outbound.parts is not None and len(segmented.parts) != outbound.parts:
            raise PartsChanged
        submission = _Submission(
            self._configuration,
            self._binds,
            self._queue,
            outbound,
            segmented,
            self._count_response,
            start_by,
        )

        async def send(number: int) -> Exchange:
            answered = await submission.send(number)
            if submission.late is not None and self._on_late is not None:
                waiting = self._report_late(
                    self._on_late, outbound, answered.outcome, submission.late
                )
                task = asyncio.get_running_loop().create_task(waiting)
                self._awaiting_late.add(task)
                task.add_done_callback(self._awaiting_late.discard)
            return answered

        return send

    async def _report_late(
        self,
        sink: LateSink,
        outbound: Outbound,
        unknown: PartOutcome,
        late: asyncio.Future[Pdu],
    ) -> None:
        try:
            response = await late
        except SessionClosed:
            return
        outcome = _outcome_of(self._configuration, unknown.number, unknown.bind, response)
        try:
            await sink(LateResponse(self.name, outbound.message_id, outbound.attempt, outcome))
        except Exception as error:  # noqa: BLE001 - then the part stays unknown, as it is
            _log.error(
                "late_response_not_recorded",
                provider=self.name,
                message_id=outbound.message_id,
                error_type=type(error).__name__,
            )

    # Asking about what was sent

    async def cancel_at_provider(
        self, provider_message_id: str, *, sender: str, recipient: str
    ) -> bool:
        configuration = self._configuration
        if not configuration.cancel:
            return False
        response = await self._ask(
            Command.CANCEL_SM,
            {
                "message_id": _octets_of_id(provider_message_id),
                **_source(configuration, sender),
                **_destination(configuration, recipient),
            },
        )
        return response is not None and response.command is Command.CANCEL_SM_RESP

    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        response = await self._ask(
            Command.QUERY_SM,
            {
                "message_id": _octets_of_id(provider_message_id),
                **_source(self._configuration, sender),
            },
        )
        if response is None or response.command is not Command.QUERY_SM_RESP:
            return None
        state = MESSAGE_STATES.get(response.number("message_state"))
        if state is None:
            return None
        return ReceivedReceipt(
            provider=self.name,
            provider_message_id=provider_message_id,
            state=state,
            code="",
            network=None,
            reference=None,
            sender=None,
            recipient=None,
            done_at=None,
        )

    async def _ask(self, command: Command, fields: Fields) -> Pdu | None:
        """The positive answer, if there is one: unknown it may be asked again.

        It takes at most twice the provider's `response_timeout`: for a slot of a window, and for the
        answer. A caller that is cancelled leaves the request its slot, since it may be on its way.
        """
        asking = asyncio.get_running_loop().create_task(self._ask_in_turn(command, fields))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        return await asyncio.shield(asking)

    async def _ask_in_turn(self, command: Command, fields: Fields) -> Pdu | None:
        async with self._operation(
            self._configuration.response_timeout.total_seconds()
        ) as has_slot:
            session = self._binds.freest() if has_slot else None
            if session is None:
                return None
            try:
                response = await session.request(command, fields)
            except (SessionError, MalformedPdu, FieldError):
                return None
        return response if response.status == Status.ESME_ROK else None

    # What the SMSC asks

    def _take(self, session: Session, pdu: Pdu) -> Awaitable[Pdu | None]:
        if pdu.command not in _DELIVERIES:
            return self._response(session, pdu)
        received = received_receipt(self.name, self._configuration, pdu)
        if received is None:
            return self._response(session, pdu)
        if isinstance(received, UnparsedReason):
            return self._keep_unparsed(session, pdu.frame, received, pdu.reply)
        return self._take_receipt(session, pdu, received)

    def _take_malformed(self, session: Session, malformed: MalformedPdu) -> Awaitable[Pdu | None]:
        """Keep a deliver_sm or data_sm that cannot be read: it may be a receipt."""
        response = Command(malformed.command_id | RESPONSE_BIT)

        def reply(status: int = 0) -> Pdu:
            return Pdu(response, status, malformed.sequence)

        return self._keep_unparsed(session, malformed.frame, UnparsedReason.MALFORMED_PDU, reply)

    async def _keep_unparsed(
        self, session: Session, frame: bytes, reason: UnparsedReason, reply: Callable[[int], Pdu]
    ) -> Pdu | None:
        _log.warning(
            "receipt_not_parsed", provider=self.name, bind=session.name, reason=reason.value
        )
        try:
            if self._on_unparsed_receipt is None:
                return reply(Status.ESME_RX_T_APPN)
            await self._on_unparsed_receipt(UnparsedReceipt(self.name, reason, frame))
        except Exception as error:  # noqa: BLE001 - whatever it was, the SMSC is to come again
            self._log_not_recorded(session, error)
            return reply(Status.ESME_RX_T_APPN)
        metrics.receipt_not_parsed(provider=self.name, reason=reason)
        return reply(Status.ESME_ROK)

    async def _response(self, session: Session, pdu: Pdu) -> Pdu | None:
        """What is no receipt; a permanent no keeps the SMSC from insisting."""
        match pdu.command:
            case Command.DELIVER_SM | Command.DATA_SM:
                # There is no inbound service to take it.
                _log.warning("inbound_not_taken", provider=self.name, bind=session.name)
                return pdu.reply(Status.ESME_RX_R_APPN)
            case Command.ALERT_NOTIFICATION | Command.OUTBIND:
                return None  # neither has a response (3.4, 4.12 and 4.1.7)
            case _:
                return pdu.reply(Status.ESME_RINVCMDID)

    def _take_receipt(
        self, session: Session, pdu: Pdu, received: ReceivedReceipt
    ) -> asyncio.Future[Pdu | None]:
        """Its answer, when it is stored. No task for each: thousands of them come in a second."""
        response: asyncio.Future[Pdu | None] = asyncio.get_running_loop().create_future()

        def answered(stored: asyncio.Future[None]) -> None:
            error = asyncio.CancelledError() if stored.cancelled() else stored.exception()
            response.set_result(
                pdu.reply() if error is None else self._not_recorded(session, pdu, error)
            )

        try:
            asyncio.ensure_future(self._on_receipt(received)).add_done_callback(answered)
        except Exception as error:  # noqa: BLE001 - whatever it was, the SMSC is to come again
            response.set_result(self._not_recorded(session, pdu, error))
        return response

    def _not_recorded(self, session: Session, receipt: Pdu, error: BaseException) -> Pdu:
        self._log_not_recorded(session, error)
        is_refused = isinstance(error, ReceiptRefused)
        return receipt.reply(Status.ESME_RX_P_APPN if is_refused else Status.ESME_RX_T_APPN)

    def _log_not_recorded(self, session: Session, error: BaseException) -> None:
        _log.error(
            "receipt_not_recorded",
            provider=self.name,
            bind=session.name,
            error_type=type(error).__name__,
        )


class _Submission:
    """One message on its way: its parts, and the session that carries them.

    Raises:
        UnusableParameter: a parameter of the message cannot be written into its TLV.
    """

    def __init__(
        self,
        configuration: SmppConfiguration,
        binds: Binds,
        turns: SubmitQueue,
        outbound: Outbound,
        segmented: Segmented,
        count_response: Callable[[ErrorClass | None], None],
        start_by: float | None,
    ) -> None:
        self.late: asyncio.Future[Pdu] | None = None
        """Where the response may still come from, to the part that was given up last."""
        self._configuration = configuration
        self._binds = binds
        self._queue = turns
        self._count_response = count_response
        self._outbound = outbound
        self._start_by = start_by
        self._encoding = segmented.encoding
        self._parts = wire_parts(segmented, outbound.reference)
        self._vendor_tlvs = [
            Tlv(tlv.tag, octets)
            for tlv in configuration.tlvs
            if (octets := tlv.value(outbound.parameters)) is not None
        ]
        self._session: Session | None = None

    async def send(self, number: int) -> Exchange:
        """Send one part, by the session of the part before while that stands."""
        if self._session is not None:
            try:
                async with asyncio.timeout_at(self._start_by):
                    await self._queue.take_for_part(self._outbound.priority.rank)
            except NoSlot:
                return Exchange(not_sent(number))
            except TimeoutError:
                return Exchange(not_in_time(number))
        fields, tlvs = self._pdu(number)
        closed: list[Session] = []
        while (session := self._next_session(closed)) is not None:
            answered = await self._send_over(session, number, fields, tlvs)
            if answered is not None:
                return answered
            closed.append(session)
        return Exchange(not_sent(number))

    def _pdu(self, number: int) -> tuple[Fields, Sequence[Tlv]]:
        """Fields and TLVs of the submit_sm (SMPP 3.4, 4.4.1)."""
        configuration, outbound = self._configuration, self._outbound
        part: WirePart = self._parts[number - 1]
        coding = configuration.data_coding
        fields: Fields = {
            **_source(configuration, outbound.sender),
            **_destination(configuration, outbound.recipient),
            "esm_class": _UDHI if part.has_header else 0,
            "priority_flag": _PRIORITY_FLAGS[outbound.priority],
            "validity_period": _validity_period(configuration, outbound, datetime.now(UTC)),
            "registered_delivery": _RECEIPT_WANTED if configuration.receipts else 0,
            "data_coding": coding.gsm7 if self._encoding is Encoding.GSM7 else coding.ucs2,
            "short_message": part.short_message,
        }
        reference = (outbound.reference + number - 1) & 0xFFFF
        return fields, [
            Tlv(Tag.USER_MESSAGE_REFERENCE, reference.to_bytes(2, "big")),
            *[Tlv(tag, value) for tag, value in part.tlvs],
            *self._vendor_tlvs,
        ]

    def _next_session(self, closed: Sequence[Session]) -> Session | None:
        session = self._session
        if session is None or not session.is_open or session.in_flight >= session.window:
            self._session = self._binds.freest(but=closed)
        return self._session

    async def _send_over(
        self, session: Session, number: int, fields: Fields, tlvs: Sequence[Tlv]
    ) -> Exchange | None:
        """What came of it, or None where the session closed before the part had left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            response = await session.request(Command.SUBMIT_SM, fields, tlvs)
        except SessionClosed as end:
            return _unknown(number, session) if end.sent else None
        except ResponseTimeout as silence:
            if not silence.sent:
                return Exchange(not_sent(number, session.name))
            self.late = silence.late
            return _unknown(number, session)
        except MalformedPdu:
            return _unknown(number, session)
        except FieldError:
            invalid = ErrorClass.INVALID_MESSAGE
            return Exchange(
                PartOutcome(number, OutcomeKind.REFUSED, error_class=invalid, bind=session.name)
            )
        outcome = _outcome_of(self._configuration, number, session.name, response)
        self._count_response(outcome.error_class)
        if outcome.error_class is ErrorClass.SESSION:
            self._binds.begin_anew(session)
        return Exchange(outcome, loop.time() - began)


def _unknown(number: int, session: Session) -> Exchange:
    return Exchange(
        PartOutcome(number, OutcomeKind.UNKNOWN, error_class=ErrorClass.UNKNOWN, bind=session.name)
    )


def _source(configuration: SmppConfiguration, sender: str) -> Fields:
    return _source_of(sender, configuration.source_ton, configuration.source_npi)


@functools.lru_cache(maxsize=1024)  # an account has few, and thousands of messages have the same
def _source_of(sender: str, ton: int | None, npi: int | None) -> Fields:
    source = parse_sender(sender)
    return {
        "source_addr_ton": source.ton if ton is None else ton,
        "source_addr_npi": source.npi if npi is None else npi,
        "source_addr": source.address.encode("ascii"),
    }


def _destination(configuration: SmppConfiguration, recipient: str) -> Fields:
    ton, npi = configuration.destination_ton, configuration.destination_npi
    return {
        "dest_addr_ton": _INTERNATIONAL if ton is None else ton,
        "dest_addr_npi": _E164 if npi is None else npi,
        "destination_addr": recipient.removeprefix("+").encode("ascii"),
    }


def _outcome_of(
    configuration: SmppConfiguration, number: int, bind: str, response: Pdu
) -> PartOutcome:
    """What a submit_sm_resp, or a generic_nack in its place, means."""
    if response.status == Status.ESME_ROK and response.command is Command.SUBMIT_SM_RESP:
        given = response.octets("message_id")
        message_id = configuration.message_id.of_response(storable(given))
        is_other = given != _octets_of_id(message_id) and len(given) <= _LONGEST_ID_SENT
        return PartOutcome(
            number,
            OutcomeKind.ACCEPTED,
            provider_message_id=message_id or None,
            bind=bind,
            provider_message_id_given=given.decode("latin-1") if is_other and message_id else None,
        )
    error_class = classify_smpp(response.status, configuration.errors)
    return PartOutcome(
        number,
        OutcomeKind.THROTTLED if RETRIES[error_class].waits else OutcomeKind.REFUSED,
        code=f"0x{response.status:08x}",
        error_class=error_class,
        bind=bind,
    )


def received_receipt(
    provider: str, configuration: SmppConfiguration, pdu: Pdu
) -> ReceivedReceipt | UnparsedReason | None:
    """The receipt in a deliver_sm or data_sm, or why it cannot be parsed; None if it is something else.

    A receipt without an id is of use only if the SMSC echoes our reference.
    """
    receipt = parse_receipt(pdu, configuration.receipt_states)
    if receipt is None:
        return None
    if receipt.state is None:
        return UnparsedReason.UNKNOWN_STATE
    message_id = configuration.message_id.of_receipt(receipt.id_in_text, receipt.id_in_tlv)
    reference = receipt.reference if configuration.echoes_reference else None
    if not message_id and reference is None:
        return UnparsedReason.NO_MESSAGE_ID
    code = receipt.error or ""
    if not code.strip("0") and receipt.network_error is not None:  # the text has none
        code = str(receipt.network_error.code)
    return ReceivedReceipt(
        provider=provider,
        provider_message_id=message_id,
        state=receipt.state,
        code=code,
        network=None,  # network_error_code has the kind of network, and not which
        reference=reference,
        sender=_as_accepted(receipt.destination),
        recipient=_number(receipt.source),
        done_at=receipt.done_at and receipt.done_at.replace(tzinfo=UTC),
    )


def parse_again(
    provider: str, configuration: SmppConfiguration, frame: bytes
) -> Sequence[ReceivedReceipt] | UnparsedReason:
    """The receipt in the octets of an `UnparsedReceipt`, or why there is none; empty for anything else."""
    try:
        pdu = decode(frame)
    except MalformedPdu:
        return UnparsedReason.MALFORMED_PDU
    received = received_receipt(provider, configuration, pdu)
    if isinstance(received, UnparsedReason):
        return received
    return () if received is None else (received,)


def _octets_of_id(provider_message_id: str) -> bytes:
    """The octets of an id as the SMSC gave it."""
    return provider_message_id.encode("latin-1", "replace")


def _number(address: str) -> str | None:
    """A receipt's source as the recipient that was written to, if it is a number."""
    digits = address.removeprefix("+")
    is_number = digits.isascii() and digits.isdigit()
    return (
        f"+{digits}" if is_number and _SHORTEST_NUMBER <= len(digits) <= _LONGEST_NUMBER else None
    )


def _as_accepted(address: str) -> str | None:
    """A receipt's destination as the sender that was accepted: a number has its +."""
    if len(address.removeprefix("+")) > _LONGEST_SHORT_CODE:
        return _number(address) or address
    return address or None


def _validity_period(configuration: SmppConfiguration, outbound: Outbound, now: datetime) -> bytes:
    until = outbound.valid_until
    if until is not None:
        until = deadlines.part_valid_until(now, until, outbound.receipt_wait)
    return validity_period(configuration.validity, until, now)


def validity_period(form: ValidityForm, valid_until: datetime | None, now: datetime) -> bytes:
    """validity_period (SMPP 3.4, 7.1.1): relative to `now`, at least a second, or absolute in UTC.

    Empty, which is the SMSC's own default, for ValidityForm.NONE and where `valid_until` is None.
    """
    if valid_until is None or form is ValidityForm.NONE:
        return b""
    seconds = max(1, math.ceil((valid_until - now).total_seconds()))
    if form is ValidityForm.ABSOLUTE:
        until = now + timedelta(seconds=seconds)
        return f"{until.astimezone(UTC):%y%m%d%H%M%S}000+".encode()
    return _relative_period(seconds)


@functools.lru_cache(maxsize=1024)  # the messages of one moment have the same
def _relative_period(seconds: int) -> bytes:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    months, days = divmod(days, 30)
    years, months = divmod(months, 12)
    return f"{years:02}{months:02}{days:02}{hours:02}{minutes:02}{seconds:02}000R".encode()

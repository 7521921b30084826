"""A carrier reached by SMPP 3.4: messages out, receipts in."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from domain.configuration import MessageIdForm, ValidityForm
from domain.encoding import Encoding
from domain.errors import ErrorClass, classify_smpp
from domain.modes import Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.segments import WirePart, segment, wire_parts
from domain.senders import parse_sender
from providers.base import (
    Answered,
    LateAnswer,
    NoSlot,
    Outbound,
    Provider,
    ReceivedReceipt,
    not_sent,
)
from providers.binds import Binds
from providers.turns import Turns
from smpp.pdus import Command, FieldError, Fields, MalformedPdu, Pdu, Status, Tag, Tlv
from smpp.receipts import MESSAGE_STATES, Receipt, parse_receipt
from smpp.session import ResponseTimeout, Session, SessionClosed, SessionError
from telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from domain.configuration import SmppProvider as SmppConfiguration
    from domain.receipts import ReceiptState
    from domain.segments import Segmented
    from providers.base import LateSink, PartSender, ReceiptSink

_log = structlog.get_logger(logger_name=__name__)

_PARTING: Final = 3.0
"""Seconds for the answers of a session that is given to another process."""

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

_DELIVERIES: Final = frozenset({Command.DELIVER_SM, Command.DATA_SM})


class SmppProvider(Provider):
    """An account at an SMSC, or at the simulator; made within a running event loop.

    `password` is the secret itself. `on_receipt` is awaited before a receipt is answered: if it
    raises, the SMSC is told to send the receipt again. `on_late` is told of answers that came after
    their part had been given up as unknown.

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
        self._on_receipt = on_receipt
        self._on_late = on_late
        self._binds = Binds(name, configuration, password, self._take, self._binds_changed)
        self._turns = Turns(configuration.rate, self._binds.open_windows)
        metrics.window_watched(name, lambda: self._turns.held)
        self._is_up = asyncio.Event()
        self._is_down = asyncio.Event()
        self._is_down.set()
        self._stopping = False
        self._awaiting_late: set[asyncio.Task[None]] = set()

    # Up and down

    @property
    def binds_up(self) -> int:
        return len(self._binds.transmitting())

    @property
    def capacity(self) -> int:
        return self._binds.open_windows()

    async def wait_until(self, *, up: bool) -> None:
        await (self._is_up if up else self._is_down).wait()

    @property
    def held(self) -> int:
        return self._binds.held

    @property
    def rate(self) -> float | None:
        return self._turns.pace.limit

    async def hold(self, binds: int) -> None:
        rate, total = self._configuration.rate, self._configuration.binds
        if rate is not None and binds:
            self._turns.pace.limit_to(rate * binds / total)
        await self._binds.hold(binds, _PARTING)

    async def stop(self, grace: timedelta) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace.total_seconds()
        self._stopping = True
        self._binds_changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._turns.close()
        self._turns.end()
        await self._binds.stop(max(0.0, deadline - loop.time()))
        await asyncio.gather(*self._awaiting_late)

    def _binds_changed(self) -> None:
        up = self.up and not self._stopping
        (self._is_up.set if up else self._is_up.clear)()
        (self._is_down.clear if up else self._is_down.set)()
        self._turns.look_again()

    # Sending

    def slot(self, priority: Priority) -> AbstractAsyncContextManager[None]:
        return _Slot(self._turns, priority.rank)

    def count_parts(self, outbound: Outbound) -> int:
        return len(self._segmented(outbound).parts)

    def _segmented(self, outbound: Outbound) -> Segmented:
        configuration = self._configuration
        return segment(outbound.text, method=configuration.parts, alphabet=configuration.alphabet)

    def _part_sender(self, outbound: Outbound) -> PartSender:
        segmented = self._segmented(outbound)
        submission = _Submission(self._configuration, self._binds, self._turns, outbound, segmented)

        async def send(number: int) -> Answered:
            answered = await submission.send(number)
            if submission.late is not None and self._on_late is not None:
                waiting = self._tell_late(
                    self._on_late, outbound, answered.outcome, submission.late
                )
                task = asyncio.get_running_loop().create_task(waiting)
                self._awaiting_late.add(task)
                task.add_done_callback(self._awaiting_late.discard)
            return answered

        return send

    async def _tell_late(
        self,
        sink: LateSink,
        outbound: Outbound,
        unknown: PartOutcome,
        late: asyncio.Future[Pdu],
    ) -> None:
        try:
            answer = await late
        except SessionClosed:
            return
        outcome = _outcome_of(self._configuration, unknown.number, unknown.bind, answer)
        try:
            await sink(LateAnswer(self.name, outbound.message_id, outbound.attempt, outcome))
        except Exception as error:  # noqa: BLE001 - then the part stays unknown, as it is
            _log.error(
                "late_answer_not_recorded",
                provider=self.name,
                message_id=outbound.message_id,
                error_type=type(error).__name__,
            )

    # Asking about what was sent

    async def recall(self, provider_message_id: str, *, sender: str, recipient: str) -> bool:
        configuration = self._configuration
        if not configuration.cancel:
            return False
        answer = await self._ask(
            Command.CANCEL_SM,
            {
                "message_id": self._written_id(provider_message_id),
                **_source(configuration, sender),
                **_destination(configuration, recipient),
            },
        )
        return answer is not None and answer.command is Command.CANCEL_SM_RESP

    async def query(self, provider_message_id: str, *, sender: str) -> ReceiptState | None:
        answer = await self._ask(
            Command.QUERY_SM,
            {
                "message_id": self._written_id(provider_message_id),
                **_source(self._configuration, sender),
            },
        )
        if answer is None or answer.command is not Command.QUERY_SM_RESP:
            return None
        return MESSAGE_STATES.get(answer.number("message_state"))

    async def _ask(self, command: Command, fields: Fields) -> Pdu | None:
        """The positive answer, if there is one: in doubt it may be asked again."""
        session = self._binds.freest()
        if session is None:
            return None
        try:
            answer = await session.request(command, fields)
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

    def _take(self, session: Session, pdu: Pdu) -> Awaitable[Pdu | None]:
        receipt = parse_receipt(pdu) if pdu.command in _DELIVERIES else None
        if receipt is None:
            return self._answer(session, pdu)
        return self._take_receipt(session, pdu, receipt)

    async def _answer(self, session: Session, pdu: Pdu) -> Pdu | None:
        """What is no receipt; a permanent no keeps the SMSC from insisting."""
        match pdu.command:
            case Command.DELIVER_SM | Command.DATA_SM:
                # There is no inbound service to take it.
                _log.warning("inbound_not_taken", provider=self.name, bind=session.name)
                return pdu.reply(Status.ESME_RX_R_APPN)
            case Command.ALERT_NOTIFICATION | Command.OUTBIND:
                return None  # neither has an answer (3.4, 4.12 and 4.1.7)
            case _:
                return pdu.reply(Status.ESME_RINVCMDID)

    def _take_receipt(
        self, session: Session, pdu: Pdu, receipt: Receipt
    ) -> asyncio.Future[Pdu | None]:
        """Its answer, when it is stored. No task for each: thousands of them come in a second."""
        answer: asyncio.Future[Pdu | None] = asyncio.get_running_loop().create_future()

        def answered(stored: asyncio.Future[None]) -> None:
            error = asyncio.CancelledError() if stored.cancelled() else stored.exception()
            answer.set_result(
                pdu.reply() if error is None else self._not_recorded(session, pdu, error)
            )

        try:
            received = _received(self.name, self._configuration, receipt)
            asyncio.ensure_future(self._on_receipt(received)).add_done_callback(answered)
        except Exception as error:  # noqa: BLE001 - whatever it was, the SMSC is to come again
            answer.set_result(self._not_recorded(session, pdu, error))
        return answer

    def _not_recorded(self, session: Session, receipt: Pdu, error: BaseException) -> Pdu:
        _log.error(
            "receipt_not_recorded",
            provider=self.name,
            bind=session.name,
            error_type=type(error).__name__,
        )
        return receipt.reply(Status.ESME_RX_T_APPN)


class _Slot(AbstractAsyncContextManager[None]):
    """A turn, taken and given back."""

    def __init__(self, turns: Turns, rank: int) -> None:
        self._turns = turns
        self._rank = rank

    async def __aenter__(self) -> None:
        await self._turns.take(self._rank)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give_back()


class _Submission:
    """One message on its way: its parts, and the session that carries them."""

    def __init__(
        self,
        configuration: SmppConfiguration,
        binds: Binds,
        turns: Turns,
        outbound: Outbound,
        segmented: Segmented,
    ) -> None:
        self.late: asyncio.Future[Pdu] | None = None
        """Where the answer may still come from, to the part that was given up last."""
        self._configuration = configuration
        self._binds = binds
        self._turns = turns
        self._outbound = outbound
        self._encoding = segmented.encoding
        self._parts = wire_parts(segmented, outbound.reference)
        self._session: Session | None = None

    async def send(self, number: int) -> Answered:
        """Send one part, by the session of the part before while that stands."""
        if self._session is not None:
            try:
                await self._turns.take_for_part()
            except NoSlot:
                return Answered(not_sent(number))
        fields, tlvs = self._pdu(number)
        closed: list[Session] = []
        while (session := self._next_session(closed)) is not None:
            answered = await self._send_over(session, number, fields, tlvs)
            if answered is not None:
                return answered
            closed.append(session)
        return Answered(not_sent(number))

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
            "validity_period": validity_period(
                configuration.validity, outbound.valid_for, datetime.now(UTC)
            ),
            "registered_delivery": _RECEIPT_WANTED if configuration.receipts else 0,
            "data_coding": coding.gsm7 if self._encoding is Encoding.GSM7 else coding.ucs2,
            "short_message": part.short_message,
        }
        reference = (outbound.reference + number - 1) & 0xFFFF
        return fields, [
            Tlv(Tag.USER_MESSAGE_REFERENCE, reference.to_bytes(2, "big")),
            *[Tlv(tag, value) for tag, value in part.tlvs],
            *[Tlv(tlv.tag, tlv.value) for tlv in configuration.tlvs],
        ]

    def _next_session(self, closed: Sequence[Session]) -> Session | None:
        session = self._session
        if session is None or not session.is_open or session.in_flight >= session.window:
            self._session = self._binds.freest(but=closed)
        return self._session

    async def _send_over(
        self, session: Session, number: int, fields: Fields, tlvs: Sequence[Tlv]
    ) -> Answered | None:
        """What came of it, or None where the session closed before the part had left."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = await session.request(Command.SUBMIT_SM, fields, tlvs)
        except SessionClosed as end:
            return _unknown(number, session) if end.sent else None
        except ResponseTimeout as silence:
            if not silence.sent:
                return Answered(not_sent(number, session.name))
            self.late = silence.late
            return _unknown(number, session)
        except MalformedPdu:
            return _unknown(number, session)
        except FieldError:
            invalid = ErrorClass.INVALID_MESSAGE
            return Answered(
                PartOutcome(number, OutcomeKind.REFUSED, error_class=invalid, bind=session.name)
            )
        outcome = _outcome_of(self._configuration, number, session.name, answer)
        if outcome.kind is OutcomeKind.THROTTLED:
            self._turns.pace.complain()
        elif outcome.error_class is ErrorClass.SESSION:
            self._binds.begin_anew(session)
        return Answered(outcome, loop.time() - began)


def _unknown(number: int, session: Session) -> Answered:
    return Answered(
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
    configuration: SmppConfiguration, number: int, bind: str, answer: Pdu
) -> PartOutcome:
    """What a submit_sm_resp, or a generic_nack in its place, means."""
    if answer.status == Status.ESME_ROK and answer.command is Command.SUBMIT_SM_RESP:
        written = answer.octets("message_id").decode("latin-1")
        message_id = configuration.message_id.response.canonical(written)
        return PartOutcome(
            number, OutcomeKind.ACCEPTED, provider_message_id=message_id or None, bind=bind
        )
    error_class = classify_smpp(answer.status, configuration.errors)
    return PartOutcome(
        number,
        OutcomeKind.THROTTLED if error_class is ErrorClass.THROTTLED else OutcomeKind.REFUSED,
        code=f"0x{answer.status:08x}",
        error_class=error_class,
        bind=bind,
    )


def _received(provider: str, configuration: SmppConfiguration, receipt: Receipt) -> ReceivedReceipt:
    code = receipt.error or ""
    if not code.strip("0"):  # no error, or none that the text tells
        code = str(receipt.network_error.code) if receipt.network_error is not None else ""
    return ReceivedReceipt(
        provider=provider,
        provider_message_id=configuration.message_id.receipt.canonical(receipt.provider_message_id),
        state=receipt.state,
        code=code,
        network=None,  # network_error_code tells the kind of network, and not which
        reference=receipt.reference if configuration.echoes_reference else None,
        sender=_as_accepted(receipt.destination),
        recipient=_number(receipt.source),
        done_at=receipt.done_at and receipt.done_at.replace(tzinfo=UTC),
    )


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


def validity_period(form: ValidityForm, valid_for: timedelta | None, now: datetime) -> bytes:
    """validity_period (SMPP 3.4, 7.1.1): relative, or absolute in UTC, counted from `now`.

    Empty, which is the SMSC's own default, for ValidityForm.NONE and where `valid_for` is None.
    """
    if valid_for is None or form is ValidityForm.NONE:
        return b""
    if form is ValidityForm.ABSOLUTE:
        return f"{(now + valid_for).astimezone(UTC):%y%m%d%H%M%S}000+".encode()
    return _relative_period(max(1, int(valid_for.total_seconds())))


@functools.lru_cache(maxsize=1024)  # the messages of one moment have the same
def _relative_period(seconds: int) -> bytes:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    months, days = divmod(days, 30)
    return f"00{months:02}{days:02}{hours:02}{minutes:02}{seconds:02}000R".encode()

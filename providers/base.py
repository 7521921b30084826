"""What every carrier is to the rest of the gateway, and what is counted for all of them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

import structlog

from domain.binds import BindError
from domain.encoding import NotEncodable
from domain.error_classes import ErrorClass
from domain.modes import Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.parameters import UnusableParameter
from domain.rates import RateDemand
from domain.receipts import PartIdentity, ReceiptState
from domain.segments import PartMethod, UnsendableText
from domain.values import value
from telemetry import metrics

_log = structlog.get_logger(logger_name=__name__)


@value
class Outbound:
    """One message as handed to a carrier.

    Attributes:
        sender, recipient: as accepted, and E.164 with its +.
        reference: 0 to 0xFFFF; it ties the parts together and comes back in the receipts of a carrier
            that echoes it. It is the same whenever parts of the same attempt are sent.
        country: the recipient's, ISO 3166-1 alpha-2 by the number; ZZ for none.
        parameters: what the sender wants the carrier to know beside that, by name, such as the ids of a
            registered template. What the carrier has no use for is ignored.
        valid_until: how long the carrier may try to deliver it; None leaves that to the carrier.
        receipt_wait: how long the receipt of a part is waited for, after it was sent: the carrier need
            not try any longer.
        long_reference: whether the low octet of `reference` was used for the recipient not long ago, so
            that all 16 bits are sent where that makes no more parts of the text.
        part_method: how the parts of an attempt that has begun are joined, whatever the configuration
            says now; None for a new attempt.
        parts: how many parts an attempt that has begun has; None for a new attempt.
        receipt_token: names this attempt in an address that the carrier calls back; the same whenever
            parts of the attempt are sent. `ProviderSinks.read_receipt_token` reads it. It is a secret,
            and is never logged.
    """

    message_id: UUID
    attempt: int
    sender: str = field(repr=False)
    recipient: str = field(repr=False)
    text: str = field(repr=False)
    reference: int
    valid_until: datetime | None
    priority: Priority
    receipt_wait: timedelta | None = None
    long_reference: bool = False
    part_method: PartMethod | None = None
    parts: int | None = None
    receipt_token: str = field(default="", repr=False)
    country: str = "ZZ"
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)


@value
class ReceivedReceipt:
    """A receipt as a carrier sent it.

    Attributes:
        provider_message_id: in the form of `PartOutcome.provider_message_id`; empty where the receipt
            has none.
        code: the carrier's own code, such as "000"; empty if it has none.
        reference: that of the part: the outbound's plus the part's number less one, and only where the
            carrier echoes it.
        sender, recipient: those of the message, not of the receipt, as they were accepted.
        done_at: UTC as far as the carrier's clock is.
        part: the part that it is for, where the receipt names it: what `read_receipt_token` returns.
            Such a receipt is for this part or for none, whatever else it carries.
        error_class: what `code` means, if the adapter knows; without it, `state` decides. It counts
            only for a state that is a failure.
    """

    provider: str
    provider_message_id: str
    state: ReceiptState
    code: str
    network: str | None
    reference: int | None
    sender: str | None = field(repr=False)
    recipient: str | None = field(repr=False)
    done_at: datetime | None
    part: PartIdentity | None = None
    error_class: ErrorClass | None = None


class UnparsedReason(StrEnum):
    """Why a receipt could not be parsed."""

    MALFORMED_PDU = "malformed_pdu"
    NO_MESSAGE_ID = "no_message_id"
    UNKNOWN_STATE = "unknown_state"
    MALFORMED_REQUEST = "malformed_request"


@value
class UnparsedReceipt:
    """A receipt that could not be parsed, as the octets that came (`frame`)."""

    provider: str
    reason: UnparsedReason
    frame: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LateResponse:
    """The response to a part that had been given up as unknown."""

    provider: str
    message_id: UUID
    attempt: int
    outcome: PartOutcome


ReceiptSink: TypeAlias = Callable[[ReceivedReceipt], Awaitable[None]]
"""Awaited before the carrier is answered: it returns when the receipt is committed.

Raises ReceiptRefused where it can never be."""

UnparsedReceiptSink: TypeAlias = Callable[[UnparsedReceipt], Awaitable[None]]
"""Awaited before the carrier is answered: it returns when the octets are committed."""

LateSink: TypeAlias = Callable[[LateResponse], Awaitable[None]]
"""Called with responses that came after their attempt had been recorded as unknown."""


ReceiptTokenReader: TypeAlias = Callable[[str, int], PartIdentity | None]
"""Returns the part with this number of the attempt that a receipt token names; None if the token is not
one of ours."""


def _no_token(_token: str, _number: int) -> None:
    return None


ReceiptUrl: TypeAlias = Callable[[str, str], str | None]
"""Returns the address at which a provider, by name, reports on the attempt with a receipt token; None if
the installation has no public address."""


def _no_url(_provider: str, _token: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ProviderSinks:
    """Where an adapter delivers what comes from its provider.

    Without `on_unparsed_receipt` the provider keeps what cannot be parsed, and without `on_late` late
    responses are dropped.
    """

    on_receipt: ReceiptSink
    on_late: LateSink | None = None
    on_unparsed_receipt: UnparsedReceiptSink | None = None
    read_receipt_token: ReceiptTokenReader = _no_token
    receipt_url: ReceiptUrl = _no_url


class ReceiptRefused(Exception):
    """A receipt that can never be stored: the carrier need not send it again.

    Any other exception of a `ReceiptSink` means that the carrier is to keep it and send it again.
    """

    loggable = True

    def __init__(self) -> None:
        super().__init__("the receipt cannot be stored: do not send it again")


class PartsChanged(Exception):
    """The text would make other parts now than those of which the carrier has some."""

    def __init__(self) -> None:
        super().__init__(
            "the text makes another number of parts than when the first of them were sent: "
            "the provider's alphabet was changed"
        )


class NoSlot(Exception):
    """A message cannot leave within a second.

    `after` is when it may be worth another try, and `error_class` why: THROTTLED by our own rate or
    window, or UNREACHABLE because no session is up.
    """

    def __init__(self, after: timedelta, error_class: ErrorClass) -> None:
        super().__init__(f"no slot: {error_class}, try again in {after.total_seconds():.1f} s")
        self.after = after
        self.error_class = error_class


@value
class Exchange:
    """What came of one part, and the seconds from the socket to the response, if there was one."""

    outcome: PartOutcome
    seconds: float | None = None


PartSender: TypeAlias = Callable[[int], Awaitable[Exchange]]
"""Sends the part with this number, from 1, and says what came of it."""


class Provider(ABC):
    """One account at a carrier, held by this process.

    An adapter says how a part is sent (`_part_sender`); that the parts of a message go one by one,
    stop at the first that was not taken, and are all counted, is said here once.
    """

    name: str

    @property
    @abstractmethod
    def binds_up(self) -> int:
        """How many sessions can send just now; what has no sessions says 1 or 0.

        0 as well while something else is missing that the configuration promises, such as a
        session for receipts.
        """

    @property
    @abstractmethod
    def last_bind_error(self) -> BindError | None:
        """Why a session that this process keeps up is not bound just now, or was not at last.

        None if all have been bound since they were wanted.
        """

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many messages may be unanswered at once, over all sessions that are up."""

    @property
    def up(self) -> bool:
        """Whether anything can be sent."""
        return self.binds_up > 0

    @abstractmethod
    async def wait_until(self, *, up: bool) -> None:
        """Return as soon as `self.up` is as given, which may be at once."""

    @property
    @abstractmethod
    def held(self) -> int:
        """How many sessions this process keeps up, or is about to give back."""

    @property
    @abstractmethod
    def rate(self) -> float | None:
        """Messages a second that this process may send: its part of the carrier's rate."""

    @property
    def current_rate(self) -> float | None:
        """`rate`, or less while the carrier throttles; None where nothing limits it just now."""
        return self.rate

    @property
    def rate_ratio(self) -> float:
        """The rate just now by the usual one; below 1 while the carrier throttles."""
        return 1.0

    @abstractmethod
    def limit_rate(self, rate: float) -> None:
        """Submit at most so many messages a second from now on: this process's share of the rate.

        It is not called where the configuration has no `rate`.
        """

    @abstractmethod
    def demand(self) -> RateDemand:
        """What this process lately wanted to submit; the rate is divided by it among processes."""

    @abstractmethod
    async def hold(self, binds: int) -> None:
        """Keep so many sessions up from now on, in the background: a carrier that is down is no error.

        Returns when those that are too many were ended, with their responses, within some seconds.
        """

    @abstractmethod
    async def stop(self, grace: timedelta) -> None:
        """Take no more messages, wait for responses, and say good-bye, within about `grace`."""

    @abstractmethod
    def count_parts(self, outbound: Outbound) -> int:
        """How many parts `submit` will want to send; 1 where it will refuse the text."""

    @abstractmethod
    def acquire(self, priority: Priority) -> AbstractAsyncContextManager[None]:
        """A turn to submit one message, in order of priority and then of arrival.

        Raises:
            NoSlot: on entry, when the turn would not come within a second.
        """

    async def submit(
        self, outbound: Outbound, parts: Sequence[int], *, start_within: timedelta | None = None
    ) -> list[PartOutcome]:
        """Send the parts with these numbers, in a slot; one outcome for each, in their order.

        Nothing that a carrier does raises. Behind the first part that was not accepted none is
        sent: those are UNREACHABLE, that is, certainly not sent. None is started later than
        `start_within` from now, since its response might come when nobody waits for it any more: such a
        part is THROTTLED, and can be sent by another `submit`. A text that this carrier cannot be given
        (its alphabet may make too many parts of it) is REFUSED, and nothing of it is sent; so is one
        with a parameter that this carrier cannot be given.
        """
        loop = asyncio.get_running_loop()
        start_by = None if start_within is None else loop.time() + start_within.total_seconds()
        try:
            send = self._part_sender(outbound, start_by)
        except (UnsendableText, NotEncodable):
            return [unsendable(number) for number in parts]
        except PartsChanged:
            return [parts_changed(number) for number in parts]
        except UnusableParameter:
            return [unusable_parameter(number) for number in parts]
        except Exception as error:  # noqa: BLE001 - a mistake of the adapter: nothing was sent
            _log.error("request_not_made", provider=self.name, exc_info=error)
            return [not_sent(number) for number in parts]
        outcomes: list[PartOutcome] = []
        for number in parts:
            if outcomes and outcomes[-1].kind is not OutcomeKind.ACCEPTED:
                outcomes.append(not_sent(number))
                continue
            if start_by is not None and loop.time() > start_by:
                outcomes.append(not_in_time(number))
                continue
            answered = await send(number)
            outcome = answered.outcome
            outcomes.append(outcome)
            metrics.part_submitted(
                provider=self.name,
                outcome=outcome.kind,
                error_class=outcome.error_class,
                code=outcome.code,
                seconds=answered.seconds,
            )
        return outcomes

    @abstractmethod
    def _part_sender(self, outbound: Outbound, start_by: float | None) -> PartSender:
        """What sends the parts of this message; it never raises for what a carrier does.

        Raises UnsendableText or NotEncodable for a text that this carrier cannot be given,
        PartsChanged for one that would make other parts than those that were sent, and
        UnusableParameter for a parameter that this carrier cannot be given.
        A part that would start later than `start_by`, on the event loop's clock, is `not_in_time`.
        """

    @abstractmethod
    async def cancel_at_provider(
        self, provider_message_id: str, *, sender: str, recipient: str
    ) -> bool:
        """Ask the carrier not to deliver a part that it accepted; False if it will not.

        `provider_message_id` is the id as the carrier gave it.
        """

    @abstractmethod
    async def query(self, provider_message_id: str, *, sender: str) -> ReceivedReceipt | None:
        """Ask the carrier for the state of a part, by the id that it gave; None if there is no answer.

        The result is a receipt like those that the carrier sends by itself, without `part`.
        """


def not_sent(number: int, bind: str = "") -> PartOutcome:
    """The outcome of a part that never left."""
    return PartOutcome(
        number, OutcomeKind.UNREACHABLE, error_class=ErrorClass.UNREACHABLE, bind=bind
    )


def not_in_time(number: int) -> PartOutcome:
    """The outcome of a part that never left, since its response could not have come in time."""
    return PartOutcome(number, OutcomeKind.THROTTLED, error_class=ErrorClass.THROTTLED)


def parts_changed(number: int) -> PartOutcome:
    """The outcome of a part that the text no longer has, since the configuration has changed."""
    return PartOutcome(
        number, OutcomeKind.REFUSED, code="parts_changed", error_class=ErrorClass.TEMPORARY
    )


def unusable_parameter(number: int) -> PartOutcome:
    """The outcome of a part of a message with a parameter that this carrier cannot be given."""
    return PartOutcome(
        number, OutcomeKind.REFUSED, code="unusable_parameter", error_class=ErrorClass.ROUTE
    )


def unsendable(number: int) -> PartOutcome:
    """The outcome of a part of a text that this carrier cannot be given; another one may take it."""
    return PartOutcome(
        number, OutcomeKind.REFUSED, code="unsendable_text", error_class=ErrorClass.ROUTE
    )

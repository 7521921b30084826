"""What every carrier is to the rest of the gateway, and what is counted for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from domain.errors import ErrorClass
from domain.modes import Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.receipts import ReceiptState
from domain.values import value
from telemetry import metrics


@value
class Outbound:
    """One message as handed to a carrier.

    `sender` is as accepted, `recipient` is E.164 with its +. `reference`, 0 to 0xFFFF, ties the
    parts together and comes back in the receipts of a carrier that echoes it; it is the same
    whenever parts of the same attempt are sent. `valid_for` is what remains of the attempt's life.
    """

    message_id: UUID
    attempt: int
    sender: str = field(repr=False)
    recipient: str = field(repr=False)
    text: str = field(repr=False)
    reference: int
    valid_for: timedelta | None
    priority: Priority


@value
class ReceivedReceipt:
    """A receipt as a carrier sent it.

    `provider_message_id` has the form of `PartOutcome.provider_message_id`, and is empty where the
    receipt named none. `reference` is that of the part: the outbound's plus the part's number less
    one, and only where the carrier echoes it. `sender` and `recipient` are those of the message,
    not of the receipt, as they were accepted; `done_at` is UTC as far as the carrier's clock is.
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


@dataclass(frozen=True, slots=True)
class LateAnswer:
    """The answer to a part that had been given up as unknown."""

    provider: str
    message_id: UUID
    attempt: int
    outcome: PartOutcome


ReceiptSink: TypeAlias = Callable[[ReceivedReceipt], Awaitable[None]]
"""Awaited before the carrier is answered: it returns when the receipt is committed."""

LateSink: TypeAlias = Callable[[LateAnswer], Awaitable[None]]
"""Told of answers that came after their attempt had been recorded as unknown."""


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
class Answered:
    """What came of one part, and the seconds from the socket to the answer, if there was one."""

    outcome: PartOutcome
    seconds: float | None = None


PartSender: TypeAlias = Callable[[int], Awaitable[Answered]]
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
        """How many sessions can send just now; what has no sessions says 1 or 0."""

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

    @abstractmethod
    async def hold(self, binds: int) -> None:
        """Keep so many sessions up from now on, in the background: a carrier that is down is no error.

        Returns when those that are too many were ended, with their answers, within some seconds.
        """

    @abstractmethod
    async def stop(self, grace: timedelta) -> None:
        """Take no more messages, wait for answers, and say good-bye, within about `grace`."""

    @abstractmethod
    def count_parts(self, outbound: Outbound) -> int:
        """How many parts `submit` will want to send."""

    @abstractmethod
    def slot(self, priority: Priority) -> AbstractAsyncContextManager[None]:
        """A turn to submit one message, in order of priority and then of arrival.

        Raises:
            NoSlot: on entry, when the turn would not come within a second.
        """

    async def submit(self, outbound: Outbound, parts: Sequence[int]) -> list[PartOutcome]:
        """Send the parts with these numbers, in a slot; one outcome for each, in their order.

        Nothing that a carrier does raises. Behind the first part that was not accepted none is
        sent: those are UNREACHABLE, that is, certainly not sent.
        """
        send = self._part_sender(outbound)
        outcomes: list[PartOutcome] = []
        for number in parts:
            if outcomes and outcomes[-1].kind is not OutcomeKind.ACCEPTED:
                outcomes.append(not_sent(number))
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
    def _part_sender(self, outbound: Outbound) -> PartSender:
        """What sends the parts of this message; it never raises for what a carrier does."""

    @abstractmethod
    async def recall(self, provider_message_id: str, *, sender: str, recipient: str) -> bool:
        """Ask the carrier not to deliver a part that it accepted; False if it will not."""

    @abstractmethod
    async def query(self, provider_message_id: str, *, sender: str) -> ReceiptState | None:
        """Ask the carrier what has become of a part; None if it does not say."""


def not_sent(number: int, bind: str = "") -> PartOutcome:
    """The outcome of a part that never left."""
    return PartOutcome(
        number, OutcomeKind.UNREACHABLE, error_class=ErrorClass.UNREACHABLE, bind=bind
    )

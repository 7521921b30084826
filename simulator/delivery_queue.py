"""What an SMSC has for one ESME: receipts and MO messages, kept until a receiver answers for them.

A receipt is never lost because an ESME died before it answered: what a closed bind leaves
unanswered goes to another receiver of the same system_id, or to the next that binds.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from simulator.inbox import Counts
from smpp.commands import Command
from smpp.pdus import MalformedPdu
from smpp.session import ResponseTimeout, Session, SessionClosed
from smpp.statuses import Status
from smpp.tlvs import Tlv

# Refusals that mean "not now" (3.4, 5.1.3); after any other one it would be refused again.
_NOT_NOW: Final = frozenset(
    {
        Status.ESME_RSYSERR,
        Status.ESME_RMSGQFUL,
        Status.ESME_RTHROTTLED,
        Status.ESME_RX_T_APPN,
    }
)
RETRY_AFTER: Final = 1.0
"""Seconds until something that the ESME refused for the moment is offered again."""


class Kind(StrEnum):
    RECEIPT = "receipt"
    MO = "mo"


@dataclass(slots=True, eq=False)
class Delivery:
    """One deliver_sm or data_sm for the ESME."""

    kind: Kind
    command: Command
    fields: Mapping[str, int | bytes]
    tlvs: tuple[Tlv, ...] = ()
    tried: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the ESME took it, or refused it for good."""


class DeliveryQueue:
    """The deliveries for one system_id, and its receivers that are bound now."""

    def __init__(self, counts: Counts, window: int) -> None:
        """`window` deliveries at most are unanswered on one bind."""
        self._counts = counts
        self._window = window
        self._waiting: deque[Delivery] = deque()
        self._receivers: deque[Session] = deque()
        self._in_flight: dict[Session, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.TimerHandle] = set()

    @property
    def waiting(self) -> int:
        """Deliveries that no receiver has answered for yet."""
        return len(self._waiting) + len(self._tasks) + len(self._retries)

    def post(self, delivery: Delivery) -> None:
        """Send it to a receiver, at once or when there is one."""
        self._waiting.append(delivery)
        self._pump()

    def bound(self, receiver: Session) -> None:
        """A receiver or transceiver has bound: what waited goes to it."""
        self._receivers.append(receiver)
        self._in_flight[receiver] = 0
        self._pump()

    def gone(self, receiver: Session) -> None:
        """Its session is over; may be called twice."""
        if self._in_flight.pop(receiver, None) is not None:
            self._receivers.remove(receiver)

    async def close(self) -> None:
        """Drop what is left."""
        self._waiting.clear()
        for handle in self._retries:
            handle.cancel()
        self._retries.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump(self) -> None:
        while self._waiting and (receiver := self._free_receiver()) is not None:
            self._in_flight[receiver] += 1
            task = asyncio.create_task(self._deliver(receiver, self._waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _free_receiver(self) -> Session | None:
        """The receivers take turns, so that receipts do not favour the bind of their submit."""
        for _ in range(len(self._receivers)):
            self._receivers.rotate(-1)
            receiver = self._receivers[-1]
            if self._in_flight[receiver] < self._window:
                return receiver
        return None

    async def _deliver(self, receiver: Session, delivery: Delivery) -> None:
        self._count_try(delivery)
        try:
            response = await receiver.request(delivery.command, delivery.fields, delivery.tlvs)
        except SessionClosed:
            self.gone(receiver)
            self._waiting.appendleft(delivery)
        except ResponseTimeout:
            self._waiting.append(delivery)
        except MalformedPdu:
            self._retry_later(delivery)  # a response that cannot be read is none
        else:
            if response.status in _NOT_NOW:
                self._retry_later(delivery)
            else:
                self._settle(delivery, response.status)
        if receiver in self._in_flight:
            self._in_flight[receiver] -= 1
        self._pump()

    def _retry_later(self, delivery: Delivery) -> None:
        def retry() -> None:
            self._retries.discard(handle)
            self.post(delivery)

        handle = asyncio.get_running_loop().call_later(RETRY_AFTER, retry)
        self._retries.add(handle)

    def _count_try(self, delivery: Delivery) -> None:
        counts = self._counts
        if delivery.kind is Kind.RECEIPT:
            counts.receipts_sent += 1
            counts.receipts_resent += delivery.tried
        else:
            counts.mo_sent += 1
            counts.mo_resent += delivery.tried
        delivery.tried = True

    def _settle(self, delivery: Delivery, status: int) -> None:
        counts = self._counts
        refused = status != Status.ESME_ROK
        if delivery.kind is Kind.RECEIPT:
            counts.receipts_acknowledged += not refused
            counts.receipts_refused += refused
        else:
            counts.mo_acknowledged += not refused
            counts.mo_refused += refused
        delivery.settled.set()

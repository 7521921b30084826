"""What an SMSC got: the parts of messages, put together as the phone does, and a few counts.

Memory is bounded: the last `keep` parts and messages are kept, counts always.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from domain.encoding import DefaultAlphabet
from domain.receipts import ReceiptState
from simulator.content import Content
from smpp.pdus import Pdu
from smpp.tlvs import Tlv

_TEXT: Final = "text"
_REFERENCE: Final = "reference"


@dataclass(slots=True)
class Counts:
    """What happened since the start; of messages in parts, each part counts."""

    binds: int = 0
    binds_refused: int = 0
    submits: int = 0
    """submit_sm that were read, whatever came of them."""
    taken: int = 0
    """Submits that the SMSC took for delivery, answered or not."""
    refused: Counter[str] = field(default_factory=Counter)
    """By status; throttled ones are among them."""
    without_response: int = 0
    resets: int = 0
    """Connections cut, by a message's behaviour or by hand."""
    messages: int = 0
    """Messages of which every part came."""
    repeated_parts: int = 0
    """Parts that came again before their message was complete."""
    queries: int = 0
    cancels: int = 0
    receipts_sent: int = 0
    """Receipts handed to a bind, each time that it was tried."""
    receipts_resent: int = 0
    receipts_acknowledged: int = 0
    receipts_refused: int = 0
    """Receipts that the ESME refused for good."""
    mo_sent: int = 0
    mo_resent: int = 0
    mo_acknowledged: int = 0
    mo_refused: int = 0


@dataclass(slots=True, eq=False)
class Part:
    """One submit_sm that was taken."""

    id: int
    """The SMSC's own number, which its dialect writes in hex or decimal."""
    pdu: Pdu
    content: Content
    system_id: str
    source: str
    destination: str
    reference: int | None
    """user_message_reference."""
    accepted_at: datetime
    validity: timedelta
    deferred: timedelta
    """How long its delivery waits, by schedule_delivery_time."""
    alphabet: DefaultAlphabet
    state: ReceiptState = ReceiptState.ENROUTE
    error: str = "000"
    final_at: datetime | None = None
    timers: set[asyncio.TimerHandle] = field(default_factory=set)
    """Receipts that are still to come."""

    def cancel_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    @property
    def number(self) -> int:
        return self.content.place.number if self.content.place else 1

    @property
    def total(self) -> int:
        return self.content.place.total if self.content.place else 1

    @property
    def text(self) -> str | None:
        """None if it is not text."""
        return self.content.text(self.alphabet)

    @property
    def tlvs(self) -> tuple[Tlv, ...]:
        """As they came, those of vendors included."""
        return self.pdu.tlvs


@dataclass(slots=True, eq=False)
class Message:
    """A message as the phone puts it together, from one part or several."""

    source: str
    destination: str
    total: int
    by_number: dict[int, Part] = field(default_factory=dict)
    repeated: int = 0
    """Parts that came again before the message was complete."""

    @property
    def parts(self) -> list[Part]:
        """Those that came, in the order of their numbers."""
        return [self.by_number[number] for number in sorted(self.by_number)]

    @property
    def complete(self) -> bool:
        return len(self.by_number) == self.total

    @property
    def text(self) -> str:
        """The texts of its parts, one after the other; what is not text shows as U+FFFD."""
        return "".join(
            "\N{REPLACEMENT CHARACTER}" if p.text is None else p.text for p in self.parts
        )

    @property
    def reference(self) -> int | None:
        """The user_message_reference of its first part."""
        return self.parts[0].reference

    @property
    def states(self) -> list[ReceiptState]:
        """What has become of each part that came."""
        return [part.state for part in self.parts]


class Inbox:
    """The parts that were taken, and the messages that they make."""

    def __init__(self, counts: Counts, keep: int) -> None:
        self._counts = counts
        self._keep = keep
        self._parts: OrderedDict[int, Part] = OrderedDict()
        self._messages: OrderedDict[int, Message] = OrderedDict()
        self._growing: OrderedDict[Hashable, Message] = OrderedDict()
        self._next = 0

    def add(self, part: Part) -> Message:
        """Put a part into its message.

        A part that the message already has is a repeated one while the message is incomplete, as a
        phone would drop it; afterwards it begins another message, as the phone would show it twice.
        """
        self._parts[part.id] = part
        if len(self._parts) > self._keep:
            self._parts.popitem(last=False)
        place = part.content.place
        if place is None:
            return self._begun(part, 1)
        # The header's length distinguishes 8-bit references, 16-bit references and SAR TLVs.
        method = part.content.header_length
        key = (part.source, part.destination, method, place.reference, place.total)
        message = self._growing.get(key)
        if message is None:
            message = self._begun(part, place.total)
            if not message.complete:
                self._growing[key] = message
                if len(self._growing) > self._keep:
                    self._growing.popitem(last=False)
            return message
        if place.number in message.by_number:
            message.repeated += 1
            self._counts.repeated_parts += 1
            return message
        message.by_number[place.number] = part
        if message.complete:
            self._counts.messages += 1
            del self._growing[key]
        return message

    def _begun(self, part: Part, total: int) -> Message:
        message = Message(part.source, part.destination, total, {part.number: part})
        if message.complete:
            self._counts.messages += 1
        self._messages[self._next] = message
        self._next += 1
        if len(self._messages) > self._keep:
            self._messages.popitem(last=False)
        return message

    @property
    def messages(self) -> list[Message]:
        """The last messages, oldest first; also those of which parts are missing."""
        return list(self._messages.values())

    def part(self, id_: int) -> Part | None:
        """One of the last parts, by the SMSC's number."""
        return self._parts.get(id_)

    def parts(self) -> Iterator[Part]:
        """The last parts, oldest first."""
        return iter(self._parts.values())

    def duplicates(self, by: str = _TEXT) -> Mapping[tuple[str, str, str | int], int]:
        """How many more times than once a message came: complete ones, among those kept.

        Args:
            by: "text" for equal source, destination and text, or "reference" for equal source,
                destination and user_message_reference (messages without one do not count).
        """
        seen: Counter[tuple[str, str, str | int]] = Counter()
        for message in self._messages.values():
            if not message.complete:
                continue
            what = message.text if by == _TEXT else message.reference
            if what is not None:
                seen[(message.source, message.destination, what)] += 1
        return {key: count - 1 for key, count in seen.items() if count > 1}

    def duplicate_parts(self) -> int:
        """How many kept parts came more than once: equal numbers, place and octets behind it.

        The reference of the concatenation does not count, since a message that is sent again
        gets another one.
        """
        seen = Counter(
            (
                part.source,
                part.destination,
                part.number,
                part.total,
                part.content.body,
            )
            for part in self._parts.values()
        )
        return sum(seen.values()) - len(seen)

    def forget(self) -> None:
        """Empty it; receipts that are still to come stay."""
        self._parts.clear()
        self._messages.clear()
        self._growing.clear()

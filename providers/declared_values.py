"""What the placeholders of a declared provider stand for, of one message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from domain.attempt_references import attempt_reference
from domain.configuration.providers.declared.templates import PARAMETER, SECRET, Placeholder
from domain.encoding import Encoding, is_gsm7
from domain.ids import IdPrefix, public_id
from domain.segments import PartMethod, segment
from domain.values import value

if TYPE_CHECKING:
    from domain.configuration.providers.declared.request import Coding
    from providers.base import Outbound

_SECONDS_OF_A_MINUTE: Final = 60


@value
class Sending:
    """A message, and what a request for it may need beside it.

    Attributes:
        outbound: the message.
        receipt_url: where receipts of this attempt go; None without a public address.
        validity: for how long from now the provider may try; None leaves it to the provider.
        now: the time, UTC.
        coding: the values of `{coding}`.
    """

    outbound: Outbound
    receipt_url: str | None
    validity: timedelta | None
    now: datetime
    coding: Coding | None

    @property
    def is_gsm7(self) -> bool:
        return is_gsm7(self.outbound.text)

    @property
    def digits(self) -> str:
        return self.outbound.recipient.removeprefix("+")

    @property
    def sender_digits(self) -> str:
        """The sender, a number without its +."""
        return self.outbound.sender.removeprefix("+")

    @property
    def sender_is_number(self) -> bool:
        return self.sender_digits.isascii() and self.sender_digits.isdigit()

    @property
    def seconds(self) -> int | None:
        """The validity in seconds, at least one."""
        return None if self.validity is None else max(1, int(self.validity.total_seconds()))

    @property
    def until(self) -> datetime | None:
        return None if self.seconds is None else self.now + timedelta(seconds=self.seconds)


def _hex(text: str) -> str:
    return text.encode("utf-16-be").hex()


def _coding(sending: Sending) -> str | None:
    if sending.coding is None:
        return None
    return sending.coding.of(Encoding.GSM7 if sending.is_gsm7 else Encoding.UCS2)


def _minutes(sending: Sending) -> int | None:
    seconds = sending.seconds
    return None if seconds is None else max(1, seconds // _SECONDS_OF_A_MINUTE)


def _until(sending: Sending) -> str | None:
    until = sending.until
    return None if until is None else until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


VALUES: Final[Mapping[str, Callable[[Sending], str | int | None]]] = MappingProxyType(
    {
        "to": lambda its: its.outbound.recipient,
        "to_digits": lambda its: its.digits,
        "to_00": lambda its: f"00{its.digits}",
        "to_number": lambda its: int(its.digits),
        "from": lambda its: its.outbound.sender,
        "from_digits": lambda its: (
            its.sender_digits if its.sender_is_number else its.outbound.sender
        ),
        "from_number": lambda its: its.sender_digits if its.sender_is_number else None,
        "from_name": lambda its: None if its.sender_is_number else its.outbound.sender,
        "text": lambda its: its.outbound.text,
        "text_hex": lambda its: _hex(its.outbound.text),
        "text_gsm7": lambda its: its.outbound.text if its.is_gsm7 else None,
        "text_ucs2": lambda its: None if its.is_gsm7 else its.outbound.text,
        "text_ucs2_hex": lambda its: None if its.is_gsm7 else _hex(its.outbound.text),
        "coding": _coding,
        "segments": lambda its: segment(its.outbound.text, method=PartMethod.PAYLOAD).segments,
        "message_id": lambda its: public_id(IdPrefix.MESSAGE, its.outbound.message_id),
        "reference": lambda its: attempt_reference(its.outbound.message_id, its.outbound.attempt),
        "receipt_url": lambda its: its.receipt_url,
        "validity_seconds": lambda its: its.seconds,
        "validity_minutes": _minutes,
        "valid_until": _until,
        "valid_until_unix": lambda its: None if its.until is None else int(its.until.timestamp()),
    }
)
"""By placeholder; None where it has no value."""


def values_of(
    sending: Sending, secrets: Mapping[str, str]
) -> Callable[[Placeholder], str | int | None]:
    """What placeholders stand for in the request for a message."""

    def value_of(placeholder: Placeholder) -> str | int | None:
        if placeholder.name == SECRET:
            return secrets[placeholder.argument]
        if placeholder.name == PARAMETER:
            return sending.outbound.parameters.get(placeholder.argument)
        return VALUES[placeholder.name](sending)

    return value_of

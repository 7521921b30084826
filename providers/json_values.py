"""Values of vendors' bodies, read leniently: whatever a vendor writes, nothing here raises."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from domain.money import Price
from domain.outcomes import MOST_SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def as_object(written: object) -> Mapping[str, Any]:
    """An object of JSON; empty for anything else."""
    return written if isinstance(written, dict) else {}


def as_objects(written: object) -> Sequence[Mapping[str, Any]]:
    """The objects in a list of JSON; none for anything else."""
    return [each for each in written if isinstance(each, dict)] if isinstance(written, list) else []


def as_text(written: object) -> str:
    """A text or a number of a body as text; empty for anything else."""
    is_scalar = isinstance(written, int | str) and not isinstance(written, bool)
    return str(written) if is_scalar else ""


def as_segments(written: object) -> int | None:
    """A number of segments, as a number or as text; None for 0 and for anything else."""
    text = as_text(written)
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    count = int(text) if is_number else 0
    return count if 0 < count <= MOST_SEGMENTS else None


_MOST_DIGITS: Final = 9


def as_price(amount: object, currency: object, *, times: int = 1) -> Price | None:
    """A price from an amount, as text or as a number, and a currency; None where that is no price.

    A sign is dropped: some providers write what they charge as a negative amount.
    """
    if not isinstance(currency, str) or not isinstance(amount, str | int | float):
        return None
    try:
        return Price(abs(Decimal(str(amount))) * times, currency.upper())
    except (ArithmeticError, ValueError):
        return None


def as_time(written: object) -> datetime | None:
    """A time with its zone (ISO 8601, with or without a colon in the offset); None for anything else."""
    try:
        moment = datetime.fromisoformat(as_text(written))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


_NUMBER: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_LONGEST_SHORT_CODE: Final = 8


def as_e164(written: str) -> str | None:
    """A recipient's number in E.164, of a vendor that writes it without +; None for anything else."""
    digits = written.removeprefix("+")
    return f"+{digits}" if _NUMBER.fullmatch(digits) else None


def as_sender(written: str) -> str | None:
    """A sender as it was accepted, of a vendor that writes numbers without +.

    Up to eight digits are a short code, which has no +.
    """
    is_number = _NUMBER.fullmatch(written) and len(written) > _LONGEST_SHORT_CODE
    return f"+{written}" if is_number else written or None

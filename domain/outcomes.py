"""What a provider answers to an attempt, as values: a carrier's refusal is no exception of ours."""

from datetime import timedelta
from enum import StrEnum
from typing import Final

from domain.error_classes import ErrorClass
from domain.money import Price
from domain.values import value

MOST_SEGMENTS: Final = 1000
"""That a provider can say that it bills for one part: four times as many as a text can have."""


class OutcomeKind(StrEnum):
    """The five things that can come of handing a part to a provider."""

    ACCEPTED = "accepted"
    THROTTLED = "throttled"
    """Not taken, and may be offered again later."""
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """It never left: certainly not sent."""
    UNKNOWN = "unknown"
    """It may have left, and no response came."""


@value
class PartOutcome:
    """What came of one part.

    Attributes:
        number: 1 for the first part.
        kind: what came of it.
        provider_message_id: the provider's id, in the form that receipts are matched by; only if
            accepted.
        provider_message_id_given: the id as the provider wrote it, where that differs; what goes
            back to the provider is this one.
        code: the provider's own code, such as "0x00000058"; empty if it gave none.
        error_class: why, unless accepted.
        after: how long the provider asks to wait, if throttled and if it said so.
        bind: which connection carried it, for the explanation; no personal data.
        segments: how many segments the provider says that it bills for the part; None if it says
            nothing. A part that the provider splits by itself may have several.
        price: what the provider says that the part costs, all its segments together.

    Raises:
        ValueError: `segments` is negative or too large.
        TypeError: `segments` is no whole number.
    """

    number: int
    kind: OutcomeKind
    provider_message_id: str | None = None
    code: str = ""
    error_class: ErrorClass | None = None
    after: timedelta | None = None
    bind: str = ""
    provider_message_id_given: str | None = None
    segments: int | None = None
    price: Price | None = None

    def __post_init__(self) -> None:
        segments = self.segments
        if segments is None:
            return
        if not isinstance(segments, int) or isinstance(segments, bool):
            raise TypeError("the number of segments is a whole number")
        if not 0 <= segments <= MOST_SEGMENTS:
            raise ValueError(f"the number of segments is from 0 to {MOST_SEGMENTS}")

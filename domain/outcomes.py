"""What a provider answers to an attempt, as values: a carrier's refusal is no exception of ours."""

from datetime import timedelta
from enum import StrEnum

from domain.errors import ErrorClass
from domain.values import value


class OutcomeKind(StrEnum):
    """The five things that can come of handing a part to a provider."""

    ACCEPTED = "accepted"
    THROTTLED = "throttled"
    """Not taken, and may be offered again later."""
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """It never left: certainly not sent."""
    UNKNOWN = "unknown"
    """It may have left, and no answer came."""


@value
class PartOutcome:
    """What came of one part.

    Attributes:
        number: 1 for the first part.
        kind: what came of it.
        provider_message_id: the provider's id, in the form that its receipts use; only if accepted.
        code: the provider's own code, such as "0x00000058"; empty if it gave none.
        error_class: why, unless accepted.
        after: how long the provider asks to wait, if throttled and if it said so.
        bind: which connection carried it, for the explanation; no personal data.
    """

    number: int
    kind: OutcomeKind
    provider_message_id: str | None = None
    code: str = ""
    error_class: ErrorClass | None = None
    after: timedelta | None = None
    bind: str = ""

"""Why a message may not be handed to a provider, as the claim before each submit finds out."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from domain.delivery import Reason
from domain.states import Verdict


class Refusal(StrEnum):
    """The reason why a claim was not granted; of several, the first in this order."""

    SUPERSEDED = "superseded"
    """Another runner has the message, or it is gone."""
    ENDED = "ended"
    """It has a final verdict."""
    CANCELED = "canceled"
    """Somebody has cancelled it, or its bulk."""
    VALIDITY_OVER = "validity_over"
    """It is of no use to its recipient any more."""
    SCHEDULED = "scheduled"
    """Its time has not come."""
    PAUSED = "paused"
    """Its bulk is paused."""
    IN_FLIGHT = "in_flight"
    """A provider has it, or may have it."""


ENDS: Mapping[Refusal, tuple[Verdict, Reason]] = MappingProxyType(
    {
        Refusal.CANCELED: (Verdict.CANCELED, Reason.CANCELED),
        Refusal.VALIDITY_OVER: (Verdict.EXPIRED, Reason.VALIDITY_OVER),
    }
)
"""The permanent reasons, and how they end a message that no provider has."""

"""What an explanation is made of, and its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from domain.delivery import RouteOption
from domain.forecast import Forecast
from domain.modes import ModePolicy
from domain.money import Billed
from domain.provider_codes import ProviderCode
from store.attempts import StoredAttempt
from store.events import Event
from store.messages import AccountMessage
from store.transitions import FINAL

FINAL_STATUSES: Final = frozenset(status.value for status in FINAL)


class StepKind(StrEnum):
    """What happened in a step."""

    ACCEPTED = "accepted"
    DUE = "due"
    ATTEMPT = "attempt"
    RECEIPT = "receipt"
    NO_RECEIPT = "no_receipt"
    RESOLVED = "resolved"
    """A provider turned out to have a message whose outcome was unknown."""
    CANCEL = "cancel"
    REPLAYED = "replayed"
    RUNNER = "runner"
    """Another workflow runs the message from here on."""
    DUPLICATE = "duplicate"
    ENDED = "ended"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to a message; equal steps in a row are one, with their `count`.

    Attributes:
        at: when, or when for the first time.
        until: when for the last time, where `count` is above 1.
        provider: which provider it is about; several are joined by commas.
        attempt: its number, or that of the first one.
        code, code_name, meaning: the provider's code, its name in the specification, and what it means.
        text: all of it as a sentence.
    """

    at: datetime
    kind: StepKind
    text: str
    until: datetime | None = None
    count: int = 1
    provider: str | None = None
    attempt: int | None = None
    code: str | None = None
    code_name: str | None = None
    meaning: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What an explanation is made of.

    Attributes:
        message: its row.
        attempts: rows, by number.
        events: in the order in which they were decided.
        forecast: what it waits for; None if it is final or there is no configuration.
        options: the providers of its route now, best first.
        declared: all providers of its environment.
        policy: that of its mode.
        errors: why providers are not bound, in brief, by their names.
        billed: what providers say that they bill, by the numbers of attempts.
        polls: how often missing receipts were requested, by the numbers of attempts.
        codes: the codes of providers that have a table of their own, by the providers' names.
    """

    message: AccountMessage
    attempts: Sequence[StoredAttempt]
    events: Sequence[Event]
    forecast: Forecast | None = None
    options: Sequence[RouteOption] = ()
    declared: Sequence[str] = ()
    policy: ModePolicy | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    billed: Mapping[int, Billed] = field(default_factory=dict)
    polls: Mapping[int, int] = field(default_factory=dict)
    codes: Mapping[str, Mapping[str, ProviderCode]] = field(default_factory=dict)

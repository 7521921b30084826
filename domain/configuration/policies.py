"""The policies of modes, errors, accounts and callbacks, as an installation overrides them."""

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    model_validator,
)

from domain.callbacks.events import MOST_EVENTS
from domain.configuration.declared import Declared
from domain.configuration.durations import Delay, Duration
from domain.configuration.secret_references import SecretReference
from domain.error_classes import RetryRule
from domain.modes import MissingReceiptPolicy, ModePolicy, Priority, UnknownPolicy

Attempts = Annotated[StrictInt, Field(ge=1, le=100)]
Senders = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=20)], ...],
    BeforeValidator(lambda senders: (senders,) if isinstance(senders, str) else senders),
]
"""Senders by their exact text, or "*" for all; one alone needs no list."""


MissingReceiptOfMode = Annotated[
    Literal["next_route", "expire"], AfterValidator(MissingReceiptPolicy)
]
"""A mode has no listener to notify."""


class ModeOverrides(Declared):
    """What an installation wants otherwise than `domain.modes.MODE_POLICIES` for one mode."""

    priority: Priority | None = Field(None, description="used if the request names none")
    validity: Duration | None = Field(None, description="used if the request names none")
    unknown: UnknownPolicy | None = Field(
        None, description="what to do if no response to a submit came"
    )
    missing_receipt: MissingReceiptOfMode | None = Field(
        None, description="what to do if no receipt came by its deadline"
    )
    receipt_deadline: Duration | None = Field(
        None, description="how long to wait for a receipt, if the request does not set it"
    )
    max_attempts: Attempts | None = Field(
        None,
        description="for each message; a replay counts anew. Attempts at a provider that throttles "
        "or reports an outage do not count",
    )
    outage_patience: Delay | None = Field(
        None, description="how long to wait while no provider of the route is up"
    )
    senders: Senders | None = Field(
        None, description="senders that this mode may use, within those of the account"
    )

    def apply_to(self, policy: ModePolicy) -> ModePolicy:
        """The policy with these overrides."""
        return replace(policy, **self.model_dump(exclude_none=True, exclude={"senders"}))


class RetryOverrides(Declared):
    """What an installation wants otherwise than `domain.error_classes.RETRIES` for one class."""

    same_provider_attempts: Attempts | None = Field(
        None, description="attempts with one provider before the next one is tried"
    )
    delay: Delay | None = Field(
        None, description="wait before the second attempt; doubled for each further one"
    )
    max_delay: Delay | None = Field(None, description="maximum wait between two attempts")

    def apply_to(self, rule: RetryRule) -> RetryRule:
        """The rule with these overrides; a longer `delay` alone lifts `max_delay` with it."""
        delay = rule.delay if self.delay is None else self.delay
        longest = max(rule.max_delay, delay) if self.max_delay is None else self.max_delay
        return replace(
            rule,
            attempts=self.same_provider_attempts or rule.attempts,
            delay=delay,
            max_delay=longest,
        )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.delay is not None and self.max_delay is not None and self.delay > self.max_delay:
            raise ValueError("delay must not be longer than max_delay")
        return self


class AccountPolicy(Declared):
    """What an account may do; an account that is not declared has the defaults."""

    senders: Senders = Field(("*",), description='senders that the account may use, or "*" for all')
    default_callback_url: (
        Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+\S*$", max_length=2048)]
        | None
    ) = Field(None, description="URL that receives callbacks if the request names no callback_url")
    callback_secret: SecretReference | None = Field(
        None, description="reference to the secret that signs the account's callbacks"
    )
    callback_final_only: StrictBool = Field(
        False,
        description="whether callbacks are sent only for the final status, and not for `sent`",
    )
    callback_events_per_request: Annotated[StrictInt, Field(ge=1, le=MOST_EVENTS)] = Field(
        1, description="maximum number of events in a callback; above 1 they are sent as a list"
    )
    max_segments: Annotated[StrictInt, Field(ge=1, le=255)] = Field(
        10, description="maximum length of a message, in parts"
    )
    schedule_horizon: Duration = Field(
        timedelta(days=35), description="maximum time from now to the scheduled time of a message"
    )

    def allows_sender(self, sender: str) -> bool:
        """Whether the account may send as this sender."""
        return "*" in self.senders or sender in self.senders


class CallbackPolicy(Declared):
    """How the events of all accounts are delivered."""

    allow_private_addresses: StrictBool = Field(
        False, description="whether callbacks may go to loopback and private networks"
    )
    timeout: Duration = Field(
        timedelta(seconds=15), description="for one request, including redirects"
    )
    retry_delays: tuple[Duration, ...] = Field(
        (
            timedelta(seconds=5),
            timedelta(minutes=5),
            timedelta(minutes=30),
            timedelta(hours=2),
            timedelta(hours=5),
            timedelta(hours=10),
            timedelta(hours=14),
            timedelta(hours=20),
            timedelta(hours=24),
        ),
        description="waits between tries; after the last try the callback is `failed`",
    )

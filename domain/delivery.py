"""What happens next to a message: one pure function, whoever runs it.

Decisions carry their `kind`, so that they can be told apart after a journey as JSON.

`decide` looks at a message, its attempts, the providers that its route offers (best first) and the
time, and says what to do now. A workflow that owns one message acts it out; a bulk runner applies
the same function to many rows. The rules change here without touching either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Self, assert_never

from domain.errors import RETRIES, ErrorClass, Failover, RetryRule
from domain.modes import MissingReceiptPolicy, ModePolicy, UnknownPolicy
from domain.states import (
    AttemptMark,
    AttemptStatus,
    MessageStatus,
    Verdict,
    fold_message,
)

SHORTEST_OUTAGE_WAIT = timedelta(seconds=0.5)
LONGEST_OUTAGE_WAIT = timedelta(seconds=15)


class Reason(StrEnum):
    """Why a message ended as it did, beside the error classes."""

    SUPERSEDED = "superseded"
    """Another runner has it; only the runner ends, not the message."""
    DELIVERED = "delivered"
    NO_RECEIPTS = "provider_gives_no_receipts"
    NO_RECEIPT = "no_receipt"
    OUTCOME_UNKNOWN = "outcome_unknown"
    VALIDITY_OVER = "validity_over"
    CANCELED = "canceled"
    NO_ROUTE = "no_route"
    NO_PROVIDER_UP = "no_provider_up"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"


class WaitFor(StrEnum):
    """What a message waits for."""

    SCHEDULE = "schedule"
    ANSWER = "answer"
    RECEIPT = "receipt"
    BACKOFF = "backoff"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand the message to a provider as attempt `number`.

    `resume` continues an attempt of which some parts were accepted: only the others are sent.
    """

    provider: str
    number: int
    resume: bool = False
    kind: Literal["submit"] = "submit"


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask the provider to forget attempt `number` (SMPP cancel_sm)."""

    provider: str
    number: int
    kind: Literal["recall"] = "recall"


@dataclass(frozen=True, slots=True)
class Declare:
    """Record what the passing of time has made of attempt `number`, then decide again."""

    number: int
    status: AttemptStatus
    kind: Literal["declare"] = "declare"


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until then, or until news comes."""

    until: datetime
    why: WaitFor
    kind: Literal["wait"] = "wait"


@dataclass(frozen=True, slots=True)
class Finish:
    """The end; `reason` is a `Reason` or the class of the error that ended it."""

    status: MessageStatus
    reason: str
    kind: Literal["finish"] = "finish"


Decision = Submit | Recall | Declare | Wait | Finish


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """An attempt, as far as decisions depend on it.

    Attributes:
        answer_by: by then the provider has answered, or never will.
        settled_at: when its status was last changed.
        receipt_by: how long its receipts are waited for; ENROUTE receipts move it on.
        recalled: None if its recall was not tried, else whether the provider forgot it.
        retry_after: what the provider asked for when it throttled.
        tries: how often parts of it were submitted.
    """

    number: int
    provider: str
    status: AttemptStatus
    answer_by: datetime
    settled_at: datetime
    receipt_by: datetime
    error_class: ErrorClass | None = None
    recalled: bool | None = None
    retry_after: timedelta | None = None
    tries: int = 1


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """A message, as far as decisions depend on it.

    A replay begins anew at `since`, with `first_attempt`; earlier attempts count for nothing but
    their receipts.
    """

    first_attempt: int
    verdict: Verdict | None
    reason: str | None
    since: datetime
    valid_until: datetime
    scheduled_at: datetime | None
    cancel_requested: bool
    attempts: tuple[AttemptFacts, ...] = ()

    @classmethod
    def untried(
        cls, *, since: datetime, valid_until: datetime, scheduled_at: datetime | None = None
    ) -> Self:
        """A message that no provider was given yet, and about which nobody has decided."""
        return cls(
            first_attempt=1,
            verdict=None,
            reason=None,
            since=since,
            valid_until=valid_until,
            scheduled_at=scheduled_at,
            cancel_requested=False,
        )


@dataclass(frozen=True, slots=True)
class RouteOption:
    """A provider that may carry the message; the order of the options is the ranking.

    `up` tells whether a living worker has a bind to it; `score` is for the explanation.
    """

    provider: str
    up: bool
    receipts: bool = True
    recalls: bool = False
    retries: Mapping[ErrorClass, RetryRule] = field(default_factory=lambda: RETRIES)
    score: float = 0.0


def decide(
    message: MessageFacts,
    options: Sequence[RouteOption],
    policy: ModePolicy,
    now: datetime,
) -> Decision:
    """What to do with a message now; the whole of the delivery rules.

    Deterministic, and total: whatever the rows say, there is an answer. Following it (and letting
    time pass on `Wait`) always ends in `Finish`.
    """
    return _Case(message, options, policy, now).decide()


_OPEN = frozenset({AttemptStatus.ACCEPTED, AttemptStatus.UNKNOWN})


class _Case:
    """One message at one moment."""

    def __init__(
        self,
        message: MessageFacts,
        options: Sequence[RouteOption],
        policy: ModePolicy,
        now: datetime,
    ) -> None:
        self.message = message
        self.options = options
        self.policy = policy
        self.now = now
        self.present = sorted(
            (a for a in message.attempts if a.number >= message.first_attempt),
            key=lambda attempt: attempt.number,
        )
        self.latest = self.present[-1] if self.present else None

    def decide(self) -> Decision:
        message, latest = self.message, self.latest
        status = fold_message(
            message.verdict,
            message.first_attempt,
            [AttemptMark(a.number, a.status) for a in message.attempts],
        )
        if status is MessageStatus.DELIVERED:
            return Finish(status, Reason.DELIVERED)
        if message.verdict is not None and message.verdict.is_final:
            return Finish(status, message.reason or status.value)
        if latest is not None and latest.status is AttemptStatus.SUBMITTING:
            if self.now < latest.answer_by:
                return Wait(latest.answer_by, WaitFor.ANSWER)
            return Declare(latest.number, AttemptStatus.UNKNOWN)
        if latest is not None and latest.status in _OPEN:
            return self._while_a_provider_has_it(latest)
        return self._while_no_provider_has_it(latest)

    def _while_a_provider_has_it(self, latest: AttemptFacts) -> Decision:
        if self.message.cancel_requested and latest.recalled:
            return Finish(MessageStatus.CANCELED, Reason.CANCELED)
        if self.message.cancel_requested and self._can_recall(latest):
            return Recall(latest.provider, latest.number)
        if latest.status is AttemptStatus.UNKNOWN:
            return self._in_doubt(latest)
        option = self._option(latest.provider)
        if option is not None and not option.receipts:
            return Finish(MessageStatus.SENT, Reason.NO_RECEIPTS)
        if self.now < latest.receipt_by:
            return Wait(latest.receipt_by, WaitFor.RECEIPT)
        if self._goes_on_without_receipt() and self._can_recall(latest):
            return Recall(latest.provider, latest.number)
        return Declare(latest.number, AttemptStatus.EXPIRED)

    def _in_doubt(self, latest: AttemptFacts) -> Decision:
        unknown = self.policy.unknown
        if self.message.cancel_requested and self.now >= latest.receipt_by:
            return Finish(MessageStatus.CANCELED, Reason.CANCELED)
        may_resend = not self.message.cancel_requested and self.now < self.message.valid_until
        if unknown is UnknownPolicy.RESEND and may_resend:
            return self._next_attempt(latest)
        if self.now < latest.receipt_by:
            return Wait(latest.receipt_by, WaitFor.RECEIPT)
        match unknown:
            case UnknownPolicy.WAIT:
                return Finish(MessageStatus.DEAD_LETTER, Reason.OUTCOME_UNKNOWN)
            case UnknownPolicy.NEVER | UnknownPolicy.RESEND:
                return Finish(MessageStatus.EXPIRED, Reason.OUTCOME_UNKNOWN)
        assert_never(unknown)

    def _while_no_provider_has_it(self, latest: AttemptFacts | None) -> Decision:
        message = self.message
        if message.cancel_requested:
            return Finish(MessageStatus.CANCELED, Reason.CANCELED)
        if self.now >= message.valid_until:
            missed = latest is not None and latest.status is AttemptStatus.EXPIRED
            return Finish(
                MessageStatus.EXPIRED, Reason.NO_RECEIPT if missed else Reason.VALIDITY_OVER
            )
        if message.scheduled_at is not None and self.now < message.scheduled_at:
            return Wait(message.scheduled_at, WaitFor.SCHEDULE)
        if latest is None:
            return self._next_attempt(None)
        return self._after_failure(latest)

    def _after_failure(self, latest: AttemptFacts) -> Decision:
        if latest.status is AttemptStatus.EXPIRED:
            if self._goes_on_without_receipt():
                return self._next_attempt(latest)
            return Finish(MessageStatus.EXPIRED, Reason.NO_RECEIPT)
        error = _error_of(latest)
        rule = self._rule(latest.provider, error)
        if rule.failover is Failover.NEVER and rule.permanent:
            return Finish(MessageStatus.FAILED, error.value)
        if error is ErrorClass.UNDELIVERED and not self.policy.must_arrive:
            return Finish(MessageStatus.FAILED, error.value)
        if latest.status is AttemptStatus.PARTIAL:
            return self._missing_parts(latest, rule)
        return self._next_attempt(latest)

    def _missing_parts(self, latest: AttemptFacts, rule: RetryRule) -> Decision:
        option = self._option(latest.provider)
        if option is None or not option.up or latest.tries >= rule.attempts:
            return self._next_attempt(latest)
        ready = latest.settled_at + (latest.retry_after or rule.pause(latest.tries))
        if self.now < ready:
            return self._wait(ready, WaitFor.BACKOFF)
        return Submit(latest.provider, latest.number, resume=True)

    def _next_attempt(self, latest: AttemptFacts | None) -> Decision:
        if not self.options:
            return Finish(MessageStatus.DEAD_LETTER, Reason.NO_ROUTE)
        left = [option for option in self.options if not self._exhausted(option.provider)]
        if not left or len(self.present) >= self.policy.max_attempts:
            return self._give_up(latest)
        stay = self._stay_with(latest, left)
        living = [stay] if stay else [option for option in left if option.up]
        if not living:
            return self._outage(latest)
        for option in living:
            if self._ready_at(option.provider) <= self.now:
                return Submit(option.provider, self._next_number())
        return self._wait(
            min(self._ready_at(option.provider) for option in living), WaitFor.BACKOFF
        )

    def _stay_with(
        self, latest: AttemptFacts | None, left: Sequence[RouteOption]
    ) -> RouteOption | None:
        """The provider of the last attempt, if it is worth waiting for."""
        if latest is None or latest.error_class is None or self.policy.must_arrive:
            return None
        rule = self._rule(latest.provider, latest.error_class)
        if rule.failover is not Failover.AFTER_RETRIES:
            return None
        return next((o for o in left if o.provider == latest.provider and o.up), None)

    def _outage(self, latest: AttemptFacts | None) -> Decision:
        starts = [self.message.since]
        if self.message.scheduled_at is not None:
            starts.append(self.message.scheduled_at)
        if latest is not None:
            starts.append(latest.settled_at)
        since = max(starts)
        end = since + self.policy.outage_patience
        if self.now >= end:
            return Finish(MessageStatus.DEAD_LETTER, Reason.NO_PROVIDER_UP)
        pause = min(LONGEST_OUTAGE_WAIT, max(SHORTEST_OUTAGE_WAIT, (self.now - since) / 2))
        return self._wait(min(end, self.now + pause), WaitFor.PROVIDER)

    def _give_up(self, latest: AttemptFacts | None) -> Decision:
        if latest is None:
            return Finish(MessageStatus.DEAD_LETTER, Reason.NO_ROUTE)
        if latest.status in _OPEN:  # in doubt, and nobody is left to send it again
            return (
                Wait(latest.receipt_by, WaitFor.RECEIPT)
                if self.now < latest.receipt_by
                else Finish(MessageStatus.DEAD_LETTER, Reason.OUTCOME_UNKNOWN)
            )
        if latest.status is AttemptStatus.EXPIRED:
            return Finish(MessageStatus.EXPIRED, Reason.NO_RECEIPT)
        if all(self._rule(a.provider, _error_of(a)).permanent for a in self.present):
            return Finish(MessageStatus.FAILED, _error_of(latest).value)
        return Finish(MessageStatus.DEAD_LETTER, Reason.ATTEMPTS_EXHAUSTED)

    def _wait(self, until: datetime, why: WaitFor) -> Wait:
        return Wait(min(until, self.message.valid_until), why)

    def _goes_on_without_receipt(self) -> bool:
        return (
            self.policy.missing_receipt is MissingReceiptPolicy.NEXT_ROUTE
            and not self.message.cancel_requested
        )

    def _can_recall(self, latest: AttemptFacts) -> bool:
        option = self._option(latest.provider)
        return (
            latest.status is AttemptStatus.ACCEPTED
            and latest.recalled is None
            and option is not None
            and option.recalls
            and option.up
        )

    def _option(self, provider: str) -> RouteOption | None:
        return next((option for option in self.options if option.provider == provider), None)

    def _rule(self, provider: str, error: ErrorClass) -> RetryRule:
        option = self._option(provider)
        return (option.retries if option else RETRIES)[error]

    def _tried(self, provider: str) -> list[AttemptFacts]:
        return [attempt for attempt in self.present if attempt.provider == provider]

    def _exhausted(self, provider: str) -> bool:
        """Whether some class of error has used up this provider's attempts."""
        errors = [_error_of(attempt) for attempt in self._tried(provider)]
        return any(errors.count(e) >= self._rule(provider, e).attempts for e in set(errors))

    def _ready_at(self, provider: str) -> datetime:
        tried = self._tried(provider)
        if not tried:
            return self.now
        last = tried[-1]
        rule = self._rule(provider, _error_of(last))
        return last.settled_at + (last.retry_after or rule.pause(len(tried)))

    def _next_number(self) -> int:
        return 1 + max((attempt.number for attempt in self.message.attempts), default=0)


def _error_of(attempt: AttemptFacts) -> ErrorClass:
    """Why an attempt did not deliver; one without a receipt counts as undelivered."""
    if attempt.status is AttemptStatus.UNKNOWN:
        return ErrorClass.UNKNOWN
    return attempt.error_class or ErrorClass.UNDELIVERED

"""Decides the next step of a message: one pure function for all runners.

`decide` takes a message, its attempts, the providers that its route offers (best first) and the time,
and returns the next step. The workflow of a single message executes it; a bulk runner applies the
same function to many rows. The rules change here without touching either.

Each decision carries its `kind`, which identifies it after a round trip through JSON.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Self, assert_never

from domain import deadlines
from domain.error_classes import RETRIES, ErrorClass, Failover, RetryRule
from domain.modes import MissingReceiptPolicy, ModePolicy, UnknownPolicy
from domain.states import (
    AttemptMark,
    AttemptStatus,
    MessageStatus,
    Verdict,
    fold_message,
)


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
    RESPONSE = "response"
    RECEIPT = "receipt"
    BACKOFF = "backoff"
    PROVIDER = "provider"
    RELEASE = "release"
    """Its bulk is paused, until somebody resumes it."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand the message to a provider as attempt `number`.

    `resume` continues an attempt of which some parts were accepted: only the others are sent.
    `alternatives` is how many other providers could take the message if this one does not deliver it:
    the wait for its receipt depends on that, and not what is submitted.
    """

    provider: str
    number: int
    resume: bool = False
    alternatives: int = field(default=1, compare=False)
    kind: Literal["submit"] = "submit"


@dataclass(frozen=True, slots=True)
class CancelAtProvider:
    """Ask the provider to forget attempt `number` (SMPP cancel_sm)."""

    provider: str
    number: int
    kind: Literal["cancel_at_provider"] = "cancel_at_provider"


@dataclass(frozen=True, slots=True)
class MarkAttempt:
    """Record what the passing of time has made of attempt `number`, then decide again."""

    number: int
    status: AttemptStatus
    kind: Literal["mark_attempt"] = "mark_attempt"


@dataclass(frozen=True, slots=True)
class ReportMissingReceipt:
    """Report to the listener that attempt `number` has no receipt, wait `until` then, decide again."""

    number: int
    until: datetime
    kind: Literal["report_missing_receipt"] = "report_missing_receipt"


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


Decision = Submit | CancelAtProvider | MarkAttempt | ReportMissingReceipt | Wait | Finish


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """An attempt, as far as decisions depend on it.

    Attributes:
        started_at: when it was claimed first.
        response_by: by then the provider has answered, or never will.
        settled_at: when its status was last changed.
        receipt_by: how long its receipts are waited for; ENROUTE receipts move it on.
        cancelled_at_provider: None if that was not tried, else whether the provider dropped it.
        retry_after: what the provider asked for when it throttled.
        tries: how often parts of it were submitted, since the try in which one was accepted last.
        out_of_time: whether the provider's receipts report only that the validity was over.
    """

    number: int
    provider: str
    status: AttemptStatus
    started_at: datetime
    response_by: datetime
    settled_at: datetime
    receipt_by: datetime
    error_class: ErrorClass | None = None
    cancelled_at_provider: bool | None = None
    retry_after: timedelta | None = None
    tries: int = 1
    out_of_time: bool = False


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """A message, as far as decisions depend on it.

    A replay restarts at `since` with `first_attempt`; of earlier attempts only the receipts count.
    `since` is also later than the acceptance if the bulk was resumed. `paused` is whether the bulk is
    paused: nothing is submitted until it is resumed.
    """

    first_attempt: int
    verdict: Verdict | None
    reason: str | None
    since: datetime
    valid_until: datetime
    scheduled_at: datetime | None
    cancel_requested: bool
    attempts: tuple[AttemptFacts, ...] = ()
    paused: bool = False

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

    `up` is whether a live worker has a bind to it. `down_since` is when the last bind was lost, None
    if that is unknown.
    """

    provider: str
    up: bool
    down_since: datetime | None = None
    receipts: bool = True
    cancels: bool = False
    retries: Mapping[ErrorClass, RetryRule] = field(default_factory=lambda: RETRIES)


class Standing(StrEnum):
    """Why a provider of the route was chosen for an attempt, or was not."""

    CHOSEN = "chosen"
    LOWER = "lower"
    """It comes later in the order of the route."""
    DOWN = "down"
    EXHAUSTED = "exhausted"
    """It was tried as often as its errors allow."""
    BACKOFF = "backoff"
    """It failed, and is not tried again yet."""
    TRIED = "tried"
    """It had an attempt, and another provider comes first now."""


def decide(
    message: MessageFacts,
    options: Sequence[RouteOption],
    policy: ModePolicy,
    now: datetime,
) -> Decision:
    """What to do with a message now; the whole of the delivery rules.

    Deterministic, and total: whatever the rows say, there is a response. Following it (and letting
    time pass on `Wait`) always ends in `Finish`.
    """
    return _Case(message, options, policy, now).decide()


def standings(
    message: MessageFacts,
    options: Sequence[RouteOption],
    policy: ModePolicy,
    now: datetime,
    chosen: str,
) -> dict[str, Standing]:
    """For each option of a decision to submit to `chosen`, why it was that or another one."""
    return _Case(message, options, policy, now).standings(chosen)


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
        self._by_name = {option.provider: option for option in options}
        self._by_provider: dict[str, list[AttemptFacts]] = {}
        for attempt in self.present:
            self._by_provider.setdefault(attempt.provider, []).append(attempt)
        self._failing = {provider for provider in self._by_provider if self._is_failing(provider)}

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
            if self.now < latest.response_by:
                return Wait(latest.response_by, WaitFor.RESPONSE)
            return MarkAttempt(latest.number, AttemptStatus.UNKNOWN)
        if latest is not None and latest.status in _OPEN:
            return self._while_a_provider_has_it(latest)
        return self._while_no_provider_has_it(latest)

    def standings(self, chosen: str) -> dict[str, Standing]:
        found: dict[str, Standing] = {}
        for option in self.options:
            name = option.provider
            if name == chosen:
                found[name] = Standing.CHOSEN
            elif not option.up:
                found[name] = Standing.DOWN
            elif self._exhausted(name):
                found[name] = Standing.EXHAUSTED
            elif self._ready_at(name) > self.now:
                found[name] = Standing.BACKOFF
            elif Standing.CHOSEN in found.values():
                found[name] = Standing.LOWER
            else:
                found[name] = Standing.TRIED
        return found

    def _while_a_provider_has_it(self, latest: AttemptFacts) -> Decision:
        if self.message.cancel_requested and latest.cancelled_at_provider:
            return Finish(MessageStatus.CANCELED, Reason.CANCELED)
        if self.message.cancel_requested and self._can_cancel_at_provider(latest):
            return CancelAtProvider(latest.provider, latest.number)
        if latest.status is AttemptStatus.UNKNOWN:
            return self._while_unknown(latest)
        option = self._option(latest.provider)
        if option is not None and not option.receipts:
            return Finish(MessageStatus.SENT, Reason.NO_RECEIPTS)
        receipt_by = self._receipt_by(latest)
        if self.now < receipt_by:
            return Wait(receipt_by, WaitFor.RECEIPT)
        return self._without_receipt(latest, receipt_by)

    def _without_receipt(self, latest: AttemptFacts, receipt_by: datetime) -> Decision:
        """What to do with an attempt that a provider has accepted and whose deadline is over."""
        last_receipt_by = deadlines.last_receipt_by(self.message.valid_until)
        if self._notifies_listener and receipt_by < last_receipt_by:
            return ReportMissingReceipt(latest.number, last_receipt_by)
        if self._goes_on_without_receipt():
            if not self._alternatives(latest.provider, has_begun=True, only_up=True):
                last = deadlines.last_failover(latest.settled_at, self.message.valid_until)
                if self.now < last:  # another provider may be up soon
                    check = deadlines.outage_check(self.now, receipt_by, last)
                    return Wait(check, WaitFor.RECEIPT)
            if self._can_cancel_at_provider(latest):
                return CancelAtProvider(latest.provider, latest.number)
        return MarkAttempt(latest.number, AttemptStatus.EXPIRED)

    def _while_unknown(self, latest: AttemptFacts) -> Decision:
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
            if latest is not None and self._can_cancel_at_provider(latest):
                return CancelAtProvider(latest.provider, latest.number)
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
        if self.message.paused:
            return self._release()
        option = self._option(latest.provider)
        if option is None or not self._keeps(latest, rule):
            return self._next_attempt(latest)
        if not option.up:
            left = self._left()
            if any(each.up for each in left):
                return self._next_attempt(latest)
            return self._outage(latest, [option, *left])
        ready = self._ready_at(latest.provider)
        if self.now < ready:
            return self._wait(ready, WaitFor.BACKOFF)
        alternatives = self._alternatives(latest.provider, has_begun=True)
        return Submit(latest.provider, latest.number, resume=True, alternatives=alternatives)

    def _keeps(self, latest: AttemptFacts, rule: RetryRule) -> bool:
        """Whether the missing parts go to the provider that has the others, once more.

        A provider that only asks to wait, or is waited for, keeps them, unless another one can have the whole message
        that had none of it yet: parts that were accepted are sent twice by that.
        """
        if latest.tries < rule.attempts:
            return True
        untried = (o for o in self.options if o.up and not self._tried(o.provider))
        return (rule.waits or self._met_outage(latest)) and next(untried, None) is None

    def _next_attempt(self, latest: AttemptFacts | None) -> Decision:
        if self.message.paused:
            return self._release()
        if not self.options:
            return Finish(MessageStatus.DEAD_LETTER, Reason.NO_ROUTE)
        left = self._left()
        if not left or self._counted(self.present) >= self.policy.max_attempts:
            return self._give_up(latest)
        stay = self._stay_with(latest, left)
        living = [stay] if stay else [option for option in left if option.up]
        if not living:
            return self._outage(latest, left)
        if self._fails_over_at_once(latest):
            living.sort(key=lambda option: bool(self._tried(option.provider)))
        for option in living:
            if self._ready_at(option.provider) <= self.now:
                alternatives = self._alternatives(option.provider)
                return Submit(option.provider, self._next_number(), alternatives=alternatives)
        return self._wait(
            min(self._ready_at(option.provider) for option in living), WaitFor.BACKOFF
        )

    def _left(self) -> list[RouteOption]:
        """The providers that may get the whole message once more.

        None that accepted a part of it and can still be sent the others: the recipient would get that
        part twice. Where a message is sent again unknown, such a provider is better than none.
        So is one whose attempts only ran out of time, or which itself has failed not long ago, where no
        other can have the message now.
        """
        left = [option for option in self.options if not self._exhausted(option.provider)]
        if not any(option.up and not self._asked_to_wait(option.provider) for option in left):
            left = [o for o in self.options if not self._exhausted(o.provider, lenient=True)]
        has_parts = {a.provider for a in self.present if a.status is AttemptStatus.PARTIAL}
        without = [option for option in left if option.provider not in has_parts]
        if without or self.policy.unknown is not UnknownPolicy.RESEND:
            return without
        return left

    def _asked_to_wait(self, provider: str) -> bool:
        tried = self._tried(provider)
        return bool(tried) and self._rule_of(tried[-1]).waits

    def _stay_with(
        self, latest: AttemptFacts | None, left: Sequence[RouteOption]
    ) -> RouteOption | None:
        """The provider of the last attempt, if it is worth waiting for."""
        if latest is None or latest.error_class is None or self.policy.must_arrive:
            return None
        rule = self._rule(latest.provider, latest.error_class)
        if rule.failover is not Failover.AFTER_RETRIES:
            return None
        alike = (a for a in self._tried(latest.provider) if a.error_class is latest.error_class)
        if sum(attempt.tries for attempt in alike) >= rule.attempts:
            return None
        return next((o for o in left if o.provider == latest.provider and o.up), None)

    def _fails_over_at_once(self, latest: AttemptFacts | None) -> bool:
        """Whether providers that were not tried yet come before all others."""
        if latest is None:
            return False
        rule = self._rule(latest.provider, _error_of(latest))
        return self.policy.must_arrive or rule.failover is Failover.AT_ONCE

    def _outage(self, latest: AttemptFacts | None, left: Sequence[RouteOption]) -> Decision:
        """Wait for a provider of those that are `left`, all of which are down."""
        since = deadlines.outage_since(
            self.message.since,
            self.message.scheduled_at,
            latest.settled_at if latest is not None else None,
            *(option.down_since for option in left),
        )
        end = deadlines.outage_end(since, self.policy.outage_patience)
        if self.now >= end:
            return Finish(MessageStatus.DEAD_LETTER, Reason.NO_PROVIDER_UP)
        return self._wait(deadlines.outage_check(self.now, since, end), WaitFor.PROVIDER)

    def _release(self) -> Wait:
        return Wait(self.message.valid_until, WaitFor.RELEASE)

    def _give_up(self, latest: AttemptFacts | None) -> Decision:
        if latest is None:
            return Finish(MessageStatus.DEAD_LETTER, Reason.NO_ROUTE)
        if latest.status in _OPEN:  # unknown, and nobody is left to send it again
            return (
                Wait(latest.receipt_by, WaitFor.RECEIPT)
                if self.now < latest.receipt_by
                else Finish(MessageStatus.DEAD_LETTER, Reason.OUTCOME_UNKNOWN)
            )
        if latest.status is AttemptStatus.EXPIRED:
            return Finish(MessageStatus.EXPIRED, Reason.NO_RECEIPT)
        if all(self._rule_of(a).permanent for a in self.present):
            return Finish(MessageStatus.FAILED, _error_of(latest).value)
        return Finish(MessageStatus.DEAD_LETTER, Reason.ATTEMPTS_EXHAUSTED)

    def _wait(self, until: datetime, why: WaitFor) -> Wait:
        return Wait(min(until, self.message.valid_until), why)

    @property
    def _notifies_listener(self) -> bool:
        return self.policy.missing_receipt is MissingReceiptPolicy.TELL_LISTENER

    def _goes_on_without_receipt(self) -> bool:
        return (
            self.policy.missing_receipt is MissingReceiptPolicy.NEXT_ROUTE
            and not self.message.cancel_requested
        )

    def _receipt_by(self, latest: AttemptFacts) -> datetime:
        """How long to wait for a receipt: never so long that another route has no chance.

        ENROUTE receipts extend the wait without a look at other routes.
        """
        another = self._alternatives(latest.provider, has_begun=True)
        if not another or not self._goes_on_without_receipt():
            return latest.receipt_by
        last = deadlines.last_failover(latest.settled_at, self.message.valid_until)
        return min(latest.receipt_by, last)

    def _alternatives(
        self, provider: str, *, has_begun: bool = False, only_up: bool = False
    ) -> int:
        """How many other providers could take the message after an attempt by this one.

        That attempt is the next one, or, if it `has_begun`, the latest. One that is down counts, too,
        unless `only_up`: by the deadline of a receipt it may be up.
        """
        others = [
            option
            for option in self.options
            if option.provider != provider
            and (option.up or not only_up)
            and not self._exhausted(option.provider)
        ]
        before = self.present[:-1] if has_begun else self.present
        attempts_left = self.policy.max_attempts - self._counted(before) - 1
        return max(0, min(len(others), attempts_left))

    def _counted(self, attempts: Sequence[AttemptFacts]) -> int:
        """How many of these count: those do not that met an outage, or were only asked to wait."""
        return sum(not (self._rule_of(a).waits or self._met_outage(a)) for a in attempts)

    def _can_cancel_at_provider(self, latest: AttemptFacts) -> bool:
        option = self._option(latest.provider)
        return (
            latest.status in {AttemptStatus.ACCEPTED, AttemptStatus.PARTIAL}
            and latest.cancelled_at_provider is None
            and option is not None
            and option.cancels
            and option.up
        )

    def _option(self, provider: str) -> RouteOption | None:
        return self._by_name.get(provider)

    def _rule(self, provider: str, error: ErrorClass) -> RetryRule:
        option = self._option(provider)
        return (option.retries if option else RETRIES)[error]

    def _rule_of(self, attempt: AttemptFacts) -> RetryRule:
        return self._rule(attempt.provider, _error_of(attempt))

    def _tried(self, provider: str) -> Sequence[AttemptFacts]:
        return self._by_provider.get(provider, ())

    def _exhausted(self, provider: str, *, lenient: bool = False) -> bool:
        """Whether some class of error has used up this provider's attempts.

        With `lenient` those attempts do not count that only ran out of time, or that met an outage.
        """
        errors = Counter(
            _error_of(attempt)
            for attempt in self._tried(provider)
            if not (lenient and (_is_out_of_time(attempt) or self._met_outage(attempt)))
        )
        rules = {error: self._rule(provider, error) for error in errors}
        return any(
            not rule.waits and errors[error] >= rule.attempts for error, rule in rules.items()
        )

    def _is_failing(self, provider: str) -> bool:
        """Whether a provider itself has failed, and is waited for as if it had been down since then."""
        first = next((a for a in self._tried(provider) if self._rule_of(a).outage), None)
        if first is None:
            return False
        since = deadlines.outage_since(self.message.since, first.started_at)
        return self.now < deadlines.outage_end(since, self.policy.outage_patience)

    def _met_outage(self, attempt: AttemptFacts) -> bool:
        return attempt.provider in self._failing and self._rule_of(attempt).outage

    def _ready_at(self, provider: str) -> datetime:
        tried = self._tried(provider)
        if not tried:
            return self.now
        last = tried[-1]
        rule = self._rule(provider, _error_of(last))
        if _is_out_of_time(last):
            ended = sum(_is_out_of_time(attempt) for attempt in tried)
            return deadlines.same_route_at(last.settled_at, ended)
        tries = sum(attempt.tries for attempt in tried)
        return last.settled_at + (last.retry_after or rule.pause(tries))

    def _next_number(self) -> int:
        return 1 + max((attempt.number for attempt in self.message.attempts), default=0)


def _error_of(attempt: AttemptFacts) -> ErrorClass:
    """Why an attempt did not deliver; one without a receipt counts as undelivered."""
    if attempt.status is AttemptStatus.UNKNOWN:
        return ErrorClass.UNKNOWN
    return attempt.error_class or ErrorClass.UNDELIVERED


def _is_out_of_time(attempt: AttemptFacts) -> bool:
    """Whether an attempt ended only since its receipt, or its recipient, did not come in time."""
    if attempt.status is AttemptStatus.UNDELIVERED:
        return attempt.out_of_time
    return attempt.status is AttemptStatus.EXPIRED

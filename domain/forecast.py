"""What becomes of a message if nothing else happens: `domain.delivery.decide`, ahead of time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from domain.delivery import (
    CancelAtProvider,
    Decision,
    Finish,
    MarkAttempt,
    MessageFacts,
    ReportMissingReceipt,
    RouteOption,
    Submit,
    Wait,
    decide,
)
from domain.modes import ModePolicy
from domain.states import AttemptStatus

_MOST_STEPS: Final = 100
_CHECKS: Final = 4
"""Waits of one kind in a row that are followed one by one: an outage of a day has thousands."""
_EXACT: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a message waits for, and what follows if no news comes and every provider stays as it is.

    Attributes:
        wait: what it waits for now; None if something is to be done at once.
        then: what follows in the end: a submit, a cancel, the end, a response that never came, or a
            report that no receipt did. None
            where that is too far ahead to be known.
        at: when.
        after_cancel: what follows a cancel at the provider, if the provider does cancel the message.
    """

    wait: Wait | None
    then: Submit | CancelAtProvider | Finish | MarkAttempt | ReportMissingReceipt | None
    at: datetime
    after_cancel: "Forecast | None" = None


def forecast(
    message: MessageFacts, options: Sequence[RouteOption], policy: ModePolicy, now: datetime
) -> Forecast:
    """What becomes of a message; arguments as those of `decide`."""
    first: Wait | None = None
    at, alike, why = now, 0, None
    for _ in range(_MOST_STEPS):
        decision: Decision = decide(message, options, policy, at)
        match decision:
            case Wait(until=until):
                first = first or decision
                if until <= at:
                    break
                alike, why = (alike + 1 if decision.why is why else 1), decision.why
                if alike > _CHECKS:
                    until = _last_check(message, options, policy, decision, at).until
                at = until
            case MarkAttempt(status=AttemptStatus.EXPIRED):
                message = _changed(message, decision.number, status=decision.status, settled_at=at)
            case CancelAtProvider(number=number):
                cancelled = _changed(message, number, cancelled_at_provider=True)
                after = forecast(cancelled, options, policy, at)
                return Forecast(first, decision, at, after)
            case _:
                return Forecast(first, decision, at)
    return Forecast(first, None, at)


def _last_check(
    message: MessageFacts,
    options: Sequence[RouteOption],
    policy: ModePolicy,
    wait: Wait,
    at: datetime,
) -> Wait:
    """The last of the waits of one kind that follow each other, found by ever longer steps."""

    def goes_on(moment: datetime) -> Wait | None:
        decision = decide(message, options, policy, moment)
        return decision if isinstance(decision, Wait) and decision.why is wait.why else None

    last, step = wait, wait.until - at
    while later := goes_on(at + step):
        last, at, step = later, at + step, 2 * step
    while step > _EXACT:
        step /= 2
        if later := goes_on(at + step):
            last, at = later, at + step
    return last


def _changed(message: MessageFacts, number: int, **changes: Any) -> MessageFacts:
    """The message with changes of one attempt."""
    return replace(
        message,
        attempts=tuple(
            replace(each, **changes) if each.number == number else each for each in message.attempts
        ),
    )

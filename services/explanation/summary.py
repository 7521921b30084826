"""The summary: how a message ended or what it waits for, and why this provider."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from domain.delivery import (
    CancelAtProvider,
    Finish,
    MarkAttempt,
    Reason,
    ReportMissingReceipt,
    Standing,
    Submit,
    WaitFor,
)
from domain.error_classes import RETRIES, ErrorClass, Failover
from domain.forecast import Forecast
from domain.modes import MissingReceiptPolicy
from domain.money import Billed
from domain.states import AttemptStatus, MessageStatus
from services.explanation.failures import FAILED, failure
from services.explanation.known import FINAL_STATUSES, Known
from services.explanation.words import at_time, counted, listed
from store.attempts import StoredAttempt
from store.events import Event
from store.messages import AccountMessage


def ending(known: Known) -> str:
    message, last = known.message, known.attempts[-1] if known.attempts else None
    reason = message.reason
    match message.status:
        case MessageStatus.DELIVERED:
            return _delivered(known)
        case MessageStatus.SENT:
            provider = last.provider if last is not None else "The provider"
            return f"Sent: {provider} accepted it, and gives no receipts."
        case MessageStatus.FAILED:
            why = failure(last, known) if last is not None else plain(reason or "")
            return f"Failed: {why}." if why else "Failed."
        case MessageStatus.DEAD_LETTER | MessageStatus.EXPIRED:
            title = "Expired" if message.status is MessageStatus.EXPIRED else "Dead letter"
            why = _end_reason(known, reason)
            return f"{title}: {why}." if why else f"{title}."
        case _:
            return f"Cancelled: {_cancelled(last)}."


def _delivered(known: Known) -> str:
    by = next((a for a in known.attempts if a.status is AttemptStatus.DELIVERED), None)
    if by is None:  # the rows were read before it was delivered
        return "Delivered."
    if len(known.attempts) == 1:
        return f"Delivered by {by.provider}."
    failed = [a for a in known.attempts if a.number < by.number]
    after = f", after {failure(failed[-1], known, brief=True)}" if failed else ""
    return f"Delivered by {by.provider} on attempt {by.number}{after}."


def _cancelled(last: StoredAttempt | None) -> str:
    if last is None:
        return "no provider had it"
    if last.cancelled_at_provider:
        return f"{last.provider} cancelled it on request"
    if last.status is AttemptStatus.UNKNOWN:
        return f"it is not known whether {last.provider} has it"
    return "no provider has it"


_END_REASONS: Final[Mapping[str, str]] = {
    Reason.NO_RECEIPT: "{provider} accepted it, and its receipt did not come in time",
    Reason.OUTCOME_UNKNOWN: "{provider} did not answer, and no receipt says whether it was sent",
    Reason.VALIDITY_OVER: "its validity was over before a provider took it",
    Reason.NO_ROUTE: "no route takes it",
    Reason.NO_PROVIDER_UP: "no provider of its route was up",
    Reason.ATTEMPTS_EXHAUSTED: "every provider was tried as often as allowed",
}
_END_REASONS_OF_TESTS: Final[Mapping[str, str]] = {
    **_END_REASONS,
    Reason.NO_ROUTE: "the provider that it tests is not in the configuration any more",
    Reason.NO_PROVIDER_UP: "the provider that it tests was not up",
    Reason.ATTEMPTS_EXHAUSTED: "{provider} was tried as often as allowed",
}


def _end_reason(known: Known, reason: str | None) -> str:
    last = known.attempts[-1] if known.attempts else None
    provider = last.provider if last is not None else "the provider"
    if reason is None or _says_no_more(known.message.status, reason):
        return ""
    reasons = _END_REASONS if known.message.only_provider is None else _END_REASONS_OF_TESTS
    text = reasons[reason].format(provider=provider) if reason in reasons else plain(reason)
    if reason == Reason.VALIDITY_OVER and any(
        attempt.status is AttemptStatus.UNDELIVERED for attempt in known.attempts
    ):
        text = "its validity was over before it was delivered"
    says_more = {Reason.VALIDITY_OVER, Reason.ATTEMPTS_EXHAUSTED, Reason.NO_PROVIDER_UP}
    if last is not None and reason in says_more and last.status in FAILED:
        return f"{text}; at last {failure(last, known, brief=True)}"
    return text


def waiting(known: Known) -> Iterator[str]:
    """What an open message waits for, until when, and what happens then."""
    forecast, message = known.forecast, known.message
    last = known.attempts[-1] if known.attempts else None
    if forecast is None:
        yield f"It is {message.status}; there is no configuration to predict what follows."
        return
    if forecast.wait is None:
        yield _due(forecast)
        return
    until = at_time(forecast.wait.until)
    match forecast.wait.why:
        case WaitFor.SCHEDULE:
            yield f"Scheduled for {until}."
        case WaitFor.RELEASE:
            what = "its batch is resumed" if message.bulk_id is not None else "it is released"
            yield f"Held until {what}."
        case WaitFor.PROVIDER:
            yield from _outage(known, forecast)
            return
        case WaitFor.BACKOFF:
            again = forecast.then.provider if isinstance(forecast.then, Submit) else "a provider"
            is_new = isinstance(forecast.then, Submit) and all(
                attempt.provider != again for attempt in known.attempts
            )
            why = f", after {failure(last, known, brief=True)}" if last is not None else ""
            yield f"Waiting to try {again}{'' if is_new else ' again'}{why}."
        case WaitFor.RESPONSE:
            yield f"Waiting for the response of {last.provider if last is not None else '?'}."
        case WaitFor.RECEIPT:
            yield _for_receipt(last)
            yield from _requests(known)
    yield _then(forecast)


_ENDS: Final[Mapping[MessageStatus, str]] = {
    MessageStatus.DELIVERED: "it is delivered",
    MessageStatus.SENT: "it ends as sent",
    MessageStatus.FAILED: "it fails",
    MessageStatus.DEAD_LETTER: "it becomes a dead letter",
    MessageStatus.EXPIRED: "it expires",
    MessageStatus.CANCELED: "it is cancelled",
}


def _due(forecast: Forecast) -> str:
    match forecast.then:
        case Submit(provider=provider):
            return f"Due now: it goes to {provider} as soon as a worker takes it."
        case CancelAtProvider(provider=provider):
            return f"Due now: {provider} is asked to cancel it{_after_cancel(forecast)}."
        case Finish(status=status, reason=reason):
            return f"Due now: {_ends(status, reason)}."
        case _:
            return "Due now: a worker decides what follows."


def _for_receipt(last: StoredAttempt | None) -> str:
    if last is None:
        return "Waiting for a receipt."
    if last.status is AttemptStatus.UNKNOWN:
        return f"Unknown outcome: {last.provider} did not answer, so it may have been sent."
    return f"Waiting for a receipt from {last.provider}."


def _requests(known: Known) -> Iterator[str]:
    for attempt in known.attempts:
        polls = known.polls.get(attempt.number, 0)
        if polls:
            times = "once" if polls == 1 else f"{polls} times"
            yield f"The gateway has requested its state from {attempt.provider} {times}."


def _outage(known: Known, forecast: Forecast) -> Iterator[str]:
    down = [option for option in known.options if not option.up]
    names = listed([option.provider for option in down])
    are = "is" if len(down) == 1 else "are"
    wanted = "a provider of its route"
    if known.message.only_provider is not None:
        wanted = "the provider that it tests"
    yield f"Waiting for {wanted}: {names} {are} down."
    for option in down:
        since = f" since {at_time(option.down_since)}" if option.down_since else ""
        why = known.errors.get(option.provider)
        yield f"{option.provider} is down{since}" + (f": {why}." if why else ".")
    yield f"It is submitted as soon as one is up. {_then(forecast)}"


def _then(forecast: Forecast) -> str:
    """What happens if nothing else does."""
    at = at_time(forecast.at)
    match forecast.then:
        case Submit(provider=provider, number=number, resume=resume):
            what = "the missing parts go" if resume else "it goes"
            return f"At {at} {what} to {provider} (attempt {number}), as the providers are now."
        case CancelAtProvider(provider=provider):
            after = _after_cancel(forecast)
            return f"If nothing comes by {at}, {provider} is asked to cancel it{after}."
        case Finish(status=status, reason=reason):
            return f"If nothing changes by {at}, {_ends(status, reason)}."
        case MarkAttempt():
            return f"If no response comes by {at}, its outcome is unknown."
        case ReportMissingReceipt(until=until):
            return (
                f"If no receipt comes by {at}, its listener is notified, and the receipt is waited for "
                f"until {at_time(until)}."
            )
        case None:
            return f"Nothing else is to happen before {at}."


def _after_cancel(forecast: Forecast) -> str:
    """What follows when the provider has been asked to cancel a message."""
    after = forecast.after_cancel
    match after.then if after is not None else None:
        case Submit(provider=provider, number=number):
            return f", and then it goes to {provider} (attempt {number})"
        case Finish(status=MessageStatus.CANCELED):
            return "; if it does, the message is cancelled"
        case Finish(status=status, reason=reason):
            return f", and then {_ends(status, reason)}"
        case _:
            return ""


def _ends(status: MessageStatus, reason: str) -> str:
    return _ENDS[status] + because(status, reason)


_PLAIN: Final[Mapping[str, str]] = {
    Reason.DELIVERED: "delivered",
    Reason.NO_RECEIPTS: "the provider gives no receipts",
    Reason.NO_RECEIPT: "no receipt came",
    Reason.OUTCOME_UNKNOWN: "nobody knows whether it was sent",
    Reason.VALIDITY_OVER: "its validity is over",
    Reason.CANCELED: "it was cancelled",
    Reason.NO_ROUTE: "no route takes it",
    Reason.NO_PROVIDER_UP: "no provider was up",
    Reason.ATTEMPTS_EXHAUSTED: "every provider was tried as often as allowed",
    ErrorClass.ROUTE: "every provider refused it",
    ErrorClass.UNDELIVERED: "the recipient did not get it",
    ErrorClass.INVALID_RECIPIENT: "the recipient's number is invalid",
    ErrorClass.INVALID_MESSAGE: "the message is invalid",
    ErrorClass.BLOCKED: "the recipient is blocked",
    ErrorClass.OPTED_OUT: "the recipient has opted out",
    ErrorClass.LANDLINE: "the number cannot receive texts",
    ErrorClass.UNREGISTERED_SENDER: "the sender is not registered with the provider",
    ErrorClass.CONTENT_FILTERED: "a filter of the provider blocked the text",
    ErrorClass.ACCOUNT: "the account at the provider cannot send",
    ErrorClass.THROTTLED: "the provider took no more messages",
    ErrorClass.QUEUE_FULL: "a queue of the provider was full",
    ErrorClass.TEMPORARY: "the provider had a temporary error",
    ErrorClass.SESSION: "the provider refused the session",
    ErrorClass.UNREACHABLE: "the provider could not be reached",
    ErrorClass.UNKNOWN: "nobody knows whether it was sent",
}


def plain(reason: str) -> str:
    """A reason in words."""
    return _PLAIN.get(reason, reason.replace("_", " "))


def _says_no_more(status: MessageStatus, reason: str) -> bool:
    """Whether a reason says no more than the status."""
    return reason == status.value


def because(status: MessageStatus, reason: str | None) -> str:
    """The reason in words, in brackets; nothing where the status says it."""
    return f" ({plain(reason)})" if reason and not _says_no_more(status, reason) else ""


def choice(known: Known) -> Iterator[str]:
    """Why the last attempt went to its provider and not to another one, or why there was none.

    In the past tense, with the number of the attempt: the next one may go to another provider.
    """
    ends = [e for e in known.events if e.kind == "decided" and e.reason in _FOR_WANT_OF_PROVIDERS]
    if ends and known.message.status in FINAL_STATUSES:
        yield from _down_at_the_end(ends[-1])
        return
    decided = [e for e in known.events if e.kind == "decided" and e.reason in {"submit", "resume"}]
    if not decided or decided[-1].provider is None:
        return
    last = decided[-1]
    if "only_provider" in last.detail:
        yield f"It tests {last.provider}, which was given with it: no route was looked up."
        return
    ranking = last.detail.get("ranking", [])
    others = [each for each in ranking if each.get("provider") != last.provider]
    said = [text for each in others if (text := standing(each))]
    named = {each.get("provider") for each in ranking}
    excluded = [name for name in known.declared if name not in named]
    route = last.detail.get("route")
    if excluded and route is not None:
        said.append(f"{listed(excluded)} {'is' if len(excluded) == 1 else 'are'} not on its route")
    if others and (ended := _no_failover(known)):
        yield ended
        return
    which = "it" if last.attempt is None else f"attempt {last.attempt}"
    at = "" if route is None else f" (routes[{route}])"
    if said:
        yield f"Why {last.provider} had {which}{at}: {'; '.join(said)}."
    elif ranking:
        yield f"Why {last.provider} had {which}{at}: the route had no other provider."


def _no_failover(known: Known) -> str | None:
    """Why a message ended with its only provider, although its route has others."""
    message, policy = known.message, known.policy
    if len({attempt.provider for attempt in known.attempts}) > 1:
        return None
    if message.reason in _SAME_EVERYWHERE and message.status is MessageStatus.FAILED:
        return "No other provider was tried, since each would refuse it."
    mode = f"in the mode {message.mode} no other provider is tried"
    if policy is None:
        return None
    if message.reason == ErrorClass.UNDELIVERED and not policy.must_arrive:
        return f"After a receipt that says so, {mode}."
    if (
        message.reason == Reason.NO_RECEIPT
        and policy.missing_receipt is not MissingReceiptPolicy.NEXT_ROUTE
    ):
        return f"Without a receipt, {mode}."
    return None


_SAME_EVERYWHERE: Final = frozenset(
    error for error, rule in RETRIES.items() if rule.failover is Failover.NEVER
)
_FOR_WANT_OF_PROVIDERS: Final = frozenset({Reason.NO_PROVIDER_UP.value, Reason.VALIDITY_OVER.value})


def _down_at_the_end(end: Event) -> Iterator[str]:
    """The providers of the route that were down when a message ended without one."""
    for each in end.detail.get("ranking", []):
        if not each.get("up", True):
            yield f"{standing({**each, 'standing': Standing.DOWN})}."


_STANDINGS: Final[Mapping[str, str]] = {
    Standing.LOWER: "{provider} came later in the order",
    Standing.EXHAUSTED: "{provider} had failed before",
    Standing.BACKOFF: "{provider} had failed a short time before",
    Standing.TRIED: "{provider} had been tried before",
}


def standing(ranked: Mapping[str, Any]) -> str | None:
    provider, standing = ranked.get("provider"), ranked.get("standing")
    if standing == Standing.DOWN:
        since = ranked.get("down_since")
        return f"{provider} was down" + (
            f" since {at_time(datetime.fromisoformat(since))}" if since else ""
        )
    text = _STANDINGS.get(standing or "")
    return text.format(provider=provider) if text else None


def remarks(known: Known) -> Iterator[str]:
    message = known.message
    if message.cancel_requested_at is not None and message.status is not MessageStatus.CANCELED:
        yield f"Its cancellation was requested at {at_time(message.cancel_requested_at)}."
    if replays := sum(event.kind == "replayed" for event in known.events):
        yield f"Replayed {counted(replays, 'time')} from the dead letters."
    if any(event.kind == "duplicate" for event in known.events):
        yield "Two attempts were delivered: the recipient got it twice."
    for attempt in known.attempts:
        billed = known.billed.get(attempt.number, Billed())
        if billed != Billed():
            yield _about_bill(attempt, billed)
    if message.bulk_id is not None:
        yield _BATCHED if message.position is not None else _GROUPED


_BATCHED: Final = "It is one of a batch, whose messages share a workflow."
_GROUPED: Final = (
    "It came faster than workflows are started for single messages, and shares one with those that "
    "came at the same moment."
)


def _about_bill(attempt: StoredAttempt, billed: Billed) -> str:
    segments = None if billed.segments is None else counted(billed.segments, "segment")
    reported = [segments, None if billed.price is None else str(billed.price)]
    bill = " for ".join(each for each in reported if each is not None)
    return f"Attempt {attempt.number} by {attempt.provider} is billed as {bill}."


def acceptance(message: AccountMessage) -> str:
    return (
        f"Accepted at {at_time(message.accepted_at)} as {message.mode}, priority "
        f"{message.priority}, {counted(message.segments, 'segment')} in "
        f"{message.encoding}, to {message.country}, valid until {at_time(message.valid_until)}."
    )

"""The steps of a message, from its events: equal ones in a row as one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from domain.delivery import Standing
from domain.provider_codes import CodeMeaning
from domain.receipts import ReceiptState
from domain.states import AttemptStatus, MessageStatus
from services.explanation.codes import receipt_code, response_code
from services.explanation.failures import FAILURES, RECEIPTS, coded
from services.explanation.known import FINAL_STATUSES, Known, Step, StepKind
from services.explanation.summary import because, ending, standing
from services.explanation.words import at_time, listed
from store.attempts import StoredAttempt
from store.events import Event


def steps_of(known: Known) -> Sequence[Step]:
    """Each step of a message by its time; those of one moment in the order of their events.

    An event can be written after one that happened later: a receipt can come before the response to the
    submit is stored.
    """
    return sorted(_as_written(known), key=lambda step: step.at)


def _as_written(known: Known) -> Iterator[Step]:
    """Each step of a message, in the order of its events."""
    attempts = {attempt.number: attempt for attempt in known.attempts}
    begun: Event | None = None
    decided: Event | None = None
    reported: set[int | None] = {None}
    for event in known.events:
        if event.kind == "decided":
            decided = event
        if event.kind != "moved":
            yield from _other_step(known, event)
            continue
        if event.status == MessageStatus.SENDING:
            begun = event
            continue
        is_outcome = event.previous is MessageStatus.SENDING or event.attempt not in reported
        if is_outcome:
            at = begun.at if begun is not None else _submitted_at(event, decided)
            reported.add(event.attempt)
            yield from _attempt_step(known, at, event, attempts, decided)
            begun = None
        yield from _moved_step(known, event, attempts, is_outcome=is_outcome)
    if begun is not None:
        yield Step(
            begun.at,
            StepKind.ATTEMPT,
            f"Attempt {begun.attempt}: submitted to {begun.provider}, no response yet.",
            provider=begun.provider,
            attempt=begun.attempt,
        )


def _submitted_at(outcome: Event, decided: Event | None) -> datetime:
    """When an attempt was submitted whose beginning is no event of its own."""
    is_its = decided is not None and decided.attempt == outcome.attempt is not None
    return decided.at if decided is not None and is_its else outcome.at


_OUTCOMES: Final[Mapping[str, str]] = {
    MessageStatus.SENT: "{provider} accepted it",
    MessageStatus.DELIVERED: "{provider} accepted it",
    MessageStatus.UNKNOWN: "{provider} did not answer: it may have been sent",
}


def _attempt_step(
    known: Known,
    at: datetime,
    outcome: Event,
    attempts: Mapping[int, StoredAttempt],
    decided: Event | None,
) -> Iterator[Step]:
    """An attempt and its response."""
    number, provider = outcome.attempt, outcome.provider
    row = attempts.get(number or 0)
    meaning: CodeMeaning | None = None
    code: str | None = None
    text = _OUTCOMES.get(outcome.status or "")
    if text is None:
        code = outcome.code or (row.code if row is not None else None) or None
        status = row.status if row is not None else AttemptStatus.REFUSED
        if status not in _NOT_TAKEN:  # it was resumed since
            status = AttemptStatus.PARTIAL
        meaning = response_code(known, provider, code or "")
        text = FAILURES[status] + coded(code, meaning).replace("{", "{{").replace("}", "}}")
    before = _passed_over(decided)
    text = text.format(provider=provider) + (f"; {before}" if before else "")
    yield Step(
        at,
        StepKind.ATTEMPT,
        f"Attempt {number}: {text}.",
        provider=provider,
        attempt=number,
        code=code,
        code_name=meaning.name or None if meaning else None,
        meaning=meaning.meaning if meaning else None,
    )


_NOT_TAKEN: Final = frozenset(
    {
        AttemptStatus.REFUSED,
        AttemptStatus.THROTTLED,
        AttemptStatus.UNREACHABLE,
        AttemptStatus.PARTIAL,
    }
)


def _passed_over(decided: Event | None) -> str | None:
    """The providers before the chosen one that were down."""
    if decided is None or decided.reason != "submit":
        return None
    ranking = decided.detail.get("ranking", [])
    down = []
    for each in ranking:
        if each.get("provider") == decided.provider:
            break
        if each.get("standing") == Standing.DOWN:
            down.append(standing(each))
    return "; ".join(filter(None, down)) or None


def _moved_step(
    known: Known, event: Event, attempts: Mapping[int, StoredAttempt], *, is_outcome: bool
) -> Iterator[Step]:
    """What a change of the status means, beyond the response to an attempt."""
    row = attempts.get(event.attempt or 0)
    if event.status in FINAL_STATUSES:
        yield Step(event.at, StepKind.ENDED, _ended(known, event), provider=event.provider)
    elif is_outcome or row is None:
        if event.previous is MessageStatus.SCHEDULED:
            yield Step(event.at, StepKind.DUE, "Its scheduled time has come.")
    elif event.status == MessageStatus.RETRIED and row.status is AttemptStatus.EXPIRED:
        yield Step(
            event.at,
            StepKind.NO_RECEIPT,
            f"No receipt came from {event.provider} in time.",
            provider=event.provider,
            attempt=event.attempt,
        )
    elif event.previous is MessageStatus.UNKNOWN and event.status == MessageStatus.SENT:
        yield Step(
            event.at,
            StepKind.RESOLVED,
            f"{event.provider} has it: a late response or a receipt says so.",
            provider=event.provider,
            attempt=event.attempt,
        )


def _ended(known: Known, event: Event) -> str:
    if event.status == MessageStatus.DELIVERED:
        return "Delivered."
    if event.status == known.message.status:
        return ending(known)
    status = MessageStatus(event.status or "")
    return f"Ended as {_ENDED.get(status, status.value)}{because(status, event.reason)}."


_ENDED: Final[Mapping[MessageStatus, str]] = {
    MessageStatus.DEAD_LETTER: "a dead letter",
    MessageStatus.CANCELED: "cancelled",
}


_SENTENCES: Final[Mapping[str, tuple[StepKind, str]]] = {
    "accepted": (StepKind.ACCEPTED, "Accepted."),
    "cancel_requested": (StepKind.CANCEL, "Cancellation requested by {actor}."),
    "replayed": (StepKind.REPLAYED, "Replayed by {actor}."),
    "promoted": (StepKind.RUNNER, "It has a workflow of its own from here on."),
    "taken_over": (StepKind.RUNNER, "The reconciler restarted its workflow."),
    "duplicate": (StepKind.DUPLICATE, "Delivered a second time, by {provider}."),
}


def _other_step(known: Known, event: Event) -> Iterator[Step]:
    """What an event means that is no change of the status."""
    provider = event.provider
    match event.kind:
        case "decided":
            if event.reason == "cancel_at_provider":
                text = f"{provider} is asked to cancel it."
                yield Step(event.at, StepKind.CANCEL, text, provider=provider)
        case "receipt":
            yield _receipt_step(known, event)
        case "cancelled_at_provider":
            did = "cancelled it" if event.reason == "cancelled_at_provider" else "did not cancel it"
            yield Step(event.at, StepKind.CANCEL, f"{provider} {did}.", provider=provider)
        case name:
            kind, text = _SENTENCES.get(
                name, (StepKind.OTHER, f"{name.replace('_', ' ').capitalize()}.")
            )
            text = text.format(actor=event.actor, provider=provider or "a provider")
            yield Step(event.at, kind, text, provider=provider)


_STATES: Final[Mapping[str, str]] = {
    ReceiptState.ENROUTE: "on its way",
    ReceiptState.EXPIRED: "not delivered in time",
    ReceiptState.UNKNOWN: "state not known",
}


def _receipt_step(known: Known, event: Event) -> Step:
    meaning = (
        receipt_code(known, event.provider, event.code or "") if event.status in RECEIPTS else None
    )
    return Step(
        event.at,
        StepKind.RECEIPT,
        f"Receipt from {event.provider}: {_STATES.get(event.status or '', event.status)}"
        f"{coded(event.code, meaning)}.",
        provider=event.provider,
        attempt=event.attempt,
        code=event.code,
        meaning=meaning.meaning if meaning else None,
    )


def folded(steps: Iterable[Step]) -> Iterator[Step]:
    """Equal steps in a row as one, with their number and the time of the last one."""
    group: list[Step] = []
    for step in steps:
        if group and _alike(group[-1], step):
            group.append(step)
            continue
        if group:
            yield _as_one(group)
        group = [step]
    if group:
        yield _as_one(group)


def _alike(one: Step, other: Step) -> bool:
    if (one.kind, one.code) != (other.kind, other.code):
        return False
    is_failure = one.kind is StepKind.ATTEMPT and one.code is not None
    return (is_failure or one.provider == other.provider) and _pattern(one) == _pattern(other)


def _pattern(step: Step) -> str:
    """The text without what may differ: the number of an attempt, and its provider."""
    if step.kind is not StepKind.ATTEMPT or step.provider is None:
        return step.text
    return _said(step).replace(step.provider, "{provider}")


def _said(step: Step) -> str:
    return step.text.partition(": ")[2]


def _as_one(group: Sequence[Step]) -> Step:
    first, last = group[0], group[-1]
    if len(group) == 1:
        return first
    providers = list(dict.fromkeys(step.provider for step in group if step.provider is not None))
    text = first.text
    if first.kind is StepKind.ATTEMPT and first.attempt != last.attempt:
        said = _said(first).replace(first.provider or "", _whose(group, providers))
        text = f"Attempts {first.attempt} to {last.attempt}: {said}"
    text = f"{text} {len(group)} times, until {at_time(last.at)}."
    return replace(
        first,
        text=text,
        count=len(group),
        until=last.at,
        provider=", ".join(providers) if providers else None,
    )


def _whose(group: Sequence[Step], providers: Sequence[str]) -> str:
    """The providers, and which attempts each one had if they are several."""
    if len(providers) == 1:
        return providers[0]
    had: dict[str, list[int]] = {}
    for step in group:
        if step.provider is not None and step.attempt is not None:
            had.setdefault(step.provider, []).append(step.attempt)
    return listed([f"{name} ({_numbers(numbers)})" for name, numbers in had.items()])


_MOST_NUMBERS: Final = 3


def _numbers(attempts: Sequence[int]) -> str:
    """`1, 2`, or `1, 3, … 9` where the pattern of many is clear."""
    gaps = {later - earlier for earlier, later in pairwise(attempts)}
    if len(attempts) <= _MOST_NUMBERS or len(gaps) > 1:
        return ", ".join(map(str, attempts))
    first, second, *_, last = attempts
    return f"{first} to {last}" if gaps == {1} else f"{first}, {second}, … {last}"

"""The delivery rules, as situations and as properties."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.delivery import (
    AttemptFacts,
    Declare,
    Finish,
    MessageFacts,
    Reason,
    Recall,
    RouteOption,
    Submit,
    Wait,
    WaitFor,
    decide,
)
from domain.errors import RETRIES, ErrorClass
from domain.modes import MODE_POLICIES, Mode
from domain.states import AttemptStatus, MessageStatus, Verdict

NOW = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
ALERT = MODE_POLICIES[Mode.ALERT]
PLAIN = MODE_POLICIES[Mode.TRANSACTIONAL]
PROMO = MODE_POLICIES[Mode.PROMOTIONAL]
PRIMARY = RouteOption("primary", up=True, recalls=True)
BACKUP = RouteOption("backup", up=True, recalls=True)
BOTH = (PRIMARY, BACKUP)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def message(*attempts: AttemptFacts, **changes) -> MessageFacts:
    facts = MessageFacts(
        first_attempt=1,
        verdict=None,
        reason=None,
        since=NOW,
        valid_until=NOW + timedelta(hours=1),
        scheduled_at=None,
        cancel_requested=False,
        attempts=attempts,
    )
    return replace(facts, **changes)


def attempt(
    status: AttemptStatus,
    error: ErrorClass | None = None,
    *,
    provider: str = "primary",
    number: int = 1,
    **changes,
) -> AttemptFacts:
    facts = AttemptFacts(
        number=number,
        provider=provider,
        status=status,
        answer_by=NOW + seconds(14),
        settled_at=NOW,
        receipt_by=NOW + timedelta(minutes=30),
        error_class=error,
    )
    return replace(facts, **changes)


def test_a_fresh_message_goes_to_the_first_provider_of_its_route():
    assert decide(message(), BOTH, PLAIN, NOW) == Submit("primary", 1)


def test_a_provider_without_a_living_worker_is_passed_over():
    down = replace(PRIMARY, up=False)
    assert decide(message(), (down, BACKUP), PLAIN, NOW) == Submit("backup", 1)


def test_a_scheduled_message_waits_for_its_time():
    later = NOW + timedelta(minutes=10)
    decision = decide(message(scheduled_at=later), BOTH, PLAIN, NOW)
    assert decision == Wait(later, WaitFor.SCHEDULE)


def test_an_accepted_message_waits_for_its_receipt():
    sent = attempt(AttemptStatus.ACCEPTED)
    assert decide(message(sent), BOTH, PLAIN, NOW) == Wait(sent.receipt_by, WaitFor.RECEIPT)


def test_a_provider_without_receipts_ends_its_messages_at_sent():
    silent = replace(PRIMARY, receipts=False)
    decision = decide(message(attempt(AttemptStatus.ACCEPTED)), (silent,), PLAIN, NOW)
    assert decision == Finish(MessageStatus.SENT, Reason.NO_RECEIPTS)


def test_a_refusal_that_another_carrier_need_not_share_goes_to_the_backup():
    refused = attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE)
    assert decide(message(refused), BOTH, PLAIN, NOW) == Submit("backup", 2)


@pytest.mark.parametrize(
    "error", [ErrorClass.INVALID_RECIPIENT, ErrorClass.INVALID_MESSAGE, ErrorClass.BLOCKED]
)
def test_a_refusal_that_every_carrier_would_share_fails_the_message(error):
    refused = attempt(AttemptStatus.REFUSED, error)
    assert decide(message(refused), BOTH, ALERT, NOW) == Finish(MessageStatus.FAILED, error.value)


def test_when_every_carrier_refused_the_message_fails():
    refusals = [
        attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE),
        attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE, provider="backup", number=2),
    ]
    decision = decide(message(*refusals), BOTH, PLAIN, NOW)
    assert decision == Finish(MessageStatus.FAILED, "route")


def test_a_throttled_message_stays_with_its_provider_for_a_while():
    throttled = attempt(AttemptStatus.THROTTLED, ErrorClass.THROTTLED)
    wait = decide(message(throttled), BOTH, PLAIN, NOW)
    assert wait == Wait(NOW + seconds(1), WaitFor.BACKOFF)
    assert decide(message(throttled), BOTH, PLAIN, NOW + seconds(1)) == Submit("primary", 2)


def test_a_throttled_alert_does_not_wait_but_takes_the_next_route():
    throttled = attempt(AttemptStatus.THROTTLED, ErrorClass.THROTTLED)
    assert decide(message(throttled), BOTH, ALERT, NOW) == Submit("backup", 2)


def test_the_wait_that_a_provider_asks_for_is_kept():
    throttled = attempt(AttemptStatus.THROTTLED, ErrorClass.THROTTLED, retry_after=seconds(7))
    assert decide(message(throttled), BOTH, PLAIN, NOW) == Wait(NOW + seconds(7), WaitFor.BACKOFF)


def test_waits_for_the_same_provider_grow():
    rule = RETRIES[ErrorClass.THROTTLED]
    assert [rule.pause(tried) for tried in (1, 2, 3, 20)] == [
        seconds(1),
        seconds(2),
        seconds(4),
        seconds(30),
    ]


def test_an_unanswered_submit_becomes_unknown_only_after_its_time():
    flying = attempt(AttemptStatus.SUBMITTING)
    assert decide(message(flying), BOTH, PLAIN, NOW) == Wait(flying.answer_by, WaitFor.ANSWER)
    decision = decide(message(flying), BOTH, PLAIN, flying.answer_by)
    assert decision == Declare(1, AttemptStatus.UNKNOWN)


def test_an_alert_in_doubt_is_sent_again():
    doubtful = attempt(AttemptStatus.UNKNOWN, ErrorClass.UNKNOWN)
    assert isinstance(decide(message(doubtful), BOTH, ALERT, NOW), Submit)


def test_a_plain_message_in_doubt_waits_for_a_receipt_and_then_is_a_dead_letter():
    doubtful = attempt(AttemptStatus.UNKNOWN, ErrorClass.UNKNOWN)
    case = message(doubtful)
    assert decide(case, BOTH, PLAIN, NOW) == Wait(doubtful.receipt_by, WaitFor.RECEIPT)
    decision = decide(case, BOTH, PLAIN, doubtful.receipt_by)
    assert decision == Finish(MessageStatus.DEAD_LETTER, Reason.OUTCOME_UNKNOWN)


def test_a_promotion_in_doubt_is_never_sent_again():
    doubtful = attempt(AttemptStatus.UNKNOWN, ErrorClass.UNKNOWN)
    decision = decide(message(doubtful), BOTH, PROMO, doubtful.receipt_by)
    assert decision == Finish(MessageStatus.EXPIRED, Reason.OUTCOME_UNKNOWN)


def test_an_alert_without_receipt_is_recalled_given_up_and_sent_by_the_next_route():
    sent = attempt(AttemptStatus.ACCEPTED, receipt_by=NOW)
    assert decide(message(sent), BOTH, ALERT, NOW) == Recall("primary", 1)
    asked = replace(sent, recalled=True)
    assert decide(message(asked), BOTH, ALERT, NOW) == Declare(1, AttemptStatus.EXPIRED)
    given_up = replace(asked, status=AttemptStatus.EXPIRED)
    assert decide(message(given_up), BOTH, ALERT, NOW) == Submit("backup", 2)


def test_a_plain_message_without_receipt_expires():
    given_up = attempt(AttemptStatus.EXPIRED)
    decision = decide(message(given_up), BOTH, PLAIN, NOW)
    assert decision == Finish(MessageStatus.EXPIRED, Reason.NO_RECEIPT)


def test_an_undelivered_alert_takes_the_next_route_and_a_plain_message_fails():
    undelivered = message(attempt(AttemptStatus.UNDELIVERED, ErrorClass.UNDELIVERED))
    assert decide(undelivered, BOTH, ALERT, NOW) == Submit("backup", 2)
    assert decide(undelivered, BOTH, PLAIN, NOW) == Finish(MessageStatus.FAILED, "undelivered")


def test_the_missing_parts_of_a_message_go_to_the_provider_that_has_the_others():
    partial = attempt(AttemptStatus.PARTIAL, ErrorClass.THROTTLED)
    later = NOW + seconds(1)
    assert decide(message(partial), BOTH, PLAIN, later) == Submit("primary", 1, resume=True)


def test_with_every_provider_down_a_message_waits_and_then_is_a_dead_letter():
    down = tuple(replace(option, up=False) for option in BOTH)
    first = decide(message(), down, PLAIN, NOW)
    assert isinstance(first, Wait)
    assert first.why is WaitFor.PROVIDER
    decision = decide(message(), down, PLAIN, NOW + PLAIN.outage_patience)
    assert decision == Finish(MessageStatus.DEAD_LETTER, Reason.NO_PROVIDER_UP)


def test_without_a_route_a_message_is_a_dead_letter_at_once():
    assert decide(message(), (), PLAIN, NOW) == Finish(MessageStatus.DEAD_LETTER, Reason.NO_ROUTE)


def test_a_message_that_no_provider_has_expires_with_its_validity():
    case = message()
    decision = decide(case, BOTH, PLAIN, case.valid_until)
    assert decision == Finish(MessageStatus.EXPIRED, Reason.VALIDITY_OVER)


def test_a_cancelled_message_is_not_submitted():
    case = message(cancel_requested=True)
    assert decide(case, BOTH, PLAIN, NOW) == Finish(MessageStatus.CANCELED, Reason.CANCELED)


def test_a_cancelled_message_that_a_provider_has_is_recalled():
    sent = attempt(AttemptStatus.ACCEPTED)
    case = message(sent, cancel_requested=True)
    assert decide(case, BOTH, PLAIN, NOW) == Recall("primary", 1)
    forgotten = message(replace(sent, recalled=True), cancel_requested=True)
    assert decide(forgotten, BOTH, PLAIN, NOW) == Finish(MessageStatus.CANCELED, Reason.CANCELED)
    kept = message(replace(sent, recalled=False), cancel_requested=True)
    assert decide(kept, BOTH, PLAIN, NOW) == Wait(sent.receipt_by, WaitFor.RECEIPT)


def test_attempts_before_a_replay_do_not_count():
    history = [
        attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE),
        attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE, provider="backup", number=2),
    ]
    assert decide(message(*history, first_attempt=3), BOTH, PLAIN, NOW) == Submit("primary", 3)


moments = st.integers(-600, 90_000).map(lambda s: NOW + seconds(s))
attempts = st.builds(
    AttemptFacts,
    number=st.just(1),
    provider=st.sampled_from(["primary", "backup", "removed"]),
    status=st.sampled_from(AttemptStatus),
    answer_by=moments,
    settled_at=moments,
    receipt_by=moments,
    error_class=st.none() | st.sampled_from(ErrorClass),
    recalled=st.none() | st.booleans(),
    retry_after=st.none() | st.integers(0, 600).map(seconds),
    tries=st.integers(1, 12),
)
cases = st.builds(
    MessageFacts,
    first_attempt=st.integers(1, 3),
    verdict=st.none() | st.sampled_from(Verdict),
    reason=st.none(),
    since=moments,
    valid_until=moments,
    scheduled_at=st.none() | moments,
    cancel_requested=st.booleans(),
    attempts=st.lists(attempts, max_size=4).map(
        lambda found: tuple(replace(a, number=n) for n, a in enumerate(found, start=1))
    ),
)
routes = st.lists(
    st.builds(
        RouteOption,
        provider=st.sampled_from(["primary", "backup"]),
        up=st.booleans(),
        receipts=st.booleans(),
        recalls=st.booleans(),
    ),
    max_size=2,
    unique_by=lambda option: option.provider,
)
policies = st.sampled_from(sorted(MODE_POLICIES)).map(MODE_POLICIES.__getitem__)


@settings(max_examples=400, deadline=None)
@given(case=cases, options=routes, policy=policies, now=moments)
def test_there_is_a_decision_for_every_history_and_it_moves_on(case, options, policy, now):
    decision = decide(case, options, policy, now)
    match decision:
        case Wait(until=until):
            assert until > now
        case Submit(provider=provider, number=number, resume=resume):
            known = {option.provider: option for option in options}
            assert known[provider].up
            assert not case.cancel_requested
            assert now < case.valid_until
            assert (number in {a.number for a in case.attempts}) == resume
        case Declare(number=number):
            assert number == max(a.number for a in case.attempts)
        case Recall(provider=provider):
            assert provider in {option.provider for option in options}
        case Finish(status=status):
            assert status not in {MessageStatus.QUEUED, MessageStatus.SENDING}


OUTCOMES = {
    AttemptStatus.ACCEPTED: None,
    AttemptStatus.REFUSED: ErrorClass.ROUTE,
    AttemptStatus.THROTTLED: ErrorClass.THROTTLED,
    AttemptStatus.UNREACHABLE: ErrorClass.UNREACHABLE,
    AttemptStatus.UNKNOWN: ErrorClass.UNKNOWN,
    AttemptStatus.PARTIAL: ErrorClass.TEMPORARY,
    AttemptStatus.UNDELIVERED: ErrorClass.UNDELIVERED,
    AttemptStatus.SUBMITTING: None,
}


@settings(max_examples=150, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=12),
    policy=policies,
    ups=st.lists(st.booleans(), min_size=2, max_size=2),
)
def test_following_the_decisions_always_comes_to_an_end(outcomes, policy, ups):
    now, case = NOW, message(valid_until=NOW + policy.validity)
    options = [replace(option, up=up) for option, up in zip(BOTH, ups, strict=True)]
    for turn in range(3000):
        decision = decide(case, options, policy, now)
        match decision:
            case Finish():
                return
            case Wait(until=until):
                now = until
            case Submit(provider=provider, number=number, resume=resume):
                status = outcomes[turn % len(outcomes)]
                tries = case.attempts[-1].tries + 1 if resume else 1
                made = attempt(
                    status,
                    OUTCOMES[status],
                    provider=provider,
                    number=number,
                    answer_by=now + seconds(14),
                    settled_at=now,
                    receipt_by=now + timedelta(minutes=30),
                    tries=tries,
                )
                before = case.attempts[:-1] if resume else case.attempts
                case = replace(case, attempts=(*before, made))
            case Declare(status=status):
                last = replace(case.attempts[-1], status=status, settled_at=now)
                case = replace(case, attempts=(*case.attempts[:-1], last))
            case Recall():
                last = replace(case.attempts[-1], recalled=turn % 2 == 0)
                case = replace(case, attempts=(*case.attempts[:-1], last))
    pytest.fail("the message never ended")

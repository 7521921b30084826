"""The delivery rules, as situations and as properties."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.delivery import (
    AttemptFacts,
    CancelAtProvider,
    Finish,
    MarkAttempt,
    MessageFacts,
    Reason,
    ReportMissingReceipt,
    RouteOption,
    Submit,
    Wait,
    WaitFor,
    decide,
)
from domain.error_classes import RETRIES, ErrorClass, Failover
from domain.modes import MODE_POLICIES, MissingReceiptPolicy, Mode
from domain.states import AttemptStatus, MessageStatus, Verdict

NOW = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
ALERT = MODE_POLICIES[Mode.ALERT]
PLAIN = MODE_POLICIES[Mode.TRANSACTIONAL]
PROMO = MODE_POLICIES[Mode.PROMOTIONAL]
PRIMARY = RouteOption("primary", up=True, cancels=True)
BACKUP = RouteOption("backup", up=True, cancels=True)
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
        started_at=NOW,
        response_by=NOW + seconds(14),
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
    "error", [error for error, rule in RETRIES.items() if rule.failover is Failover.NEVER]
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
        seconds(60),
    ]


class Simulation:
    """One message whose providers answer as `statuses` says; time passes only while it waits."""

    def __init__(self, policy, validity, response, options=BOTH):
        self.policy, self.response, self.options = policy, response, options
        self.now = NOW
        self.case = message(valid_until=NOW + validity)

    def run(self) -> Finish | None:
        """Follow the decisions until a provider accepts (None) or the message ends."""
        while True:
            decision = decide(self.case, self.options, self.policy, self.now)
            match decision:
                case Finish():
                    return decision
                case Wait(until=until):
                    assert until > self.now
                    self.now = until
                case Submit(provider=provider, number=number, resume=resume):
                    status, error = self.response(provider, self.now - NOW)
                    before = self.case.attempts[:-1] if resume else self.case.attempts
                    tries = self.case.attempts[-1].tries + 1 if resume else 1
                    made = attempt(
                        status,
                        error,
                        provider=provider,
                        number=number,
                        started_at=self.case.attempts[-1].started_at if resume else self.now,
                        settled_at=self.now,
                        tries=tries,
                    )
                    self.case = replace(self.case, attempts=(*before, made))
                    if status is AttemptStatus.ACCEPTED:
                        return None
                case _:
                    pytest.fail(f"unexpected: {decision}")

    @property
    def providers(self) -> list[str]:
        return [made.provider for made in self.case.attempts]


WAITING = [error for error, rule in RETRIES.items() if rule.waits]


def asks_to_wait(error, *, until=timedelta.max, only=("primary", "backup"), status=None):
    """Responses of providers of which some ask to wait for so long, and then accept."""
    status = status or AttemptStatus.THROTTLED

    def response(provider, elapsed):
        waits = provider in only and elapsed < until
        return (status, error) if waits else (AttemptStatus.ACCEPTED, None)

    return response


@pytest.mark.parametrize("error", WAITING)
@pytest.mark.parametrize("minutes", [3, 20, 300])
def test_a_message_outlasts_a_provider_that_asks_to_wait(error, minutes):
    wait = timedelta(minutes=minutes)
    sending = Simulation(PLAIN, timedelta(hours=24), asks_to_wait(error, until=wait), (PRIMARY,))
    assert sending.run() is None
    assert wait <= sending.now - NOW <= wait + RETRIES[error].max_delay


@pytest.mark.parametrize("error", WAITING)
@pytest.mark.parametrize("status", [AttemptStatus.THROTTLED, AttemptStatus.PARTIAL])
@pytest.mark.parametrize("mode", sorted(Mode))
@pytest.mark.parametrize("options", [(PRIMARY,), BOTH])
def test_only_the_validity_ends_a_wait_and_the_attempts_of_a_day_are_bounded(
    error, status, mode, options
):
    policy = MODE_POLICIES[mode]
    validity = min(policy.validity, timedelta(hours=4))
    sending = Simulation(policy, validity, asks_to_wait(error, status=status), options)
    assert sending.run() == Finish(MessageStatus.EXPIRED, Reason.VALIDITY_OVER)
    assert sending.now == NOW + validity
    tries = sum(made.tries for made in sending.case.attempts)
    assert tries <= len(options) * (10 + validity / RETRIES[error].max_delay)


@pytest.mark.parametrize("error", WAITING)
@pytest.mark.parametrize("mode", [Mode.ALERT, Mode.VERIFICATION])
def test_a_message_that_must_arrive_does_not_wait_while_another_provider_is_up(error, mode):
    policy = MODE_POLICIES[mode]
    sending = Simulation(policy, policy.validity, asks_to_wait(error, only=("primary",)))
    assert sending.run() is None
    assert sending.providers == ["primary", "backup"]
    assert sending.now == NOW


@pytest.mark.parametrize("error", WAITING)
def test_a_plain_message_tries_others_after_a_while_and_then_waits_for_all_of_them(error):
    sending = Simulation(PLAIN, timedelta(hours=24), asks_to_wait(error, only=("primary",)))
    assert sending.run() is None
    assert sending.providers == ["primary"] * RETRIES[error].attempts + ["backup"]
    both = Simulation(PLAIN, timedelta(hours=24), asks_to_wait(error, until=timedelta(hours=2)))
    assert both.run() is None
    assert set(both.providers) == {"primary", "backup"}


def test_a_wait_does_not_use_up_the_attempts_that_other_errors_have():
    throttled = [
        attempt(AttemptStatus.THROTTLED, ErrorClass.THROTTLED, number=n) for n in range(1, 50)
    ]
    lost = attempt(AttemptStatus.UNREACHABLE, ErrorClass.UNREACHABLE, number=50)
    later = NOW + timedelta(minutes=5)
    assert decide(message(*throttled, lost), (PRIMARY,), PLAIN, later) == Submit("primary", 51)


def test_a_configured_delay_of_nothing_is_no_loop_while_a_provider_asks_to_wait():
    rules = {
        **RETRIES,
        ErrorClass.THROTTLED: replace(RETRIES[ErrorClass.THROTTLED], delay=seconds(0)),
    }
    option = replace(PRIMARY, retries=rules)
    throttled = attempt(AttemptStatus.THROTTLED, ErrorClass.THROTTLED, retry_after=seconds(0))
    assert decide(message(throttled), (option,), PLAIN, NOW) == Wait(
        NOW + seconds(1), WaitFor.BACKOFF
    )


def test_missing_parts_wait_for_their_provider_unless_another_one_is_up():
    partial = attempt(AttemptStatus.PARTIAL, ErrorClass.THROTTLED, tries=30)
    later = NOW + timedelta(minutes=2)
    assert decide(message(partial), (PRIMARY,), PLAIN, later) == Submit("primary", 1, resume=True)
    assert decide(message(partial), BOTH, PLAIN, NOW) == Submit("backup", 2)


@pytest.mark.parametrize("policy", [PLAIN, PROMO])
def test_a_provider_that_accepted_some_parts_is_not_given_the_whole_message(policy):
    partial = attempt(AttemptStatus.PARTIAL, ErrorClass.TEMPORARY, tries=3)
    later = NOW + timedelta(minutes=40)  # after the patience with outages
    assert decide(message(partial), BOTH, policy, later) == Submit("backup", 2)
    decision = decide(message(partial), (PRIMARY,), policy, later)
    assert decision == Finish(MessageStatus.DEAD_LETTER, Reason.ATTEMPTS_EXHAUSTED)
    assert decide(message(partial), (PRIMARY,), ALERT, later) == Submit("primary", 2)


def test_missing_parts_wait_for_their_provider_while_every_provider_is_down():
    partial = attempt(AttemptStatus.PARTIAL, ErrorClass.UNREACHABLE)
    down = replace(PRIMARY, up=False, down_since=NOW)
    wait = decide(message(partial), (down,), PLAIN, NOW + seconds(5))
    assert isinstance(wait, Wait)
    assert wait.why is WaitFor.PROVIDER
    assert decide(message(partial), (down, BACKUP), PLAIN, NOW) == Submit("backup", 2)


def expired_at_primary(count: int = 1, **changes) -> list[AttemptFacts]:
    ended = AttemptStatus.UNDELIVERED, ErrorClass.UNDELIVERED
    return [attempt(*ended, number=n, out_of_time=True, **changes) for n in range(1, count + 1)]


def test_an_alert_goes_back_to_a_provider_that_only_ran_out_of_time_while_no_other_is_up():
    down = (PRIMARY, replace(BACKUP, up=False, down_since=NOW))
    case = message(*expired_at_primary())
    assert decide(case, down, ALERT, NOW) == Wait(NOW + seconds(5), WaitFor.BACKOFF)
    again = decide(case, down, ALERT, NOW + seconds(5))
    assert again == Submit("primary", 2)
    assert decide(case, (PRIMARY,), ALERT, NOW + seconds(5)) == Submit("primary", 2)
    assert decide(case, BOTH, ALERT, NOW + seconds(5)) == Submit("backup", 2)
    undeliverable = message(attempt(AttemptStatus.UNDELIVERED, ErrorClass.UNDELIVERED))
    assert decide(undeliverable, (PRIMARY,), ALERT, NOW + seconds(5)) == Finish(
        MessageStatus.FAILED, "undelivered"
    )


def test_an_alert_goes_back_only_as_often_as_it_may_be_tried():
    case = message(*expired_at_primary(ALERT.max_attempts))
    later = NOW + timedelta(minutes=10)
    decision = decide(case, (PRIMARY,), ALERT, later)
    assert decision == Finish(MessageStatus.FAILED, "undelivered")


def test_a_provider_that_is_down_at_the_submit_takes_over_at_the_deadline_if_it_is_up_by_then():
    down = (PRIMARY, replace(BACKUP, up=False))
    fresh = decide(message(), down, ALERT, NOW)
    assert isinstance(fresh, Submit)
    assert fresh.alternatives == 1  # so that the deadline is the mode's
    sent = attempt(AttemptStatus.ACCEPTED, receipt_by=NOW)
    wait = decide(message(sent), down, ALERT, NOW + seconds(10))
    assert wait == Wait(NOW + seconds(15), WaitFor.RECEIPT)
    assert decide(message(sent), BOTH, ALERT, NOW + seconds(10)) == CancelAtProvider("primary", 1)
    last = NOW + timedelta(minutes=59)
    assert decide(message(sent), down, ALERT, last) == CancelAtProvider("primary", 1)
    given_up = message(replace(sent, cancelled_at_provider=False))
    assert decide(given_up, down, ALERT, last) == MarkAttempt(1, AttemptStatus.EXPIRED)


def test_the_accepted_parts_of_a_cancelled_message_are_cancelled_at_their_provider():
    partial = attempt(AttemptStatus.PARTIAL, ErrorClass.THROTTLED)
    case = message(partial, cancel_requested=True)
    assert decide(case, BOTH, PLAIN, NOW) == CancelAtProvider("primary", 1)
    for done in (True, False):
        asked = message(replace(partial, cancelled_at_provider=done), cancel_requested=True)
        assert decide(asked, BOTH, PLAIN, NOW) == Finish(MessageStatus.CANCELED, Reason.CANCELED)


FAILING = [error for error, rule in RETRIES.items() if rule.outage]


@pytest.mark.parametrize("error", FAILING)
@pytest.mark.parametrize("status", [AttemptStatus.REFUSED, AttemptStatus.PARTIAL])
@pytest.mark.parametrize("mode", sorted(Mode))
@pytest.mark.parametrize("options", [(PRIMARY,), BOTH])
def test_a_message_outlasts_an_outage_that_its_only_providers_report(error, status, mode, options):
    policy = replace(MODE_POLICIES[mode], validity=timedelta(hours=2))
    outage = asks_to_wait(error, until=timedelta(minutes=25), status=status)
    sending = Simulation(policy, policy.validity, outage, options)
    assert sending.run() is None
    assert sending.now <= NOW + timedelta(minutes=26)


@pytest.mark.parametrize("error", FAILING)
@pytest.mark.parametrize("status", [AttemptStatus.REFUSED, AttemptStatus.PARTIAL])
@pytest.mark.parametrize("mode", sorted(Mode))
@pytest.mark.parametrize("delay", [0, 2])
def test_a_reported_outage_is_waited_for_no_longer_than_any_other(error, status, mode, delay):
    rules = {**RETRIES, error: replace(RETRIES[error], delay=seconds(delay))}
    policy = replace(MODE_POLICIES[mode], validity=timedelta(hours=2))
    outage = asks_to_wait(error, status=status)
    options = (replace(PRIMARY, retries=rules),)
    sending = Simulation(policy, policy.validity, outage, options)
    assert sending.run() == Finish(MessageStatus.DEAD_LETTER, Reason.ATTEMPTS_EXHAUSTED)
    assert NOW + policy.outage_patience <= sending.now
    assert sending.now <= NOW + policy.outage_patience + timedelta(minutes=3)
    assert sum(made.tries for made in sending.case.attempts) < 80


def test_an_outage_of_one_provider_is_not_waited_for_while_another_one_is_left():
    outage = asks_to_wait(ErrorClass.TEMPORARY, only=("primary",), status=AttemptStatus.REFUSED)
    sending = Simulation(PLAIN, timedelta(hours=24), outage)
    assert sending.run() is None
    assert sending.providers == ["primary"] * 3 + ["backup"]


def test_an_unanswered_submit_becomes_unknown_only_after_its_time():
    flying = attempt(AttemptStatus.SUBMITTING)
    assert decide(message(flying), BOTH, PLAIN, NOW) == Wait(flying.response_by, WaitFor.RESPONSE)
    decision = decide(message(flying), BOTH, PLAIN, flying.response_by)
    assert decision == MarkAttempt(1, AttemptStatus.UNKNOWN)


def test_an_alert_unknown_is_sent_again():
    unknown = attempt(AttemptStatus.UNKNOWN, ErrorClass.UNKNOWN)
    assert isinstance(decide(message(unknown), BOTH, ALERT, NOW), Submit)


def test_a_plain_message_unknown_waits_for_a_receipt_and_then_is_a_dead_letter():
    unknown = attempt(AttemptStatus.UNKNOWN, ErrorClass.UNKNOWN)
    case = message(unknown)
    assert decide(case, BOTH, PLAIN, NOW) == Wait(unknown.receipt_by, WaitFor.RECEIPT)
    decision = decide(case, BOTH, PLAIN, unknown.receipt_by)
    assert decision == Finish(MessageStatus.DEAD_LETTER, Reason.OUTCOME_UNKNOWN)


def test_a_promotion_unknown_is_never_sent_again():
    unknown = attempt(AttemptStatus.UNKNOWN, ErrorClass.UNKNOWN)
    decision = decide(message(unknown), BOTH, PROMO, unknown.receipt_by)
    assert decision == Finish(MessageStatus.EXPIRED, Reason.OUTCOME_UNKNOWN)


def test_an_alert_without_receipt_is_recalled_given_up_and_sent_by_the_next_route():
    sent = attempt(AttemptStatus.ACCEPTED, receipt_by=NOW)
    assert decide(message(sent), BOTH, ALERT, NOW) == CancelAtProvider("primary", 1)
    asked = replace(sent, cancelled_at_provider=True)
    assert decide(message(asked), BOTH, ALERT, NOW) == MarkAttempt(1, AttemptStatus.EXPIRED)
    given_up = replace(asked, status=AttemptStatus.EXPIRED)
    assert decide(message(given_up), BOTH, ALERT, NOW) == Submit("backup", 2)


def test_enroute_receipts_never_take_the_chance_of_the_next_route():
    """They extend the wait in the rows, whatever other routes there are."""
    code = message(
        attempt(
            AttemptStatus.ACCEPTED, receipt_by=NOW + timedelta(hours=1), cancelled_at_provider=False
        ),
        valid_until=NOW + timedelta(minutes=10),
    )
    policy = MODE_POLICIES[Mode.VERIFICATION]
    last = NOW + timedelta(minutes=9)
    assert decide(code, BOTH, policy, NOW) == Wait(last, WaitFor.RECEIPT)
    assert decide(code, BOTH, policy, last) == MarkAttempt(1, AttemptStatus.EXPIRED)
    alone = decide(code, (PRIMARY,), policy, last)
    assert alone == Wait(NOW + timedelta(hours=1), WaitFor.RECEIPT)


def test_a_submit_has_the_number_of_alternative_providers():
    refused = attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE)
    partial = attempt(AttemptStatus.PARTIAL, ErrorClass.THROTTLED, settled_at=NOW - seconds(9))
    once = replace(ALERT, max_attempts=1)
    for case, policy, alternatives in (
        (message(), ALERT, 1),
        (message(refused), ALERT, 0),
        (message(), once, 0),
        (message(partial), ALERT, 1),
        (message(partial), once, 0),
    ):
        decision = decide(case, BOTH, policy, NOW)
        assert isinstance(decision, Submit)
        assert decision.alternatives == alternatives


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


def test_an_outage_counts_from_when_the_last_provider_went_down_and_not_from_acceptance():
    later = NOW + timedelta(minutes=45)
    down = (
        replace(PRIMARY, up=False, down_since=later - seconds(90)),
        replace(BACKUP, up=False, down_since=later - seconds(2)),
    )
    day = message(valid_until=NOW + timedelta(hours=24))
    wait = decide(day, down, PLAIN, later)
    assert isinstance(wait, Wait)
    assert wait.why is WaitFor.PROVIDER
    end = later - seconds(2) + PLAIN.outage_patience
    assert isinstance(decide(day, down, PLAIN, end - seconds(1)), Wait)
    assert decide(day, down, PLAIN, end) == Finish(MessageStatus.DEAD_LETTER, Reason.NO_PROVIDER_UP)


def test_an_outage_from_before_a_message_counts_from_its_acceptance():
    down = (replace(PRIMARY, up=False, down_since=NOW - timedelta(hours=9)),)
    assert isinstance(decide(message(), down, PLAIN, NOW), Wait)


@pytest.mark.parametrize("options", [BOTH, (replace(PRIMARY, up=False),), ()])
def test_what_is_paused_waits_for_its_release_whatever_its_providers_do(options):
    case = message(paused=True)
    late = NOW + PLAIN.outage_patience + seconds(1)
    assert decide(case, options, PLAIN, late) == Wait(case.valid_until, WaitFor.RELEASE)
    canceled = decide(replace(case, cancel_requested=True), options, PLAIN, late)
    assert canceled == Finish(MessageStatus.CANCELED, Reason.CANCELED)
    over = decide(case, options, PLAIN, case.valid_until)
    assert over == Finish(MessageStatus.EXPIRED, Reason.VALIDITY_OVER)


@pytest.mark.parametrize(
    "error", sorted(e for e, rule in RETRIES.items() if rule.failover is Failover.AT_ONCE)
)
@pytest.mark.parametrize("policy", [ALERT, PLAIN])
def test_where_failover_is_immediate_a_provider_that_was_not_tried_comes_first(error, policy):
    status = {
        ErrorClass.UNKNOWN: AttemptStatus.UNKNOWN,
        ErrorClass.UNREACHABLE: AttemptStatus.UNREACHABLE,
    }.get(error, AttemptStatus.REFUSED)
    case = message(attempt(status, error, settled_at=NOW - timedelta(minutes=5)))
    decision = decide(case, BOTH, policy, NOW)
    if isinstance(decision, Submit):
        assert decision.provider == "backup"
    else:  # nobody sends it again
        assert policy is PLAIN


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
    assert decide(case, BOTH, PLAIN, NOW) == CancelAtProvider("primary", 1)
    forgotten = message(replace(sent, cancelled_at_provider=True), cancel_requested=True)
    assert decide(forgotten, BOTH, PLAIN, NOW) == Finish(MessageStatus.CANCELED, Reason.CANCELED)
    kept = message(replace(sent, cancelled_at_provider=False), cancel_requested=True)
    assert decide(kept, BOTH, PLAIN, NOW) == Wait(sent.receipt_by, WaitFor.RECEIPT)


def test_attempts_before_a_replay_do_not_count():
    history = [
        attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE),
        attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE, provider="backup", number=2),
    ]
    assert decide(message(*history, first_attempt=3), BOTH, PLAIN, NOW) == Submit("primary", 3)


# --- the message's own policy for missing receipts ---------------------------------------------


def test_with_tell_listener_a_missing_receipt_is_reported_once_and_then_waited_for():
    policy = ALERT.for_message(MissingReceiptPolicy.TELL_LISTENER)
    accepted = attempt(AttemptStatus.ACCEPTED, receipt_by=NOW + seconds(60))
    case = message(accepted)
    last = case.valid_until + seconds(60)
    assert decide(case, BOTH, policy, NOW) == Wait(NOW + seconds(60), WaitFor.RECEIPT)
    report = decide(case, BOTH, policy, NOW + seconds(60))
    assert report == ReportMissingReceipt(1, until=last)
    reported = message(replace(accepted, receipt_by=last))
    assert decide(reported, BOTH, policy, NOW + seconds(60)) == Wait(last, WaitFor.RECEIPT)
    assert decide(reported, BOTH, policy, last) == MarkAttempt(1, AttemptStatus.EXPIRED)


@pytest.mark.parametrize("mode", MODE_POLICIES)
def test_the_policy_of_a_message_comes_before_that_of_its_mode(mode):
    accepted = message(attempt(AttemptStatus.ACCEPTED, receipt_by=NOW))
    expired = message(attempt(AttemptStatus.EXPIRED))
    goes_on = MODE_POLICIES[mode].for_message(MissingReceiptPolicy.NEXT_ROUTE)
    expires = MODE_POLICIES[mode].for_message(MissingReceiptPolicy.EXPIRE)
    assert decide(accepted, BOTH, goes_on, NOW) == CancelAtProvider("primary", 1)
    assert decide(accepted, BOTH, expires, NOW) == MarkAttempt(1, AttemptStatus.EXPIRED)
    assert decide(expired, BOTH, goes_on, NOW) == Submit("backup", 2)
    assert decide(expired, BOTH, expires, NOW).reason == Reason.NO_RECEIPT
    assert MODE_POLICIES[mode].for_message(None) is MODE_POLICIES[mode]


moments = st.integers(-600, 90_000).map(lambda s: NOW + seconds(s))
attempts = st.builds(
    AttemptFacts,
    number=st.just(1),
    provider=st.sampled_from(["primary", "backup", "removed"]),
    status=st.sampled_from(AttemptStatus),
    started_at=moments,
    response_by=moments,
    settled_at=moments,
    receipt_by=moments,
    error_class=st.none() | st.sampled_from(ErrorClass),
    cancelled_at_provider=st.none() | st.booleans(),
    retry_after=st.none() | st.integers(0, 600).map(seconds),
    tries=st.integers(1, 12),
    out_of_time=st.booleans(),
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
    paused=st.booleans(),
    attempts=st.lists(attempts, max_size=4).map(
        lambda found: tuple(replace(a, number=n) for n, a in enumerate(found, start=1))
    ),
)
routes = st.lists(
    st.builds(
        RouteOption,
        provider=st.sampled_from(["primary", "backup"]),
        up=st.booleans(),
        down_since=st.none() | moments,
        receipts=st.booleans(),
        cancels=st.booleans(),
    ),
    max_size=2,
    unique_by=lambda option: option.provider,
)
policies = st.builds(
    lambda mode, missing_receipt: MODE_POLICIES[mode].for_message(missing_receipt),
    st.sampled_from(sorted(MODE_POLICIES)),
    st.none() | st.sampled_from(MissingReceiptPolicy),
)


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
            assert not case.paused
            assert not case.cancel_requested
            assert now < case.valid_until
            assert (number in {a.number for a in case.attempts}) == resume
        case MarkAttempt(number=number):
            assert number == max(a.number for a in case.attempts)
        case ReportMissingReceipt(number=number, until=until):
            assert policy.missing_receipt is MissingReceiptPolicy.TELL_LISTENER
            assert case.attempts[number - 1].receipt_by < until
        case CancelAtProvider(provider=provider):
            assert provider in {option.provider for option in options}
        case Finish(status=status):
            assert status not in {MessageStatus.QUEUED, MessageStatus.SENDING}


OUTCOMES = [
    (AttemptStatus.ACCEPTED, None),
    (AttemptStatus.REFUSED, ErrorClass.ROUTE),
    (AttemptStatus.REFUSED, ErrorClass.TEMPORARY),
    (AttemptStatus.REFUSED, ErrorClass.SESSION),
    (AttemptStatus.THROTTLED, ErrorClass.THROTTLED),
    (AttemptStatus.UNREACHABLE, ErrorClass.UNREACHABLE),
    (AttemptStatus.UNKNOWN, ErrorClass.UNKNOWN),
    (AttemptStatus.PARTIAL, ErrorClass.TEMPORARY),
    (AttemptStatus.PARTIAL, ErrorClass.THROTTLED),
    (AttemptStatus.UNDELIVERED, ErrorClass.UNDELIVERED),
    (AttemptStatus.SUBMITTING, None),
]
REJECTIONS = {AttemptStatus.REFUSED, AttemptStatus.THROTTLED, AttemptStatus.UNREACHABLE}


@st.composite
def outages(draw: st.DrawFn) -> list[tuple[float, float]]:
    """When a provider is down: from and to, in seconds, one after the other."""
    moments = sorted(draw(st.lists(st.floats(0, 100_000), max_size=8, unique=True)))
    return list(zip(moments[::2], moments[1::2], strict=False))


def option_at(option: RouteOption, down: list[tuple[float, float]], now: datetime) -> RouteOption:
    after = (now - NOW).total_seconds()
    for begin, end in down:
        if begin <= after < end:
            return replace(option, up=False, down_since=NOW + seconds(begin))
    return option


@settings(max_examples=150, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=12),
    policy=policies,
    downs=st.lists(outages(), min_size=2, max_size=2),
    paused=st.booleans(),
    released_after=st.floats(0, 100_000),
)
def test_following_the_decisions_always_comes_to_an_end(
    outcomes, policy, downs, paused, released_after
):
    now, case = NOW, message(valid_until=NOW + policy.validity, paused=paused)
    reported: set[int] = set()
    for turn in range(10_000):
        if now >= NOW + seconds(released_after):
            case = replace(case, paused=False)
        options = [option_at(o, down, now) for o, down in zip(BOTH, downs, strict=True)]
        decision = decide(case, options, policy, now)
        match decision:
            case Finish(reason=reason):
                if reason == Reason.NO_PROVIDER_UP:
                    assert not case.paused
                    patience = policy.outage_patience
                    assert any(now - o.down_since >= patience for o in options if o.down_since)
                return
            case Wait(until=until, why=why):
                if case.paused:
                    assert why is WaitFor.RELEASE
                now = until
            case Submit(provider=provider, number=number, resume=resume):
                assert not case.paused
                status, error = outcomes[turn % len(outcomes)]
                if resume and status in REJECTIONS:  # some parts were accepted before
                    status = AttemptStatus.PARTIAL
                tries = case.attempts[-1].tries + 1 if resume else 1
                made = attempt(
                    status,
                    error,
                    provider=provider,
                    number=number,
                    started_at=case.attempts[-1].started_at if resume else now,
                    response_by=now + seconds(14),
                    settled_at=now,
                    receipt_by=now + timedelta(minutes=30),
                    tries=tries,
                    out_of_time=turn % 2 == 0,
                )
                before = case.attempts[:-1] if resume else case.attempts
                case = replace(case, attempts=(*before, made))
            case MarkAttempt(status=status):
                last = replace(case.attempts[-1], status=status, settled_at=now)
                case = replace(case, attempts=(*case.attempts[:-1], last))
            case ReportMissingReceipt(number=number, until=until):
                assert number not in reported
                reported.add(number)
                last = replace(case.attempts[-1], receipt_by=until)
                case = replace(case, attempts=(*case.attempts[:-1], last))
            case CancelAtProvider():
                last = replace(case.attempts[-1], cancelled_at_provider=turn % 2 == 0)
                case = replace(case, attempts=(*case.attempts[:-1], last))
    pytest.fail("the message never ended")

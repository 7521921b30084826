"""What is forecast for a message is what `decide` does when the time has come."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import domain.forecast
from domain.delivery import (
    CancelAtProvider,
    Finish,
    MarkAttempt,
    Reason,
    Standing,
    Submit,
    Wait,
    WaitFor,
    decide,
    standings,
)
from domain.error_classes import ErrorClass
from domain.forecast import forecast
from domain.modes import MODE_POLICIES, Mode
from domain.states import AttemptStatus, MessageStatus, Verdict
from tests.domain.test_delivery import BOTH, NOW, PLAIN, attempt, message, seconds

DOWN = tuple(replace(option, up=False) for option in BOTH)


def test_an_outage_is_forecast_to_its_end_and_not_to_the_next_check():
    foreseen = forecast(message(), DOWN, PLAIN, NOW)
    assert foreseen.wait is not None
    assert foreseen.wait.why is WaitFor.PROVIDER
    assert foreseen.then == Finish(MessageStatus.DEAD_LETTER, Reason.NO_PROVIDER_UP)
    assert foreseen.at == NOW + PLAIN.outage_patience


def test_a_receipt_that_does_not_come_is_forecast_to_the_end_of_the_message():
    accepted = attempt(AttemptStatus.ACCEPTED)
    foreseen = forecast(message(accepted), BOTH, PLAIN, NOW)
    assert foreseen.wait == Wait(accepted.receipt_by, WaitFor.RECEIPT)
    assert foreseen.then == Finish(MessageStatus.EXPIRED, Reason.NO_RECEIPT)
    assert foreseen.at == accepted.receipt_by


def test_a_response_that_does_not_come_is_an_unknown_outcome():
    submitting = attempt(AttemptStatus.SUBMITTING)
    foreseen = forecast(message(submitting), BOTH, PLAIN, NOW)
    assert foreseen.then == MarkAttempt(1, AttemptStatus.UNKNOWN)
    assert foreseen.at == submitting.response_by


@pytest.mark.parametrize(
    "patience", [timedelta(seconds=90), timedelta(minutes=30), timedelta(days=7)]
)
def test_the_end_of_a_long_outage_is_exact_and_takes_few_decisions(monkeypatch, patience):
    decided = []

    def counted(*arguments):
        decided.append(arguments)
        return decide(*arguments)

    monkeypatch.setattr(domain.forecast, "decide", counted)
    policy = replace(PLAIN, outage_patience=patience)
    foreseen = forecast(message(valid_until=NOW + timedelta(days=30)), DOWN, policy, NOW)
    assert foreseen.then == Finish(MessageStatus.DEAD_LETTER, Reason.NO_PROVIDER_UP)
    assert foreseen.at == NOW + patience
    assert len(decided) < 80


def test_what_can_be_submitted_waits_for_nothing():
    assert forecast(message(), BOTH, PLAIN, NOW).wait is None


ATTEMPTS = st.builds(
    lambda status, error, provider, age: attempt(
        status,
        None if status in {AttemptStatus.ACCEPTED, AttemptStatus.DELIVERED} else error,
        provider=provider,
        settled_at=NOW - seconds(age),
    ),
    st.sampled_from(AttemptStatus),
    st.sampled_from(ErrorClass),
    st.sampled_from(["primary", "backup", "gone"]),
    st.integers(0, 600),
)


@given(
    st.lists(ATTEMPTS, max_size=6),
    st.sampled_from(Mode),
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from([None, *Verdict]),
    st.integers(5, 86_400),
    st.booleans(),
)
def test_every_forecast_begins_with_the_decision_of_now_and_comes_true(
    tried, mode, up, verdict, validity, canceled
):
    facts = message(
        *(replace(each, number=number) for number, each in enumerate(tried, start=1)),
        verdict=verdict,
        valid_until=NOW + timedelta(seconds=validity),
        cancel_requested=canceled,
    )
    options = [replace(option, up=is_up) for option, is_up in zip(BOTH, up, strict=True)]
    policy = MODE_POLICIES[mode]
    foreseen = forecast(facts, options, policy, NOW)
    decision = decide(facts, options, policy, NOW)
    if isinstance(decision, Wait):
        assert foreseen.wait == decision
    elif not isinstance(decision, MarkAttempt):
        assert (foreseen.wait, foreseen.then, foreseen.at) == (None, decision, NOW)
    assert foreseen.then is not None
    assert foreseen.at >= NOW
    assert (foreseen.after_cancel is not None) == isinstance(foreseen.then, CancelAtProvider)
    if foreseen.after_cancel is not None:
        assert not isinstance(foreseen.after_cancel.then, CancelAtProvider)
        if isinstance(foreseen.after_cancel.then, Submit):
            assert foreseen.after_cancel.at < facts.valid_until
    if isinstance(foreseen.then, Submit):
        chosen = standings(facts, options, policy, foreseen.at, foreseen.then.provider)
        assert list(chosen.values()).count(Standing.CHOSEN) == 1
        assert set(chosen) == {option.provider for option in options}
        assert all(
            chosen[option.provider] is Standing.DOWN
            for option in options
            if not option.up and option.provider != foreseen.then.provider
        )

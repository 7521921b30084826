"""An explanation is made whatever a carrier writes into its codes, and of rows in any state."""

import dataclasses
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.delivery import (
    Finish,
    MessageFacts,
    Reason,
    Standing,
    Submit,
    Wait,
    WaitFor,
)
from domain.encoding import Encoding
from domain.error_classes import ErrorClass
from domain.forecast import Forecast, forecast
from domain.modes import Mode, Priority
from domain.receipts import ReceiptState
from domain.states import AttemptStatus, MessageStatus
from services.explanation import Known, explain
from services.explanation.known import FINAL_STATUSES
from services.explanation.summary import plain
from store.attempts import StoredAttempt
from store.events import Event
from store.messages import AccountMessage
from tests.domain.test_delivery import ALERT, BOTH, NOW
from tests.domain.test_delivery import attempt as facts_of_attempt
from tests.domain.test_delivery import message as facts_of_message

T = TypeVar("T")
AT = datetime(2026, 11, 28, 3, 0, tzinfo=UTC)
CODES = st.sampled_from(
    ["", "000", "0xzz", "0x58", "0x_5", "{provider}", "0x" + "f" * 200, "\u0663"]
)


def message(status: MessageStatus, reason: str | None = None) -> AccountMessage:
    return of(
        AccountMessage,
        status=status,
        reason=reason,
        mode=Mode.TRANSACTIONAL,
        priority=Priority.NORMAL,
        encoding=Encoding.GSM7,
        segments=1,
        country="GB",
        accepted_at=AT,
        valid_until=AT + timedelta(days=1),
    )


def attempt(number: int, status: AttemptStatus, code: str, provider: str) -> StoredAttempt:
    return of(StoredAttempt, number=number, provider=provider, status=status, code=code)


def event(seq: int, kind: str, *, late: float = 0, **more: Any) -> Event:
    """An event that was written `late` seconds after its time."""
    at = AT + timedelta(seconds=seq - late)
    return of(
        Event,
        **{"detail": {}, "actor": "workflow", **more, "seq": seq, "at": at, "kind": kind},
    )


def of(row: type[T], **values: Any) -> T:
    """A row with these values, and None in all other columns."""
    return row(**{**dict.fromkeys(field.name for field in dataclasses.fields(row)), **values})


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["moved", "receipt", "decided", "accepted", "duplicate", "new_kind"]),
        st.fixed_dictionaries(
            {
                "previous": st.none() | st.sampled_from(MessageStatus),
                "status": st.none() | st.sampled_from([*MessageStatus, *ReceiptState]),
                "attempt": st.none() | st.integers(1, 3),
                "provider": st.none() | st.sampled_from(["primary", "backup"]),
                "code": st.none() | CODES,
                "reason": st.none() | st.sampled_from(["submit", "route", "no_provider_up"]),
                "late": st.integers(0, 3),
            }
        ),
    ),
    max_size=12,
)


@given(
    EVENTS,
    st.lists(st.tuples(st.sampled_from(AttemptStatus), CODES), max_size=3),
    st.sampled_from(MessageStatus),
)
def test_whatever_happened_there_is_a_first_sentence_and_the_steps_are_in_order(
    happened, tried, status
):
    known = Known(
        message=message(status, "route"),
        attempts=[attempt(n, *each, "primary") for n, each in enumerate(tried, start=1)],
        events=[event(n, kind, **more) for n, (kind, more) in enumerate(happened)],
    )
    summary, steps = explain(known)
    assert summary[0].endswith(".")
    assert summary[-1].startswith("Accepted at 2026-11-28 03:00:00Z")
    assert all(step.text for step in steps)
    assert sum(step.count for step in steps) <= len(happened) * 2
    assert all((step.until is None) == (step.count == 1) for step in steps)
    assert [step.at for step in steps] == sorted(step.at for step in steps)


@pytest.mark.parametrize("attempts", [1, 2, 20])
def test_attempts_that_failed_alike_are_one_step_also_at_different_providers(attempts):
    providers = ["primary", "backup"]
    events = []
    for number in range(1, attempts + 1):
        about = {"attempt": number, "provider": providers[number % 2], "code": "0x00000014"}
        events.append(event(2 * number, "moved", status="sending", **about))
        events.append(
            event(
                2 * number + 1, "moved", previous=MessageStatus.SENDING, status="retried", **about
            )
        )
    known = Known(
        message=message(MessageStatus.RETRIED),
        attempts=[
            attempt(n, AttemptStatus.THROTTLED, "0x00000014", providers[n % 2])
            for n in range(1, attempts + 1)
        ],
        events=events,
    )
    _, (step,) = explain(known)
    assert (step.count, step.code_name) == (attempts, "ESME_RMSGQFUL")
    said = "asked to wait (ESME_RMSGQFUL, 0x14: a message queue of the SMSC is full)."
    if attempts == 1:
        assert step.text == f"Attempt 1: backup {said}"
    else:
        whose = {
            2: "backup (1) and primary (2)",
            20: "backup (1, 3, … 19) and primary (2, 4, … 20)",
        }
        assert step.text.startswith(
            f"Attempts 1 to {attempts}: {whose[attempts]} {said} {attempts} "
        )


SUBMITTED = {"attempt": 1, "provider": "primary"}


@pytest.mark.parametrize(
    "events",
    [
        [
            event(1, "decided", reason="submit", **SUBMITTED),
            event(2, "moved", status="sending", **SUBMITTED),
            event(4, "receipt", status="delivered", **SUBMITTED),
            event(5, "moved", previous="sending", status="delivered", **SUBMITTED),
        ],
        [
            event(1, "decided", reason="submit", **SUBMITTED),
            event(4, "receipt", status="delivered", **SUBMITTED),
            event(5, "moved", previous="queued", status="delivered", **SUBMITTED),
        ],
        [
            event(1, "decided", reason="submit", **SUBMITTED),
            event(4, "receipt", status="delivered", **SUBMITTED),
            event(5, "moved", previous="queued", status="sent", late=3, **SUBMITTED),
            event(6, "moved", previous="sent", status="delivered", **SUBMITTED),
        ],
    ],
    ids=["begun", "not begun", "stored late"],
)
def test_an_attempt_comes_before_the_receipt_that_overtook_its_response(events):
    known = Known(
        message=message(MessageStatus.DELIVERED),
        attempts=[attempt(1, AttemptStatus.DELIVERED, "", "primary")],
        events=events,
    )
    _, steps = explain(known)
    assert [step.kind for step in steps] == ["attempt", "receipt", "ended"]


RANKING = [
    {"provider": "primary", "standing": Standing.CHOSEN, "up": True},
    {"provider": "backup", "standing": Standing.EXHAUSTED, "up": True},
]


@pytest.mark.parametrize("standing", sorted(set(Standing) - {Standing.CHOSEN}))
def test_why_a_provider_had_the_last_attempt_says_nothing_of_the_next_one(standing):
    known = Known(
        message=message(MessageStatus.RETRIED),
        attempts=[attempt(7, AttemptStatus.REFUSED, "0x00000008", "primary")],
        events=[
            event(
                1,
                "decided",
                reason="submit",
                attempt=7,
                provider="primary",
                detail={"route": 0, "ranking": [RANKING[0], {**RANKING[1], "standing": standing}]},
            )
        ],
        forecast=Forecast(
            Wait(AT + timedelta(minutes=1), WaitFor.BACKOFF),
            Submit("backup", 8),
            AT + timedelta(minutes=1),
        ),
    )
    (first, _, why, *_), _ = explain(known)
    assert first == "Waiting to try backup, after primary refused it (ESME_RSYSERR)."
    assert why.startswith("Why primary had attempt 7 (routes[0]): backup ")
    assert not re.search(r"\b(is|again|yet|comes)\b", why)


def foreseen(facts: MessageFacts, now: datetime) -> str:
    """What the summary says of the future of an alert that primary accepted."""
    known = Known(
        message=message(MessageStatus.SENT),
        attempts=[attempt(1, AttemptStatus.ACCEPTED, "", "primary")],
        events=[],
        forecast=forecast(facts, BOTH, ALERT, now),
    )
    (first, *others), _ = explain(known)
    return " ".join([first, *others])


@pytest.mark.parametrize(("polls", "times"), [(1, "once"), (3, "3 times")])
def test_what_waits_for_a_receipt_says_how_often_its_state_was_requested(polls, times):
    waiting = forecast(facts_of_message(facts_of_attempt(AttemptStatus.ACCEPTED)), BOTH, ALERT, NOW)
    known = Known(
        message=message(MessageStatus.SENT),
        attempts=[attempt(1, AttemptStatus.ACCEPTED, "", "primary")],
        events=[],
        forecast=waiting,
    )
    sentence = f"The gateway has requested its state from primary {times}."
    assert sentence in explain(dataclasses.replace(known, polls={1: polls}))[0]
    assert not [each for each in explain(known)[0] if "requested" in each]


def test_what_is_forecast_after_a_cancel_is_what_can_still_happen():
    accepted = facts_of_attempt(AttemptStatus.ACCEPTED)
    in_time = foreseen(facts_of_message(accepted), NOW)
    assert "primary is asked to cancel it, and then it goes to backup (attempt 2)." in in_time
    refused = facts_of_attempt(AttemptStatus.REFUSED, ErrorClass.ROUTE, provider="backup", number=1)
    late = facts_of_message(
        refused, replace(accepted, number=2), valid_until=NOW + timedelta(seconds=10)
    )
    said = foreseen(late, NOW)
    assert "is asked to cancel it, and then it expires (no receipt came)." in said


def test_a_cancel_that_is_due_says_that_it_depends_on_the_provider():
    accepted = facts_of_attempt(AttemptStatus.ACCEPTED)
    said = foreseen(facts_of_message(accepted, cancel_requested=True), NOW)
    assert "primary is asked to cancel it; if it does, the message is cancelled." in said


@pytest.mark.parametrize("status", [status for status in MessageStatus if status in FINAL_STATUSES])
@pytest.mark.parametrize("reason", [None, *Reason, *ErrorClass, "expired", "delivered"])
@pytest.mark.parametrize("with_attempt", [True, False])
def test_an_end_is_in_plain_words_and_says_nothing_twice(status, reason, with_attempt):
    known = Known(
        message=message(status, reason),
        attempts=[attempt(1, AttemptStatus.REFUSED, "", "primary")] if with_attempt else [],
        events=[event(1, "moved", status=status, reason=reason)],
    )
    (first, *_), (step,) = explain(known)
    earlier = dataclasses.replace(known, message=message(MessageStatus.QUEUED))
    _, (earlier_step,) = explain(earlier)
    ahead = dataclasses.replace(
        earlier, forecast=Forecast(None, Finish(status, reason or status.value), AT)
    )
    (due, *_), _ = explain(ahead)
    for text in (first, step.text, earlier_step.text, due):
        assert "_" not in text
        assert "canceled" not in text
        assert not text.endswith((": .", " ."))
        assert not re.search(
            r"(cancelled|expired|expires|delivered|dead letter).*[:(]\s*(it was )?\1\b", text
        )


def test_every_reason_has_words_of_its_own():
    for reason in {*Reason, *ErrorClass} - {Reason.SUPERSEDED}:
        assert plain(reason) != reason.value.replace("_", " ") or reason is Reason.DELIVERED

"""The deadlines, as one table of examples and as properties."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import deadlines
from domain.deadlines import (
    CHUNK_SLOT_WAIT,
    cancel_activity_within,
    cancel_within,
    last_failover,
    outage_check,
    outage_end,
    outage_since,
    part_valid_until,
    poll_receipt_again_after,
    queue_within,
    receipt_by,
    receipt_by_after_enroute,
    receipt_deadline,
    reconcile_again_at,
    reconcile_at,
    reconcile_bulk_at,
    reconcile_start_at,
    reconcile_task_at,
    response_by,
    start_within,
    submit_activity_within,
    submit_within,
    unknown_until,
)

NOW = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def m(minutes: float) -> timedelta:
    return timedelta(minutes=minutes)


def at(seconds: float) -> datetime:
    return NOW + s(seconds)


ALERT_VALID_UNTIL = NOW + m(60)
CODE_VALID_UNTIL = NOW + m(10)


@pytest.mark.parametrize(
    ("what", "computed", "expected"),
    [
        ("one part", submit_within(s(10), 1), s(14)),
        ("eight parts of 2 s", submit_within(s(2), 8), s(20)),
        ("a part of a chunk", submit_within(s(10), 1, slot_wait=CHUNK_SLOT_WAIT), s(19)),
        ("the only part starts", start_within(s(10), 1), s(2)),
        ("the last of eight parts starts", start_within(s(2), 8), s(16)),
        ("one in a chunk starts", start_within(s(10), 1, slot_wait=CHUNK_SLOT_WAIT), s(7)),
        ("unknown without a response", response_by(NOW, s(10), 1), at(14)),
        ("unknown, eight parts", response_by(NOW, s(10), 8), at(84)),
        ("activity of a submit", submit_activity_within(s(10), 1), s(15)),
        ("activity of eight parts", submit_activity_within(s(10), 8), s(85)),
        ("an alert in the queue", queue_within(must_arrive=True), s(5)),
        ("another in the queue", queue_within(must_arrive=False), s(10)),
        ("cancel at the provider", cancel_within(s(10)), s(20)),
        ("activity of a cancel", cancel_activity_within(s(10)), s(25)),
        ("the request decides", receipt_deadline(s(5), m(1), m(30), next_route=True), s(5)),
        ("also for longer", receipt_deadline(m(45), m(1), m(30), next_route=True), m(45)),
        ("else the mode", receipt_deadline(None, m(1), m(30), next_route=True), m(1)),
        ("the provider's is shorter", receipt_deadline(None, m(1), s(2), next_route=True), s(2)),
        ("the mode has none", receipt_deadline(None, None, m(30), next_route=True), m(30)),
        ("no next route, none set", receipt_deadline(None, None, m(30), next_route=False), None),
        ("no next route, requested", receipt_deadline(s(9), None, m(3), next_route=False), s(9)),
        ("no next route, by mode", receipt_deadline(None, m(5), m(3), next_route=False), m(5)),
        (
            "an alert with a backup",
            receipt_by(NOW, ALERT_VALID_UNTIL, s(60), next_route=True, alternatives=1),
            at(60),
        ),
        (
            "a code with a backup",
            receipt_by(NOW, CODE_VALID_UNTIL, s(60), next_route=True, alternatives=1),
            at(60),
        ),
        (
            "a code, and a deadline beyond its validity",
            receipt_by(NOW, CODE_VALID_UNTIL, m(30), next_route=True, alternatives=1),
            at(540),
        ),
        (
            "a code that lives for 30 s",
            receipt_by(NOW, at(30), s(60), next_route=True, alternatives=1),
            at(15),
        ),
        (
            "the last provider has all the time",
            receipt_by(NOW, CODE_VALID_UNTIL, s(60), next_route=True, alternatives=0),
            at(660),
        ),
        (
            "a plain message waits while it is valid",
            receipt_by(NOW, ALERT_VALID_UNTIL, None, next_route=False, alternatives=1),
            at(3660),
        ),
        (
            "unless it was requested otherwise",
            receipt_by(NOW, ALERT_VALID_UNTIL, s(90), next_route=False, alternatives=1),
            at(90),
        ),
        ("the last moment to go on", last_failover(NOW, ALERT_VALID_UNTIL), at(3540)),
        ("of a short life", last_failover(NOW, at(20)), at(10)),
        (
            "ENROUTE extends once",
            receipt_by_after_enroute(at(60), at(50), s(60), ALERT_VALID_UNTIL),
            at(110),
        ),
        (
            "never beyond the validity",
            receipt_by_after_enroute(at(60), at(50), m(90), ALERT_VALID_UNTIL),
            at(3660),
        ),
        (
            "and never shortens",
            receipt_by_after_enroute(at(500), at(50), s(60), ALERT_VALID_UNTIL),
            at(500),
        ),
        ("a carrier tries until the receipt is due", part_valid_until(NOW, at(600), s(60)), at(60)),
        ("and no longer than it is valid", part_valid_until(NOW, at(600), s(660)), at(600)),
        ("all the time, if nothing else", part_valid_until(NOW, at(600), None), at(600)),
        ("an unknown outcome", unknown_until(NOW, m(30)), NOW + m(30)),
        ("an outage that is older than the message", outage_since(NOW, at(-99), None), NOW),
        ("one that began later", outage_since(NOW, at(30), at(20), None), at(30)),
        ("the patience with an outage", outage_end(at(30), m(30)), at(1830)),
        ("the second poll", poll_receipt_again_after(m(5), 1, s(10), m(600)), m(10)),
        ("the third poll", poll_receipt_again_after(m(5), 2, s(10), m(600)), m(20)),
        ("never rarer than each hour", poll_receipt_again_after(m(5), 99, s(10), m(600)), m(60)),
        ("unless it began later", poll_receipt_again_after(m(90), 3, s(10), m(600)), m(90)),
        ("the last poll is in time", poll_receipt_again_after(m(5), 2, s(10), m(15)), s(870)),
        ("but not soon again", poll_receipt_again_after(m(5), 2, s(10), m(10)), m(20)),
        ("no two polls at once", poll_receipt_again_after(s(1), 1, s(10), m(600)), s(22)),
        ("the longest poll_after", poll_receipt_again_after(m(5e6), 99, s(10), m(1)), m(5e6)),
        ("at first looks are frequent", outage_check(NOW, NOW, at(1800)), at(0.5)),
        ("then half as long as it took", outage_check(at(20), NOW, at(1800)), at(30)),
        ("at most every 15 s", outage_check(at(900), NOW, at(1800)), at(915)),
        ("and at the end", outage_check(at(1795), NOW, at(1800)), at(1800)),
        ("the reconciler looks at a message", reconcile_at(at(14)), at(74)),
        ("the reconciler looks at a bulk", reconcile_bulk_at(NOW), at(600)),
        ("the reconciler looks at a task", reconcile_task_at(NOW, s(5), s(15)), at(80)),
        ("the reconciler starts a runner", reconcile_start_at(NOW), at(15)),
        ("the reconciler looks again", reconcile_again_at(NOW), at(60)),
    ],
)
def test_the_table_of_deadlines(what: str, computed: object, expected: object) -> None:
    assert computed == expected, what


seconds = st.floats(0.001, 100_000).map(s)
timeouts = st.floats(0.05, 600).map(s)
counts = st.integers(1, 255)
slot_waits = st.sampled_from([s(0), CHUNK_SLOT_WAIT])
durations = st.none() | seconds


@given(timeout=timeouts, parts=counts, wait=slot_waits)
def test_a_part_that_is_started_in_time_is_answered_and_recorded_in_time(timeout, parts, wait):
    starts = start_within(timeout, parts, slot_wait=wait)
    whole = submit_within(timeout, parts, slot_wait=wait)
    assert starts + timeout + deadlines.RECORD_TIME == whole
    assert starts >= deadlines.CLAIM_TIME + wait


@given(timeout=timeouts, parts=counts, wait=slot_waits)
def test_every_part_may_take_as_long_as_the_provider_is_allowed(timeout, parts, wait):
    """With each response at the last moment, the last part still starts in time."""
    last = deadlines.CLAIM_TIME + wait + (parts - 1) * timeout
    assert last <= start_within(timeout, parts, slot_wait=wait)


@given(timeout=timeouts, parts=counts)
def test_an_activity_lasts_longer_than_what_it_waits_for(timeout, parts):
    assert submit_activity_within(timeout, parts) > submit_within(timeout, parts)
    assert cancel_activity_within(timeout) > cancel_within(timeout)


@given(
    left=seconds,
    requested=durations,
    mode=durations,
    provider=seconds,
    next_route=st.booleans(),
    alternatives=st.integers(0, 5),
)
def test_no_wait_for_a_receipt_takes_the_chance_of_another_route(
    left, requested, mode, provider, next_route, alternatives
):
    valid_until = NOW + left
    deadline = receipt_deadline(requested, mode, provider, next_route=next_route)
    by = receipt_by(NOW, valid_until, deadline, next_route=next_route, alternatives=alternatives)
    assert NOW < by <= valid_until + deadlines.AFTER_VALIDITY
    assert part_valid_until(NOW, valid_until, by - NOW) <= min(by, valid_until)
    if next_route and alternatives:
        assert valid_until - by >= min(deadlines.FAILOVER_TIME, left / 2) - s(0.001)
    if next_route and not alternatives:
        assert by == valid_until + deadlines.AFTER_VALIDITY


@given(
    deadline=seconds,
    left=seconds,
    receipts=st.lists(st.floats(0, 10_000), min_size=1, max_size=20).map(sorted),
)
def test_enroute_receipts_extend_by_one_deadline_however_many_come(deadline, left, receipts):
    valid_until = NOW + left
    by = first = receipt_by(NOW, valid_until, deadline, next_route=False, alternatives=0)
    for moment in receipts:
        extended = receipt_by_after_enroute(by, at(moment), deadline, valid_until)
        assert extended >= by
        by = extended
    assert by == max(first, min(at(receipts[-1]) + deadline, valid_until + s(60)))


@given(
    ready=st.floats(-9e4, 0).map(at),
    events=st.lists(st.none() | st.floats(-9e4, 0).map(at), max_size=4),
    patience=st.floats(0, 9e4).map(s),
)
def test_an_outage_is_looked_at_again_until_its_end_and_never_later(ready, events, patience):
    since = outage_since(ready, *events)
    assert since >= ready
    end = outage_end(since, patience)
    now = since
    for _ in range(20_000):
        if now >= end:
            break
        looked = outage_check(now, since, end)
        assert now < looked <= end
        now = looked
    assert now == end

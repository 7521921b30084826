"""Every time by which something about a message must have happened.

One pure function computes each of them, from the provider, the policy, the number of parts and the
time; no other module adds a `timedelta` for these purposes. `docs/decisions/0018` has the reasons.

A submit has `submit_within` from its claim on: time for the commit of the claim, for its slot, for each
part's response in turn, and for the commit of the outcome. No part is started after `start_within`.
"""

from datetime import datetime, timedelta
from typing import Final

_NO_TIME: Final = timedelta()

CLAIM_TIME: Final = timedelta(seconds=2)
"""From the time of a claim until it is committed and its first part can be written."""
RECORD_TIME: Final = timedelta(seconds=2)
"""From a provider's last response until it is committed."""
SLOT_WAIT: Final = timedelta(seconds=1)
"""How long a single message waits for a slot at a provider; it is not claimed before it has one."""
CHUNK_SLOT_WAIT: Final = timedelta(seconds=5)
"""How long a claimed message of a chunk waits for its slot, which a second of the rate should bring."""
CHUNK_TIME: Final = timedelta(seconds=30)
"""How long a chunk claims messages, before it leaves its place on the worker to others."""

_QUEUE_TIME_URGENT: Final = timedelta(seconds=5)
_QUEUE_TIME: Final = timedelta(seconds=10)

AFTER_VALIDITY: Final = timedelta(seconds=60)
"""How long after a message's validity its receipt (EXPIRED, most likely) is still waited for."""
FAILOVER_TIME: Final = timedelta(seconds=60)
"""What the next route gets of a message's validity at least, or half of what is left of it."""

RECONCILE_AFTER: Final = timedelta(seconds=60)
"""How much later than planned something may happen before the reconciler looks at the message."""
_RECONCILE_START_AFTER: Final = timedelta(seconds=15)
_RECONCILE_BULK_AFTER: Final = timedelta(minutes=10)
_RECONCILE_AGAIN_AFTER: Final = timedelta(seconds=60)

_SAME_ROUTE_MIN: Final = timedelta(seconds=5)
_SAME_ROUTE_MAX: Final = timedelta(seconds=60)

_OUTAGE_CHECK_MIN: Final = timedelta(seconds=0.5)
_OUTAGE_CHECK_MAX: Final = timedelta(seconds=15)


# --- submit ------------------------------------------------------------------------------------


def submit_within(
    response_timeout: timedelta, parts: int, *, slot_wait: timedelta = _NO_TIME
) -> timedelta:
    """How long after its claim the outcome of a submit of so many parts is recorded at the latest."""
    return CLAIM_TIME + slot_wait + parts * response_timeout + RECORD_TIME


def start_within(
    response_timeout: timedelta, parts: int, *, slot_wait: timedelta = _NO_TIME
) -> timedelta:
    """How long after the claim a part may still be started.

    A part that starts by then is answered, and its response recorded, before `response_by`.
    """
    whole = submit_within(response_timeout, parts, slot_wait=slot_wait)
    return whole - response_timeout - RECORD_TIME


def response_by(
    now: datetime, response_timeout: timedelta, parts: int, *, slot_wait: timedelta = _NO_TIME
) -> datetime:
    """When the outcome of a submit that is claimed now is unknown, if it was not recorded."""
    return now + submit_within(response_timeout, parts, slot_wait=slot_wait)


def submit_activity_within(response_timeout: timedelta, parts: int) -> timedelta:
    """How long the activity that submits one message may take, with the wait for its slot."""
    return SLOT_WAIT + submit_within(response_timeout, parts)


def queue_within(*, must_arrive: bool) -> timedelta:
    """How long a task waits for a worker of its provider before another route is looked for."""
    return _QUEUE_TIME_URGENT if must_arrive else _QUEUE_TIME


# --- cancel at the provider ----------------------------------------------------------------------


def cancel_within(response_timeout: timedelta) -> timedelta:
    """How long the responses to all `cancel_sm` of an attempt are waited for, however many parts.

    They are sent at once; half of the time is for their places in the windows.
    """
    return 2 * response_timeout


def cancel_activity_within(response_timeout: timedelta) -> timedelta:
    """How long the activity that cancels may take: longer than `cancel_within`, to record it."""
    return CLAIM_TIME + cancel_within(response_timeout) + RECORD_TIME + SLOT_WAIT


# --- receipt -------------------------------------------------------------------------------------


def receipt_deadline(
    requested: timedelta | None,
    mode: timedelta | None,
    provider: timedelta,
    *,
    next_route: bool,
) -> timedelta | None:
    """How long a receipt is waited for; None for as long as the message is valid.

    The request's own time counts before the mode's. Where the next route follows (`next_route`), the
    provider's bounds the mode's; elsewhere it has no say, since no other provider could do better.
    """
    if requested is not None:
        return requested
    if not next_route:
        return mode
    return provider if mode is None else min(mode, provider)


def last_receipt_by(valid_until: datetime) -> datetime:
    """When a receipt is not waited for any longer, whatever else holds."""
    return valid_until + AFTER_VALIDITY


def last_failover(now: datetime, valid_until: datetime) -> datetime:
    """When the next route must get a message that a provider has now, to have a chance.

    `FAILOVER_TIME` before the end of the validity; half of what is left of it, where that is later.
    """
    return max(valid_until - FAILOVER_TIME, now + (valid_until - now) / 2)


def receipt_by(
    now: datetime,
    valid_until: datetime,
    deadline: timedelta | None,
    *,
    next_route: bool,
    alternatives: int,
) -> datetime:
    """How long to wait for the receipt of an attempt that starts now.

    A silent phone is usually off, so a message waits until it is no longer valid: without a
    `deadline`, and where it must go on to the next route (`next_route`) and has no `alternatives`,
    that is, other providers that have not tried it. Where it has some, it never waits so long that
    these have no chance.
    """
    at_last = last_receipt_by(valid_until)
    if deadline is None or (next_route and not alternatives):
        return at_last
    by = min(at_last, now + deadline)
    return min(by, last_failover(now, valid_until)) if next_route else by


def receipt_by_after_enroute(
    receipt_by: datetime, at: datetime, deadline: timedelta, valid_until: datetime
) -> datetime:
    """How long to wait after an ENROUTE receipt that came at `at`: never shorter than before.

    It extends the wait by one `deadline`, counted from the receipt, and not by earlier extensions.
    """
    return max(receipt_by, min(at + deadline, last_receipt_by(valid_until)))


def part_valid_until(
    now: datetime, valid_until: datetime, receipt_wait: timedelta | None
) -> datetime:
    """Until when a provider may try to deliver a part that is sent now (SMPP `validity_period`).

    No longer than its receipt is waited for, since then the next route may get the message.
    """
    return valid_until if receipt_wait is None else min(valid_until, now + receipt_wait)


def same_route_at(settled_at: datetime, attempts: int) -> datetime:
    """When a provider may get a message again after so many attempts that only ran out of time."""
    return settled_at + min(_SAME_ROUTE_MAX, _SAME_ROUTE_MIN * (1 << min(attempts - 1, 8)))


def unknown_until(now: datetime, provider_deadline: timedelta) -> datetime:
    """How long a receipt may still resolve an outcome that is unknown from now on."""
    return now + provider_deadline


# --- polls of receipts ---------------------------------------------------------------------------

POLL_RECEIPTS_FOR: Final = timedelta(days=3)
"""How long after the submit the receipt of a part is requested."""
_LONGEST_POLL_WAIT: Final = timedelta(hours=1)
_LAST_POLL_BEFORE: Final = timedelta(seconds=30)
"""How long before the receipt's deadline the last poll is."""


def receipt_poll_within(response_timeout: timedelta) -> timedelta:
    """How long a provider may take to say what has become of a part: for a slot, and for the response."""
    return 2 * response_timeout


def poll_receipt_again_after(
    poll_after: timedelta, polls: int, response_timeout: timedelta, receipt_in: timedelta
) -> timedelta:
    """How long after a poll the same part is due again, if that was the poll with this number, from 1.

    Each wait is twice as long as the one before, up to an hour, or `poll_after` if that is longer. One
    that would pass the receipt's deadline, in `receipt_in` from now, ends before it instead, where that
    makes it no shorter than the half. None is shorter than a poll may take: no two are under way at once.
    """
    wait = poll_after
    if wait < _LONGEST_POLL_WAIT:
        wait = min(_LONGEST_POLL_WAIT, poll_after * (1 << min(polls, 20)))
    last = receipt_in - _LAST_POLL_BEFORE
    if wait / 2 <= last < wait:
        wait = last
    return max(wait, receipt_poll_within(response_timeout) + RECORD_TIME)


# --- parts ---------------------------------------------------------------------------------------

_REASSEMBLY_TIME: Final = timedelta(days=3)


def reassembly_since(now: datetime) -> datetime:
    """Since when no reference of parts may have been used that is used now.

    A part may come as late as a message is valid, three days at most, and is then joined with what has
    the same reference.
    """
    return now - _REASSEMBLY_TIME


# --- outage --------------------------------------------------------------------------------------


def outage_since(ready_since: datetime, *events: datetime | None) -> datetime:
    """When a message began to wait for its providers: since it could be sent, and all were down.

    `events` are what came last, as far as it is known: the moments at which its providers went
    down, and its last attempt's end.
    """
    return max([ready_since, *(event for event in events if event is not None)])


def outage_end(since: datetime, patience: timedelta) -> datetime:
    """When a message has waited long enough for its providers."""
    return since + patience


def outage_check(now: datetime, since: datetime, end: datetime) -> datetime:
    """When to look again whether a provider is up: the longer it takes, the less often."""
    pause = min(_OUTAGE_CHECK_MAX, max(_OUTAGE_CHECK_MIN, (now - since) / 2))
    return min(end, now + pause)


# --- reconciliation ------------------------------------------------------------------------------


def reconcile_at(expected: datetime) -> datetime:
    """When the reconciler looks at a message whose next step was expected then (`check_by`)."""
    return expected + RECONCILE_AFTER


def reconcile_task_at(now: datetime, queue_within: timedelta, within: timedelta) -> datetime:
    """When the reconciler looks at a message whose next step is a provider's task from now on."""
    return reconcile_at(now + queue_within + within)


def reconcile_start_at(now: datetime) -> datetime:
    """When the reconciler starts a runner that is to be started now, if it was not."""
    return now + _RECONCILE_START_AFTER


def reconcile_bulk_at(now: datetime) -> datetime:
    """When the reconciler looks at a bulk whose runner, which does so every five minutes, does now."""
    return now + _RECONCILE_BULK_AFTER


def reconcile_again_at(now: datetime) -> datetime:
    """When the reconciler looks again at what it takes up now."""
    return now + _RECONCILE_AGAIN_AFTER

"""What SMPP statuses mean: a fault of the message fails it, a carrier's own view goes elsewhere."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.delivery import AttemptFacts, Finish, MessageFacts, RouteOption, Submit, decide
from domain.error_classes import RETRIES, ErrorClass, Failover
from domain.modes import MODE_POLICIES, Mode
from domain.provider_codes.smpp import SMPP_ERRORS, classify_smpp
from domain.states import AttemptStatus, MessageStatus
from smpp.statuses import Status

NOW = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
A, B = RouteOption("a", up=True), RouteOption("b", up=True)

THE_RECIPIENT = {Status.ESME_RINVDSTADR}
ASKS_TO_WAIT = {Status.ESME_RTHROTTLED, Status.ESME_RMSGQFUL}
USUALLY_PASSES = {Status.ESME_RSYSERR, Status.ESME_RX_T_APPN}
THE_SESSION = {
    Status.ESME_RINVBNDSTS,
    Status.ESME_RALYBND,
    Status.ESME_RBINDFAIL,
    Status.ESME_RINVPASWD,
    Status.ESME_RINVSYSID,
}
EVERY_STATUS = sorted({*Status, *range(1, 0x110), *range(0x400, 0x500), 0xFFFFFFFF} - {0})


def after_refusal(status: int, mode: Mode, *options: RouteOption):
    """What is decided about a message that carrier A has just refused with this status."""
    error = classify_smpp(status)
    refused = AttemptFacts(
        number=1,
        provider="a",
        status=AttemptStatus.THROTTLED if RETRIES[error].waits else AttemptStatus.REFUSED,
        started_at=NOW,
        response_by=NOW,
        settled_at=NOW,
        receipt_by=NOW,
        error_class=error,
    )
    facts = MessageFacts(
        first_attempt=1,
        verdict=None,
        reason=None,
        since=NOW,
        valid_until=NOW + timedelta(hours=24),
        scheduled_at=None,
        cancel_requested=False,
        attempts=(refused,),
    )
    return decide(facts, options, MODE_POLICIES[mode], NOW)


@pytest.mark.parametrize("mode", sorted(Mode))
def test_only_a_fault_of_the_recipient_ends_a_message_before_the_next_carrier_was_asked(mode):
    for status in EVERY_STATUS:
        decision = after_refusal(status, mode, A, B)
        if status in THE_RECIPIENT:
            assert decision == Finish(MessageStatus.FAILED, "invalid_recipient"), hex(status)
        elif status in ASKS_TO_WAIT | USUALLY_PASSES and not MODE_POLICIES[mode].must_arrive:
            assert not isinstance(decision, Submit | Finish), hex(status)
        else:
            assert decision == Submit("b", 2), hex(status)


def test_a_sender_that_one_carrier_does_not_know_is_offered_to_the_next_one():
    for status in (
        Status.ESME_RINVSRCADR,
        Status.ESME_RINVSRCTON,
        Status.ESME_RINVSRCNPI,
    ):
        assert after_refusal(status, Mode.TRANSACTIONAL, A, B) == Submit("b", 2)
        alone = after_refusal(status, Mode.TRANSACTIONAL, A)
        assert alone == Finish(MessageStatus.FAILED, "route")


def test_every_status_has_the_class_of_its_remedy():
    groups = {
        ErrorClass.INVALID_RECIPIENT: THE_RECIPIENT,
        ErrorClass.THROTTLED: {Status.ESME_RTHROTTLED},
        ErrorClass.QUEUE_FULL: {Status.ESME_RMSGQFUL},
        ErrorClass.TEMPORARY: USUALLY_PASSES,
        ErrorClass.SESSION: THE_SESSION,
    }
    for error, statuses in groups.items():
        assert {s for s in EVERY_STATUS if classify_smpp(s) is error} == {*map(int, statuses)}
    known = set().union(*groups.values())
    assert all(classify_smpp(s) is ErrorClass.ROUTE for s in EVERY_STATUS if s not in known)
    assert set(SMPP_ERRORS.values()) == {*groups, ErrorClass.ROUTE}


def test_a_providers_own_meaning_of_a_status_goes_before_the_table():
    own = {0x0A: ErrorClass.INVALID_MESSAGE}
    assert classify_smpp(0x0A, own) is ErrorClass.INVALID_MESSAGE
    assert classify_smpp(0x0B, own) is ErrorClass.INVALID_RECIPIENT


def test_what_waits_is_not_permanent_and_leaves_room_for_other_routes():
    for error, rule in RETRIES.items():
        if rule.waits:
            assert not rule.permanent, error
            assert rule.failover is not Failover.NEVER, error
            assert rule.max_delay >= timedelta(seconds=60), error

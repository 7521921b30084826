"""An event is a short sentence, whatever the gateway writes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smsgateway import AccountEvent, MessageStatus

from smsctl.columns import event_line, moment_line
from smsctl.sentences import CODES, REASONS, sentence

WIDE = 80
ID = "msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"
AT = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
RANKING = [
    {"provider": "primary", "standing": "chosen", "up": True},
    {"provider": "backup", "standing": "down", "up": False, "down_since": "2026-12-01T08:00:00Z"},
]


def event(kind, **more):
    return AccountEvent(**{"seq": 1, "at": AT, "kind": kind, "message_id": ID, **more})


SUBMIT = {
    "attempt": 1,
    "provider": "primary",
    "reason": "submit",
    "actor": "workflow",
    "detail": {"role": "providers", "route": 0, "configuration": 1, "ranking": RANKING},
}


@pytest.mark.parametrize(
    ("happened", "said"),
    [
        (
            event("decided", **SUBMIT),
            "primary is chosen for attempt 1: primary > backup (down).",
        ),
        (
            event("decided", provider="primary", reason="cancel_at_provider"),
            "primary is asked to cancel it.",
        ),
        (
            event("decided", status="failed", reason="route"),
            "It is to end as failed: every provider refused it.",
        ),
        (event("moved", status="sending", provider="primary"), "Submitted to primary."),
        (
            event("moved", status="retried", provider="primary", code="0x00000001"),
            "To be retried after primary (ESME_RINVMSGLEN).",
        ),
        (
            event("moved", status="failed", provider="backup", code="0x00000045", reason="route"),
            "Failed (ESME_RSUBMITFAIL): every provider refused it.",
        ),
        (event("moved", status="canceled", reason="canceled"), "Cancelled."),
        (event("moved", status="dead_letter", reason="no_provider_up"), "Dead letter: no provider was up."),
        (event("moved", status="unknown"), "Outcome unknown: no response from a provider."),
        (
            event("receipt", status="undeliverable", provider="primary", code="027"),
            "Receipt from primary: undeliverable (code 027).",
        ),
        (event("receipt", status="delivered", provider="primary", code="000"), "Receipt from primary: delivered."),
        (event("new_kind", provider="primary", code="0x00000410"), "New kind from primary (0x410)."),
    ],
)  # fmt: skip
def test_an_event_is_a_sentence(happened, said):
    assert sentence(happened) == said
    assert moment_line(happened).plain == f"09:00:00.000Z  {said}"
    assert event_line(happened) == f"09:00:00Z {ID} {said}"


NAMES = st.sampled_from(["primary", "backup"])


@given(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(
                ["moved", "decided", "receipt", "accepted", "cancelled_at_provider", "duplicate"]
            ),
            "status": st.none() | st.sampled_from([*MessageStatus, "enroute", "undeliverable"]),
            "provider": st.none() | NAMES,
            "attempt": st.none() | st.integers(1, 99),
            "reason": st.none() | st.sampled_from([*REASONS, "delivered", "submit", "resume"]),
            "code": st.none()
            | st.sampled_from(["", "000", "0xzz", *(f"0x{n:08x}" for n in CODES)]),
            "detail": st.just({}) | st.just({"ranking": RANKING}) | st.none(),
        }
    )
)
def test_every_event_fits_a_line_and_shows_no_internals(about):
    line = moment_line(event(**about)).plain
    assert len(line) <= WIDE + 20
    assert line.endswith(".")
    assert "{" not in line
    assert "standing" not in line
    assert "by workflow" not in line

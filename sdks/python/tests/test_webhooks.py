import base64
import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from smsgateway import CallbackRefused, MessageStatus, verify_callback, verify_callbacks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = datetime(2026, 12, 1, 9, tzinfo=UTC)
MOMENT = NOW.timestamp()
BODY = json.dumps(
    {
        "message_id": "msg_1",
        "to": "+447700900123",
        "status": "DELIVERED",
        "provider_code": "000",
        "timestamp": "2026-12-01T09:00:00Z",
    }
)


def headers(body=BODY, secret=SECRET, at=NOW, callback_id="cb_1"):
    return {
        "Webhook-Id": callback_id,
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": Webhook(secret).sign(callback_id, at.replace(tzinfo=UTC), body),
    }


def verified(secret=SECRET, given_headers=None, body=BODY, now=MOMENT):
    return verify_callback(
        secret, headers() if given_headers is None else given_headers, body.encode(), now=now
    )


def test_a_callback_signed_by_the_standard_library_of_webhooks_is_verified():
    notice = verified()
    assert notice.callback_id == "cb_1"
    assert notice.status is MessageStatus.DELIVERED
    assert (notice.message_id, notice.to, notice.provider_code) == (
        "msg_1",
        "+447700900123",
        "000",
    )
    assert notice.timestamp == NOW


def test_the_clock_is_used_unless_a_time_is_given():
    at = datetime.now(UTC)
    assert verify_callback(SECRET, headers(at=at), BODY).message_id == "msg_1"


def test_another_secret_does_not_verify():
    with pytest.raises(CallbackRefused, match="signature does not match"):
        verified(secret="whsec_" + base64.b64encode(b"another").decode())


def test_any_of_several_secrets_verifies():
    old = "whsec_" + base64.b64encode(b"old").decode()
    assert verified(secret=[old, SECRET]).callback_id == "cb_1"


def test_any_of_several_signatures_verifies():
    signed = headers()
    signed["Webhook-Signature"] = f"v1a,xyz v1,!! v1,\u00f6 v1,AAAA {signed['Webhook-Signature']}"
    assert verified(given_headers=signed).callback_id == "cb_1"


@pytest.mark.parametrize(("seconds", "what"), [(301, "too old"), (-301, "from the future")])
def test_a_callback_that_is_not_fresh_is_refused(seconds, what):
    with pytest.raises(CallbackRefused, match=what):
        verified(now=MOMENT + seconds)


@pytest.mark.parametrize("seconds", [300, 0, -300])
def test_a_callback_within_the_tolerance_is_taken(seconds):
    assert verified(now=MOMENT + seconds).callback_id == "cb_1"


@pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_missing_header_is_named(name):
    signed = headers()
    del signed[name]
    with pytest.raises(CallbackRefused, match=re.escape(name.lower())):
        verified(given_headers=signed)


@pytest.mark.parametrize("timestamp", ["soon", "-1", "1e9", "9" * 5000, "\u0661"])
def test_a_timestamp_that_is_none_is_refused(timestamp):
    with pytest.raises(CallbackRefused, match=r"number of seconds|future"):
        verified(given_headers={**headers(), "Webhook-Timestamp": timestamp})


@given(st.integers(0, len(BODY) - 1), st.characters(codec="ascii"))
def test_a_body_changed_anywhere_is_refused(position, character):
    changed = BODY[:position] + character + BODY[position + 1 :]
    if changed == BODY:
        return
    with pytest.raises(CallbackRefused):
        verified(body=changed)


def test_a_signed_body_that_is_no_callback_is_refused_without_repeating_it():
    body = '{"to": "+447700900123"}'
    with pytest.raises(CallbackRefused, match="not a callback") as refused:
        verified(given_headers=headers(body), body=body)
    assert refused.value.__cause__ is None


def test_many_callbacks_of_one_request_come_in_their_order_each_with_its_id():
    sent = json.loads(BODY) | {"status": "SENT", "id": "cb_1"}
    delivered = json.loads(BODY) | {"id": "cb_2"}
    body = json.dumps({"events": [sent, delivered]})
    notices = verify_callbacks(SECRET, headers(body, callback_id="cbr_1"), body, now=MOMENT)
    assert [(notice.callback_id, notice.status) for notice in notices] == [
        ("cb_1", MessageStatus.SENT),
        ("cb_2", MessageStatus.DELIVERED),
    ]
    with pytest.raises(CallbackRefused, match="signature does not match"):
        verify_callbacks(SECRET, headers(callback_id="cbr_1"), body, now=MOMENT)


def test_a_receiver_of_many_takes_one_as_well():
    assert verify_callbacks(SECRET, headers(), BODY, now=MOMENT) == (verified(),)


@pytest.mark.parametrize("events", ['"all"', '["x"]', '[{"message_id": "msg_1"}]', f"[{BODY}]"])
def test_a_signed_list_that_is_none_of_callbacks_is_refused_without_repeating_it(events):
    body = f'{{"events": {events}}}'
    with pytest.raises(CallbackRefused, match="not a callback") as refused:
        verify_callbacks(SECRET, headers(body), body, now=MOMENT)
    assert refused.value.__cause__ is None
    assert "447700900123" not in str(refused.value)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_***", "n\u00f6"])
def test_a_secret_that_is_none_is_a_mistake_of_the_receiver(secret):
    with pytest.raises(ValueError, match="whsec_ followed by base64") as mistaken:
        verified(secret=secret)
    assert not isinstance(mistaken.value, CallbackRefused)

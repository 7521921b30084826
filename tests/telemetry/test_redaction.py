"""What may leave the process, by key and shape."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.modes import Mode
from telemetry.redaction import ALLOWED, REDACTED, masked, redacted

MESSAGE_ID = "msg_" + "0123456789abcdef" * 2

NUMBERS = [
    "+447700900123",
    "447700900123",
    "07700900123",
    "+44 7700 900123",
    "+44-7700-900-123",
    "(201) 555-0100",
    "201.555.0100",
    "00447700900123",
    "tel:+12015550100",
    "+٤٤٧٧٠٠٩٠٠١٢٣",
    "sip:12015550100@example.net",
    "n447700900123",
    "4477-0090-0123",
]
BODIES = ["Your code is 493021", "hello there", "Disk full on db-1", "été", "a\nb", "493021", "😀"]


# Hosts and networks look like numbers; they come from the configuration and from tables only.
EXCEPTIONS = {
    ("host", "201.555.0100"),
    ("host", "07700.900.123"),
    ("host", "+44-7700-900-123"),
    ("host", "4477-0090-0123"),
    ("host", "tel:+12015550100"),
    ("host", "n447700900123"),
    ("network", "493021"),
}


@pytest.mark.parametrize("key", sorted(ALLOWED))
def test_a_phone_number_or_a_body_passes_under_no_key(key):
    passed = [text for text in (*NUMBERS, *BODIES) if redacted({key: text})[key] != REDACTED]
    assert [text for text in passed if (key, text) not in EXCEPTIONS] == []


@pytest.mark.parametrize("key", sorted(ALLOWED))
def test_neither_numbers_as_figures_nor_objects_pass(key):
    for value in (447700900123, -447700900123, 12015550100.0, [1], {"a": "b"}, b"x", object()):
        assert redacted({key: value})[key] == REDACTED


@pytest.mark.parametrize(
    ("key", "value", "passed"),
    [
        ("message_id", MESSAGE_ID, MESSAGE_ID),
        ("message_id", UUID(int=1), str(UUID(int=1))),
        ("account_id", "acme", "acme"),
        ("workflow_id", f"send/{MESSAGE_ID}", f"send/{MESSAGE_ID}"),
        ("workflow_id", "callbacks/acme/" + "0" * 64, "callbacks/acme/" + "0" * 64),
        ("task_queue", "provider/primary", "provider/primary"),
        ("route", "/api/v1/sms/{message_id}", "/api/v1/sms/{message_id}"),
        ("mode", Mode.TWO_WAY, "two_way"),
        ("code", "0x00000058", "0x00000058"),
        ("code", 30003, "30003"),
        ("code", "23505", "23505"),
        ("code", "UNDELIV", "UNDELIV"),
        ("code", "", ""),
        ("status", 202, "202"),
        ("country", "GB", "GB"),
        ("network", "310150", "310150"),
        ("host", "smsc.example.net", "smsc.example.net"),
        ("host", "127.0.0.1", "127.0.0.1"),
        ("duration_ms", 12.3456789, 12.345679),
        ("delay_s", timedelta(minutes=1), 60.0),
        ("ready", True, True),
        ("count", 0, 0),
        ("until", datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ("provider", None, None),
    ],
)
def test_what_belongs_to_a_key_passes(key, value, passed):
    assert redacted({key: value}) == {key: passed}


@pytest.mark.parametrize(
    "key", ["to", "from", "body", "text", "sender", "recipient", "url", "hello"]
)
def test_keys_that_nobody_listed_are_counted_and_not_named(key):
    assert redacted({key: "x", "provider": "primary"}) == {"provider": "primary", "dropped": 1}


@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(sorted(ALLOWED)), st.text()))
def test_only_listed_keys_come_out(values):
    assert set(redacted(values)) <= set(ALLOWED)


@pytest.mark.parametrize("number", NUMBERS[:-2])
def test_numbers_are_masked_in_foreign_texts(number):
    cleaned = masked(f"cannot send to {number} now")
    assert not any(character.isdecimal() for character in cleaned)
    assert cleaned.startswith("cannot send to ")


@pytest.mark.parametrize(
    "text",
    [
        "invalid value 'hello there'",
        'duplicate key "hello there"',
        "column `hello there`",
        "GET /sms?body=hello%20there",
        "mail to hello.there@example.com",
    ],
)
def test_what_is_quoted_and_addressed_is_masked(text):
    assert "hello" not in masked(text)


def test_small_figures_stay_in_foreign_texts():
    assert masked("took 35 ms on port 7233") == "took 35 ms on port 7233"


@given(st.text(), st.integers(min_value=10**6, max_value=10**15), st.text())
@example("1", 10**14, "2")
def test_no_number_is_left_whatever_surrounds_it(before, number, after):
    assert str(number) not in masked(before + str(number) + after, longest=10_000)


@given(st.text())
def test_a_masked_text_is_one_printable_line(text):
    assert all(character.isprintable() for character in masked(text))

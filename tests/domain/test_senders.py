# ruff: noqa: RUF001  characters that look like others are what is tested here
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.encoding import encode_gsm7
from domain.senders import (
    _ADDRESSING,
    _ADVICE,
    InvalidSender,
    SenderKind,
    SenderProblem,
    parse_sender,
)


@pytest.mark.parametrize(
    ("written", "kind", "value", "address", "ton", "npi"),
    [
        ("ACME", SenderKind.ALPHANUMERIC, "ACME", "ACME", 5, 0),
        ("Booking.com", SenderKind.ALPHANUMERIC, "Booking.com", "Booking.com", 5, 0),
        (" H&M 24_7 ", SenderKind.ALPHANUMERIC, "H&M 24_7", "H&M 24_7", 5, 0),
        ("A", SenderKind.ALPHANUMERIC, "A", "A", 5, 0),
        ("4Paws", SenderKind.ALPHANUMERIC, "4Paws", "4Paws", 5, 0),
        ("123", SenderKind.SHORT_CODE, "123", "123", 3, 0),
        ("88001234", SenderKind.SHORT_CODE, "88001234", "88001234", 3, 0),
        ("+44 7700 900123", SenderKind.LONG_NUMBER, "+447700900123", "447700900123", 1, 1),
        ("447700900123", SenderKind.LONG_NUMBER, "+447700900123", "447700900123", 1, 1),
        ("44 7700-900.123", SenderKind.LONG_NUMBER, "+447700900123", "447700900123", 1, 1),
        ("12015550100", SenderKind.LONG_NUMBER, "+12015550100", "12015550100", 1, 1),
    ],
)
def test_senders_are_read_and_addressed_by_their_kind(written, kind, value, address, ton, npi):
    sender = parse_sender(written)
    assert (sender.kind, sender.value, sender.address) == (kind, value, address)
    assert (sender.ton, sender.npi) == (ton, npi)


def test_numbers_and_short_codes_can_be_answered_and_names_cannot():
    assert parse_sender("+447700900123").takes_replies
    assert parse_sender("88001").takes_replies
    assert not parse_sender("ACME").takes_replies


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", SenderProblem.EMPTY),
        ("   ", SenderProblem.EMPTY),
        ("TwelveLetter", SenderProblem.TOO_LONG),
        ("#!&", SenderProblem.NO_LETTER),
        ("12#34", SenderProblem.NO_LETTER),
        ("Café", SenderProblem.CHARACTER_NOT_ALLOWED),
        ("me@acme", SenderProblem.CHARACTER_NOT_ALLOWED),
        ("Ca$h", SenderProblem.CHARACTER_NOT_ALLOWED),
        ("A\x00B", SenderProblem.CHARACTER_NOT_ALLOWED),
        ("A\nB", SenderProblem.CHARACTER_NOT_ALLOWED),
        ("АCME", SenderProblem.CHARACTER_NOT_ALLOWED),  # begins with a Cyrillic letter
        ("12", SenderProblem.NOT_A_NUMBER),
        ("123456789", SenderProblem.NOT_A_NUMBER),
        ("+12345", SenderProblem.NOT_A_NUMBER),
        ("07700900123", SenderProblem.NOT_A_NUMBER),
        ("999123456789", SenderProblem.NOT_A_NUMBER),
        ("+ACME", SenderProblem.NOT_A_NUMBER),
        ("١٢٣٤٥", SenderProblem.CHARACTER_NOT_ALLOWED),
    ],
)
def test_what_is_no_sender_is_refused_with_its_problem(written, problem):
    with pytest.raises(InvalidSender) as refusal:
        parse_sender(written)
    assert refusal.value.problem is problem


@given(st.text(max_size=14) | st.text("ACMEacme019 &._-+@$é", max_size=14))
def test_any_text_is_a_sender_that_smpp_can_carry_or_a_refusal_without_the_text(text):
    refusal = None
    try:
        sender = parse_sender(text)
    except InvalidSender as error:
        refusal = error
    if refusal is not None:
        assert str(refusal) == _ADVICE[refusal.problem]
        return
    assert sender.address.isascii()
    assert "\x00" not in sender.address
    assert 1 <= len(sender.address) <= 20
    assert parse_sender(sender.value) == sender
    if sender.kind is SenderKind.ALPHANUMERIC:
        assert len(encode_gsm7(sender.value)) <= 11
        plain = sender.value.replace("_", "")
        assert encode_gsm7(plain) == plain.encode("ascii")


def test_a_number_of_great_length_is_refused_at_once():
    with pytest.raises(InvalidSender):
        parse_sender("1-" * 50_000 + "x")


def test_every_problem_has_its_advice_and_every_kind_its_addressing():
    assert set(_ADVICE) == set(SenderProblem)
    assert set(_ADDRESSING) == set(SenderKind)

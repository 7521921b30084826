"""Receipt tokens: each names one attempt, and nobody else can make one."""

import string

from hypothesis import given
from hypothesis import strategies as st

from domain.receipt_tokens import LENGTH, ReceiptTokens
from domain.receipts import PartIdentity

TOKENS = ReceiptTokens(b"k" * 32)
ALPHABET = string.ascii_letters + string.digits + "-_"
attempts = st.tuples(st.uuids(), st.integers(1, 0x7FFF))


@given(attempts, st.integers(1, 255))
def test_a_token_names_its_attempt_and_is_the_same_each_time_that_it_is_made(attempt, number):
    token = TOKENS.token(*attempt)
    assert token == ReceiptTokens(b"k" * 32).token(*attempt)
    assert TOKENS.read(token, number) == PartIdentity(*attempt, number)


@given(attempts)
def test_a_token_needs_no_escaping_in_a_url_and_has_its_length(attempt):
    token = TOKENS.token(*attempt)
    assert len(token) == LENGTH
    assert set(token) <= set(ALPHABET)


@given(attempts, attempts)
def test_two_attempts_have_different_tokens(one, other):
    assert (TOKENS.token(*one) == TOKENS.token(*other)) == (one == other)


@given(attempts, st.integers(0, LENGTH - 1), st.sampled_from(ALPHABET))
def test_a_token_with_one_other_character_names_nothing(attempt, place, character):
    token = TOKENS.token(*attempt)
    changed = token[:place] + character + token[place + 1 :]
    assert changed == token or TOKENS.read(changed) is None


@given(attempts)
def test_a_token_of_another_installation_names_nothing(attempt):
    assert TOKENS.read(ReceiptTokens(b"other").token(*attempt)) is None


@given(st.text(max_size=60) | st.text(min_size=LENGTH, max_size=LENGTH))
def test_whatever_text_comes_instead_of_a_token_names_nothing(text):
    assert TOKENS.read(text) is None

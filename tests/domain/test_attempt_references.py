"""References of attempts: one for each, in letters and digits of one case, and nothing else is one."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.attempt_references import LENGTH, attempt_reference, part_of_reference
from domain.receipts import PartIdentity

REFERENCE = attempt_reference(UUID(int=7), 2)


@given(st.uuids(), st.integers(0, 0xFFFF))
def test_a_reference_names_its_attempt_whatever_its_capitals(message_id, attempt):
    reference = attempt_reference(message_id, attempt)
    assert len(reference) == LENGTH == 29
    assert reference.isalnum()
    assert reference == reference.lower()
    named = PartIdentity(message_id, attempt, 1)
    assert part_of_reference(reference) == part_of_reference(reference.upper()) == named


@pytest.mark.parametrize(
    "text", ["", "mine", REFERENCE[:-1], f"{REFERENCE}0", REFERENCE[:-1] + "z", "é" * 29, "=" * 29]
)
def test_any_other_text_names_nothing(text):
    assert part_of_reference(text) is None


@given(st.text(max_size=40))
def test_no_text_raises(text):
    part_of_reference(text)

"""Public ids: one text for each thing."""

from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.ids import IdPrefix, parse_id, public_id

HEX = "019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"


@given(st.uuids(), st.sampled_from(IdPrefix))
def test_an_id_names_what_it_was_made_for(uuid: UUID, prefix: IdPrefix) -> None:
    assert parse_id(prefix, public_id(prefix, uuid)) == uuid


@given(st.text("0123456789abcdefABCDEF+-_ \n{}\u0661\uff11", min_size=30, max_size=34))
@example(HEX.upper())
@example("+" + HEX[1:])
@example(HEX[:-1] + "\n")
@example(HEX[:-1] + "\u0661")
@example(HEX[:4] + "_" + HEX[5:])
def test_no_other_text_is_an_id(digits: str) -> None:
    found = parse_id(IdPrefix.MESSAGE, f"msg_{digits}")
    assert found is None or public_id(IdPrefix.MESSAGE, found) == f"msg_{digits}"


@pytest.mark.parametrize("text", ["", "msg_", HEX, f"bat_{HEX}", f"MSG_{HEX}", f"msg__{HEX}"])
def test_an_id_has_its_prefix(text: str) -> None:
    assert parse_id(IdPrefix.MESSAGE, text) is None

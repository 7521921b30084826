"""Texts with places: what is cut, what is filled, and what no text may cost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.templates import InvalidTemplate, MissingVariable, Template, TooLong

LONGEST = 1000
NAMES = st.sampled_from(["a", "b", "first_name", "_"])
PIECES = st.one_of(
    st.text("xy é😀\n", max_size=5), NAMES.map("{{{}}}".format), st.sampled_from(["{{", "}}"])
)
TEXTS = st.lists(PIECES, max_size=20).map("".join)
VARIABLES = st.dictionaries(NAMES, st.text(max_size=9))


@given(text=TEXTS, variables=VARIABLES)
def test_the_length_is_computed_without_the_text(text: str, variables: dict[str, str]) -> None:
    template = Template.parse(text, LONGEST)
    missing = [name for name in template.names if name not in variables]
    if not missing:
        assert template.length(variables) == len(template.fill(variables))
        return
    for ask in (template.length, template.fill):
        with pytest.raises(MissingVariable) as refusal:
            ask(variables)
        assert refusal.value.name == missing[0]


@given(text=TEXTS, variables=VARIABLES)
def test_places_are_filled_and_double_braces_are_braces(
    text: str, variables: dict[str, str]
) -> None:
    everything = dict.fromkeys(("a", "b", "first_name", "_"), "") | variables
    expected = re.sub(
        r"\{\{|\}\}|\{(\w+)\}",
        lambda found: everything[found[1]] if found[1] else found[0][0],
        text,
    )
    assert Template.parse(text, LONGEST).fill(everything) == expected


def test_a_length_costs_as_many_steps_as_there_are_different_names() -> None:
    class Counting(dict[str, str]):
        steps = 0

        def __getitem__(self, name: str) -> str:
            self.steps += 1
            return super().__getitem__(name)

    variables = Counting(a="😀" * 1000, b="")
    template = Template.parse("{a}" * 20_000 + "{b}", 30_000)
    assert template.length(variables) == 20_000_000
    assert variables.steps == 2


@pytest.mark.parametrize("text", ["x" * 1001, "{{" * 1001, "{a}" * 1001, "x" * 999 + "{a}}}xx"])
def test_a_text_that_is_too_long_for_everybody_is_refused(text: str) -> None:
    with pytest.raises(TooLong):
        Template.parse(text, LONGEST)


def test_parsing_stops_where_the_text_is_too_long() -> None:
    with pytest.raises(TooLong):
        Template.parse("{{" * 2_000_000 + "{", LONGEST)
    with pytest.raises(TooLong):
        Template.parse("{a}" * 2_000_000 + "{", LONGEST)
    with pytest.raises(InvalidTemplate):
        Template.parse("{", LONGEST)


def test_a_name_has_at_most_the_length_of_a_variables_name() -> None:
    assert Template.parse("{" + "a" * 64 + "}", LONGEST).names == ("a" * 64,)
    with pytest.raises(InvalidTemplate, match="character 1 "):
        Template.parse("{" + "a" * 65 + "}", LONGEST)

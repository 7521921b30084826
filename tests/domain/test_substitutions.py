# ruff: noqa: RUF001  characters that look like others are what is tested here
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.encoding import GSM7_CHARACTERS, DefaultAlphabet, is_gsm7
from domain.substitutions import SUBSTITUTIONS, Replacement, substitute


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("“Don’t” – ‘wait’…", "\"Don't\" - 'wait'..."),
        ("«Bonjour» „Tag‟", '"Bonjour" "Tag"'),
        ("12\u00a0345\u202fkr\u2009!", "12 345 kr !"),
        ("zero\u200bwidth\u2060, soft\u00adhyphen, \ufeffmark", "zerowidth, softhyphen, mark"),
        ("a\tb\u2028c", "a b\nc"),
        ("`code` ´accent´", "'code' 'accent'"),
        ("e\u0301te\u0301 a\u0300 N\u0303", "été à Ñ"),
        ("o\ufb03ce", "office"),
        ("3×4 • 5⁄6", "3x4 * 5/6"),
        ("10 k\u2126", "10 kΩ"),
    ],
)
def test_typography_becomes_what_gsm7_has(written, sent):
    text, replacements = substitute(written)
    assert text == sent
    assert replacements


def test_each_replacement_is_listed_once_with_its_count_in_order_of_appearance():
    _, replacements = substitute("“Don’t” “can’t” e\u0301")
    assert replacements == (
        Replacement("“", '"', 2),
        Replacement("’", "'", 2),
        Replacement("”", '"', 2),
        Replacement("e\u0301", "é", 1),
    )


@pytest.mark.parametrize(
    "text", ["“Привет”", "Don’t 😀", "naïve – ł", "é\ufe0f\u20e3", "x\u0301 ’"]
)
def test_a_text_that_stays_ucs2_is_left_as_it_is(text):
    assert substitute(text) == (text, ())


def test_a_text_that_is_gsm7_already_is_left_as_it_is():
    assert substitute("Ça coûte".replace("û", "u") + " €5 ~ {ok}") == ("Ça coute €5 ~ {ok}", ())


def test_through_a_latin1_smsc_nothing_is_replaced_where_a_euro_keeps_the_text_ucs2():
    assert substitute("5 € – ok", DefaultAlphabet.LATIN1) == ("5 € – ok", ())
    assert substitute("5 kr – ok", DefaultAlphabet.LATIN1)[0] == "5 kr - ok"


def test_the_table_replaces_only_what_gsm7_lacks_and_only_by_what_it_has():
    assert not SUBSTITUTIONS.keys() & GSM7_CHARACTERS
    assert all(is_gsm7(replacement) for replacement in SUBSTITUTIONS.values())


@given(st.text(st.sampled_from([*SUBSTITUTIONS, *"abc é€\u0301ł"])))
def test_substitution_is_all_or_nothing_and_the_list_has_every_replacement(text):
    smart, replacements = substitute(text)
    if not replacements:
        assert smart == text
        return
    assert is_gsm7(smart)
    assert not is_gsm7(text)
    shrunk = sum((len(r.character) - len(r.replacement)) * r.count for r in replacements)
    assert len(text) - len(smart) == shrunk
    assert all(text.count(r.character) >= r.count > 0 for r in replacements)
    assert substitute(smart) == (smart, ())

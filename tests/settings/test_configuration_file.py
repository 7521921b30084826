"""The configuration file: what it says, and in which line it is wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.configuration_file import (
    ConfigurationMistakes,
    Mistake,
    parse_configuration,
    read_configuration,
)

ROOT = Path(__file__).parents[2]

GOOD = """\
[providers.primary]
type = "smpp"
host = "smsc.example.net"
system_id = "acme"
password = "env:PRIMARY_PASSWORD"

[[routes]]
match = { countries = ["US"], modes = ["alert"] }
providers = ["primary"]

[[routes]]
providers = [
  "primary",   # the only one
]
"""


def mistakes_in(text: str) -> tuple[Mistake, ...]:
    with pytest.raises(ConfigurationMistakes) as refused:
        parse_configuration(text)
    return refused.value.mistakes


def the_mistake_in(text: str) -> Mistake:
    (mistake,) = mistakes_in(text)
    return mistake


def test_the_example_is_right():
    text, example = read_configuration(ROOT / "config/example.toml")
    assert "[providers.primary]" in text
    assert set(example.providers) == {"primary", "backup", "sandbox"}


def test_a_file_becomes_a_configuration():
    configuration = parse_configuration(GOOD)
    assert configuration.providers["primary"].host == "smsc.example.net"
    assert configuration.routes[1].providers == ("primary",)


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "says"),
    [
        ('host = "smsc.example.net"', 'hots = "x"', 3, "providers.primary.hots", 'did you mean "host"'),
        ('type = "smpp"', 'type = "smp"', 2, "providers.primary.type", 'did you mean "smpp"'),
        ('system_id = "acme"', "system_id = 7", 4, "providers.primary.system_id", "a text, in quotes"),
        ('"env:PRIMARY_PASSWORD"', '"hunter2"', 5, "providers.primary.password", "env:NAME"),
        ("[providers.primary]", "[providers.Primary]", 1, "providers.Primary", "lower-case"),
        ('["alert"]', '["alrt"]', 8, "routes[0].match.modes[0]", 'did you mean "alert"'),
        ('countries = ["US"]', 'country = ["US"]', 8, "routes[0].match.country", '"countries"'),
        ('  "primary",   # ', '  "backup",   # ', 13, "routes[1].providers[0]", "no provider"),
        ('providers = ["primary"]', 'providers = "primary"', 9, "routes[0].providers", "a list"),
        ("[[routes]]\nproviders = [", '[[routes]]\nstrategy = "cost"\nproviders = [', 12, "routes[1].strategy", "not supported yet"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_line(old, new, line, path, says):
    assert GOOD.count(old) == 1
    mistake = next(m for m in mistakes_in(GOOD.replace(old, new)) if m.path == path)
    assert mistake.line == line
    assert says in mistake.sentence


def test_a_column_counts_characters_and_not_bytes():
    text = GOOD.replace('modes = ["alert"]', 'modes = [ "alert", "é", "x" ]')
    second = text.splitlines()[7].index('"x"') + 1
    assert [(m.line, m.column) for m in mistakes_in(text)][-1] == (8, second)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_lines():
    text = GOOD.replace('"smpp"', '"smp"').replace('"alert"', '"alrt"') + "[colour]\n"
    assert [m.line for m in mistakes_in(text)] == [2, 8, 15]


def test_what_is_missing_is_told_at_its_table():
    mistake = the_mistake_in(GOOD.replace('system_id = "acme"\n', ""))
    assert (mistake.line, mistake.path) == (1, "providers.primary.system_id")
    assert str(mistake) == "line 1: providers.primary.system_id: it is missing"


def test_what_is_missing_altogether_belongs_to_no_line():
    assert [str(m) for m in mistakes_in("")] == [
        "providers: it is missing",
        "routes: it is missing",
    ]


def test_dotted_and_quoted_keys_and_tables_within_lists_have_their_lines():
    text = """\
providers.primary = { type = "simulator", "errors" = { '0x45' = "rout" } }
modes."alert".validity = "soon"

[[routes]]
providers = ["primary"]

[[routes]]
providers = ["primary"]
[routes.match]
environment = "prod"
"""
    assert [(m.line, m.path) for m in mistakes_in(text)] == [
        (1, "providers.primary.errors.0x45"),
        (2, "modes.alert.validity"),
        (10, "routes[1].match.environment"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a = ", 1, 5),
        ('x = 1\nhost = "a" b', 2, 12),
        ("x = 1\nx = 2", 2, 6),
        ('x = """\n\n', 3, 1),
        ("[a]\n[a]", 2, 3),
    ],
)
def test_a_mistake_of_syntax_has_its_line_too(text, line, column):
    mistake = the_mistake_in(text)
    assert (mistake.line, mistake.column) == (line, column)
    assert mistake.sentence.startswith("this is not TOML: ")


def test_a_secret_in_the_wrong_place_is_never_repeated():
    for key in ("password", "receipt_secret", "pasword", "system_id", "rate", "bind", "tls"):
        text = GOOD.replace(
            'password = "env:PRIMARY_PASSWORD"', f'{key} = "Tr0ub4dor and a very long secret"'
        )
        assert "Tr0ub4dor" not in "".join(map(str, mistakes_in(text)))


def test_lists_nested_too_deeply_are_a_mistake_like_others():
    assert the_mistake_in("a = " + "[" * 5000 + "]" * 5000).sentence == (
        "the lists are nested too deeply"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigurationMistakes, match=r"none\.toml cannot be read: No such file"):
        read_configuration(tmp_path / "none.toml")


def test_a_file_in_another_encoding_is_told_where(tmp_path):
    file = tmp_path / "latin.toml"
    file.write_bytes(b"# one\n# tw\xf6\n")
    with pytest.raises(ConfigurationMistakes) as refused:
        read_configuration(file)
    assert [(m.line, m.column) for m in refused.value.mistakes] == [(2, 5)]


_LINES = st.sampled_from(
    [*GOOD.splitlines(), "[a.b]", "[[a]]", "x.y = 1", "'q' = {z = [1, {k = 2}]}", "]", "é = 1", ""]
)


@given(st.lists(_LINES, max_size=12))
def test_whatever_the_text_each_mistake_points_into_it(lines):
    text = "\n".join(lines)
    try:
        parse_configuration(text)
    except ConfigurationMistakes as refused:
        for mistake in refused.mistakes:
            assert 0 <= mistake.line <= text.count("\n") + 1

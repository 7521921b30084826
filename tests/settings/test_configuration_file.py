"""The configuration file: what it says, and in which line it is wrong."""

import contextlib
import tomllib
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
from settings.toml_limits import MOST_CHARACTERS, TomlLimit, check_limits

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
    assert set(example.providers) == {"primary", "backup", "twilio", "sandbox"}


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


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_lines():
    text = GOOD.replace('"smpp"', '"smp"').replace('"alert"', '"alrt"') + "[colour]\n"
    assert [m.line for m in mistakes_in(text)] == [2, 8, 15]


def test_a_missing_key_is_reported_at_its_table():
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


DEEP = "keys or lists are nested more than 16 times"
LONG = "a key or number without quotes has more than 256 characters"


@pytest.mark.parametrize(
    ("text", "line", "column", "sentence"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, 1, 21, DEEP),
        ("a = " + "{a = " * 5000, 1, 85, DEEP),
        ("\n" + ".".join("a" * 15_000) + " = 1", 2, 32, DEEP),
        (" . ".join(["a"] * 15_000) + " = 1", 1, 63, DEEP),
        ("[" + ".".join(['"a"'] * 15_000) + "]", 1, 65, DEEP),
        ("x = {" + ".".join("a" * 15_000) + " = 1}", 1, 37, DEEP),
        ("a = " + "9" * 5000, 1, 5, LONG),
        ("a = 0x" + "f" * 5000, 1, 5, LONG),
        ("a = 1e" + "9" * 5000, 1, 5, LONG),
        ("a" * 5000 + " = 1", 1, 1, LONG),
        ("#" + "a" * 1_000_000, 1, 1_000_001, "the text is longer than 1000000 characters"),
    ],
    ids=lambda each: str(each)[:20],
)
def test_what_is_beyond_the_limits_is_not_parsed(monkeypatch, text, line, column, sentence):
    def parsed(_):
        raise AssertionError("it was parsed")

    monkeypatch.setattr("settings.configuration_file.tomllib.loads", parsed)
    mistake = the_mistake_in(text)
    assert (mistake.line, mistake.column, mistake.sentence) == (line, column, sentence)


def test_what_only_looks_like_nesting_is_no_mistake():
    written = [
        f"# {'a.' * 99} {'[' * 99}",
        f'a1 = "{"a." * 99}{"[" * 99}\\"{"[" * 99}"',
        f"a2 = '{'a.' * 99}{'[' * 99}'",
        f'a3 = """{"a." * 99}\n"{"[" * 99}\\""" {"[" * 99}"""',
        f"a4 = '''{'a.' * 99}\n''{'[' * 99}'''",
        f"a5 = [{', '.join(['1.5'] * 99)}]",
        f"a6 = [{', '.join(['[1]'] * 99)}]",
        *(f"t{number}.a = 1.5" for number in range(99)),
    ]
    check_limits("\n".join(written))
    tomllib.loads("\n".join(written))


@pytest.mark.parametrize("piece", ['\\"', "\\\\'", '"""', "'''", '\\"""', ".", "[]", "a ", "a."])
@pytest.mark.parametrize("begin", ["", '"', "'", '"""', "'''", "a = "])
def test_the_limits_are_looked_for_in_one_pass(begin, piece):
    """With the square of the length, any of these would take an hour."""
    with contextlib.suppress(TomlLimit):
        check_limits((begin + piece * MOST_CHARACTERS)[:MOST_CHARACTERS])


def test_a_nul_is_a_mistake_wherever_it_is():
    for old, new in (("smsc.example.net", "a\\u0000"), ("[providers.primary]", '["\\U00000000"]')):
        for mistake in mistakes_in(GOOD.replace(old, new)):
            assert mistake.sentence == "there is a NUL in it: take it out"
            assert mistake.line in {1, 3}


@given(text=st.text(st.sampled_from("ab.[]{}=\"'#\\\n 1,"), max_size=40) | st.text())
def test_any_text_is_a_configuration_or_has_mistakes(text):
    with pytest.raises(ConfigurationMistakes):
        parse_configuration(text)


def test_of_many_mistakes_the_first_are_listed_and_the_others_counted():
    unknown = "".join(f"x{number} = 1\n" for number in range(500))
    with pytest.raises(ConfigurationMistakes) as refused:
        parse_configuration(unknown + GOOD)
    assert [mistake.line for mistake in refused.value.mistakes] == list(range(1, 21))
    assert refused.value.more == 480
    assert str(refused.value).endswith("\nand 480 more")


def test_a_mistake_repeats_the_beginning_of_a_long_key_only():
    key = "x" * 5000
    mistake = the_mistake_in(f'"{key}" = 1\n' + GOOD)
    assert mistake.path == "x" * 64 + "…"
    assert len(str(mistake)) < 500


def test_a_route_to_an_unknown_provider_lists_some_of_the_known_ones():
    provider = GOOD.partition("[[")[0]
    many = "".join(provider.replace("primary", f"p{number}") for number in range(200))
    mistake = the_mistake_in(many + '[[routes]]\nproviders = ["none"]\n')
    assert "p0, p1, p10" in mistake.sentence
    assert len(mistake.sentence) < 200


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigurationMistakes, match=r"none\.toml cannot be read: No such file"):
        read_configuration(tmp_path / "none.toml")


def test_a_file_in_another_encoding_is_reported_with_line_and_column(tmp_path):
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


@pytest.mark.parametrize(
    ("section", "key", "sentence"),
    [
        (
            'type = "telnyx"\nsmart_encoded = true',
            "smart_encoded",
            "there is no such key: it is a key of type twilio",
        ),
        (
            'account_sid = "AC"',
            "account_sid",
            "there is no such key: it is a key of type twilio; without type the section is of type smpp",
        ),
    ],
)
def test_a_key_of_another_type_of_provider_is_named_with_its_type(section, key, sentence):
    with pytest.raises(ConfigurationMistakes) as refused:
        parse_configuration(f"routes = []\n[providers.primary]\n{section}\n")
    assert sentence in {each.sentence for each in refused.value.mistakes if each.path.endswith(key)}

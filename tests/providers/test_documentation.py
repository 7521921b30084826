"""The pages about providers, compared with the code."""

import re
from pathlib import Path

import pytest

from domain.configuration.providers.twilio import TwilioConfiguration
from domain.configuration.providers.types import BUILT_IN_TYPES
from domain.provider_codes.twilio import TWILIO_CODES
from providers.twilio import STATES
from settings.configuration_file import parse_configuration

PAGES = Path(__file__).parents[2] / "docs/providers"
INDEX = (PAGES / "README.md").read_text(encoding="utf-8")
TWILIO = (PAGES / "twilio.md").read_text(encoding="utf-8")


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of the rows of the table whose first cell is this one."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found, head
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()
    ]


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_index_lists_every_type():
    listed = {spans(first)[0] for first, *_ in rows(INDEX, "type")}
    assert set(BUILT_IN_TYPES) <= listed
    [capabilities] = re.findall(r"^\| \| (`smpp`.*) \|$", INDEX, re.MULTILINE)
    assert set(spans(capabilities)) == listed - {"simulator"}


@pytest.mark.parametrize("number", [0, 1])
def test_the_configurations_of_the_page_about_twilio_can_be_used(number: int):
    example = re.findall(r"```toml\n(.*?)```", TWILIO, re.DOTALL)[number]
    route = "" if "[[routes]]" in example else '\n[[routes]]\nproviders = ["twilio"]\n'
    declared = parse_configuration(example + route).providers["twilio"]
    assert isinstance(declared, TwilioConfiguration)
    assert declared.account_sid.startswith("AC")


def test_the_page_about_twilio_lists_every_key_of_its_own():
    listed = {key for first, *_ in rows(TWILIO, "key") for key in spans(first)}
    own = set(TwilioConfiguration.__annotations__) - {"default_url", "type"}
    assert listed == own | {"url"}


def test_the_page_about_twilio_lists_every_status_with_its_state():
    listed = {
        word: spans(state)[0]
        for words, state in rows(TWILIO, "MessageStatus")
        for word in spans(words)
    }
    assert listed == {word: state.value for word, state in STATES.items()}


def test_the_page_about_twilio_lists_every_code_with_its_class_and_meaning():
    listed = {
        code: (spans(what), meaning)
        for codes, what, meaning in rows(TWILIO, "code")
        for code in spans(codes)
    }
    assert listed == {
        code: ([it.value for it in (known.error_class, known.state) if it], known.meaning)
        for code, known in TWILIO_CODES.items()
    }

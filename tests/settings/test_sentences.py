"""Every rule for the form of a text is said in words, not as a regular expression."""

import ast
from pathlib import Path

import pytest

from domain.parameters import NAME_PATTERN
from settings.sentences import _PATTERNS

CONFIGURATION = Path(__file__).parents[2] / "domain/configuration"


def patterns() -> set[str]:
    """The patterns that the classes of the configuration have."""
    found = set()
    for module in CONFIGURATION.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "pattern":
                is_text = isinstance(node.value, ast.Constant)
                found.add(str(node.value.value) if is_text else NAME_PATTERN)
    return found


@pytest.mark.parametrize("pattern", sorted(patterns()))
def test_a_text_of_another_form_is_refused_in_words(pattern: str) -> None:
    assert pattern in _PATTERNS

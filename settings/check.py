"""Finds errors in a configuration file without a gateway, a database or a key."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from settings.configuration_checks import protocol_mistakes
from settings.configuration_file import (
    ConfigurationMistakes,
    Mistake,
    ProviderClasses,
    read_configuration,
)
from settings.settings import SettingsMistakes, offline_settings

NO_MISTAKES: Final = 0
MISTAKES: Final = 1
UNUSABLE: Final = 2
"""The file cannot be read, or a variable of the environment is wrong."""


def check_file(file: Path, types: ProviderClasses) -> int:
    """Print the errors of a configuration file, as `file:line:column: what`; the exit code.

    Args:
        file: in TOML.
        types: which providers it may declare.
    """
    try:
        file.open("rb").close()
    except OSError as error:
        _print(f"{file} cannot be read: {error.strerror}", error=True)
        return UNUSABLE
    try:
        allowed = offline_settings().allowed_secrets
    except SettingsMistakes as wrong:
        for sentence in wrong.sentences:
            _print(sentence, error=True)
        return UNUSABLE
    mistakes: Sequence[Mistake]
    try:
        text, configuration = read_configuration(file, allowed, types)
    except ConfigurationMistakes as found:
        mistakes, more = found.mistakes, found.more
    else:
        mistakes, more = sorted(set(protocol_mistakes(text, configuration, allowed))), 0
    for mistake in mistakes:
        _print(_line(file, mistake))
    if more:
        _print(f"{file}: there are {more} more errors.")
    if mistakes:
        return MISTAKES
    _print(f"{file}: there are no errors.")
    return NO_MISTAKES


def _line(file: Path, mistake: Mistake) -> str:
    where = f"{file}:{mistake.line}:{mistake.column}" if mistake.line else f"{file}"
    what = f"{mistake.path}: {mistake.sentence}" if mistake.path else mistake.sentence
    return f"{where}: {what}"


def _print(line: str, *, error: bool = False) -> None:
    print(line, file=sys.stderr if error else sys.stdout)

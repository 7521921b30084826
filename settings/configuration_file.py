"""Reads the configuration file, and says of each mistake in which line it stands."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from types import UnionType
from typing import Any, Final, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from domain.configuration import ALLOWED_SECRETS, Configuration, ProviderConfiguration
from domain.configuration.providers.types import (
    BUILT_IN_TYPES,
    DEFAULT_TYPE,
    PROVIDER_TYPES,
    section_class,
)
from domain.secrets import AllowedSecrets
from settings.reference_mistakes import unknown_providers
from settings.sentences import sentence_about
from settings.toml_limits import TomlLimit, check_limits
from settings.toml_positions import Path, Position, Positions, positions_in

_AT = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
MOST_MISTAKES = 20
"""Mistakes that are listed at once; the others are only counted."""
_LONGEST_NAME = 64
ProviderClasses: TypeAlias = Mapping[str, type[ProviderConfiguration]]
"""The classes of providers that a configuration may declare, by type."""
_KEY = "[key]"  # pydantic's mark for an error in a mapping's key


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing that is wrong with a configuration.

    `line` and `column` count from 1, and are 0 where the whole file is meant; `path` reads like
    `routes[0].providers[1]`, and is empty where no key is meant. The sentence repeats no value.
    """

    line: int
    column: int
    path: str
    sentence: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        what = f"{self.path}: " if self.path else ""
        return f"{where}{what}{self.sentence}"


class ConfigurationMistakes(Exception):
    """The configuration cannot be used; `mistakes` has some of them, in the order of the lines.

    `more` is how many others there are.
    """

    loggable = True

    def __init__(self, mistakes: Iterable[Mistake], more: int = 0) -> None:
        self.mistakes = tuple(sorted(set(mistakes)))
        self.more = more
        rest = [f"and {more} more"] if more else []
        super().__init__("\n".join([*map(str, self.mistakes), *rest]))


def read_configuration(
    path: FilePath,
    allowed: AllowedSecrets | None = None,
    types: ProviderClasses = BUILT_IN_TYPES,
) -> tuple[str, Configuration]:
    """The text of a configuration file, and what it says.

    Args:
        path: of the file.
        allowed: as in `parse_configuration`.
        types: as in `parse_configuration`.

    Raises:
        ConfigurationMistakes: it cannot be read, or is wrong.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationMistakes([_of_all(f"{path} cannot be read: {reason}")]) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, start = before.count(b"\n") + 1, before.rfind(b"\n") + 1
        column = len(before[start:].decode(errors="replace")) + 1
        sentence = "this is not UTF-8: save the file in that encoding"
        raise ConfigurationMistakes([Mistake(line, column, "", sentence)]) from None
    return text, parse_configuration(text, allowed, types)


def parse_configuration(
    text: str,
    allowed: AllowedSecrets | None = None,
    types: ProviderClasses = BUILT_IN_TYPES,
) -> Configuration:
    """What a text in TOML says.

    Args:
        text: the configuration.
        allowed: which secrets it may refer to, where it is to be applied; without them references
            are checked by their form alone, as of a configuration that was applied before.
        types: which providers it may declare.

    Raises:
        ConfigurationMistakes: with the first mistakes and how many more there are, but for those
            that hide behind another one: a mistake of syntax hides all that are not.
    """
    try:
        check_limits(text)
        values = tomllib.loads(text)
        positions = positions_in(text)
    except TomlLimit as limit:
        line = text.count("\n", 0, limit.at) + 1
        column = limit.at - text.rfind("\n", 0, limit.at)
        raise ConfigurationMistakes([Mistake(line, column, "", limit.sentence)]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationMistakes([_of_syntax(str(error), text)]) from None
    unusable = [_of_nul(path, positions) for path in _with_nul(values)]
    if unusable:
        raise ConfigurationMistakes(unusable[:MOST_MISTAKES], more=len(unusable[MOST_MISTAKES:]))
    try:
        return Configuration.model_validate(
            values, context={ALLOWED_SECRETS: allowed, PROVIDER_TYPES: types}
        )
    except ValidationError as error:
        details = error.errors(include_url=False)
    found = [_mistake(each, values, positions, types) for each in details]
    # Pydantic looks at references only once all values are right.
    found += [_at_value(path, positions, sentence) for path, sentence in unknown_providers(values)]
    found = sorted(set(found))
    raise ConfigurationMistakes(found[:MOST_MISTAKES], more=len(found[MOST_MISTAKES:]))


def mistake_at(text: str, path: Path, sentence: str) -> Mistake:
    """A mistake in the value at this path of a text that could be parsed."""
    return _at_value(path, positions_in(text), sentence)


def _at_value(path: Path, positions: Positions, sentence: str) -> Mistake:
    at = positions.of_value(path)
    return Mistake(at.line, at.column, _written(path), sentence)


def _of_all(sentence: str) -> Mistake:
    return Mistake(0, 0, "", sentence)


def _with_nul(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where a NUL is, in a key or a value: neither Postgres nor the system takes one."""
    match value:
        case str() if "\0" in value:
            yield path
        case dict():
            for key, each in value.items():
                if "\0" in key:
                    yield (*path, key)
                else:
                    yield from _with_nul(each, (*path, key))
        case list():
            for place, each in enumerate(value):
                yield from _with_nul(each, (*path, place))
        case _:
            pass


def _of_nul(path: Path, positions: Positions) -> Mistake:
    at = positions.of_value(path)
    return Mistake(at.line, at.column, _written(path), "there is a NUL in it: take it out")


def _of_syntax(message: str, text: str) -> Mistake:
    found = _AT.search(message)
    what = message[: found.start()] if found else message
    if found and found["line"]:
        line, column = int(found["line"]), int(found["column"])
    else:
        lines = text.split("\n")
        line, column = len(lines), len(lines[-1]) + 1
    return Mistake(line, column, "", f"this is not TOML: {what[:1].lower()}{what[1:]}")


def _mistake(
    details: ErrorDetails, values: Mapping[str, Any], positions: Positions, types: ProviderClasses
) -> Mistake:
    path = _path_in(values, details["loc"])
    kind = details["type"]
    sentence = sentence_about(details)
    if kind == "missing" and len(path) == 1:
        at = Position(0, 0)
    elif kind == "extra_forbidden" or details["loc"][-1:] == (_KEY,):
        at = positions.of_key(path)
    else:
        at = positions.of_value(path)
    if kind == "extra_forbidden":
        sentence += _suggestion(path[-1], _keys_at(path[:-1], values, types)) or _of_other_types(
            path, values, types
        )
    elif kind in {"enum", "literal_error"}:
        expected = re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
        sentence += _suggestion(details["input"], expected)
    return Mistake(at.line, at.column, _written(path), sentence)


def _path_in(values: Mapping[str, Any], location: tuple[str | int, ...]) -> Path:
    """The location without what pydantic adds to it, such as the names of a union's members."""
    path: Path = ()
    here: Any = values
    for number, step in enumerate(location):
        if step == _KEY:
            continue
        if _holds(here, step):
            here = here[step]
        elif number < len(location) - 1:
            continue
        path = (*path, step)
    return path


def _holds(container: Any, step: str | int) -> bool:
    if isinstance(container, list):
        return isinstance(step, int) and step < len(container)
    return isinstance(container, dict) and step in container


def _written(path: Path) -> str:
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", step)
            name = step if len(step) <= _LONGEST_NAME else f"{step[:_LONGEST_NAME]}…"
            text += ("." if text else "") + (name if plain else f'"{name}"')
    return text


def _suggestion(given: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(given)[:_LONGEST_NAME].lower(), list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _of_other_types(path: Path, values: Mapping[str, Any], types: ProviderClasses) -> str:
    """Which types of providers have the key of a provider's section that its own type does not have."""
    if len(path) != _STEPS_TO_KEY or path[0] != "providers":
        return ""
    having = [name for name, model in sorted(types.items()) if path[-1] in _keys_of(model)]
    if not having:
        return ""
    *others, last = having
    names = f"types {', '.join(others)} and {last}" if others else f"type {last}"
    untyped = "type" not in values["providers"][path[1]]
    default = f"; without type the section is of type {DEFAULT_TYPE}" if untyped else ""
    return f": it is a key of {names}{default}"


_STEPS_TO_KEY: Final = 3
"""Of `providers.<name>.<key>`."""


def _keys_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _keys_at(path: Path, values: Mapping[str, Any], types: ProviderClasses) -> list[str]:
    """The keys that the configuration knows in the table at this path."""
    annotation: Any = Configuration
    if path[:1] == ("providers",) and len(path) > 1:
        annotation, path = section_class(values["providers"][path[1]], types), path[2:]
    for step in path:
        annotation = _below(annotation, step)
    return [
        key
        for model in members_of(annotation)
        if isinstance(model, type) and issubclass(model, BaseModel)
        for key in _keys_of(model)
    ]


def _below(annotation: Any, step: str | int) -> Any:
    for member in members_of(annotation):
        arguments = get_args(member)
        if isinstance(step, int):
            if get_origin(member) is tuple:
                return arguments[0]
        elif get_origin(member) is dict:
            return arguments[1]
        elif isinstance(member, type) and issubclass(member, BaseModel):
            for name, field in member.model_fields.items():
                if step == (field.alias or name):
                    return field.annotation
    return None


def members_of(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or what stands alone, without what is annotated to it."""
    if hasattr(annotation, "__metadata__"):
        return members_of(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return tuple(member for part in get_args(annotation) for member in members_of(part))
    return (annotation,)

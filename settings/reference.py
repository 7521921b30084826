"""Writes the tables of `docs/configuration.md` from the models, so that they cannot differ.

python -m settings.reference docs/configuration.md
"""

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from domain.configuration import Configuration, ProviderConfiguration, format_duration
from domain.configuration.names import AccountId
from domain.configuration.providers.http import HttpConfiguration
from domain.configuration.providers.types import BUILT_IN_TYPES
from settings.configuration_file import members_of
from settings.settings import Settings, is_secret, variable_of

_WORDS: Mapping[Any, str] = MappingProxyType(
    {
        Any: "any value",
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        timedelta: "duration",
        SecretStr: "secret",
        Path: "path",
    }
)


def variables_table() -> str:
    """The environment variables, as a table in Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        variable = variable_of(name, field)
        shown = f"`{variable}`" + (f", `{variable}_FILE`" if is_secret(field) else "")
        rows.append((shown, _default(field), field.description or ""))
    return _table(("Variable", "Default", "Meaning"), rows)


def keys_table() -> str:
    """The keys of the configuration file, as a table in Markdown."""
    rows = [
        (f"`{path}`", _kind(field.annotation), _default(field), f"{only}{field.description or ''}")
        for path, only, field in _keys("", Configuration)
    ]
    return _table(("Key", "Value", "Default", "Meaning"), rows)


def _keys(
    prefix: str, model: type[BaseModel], names: Collection[str] | None = None, only: str = ""
) -> Iterator[tuple[str, str, FieldInfo]]:
    """The keys of a model, or those of these names; `only` names the types of providers that have them."""
    for name, field in model.model_fields.items():
        if names is not None and name not in names:
            continue
        inner, mark = _model_below(field.annotation)
        path = f"{prefix}{field.alias or name}"
        if inner is None or field.description:
            yield path, only, field
        if inner is ProviderConfiguration:
            yield from _keys_of_providers(f"{path}{mark}.")
        elif inner is not None:
            yield from _keys(f"{path}{mark}.", inner, only=only)


def _keys_of_providers(prefix: str) -> Iterator[tuple[str, str, FieldInfo]]:
    """The keys that all providers have, then those of all HTTP providers, then those of each type."""
    types: dict[type[ProviderConfiguration], list[str]] = {}
    for name, model in BUILT_IN_TYPES.items():
        types.setdefault(model, []).append(name)
    http = [
        name
        for model, names in types.items()
        if issubclass(model, HttpConfiguration)
        for name in names
    ]
    yield from _keys(prefix, ProviderConfiguration)
    yield from _keys(prefix, HttpConfiguration, HttpConfiguration.__annotations__, _only(http))
    for model, names in types.items():
        yield from _keys(prefix, model, model.__annotations__, _only(names))


def _only(names: Sequence[str]) -> str:
    return f"{', '.join(f'`{name}`' for name in names)}: "


def _model_below(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model that an annotation leads to, and how its entries are named on the way."""
    for member in members_of(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member, ""
        arguments = get_args(member)
        if get_origin(member) is dict:
            return _model_below(arguments[1])[0], f".<{_key_word(arguments[0])}>"
        if get_origin(member) is tuple:
            return _model_below(arguments[0])[0], "[]"
    return None, ""


def _key_word(annotation: Any) -> str:
    if annotation == AccountId:
        return "id"
    (member,) = members_of(annotation)
    if isinstance(member, type) and issubclass(member, Enum):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", member.__name__).lower()
    return "name"


def _kind(annotation: Any) -> str:
    kinds = []
    for member in members_of(annotation):
        arguments = get_args(member)
        if member is NoneType:
            continue
        if get_origin(member) is Literal:
            kinds.append(", ".join(f"`{value}`" for value in arguments))
        elif get_origin(member) is tuple:
            kinds.append(f"list of {_kind(arguments[0])}")
        elif get_origin(member) in {dict, Mapping}:
            kinds.append(f"table of {_kind(arguments[1])}")
        elif issubclass(member, BaseModel):
            kinds.append("table")
        elif issubclass(member, Enum):
            kinds.append(", ".join(f"`{value.value}`" for value in member))
        else:
            kinds.append(_WORDS[member])
    return " or ".join(kinds)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.default
    return "" if value is PydanticUndefined else _written(value)


def _written(value: Any) -> str:
    match value:
        case None | () | "" | BaseModel():
            return ""
        case {}:
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case timedelta():
            return f"`{format_duration(value)}`"
        case tuple():
            return ", ".join(map(_written, value))
        case Enum():
            return f"`{value.value}`"
        case _:
            return f"`{value}`"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell or " " for cell in line) + " |" for line in lines)


_TABLES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"variables": variables_table, "keys": keys_table}
)


def with_tables(page: str) -> str:
    """The page with its tables as they should be; each stands between two marks of its name."""
    for name, table in _TABLES.items():
        start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, found, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"the page has no place for the table: {start} … {end}")
        page = f"{before}{start}\n\n{table()}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(with_tables(place.read_text()))

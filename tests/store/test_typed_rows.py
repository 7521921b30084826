"""Public functions of the store return typed rows and plain values, never mappings of columns."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from sqlalchemy import Row, RowMapping

import store
from store.database import PendingResult

DOCUMENTS = {
    "store.events.AccountEvent.detail": "JSON that each kind of event has of its own",
    "store.events.Event.detail": "JSON that each kind of event has of its own",
    "store.idempotency.StoredResponse.response": "the JSON that is answered again",
    "store.connections.connection_parameters": "parameters of the driver, no row",
}
"""What may be a mapping of anything."""


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(store.__path__, "store."):
        if not found.name.startswith("store.migrations"):
            yield importlib.import_module(found.name)


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """By their qualified names: functions, and methods of public classes."""
    for module in modules():
        for name, member in vars(module).items():
            if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
                continue
            where = f"{module.__name__}.{name}"
            if inspect.isclass(member):
                for method, its in vars(member).items():
                    function = its.fget if isinstance(its, property) else its
                    function = inspect.unwrap(getattr(function, "__func__", function))
                    if not method.startswith("_") and inspect.isfunction(function):
                        yield f"{where}.{method}", function
            elif inspect.isfunction(function := inspect.unwrap(member)):
                yield where, function


def mappings_in(annotation: Any, where: str, seen: set[type]) -> Iterator[str]:
    """Where a type, or a dataclass in it, is a mapping from names to anything."""
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Callable:
        return
    if origin in {Row, RowMapping}:
        yield where
    elif inspect.isclass(origin) and issubclass(origin, Mapping | MutableMapping):
        if not arguments or Any in arguments:
            yield where
    elif dataclasses.is_dataclass(origin) and isinstance(origin, type) and origin not in seen:
        seen.add(origin)
        for name, type_ in get_type_hints(origin).items():
            yield from mappings_in(type_, f"{origin.__module__}.{origin.__qualname__}.{name}", seen)
    for argument in arguments:
        yield from mappings_in(argument, where, seen)


def mappings_returned_by(where: str, function: Callable[..., Any]) -> list[str]:
    def alone() -> None: ...

    # Types of parameters may be known to the type checker only.
    alone.__annotations__ = {"return": function.__annotations__.get("return")}
    returned = get_type_hints(alone, function.__globals__)["return"]
    return list(mappings_in(returned, where, set()))


FUNCTIONS = dict(public_functions())


def test_public_functions_are_found():
    expected = {
        "store.messages.listed",
        "store.bulks.ready",
        "store.receipts.reads.of_message",
        "store.database.Connection.fetch",
        "store.rows.Query.of",
        "store.transitions.Transition.messages",
    }
    assert expected <= set(FUNCTIONS)


@pytest.mark.parametrize("where", sorted(FUNCTIONS))
def test_a_public_function_of_the_store_returns_no_mapping_of_columns(where):
    assert set(mappings_returned_by(where, FUNCTIONS[where])) <= set(DOCUMENTS)


def test_every_exception_is_needed():
    found = {each for item in FUNCTIONS.items() for each in mappings_returned_by(*item)}
    assert found == set(DOCUMENTS)


@dataclass
class _Hidden:
    columns: Mapping[str, Any]


@pytest.mark.parametrize(
    ("annotation", "is_refused"),
    [
        (Mapping[str, Any], True),
        (dict[str, Any] | None, True),
        (PendingResult[Sequence[Mapping[str, Any]]], True),
        (dict[int, list[RowMapping]], True),
        (Sequence[Row[Any]], True),
        (dict, True),
        (tuple[_Hidden, ...], True),
        (Mapping[str, int], False),
        (Sequence[int], False),
        (None, False),
    ],
)
def test_a_mapping_of_columns_is_found_wherever_it_stands(annotation, is_refused):
    def function() -> None: ...

    function.__annotations__["return"] = annotation
    assert bool(mappings_returned_by("here", function)) is is_refused

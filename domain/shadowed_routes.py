"""Routes that no message takes, because earlier ones take all of theirs."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from domain.configuration import Configuration
from domain.configuration.routes import Route
from domain.modes import Mode

_Box: TypeAlias = Mapping[str, frozenset[str]]
"""For each property of messages, the values that are meant: their product is a set of messages."""

_ANYTHING_ELSE = ""
"""Stands for all values of a property that no route names."""
_OPEN = ("countries", "senders", "networks", "accounts")
"""The properties with more values than the routes name."""
_MOST_BOXES = 10_000
"""A route that is cut into more pieces by those before it is taken for one that is not hidden."""


def shadowed_routes(configuration: Configuration) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The number of each hidden route, and the numbers of those that take its messages, from 0."""
    universe = {
        name: frozenset(
            value for route in configuration.routes for value in getattr(route.match, name)
        )
        | {_ANYTHING_ELSE}
        for name in _OPEN
    }
    universe["modes"] = frozenset(mode.value for mode in Mode)
    boxes: list[_Box] = []
    for number, route in enumerate(configuration.routes):
        box = _box(configuration, route, universe)
        by = _hidden_by(box, boxes)
        if by:
            yield number, by
        boxes.append(box)


def _box(configuration: Configuration, route: Route, universe: _Box) -> _Box:
    match = route.match
    environments = {configuration.providers[name].environment for name in route.providers}
    if match.environment is not None:
        environments &= {match.environment}
    return {
        **{name: frozenset(getattr(match, name)) or universe[name] for name in _OPEN},
        "modes": frozenset(mode.value for mode in match.modes) or universe["modes"],
        "environments": frozenset(environment.value for environment in environments),
    }


def _hidden_by(box: _Box, earlier: list[_Box]) -> tuple[int, ...]:
    """The routes that together take all of a box; none if something of it is left."""
    left, by = [box], []
    for number, other in enumerate(earlier):
        remaining = [piece for each in left for piece in _without(each, other)]
        if remaining != left:
            by.append(number)
        left = remaining
        if not left:
            return tuple(by)
        if len(left) > _MOST_BOXES:
            break
    return ()


def _without(box: _Box, other: _Box) -> Iterator[_Box]:
    """What is in a box and not in the other one, as boxes that have nothing in common."""
    if any(not box[name] & other[name] for name in box):
        yield box
        return
    inner = dict(box)
    for name in box:
        outside = inner[name] - other[name]
        if outside:
            yield {**inner, name: outside}
        inner[name] &= other[name]

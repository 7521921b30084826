"""Routes that name providers that are not declared, found in values that may have other mistakes as well."""

from collections.abc import Iterator, Mapping
from typing import Any

from settings.toml_positions import Path

_MOST_NAMED = 20
"""Of all providers, in the sentence about one that does not exist."""


def unknown_providers(values: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Where routes name providers that are not declared, and a sentence about it.

    `values` are as TOML has them. What has not the right type is passed over: it is a mistake of its
    own.
    """
    providers = values.get("providers")
    routes = values.get("routes")
    if not isinstance(providers, dict) or not isinstance(routes, list):
        return
    known = ", ".join(sorted(providers)[:_MOST_NAMED]) or "none"
    for number, route in enumerate(routes):
        names = route.get("providers") if isinstance(route, dict) else None
        for place, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name not in providers:
                sentence = f'there is no provider "{name}"; declared are: {known}'
                yield ("routes", number, "providers", place), sentence

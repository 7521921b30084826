"""What a carrier counts, as JSON."""

from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def counts_as_json(counts: "DataclassInstance") -> dict[str, Any]:
    """The counters of a dataclass by their names; a `Counter` by its keys."""
    named = ((each.name, getattr(counts, each.name)) for each in fields(counts))
    return {name: dict(it) if isinstance(it, Counter) else it for name, it in named}

"""Values of which thousands are made in a second."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(of: type[_T]) -> type[_T]:
    """A dataclass with slots whose instances nobody changes: the type checker sees to it.

    It has equality and a hash, as a frozen one has. That Python itself forbids changes (`frozen=True`)
    would double the time that it takes to make one.
    """
    return dataclass(slots=True, unsafe_hash=True)(of)

"""Tables cut by time: messages, what belongs to them by their id, and receipts by their day."""

from collections.abc import Collection
from typing import Final
from uuid import UUID

_NONE: Final = UUID(int=0)


def reach(ids: Collection[UUID]) -> dict[str, UUID]:
    """The first and the last of ids, as `low` and `high`.

    Statements about `id = ANY(:ids)` say `id BETWEEN :low AND :high` too: Postgres passes over
    partitions by bounds that it is given, but not by what lies in an array.
    """
    return {"low": min(ids, default=_NONE), "high": max(ids, default=_NONE)}

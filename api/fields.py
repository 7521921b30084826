"""Kinds of fields that several endpoints take: texts, times, pages."""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Generic, Protocol, Self, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from domain.times import in_range, nearest_in_range

Item = TypeVar("Item")


class RequestModel(BaseModel):
    """What is sent to the gateway: a field that it does not know is refused, not passed over."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ResponseModel(BaseModel):
    """What the gateway answers."""

    model_config = ConfigDict(frozen=True)


# --- texts and times ---------------------------------------------------------------------------

_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def _storable(text: str) -> str:
    if "\0" in text or (not text.isascii() and _HALF_A_PAIR.search(text)):
        raise ValueError(
            "It holds a character that cannot be kept (NUL, or one half of a surrogate pair): "
            "take it out."
        )
    return text


STORABLE = AfterValidator(_storable)
"""Refuses what Postgres cannot keep; stands behind limits of length, which concern texts only."""

Text = Annotated[str, STORABLE]
"""Any text."""

Line = Annotated[str, Field(max_length=64), STORABLE]
"""A short text, which may be empty."""

Word = Annotated[str, Field(min_length=1, max_length=64), STORABLE]
"""A short text: a name, an id, a number."""

# RFC 3339, 5.6: pydantic alone would also take numbers, and times without an offset or a "T".
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


def _written_as_moment(value: object) -> object:
    if not (isinstance(value, str) and _MOMENT.fullmatch(value)):
        if isinstance(value, str) and _MOMENT.fullmatch(value.replace(" ", "+")):
            raise ValueError(
                "The + before the offset came as a blank: write it as %2B in an address."
            )
        raise ValueError("It is a time with its offset, such as 2026-11-30T09:30:00Z (RFC 3339).")
    return value


_DATE_TIME = WithJsonSchema({"type": "string", "format": "date-time"})

Moment = Annotated[
    AwareDatetime, BeforeValidator(_written_as_moment), AfterValidator(in_range), _DATE_TIME
]
"""A time with its offset, from 2000 to 2099; in UTC once it was read."""

TimeBound = Annotated[
    AwareDatetime,
    BeforeValidator(_written_as_moment),
    AfterValidator(nearest_in_range),
    _DATE_TIME,
]
"""A time with its offset at which a list begins or ends; what is out of range limits nothing."""

# --- pages -------------------------------------------------------------------------------------

LARGEST_PAGE = 200
_CHECK_BYTES = 4


def cursor_after(last: UUID) -> str:
    """The cursor of the page behind the item with this id; opaque, and of URL-safe characters."""
    return base64.urlsafe_b64encode(last.bytes + _check(last.bytes)).decode().rstrip("=")


def position_of(cursor: str) -> UUID:
    """The id behind which a page begins.

    Raises:
        ValueError: the cursor is none of ours, or was changed on its way.
    """
    try:
        content = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        last = UUID(bytes=content[:-_CHECK_BYTES])
    except (UnicodeEncodeError, ValueError):
        last = None
    # Written anew, since several texts decode to the same bytes.
    if last is None or cursor_after(last) != cursor:
        raise ValueError(
            "It is no cursor of this gateway: use `next_cursor` as it was given, or leave it out "
            "to begin anew."
        )
    return last


def _check(content: bytes) -> bytes:
    """Detects an altered cursor; it is not secret, since a cursor grants no access."""
    return hashlib.sha256(b"cursor" + content).digest()[:_CHECK_BYTES]


Cursor = Annotated[
    UUID,
    BeforeValidator(lambda cursor: position_of(str(cursor))),
    WithJsonSchema({"type": "string", "maxLength": 40}),
]


class PageRequest(RequestModel):
    """Which page of a list."""

    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = Field(
        50, description="How many, at most.", examples=[20]
    )
    cursor: Cursor | None = Field(
        None,
        description="`next_cursor` of the page before.",
        examples=[cursor_after(UUID("019aa5c0-d1e2-7b3c-8f4e-5a6b7c8d9e0f"))],
    )


class Identified(Protocol):
    """A row of a list that is in the order of ids."""

    @property
    def id(self) -> UUID: ...


class Page(ResponseModel, Generic[Item]):
    """Some of what there is; `next_cursor` asks for what follows, and is null at the end."""

    items: list[Item]
    next_cursor: str | None = Field(description="For the next page; null at the end of the list.")

    @classmethod
    def of(cls, found: Sequence[Identified], limit: int, items: Sequence[Item]) -> Self:
        """A page of at most `limit` items, where one row more was looked for."""
        more = len(found) > limit
        return cls.ending(found[limit - 1].id if more else None, items[:limit])

    @classmethod
    def ending(cls, last: UUID | None, items: Sequence[Item]) -> Self:
        """A page whose last item has this id, or behind which nothing follows."""
        return cls(items=list(items), next_cursor=None if last is None else cursor_after(last))


class Items(ResponseModel, Generic[Item]):
    """All that there is."""

    items: list[Item]

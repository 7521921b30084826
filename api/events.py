"""Events of all messages of an account, in order, for programs that follow them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from api.dependencies import Gateway, MessageReader
from api.fields import Page, PageRequest, TimeBound
from api.messages import Event
from api.problems import raises
from api.routing import Endpoint
from domain.ids import IdPrefix, public_id
from domain.states import MessageStatus
from services.reads import QueryTooWide
from store.events import LARGEST_PLACE, LARGEST_SEQ, Position
from store.events import AccountEvent as Stored

router = APIRouter(prefix="/api/v1/events", tags=["messages"], route_class=Endpoint)

DEFAULT_AGE: Final = timedelta(minutes=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SEQ_BITS: Final = LARGEST_SEQ.bit_length()
_PLACE_BITS: Final = LARGEST_PLACE.bit_length()


class EventsQuery(PageRequest):
    """Which events to list."""

    status: MessageStatus | None = Field(
        None, description="Only transitions to this status.", examples=["delivered"]
    )
    since: TimeBound | None = Field(
        None,
        description="Events of this time or later; by default those of the last minute. In "
        "an address the + of an offset is written %2B.",
        examples=["2026-11-01T00:00:00Z"],
    )


class AccountEvent(Event):
    """An event, and the message that it is about."""

    message_id: str = Field(examples=["msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"])

    @classmethod
    def of(cls, stored: Stored) -> Self:
        """An event, as it is shown."""
        shown = Event.model_validate(stored, from_attributes=True)
        return cls(
            message_id=public_id(IdPrefix.MESSAGE, stored.message_id),
            **{name: getattr(shown, name) for name in Event.model_fields},
        )


class EventPage(Page[AccountEvent]):
    """Some events, the oldest first."""


@router.get(
    "",
    operation_id="list_account_events",
    summary="List the events of all messages",
    responses=raises(QueryTooWide),
)
async def listed(
    query: Annotated[EventsQuery, Query()], caller: MessageReader, gateway: Gateway
) -> EventPage:
    """The events of the messages of the key's account and environment, the oldest first.

    To follow them, request the events since a few seconds before the last one again and again, and
    skip those whose `seq` and `message_id` are known: an event can be committed some seconds after
    its time.

    A page can have fewer events than `limit`, or none, although others follow: a bounded number of
    events is read for it. Only `next_cursor` shows whether more follow.
    """
    page = await gateway.messages.account_events(
        caller,
        status=query.status,
        since=query.since or datetime.now(UTC) - DEFAULT_AGE,
        after=None if query.cursor is None else _position(query.cursor),
        limit=query.limit,
    )
    following = None if page.next is None else _packed(page.next)
    return EventPage.ending(following, [AccountEvent.of(event) for event in page.events])


def _packed(position: Position) -> UUID:
    """A position as the content of a cursor."""
    at = (position.at - _EPOCH) // _MICROSECOND
    return UUID(int=(at << _SEQ_BITS | position.seq) << _PLACE_BITS | position.of_many)


def _position(cursor: UUID) -> Position:
    content, place = cursor.int >> _PLACE_BITS, cursor.int & LARGEST_PLACE
    return Position(_EPOCH + (content >> _SEQ_BITS) * _MICROSECOND, content & LARGEST_SEQ, place)

"""The kinds of events that endpoints can subscribe to, and how the body of each is made.

A body is made when its event is sent, from the id of the thing and from what the outbox keeps of the
event. No other module knows what a kind means.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from domain.callbacks.events import CallbackEvent
from domain.ids import IdPrefix, public_id
from domain.outbox import MESSAGE_REPORT, MESSAGE_STATUS, EventBody, OutboxEvent, Transport
from domain.states import MessageStatus
from store import callbacks, messages
from store.database import Connection

MakeBodies = Callable[[Connection, Sequence[OutboxEvent]], Awaitable[Sequence[EventBody]]]
"""Makes the bodies of events of one kind, one for each and in their order, by few statements."""


@dataclass(frozen=True, slots=True)
class EventKind:
    """A kind of events.

    Attributes:
        name: as it stands in the outbox and in `endpoints.kinds`; also the name of its signal.
        version: of the body. It grows when a receiver of the old body could not read the new one.
        subscribers: endpoints of these transports may subscribe to it.
        bodies: makes the bodies.
        is_named: whether the body begins with `type` and `version`. That of `message.status` does not:
            it is older than other kinds.
    """

    name: str
    version: int
    subscribers: frozenset[Transport]
    bodies: MakeBodies
    is_named: bool = True

    async def made(
        self, connection: Connection, events: Sequence[OutboxEvent]
    ) -> Sequence[EventBody]:
        """The bodies of events of this kind, in their order, as they are sent."""
        bodies = await self.bodies(connection, events)
        if not self.is_named:
            return bodies
        named = f'"type":"{self.name}","version":{self.version},'
        return [EventBody(body.id, named + body.members) for body in bodies]


class EventKinds:
    """The registry of kinds, by their names."""

    def __init__(self, kinds: Iterable[EventKind]) -> None:
        self._kinds: Mapping[str, EventKind] = {kind.name: kind for kind in kinds}

    def and_also(self, *kinds: EventKind) -> "EventKinds":
        """A registry with more kinds."""
        return EventKinds([*self._kinds.values(), *kinds])

    def subscribe(
        self, connection: Connection, lane_id: UUID, transport: Transport, names: Collection[str]
    ) -> None:
        """Let an endpoint of this transport get these kinds of events, and no others, from now on.

        Raises:
            ValueError: one of them is unknown, or not for endpoints of this transport.
        """
        for name in names:
            if (kind := self._kinds.get(name)) is None or transport not in kind.subscribers:
                message = f"endpoints by {transport} cannot subscribe to {name}"
                raise ValueError(message)
        callbacks.subscribe(connection, lane_id, transport, names)

    async def bodies(
        self, connection: Connection, events: Iterable[OutboxEvent], transport: Transport
    ) -> Mapping[UUID, EventBody]:
        """The bodies of events by their ids; none for kinds that this transport does not know."""
        by_kind: defaultdict[str, list[OutboxEvent]] = defaultdict(list)
        for event in events:
            by_kind[event.kind].append(event)
        made: dict[UUID, EventBody] = {}
        for name, alike in by_kind.items():
            kind = self._kinds.get(name)
            if kind is not None and transport in kind.subscribers:
                made |= {body.id: body for body in await kind.made(connection, alike)}
        return made


async def _message_status(
    connection: Connection, events: Sequence[OutboxEvent]
) -> Sequence[EventBody]:
    """The number is read for this very delivery, since it may have been erased."""
    numbers = await messages.numbers(connection, {event.subject_id for event in events})
    return [
        CallbackEvent(
            id=event.id,
            message_id=event.subject_id,
            to=numbers.get(event.subject_id),
            status=MessageStatus(event.status),
            provider_code=event.code,
            occurred_at=event.occurred_at,
        ).as_body()
        for event in events
    ]


async def _message_report(_: Connection, events: Sequence[OutboxEvent]) -> Sequence[EventBody]:
    """Ids and codes only: a signal is part of a workflow's history."""
    return [
        EventBody(
            event.id,
            f'"message_id":"{public_id(IdPrefix.MESSAGE, event.subject_id)}",'
            f'"status":"{event.status}","occurred_at":"{_iso(event.occurred_at)}"',
        )
        for event in events
    ]


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


EVENT_KINDS: Final = EventKinds(
    [
        EventKind(
            MESSAGE_STATUS,
            version=1,
            subscribers=frozenset({Transport.WEBHOOK}),
            bodies=_message_status,
            is_named=False,
        ),
        EventKind(
            MESSAGE_REPORT,
            version=1,
            subscribers=frozenset({Transport.SIGNAL}),
            bodies=_message_report,
        ),
    ]
)

"""The events of a lane as requests: which travel together, and in which order."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Self
from uuid import UUID

from domain.callbacks.events import body_of_many, webhook_id_of_many
from domain.configuration import Environment
from domain.outbox import EventBody
from domain.values import value
from store.callbacks import DueCallback


@value
class Sendable:
    """An event and its body, which is None if this version of the worker cannot make it."""

    due: DueCallback
    body: EventBody | None


@value
class SubjectEvents:
    """The events of one subject in a request, and the rest, which waits for their outcome."""

    events: Sequence[Sendable]
    rest: Sequence[Sendable]


@dataclass(frozen=True, slots=True)
class Request:
    """Events that travel together, all of one environment and to one target.

    `body` is None where it cannot be made.
    """

    environment: Environment
    target: str
    subjects: Sequence[SubjectEvents]
    webhook_id: str
    body: bytes | None

    @property
    def events(self) -> Iterator[DueCallback]:
        return (each.due for subject in self.subjects for each in subject.events)

    def by_tries(self) -> Mapping[int, list[UUID]]:
        """The events' ids by how often each was tried before."""
        tried: defaultdict[int, list[UUID]] = defaultdict(list)
        for each in self.events:
            tried[each.tries].append(each.event.id)
        return tried

    @classmethod
    def of(
        cls,
        environment: Environment,
        target: str,
        subjects: Sequence[SubjectEvents],
        *,
        as_list: bool,
    ) -> Self:
        bodies = [
            each.body for subject in subjects for each in subject.events if each.body is not None
        ]
        if not bodies:
            return cls(environment, target, subjects, "", None)
        if as_list:
            webhook_id, body = webhook_id_of_many(bodies), body_of_many(bodies)
            return cls(environment, target, subjects, webhook_id, body)
        (alone,) = bodies
        return cls(environment, target, subjects, alone.webhook_id, alone.alone())


class Ready:
    """What was read and is to be sent: by subject, each environment and target apart, in turns."""

    def __init__(self) -> None:
        self._by_target: dict[tuple[Environment, str, bool], deque[Sequence[Sendable]]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_target)

    def add(self, events: Sequence[Sendable]) -> None:
        """Take up events of one subject, in their order."""
        first = events[0]
        target = first.due.environment, first.due.target, first.body is not None
        self._by_target.setdefault(target, deque()).append(events)

    def next_request(self, most: int) -> Request:
        """Take what one request carries: `most` events, or fewer if no more are ready."""
        target = next(iter(self._by_target))
        waiting = self._by_target.pop(target)
        environment, where, has_body = target
        subjects: list[SubjectEvents] = []
        room = most if has_body else 1
        while waiting and room:
            events = waiting.popleft()
            alike = list(takewhile(lambda each: (each.body is not None) is has_body, events[:room]))
            subjects.append(SubjectEvents(alike, events[len(alike) :]))
            room -= len(alike)
        if waiting:
            self._by_target[target] = waiting  # behind the others
        return Request.of(environment, where, subjects, as_list=most > 1)

"""What the row of a bulk says: its messages, and whether it is paused, resumed or cancelled."""

from dataclasses import replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from domain.delivery import MessageFacts
from domain.ids import IdPrefix, parse_id, public_id
from domain.states import AttemptStatus
from store.bulks import IdRange
from workflows.ports.bulk import BulkRef, bulk_workflow_id


def uuid_of(ref: BulkRef) -> UUID:
    """The id of a bulk in the database.

    Raises:
        ValueError: the reference has no id of a bulk.
    """
    found = parse_id(IdPrefix.BATCH, ref.bulk_id)
    if found is None:
        message = f"{ref.bulk_id!r} is no id of a bulk"
        raise ValueError(message)
    return found


class RangeOfBulk(Protocol):
    """Which messages a bulk has: a row of it, or of its batch."""

    @property
    def id(self) -> UUID: ...
    @property
    def first_id(self) -> UUID: ...
    @property
    def last_id(self) -> UUID: ...


class StateOfBulk(Protocol):
    """When a bulk was paused, resumed or cancelled: a row of it, or of one of its messages."""

    @property
    def paused_at(self) -> datetime | None: ...
    @property
    def resumed_at(self) -> datetime | None: ...
    @property
    def canceled_at(self) -> datetime | None: ...


def id_range_of(bulk: RangeOfBulk) -> IdRange:
    """Which messages a stored bulk has."""
    owner = bulk_workflow_id(public_id(IdPrefix.BATCH, bulk.id))
    return IdRange(bulk.id, bulk.first_id, bulk.last_id, owner)


def in_bulk(facts: MessageFacts, bulk: StateOfBulk) -> MessageFacts:
    """A message's facts with those of the bulk that it was accepted with, whichever runner owns it now.

    A cancelled bulk cancels each message whose last attempt no provider has accepted.
    """
    resumed_at = bulk.resumed_at
    is_accepted = bool(facts.attempts) and facts.attempts[-1].status is AttemptStatus.ACCEPTED
    return replace(
        facts,
        since=facts.since if resumed_at is None else max(facts.since, resumed_at),
        paused=bulk.paused_at is not None,
        cancel_requested=facts.cancel_requested
        or (bulk.canceled_at is not None and not is_accepted),
    )

"""Which transitions make a callback, and the bodies of callbacks."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from domain.ids import IdPrefix, public_id
from domain.outbox import EventBody
from domain.states import MessageStatus
from domain.values import value

CALLBACK_STATUSES: Final = frozenset(
    {
        MessageStatus.SENT,
        MessageStatus.DELIVERED,
        MessageStatus.FAILED,
        MessageStatus.EXPIRED,
        MessageStatus.DEAD_LETTER,
        MessageStatus.CANCELED,
    }
)
"""The statuses that are reported by a callback; the others are steps on the way."""


class CallbackState(StrEnum):
    """Where a callback is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up: refused for good, or tried as often as the policy allows. It can be replayed."""


_json = json.JSONEncoder().encode  # less than half of what `json.dumps` takes for a short text


@value
class CallbackEvent:
    """One transition of a message, as a callback reports it."""

    id: UUID
    message_id: UUID
    to: str | None
    """The recipient's number in E.164, read for this very delivery; None once it was erased."""
    status: MessageStatus
    provider_code: str
    occurred_at: datetime

    def as_body(self) -> EventBody:
        """The five members of the JSON object that is sent."""
        # Put together by hand: this is the greater part of what a callback costs in a batch.
        moment = self.occurred_at.astimezone(UTC).isoformat(timespec="milliseconds")
        return EventBody(
            self.id,
            f'"message_id":"{public_id(IdPrefix.MESSAGE, self.message_id)}",'
            f'"to":{_json(self.to)},"status":"{self.status.value.upper()}",'
            f'"provider_code":{_json(self.provider_code)},'
            f'"timestamp":"{moment.removesuffix("+00:00")}Z"',
        )


MOST_EVENTS: Final = 100
"""How many events a request carries at most, where an account prefers many."""


def body_of_many(events: Sequence[EventBody]) -> bytes:
    """The JSON that is sent and signed when events travel together: each with its `id`."""
    return f'{{"events":[{",".join([event.with_id() for event in events])}]}}'.encode()


def webhook_id_of_many(events: Sequence[EventBody]) -> str:
    """The id of a request with many events: the same whenever the same ones travel together."""
    digest = hashlib.sha256(b"".join(sorted(event.id.bytes for event in events))).digest()
    return public_id(IdPrefix.CALLBACK_REQUEST, UUID(bytes=digest[:16]))

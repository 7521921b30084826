"""What the outbox holds of an event, and what is sent of it.

A row names the kind of the event and the thing that it is about, and keeps what later changes of the
thing would falsify. `services/event_kinds.py` makes the body when the event is sent.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from domain.ids import IdPrefix, public_id
from domain.values import value

MESSAGE_STATUS: Final = "message.status"
"""A message got another status; for the webhooks of its account."""
MESSAGE_REPORT: Final = "message.report"
"""A message has a final status, or no receipt in time; for the workflow that listens to it."""

NO_RECEIPT: Final = "no_receipt"
"""What a report says instead of a status when no receipt came by the deadline."""


class Transport(StrEnum):
    """How the events of an endpoint are delivered."""

    WEBHOOK = "webhook"
    """A signed POST to a URL."""
    SIGNAL = "signal"
    """A signal to a Temporal workflow, named as the kind."""


@value
class OutboxEvent:
    """One event of the thing `subject_id`; `status` and `code` are those of the event."""

    id: UUID
    kind: str
    subject_id: UUID
    status: str
    code: str
    occurred_at: datetime


@value
class EventBody:
    """An event as it is sent: its id, and the members of its JSON object as text."""

    id: UUID
    members: str

    @property
    def webhook_id(self) -> str:
        """The id by which receivers detect copies: each try and replay of an event has the same."""
        return public_id(IdPrefix.CALLBACK, self.id)

    def alone(self) -> bytes:
        """The JSON of an event that travels alone, in UTF-8."""
        return f"{{{self.members}}}".encode()

    def with_id(self) -> str:
        """The JSON of an event that carries its own id."""
        return f'{{{self.members},"id":"{self.webhook_id}"}}'

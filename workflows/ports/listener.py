"""The signal `message.report`, which a workflow that listens to messages receives.

    @workflow.signal(name=MESSAGE_REPORT)
    def message_reported(self, report: MessageReport) -> None: ...

A report may come twice, with the same `id`. The reports of one message come in order.
"""

from dataclasses import dataclass
from datetime import datetime

from domain.outbox import MESSAGE_REPORT, NO_RECEIPT

__all__ = ["MESSAGE_REPORT", "NO_RECEIPT", "MessageReport"]


@dataclass(frozen=True, slots=True)
class MessageReport:
    """A message has come to an end, or no receipt came by its deadline.

    Attributes:
        id: the event's; a copy has the same.
        message_id: "msg_…".
        status: a final status, "sent" where the provider gives no receipts, or `NO_RECEIPT`.
        occurred_at: when, with a time zone.
    """

    id: str
    message_id: str
    status: str
    occurred_at: datetime
    type: str = MESSAGE_REPORT
    version: int = 1

"""Reads the parts and the receipts of one message."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.error_classes import ErrorClass
from domain.receipts import ReceiptState
from store.database import Connection
from store.rows import Query


@dataclass(frozen=True, slots=True)
class SubmittedPart:
    """A part that was given to a provider; `provider_message_id` is None before its response."""

    number: int
    provider_message_id: str | None
    reference: int | None


@dataclass(frozen=True, slots=True)
class MessageReceipt:
    """What a provider reported about a part of a message.

    `copies` counts how often it said the same; `received_at` and `done_at` are those of the first.
    """

    provider: str
    provider_message_id: str
    state: ReceiptState
    code: str
    error_class: ErrorClass | None
    network: str | None
    attempt: int
    part: int
    copies: int
    received_at: datetime
    done_at: datetime | None


_PARTS_AT = Query.of(
    SubmittedPart,
    """
SELECT number, provider_message_id, reference FROM all_parts
WHERE message_id = :message_id AND provider = :provider AND status IS NOT NULL
  AND attempt = (SELECT max(number) FROM attempts
                 WHERE message_id = :message_id AND provider = :provider)
ORDER BY number
""",
)

_OF_MESSAGE = Query.of(
    MessageReceipt,
    """
SELECT provider, provider_message_id, state, code, error_class, max(network) AS network, attempt, part,
       sum(copies)::integer AS copies, min(received_at) AS received_at, min(done_at) AS done_at
FROM (
    SELECT provider, provider_message_id, state, code, error_class, network, attempt, part, copies,
           received_at, done_at
    FROM receipts WHERE message_id = :message_id
    UNION ALL
    SELECT provider, provider_message_id, receipt_state, receipt_code, NULL, NULL, number, 1, 1,
           receipt_at, receipt_done_at
    FROM attempts WHERE message_id = :message_id AND receipt_within
) AS came
GROUP BY provider, provider_message_id, state, code, error_class, attempt, part
ORDER BY min(received_at), part
""",
)


async def parts_at(
    connection: Connection, provider: str, message_id: UUID
) -> Sequence[SubmittedPart]:
    """The parts of a message's last attempt at a provider.

    For receipts that name the message by our id; none if it was never given to this provider.
    """
    return await _PARTS_AT.rows(connection, {"provider": provider, "message_id": message_id})


async def of_message(connection: Connection, message_id: UUID) -> Sequence[MessageReceipt]:
    """The receipts that were matched to a message, in the order in which they came."""
    return await _OF_MESSAGE.rows(connection, {"message_id": message_id})

"""The references of an attempt: those that tie its parts together, and those in its receipts."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from domain import deadlines
from domain.configuration import ProviderConfiguration
from providers.base import Outbound
from store import references
from store.database import Connection, PendingResult
from store.references import Reference


def take_references(
    connection: Connection, parts: Mapping[UUID, int], now: datetime
) -> PendingResult[dict[UUID, Reference]]:
    """References for messages with so many parts, in the transaction that claims the messages."""
    since = deadlines.reassembly_since(now)
    return references.take(connection, parts, at=now, since=since)


def with_reference(outbound: Outbound, taken: Mapping[UUID, Reference]) -> Outbound:
    """The message with the reference that was taken for it, if any was."""
    reference = taken.get(outbound.message_id)
    if reference is None:
        return outbound
    return replace(outbound, reference=reference.number, long_reference=reference.is_scarce)


def part_method(provider: ProviderConfiguration, outbound: Outbound) -> str:
    """How the parts of this attempt are tied together, as it is stored for the parts to come."""
    return provider.part_method(long_reference=outbound.long_reference).value


def reference_of(message_id: UUID, attempt: int) -> int:
    """The reference in the receipts of a message of one part: the id's random end, and the attempt."""
    return (message_id.int + attempt * 0x101) & 0xFFFF

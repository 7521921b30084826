"""Money, where it will be spent: every accept and every further attempt asks here first."""

from typing import Protocol
from uuid import UUID

from store.database import Connection


class Billing(Protocol):
    """Sets money aside in the transaction that spends it."""

    async def reserve(
        self, connection: Connection, account_id: str, message_id: UUID, segments: int
    ) -> None:
        """Reserve the price of `segments`; raises the error for the caller if money is lacking."""


class NoBilling:
    """The billing of an installation that keeps no accounts of money."""

    async def reserve(
        self, connection: Connection, account_id: str, message_id: UUID, segments: int
    ) -> None:
        """Nothing is set aside, since nothing is charged."""

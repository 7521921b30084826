"""Receipts that cannot be parsed: stored as they came, and parsed again after a fix."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from providers.base import ReceivedReceipt, UnparsedReceipt
from providers.registry import ProviderTypes
from services.configuration import Configurations
from services.receipts import ReceiptIntake
from store import unparsed_receipts as store
from store.database import Database
from store.unparsed_receipts import UnparsedReceipt as StoredUnparsed
from telemetry.logs import get_logger

_log = get_logger(__name__)

_AT_ONCE: Final = 500
"""Receipts that one request parses again; the next one goes on behind them."""


class UnknownProvider(Exception):
    """The configuration has no such provider."""


@dataclass(frozen=True, slots=True)
class Reparsed:
    """What came of some of a provider's receipts.

    Attributes:
        parsed: how many could be parsed, and were stored as receipts.
        unparsed: how many still cannot be, and stay.
        next_after: the last id that was looked at, or None if no more follow.
    """

    parsed: int
    unparsed: int
    next_after: int | None


class UnparsedReceipts:
    """Keeps the octets of receipts that cannot be parsed, until they can be."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        intake: ReceiptIntake,
        types: ProviderTypes,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._intake = intake
        self._types = types

    async def store(self, receipt: UnparsedReceipt) -> None:
        """Store one; when this returns, the carrier may be answered.

        Raises:
            Exception: it was not stored: the sender has to keep it and send it again.
        """
        async with self._database.begin() as connection:
            store.add(
                connection,
                receipt.provider,
                received_at=datetime.now(UTC),
                reason=receipt.reason.value,
                frame=receipt.frame,
            )

    async def reparse(self, provider: str, after: int = 0) -> Reparsed:
        """Parse a provider's receipts again, by the configuration in force, from an id on.

        One that can be parsed is stored as a receipt, with the time at which it came, and deleted
        here once that is committed. A crash between the two stores it as a copy the next time.

        Raises:
            UnknownProvider: the configuration has none of this name.
            NoConfiguration: there is none yet.
        """
        declared = self._configurations.current.providers.get(provider)
        if declared is None:
            raise UnknownProvider
        async with self._database.begin() as connection:
            rows = await store.after(connection, provider, after, _AT_ONCE)
        read = [(row, self._types.parse_again(provider, declared, row.frame)) for row in rows]
        stored = await asyncio.gather(
            *(self._stored_again(row, found) for row, found in read if not isinstance(found, str))
        )
        done = [id_ for id_ in stored if id_ is not None]
        if done:
            async with self._database.begin() as connection:
                store.remove(connection, done)
        _log.info("receipts_reparsed", provider=provider, count=len(done))
        return Reparsed(
            parsed=len(done),
            unparsed=len(rows) - len(done),
            next_after=rows[-1].id if len(rows) == _AT_ONCE else None,
        )

    async def _stored_again(
        self, row: StoredUnparsed, receipts: Sequence[ReceivedReceipt]
    ) -> int | None:
        """Store the receipts of a row; its id, or None if there are none or not all were stored."""
        stored = await asyncio.gather(
            *(self._intake.take(receipt, row.received_at) for receipt in receipts),
            return_exceptions=True,
        )
        failed = any(isinstance(each, BaseException) for each in stored)
        return None if failed or not stored else row.id

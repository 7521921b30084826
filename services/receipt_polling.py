"""Receipts that did not come: they are requested from their providers.

A scan of what is open finds the parts that a provider accepted, or may have, whose receipt is missing. A
worker that holds the provider requests the state of a few of them at once, and handles an answer like a
receipt that came by itself.
"""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from domain import deadlines
from domain.configuration import ProviderConfiguration
from providers.base import Provider, ReceiptRefused
from services.configuration import Configurations
from services.receipts import ReceiptIntake, ReceiptNotStored
from store import receipt_polls as store
from store.database import BACKGROUND, Database
from store.receipt_polls import DuePart
from telemetry import metrics
from telemetry.logs import get_logger

_log = get_logger(__name__)

MOST_AT_ONCE: Final = 4
"""Requests of one worker to a provider that are under way at the same time."""
_MOST_DUE: Final = 100
"""Parts that are looked at for that: most of them may have got their receipts."""

_PAGE: Final = 2000
"""Messages, or attempts, that one transaction of a scan reads."""
_REST: Final = 20
"""How many times as long as a page takes passes between two."""
_SCAN_LEASE: Final = timedelta(minutes=5)
"""Much longer than a page and the pause behind it take."""
_PAUSE_SHARE: Final = 4
_SHORTEST_PAUSE: Final = timedelta(seconds=0.5)
_LONGEST_PAUSE: Final = timedelta(seconds=15)

_BEFORE_ALL: Final = -1
"""No attempt has this number or a lower one."""


def pause_of(poll_after: timedelta) -> timedelta:
    """The pause between two scans, and between two looks at what is due: a small part of the wait."""
    return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, poll_after / _PAUSE_SHARE))


class ReceiptPolling:
    """Finds parts whose receipts are missing, and requests their states from their providers."""

    def __init__(
        self, database: Database, configurations: Configurations, intake: ReceiptIntake
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._intake = intake

    @property
    def _polled(self) -> dict[str, timedelta]:
        """The providers that receipts are requested from, and how long after the submit."""
        return {
            name: after
            for name, declared in self._configurations.current.providers.items()
            if (after := declared.receipt_poll_after) is not None
        }

    async def scan(self) -> int | None:
        """Look at all that is open, page by page, for every provider; how many parts were found.

        It takes a twentieth of the time of one connection at most. None if another worker does it, or
        did it a short time ago.
        """
        polled = self._polled
        if not polled:
            return None
        async with self._database.begin() as connection:
            if not await store.begin_scan(connection, _SCAN_LEASE):
                return None
        added = await self._scan_messages(polled)
        async with self._database.begin() as connection:
            bulks = await store.open_bulks(connection)
        for bulk in bulks:
            added += await self._scan_bulk(polled, bulk)
        async with self._database.begin() as connection:
            store.next_scan_after(connection, pause_of(min(polled.values())))
        return added

    async def _scan_messages(self, polled: dict[str, timedelta]) -> int:
        after, added = store.FIRST_CHECK_BY, 0
        while True:
            began = time.monotonic()
            async with self._database.begin(within=BACKGROUND) as connection:
                store.next_scan_after(connection, _SCAN_LEASE)
                page = await store.scan_messages(
                    connection,
                    polled,
                    longest=deadlines.POLL_RECEIPTS_FOR,
                    after=after,
                    limit=_PAGE,
                )
            added += page.added
            if page.check_by is None or page.messages < _PAGE:
                return added
            after = page.check_by
            await _rest_since(began)

    async def _scan_bulk(self, polled: dict[str, timedelta], bulk: store.BulkRange) -> int:
        after: tuple[UUID, int] = bulk.first_id, _BEFORE_ALL
        added = 0
        while True:
            began = time.monotonic()
            async with self._database.begin(within=BACKGROUND) as connection:
                store.next_scan_after(connection, _SCAN_LEASE)
                page = await store.scan_attempts(
                    connection,
                    polled,
                    longest=deadlines.POLL_RECEIPTS_FOR,
                    after=after,
                    last_id=bulk.last_id,
                    limit=_PAGE,
                )
            added += page.added
            if page.message_id is None or page.number is None or page.attempts < _PAGE:
                return added
            after = page.message_id, page.number
            await _rest_since(began)

    async def poll(self, provider: Provider, declared: ProviderConfiguration) -> int:
        """Request the state of some parts that are due; how many were handled, 0 if none is due."""
        poll_after = declared.receipt_poll_after
        if poll_after is None:
            return 0
        now = datetime.now(UTC)
        async with self._database.begin() as connection:
            due = await store.due(
                connection,
                provider.name,
                longest=deadlines.POLL_RECEIPTS_FOR,
                limit=_MOST_DUE,
            )
            wanted = [part for part in due if part.wanted][:MOST_AT_ONCE]
            claimed = [(part, _again_after(part, poll_after, declared, now)) for part in wanted]
            store.claim(connection, claimed)
            over = [part for part in due if not part.wanted]
            store.remove(connection, over)
        within = deadlines.receipt_poll_within(declared.response_timeout)
        outcomes = await asyncio.gather(*(self._ask(provider, part, within) for part in wanted))
        for outcome in outcomes:
            metrics.receipt_polled(provider=provider.name, outcome=outcome)
        return len(wanted) + len(over)

    async def _ask(self, provider: Provider, part: DuePart, within: timedelta) -> str:
        """Request the state of one part, and store the answer; the outcome, for the metric."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                found = await provider.query(
                    part.provider_message_id or "", sender=part.sender or ""
                )
        except TimeoutError:
            return "unanswered"
        except Exception as error:  # noqa: BLE001 - of an adapter; other parts must be polled
            _log.warning(
                "receipt_poll_failed", provider=provider.name, error_type=type(error).__name__
            )
            return "failed"
        if found is None:
            return "unanswered"
        try:
            await self._intake.take(replace(found, part=part.part))
        except (ReceiptNotStored, ReceiptRefused):
            return "not_stored"
        return "final" if found.state.is_final else "pending"


def _again_after(
    part: DuePart, poll_after: timedelta, declared: ProviderConfiguration, now: datetime
) -> timedelta:
    return deadlines.poll_receipt_again_after(
        poll_after,
        part.polls + 1,
        declared.response_timeout,
        (part.receipt_by or now) - now,
    )


async def _rest_since(began: float) -> None:
    await asyncio.sleep(_REST * (time.monotonic() - began))

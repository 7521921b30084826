"""Where receipts and answers meet that were committed at the same moment (docs/decisions/0013)."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from domain.errors import RECEIPT_ERRORS
from domain.receipts import ReceiptState
from providers.base import ReceivedReceipt
from services.announcements import Announcements
from store import receipts
from store.database import DATABASE_ERRORS, Database
from store.receipts import EarlyReceipt, Matched
from telemetry.logs import get_logger

_log = get_logger(__name__)

GRACE = timedelta(seconds=60)
"""How much later than planned something may happen before the reconciler asks after it."""

_WRITTEN_WITHIN: Final = 1.0
"""Seconds that receipts wait for their answers to be written, and then for these to have been.

Without the database neither would be."""

_FEW = 1000
"""Receipts without a part of which all are read."""

RECEIPT_ERROR_NAMES = {state.value: error.value for state, error in RECEIPT_ERRORS.items()}


class Unwritten:
    """Answers of a provider that are written together, in a moment, with receipts that came before."""

    def __init__(self, known: dict[str, "Unwritten"]) -> None:
        self._known = known
        self._ids: list[str] = []
        self._kept: dict[str, tuple[EarlyReceipt, Callable[[bool], None]]] = {}
        self._gathering = True
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, provider_message_ids: Iterable[str | None]) -> None:
        """These answers are to be written, too."""
        ids = [each for each in provider_message_ids if each is not None]
        self._known.update(dict.fromkeys(ids, self))
        self._ids += ids

    def keep(self, its_id: str, receipt: EarlyReceipt, tell: Callable[[bool], None]) -> bool:
        """As `Meeting.keep`."""
        if not self._gathering or its_id in self._kept:
            return False
        if not self._kept:
            asyncio.get_running_loop().call_later(_WRITTEN_WITHIN, self._leave)
        self._kept[its_id] = receipt, tell
        return True

    def _leave(self) -> None:
        """Leave what is kept to those who brought it."""
        kept, self._kept = self._kept, {}
        for _, tell in kept.values():
            tell(False)

    @contextmanager
    def receipts(self) -> Iterator[tuple[Mapping[str, EarlyReceipt], set[str]]]:
        """The receipts to write with their answers, by their ids, and a set for those that were.

        None is kept from now on. What is not in the set at the end of the block, or anything where
        it raises, is left to those who brought it.
        """
        self._gathering = False
        kept, self._kept = self._kept, {}
        written: set[str] = set()
        try:
            yield {each: receipt for each, (receipt, _) in kept.items()}, written
        except BaseException:
            written.clear()
            raise
        finally:
            for each, (_, tell) in kept.items():
                tell(each in written)

    def written(self) -> None:
        """They are written, or cannot be."""
        self._leave()
        for each in self._ids:
            if self._known.get(each) is self:
                del self._known[each]
        self.end.set_result(None)


class Meeting:
    """Both sides of the race: who is early waits for what this process is about to write.

    What another process writes is met by a second look, after what each side wrote is committed.
    """

    def __init__(self, database: Database, announcements: Announcements) -> None:
        self._database = database
        self._announcements = announcements
        self._unwritten: dict[str, dict[str, Unwritten]] = {}

    def answers(self, provider: str) -> Unwritten:
        """Where answers are gathered that are not written yet."""
        return Unwritten(self._unwritten.setdefault(provider, {}))

    def keep(self, receipt: ReceivedReceipt, at: datetime, tell: Callable[[bool], None]) -> bool:
        """Have a receipt that came `at` written with its answer, if that is being gathered just now.

        If so, `tell` is called with whether both were committed: if not, the receipt is to be written
        by itself. Only what says that a message is delivered, and no more, is kept.
        """
        its_id = receipt.provider_message_id
        unwritten = self._unwritten.get(receipt.provider, {}).get(its_id)
        if unwritten is None or receipt.state is not ReceiptState.DELIVERED or receipt.network:
            return False
        return unwritten.keep(its_id, EarlyReceipt(receipt.code, at, receipt.done_at), tell)

    async def until_written(self, provider: str, ids: Iterable[str]) -> None:
        """Wait for those answers with these ids that are being gathered, for a second at most."""
        unwritten = self._unwritten.get(provider)
        if not unwritten:
            return
        ends = {unwritten[each].end for each in ids if each in unwritten}
        if ends:
            await asyncio.wait(ends, timeout=_WRITTEN_WITHIN)

    async def look_again(self, provider: str, ids: Sequence[str | None]) -> Matched:
        """Bring together receipts and parts with these ids, and tell of what that moved.

        Never raises: what fails here is found by the next `match_late`.
        """
        known = [each for each in ids if each is not None]
        if not known:
            return Matched()
        try:
            async with self._database.begin() as connection:
                # Mostly none waits, or a few do; to look for each id costs more than all of them.
                waiting = await receipts.waiting(connection, provider, _FEW)
                if waiting is not None and waiting.isdisjoint(known):
                    return Matched()
                matched = await receipts.match(
                    connection,
                    provider,
                    known if waiting is None else [each for each in known if each in waiting],
                    at=datetime.now(UTC),
                    errors=RECEIPT_ERROR_NAMES,
                    recheck=GRACE,
                )
        except DATABASE_ERRORS as error:
            _log.warning("receipts_not_met", provider=provider, error_type=type(error).__name__)
            return Matched()
        self._announcements.tell(matched.transitions)
        return matched

"""Where receipts and answers meet that were committed at the same moment (docs/decisions/0013)."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from domain.errors import RECEIPT_ERRORS
from services.announcements import Announcements
from store import receipts
from store.database import DATABASE_ERRORS, Database
from store.receipts import Matched
from telemetry.logs import get_logger

_log = get_logger(__name__)

GRACE = timedelta(seconds=60)
"""How much later than planned something may happen before the reconciler asks after it."""

_FEW = 1000
"""Receipts without a part of which all are read."""

RECEIPT_ERROR_NAMES = {state.value: error.value for state, error in RECEIPT_ERRORS.items()}


class Meeting:
    """The second look of both sides of the race, after what they wrote is committed."""

    def __init__(self, database: Database, announcements: Announcements) -> None:
        self._database = database
        self._announcements = announcements

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

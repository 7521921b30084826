"""Retention: messages that are over are kept for as long as the installation wants, and deleted then."""

from datetime import datetime, timedelta
from typing import Final

from store import retention
from store.database import Database
from telemetry import metrics
from telemetry.logs import get_logger

_log = get_logger(__name__)

_AT_ONCE: Final = 500
"""Messages that one transaction deletes: others are not to wait for more."""
_SLICES: Final = 20
"""Transactions of one round: with one round in five seconds, some 2,000 messages a second."""


class Retention:
    """What `UpkeepWorkflow` has deleted in each of its rounds; `keep` is None for ever."""

    def __init__(self, database: Database, keep: timedelta | None) -> None:
        self._database = database
        self._keep = keep

    async def delete(self, now: datetime) -> int:
        """Delete some of what is older than it is kept; how many messages those were."""
        if self._keep is None:
            return 0
        deleted = 0
        for _ in range(_SLICES):
            async with self._database.begin() as connection:
                some = await retention.delete(connection, now - self._keep, _AT_ONCE)
            deleted += some
            if some < _AT_ONCE:
                break
        if deleted:
            metrics.messages_deleted(deleted)
            _log.info("old_messages_deleted", count=deleted)
        return deleted

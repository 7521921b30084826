"""How the providers are: declared, up or down, and what came of the last hour's attempts."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.configuration import SmppProvider
from services.asked import Caller
from services.configuration import Configurations
from store import providers as store
from store.database import Database, Row

WINDOW = timedelta(minutes=60)
# A message may wait a long time before an attempt; older ones are not counted.
_OLDEST_MESSAGE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """A declared provider; `recent` holds figures of the caller's own attempts."""

    name: str
    declared: SmppProvider
    up: bool
    workers: int
    binds_up: int
    last_beat_at: datetime | None
    recent: Row | None


class Providers:
    """What the API tells of providers."""

    def __init__(self, database: Database, configurations: Configurations) -> None:
        self._database = database
        self._configurations = configurations

    async def listed(self, caller: Caller) -> list[ProviderStatus]:
        """The providers that messages of the caller's environment can reach, by name."""
        since = _smallest_id(datetime.now(UTC) - _OLDEST_MESSAGE)
        async with self._database.begin() as connection:
            beats = {row["provider"]: row for row in await store.workers(connection)}
            figures = {
                row["provider"]: row
                for row in await store.recent(
                    connection, caller.account_id, caller.environment.value, str(since)
                )
            }
        statuses = []
        for name, declared in sorted(self._configurations.current.providers.items()):
            if declared.environment is not caller.environment:
                continue
            beat = beats.get(name)
            statuses.append(
                ProviderStatus(
                    name=name,
                    declared=declared,
                    up=bool(beat and beat["up"]),
                    workers=beat["workers"] if beat else 0,
                    binds_up=beat["binds_up"] if beat else 0,
                    last_beat_at=beat["last_beat_at"] if beat else None,
                    recent=figures.get(name),
                )
            )
        return statuses


def _smallest_id(moment: datetime) -> UUID:
    """The smallest UUIDv7 of a moment (RFC 9562, 5.7: 48 bits of milliseconds come first)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)

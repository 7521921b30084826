"""The configuration in force, in every process: loaded at start, applied over the API, followed.

A process reads the newest version when it starts, is told of newer ones by NOTIFY, and looks again
every few seconds in case it was not told.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from domain.configuration import Configuration
from settings.configuration_file import (
    ConfigurationMistakes,
    Mistake,
    parse_configuration,
    read_configuration,
)
from store import configurations as store
from store.database import DATABASE_ERRORS, Database
from telemetry.logs import get_logger

_log = get_logger(__name__)

LOOK_AGAIN = timedelta(seconds=10)


class NoConfiguration(Exception):
    """There is no configuration yet."""

    loggable = True

    def __init__(self) -> None:
        super().__init__(
            "there is no configuration yet: set SMSGATEWAY_CONFIG to a TOML file "
            "(config/example.toml shows one) or apply one with `smsctl config apply FILE`"
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """A version in force; `changed` is False if it was in force already."""

    version: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A version as it was stored; its text holds references to secrets, never secrets."""

    version: int
    content: str
    source: str
    applied_by: str
    applied_at: datetime


def check(text: str) -> list[Mistake]:
    """The mistakes of a configuration, each with its line; none if it can be applied."""
    try:
        parse_configuration(text)
    except ConfigurationMistakes as found:
        return list(found.mistakes)
    return []


class Configurations:
    """The configuration that holds, kept up to date while `follow` runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._current: Configuration | None = None
        self._version: int | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def current(self) -> Configuration:
        """The configuration in force.

        Raises:
            NoConfiguration: before the first one.
        """
        if self._current is None:
            raise NoConfiguration
        return self._current

    @property
    def loaded(self) -> bool:
        """Whether there is one."""
        return self._current is not None

    @property
    def version(self) -> int | None:
        """Its version, or None before the first one."""
        return self._version

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever another version comes into force."""
        self._listeners.append(listener)

    async def load_file(self, path: Path) -> Applied:
        """Make a file the newest version, if it changed since it was last loaded.

        Raises:
            ConfigurationMistakes: it cannot be applied; nothing was stored.
            OSError: it cannot be read.
        """
        text, _ = await asyncio.to_thread(read_configuration, path)
        source = f"file:{path.name}"
        async with self._database.begin() as connection:
            if await store.loaded_before(connection, text, source):
                present = await store.latest(connection)
                applied = Applied(present["version"] if present else 0, changed=False)
            else:
                version, new = await store.add(connection, text, source=source, applied_by="start")
                applied = Applied(version, changed=new)
        await self.refresh()
        return applied

    async def apply(self, text: str, *, applied_by: str) -> Applied:
        """Check a configuration and make it the newest version.

        Raises:
            ConfigurationMistakes: it cannot be applied; nothing was stored.
        """
        parse_configuration(text)
        async with self._database.begin() as connection:
            version, new = await store.add(connection, text, source="api", applied_by=applied_by)
        await self.refresh()
        return Applied(version, changed=new)

    async def stored(self) -> Stored | None:
        """The version in force, as it was stored."""
        async with self._database.begin() as connection:
            found = await store.latest(connection)
        if found is None:
            return None
        return Stored(
            version=found["version"],
            content=found["content"],
            source=found["source"],
            applied_by=found["applied_by"],
            applied_at=found["created_at"],
        )

    async def refresh(self) -> bool:
        """Take over the newest version; whether it is another than before.

        One that this process cannot read (written by a newer one, say) is reported and passed over.
        """
        async with self._database.begin() as connection:
            found = await store.latest(connection)
        if found is None or found["version"] == self._version:
            return False
        try:
            self._current = parse_configuration(found["content"])
        except ConfigurationMistakes:
            _log.exception("configuration_unreadable", config_version=found["version"])
            return False
        self._version = found["version"]
        _log.info("configuration_in_force", config_version=self._version)
        for listener in self._listeners:
            listener()
        return True

    async def follow(self) -> None:
        """Keep up to date until cancelled, also across restarts of the database."""
        while True:
            try:
                await self._listen()
            except DATABASE_ERRORS as error:
                _log.warning("configuration_not_followed", error_type=type(error).__name__)
                await asyncio.sleep(1)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(self._database.url, autocommit=True)
        async with connection:
            await connection.execute(f"LISTEN {store.CHANNEL}")
            while True:
                await self.refresh()
                notices = connection.notifies(timeout=LOOK_AGAIN.total_seconds(), stop_after=1)
                async with contextlib.aclosing(notices):
                    async for _ in notices:
                        pass

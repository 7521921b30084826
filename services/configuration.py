"""The configuration in force, in every process: loaded at start, applied over the API, followed.

A process reads the newest version when it starts. NOTIFY announces newer ones, and a read every few
seconds finds them if a notification was lost.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn

from domain.configuration import Configuration, ProviderConfiguration
from domain.configuration.providers.types import BUILT_IN_TYPES
from domain.secrets import AllowedSecrets
from settings.configuration_checks import (
    account_ids,
    missing_accounts,
    missing_public_url,
    protocol_mistakes,
    unreadable_secrets,
)
from settings.configuration_file import (
    ConfigurationMistakes,
    Mistake,
    parse_configuration,
    read_configuration,
)
from store import configurations as store
from store.accounts import existing_accounts
from store.database import DATABASE_ERRORS, Database
from telemetry.logs import get_logger
from telemetry.supervision import supervised

_log = get_logger(__name__)

LOOK_AGAIN = timedelta(seconds=10)
_FOLLOW_AGAIN = 1.0
"""Seconds after a failure."""


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
    """A version in force; `changed` is False if it was in force already.

    `warnings` are secrets that this process cannot read, accounts that do not exist, and providers whose
    receipts would not arrive without SMSGATEWAY_PUBLIC_URL.
    """

    version: int
    changed: bool
    warnings: tuple[Mistake, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong with a configuration, if anything, and what may be wrong: see `Applied`."""

    mistakes: ConfigurationMistakes | None = None
    warnings: tuple[Mistake, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """A version as it was stored; its text holds references to secrets, never secrets."""

    version: int
    content: str
    source: str
    applied_by: str
    applied_at: datetime


_PARSER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="configuration")
"""Parses beside the event loop, one text at a time: several threads would keep the loop waiting."""


class Configurations:
    """The configuration that holds, kept up to date while `follow` runs.

    Args:
        database: where its versions are.
        allowed: the secrets that a version may refer to when it is applied.
        types: the classes of providers that a version may declare, by type.
        has_public_url: whether this process knows the address at which providers report over HTTP.
    """

    def __init__(
        self,
        database: Database,
        allowed: AllowedSecrets,
        types: Mapping[str, type[ProviderConfiguration]] = BUILT_IN_TYPES,
        *,
        has_public_url: bool = True,
    ) -> None:
        self._database = database
        self._has_public_url = has_public_url
        self._allowed = allowed
        self._types = types
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

    async def check(self, text: str) -> Checked:
        """The mistakes of a configuration, each with its line; without any it can be applied.

        Secrets are checked, too, as far as this process can read them; the others are among the warnings
        (see `Applied`).
        """
        try:
            return Checked(warnings=await self._parse(text))
        except ConfigurationMistakes as found:
            return Checked(found)

    async def load_file(self, path: Path) -> Applied:
        """Make a file the newest version, if it changed since it was last loaded.

        Raises:
            ConfigurationMistakes: it cannot be applied; nothing was stored.
            OSError: it cannot be read.
        """
        text, _ = await asyncio.to_thread(read_configuration, path, self._allowed, self._types)
        source = f"file:{path.name}"
        async with self._database.begin() as connection:
            if await store.loaded_before(connection, text, source):
                present = await store.latest(connection)
                applied = Applied(present.version if present else 0, changed=False)
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
        warnings = await self._parse(text)
        async with self._database.begin() as connection:
            version, new = await store.add(connection, text, source="api", applied_by=applied_by)
        await self.refresh()
        return Applied(version, changed=new, warnings=warnings)

    async def _parse(self, text: str) -> tuple[Mistake, ...]:
        """The warnings of a configuration that can be applied."""
        loop = asyncio.get_running_loop()
        configuration, warnings = await loop.run_in_executor(_PARSER, self._checked, text)
        named = account_ids(configuration)
        if not named:
            return tuple(warnings)
        async with self._database.begin() as connection:
            existing = await existing_accounts(connection, named)
        if missing := named - existing:
            warnings += await loop.run_in_executor(
                _PARSER, missing_accounts, text, configuration, missing
            )
        return tuple(sorted(warnings))

    def _checked(self, text: str) -> tuple[Configuration, list[Mistake]]:
        configuration = parse_configuration(text, self._allowed, self._types)
        if mistakes := protocol_mistakes(text, configuration, self._allowed):
            raise ConfigurationMistakes(mistakes)
        warnings = unreadable_secrets(text, configuration, self._allowed)
        if not self._has_public_url:
            warnings += missing_public_url(text, configuration)
        return configuration, warnings

    async def stored(self) -> Stored | None:
        """The version in force, as it was stored."""
        async with self._database.begin() as connection:
            found = await store.latest(connection)
        if found is None:
            return None
        return Stored(
            version=found.version,
            content=found.content,
            source=found.source,
            applied_by=found.applied_by,
            applied_at=found.created_at,
        )

    async def refresh(self) -> bool:
        """Take over the newest version; whether it is newer than the one in force here.

        An older one is never taken over: it comes from a connection that lags behind, or from a
        refresh that began earlier and ended later. One that this process cannot read (written by a
        newer one, say) is reported and passed over.
        """
        async with self._database.begin() as connection:
            found = await store.latest(connection)
        if found is None or found.version <= (self._version or 0):
            return False
        try:
            self._current = parse_configuration(found.content, None, self._types)
        except ConfigurationMistakes:
            _log.exception("configuration_unreadable", config_version=found.version)
            return False
        self._version = found.version
        _log.info("configuration_in_force", config_version=self._version)
        for listener in self._listeners:
            try:
                listener()
            except Exception as error:  # noqa: BLE001 - the other listeners must be called, too
                _log.error("configuration_listener_failed", exc_info=error)
        return True

    async def follow(self) -> NoReturn:
        """Keep up to date until cancelled, whatever happens meanwhile."""
        await supervised(self._follow, "follow_configuration", restart_after=_FOLLOW_AGAIN)

    async def _follow(self) -> None:
        """Keep up to date, also across restarts of the database."""
        while True:
            try:
                await self._listen()
            except DATABASE_ERRORS as error:
                _log.warning("configuration_not_followed", error_type=type(error).__name__)
                await asyncio.sleep(_FOLLOW_AGAIN)

    async def _listen(self) -> None:
        async with aclosing(self._database.listen(store.CHANNEL, every=LOOK_AGAIN)) as looks:
            async for _ in looks:
                await self.refresh()

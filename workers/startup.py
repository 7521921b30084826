"""A worker from its first connection to its last response."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

from temporalio.service import RPCError

from services.assembly import Services, assemble, connect_temporal
from services.configuration import NoConfiguration
from settings.configuration_file import ConfigurationMistakes
from settings.settings import Settings
from store.database import DATABASE_ERRORS
from store.schema import current_version, newest_version, serves
from telemetry.logs import get_logger
from workers.process import WorkerProcess

_log = get_logger(__name__)

_T = TypeVar("_T")
_RETRY_AFTER: Final = 2.0


async def work(
    settings: Settings,
    roles: Collection[str],
    stop: asyncio.Event,
    providers: frozenset[str] | None = None,
) -> int:
    """A worker, from its first connection to its last response; the exit code."""
    services = assemble(settings)
    try:
        if not await _ready(services, stop):
            return 0
        if sentence := _not_configured(services, providers or frozenset()):
            print(sentence, file=sys.stderr)  # noqa: T201 - to the person who started it
        client = await _until_it_responds(lambda: connect_temporal(settings), "temporal", stop)
        if client is not None:
            await WorkerProcess(services, client, roles, providers).work(stop)
    except ConfigurationMistakes as mistakes:
        print(mistakes, file=sys.stderr)  # noqa: T201 - to the person who started it
        return 2
    finally:
        await services.close()
    return 0


def _not_configured(services: Services, providers: frozenset[str]) -> str | None:
    """What to do about providers of this worker that the configuration does not have."""
    declared = services.configurations.current.providers
    missing = sorted(providers - declared.keys())
    if not missing:
        return None
    return (
        f"--provider {', '.join(missing)}: the configuration has no such provider; it has "
        f"{', '.join(sorted(declared)) or 'none'}. Correct the name, or apply a configuration with "
        "this provider: the worker serves it from then on, and serves its other providers now."
    )


async def _ready(services: Services, stop: asyncio.Event) -> bool:
    """Wait for the database, its schema, and a configuration; False if `stop` is set meanwhile."""
    version = await _until_it_responds(lambda: current_version(services.database), "database", stop)
    while not serves(version):
        if stop.is_set():
            return False
        _log.warning("schema_too_old", version=version, needed=newest_version())
        await asyncio.sleep(_RETRY_AFTER)
        version = await current_version(services.database)
    if services.settings.config is not None:
        await services.configurations.load_file(services.settings.config)
    else:
        await services.configurations.refresh()
    while not services.configurations.loaded:
        if stop.is_set():
            return False
        _log.warning("no_configuration", reason=type(NoConfiguration()).__name__)
        await asyncio.sleep(_RETRY_AFTER)
        await services.configurations.refresh()
    return True


async def _until_it_responds(
    ask: Callable[[], Awaitable[_T]], what: str, stop: asyncio.Event
) -> _T | None:
    """Retry until there is a response; None if `stop` is set first."""
    while not stop.is_set():
        try:
            return await ask()
        except (*DATABASE_ERRORS, RuntimeError, RPCError) as error:
            _log.warning("not_answering", dependency=what, error_type=type(error).__name__)
            await asyncio.sleep(_RETRY_AFTER)
    return None

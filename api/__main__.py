"""The API's process: `python -m api`."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from functools import partial

import uvicorn

from api.app import create_app
from api.health import DatabaseState, database_state
from api.protocol import HttpLimits, protocol_class
from providers.registry import ProviderTypes
from services.assembly import Services, assemble
from settings.configuration_file import ConfigurationMistakes, read_configuration
from settings.settings import Settings
from store.database import DATABASE_ERRORS
from store.schema import newest_version
from telemetry.logs import get_logger
from telemetry.process import EXIT_FAILED, EXIT_MISCONFIGURED, exit_cleanly, run, settings_or_exit
from telemetry.supervision import supervised

_log = get_logger("api")

_RETRY_AFTER_SECONDS = 2.0
_BACKLOG = 2048
# Longer than proxies keep their connections (60 s, mostly), so that they are the ones who close.
_KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    """A server that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, stop: asyncio.Event) -> int:
    """Serve until `stop` is set, then finish the requests in progress; returns the exit code."""
    try:
        listening = _listen(settings)
    except OSError as error:
        _log.error(
            "address_not_usable", host=settings.api_host, port=settings.api_port, exc_info=error
        )
        return EXIT_FAILED
    gateway = assemble(settings)
    server = _Server(
        uvicorn.Config(
            create_app(gateway),
            http=protocol_class(
                HttpLimits(
                    header_bytes=settings.max_header_bytes,
                    request_timeout=settings.request_timeout,
                    connections=settings.max_connections,
                )
            ),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.shutdown_grace.total_seconds()),
        )
    )
    following = asyncio.create_task(
        supervised(partial(follow_configuration, gateway), "load_configuration")
    )
    stopping = asyncio.create_task(_end(server, stop))
    try:
        _log.info("api_listening", host=settings.api_host, port=settings.api_port)
        await server.serve(sockets=[listening])
    finally:
        for task in (following, stopping):
            task.cancel()
        await asyncio.gather(following, stopping, return_exceptions=True)
        await gateway.close()
    return 0


async def follow_configuration(gateway: Services) -> None:
    """Wait for the database, load the file that the settings name, and follow what is applied.

    The API answers meanwhile: `/readyz` says what is missing.
    """
    while not await _loaded(gateway):  # noqa: ASYNC110 - a database cannot set an event
        await asyncio.sleep(_RETRY_AFTER_SECONDS)
    _log.info("api_ready", config_version=gateway.configurations.version)
    await gateway.configurations.follow()


async def _loaded(gateway: Services) -> bool:
    match await database_state(gateway):
        case DatabaseState.UP:
            pass
        case DatabaseState.OUTDATED:
            _log.warning("schema_too_old", version=newest_version())
            return False
        case DatabaseState.DOWN:
            _log.warning("database_not_answering")
            return False
    try:
        if gateway.settings.config is not None:
            await gateway.configurations.load_file(gateway.settings.config)
        else:
            await gateway.configurations.refresh()
    except DATABASE_ERRORS as error:
        _log.warning("configuration_not_loaded", exc_info=error)
        return False
    return True


async def _end(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    return socket.create_server(
        (settings.api_host, settings.api_port), family=family, backlog=_BACKLOG
    )


def main() -> None:
    """Read the environment, and serve."""
    settings = settings_or_exit()
    if settings.config is not None:
        try:
            types = ProviderTypes.installed().configurations
            read_configuration(settings.config, settings.allowed_secrets, types)
        except ConfigurationMistakes as mistakes:
            print(  # noqa: T201 - to the person who started it, before there is a log
                f"{settings.config} cannot be used:", mistakes, sep="\n", file=sys.stderr
            )
            exit_cleanly(EXIT_MISCONFIGURED)
    run(partial(serve, settings), service="api", settings=settings)


if __name__ == "__main__":
    main()

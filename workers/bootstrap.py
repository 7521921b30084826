"""The preparation that every installation needs once: schema, configuration, Temporal, first keys."""

import json
import sys
from typing import Final

from temporalio.service import RPCError

from services.assembly import assemble, connect_temporal
from services.keys import Keys, Scope
from settings.configuration_file import ConfigurationMistakes
from settings.settings import Settings
from store.connections import place_of
from store.database import DATABASE_ERRORS, Database
from store.schema import UnknownRevision, migrate
from store.sqlstates import Remedy, remedy
from telemetry.logs import get_logger
from workers.search_attributes import add_search_attributes

_log = get_logger(__name__)

ACCOUNT: Final = "default"


async def bootstrap(
    settings: Settings, *, new_operator_key: str | None = None, new_key: str | None = None
) -> int:
    """Prepare the database and Temporal, and print new keys; safe to run again.

    Args:
        settings: of the installation.
        new_operator_key: the name of an operator's key to make.
        new_key: the name of an admin key to make for the account `ACCOUNT`.
    """
    database = Database.connect(settings.database_url.get_secret_value(), pool_size=1)
    try:
        await _migrate(database, settings)
        if settings.config is not None:
            services = assemble(settings)
            try:
                await services.configurations.load_file(settings.config)
            finally:
                await services.close()
        await _prepare_temporal(settings)
        made: dict[str, str | None] = {}
        if new_operator_key is not None:
            key = await Keys(database).bootstrap(name=new_operator_key)
            made |= {"operator_key": key.secret, "operator_key_id": key.id}
        if new_key is not None:
            key = await Keys(database).create_root(ACCOUNT, name=new_key, scopes=[Scope.ADMIN])
            made |= {"api_key": key.secret, "key_id": key.id}
        if made:
            print(json.dumps(made), flush=True)  # noqa: T201 - what was asked for
    except ConfigurationMistakes as mistakes:
        print(mistakes, file=sys.stderr)  # noqa: T201 - to the person who started it
        return 2
    except BootstrapFailed as failed:
        _log.error("bootstrap_failed", dependency=failed.dependency, exc_info=failed.__cause__)
        print(failed, file=sys.stderr)  # noqa: T201 - to the person who started it
        return 1
    finally:
        await database.close()
    return 0


class BootstrapFailed(Exception):
    """Postgres or Temporal could not be prepared; the text says which, where, and what to check."""

    def __init__(self, dependency: str, sentence: str) -> None:
        super().__init__(sentence)
        self.dependency = dependency


async def _migrate(database: Database, settings: Settings) -> None:
    postgres = f"Postgres at {place_of(settings.database_url.get_secret_value())}"
    try:
        version = await migrate(database)
    except UnknownRevision as error:
        sentence = (
            f"The database of {postgres} has the schema revision {error.revision!r}, which no release "
            "of the gateway has: check that DATABASE_URL names the gateway's own database, and use "
            "the release that migrated it."
        )
        raise BootstrapFailed("database", sentence) from error
    except DATABASE_ERRORS as error:
        code = getattr(getattr(error, "orig", None) or error, "sqlstate", None)
        if remedy(code) is Remedy.NONE and code is not None and not code.startswith("28"):
            sentence = (
                f"{postgres} could not be migrated (SQLSTATE {code}): check the rights of the role in "
                "DATABASE_URL, and see bootstrap_failed in the log."
            )
        else:
            sentence = (
                f"{postgres} cannot be reached or refuses the login: check DATABASE_URL, and whether "
                "Postgres runs."
            )
        raise BootstrapFailed("database", sentence) from error
    _log.info("database_migrated", version=version)


async def _prepare_temporal(settings: Settings) -> None:
    try:
        client = await connect_temporal(settings)
        await add_search_attributes(client, settings.temporal_namespace)
    except (RuntimeError, RPCError, OSError) as error:
        raise BootstrapFailed(
            "temporal",
            f"Temporal at {settings.temporal_address} cannot be reached or refuses the request: check "
            "TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, the API key and the TLS files, and whether Temporal "
            "runs.",
        ) from error

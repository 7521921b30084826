"""Whether the process lives, and whether it can accept messages."""

import asyncio
from datetime import timedelta
from enum import StrEnum

from fastapi import APIRouter, Response
from pydantic import Field

from api.dependencies import Gateway
from api.fields import ResponseModel
from api.routing import Endpoint
from services.assembly import Services
from store.database import DATABASE_ERRORS
from store.schema import current_version, serves

router = APIRouter(tags=["health"], route_class=Endpoint)

_PATIENCE = timedelta(seconds=1.5)
_NOT_READY = 503


class DatabaseState(StrEnum):
    """What the database is good for."""

    UP = "up"
    DOWN = "down"
    OUTDATED = "outdated"
    """It answers, and its schema is older than this process needs."""


class TemporalState(StrEnum):
    """Whether messages are sent on at once."""

    UP = "up"
    DOWN = "down"


class ConfigurationState(StrEnum):
    """Whether there is a configuration."""

    LOADED = "loaded"
    MISSING = "missing"


class Health(ResponseModel):
    """The process lives."""

    status: str = Field(examples=["ok"])


class Readiness(ResponseModel):
    """Whether a message would be accepted now, and if not, what is to be done."""

    status: str = Field(description="`ok` or `unavailable`.", examples=["ok"])
    database: DatabaseState
    configuration: ConfigurationState
    temporal: TemporalState = Field(
        description="Reported only: while it is down messages are accepted, and sent afterwards."
    )
    detail: str | None = Field(None, description="What keeps the gateway from accepting.")


_HINDRANCES = {
    DatabaseState.DOWN: "The database does not answer: start it, or check DATABASE_URL.",
    DatabaseState.OUTDATED: "The database's schema is too old: run `python worker.py bootstrap`.",
    ConfigurationState.MISSING: "There is no configuration: `smsctl config apply FILE`, or set "
    "SMSGATEWAY_CONFIG.",
}


@router.get("/healthz", operation_id="get_health", summary="Whether the process lives")
async def healthz() -> Health:
    """Answers while the process lives, whatever else is down."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether messages can be accepted",
    responses={str(_NOT_READY): {"model": Readiness, "description": "They cannot."}},
)
async def readyz(gateway: Gateway, response: Response) -> Readiness:
    """200 while messages can be accepted; Temporal being down does not change that."""
    found = await readiness(gateway)
    if found.detail is not None:
        response.status_code = _NOT_READY
    return found


async def readiness(gateway: Services) -> Readiness:
    """What works at this moment."""
    database, temporal = await asyncio.gather(database_state(gateway), _temporal(gateway))
    loaded = gateway.configurations.loaded
    configuration = ConfigurationState.LOADED if loaded else ConfigurationState.MISSING
    detail = _HINDRANCES.get(database) or _HINDRANCES.get(configuration)
    return Readiness(
        status="unavailable" if detail else "ok",
        database=database,
        configuration=configuration,
        temporal=temporal,
        detail=detail,
    )


async def database_state(gateway: Services) -> DatabaseState:
    """Whether the database answers, with the tables that this process needs."""
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            version = await current_version(gateway.database)
    except DATABASE_ERRORS:
        return DatabaseState.DOWN
    return DatabaseState.UP if serves(version) else DatabaseState.OUTDATED


async def _temporal(gateway: Services) -> TemporalState:
    try:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            responses = await gateway.workflow_client.is_reachable()
    except TimeoutError:
        responses = False
    return TemporalState.UP if responses else TemporalState.DOWN

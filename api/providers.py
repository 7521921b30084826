"""Providers: declared, up or down, and what came of the last hour."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from fastapi import APIRouter, Path
from pydantic import Field

from api.dependencies import Gateway, ProviderReader
from api.fields import Items, Told
from api.problems import NOT_FOUND, Problem, raises
from api.routing import Endpoint
from domain.configuration import Environment
from services.configuration import NoConfiguration
from services.providers import ProviderStatus

router = APIRouter(prefix="/api/v1/providers", tags=["providers"], route_class=Endpoint)


class ProviderState(StrEnum):
    """Whether a living worker has a bind that can transmit."""

    UP = "up"
    DOWN = "down"


class ProviderFigures(Told):
    """What came of the account's own attempts of the last 60 minutes."""

    attempts: int = 0
    accepted: int = 0
    refused: int = 0
    unreachable: int = 0
    unknown: int = 0
    delivered: int = 0
    undelivered: int = 0
    accept_p50_ms: float | None = Field(
        None, description="Half of the answers came within so many milliseconds."
    )


class Provider(Told):
    """A provider and its health."""

    name: str
    type: str
    environment: Environment
    state: ProviderState
    workers: int = Field(description="Living ones.")
    binds_up: int
    binds: int = Field(description="As configured, over all workers.")
    last_beat_at: datetime | None
    receipts: bool = Field(description="Whether it gives any.")
    rate: float | None = Field(description="Messages a second over all workers; null: no limit.")
    recent: ProviderFigures

    @classmethod
    def of(cls, status: ProviderStatus) -> Self:
        """The service's status, as it is shown."""
        declared, recent = status.declared, status.recent
        return cls(
            name=status.name,
            type=declared.type,
            environment=declared.environment,
            state=ProviderState.UP if status.up else ProviderState.DOWN,
            workers=status.workers,
            binds_up=status.binds_up,
            binds=declared.binds,
            last_beat_at=status.last_beat_at,
            receipts=declared.receipts,
            rate=declared.rate,
            recent=ProviderFigures(**{name: recent[name] for name in ProviderFigures.model_fields})
            if recent
            else ProviderFigures(),
        )


class ProviderList(Items[Provider]):
    """All providers that the caller's key reaches, by name."""


@router.get(
    "",
    operation_id="list_providers",
    summary="List providers",
    responses=raises(NoConfiguration),
)
async def listed(caller: ProviderReader, gateway: Gateway) -> ProviderList:
    """The providers that messages of the key's environment can reach, by name."""
    return ProviderList(items=[Provider.of(s) for s in await gateway.providers.listed(caller)])


@router.get(
    "/{name}",
    operation_id="get_provider",
    summary="Read a provider",
    responses=raises(NOT_FOUND, NoConfiguration),
)
async def one(
    name: Annotated[str, Path(examples=["primary"])],
    caller: ProviderReader,
    gateway: Gateway,
) -> Provider:
    """One provider and its health."""
    for status in await gateway.providers.listed(caller):
        if status.name == name:
            return Provider.of(status)
    raise Problem(NOT_FOUND, "The configuration has no such provider in the key's environment.")

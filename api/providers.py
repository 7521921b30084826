"""Providers: declared, up or down, and what came of the last hour."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query
from pydantic import Field

from api.dependencies import Configurer, Gateway, ProviderReader
from api.fields import Items, ResponseModel
from api.problems import NOT_FOUND, Problem, raises
from api.routing import Endpoint
from domain.binds import EVERY_ROLE, BindError, BindFailure, ProviderRole
from domain.configuration import Environment
from services.assembly import Services
from services.configuration import NoConfiguration
from services.provider_webhooks import NoFixedAddress
from services.providers import ProviderStatus
from services.unparsed_receipts import UnknownProvider

router = APIRouter(prefix="/api/v1/providers", tags=["providers"], route_class=Endpoint)

_HIGHEST_ID = (1 << 53) - 1  # what every JSON parser reads exactly


class ProviderState(StrEnum):
    """Whether messages can be sent over it: a living worker with a bind polls their task queues.

    A provider that is configured to give receipts needs a bound receiver or transceiver for that.
    """

    UP = "up"
    PARTIAL = "partial"
    """For one of its roles only."""
    DOWN = "down"

    @classmethod
    def of(cls, roles: frozenset[ProviderRole]) -> Self:
        """The state by the roles for which it is up."""
        if not roles:
            return cls.DOWN
        return cls.UP if roles == EVERY_ROLE else cls.PARTIAL


class SessionBindError(ResponseModel):
    """Why a session that should be bound is not, or was not before."""

    reason: BindFailure
    at: datetime | None = Field(description="When a worker found it last.")
    is_current: bool = Field(description="False once the session is bound again.")
    ended_at: datetime | None = Field(description="When the session was bound again.")
    code: str | None = Field(
        description="The SMSC's command status by its name, or the type of the error."
    )
    session: str | None = Field(
        description="`transceiver`, `transmitter` or `receiver`; `connection` for an HTTP provider."
    )
    detail: str = Field(description="What happened and what to do.")

    @classmethod
    def of(cls, error: BindError | None) -> Self | None:
        """The worker's report, as it is shown."""
        if error is None:
            return None
        return cls(
            reason=error.reason,
            at=error.at,
            is_current=error.is_current,
            ended_at=error.ended_at,
            code=error.code,
            session=error.session,
            detail=error.sentence,
        )


class WorkersBindError(SessionBindError):
    """A bind error, and how many living workers report it."""

    workers: int

    @classmethod
    def counted(cls, error: BindError, workers: int) -> Self:
        """An error with the number of its workers, as it is shown."""
        shown = SessionBindError.of(error)
        return cls(**({} if shown is None else shown.model_dump()), workers=workers)


class ProviderFigures(ResponseModel):
    """What came of the account's own attempts of the last 60 minutes."""

    attempts: int = 0
    accepted: int = 0
    refused: int = 0
    unreachable: int = 0
    unknown: int = 0
    delivered: int = 0
    undelivered: int = 0
    accept_p50_ms: float | None = Field(
        None, description="Half of the responses came within so many milliseconds."
    )


class RateShare(ResponseModel):
    """What one worker may submit, and what it wanted to submit lately, in messages a second."""

    roles: list[ProviderRole] = Field(description="The worker's own.")
    share: float | None = Field(
        description="All shares are `rate` at most, in total; null: no limit."
    )
    demand: float = Field(
        description="Submitted, waiting, and sent back since they waited too long."
    )
    critical_demand: float = Field(description="The part of `demand` of critical priority.")


class Provider(ResponseModel):
    """A provider and its health."""

    name: str
    type: str
    environment: Environment
    state: ProviderState = Field(description="`up` is: up for every role.")
    up_for: list[ProviderRole] = Field(
        description="Roles whose task queues are polled by a living worker with a bind: "
        "`providers` sends single messages, `chunks` those of batches."
    )
    detail: str | None = Field(description="Why it is not up, and what to do; null while it is up.")
    last_bind_error: SessionBindError | None = Field(
        description="Why a session that should be bound is not, or, with `is_current` false, was not "
        "before; null if none has failed."
    )
    bind_errors: list[WorkersBindError] = Field(
        description="The last bind error of each living worker, equal ones once."
    )
    workers: int = Field(description="Living ones.")
    binds_up: int
    binds: int = Field(description="As configured, over all workers.")
    last_heartbeat_at: datetime | None
    receipts: bool = Field(description="Whether it gives any.")
    unmatched_receipts: int = Field(
        description="Receipts of the last three days that match no message, as yet or for good."
    )
    rate: float | None = Field(description="Messages a second over all workers; null: no limit.")
    unparsed_receipts: int = Field(
        description="Receipts that are stored and could not be parsed, at most 10,000 counted."
    )
    rate_ratio: float = Field(
        description="How much of its usual rate the slowest worker uses: 1, or less while the "
        "provider throttles."
    )
    rate_shares: list[RateShare] = Field(
        description="How the rate is divided by demand among the workers that hold sessions, now."
    )
    recent: ProviderFigures

    @classmethod
    def of(cls, status: ProviderStatus) -> Self:
        """The service's status, as it is shown."""
        declared, recent = status.declared, status.recent
        return cls(
            name=status.name,
            type=declared.type,
            environment=declared.environment,
            state=ProviderState.of(status.roles),
            up_for=sorted(status.roles),
            detail=status.detail,
            last_bind_error=SessionBindError.of(status.last_bind_error),
            bind_errors=[WorkersBindError.counted(*each) for each in status.bind_errors],
            workers=status.workers,
            binds_up=status.binds_up,
            binds=declared.binds,
            last_heartbeat_at=status.last_heartbeat_at,
            receipts=declared.receipts,
            unmatched_receipts=status.unmatched.waiting + status.unmatched.never_matched,
            rate=declared.rate,
            unparsed_receipts=status.unparsed_receipts,
            rate_ratio=status.rate_ratio,
            rate_shares=[
                RateShare(
                    roles=sorted(ProviderRole(role) for role in each.roles),
                    share=each.share,
                    demand=each.demand,
                    critical_demand=each.critical_demand,
                )
                for each in status.rate_shares
            ],
            recent=ProviderFigures.model_validate(recent, from_attributes=True)
            if recent
            else ProviderFigures(),
        )


class ProviderAddresses(ResponseModel):
    """Where a provider reports to the gateway. An address contains a secret."""

    receipts: str | None = Field(
        description="The fixed address for receipts, to be entered at a provider that has one address "
        "for all messages. Null if it has none.",
        examples=["https://sms.example.com/webhooks/providers/primary/receipts/Zm9vYmFyYmF6cXV4Cg"],
    )
    detail: str | None = Field(description="Why it has none, and what to do; null if it has one.")


class ReparsedReceipts(ResponseModel):
    """What came of parsing some of a provider's receipts again."""

    parsed: int = Field(description="Stored as receipts now.")
    unparsed: int = Field(description="Still cannot be parsed, and stay stored.")
    next_after: int | None = Field(
        description="Where the next request goes on, as its `after`; null: no more follow."
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
    found = await gateway.providers.listed(caller)
    for status in found:
        if status.name == name:
            return Provider.of(status)
    names = ", ".join(status.name for status in found) or "none"
    raise Problem(
        NOT_FOUND,
        "The configuration has no provider of this name in the key's environment. "
        f"Its providers there are: {names}.",
    )


@router.get(
    "/{name}/addresses",
    operation_id="get_provider_addresses",
    summary="Read where a provider reports",
    responses=raises(NOT_FOUND, NoConfiguration),
)
async def addresses(
    name: Annotated[str, Path(examples=["primary"])], _: Configurer, gateway: Gateway
) -> ProviderAddresses:
    """The fixed address at which a provider reports. Who has it can report receipts: keep it secret."""
    try:
        fixed = gateway.provider_reports.fixed_address(name)
    except UnknownProvider:
        raise no_such_provider(gateway) from None
    except NoFixedAddress as error:
        return ProviderAddresses(receipts=None, detail=str(error))
    return ProviderAddresses(receipts=fixed, detail=None)


@router.post(
    "/{name}/receipts/reparse",
    operation_id="reparse_receipts",
    summary="Parse receipts again",
    responses=raises(NOT_FOUND, NoConfiguration),
)
async def reparse(
    name: Annotated[str, Path(examples=["primary"])],
    _: Configurer,
    gateway: Gateway,
    after: Annotated[
        int,
        Query(
            ge=0,
            le=_HIGHEST_ID,
            description="The `next_after` of the request before.",
            examples=[0, 500],
        ),
    ] = 0,
) -> ReparsedReceipts:
    """Parse the provider's unparsed receipts again, by the configuration in force.

    One request takes 500 of them. Those that can be parsed have the effect of receipts that come now.
    """
    try:
        done = await gateway.unparsed_receipts.reparse(name, after)
    except UnknownProvider:
        raise no_such_provider(gateway) from None
    return ReparsedReceipts(parsed=done.parsed, unparsed=done.unparsed, next_after=done.next_after)


def no_such_provider(gateway: Services) -> Problem:
    """There is no provider of this name; an operator is shown all names."""
    names = ", ".join(sorted(gateway.configurations.current.providers)) or "none"
    return Problem(
        NOT_FOUND, f"The configuration has no provider of this name. Its providers are: {names}."
    )

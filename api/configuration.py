"""The configuration of the installation: checked, applied, read."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from api.dependencies import Configurer, Gateway
from api.fields import ResponseModel
from api.problems import (
    INVALID_CONFIGURATION,
    MALFORMED,
    UNSUPPORTED_MEDIA_TYPE,
    FieldError,
    Problem,
    raises,
)
from api.routing import Endpoint, has_body, media_type
from services.configuration import NoConfiguration, Stored
from settings.configuration_file import MOST_MISTAKES, ConfigurationMistakes
from settings.configuration_file import Mistake as FoundMistake

router = APIRouter(prefix="/api/v1/config", tags=["configuration"], route_class=Endpoint)

MEDIA_TYPES = ("application/toml", "text/plain")


async def _toml(request: Request) -> str:
    if has_body(request) and media_type(request) not in MEDIA_TYPES:
        raise Problem(
            UNSUPPORTED_MEDIA_TYPE,
            "The configuration is of a type that is not taken here: send it as application/toml, and "
            "say so in the header Content-Type.",
        )
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError:
        raise Problem(
            MALFORMED, "The configuration is not UTF-8: save it in that encoding."
        ) from None


Toml = Annotated[str, Depends(_toml)]

EXAMPLE = """\
[providers.primary]
type = "smpp"
host = "smsc.example.net"
system_id = "acme"
password = "env:SMSGATEWAY_SECRET_PRIMARY"

[[routes]]
providers = ["primary"]
"""
MISTAKEN = EXAMPLE.replace('["primary"]', '["primray"]')


def _body(*, refused: bool) -> dict[str, Any]:
    examples: dict[str, Any] = {"one-provider": {"summary": "One provider", "value": EXAMPLE}}
    summary = "A route to a provider that is not declared"
    name = "unknown-provider" if refused else "with-a-mistake"
    examples[name] = {"summary": summary, "value": MISTAKEN}
    content = {"schema": {"type": "string"}, "examples": examples}
    return {"requestBody": {"required": True, "content": dict.fromkeys(MEDIA_TYPES, content)}}


class Mistake(ResponseModel):
    """Something wrong in a configuration: where, and what to do."""

    line: int | None = Field(description="From 1; null where the whole is meant.")
    column: int | None
    path: str = Field(examples=["routes[0].providers[1]"])
    detail: str

    @classmethod
    def of(cls, mistake: FoundMistake) -> Self:
        """A mistake, as it is shown."""
        return cls(
            line=mistake.line or None,
            column=mistake.column or None,
            path=mistake.path,
            detail=mistake.sentence,
        )


_WARNINGS = (
    "Secrets that the API process cannot read (`GET /providers` shows those that the workers cannot "
    "read), ids of accounts that do not exist, and providers whose receipts come over HTTP while "
    "SMSGATEWAY_PUBLIC_URL is not set."
)


class ConfigurationCheck(ResponseModel):
    """Whether a configuration could be applied."""

    ok: bool
    mistakes: list[Mistake] = Field(description=f"The first {MOST_MISTAKES}.")
    more_mistakes: int = Field(0, description="How many there are beside these.")
    warnings: list[Mistake] = Field(description=_WARNINGS)


class AppliedConfiguration(ResponseModel):
    """The version in force; `changed` is false if it already was."""

    version: int
    changed: bool
    warnings: list[Mistake] = Field(description=_WARNINGS)


class Configuration(ResponseModel):
    """The configuration in force, in TOML; secrets are references."""

    version: int
    applied_at: datetime
    applied_by: str = Field(description="A key, or `start` where a process loaded a file.")
    content: str

    @classmethod
    def of(cls, stored: Stored) -> Self:
        """The stored version, as it is shown."""
        return cls(
            version=stored.version,
            applied_at=stored.applied_at,
            applied_by=stored.applied_by,
            content=stored.content,
        )


@router.post(
    "/check",
    operation_id="check_configuration",
    summary="Check a configuration",
    openapi_extra=_body(refused=False),
)
async def checked(_: Configurer, content: Toml, gateway: Gateway) -> ConfigurationCheck:
    """Say what is wrong with a configuration, if anything; nothing is changed."""
    found = await gateway.configurations.check(content)
    warnings = [Mistake.of(warning) for warning in found.warnings]
    if found.mistakes is None:
        return ConfigurationCheck(ok=True, mistakes=[], warnings=warnings)
    return ConfigurationCheck(
        ok=False,
        mistakes=[Mistake.of(mistake) for mistake in found.mistakes.mistakes],
        more_mistakes=found.mistakes.more,
        warnings=warnings,
    )


@router.post(
    "/apply",
    operation_id="apply_configuration",
    summary="Apply a configuration",
    responses=raises(
        ConfigurationMistakes,
        examples={
            "unknown-provider": Problem(
                INVALID_CONFIGURATION,
                errors=[
                    FieldError(
                        field="routes[0].providers[0]",
                        detail='there is no provider "primray"; declared are: primary',
                        line=8,
                        column=14,
                    )
                ],
            )
        },
    ),
    openapi_extra=_body(refused=True),
)
async def apply(caller: Configurer, content: Toml, gateway: Gateway) -> AppliedConfiguration:
    """Put a configuration into force in every process, or nothing of it."""
    applied = await gateway.configurations.apply(content, applied_by=caller.key_id)
    return AppliedConfiguration(
        version=applied.version,
        changed=applied.changed,
        warnings=[Mistake.of(warning) for warning in applied.warnings],
    )


@router.get(
    "",
    operation_id="get_configuration",
    summary="Read the configuration",
    responses=raises(NoConfiguration),
)
async def in_force(_: Configurer, gateway: Gateway) -> Configuration:
    """The version in force."""
    stored = await gateway.configurations.stored()
    if stored is None:
        raise NoConfiguration
    return Configuration.of(stored)

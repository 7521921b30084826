"""API keys: made, listed, revoked."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Body, Path
from pydantic import AfterValidator, Field

from api.dependencies import Gateway, KeyKeeper
from api.fields import Asked, Items, Moment, Told, Word
from api.problems import NOT_FOUND, Problem, raises, refusal
from api.routing import Endpoint
from domain.configuration import Environment
from services import keys as service
from services.keys import NotYours, Scope

router = APIRouter(prefix="/api/v1/keys", tags=["keys"], route_class=Endpoint)


def _to_come(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC):
        raise ValueError("It lies in the past: give a later time, or leave it out for no end.")
    return moment


class NewKey(Asked):
    """A key to be made."""

    name: Word = Field(description="What it is for, for whoever lists keys.", examples=["shop"])
    environment: Environment = Field(description="Which providers its messages reach.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))] = Field(
        description="What it may do; `admin` stands for all.", examples=[["messages:send"]]
    )
    expires_at: Annotated[Moment, AfterValidator(_to_come)] | None = Field(
        None, description="When it ends by itself."
    )


EXAMPLES: dict[str, Any] = {
    "sender": {
        "summary": "A key that sends and reads",
        "value": {
            "name": "shop",
            "environment": "live",
            "scopes": ["messages:send", "messages:read"],
        },
    },
    "trial": {
        "summary": "A key for tests",
        "value": {"name": "trial", "environment": "test", "scopes": ["messages:send"]},
    },
    "unknown-scope": {
        "summary": "Refused: a scope that does not exist",
        "value": {"name": "shop", "environment": "live", "scopes": ["messages:write"]},
    },
}


class Key(Told):
    """A key, without its secret."""

    id: str
    name: str
    environment: Environment
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")

    @classmethod
    def of(cls, key: service.Key) -> Self:
        """The service's key, as it is shown."""
        return cls(**_shown(key))


class KeyList(Items[Key]):
    """All keys that the caller's key sees, the oldest first."""


class CreatedKey(Key):
    """A new key; `key` is the secret itself, which is shown this once."""

    key: str = Field(description="`sg_live_…` or `sg_test_…`.", repr=False)

    @classmethod
    def of(cls, key: service.Key) -> Self:
        """The service's new key, secret included."""
        return cls(**_shown(key), key=key.secret)


def _shown(key: service.Key) -> dict[str, Any]:
    return {name: getattr(key, name) for name in Key.model_fields}


@router.get("", operation_id="list_keys", summary="List keys")
async def listed(caller: KeyKeeper, gateway: Gateway) -> KeyList:
    """The account's keys; a key of the test environment sees only those of it."""
    return KeyList(items=[Key.of(key) for key in await gateway.keys.listed(caller)])


@router.post(
    "",
    operation_id="create_key",
    status_code=201,
    summary="Make a key",
    responses=raises(
        NotYours,
        examples={
            "unknown-scope": refusal(
                "scopes.0", "unknown_value", f"It is one of: {', '.join(Scope)}."
            )
        },
    ),
)
async def create(
    wanted: Annotated[NewKey, Body(openapi_examples=EXAMPLES)], caller: KeyKeeper, gateway: Gateway
) -> CreatedKey:
    """Make a key for the same account; this answer is the only place where its secret stands."""
    made = await gateway.keys.create(
        caller,
        name=wanted.name,
        environment=wanted.environment,
        scopes=wanted.scopes,
        expires_at=wanted.expires_at,
    )
    return CreatedKey.of(made)


@router.delete(
    "/{key_id}",
    operation_id="revoke_key",
    status_code=204,
    summary="Revoke a key",
    responses=raises(NOT_FOUND),
)
async def revoke(
    key_id: Annotated[str, Path(examples=["key_019aa5c0d1e27b3c8f4e5a6b7c8d9e20"])],
    caller: KeyKeeper,
    gateway: Gateway,
) -> None:
    """Make a key worthless for good; other processes of the gateway follow within 2 seconds."""
    if not await gateway.keys.revoke(caller, key_id):
        raise Problem(NOT_FOUND, "There is no key with this id among those that yours can see.")

"""API keys: made, listed, revoked."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Body, Path
from pydantic import AfterValidator, Field

from api.dependencies import Gateway, KeyKeeper
from api.fields import Items, Moment, RequestModel, ResponseModel, Word
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


Expiry = Annotated[Moment, AfterValidator(_to_come)] | None
"""When a key ends by itself: a time in the future, or none."""


class NewKey(RequestModel):
    """A key to be made."""

    name: Word = Field(description="What it is for, for whoever lists keys.", examples=["shop"])
    environment: Environment = Field(description="Which providers its messages reach.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))] = Field(
        description="What it may do; `admin` stands for all of these.",
        examples=[["messages:send"]],
    )
    expires_at: Expiry = Field(
        None,
        description="When it ends by itself: at the latest, and if it is left out, when the key "
        "that creates it ends.",
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


class ShownKey(ResponseModel):
    """A key of an account or of an operator; `key`, where there is such a field, is the secret itself."""

    @classmethod
    def of(cls, key: service.Key) -> Self:
        """The service's key, as it is shown."""
        attributes = {name: "secret" if name == "key" else name for name in cls.model_fields}
        return cls(**{name: getattr(key, attribute) for name, attribute in attributes.items()})


class Key(ShownKey):
    """A key, without its secret."""

    id: str
    account_id: str = Field(
        description="The account that it belongs to: `[accounts.ID]` of the configuration."
    )
    parent_id: str | None = Field(
        description="The key that created it, with which it ends; null for one that an operator made."
    )
    name: str
    environment: Environment
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class KeyList(Items[Key]):
    """All keys that the caller's key sees, the oldest first."""


class CreatedKey(Key):
    """A new key; `key` is the secret itself, which is shown this once."""

    key: str = Field(description="`sg_live_…` or `sg_test_…`.", repr=False)


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
    """Make a key for the same account; this response is the only place where its secret stands.

    It has at most the scopes, the environment and the lifetime of the key that creates it, and is
    revoked with it.
    """
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
    responses=raises(NOT_FOUND, NotYours),
)
async def revoke(
    key_id: Annotated[str, Path(examples=["key_019aa5c0d1e27b3c8f4e5a6b7c8d9e20"])],
    caller: KeyKeeper,
    gateway: Gateway,
) -> None:
    """Make a key worthless for good, and with it every key that it created, and so on.

    Other processes of the gateway follow within 2 seconds.
    """
    if not await gateway.keys.revoke(caller, key_id):
        raise Problem(NOT_FOUND, "There is no key with this id among those that yours can see.")

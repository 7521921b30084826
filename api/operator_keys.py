"""The keys of operators: made, listed, revoked."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path
from pydantic import Field

from api.dependencies import Gateway, OperatorKeyKeeper
from api.fields import Items, RequestModel, Word
from api.keys import Expiry, ShownKey
from api.problems import NOT_FOUND, Problem, raises
from api.routing import Endpoint
from services.keys import NotYours, OperatorScope

router = APIRouter(prefix="/api/v1/operator-keys", tags=["operator keys"], route_class=Endpoint)


class NewOperatorKey(RequestModel):
    """An operator's key to be made."""

    name: Word = Field(description="Whose it is, or what for.", examples=["deployment"])
    scopes: Annotated[list[OperatorScope], Field(min_length=1, max_length=len(OperatorScope))] = (
        Field(description="What it may do.", examples=[["config:manage"]])
    )
    expires_at: Expiry = Field(
        None,
        description="When it ends by itself: at the latest, and if it is left out, when the key "
        "that creates it ends.",
    )


class OperatorKey(ShownKey):
    """An operator's key, without its secret."""

    id: str
    parent_id: str | None = Field(
        description="The key that created it, and with which it ends; null for keys of `bootstrap`."
    )
    name: str
    scopes: list[OperatorScope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class OperatorKeyList(Items[OperatorKey]):
    """All keys of operators, the oldest first."""


class CreatedOperatorKey(OperatorKey):
    """A new key; `key` is the secret itself, which is shown this once."""

    key: str = Field(description="`sg_operator_…`.", repr=False)


EXAMPLES: dict[str, Any] = {
    "deployment": {
        "summary": "A key that only applies configurations",
        "value": {"name": "deployment", "scopes": ["config:manage"]},
    },
}


@router.get("", operation_id="list_operator_keys", summary="List operators' keys")
async def listed(_: OperatorKeyKeeper, gateway: Gateway) -> OperatorKeyList:
    """The keys of all operators."""
    return OperatorKeyList(
        items=[OperatorKey.of(key) for key in await gateway.keys.operator_keys()]
    )


@router.post(
    "",
    operation_id="create_operator_key",
    status_code=201,
    summary="Make an operator's key",
    responses=raises(NotYours),
)
async def create(
    wanted: Annotated[NewOperatorKey, Body(openapi_examples=EXAMPLES)],
    operator: OperatorKeyKeeper,
    gateway: Gateway,
) -> CreatedOperatorKey:
    """Make a key for an operator; its secret stands in this response only.

    It has at most the scopes and the lifetime of the key that creates it, and is revoked with it.
    """
    made = await gateway.keys.create_operator_key(
        operator, name=wanted.name, scopes=wanted.scopes, expires_at=wanted.expires_at
    )
    return CreatedOperatorKey.of(made)


@router.delete(
    "/{key_id}",
    operation_id="revoke_operator_key",
    status_code=204,
    summary="Revoke an operator's key",
    responses=raises(NOT_FOUND, NotYours),
)
async def revoke(
    key_id: Annotated[str, Path(examples=["key_019aa5c0d1e27b3c8f4e5a6b7c8d9e21"])],
    operator: OperatorKeyKeeper,
    gateway: Gateway,
) -> None:
    """Make an operator's key worthless for good, and with it every key that it created.

    Other processes of the gateway follow within 2 seconds.
    """
    if not await gateway.keys.revoke_operator_key(operator, key_id):
        raise Problem(NOT_FOUND, "There is no operator's key with this id.")

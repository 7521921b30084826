"""Callbacks: list them, replay them, and read the secret that signs them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query
from pydantic import BeforeValidator, Field, StrictInt, WithJsonSchema

from api.dependencies import CallbackReader, CallbackReplayer, Gateway, KeyKeeper
from api.fields import Page, PageRequest, RequestModel, ResponseModel
from api.problems import NOT_FOUND, Problem, raises, refusal
from api.routing import Endpoint
from domain.callbacks.events import CallbackState
from domain.ids import IdPrefix, parse_id, public_id
from domain.states import MessageStatus
from services.callbacks.management import SecretConfigured
from services.configuration import NoConfiguration
from services.reads import QueryTooWide
from store.callbacks import StoredCallback

router = APIRouter(prefix="/api/v1/callbacks", tags=["callbacks"], route_class=Endpoint)

MOST_REPLAYED = 1000

# --- requests -----------------------------------------------------------------------------------

CallbackId = Annotated[
    str,
    Path(
        description="`cb_…`, which is also the `webhook-id` of its requests.",
        examples=["cb_019aa5c0d1e27b3c8f4e5a6b7c8d9e10"],
    ),
]


def _message_uuid(text: object) -> UUID:
    found = parse_id(IdPrefix.MESSAGE, str(text))
    if found is None:
        raise ValueError("It is the id of a message: `msg_` and 32 hexadecimal digits.")
    return found


class CallbacksQuery(PageRequest):
    """Which callbacks to list; what is left out matches all."""

    state: CallbackState | None = Field(
        None, description="Where they are now.", examples=["failed"]
    )
    message_id: (
        Annotated[
            UUID,
            BeforeValidator(_message_uuid),
            WithJsonSchema({"type": "string", "pattern": "^msg_[0-9a-fA-F]{32}$"}),
        ]
        | None
    ) = Field(
        None,
        description="Of this message.",
        examples=["msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"],
    )


class CallbackReplay(RequestModel):
    """Which callbacks to send again: the oldest first."""

    state: Literal[CallbackState.FAILED] = Field(
        CallbackState.FAILED, description="Those that were given up."
    )
    limit: Annotated[StrictInt, Field(ge=1, le=MOST_REPLAYED)] = Field(
        100, description="How many, at most."
    )


AGAIN_EXAMPLES: dict[str, Any] = {
    "failed": {"summary": "All that were given up", "value": {"state": "failed", "limit": 1000}},
    "too-many": {"summary": "Refused: too many at once", "value": {"limit": 5000}},
}

# --- responses ----------------------------------------------------------------------------------


class Callback(ResponseModel):
    """One callback to the customer's server, and its outcome."""

    id: str
    message_id: str
    url: str
    status: MessageStatus = Field(
        description="The status that the callback reports, there in capitals."
    )
    provider_code: str
    occurred_at: datetime
    state: CallbackState
    tries: int
    next_at: datetime | None = Field(description="Of the next try; null when there is none.")
    responded_at: datetime | None
    last_status: int | None = Field(description="The last HTTP status that came.")
    last_error: str | None = Field(description="Why the last try did not deliver.")

    @classmethod
    def of(cls, row: StoredCallback) -> Self:
        """A stored callback, as it is shown."""
        return cls(
            id=public_id(IdPrefix.CALLBACK, row.id),
            message_id=public_id(IdPrefix.MESSAGE, row.message_id),
            url=row.url,
            status=row.status,
            provider_code=row.provider_code,
            occurred_at=row.occurred_at,
            state=row.state,
            tries=row.tries,
            next_at=row.next_at if row.state is CallbackState.PENDING else None,
            responded_at=row.responded_at,
            last_status=row.last_status,
            last_error=row.last_error,
        )


class CallbackPage(Page[Callback]):
    """Some callbacks, the newest first."""


class ReplayedCallbacks(ResponseModel):
    """How many callbacks are sent again."""

    replayed: int


class CallbackSecret(ResponseModel):
    """What callbacks of this account and environment are signed with (Standard Webhooks)."""

    secret: str = Field(description="`whsec_` and base64; keep it where you verify.", repr=False)


# --- endpoints ---------------------------------------------------------------------------------


@router.get(
    "",
    operation_id="list_callbacks",
    summary="List callbacks",
    responses=raises(QueryTooWide),
)
async def listed(
    query: Annotated[CallbacksQuery, Query()], caller: CallbackReader, gateway: Gateway
) -> CallbackPage:
    """The account's callbacks, delivered or not, the newest first."""
    page = await gateway.callbacks.page(
        caller.account_id,
        caller.environment,
        state=query.state,
        message_id=query.message_id,
        before=query.cursor,
        limit=query.limit,
    )
    return CallbackPage.ending(page.next_before, [Callback.of(row) for row in page.items])


@router.post(
    "/replay",
    operation_id="replay_callbacks",
    summary="Replay failed callbacks",
    responses=raises(
        examples={
            "too-many": refusal("limit", "out_of_range", "It is too large: it is at most 1000.")
        }
    ),
)
async def replay_many(
    again: Annotated[CallbackReplay, Body(openapi_examples=AGAIN_EXAMPLES)],
    caller: CallbackReplayer,
    gateway: Gateway,
) -> ReplayedCallbacks:
    """Restart the schedule of tries of callbacks that were given up."""
    replayed = await gateway.callbacks.replay_many(
        caller.account_id,
        caller.environment,
        state=again.state,
        limit=again.limit,
        now=datetime.now(UTC),
    )
    return ReplayedCallbacks(replayed=replayed)


@router.get(
    "/secret",
    operation_id="get_callback_secret",
    summary="Read the secret that signs callbacks",
    responses=raises(NOT_FOUND, SecretConfigured, NoConfiguration),
)
async def secret(caller: KeyKeeper, gateway: Gateway) -> CallbackSecret:
    """The secret with which your server verifies callbacks of the key's environment."""
    found = await gateway.callbacks.secret(caller.account_id, caller.environment)
    if found is None:
        raise Problem(NOT_FOUND, "This account has no secret.")
    return CallbackSecret(secret=found)


@router.post(
    "/{callback_id}/replay",
    operation_id="replay_callback",
    status_code=202,
    summary="Replay a callback",
    responses=raises(NOT_FOUND),
)
async def replay(
    callback_id: CallbackId, caller: CallbackReplayer, gateway: Gateway
) -> ReplayedCallbacks:
    """Deliver a callback once more, whatever its state."""
    uuid = parse_id(IdPrefix.CALLBACK, callback_id)
    if uuid is None or not await gateway.callbacks.replay(
        uuid, caller.account_id, caller.environment, now=datetime.now(UTC)
    ):
        raise Problem(NOT_FOUND, "There is no callback with this id in the key's account.")
    return ReplayedCallbacks(replayed=1)

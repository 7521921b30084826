"""Batches: many recipients in one request, and how far they are."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import Field

from api.dependencies import Gateway, MessageReader, MessageSender
from api.fields import STORABLE, Asked, Line, Page, PageAsked, Text, Told, Word
from api.messages import IdempotencyKey, Metadata, SharedRequest
from api.problems import raises, refusal
from api.routing import Endpoint
from domain.configuration import Environment
from domain.encoding import Encoding
from domain.ids import IdPrefix, public_id
from domain.modes import Mode
from domain.states import MessageStatus
from services import batches as service
from services.asked import KeyInFlight, KeyReused, Refused
from services.batches import (
    MOST_RECIPIENTS,
    BatchCommand,
    BatchOver,
    Recipient,
    UnknownBatch,
    digest_of,
)
from services.configuration import NoConfiguration
from services.slices import slices

PATH = "/api/v1/sms/batches"
router = APIRouter(prefix=PATH, tags=["batches"], route_class=Endpoint)

# --- what is asked -----------------------------------------------------------------------------

BatchId = Annotated[
    str,
    Path(
        description="`bat_…`, as it was answered when the batch was sent.",
        examples=["bat_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"],
    ),
]
MOST_VARIABLES = 50
_AT_ONCE = 500
"""Recipients, or results, that are made ready in one go: some two milliseconds."""


class BatchRecipient(Asked):
    """One recipient; `body` is a text of its own, instead of the batch's with `variables`."""

    to: Line = Field(description="The recipient's number, E.164.", examples=["+447700900123"])
    variables: Annotated[
        dict[Word, Annotated[str, Field(max_length=1000), STORABLE]],
        Field(max_length=MOST_VARIABLES),
    ] = Field(default_factory=dict, description="What stands in the places of the batch's text.")
    body: Text | None = Field(None, description="A text of its own, taken as it is.")
    metadata: Metadata = Field(
        default_factory=dict, description="Your own pairs, given back with the message."
    )


class BatchRequest(SharedRequest):
    """Messages to be sent together."""

    body: Text | None = Field(
        None,
        description="The text; `{name}` is a place for each recipient's variable of that name, "
        "`{{` and `}}` stand for braces.",
        examples=["Hello {name}, your table is ready."],
    )
    recipients: Annotated[list[BatchRecipient], Field(min_length=1, max_length=MOST_RECIPIENTS)]

    async def to_command(self, *, with_digest: bool) -> BatchCommand:
        """What the service is asked; the digest costs time, and only a key needs it."""
        recipients = [
            Recipient(each.to, each.variables, each.body, each.metadata)
            async for some in slices(self.recipients, _AT_ONCE)
            for each in some
        ]
        return BatchCommand(
            body=self.body,
            recipients=recipients,
            digest=digest_of(self.model_dump_json().encode()) if with_digest else b"",
            **self.shared(),
        )


_HELLO = {
    "from": "ACME",
    "body": "Hello {name}, your table is ready.",
    "recipients": [
        {"to": "+447700900123", "variables": {"name": "Ann"}},
        {"to": "+447700900124", "variables": {"name": "Ben"}},
    ],
}
EXAMPLES: dict[str, Any] = {
    "one-text": {"summary": "One text with each one's name", "value": _HELLO},
    "own-texts": {
        "summary": "A text for each; the second number is refused, the first goes on",
        "value": {
            "from": "ACME",
            "mode": "transactional",
            "recipients": [
                {"to": "+447700900123", "body": "Order 8812 is on its way."},
                {"to": "+4477", "body": "Order 8813 is on its way."},
            ],
        },
    },
    "unclosed-place": {
        "summary": "Refused: a brace that says nothing",
        "value": _HELLO | {"body": "Hello {name, your table is ready."},
    },
}
REFUSALS = {
    "unclosed-place": refusal(
        "body",
        "invalid_template",
        "The brace at character 7 of the text begins or ends no {name}: write {{ or }} for a "
        "brace of the text itself.",
    ),
}


class BatchesAsked(PageAsked):
    """Which batches to list."""


# --- what is told ------------------------------------------------------------------------------


class BatchCount(Told):
    """How many messages of a batch have this status for this reason."""

    status: MessageStatus
    reason: str | None = Field(description="Why they ended so; null while they go on.")
    messages: int


class Batch(Told):
    """A batch as it stands."""

    batch_id: str = Field(examples=["bat_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"])
    status: Literal["running", "paused", "canceled", "finished"]
    recipients: int = Field(description="How many were asked for.")
    accepted: int = Field(description="How many became messages.")
    refused: int
    open: int = Field(description="How many messages are not final.")
    counts: list[BatchCount]
    sender: str = Field(serialization_alias="from")
    mode: Mode
    environment: Environment
    created_at: datetime

    @classmethod
    def of(cls, view: service.BatchView) -> Self:
        """A stored batch, as it is shown."""
        batch = view.batch
        counted: dict[tuple[str, str | None], int] = {}
        for row in view.counts:
            key = (row["status"], row["reason"])
            counted[key] = counted.get(key, 0) + row["messages"]
        return cls(
            batch_id=public_id(IdPrefix.BATCH, batch["id"]),
            status=view.status,
            recipients=batch["recipients"],
            accepted=batch["accepted"],
            refused=batch["recipients"] - batch["accepted"],
            open=view.open,
            counts=[
                BatchCount(status=MessageStatus(status), reason=reason, messages=messages)
                for (status, reason), messages in sorted(
                    counted.items(), key=lambda item: (item[0][0], item[0][1] or "")
                )
            ],
            sender=batch["sender"],
            mode=batch["mode"],
            environment=batch["environment"],
            created_at=batch["created_at"],
        )


class BatchPage(Page[Batch]):
    """Some batches, the newest first."""


class RecipientRefusal(Told):
    """Why a recipient got no message."""

    field: str
    reason: str
    detail: str


class RecipientResult(Told):
    """What became of one recipient; `index` counts from 0, as in the request."""

    index: int
    message_id: str | None
    encoding: Encoding | None
    segments: int | None = Field(description="What is charged.")
    error: RecipientRefusal | None

    @classmethod
    def of(cls, result: service.Result) -> Self:
        """The service's result, as it is shown."""
        refused = result.refusal
        return cls(
            index=result.position,
            message_id=result.message_id,
            encoding=Encoding(result.encoding) if result.encoding else None,
            segments=result.segments,
            error=None
            if refused is None
            else RecipientRefusal(
                field=refused.field, reason=refused.reason, detail=refused.sentence
            ),
        )


class BatchAccepted(Batch):
    """A batch that the gateway has taken on, with a result for each recipient, in order."""

    results: list[RecipientResult]

    @classmethod
    async def accepted_as(cls, accepted: service.AcceptedBatch) -> Self:
        """The answer of the service, as it is shown."""
        results = [
            RecipientResult.of(result)
            async for some in slices(accepted.results, _AT_ONCE)
            for result in some
        ]
        return cls(**Batch.of(accepted.view).__dict__, results=results)


# --- endpoints ---------------------------------------------------------------------------------


@router.post(
    "",
    operation_id="send_batch",
    status_code=202,
    summary="Send a batch",
    response_description="Every message is committed, and will be sent.",
    responses=raises(Refused, KeyInFlight, KeyReused, NoConfiguration, examples=REFUSALS),
)
async def send(
    request: Annotated[BatchRequest, Body(openapi_examples=EXAMPLES)],
    caller: MessageSender,
    gateway: Gateway,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> BatchAccepted:
    """Send up to 10,000 messages: those that can be sent are accepted together, in one commit.

    A recipient that cannot be sent to is refused with its reason, and the others go on; if none is
    left, the whole request is refused.
    """
    command = await request.to_command(with_digest=idempotency_key is not None)
    accepted = await gateway.batches.accept(caller, command, idempotency_key=idempotency_key)
    response.headers["Location"] = f"{PATH}/{public_id(IdPrefix.BATCH, accepted.view.batch['id'])}"
    if accepted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return await BatchAccepted.accepted_as(accepted)


@router.get("", operation_id="list_batches", summary="List batches")
async def listed(
    asked: Annotated[BatchesAsked, Query()], caller: MessageReader, gateway: Gateway
) -> BatchPage:
    """Batches, the newest first."""
    found = await gateway.batches.listed(caller, before=asked.cursor, limit=asked.limit + 1)
    return BatchPage.of(
        [view.batch for view in found], asked.limit, [Batch.of(view) for view in found]
    )


@router.get(
    "/{batch_id}",
    operation_id="get_batch",
    summary="See how far a batch is",
    responses=raises(UnknownBatch),
)
async def one(batch_id: BatchId, caller: MessageReader, gateway: Gateway) -> Batch:
    """A batch, with exact counts of its messages by status and reason."""
    return Batch.of(await gateway.batches.one(caller, batch_id))


@router.get(
    "/{batch_id}/results",
    operation_id="get_batch_results",
    summary="See what became of each recipient",
    responses=raises(UnknownBatch),
)
async def results(batch_id: BatchId, caller: MessageReader, gateway: Gateway) -> BatchAccepted:
    """The answer that the request got, once more: a message or a refusal for each recipient."""
    return await BatchAccepted.accepted_as(await gateway.batches.results(caller, batch_id))


@router.post(
    "/{batch_id}/pause",
    operation_id="pause_batch",
    summary="Pause a batch",
    responses=raises(UnknownBatch, BatchOver),
)
async def pause(batch_id: BatchId, caller: MessageSender, gateway: Gateway) -> Batch:
    """Let nothing more of it leave until it is resumed; what has left goes its way."""
    return Batch.of(await gateway.batches.pause(caller, batch_id))


@router.post(
    "/{batch_id}/resume",
    operation_id="resume_batch",
    summary="Resume a batch",
    responses=raises(UnknownBatch, BatchOver),
)
async def resume(batch_id: BatchId, caller: MessageSender, gateway: Gateway) -> Batch:
    """Let a paused batch go on where it was."""
    return Batch.of(await gateway.batches.resume(caller, batch_id))


@router.post(
    "/{batch_id}/cancel",
    operation_id="cancel_batch",
    summary="Cancel a batch",
    responses=raises(UnknownBatch),
)
async def cancel(batch_id: BatchId, caller: MessageSender, gateway: Gateway) -> Batch:
    """End every message of it that no provider has; what has left goes its way."""
    return Batch.of(await gateway.batches.cancel(caller, batch_id))

"""Batches: many recipients in one request, and how far they are."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import Field, TypeAdapter
from starlette.types import Scope

from api.dependencies import Gateway, MessageReader, MessageSender, SendStopper
from api.fields import STORABLE, Line, Page, PageRequest, RequestModel, ResponseModel, Text, Word
from api.list_body import ListBody
from api.messages import IdempotencyKey, MessageOptionsModel, Metadata
from api.problems import ACCOUNT_SUSPENDED, TOO_MANY_BATCHES, Problem, raises, refusal
from api.routing import Endpoint
from domain.configuration import Environment
from domain.encoding import Encoding
from domain.ids import IdPrefix, public_id
from domain.modes import Mode
from domain.states import MessageStatus
from services import batches as service
from services.batches import (
    MOST_RECIPIENTS,
    BatchCommand,
    BatchOver,
    Recipient,
    UnknownBatch,
)
from services.configuration import NoConfiguration
from services.reads import QueryTooWide
from services.submission import KeyInFlight, KeyReused, Refused
from services.yielding_slices import yielding_slices

PATH = "/api/v1/sms/batches"

# --- requests -----------------------------------------------------------------------------------

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


class BatchRecipient(RequestModel):
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


class BatchOptions(MessageOptionsModel):
    """All of a batch but its recipients."""

    body: Text | None = Field(
        None,
        description="The text; `{name}` is a place for each recipient's variable of that name, "
        "`{{` and `}}` stand for braces.",
        examples=["Hello {name}, your table is ready."],
    )


class BatchRequest(BatchOptions):
    """Messages to be sent together."""

    recipients: Annotated[list[BatchRecipient], Field(min_length=1, max_length=MOST_RECIPIENTS)]

    async def to_command(self, *, with_digest: bool) -> BatchCommand:
        """What the service is asked; the digest costs time, and only a key needs it."""
        recipients = [
            Recipient(each.to, each.variables, each.body, each.metadata)
            async for some in yielding_slices(self.recipients, _AT_ONCE)
            for each in some
        ]
        return BatchCommand(
            body=self.body,
            recipients=recipients,
            digest=await self._digest() if with_digest else b"",
            **self.options(),
        )

    async def _digest(self) -> bytes:
        """That of `model_dump_json`, whose last member the recipients are, without all of it."""
        digest = hashlib.sha256()
        empty = self.model_copy(update={"recipients": []}).model_dump_json().encode()
        before = empty.removesuffix(b"]}")
        async for some in yielding_slices(self.recipients, _AT_ONCE):
            digest.update(before + _RECIPIENTS.dump_json(some)[1:-1])
            before = b","
        digest.update(b"]}")
        return digest.digest()


_RECIPIENTS = TypeAdapter(list[BatchRecipient])
_READER = ListBody(BatchOptions, "recipients", BatchRecipient, most_entries=MOST_RECIPIENTS)


class BatchSlots:
    """How many batches are parsed and accepted at the same time, and how long others wait.

    A batch waits as long as others end: one that waits behind a database that is silent is refused
    while its client still waits.

    Args:
        at_once: batches that are objects at the same time: each may take some 100 MB, and while Python
            collects garbage it looks through all objects, and nothing else runs.
        most_waiting: batches whose bodies wait for that.
        patience: seconds that a batch waits at most after another one ended.
    """

    def __init__(self, *, at_once: int, most_waiting: int, patience: float) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most_waiting = most_waiting
        self._patience = patience
        self._waits: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Hold one of the slots.

        Raises:
            Problem: too many batches wait, or none of those at work has ended for too long.
        """
        await self._take()
        try:
            yield
        finally:
            self._free.release()
            until = asyncio.get_running_loop().time() + self._patience
            for wait in self._waits:
                if not wait.expired():
                    wait.reschedule(until)

    async def _take(self) -> None:
        if len(self._waits) >= self._most_waiting:
            raise Problem(TOO_MANY_BATCHES)
        try:
            async with asyncio.timeout(self._patience) as wait:
                self._waits.add(wait)
                try:
                    await self._free.acquire()
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            raise Problem(TOO_MANY_BATCHES) from None


class BatchEndpoint(Endpoint):
    """A route whose body, if it takes one, is a batch."""

    @asynccontextmanager
    async def parsed(self, request: Request) -> AsyncIterator[Request]:
        """Parse a batch recipient by recipient, and hand it to FastAPI as it is then."""
        body = await request.body()
        if not body:
            yield request
            return
        state = request.app.state
        async with state.batch_slots.taken():
            most_bytes = state.services.settings.max_body_bytes
            options, recipients = await _READER.read(body, most_bytes)
            batch = BatchRequest.model_construct(**dict(options), recipients=recipients)
            yield _ReadRequest(request.scope, batch)


class _ReadRequest(Request):
    """A request whose body was read, and is no longer kept."""

    def __init__(self, scope: Scope, read: BatchRequest) -> None:
        super().__init__(scope)
        self._read = read

    async def body(self) -> bytes:
        return b"{}"

    async def json(self) -> BatchRequest:
        return self._read


router = APIRouter(prefix=PATH, tags=["batches"], route_class=BatchEndpoint)

_HELLO = {
    "from": "Acme",
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
            "from": "Acme",
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


class BatchesQuery(PageRequest):
    """Which batches to list."""


# --- responses ----------------------------------------------------------------------------------


class BatchCount(ResponseModel):
    """How many messages of a batch have this status for this reason."""

    status: MessageStatus
    reason: str | None = Field(description="Why they ended so; null while they go on.")
    messages: int


class Batch(ResponseModel):
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
        counted: dict[tuple[MessageStatus, str | None], int] = {}
        for row in view.counts:
            key = (row.status, row.reason)
            counted[key] = counted.get(key, 0) + row.messages
        return cls(
            batch_id=public_id(IdPrefix.BATCH, batch.id),
            status=view.status,
            recipients=batch.recipients,
            accepted=batch.accepted,
            refused=batch.recipients - batch.accepted,
            open=view.open,
            counts=[
                BatchCount(status=status, reason=reason, messages=messages)
                for (status, reason), messages in sorted(
                    counted.items(), key=lambda item: (item[0][0], item[0][1] or "")
                )
            ],
            sender=batch.sender,
            mode=batch.mode,
            environment=batch.environment,
            created_at=batch.created_at,
        )


class BatchPage(Page[Batch]):
    """Some batches, the newest first."""


class RecipientRefusal(ResponseModel):
    """Why a recipient got no message."""

    field: str
    reason: str
    detail: str


class RecipientResult(ResponseModel):
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
        """The response of the service, as it is shown."""
        results = [
            RecipientResult.of(result)
            async for some in yielding_slices(accepted.results, _AT_ONCE)
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
    responses=raises(
        Refused,
        KeyInFlight,
        KeyReused,
        ACCOUNT_SUSPENDED,
        NoConfiguration,
        TOO_MANY_BATCHES,
        examples=REFUSALS,
    ),
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
    response.headers["Location"] = f"{PATH}/{public_id(IdPrefix.BATCH, accepted.view.batch.id)}"
    if accepted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return await BatchAccepted.accepted_as(accepted)


@router.get(
    "",
    operation_id="list_batches",
    summary="List batches",
    responses=raises(QueryTooWide),
)
async def listed(
    query: Annotated[BatchesQuery, Query()], caller: MessageReader, gateway: Gateway
) -> BatchPage:
    """Batches, the newest first."""
    found = await gateway.batches.listed(caller, before=query.cursor, limit=query.limit + 1)
    return BatchPage.of(
        [view.batch for view in found], query.limit, [Batch.of(view) for view in found]
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
    """The response that the request got, once more: a message or a refusal for each recipient."""
    return await BatchAccepted.accepted_as(await gateway.batches.results(caller, batch_id))


@router.post(
    "/{batch_id}/pause",
    operation_id="pause_batch",
    summary="Pause a batch",
    responses=raises(UnknownBatch, BatchOver),
)
async def pause(batch_id: BatchId, caller: SendStopper, gateway: Gateway) -> Batch:
    """Send nothing more of it until it is resumed; what was sent already cannot be taken back."""
    return Batch.of(await gateway.batches.pause(caller, batch_id))


@router.post(
    "/{batch_id}/resume",
    operation_id="resume_batch",
    summary="Resume a batch",
    responses=raises(UnknownBatch, BatchOver, ACCOUNT_SUSPENDED),
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
async def cancel(batch_id: BatchId, caller: SendStopper, gateway: Gateway) -> Batch:
    """End every message of it that no provider has; what was sent already cannot be taken back."""
    return Batch.of(await gateway.batches.cancel(caller, batch_id))

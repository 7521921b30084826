"""Dead letters: messages for which nothing was left to try, and their second chance."""

from typing import Annotated, Any, Self

from fastapi import APIRouter, Body, Query
from pydantic import Field, StrictInt

from api.dependencies import DeadLetterReplayer, Gateway, MessageReader
from api.fields import PageRequest, RequestModel, ResponseModel, Word
from api.messages import Message, MessageId, MessagePage
from api.problems import ACCOUNT_SUSPENDED, NOT_A_DEAD_LETTER, Problem, raises, refusal
from api.routing import Endpoint
from services import dead_letters as service
from services.messages import UnknownMessage
from services.reads import QueryTooWide
from services.submission import Refused

router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"], route_class=Endpoint)

MOST_REPLAYED = 1000

# --- requests -----------------------------------------------------------------------------------


class DeadLettersQuery(PageRequest):
    """Which dead letters to list."""

    provider: Word | None = Field(
        None, description="Those that this provider had or was offered.", examples=["primary"]
    )


class DeadLetterReplay(RequestModel):
    """Which dead letters to send again: those named, or as many as there are, the oldest first."""

    message_ids: Annotated[list[Word], Field(min_length=1, max_length=MOST_REPLAYED)] | None = (
        Field(None, description="These only.")
    )
    provider: Word | None = Field(
        None, description="Only those that this provider had or was offered."
    )
    limit: Annotated[StrictInt, Field(ge=1, le=MOST_REPLAYED)] = Field(
        100, description="How many, at most; those that are named are all taken."
    )

    @property
    def most(self) -> int:
        """How many messages this may concern."""
        return self.limit if self.message_ids is None else len(self.message_ids)


EXAMPLES: dict[str, Any] = {
    "after-an-outage": {
        "summary": "What a provider's outage left behind",
        "value": {"provider": "primary", "limit": 1000},
    },
    "by-name": {
        "summary": "These two, of which one is none",
        "value": {
            "message_ids": [
                "msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e1f",
                "msg_019aa5c0d1e27b3c8f4e5a6b7c8d9eff",
            ]
        },
    },
    "none-at-all": {"summary": "Refused: none", "value": {"limit": 0}},
}

# --- responses ----------------------------------------------------------------------------------


class Skipped(ResponseModel):
    """A message that was not replayed, and why."""

    message_id: str
    detail: str


class Remaining(ResponseModel):
    """Dead letters that a provider had or was offered."""

    provider: str | None = Field(description="None: no route takes them.")
    messages: int


class ReplayedDeadLetters(ResponseModel):
    """Which dead letters are sent again."""

    replayed: list[str]
    skipped: list[Skipped]
    remaining: list[Remaining] = Field(
        description="Where none was replayed: how many there are, by provider, of the newest 10,000."
    )

    @classmethod
    def of(cls, done: service.Replayed) -> Self:
        """What the service did, as it is shown."""
        return cls(
            replayed=list(done.replayed),
            skipped=[Skipped(message_id=s.message_id, detail=s.sentence) for s in done.skipped],
            remaining=[Remaining(provider=r.provider, messages=r.messages) for r in done.remaining],
        )


# --- endpoints ---------------------------------------------------------------------------------


@router.get(
    "",
    operation_id="list_dead_letters",
    summary="List dead letters",
    responses=raises(Refused, QueryTooWide),
)
async def listed(
    query: Annotated[DeadLettersQuery, Query()], caller: MessageReader, gateway: Gateway
) -> MessagePage:
    """Messages that were set aside because nothing was left to try, the newest first."""
    found = await gateway.dead_letters.listed(
        caller, provider=query.provider, before=query.cursor, limit=query.limit + 1
    )
    return MessagePage.of(found, query.limit, [Message.of(row) for row in found])


@router.post(
    "/replay",
    operation_id="replay_dead_letters",
    summary="Replay dead letters",
    responses=raises(
        Refused,
        ACCOUNT_SUSPENDED,
        examples={
            "none-at-all": refusal("limit", "out_of_range", "It is too small: it is at least 1.")
        },
    ),
)
async def replay(
    wanted: Annotated[DeadLetterReplay, Body(openapi_examples=EXAMPLES)],
    caller: DeadLetterReplayer,
    gateway: Gateway,
) -> ReplayedDeadLetters:
    """Send dead letters again, with their whole validity; a late receipt may come before."""
    done = await gateway.dead_letters.replay(
        caller, message_ids=wanted.message_ids, provider=wanted.provider, limit=wanted.most
    )
    return ReplayedDeadLetters.of(done)


@router.post(
    "/{message_id}/replay",
    operation_id="replay_dead_letter",
    status_code=202,
    summary="Replay one dead letter",
    responses=raises(UnknownMessage, NOT_A_DEAD_LETTER, ACCOUNT_SUSPENDED),
)
async def replay_one(
    message_id: MessageId, caller: DeadLetterReplayer, gateway: Gateway
) -> Message:
    """Send a dead letter again, with its whole validity."""
    done = await gateway.dead_letters.replay(
        caller, message_ids=[message_id], provider=None, limit=1
    )
    message = await gateway.messages.one(caller, message_id)
    if not done.replayed:
        raise Problem(NOT_A_DEAD_LETTER)
    return Message.of(message)

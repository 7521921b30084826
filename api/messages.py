"""Messages: sent, read, listed, explained, cancelled."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from fastapi import APIRouter, Body, Header, Path, Query, Response
from pydantic import Field, StrictBool, StrictInt, StringConstraints

from api.callbacks import Callback
from api.dependencies import Gateway, MessageReader, MessageSender
from api.fields import STORABLE, Asked, Items, Line, Moment, Page, PageAsked, Text, Told, Word
from api.problems import raises, refusal
from api.routing import Endpoint
from api.sentences import VISIBLE_ASCII
from domain.callbacks import LONGEST_URL
from domain.configuration import Environment
from domain.encoding import Encoding
from domain.ids import IdPrefix, public_id
from domain.modes import Mode, Priority
from domain.numbers import InvalidNumber
from domain.states import AttemptStatus, MessageStatus, PartStatus
from services import asked
from services import messages as service
from services.asked import KeyInFlight, KeyReused, Refused, SendCommand
from services.configuration import NoConfiguration
from services.messages import AlreadyOver, ListQuery, UnknownMessage
from store.database import Row

router = APIRouter(prefix="/api/v1/sms", tags=["messages"], route_class=Endpoint)

# --- what is asked -----------------------------------------------------------------------------

MOST_METADATA = 20

MessageId = Annotated[
    str,
    Path(
        description="`msg_…`, as it was answered when the message was sent.",
        examples=["msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"],
    ),
]

IdempotencyKey = Annotated[
    Annotated[str, StringConstraints(pattern=VISIBLE_ASCII)] | None,
    Header(
        alias="Idempotency-Key",
        description="1 to 255 visible ASCII characters, fresh for each message. Requests with the "
        "same key and body are one message, for 24 hours: it is safe to send them again.",
        examples=["order-8812-confirmation"],
    ),
]


Metadata = Annotated[
    dict[Word, Annotated[str, Field(max_length=256), STORABLE]], Field(max_length=MOST_METADATA)
]
"""A customer's own pairs."""


class SharedRequest(Asked):
    """What is asked alike for one message and for many."""

    sender: Line = Field(
        alias="from",
        description="The sender ID: a name of up to 11 characters, a short code, or a number.",
        examples=["ACME"],
    )
    priority: Priority | None = Field(None, description="By default that of the mode.")
    callback_url: Annotated[str, Field(max_length=LONGEST_URL), STORABLE] | None = Field(
        None, description="Told of what becomes of each message; see the webhooks."
    )
    mode: Mode = Field(Mode.TRANSACTIONAL, description="What it is for.")
    validity_period: Annotated[StrictInt, Field(ge=5, le=259_200)] | None = Field(
        None, description="Seconds after which it is not to be delivered any more."
    )
    scheduled_at: Moment | None = Field(
        None, description="When to send it, with its offset; at most 35 days ahead."
    )
    smart_encoding: StrictBool = Field(
        True,
        description="Whether characters that would make a message longer may be replaced by ones "
        "that look alike.",
    )

    def shared(self) -> dict[str, Any]:
        """The members of `SharedCommand`."""
        period = self.validity_period
        return {
            "sender": self.sender,
            "mode": self.mode,
            "priority": self.priority,
            "callback_url": self.callback_url,
            "validity": None if period is None else timedelta(seconds=period),
            "scheduled_at": self.scheduled_at,
            "smart_encoding": self.smart_encoding,
        }


class SendRequest(SharedRequest):
    """A message to be sent."""

    to: Line = Field(description="The recipient's number, E.164.", examples=["+447700900123"])
    body: Text = Field(description="The text.", examples=["Your order is on its way."])
    metadata: Metadata = Field(
        default_factory=dict, description="Your own pairs, given back with the message."
    )

    def to_command(self) -> SendCommand:
        """What the service is asked."""
        return SendCommand(to=self.to, body=self.body, metadata=self.metadata, **self.shared())


_ORDER = {"to": "+447700900123", "from": "ACME", "body": "Your order 8812 is on its way."}
EXAMPLES: dict[str, Any] = {
    "plain": {"summary": "A plain message", "value": _ORDER},
    "alert": {
        "summary": "An alert, which goes to the next provider when no receipt comes",
        "value": {
            "to": "+12015550123",
            "from": "+12015550100",
            "body": "Disk full on db-1",
            "mode": "alert",
            "validity_period": 1800,
            "metadata": {"host": "db-1"},
        },
    },
    "followed": {
        "summary": "A long one with emoji, whose delivery is told to a server of yours",
        "value": {
            "to": "+33639980001",
            "from": "ACME",
            "body": "Bonne nouvelle 🎉 votre colis est en route, il arrivera demain matin entre "
            "9 h et 11 h.",
            "priority": "high",
            "callback_url": "https://shop.example.com/sms",
        },
    },
    "impossible-number": {
        "summary": "Refused: a number that no country has",
        "value": _ORDER | {"to": "+4477"},
    },
    "unknown-field": {
        "summary": "Refused: a slip in the name of a field",
        "value": _ORDER | {"prority": "high"},
    },
    "schedule-in-the-past": {
        "summary": "Refused: too late",
        "value": _ORDER | {"scheduled_at": "2026-01-05T09:00:00+01:00"},
    },
    "private-callback": {
        "summary": "Refused: a callback into a private network",
        "value": _ORDER | {"callback_url": "http://10.0.0.7/sms"},
    },
}
REFUSALS = {
    "impossible-number": refusal(
        "to",
        "invalid_number",
        "The number has too few digits for its country: check that none is missing.",
    ),
    "unknown-field": refusal(
        "prority",
        "unknown_field",
        "There is no such field: did you mean priority? Rename it, or leave it out.",
    ),
    "schedule-in-the-past": refusal(
        "scheduled_at",
        "invalid_schedule",
        "The time lies in the past: give a later one, or leave it out to send at once.",
    ),
    "private-callback": refusal(
        "callback_url",
        "invalid_callback_url",
        "Callbacks go to public addresses only, and this one is private, local or reserved.",
    ),
}


class MessagesAsked(PageAsked):
    """Which messages to list; what is left out matches all."""

    status: MessageStatus | None = Field(
        None, description="Where they are now.", examples=["delivered"]
    )
    mode: Mode | None = Field(None, description="What they are for.", examples=["alert"])
    to: Line | None = Field(
        None,
        description="The recipient's number; write its + as %2B.",
        examples=["+447700900123"],
    )
    sender: Word | None = Field(None, alias="from", description="Sender.", examples=["ACME"])
    provider: Word | None = Field(
        None, description="Given to this provider at least once.", examples=["primary"]
    )
    since: Moment | None = Field(
        None, description="Accepted at this time or later.", examples=["2026-11-01T00:00:00Z"]
    )
    until: Moment | None = Field(
        None, description="Accepted before this time.", examples=["2027-11-01T00:00:00Z"]
    )

    def to_query(self) -> ListQuery:
        """What the service is asked: one message more than the page holds."""
        return ListQuery(
            status=self.status,
            mode=self.mode,
            sender=self.sender,
            recipient=self.to,
            provider=self.provider,
            since=self.since,
            until=self.until,
            before=self.cursor,
            limit=self.limit + 1,
        )


# --- what is told ------------------------------------------------------------------------------


class Replacement(Told):
    """A character that would have made the message longer, and what stands in its place."""

    character: str
    replacement: str
    count: int


class Accepted(Told):
    """A message that the gateway has taken on; from here on it is not lost."""

    message_id: str = Field(examples=["msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"])
    status: MessageStatus
    encoding: Encoding
    segments: int = Field(description="What is charged.")
    replacements: list[Replacement]
    warnings: list[str] = Field(description="What you may want to change next time.")

    @classmethod
    def of(cls, accepted: asked.Accepted) -> Self:
        """The answer of the service, as it is shown."""
        return cls(
            message_id=accepted.message_id,
            status=accepted.status,
            encoding=Encoding(accepted.encoding),
            segments=accepted.segments,
            replacements=[
                Replacement(character=r.character, replacement=r.replacement, count=r.count)
                for r in accepted.replacements
            ],
            warnings=list(accepted.warnings),
        )


class Message(Told):
    """A message as it stands; `provider` is the last one that it was given to."""

    message_id: str
    status: MessageStatus
    reason: str | None = Field(description="Why it ended as it did.")
    to: str | None = Field(description="Null once the recipient was erased.")
    sender: str = Field(serialization_alias="from")
    body: str | None = Field(description="As sent, replacements included.")
    mode: Mode
    priority: Priority
    encoding: Encoding
    segments: int
    country: str = Field(description="ISO 3166-1 alpha-2, by the number; ZZ for none.")
    network: str = Field(description="MCC and MNC as receipts told it, or `unknown`.")
    provider: str | None
    attempts: int
    environment: Environment
    accepted_at: datetime
    scheduled_at: datetime | None
    valid_until: datetime
    updated_at: datetime
    metadata: dict[str, str]
    callback_url: str | None
    cancel_requested: bool

    @classmethod
    def of(cls, row: Row) -> Self:
        """A stored message, as it is shown."""
        return cls(
            message_id=public_id(IdPrefix.MESSAGE, row["id"]),
            status=row["status"],
            reason=row["reason"],
            to=row["recipient"],
            sender=row["sender"],
            body=row["body"],
            mode=row["mode"],
            priority=row["priority"],
            encoding=row["encoding"],
            segments=row["segments"],
            country=row["country"],
            network=row["network"],
            provider=row["provider"],
            attempts=row["attempts"] or 0,
            environment=row["environment"],
            accepted_at=row["accepted_at"],
            scheduled_at=row["scheduled_at"],
            valid_until=row["valid_until"],
            updated_at=row["moved_at"],
            metadata=row["metadata"],
            callback_url=row["callback_url"],
            cancel_requested=row["cancel_requested_at"] is not None,
        )


class MessagePage(Page[Message]):
    """Some messages, the newest first."""


class Event(Told):
    """One thing that happened to a message; `seq` orders them."""

    seq: int
    at: datetime
    kind: str = Field(description="`moved` where the status changed.", examples=["moved"])
    actor: str = Field(description="`workflow`, `receipt`, `reconciler`, or the key that asked.")
    previous: MessageStatus | None
    status: str | None = Field(
        description="The status from then on, or the state that a receipt told."
    )
    attempt: int | None
    provider: str | None
    network: str | None
    code: str | None = Field(description="The provider's own code.")
    reason: str | None
    detail: dict[str, Any]


class EventList(Items[Event]):
    """All events of a message, in order."""


class Part(Told):
    """One part of an attempt, as the provider saw it."""

    number: int
    status: PartStatus
    provider_message_id: str | None
    error_class: str | None
    code: str
    submitted_at: datetime
    answered_at: datetime | None
    receipt_state: str | None
    receipt_code: str | None
    receipt_at: datetime | None


class Attempt(Told):
    """One provider's turn with a message; `tries` counts how often its parts were submitted."""

    number: int
    epoch: int = Field(description="Higher after each replay or take-over.")
    provider: str
    status: AttemptStatus
    error_class: str | None
    code: str
    tries: int
    started_at: datetime
    answer_by: datetime
    settled_at: datetime
    receipt_by: datetime
    recalled: bool | None = Field(description="Whether the provider took it back when asked to.")
    part_method: str
    config_version: int | None
    parts: list[Part]


class Receipt(Told):
    """What a provider said has become of a part; `copies` counts how often it said so."""

    provider: str
    provider_message_id: str
    state: str
    code: str
    network: str | None
    attempt: int | None
    part: int | None
    copies: int
    received_at: datetime
    done_at: datetime | None


class Explanation(Told):
    """All that is known of a message; `summary` says it in sentences."""

    message: Message
    attempts: list[Attempt]
    receipts: list[Receipt]
    events: list[Event]
    callbacks: list[Callback]
    summary: list[str]

    @classmethod
    def of(cls, explained: service.Explanation) -> Self:
        """The service's rows, as they are shown: each attempt with its parts."""
        return cls(
            message=Message.of(explained.message),
            attempts=[
                Attempt(
                    **_shown(Attempt, attempt),
                    parts=[
                        Part(**_shown(Part, part))
                        for part in explained.parts
                        if part["attempt"] == attempt["number"]
                    ],
                )
                for attempt in explained.attempts
            ],
            receipts=[Receipt(**_shown(Receipt, receipt)) for receipt in explained.receipts],
            events=[Event(**_shown(Event, event)) for event in explained.events],
            callbacks=[Callback.of(callback) for callback in explained.callbacks],
            summary=list(explained.summary),
        )


def _shown(model: type[Told], row: Row) -> dict[str, Any]:
    """The columns that a model shows; a column that is added later is not shown by accident."""
    return {name: row[name] for name in model.model_fields if name in row}


# --- endpoints ---------------------------------------------------------------------------------


@router.post(
    "/send",
    operation_id="send_message",
    status_code=202,
    summary="Send a message",
    response_description="The message is committed, and will be sent.",
    responses=raises(Refused, KeyInFlight, KeyReused, NoConfiguration, examples=REFUSALS),
)
async def send(
    request: Annotated[SendRequest, Body(openapi_examples=EXAMPLES)],
    caller: MessageSender,
    gateway: Gateway,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Take a message on. The answer comes when it is committed, before anything is sent."""
    accepted = await gateway.accept(caller, request.to_command(), idempotency_key=idempotency_key)
    response.headers["Location"] = f"{router.prefix}/{accepted.message_id}"
    if accepted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return Accepted.of(accepted)


@router.get(
    "",
    operation_id="list_messages",
    summary="List messages",
    responses=raises(InvalidNumber),
)
async def listed(
    asked: Annotated[MessagesAsked, Query()], caller: MessageReader, gateway: Gateway
) -> MessagePage:
    """The messages of the key's account and environment, the newest first."""
    found = await gateway.messages.listed(caller, asked.to_query())
    return MessagePage.of(found, asked.limit, [Message.of(row) for row in found])


@router.get(
    "/{message_id}",
    operation_id="get_message",
    summary="Read a message",
    responses=raises(UnknownMessage),
)
async def one(message_id: MessageId, caller: MessageReader, gateway: Gateway) -> Message:
    """A message as it stands."""
    return Message.of(await gateway.messages.one(caller, message_id))


@router.get(
    "/{message_id}/events",
    operation_id="list_events",
    summary="Read what happened to a message",
    responses=raises(UnknownMessage),
)
async def events(message_id: MessageId, caller: MessageReader, gateway: Gateway) -> EventList:
    """All that happened to a message, in order."""
    happened = await gateway.messages.events(caller, message_id)
    return EventList(items=[Event(**_shown(Event, event)) for event in happened])


@router.get(
    "/{message_id}/explain",
    operation_id="explain_message",
    summary="Explain a message",
    responses=raises(UnknownMessage),
)
async def explain(message_id: MessageId, caller: MessageReader, gateway: Gateway) -> Explanation:
    """All that is known of a message: its attempts, parts, receipts, events and callbacks."""
    return Explanation.of(await gateway.messages.explain(caller, message_id))


@router.post(
    "/{message_id}/cancel",
    operation_id="cancel_message",
    status_code=202,
    summary="Cancel a message",
    response_description="It is cancelled, or will be if its provider lets go of it.",
    responses=raises(UnknownMessage, AlreadyOver),
)
async def cancel(message_id: MessageId, caller: MessageSender, gateway: Gateway) -> Message:
    """Stop a message: at once where no provider has it, else by asking the provider."""
    return Message.of(await gateway.messages.cancel(caller, message_id))

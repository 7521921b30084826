"""Messages: sent, read, listed, explained, cancelled."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Body, Header, Path, Query, Response
from pydantic import Field, StrictBool, StrictInt, StringConstraints

from api.callbacks import Callback
from api.dependencies import Gateway, MessageReader, MessageSender, SendStopper
from api.fields import (
    STORABLE,
    Items,
    Line,
    Moment,
    Page,
    PageRequest,
    RequestModel,
    ResponseModel,
    Text,
    TimeBound,
    Word,
)
from api.problems import ACCOUNT_SUSPENDED, raises, refusal
from api.routing import Endpoint
from api.sentences import VISIBLE_ASCII
from domain import money, substitutions
from domain.callbacks.urls import LONGEST_URL
from domain.configuration import Environment
from domain.encoding import Encoding
from domain.ids import IdPrefix, public_id
from domain.modes import MissingReceiptPolicy, Mode, Priority
from domain.numbers import InvalidNumber
from domain.parameters import LONGEST_VALUE, MOST_PARAMETERS, NAME_PATTERN
from domain.states import AttemptStatus, MessageStatus, PartStatus
from services import messages as service
from services import submission
from services.configuration import NoConfiguration
from services.explanation import StepKind
from services.messages import AlreadyOver, ListQuery, UnknownMessage
from services.preview import MessagePreview
from services.reads import QueryTooWide
from services.submission import KeyInFlight, KeyReused, Refused, SendCommand
from store.attempts import StoredAttempt, StoredPart
from store.messages import AccountMessage

router = APIRouter(prefix="/api/v1/sms", tags=["messages"], route_class=Endpoint)

# --- requests -----------------------------------------------------------------------------------

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


Parameters = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=NAME_PATTERN)],
        Annotated[str, Field(min_length=1, max_length=LONGEST_VALUE), STORABLE],
    ],
    Field(max_length=MOST_PARAMETERS),
]
"""What providers are given beside the text."""


class MessageOptionsModel(RequestModel):
    """What is asked alike for one message and for many."""

    sender: Line = Field(
        alias="from",
        description="The sender ID: a name of up to 11 characters, a short code, or a number.",
        examples=["Acme"],
    )
    priority: Priority | None = Field(None, description="By default that of the mode.")
    callback_url: Annotated[str, Field(max_length=LONGEST_URL), STORABLE] | None = Field(
        None, description="URL that receives status callbacks for each message; see the webhooks."
    )
    mode: Mode = Field(Mode.TRANSACTIONAL, description="What it is for.")
    validity_period: Annotated[StrictInt, Field(ge=5, le=259_200)] | None = Field(
        None, description="Seconds after which it is not to be delivered any more."
    )
    receipt_deadline: Annotated[StrictInt, Field(ge=5, le=259_200)] | None = Field(
        None,
        description="Seconds after which a provider that accepted it and sent no delivery receipt is "
        "given up: an alert or a verification goes to the next provider, any other mode expires. By "
        "default that of the mode: 60 for alerts and verifications, else as long as it is valid.",
    )
    missing_receipt: Literal["next_route", "expire"] | None = Field(
        None,
        description="What happens when no delivery receipt came by that deadline: the message goes to "
        "the next provider, or expires. By default that of the mode.",
    )
    scheduled_at: Moment | None = Field(
        None, description="When to send it, with its offset; at most 35 days ahead."
    )
    smart_encoding: StrictBool = Field(
        True,
        description="Whether characters that would make a message longer may be replaced by ones "
        "that look alike.",
    )
    parameters: Parameters = Field(
        default_factory=dict,
        description="What the provider is given beside the text, by name, such as the ids of a "
        "registered template. The configuration of a provider says which names it knows; it is given "
        "no others, and a preview lists these.",
        examples=[{"entity_id": "1101234567890123456", "template_id": "1107161234567890123"}],
    )

    def options(self) -> dict[str, Any]:
        """The members of `RequestedOptions`."""
        period, deadline = self.validity_period, self.receipt_deadline
        missing = self.missing_receipt
        return {
            "sender": self.sender,
            "mode": self.mode,
            "priority": self.priority,
            "callback_url": self.callback_url,
            "validity": None if period is None else timedelta(seconds=period),
            "receipt_deadline": None if deadline is None else timedelta(seconds=deadline),
            "missing_receipt": None if missing is None else MissingReceiptPolicy(missing),
            "scheduled_at": self.scheduled_at,
            "smart_encoding": self.smart_encoding,
            "parameters": self.parameters,
        }


class SendRequest(MessageOptionsModel):
    """A message to be sent."""

    to: Line = Field(description="The recipient's number, E.164.", examples=["+447700900123"])
    body: Text = Field(description="The text.", examples=["Your order is on its way."])
    metadata: Metadata = Field(
        default_factory=dict, description="Your own pairs, given back with the message."
    )

    def to_command(self) -> SendCommand:
        """What the service is asked."""
        return SendCommand(to=self.to, body=self.body, metadata=self.metadata, **self.options())


_ORDER = {"to": "+447700900123", "from": "Acme", "body": "Your order 8812 is on its way."}
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
            "receipt_deadline": 30,
            "metadata": {"host": "db-1"},
        },
    },
    "followed": {
        "summary": "A long one with emoji, with callbacks to a server of yours",
        "value": {
            "to": "+33639980001",
            "from": "Acme",
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


class MessagesQuery(PageRequest):
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
    sender: Word | None = Field(None, alias="from", description="Sender.", examples=["Acme"])
    provider: Word | None = Field(
        None, description="Given to this provider at least once.", examples=["primary"]
    )
    since: TimeBound | None = Field(
        None, description="Accepted at this time or later.", examples=["2026-11-01T00:00:00Z"]
    )
    until: TimeBound | None = Field(
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


# --- responses ----------------------------------------------------------------------------------


class Replacement(ResponseModel):
    """A character that would have made the message longer, and what stands in its place."""

    character: str
    replacement: str
    count: int

    @classmethod
    def of(cls, replaced: substitutions.Replacement) -> Self:
        """A replacement, as it is shown."""
        return cls(
            character=replaced.character, replacement=replaced.replacement, count=replaced.count
        )


class Accepted(ResponseModel):
    """A message that the gateway has taken on; from here on it is not lost."""

    message_id: str = Field(examples=["msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"])
    status: MessageStatus
    encoding: Encoding
    segments: int = Field(description="What is charged.")
    replacements: list[Replacement]
    warnings: list[str] = Field(description="What you may want to change next time.")

    @classmethod
    def of(cls, accepted: submission.Accepted) -> Self:
        """The response of the service, as it is shown."""
        return cls(
            message_id=accepted.message_id,
            status=accepted.status,
            encoding=Encoding(accepted.encoding),
            segments=accepted.segments,
            replacements=[Replacement.of(each) for each in accepted.replacements],
            warnings=list(accepted.warnings),
        )


class PreviewedProvider(ResponseModel):
    """A provider of the route, and whether single messages can be sent over it now."""

    provider: str
    up: bool
    ignored_parameters: list[str] = Field(
        description="Names of the message's `parameters` that this provider is not given, because its "
        "configuration does not name them."
    )


class Preview(ResponseModel):
    """A message that would be accepted. Nothing is stored, sent or charged."""

    encoding: Encoding
    segments: int = Field(description="What would be charged.")
    body: str = Field(description="As it would be sent, replacements included.")
    replacements: list[Replacement]
    warnings: list[str] = Field(description="What you may want to change.")
    country: str = Field(description="ISO 3166-1 alpha-2, by the number; ZZ for none.")
    priority: Priority
    validity_period: int = Field(description="Seconds.")
    route: int | None = Field(
        description="The number of the route in the configuration, from 0. Null if no route takes "
        "the message: it would be accepted, and fail."
    )
    providers: list[PreviewedProvider] = Field(
        description="Those of the route, in the order of preference."
    )

    @classmethod
    def of(cls, preview: MessagePreview) -> Self:
        """The response of the service, as it is shown."""
        options, recipient = preview.options, preview.recipient
        return cls(
            encoding=recipient.text.encoding,
            segments=recipient.text.segments,
            body=recipient.text.text,
            replacements=[Replacement.of(each) for each in recipient.text.replacements],
            warnings=[*recipient.warnings, *_ignored_parameters(preview)],
            country=recipient.number.country,
            priority=options.priority,
            validity_period=int(options.validity.total_seconds()),
            route=preview.route,
            providers=[
                PreviewedProvider(
                    provider=each.provider,
                    up=each.up,
                    ignored_parameters=list(preview.ignored_parameters[each.provider]),
                )
                for each in preview.providers
            ],
        )


def _ignored_parameters(preview: MessagePreview) -> list[str]:
    """A sentence for each provider that would not be given all parameters."""
    return [
        f"The provider {provider} does not know these parameters, and would not be given them: "
        f"{', '.join(names)}."
        for provider, names in preview.ignored_parameters.items()
        if names
    ]


class Message(ResponseModel):
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
    network: str = Field(description="MCC and MNC from receipts, or `unknown`.")
    provider: str | None
    attempts: int
    environment: Environment
    accepted_at: datetime
    scheduled_at: datetime | None
    valid_until: datetime
    updated_at: datetime
    metadata: dict[str, str]
    parameters: dict[str, str]
    callback_url: str | None
    cancel_requested: bool

    @classmethod
    def of(cls, row: AccountMessage) -> Self:
        """A stored message, as it is shown."""
        return cls(
            message_id=public_id(IdPrefix.MESSAGE, row.id),
            status=row.status,
            reason=row.reason,
            to=row.recipient,
            sender=row.sender,
            body=row.body,
            mode=row.mode,
            priority=row.priority,
            encoding=row.encoding,
            segments=row.segments,
            country=row.country,
            network=row.network,
            provider=row.provider,
            attempts=row.attempts or 0,
            environment=row.environment,
            accepted_at=row.accepted_at,
            scheduled_at=row.scheduled_at,
            valid_until=row.valid_until,
            updated_at=row.transitioned_at,
            metadata=row.metadata,
            parameters=row.parameters or {},
            callback_url=row.callback_url,
            cancel_requested=row.cancel_requested_at is not None,
        )


class MessagePage(Page[Message]):
    """Some messages, the newest first."""


class Event(ResponseModel):
    """One thing that happened to a message; `seq` orders them."""

    seq: int
    at: datetime
    kind: str = Field(
        description="What happened: `accepted`, `decided` (what to do next), `moved` (the status "
        "changed), `receipt`, `duplicate` (a second delivery), `cancel_requested`, "
        "`cancelled_at_provider`, `replayed`, or `promoted` and `taken_over` (another workflow runs the "
        "message). Later versions may add some.",
        examples=["moved"],
    )
    actor: str = Field(
        description="`workflow`, `receipt`, `reconciler`, or the key of the request."
    )
    previous: MessageStatus | None
    status: str | None = Field(description="The status after the event, or the state in a receipt.")
    attempt: int | None
    provider: str | None
    network: str | None
    code: str | None = Field(description="The provider's own code.")
    reason: str | None
    detail: dict[str, Any] = Field(
        description="Figures and names that belong to the kind, such as `segments` of `accepted` and "
        "the version of the `configuration` by which was decided. Never a number or a text.",
        examples=[{"configuration": 1}],
    )


class EventList(Items[Event]):
    """All events of a message, in order."""


class Price(ResponseModel):
    """What a provider says that it bills, exactly as it reported it."""

    amount: str = Field(description="A decimal number, never rounded.", examples=["0.0075"])
    currency: str = Field(description="ISO 4217.", examples=["USD"])

    @classmethod
    def of(cls, price: money.Price | None) -> Self | None:
        """A price, as it is shown."""
        return None if price is None else cls(amount=f"{price.amount:f}", currency=price.currency)


_SEGMENTS_BILLED = "How many segments the provider says that it bills; null if it says nothing."


class Part(ResponseModel):
    """One part of an attempt, as the provider saw it."""

    number: int
    status: PartStatus
    provider_message_id: str | None
    error_class: str | None
    code: str
    billed_segments: int | None = Field(description=_SEGMENTS_BILLED)
    price: Price | None = Field(description="What it says that the part costs.")
    submitted_at: datetime
    responded_at: datetime | None
    receipt_state: str | None
    receipt_code: str | None
    receipt_at: datetime | None


class Attempt(ResponseModel):
    """One provider's turn with a message; `tries` counts since a part was accepted last."""

    number: int
    epoch: int = Field(description="Higher after each replay or take-over.")
    provider: str
    status: AttemptStatus
    error_class: str | None
    code: str
    tries: int
    started_at: datetime
    response_by: datetime
    settled_at: datetime
    receipt_by: datetime
    cancelled_at_provider: bool | None = Field(
        description="Whether the provider took it back when asked to."
    )
    part_method: str
    config_version: int | None
    billed_segments: int | None = Field(description=_SEGMENTS_BILLED)
    price: Price | None = Field(
        description="What it says that the attempt costs: all parts together, if their currency is "
        "the same."
    )
    parts: list[Part]


class Receipt(ResponseModel):
    """What a provider said has become of a part; `copies` counts how often it said so."""

    provider: str
    provider_message_id: str
    state: str
    code: str
    error_class: str | None = Field(
        description="What the code means, where the provider's adapter knows it."
    )
    network: str | None
    attempt: int | None
    part: int | None
    copies: int
    received_at: datetime
    done_at: datetime | None


class Step(ResponseModel):
    """Something that happened to a message; equal steps in a row are one, with their `count`."""

    at: datetime = Field(description="When, or when for the first time.")
    until: datetime | None = Field(description="When for the last time, if `count` is above 1.")
    kind: StepKind
    count: int
    provider: str | None
    attempt: int | None = Field(description="Its number, or that of the first one.")
    code: str | None = Field(description="The provider's own code.")
    code_name: str | None = Field(
        description="The name of the code in SMPP 3.4.", examples=["ESME_RTHROTTLED"]
    )
    meaning: str | None = Field(description="What the code means.")
    text: str = Field(description="All of it as a sentence.")


class Explanation(ResponseModel):
    """All that is known of a message; `summary` and `steps` say it in sentences."""

    summary: list[str] = Field(
        description="What became of it, or what it waits for, until when, and what happens then; the "
        "most important sentence first."
    )
    steps: list[Step] = Field(description="What happened, in the order of the times.")
    message: Message
    attempts: list[Attempt]
    receipts: list[Receipt]
    events: list[Event]
    callbacks: list[Callback]

    @classmethod
    def of(cls, explained: service.Explanation) -> Self:
        """The service's rows, as they are shown: each attempt with its parts."""
        return cls(
            message=Message.of(explained.message),
            attempts=[
                Attempt(
                    **_shown(Attempt, attempt),
                    billed_segments=billed.segments,
                    price=Price.of(billed.price),
                    parts=[
                        Part(
                            **_shown(Part, part)
                            | {"price": Price.of(service.billed_of(part).price)}
                        )
                        for part in explained.parts
                        if part.attempt == attempt.number
                    ],
                )
                for attempt in explained.attempts
                for billed in [explained.billed.get(attempt.number, money.Billed())]
            ],
            receipts=[
                Receipt.model_validate(receipt, from_attributes=True)
                for receipt in explained.receipts
            ],
            events=[
                Event.model_validate(event, from_attributes=True) for event in explained.events
            ],
            callbacks=[Callback.of(callback) for callback in explained.callbacks],
            summary=list(explained.summary),
            steps=[Step.model_validate(step, from_attributes=True) for step in explained.steps],
        )


def _shown(model: type[ResponseModel], row: StoredAttempt | StoredPart) -> dict[str, Any]:
    """The columns that a model shows; a column that is added later is not shown by accident."""
    return {name: getattr(row, name) for name in model.model_fields if hasattr(row, name)}


# --- endpoints ---------------------------------------------------------------------------------


@router.post(
    "/send",
    operation_id="send_message",
    status_code=202,
    summary="Send a message",
    response_description="The message is committed, and will be sent.",
    responses=raises(
        Refused, KeyInFlight, KeyReused, ACCOUNT_SUSPENDED, NoConfiguration, examples=REFUSALS
    ),
)
async def send(
    request: Annotated[SendRequest, Body(openapi_examples=EXAMPLES)],
    caller: MessageSender,
    gateway: Gateway,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Take a message on. The response comes when it is committed, before anything is sent."""
    accepted = await gateway.accept(caller, request.to_command(), idempotency_key=idempotency_key)
    response.headers["Location"] = f"{router.prefix}/{accepted.message_id}"
    if accepted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return Accepted.of(accepted)


@router.post(
    "/preview",
    operation_id="preview_message",
    summary="Preview a message",
    response_description="The message would be accepted.",
    responses=raises(Refused, NoConfiguration, examples=REFUSALS),
)
async def preview(
    request: Annotated[SendRequest, Body(openapi_examples=EXAMPLES)],
    caller: SendStopper,
    gateway: Gateway,
) -> Preview:
    """Validate a message as sending it would, and say its encoding, segments and route."""
    return Preview.of(await gateway.preview(caller, request.to_command()))


@router.get(
    "",
    operation_id="list_messages",
    summary="List messages",
    responses=raises(InvalidNumber, QueryTooWide),
)
async def listed(
    query: Annotated[MessagesQuery, Query()], caller: MessageReader, gateway: Gateway
) -> MessagePage:
    """The messages of the key's account and environment, the newest first."""
    found = await gateway.messages.listed(caller, query.to_query())
    return MessagePage.of(found, query.limit, [Message.of(row) for row in found])


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
    return EventList(
        items=[Event.model_validate(event, from_attributes=True) for event in happened]
    )


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
async def cancel(message_id: MessageId, caller: SendStopper, gateway: Gateway) -> Message:
    """Stop a message: at once where no provider has it, else by asking the provider."""
    return Message.of(await gateway.messages.cancel(caller, message_id))

"""What the gateway answers, as frozen models.

Members that a newer gateway adds are kept, and values that it adds to a closed set are given as
plain text, so that an older client goes on working.
"""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

T = TypeVar("T")


class MessageStatus(StrEnum):
    """Where a message is."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    UNKNOWN = "unknown"
    RETRIED = "retried"
    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD_LETTER = "dead_letter"
    EXPIRED = "expired"
    CANCELED = "canceled"


FINAL_STATUSES = frozenset(
    {
        MessageStatus.DELIVERED,
        MessageStatus.FAILED,
        MessageStatus.DEAD_LETTER,
        MessageStatus.EXPIRED,
        MessageStatus.CANCELED,
    }
)
NO_RECEIPTS = "provider_gives_no_receipts"
"""The reason of a message that ended at `sent`, because nothing more will be heard of it."""


class MissingReceipt(StrEnum):
    """What happens to a message when no receipt came by its deadline."""

    NEXT_ROUTE = "next_route"
    EXPIRE = "expire"


class Mode(StrEnum):
    """The purpose of a message; it decides priority, validity and what happens unknown."""

    TRANSACTIONAL = "transactional"
    PROMOTIONAL = "promotional"
    ALERT = "alert"
    TWO_WAY = "two_way"
    VERIFICATION = "verification"


class Priority(StrEnum):
    """The order among messages that wait for the same provider."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


class Environment(StrEnum):
    """Which providers a key reaches."""

    LIVE = "live"
    TEST = "test"


class BatchStatus(StrEnum):
    """Where a batch is; it is finished when none of its messages is open any more."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELED = "canceled"
    FINISHED = "finished"


class CallbackState(StrEnum):
    """Whether the customer's server has heard."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


# A set that may grow: what is known is the enum's member, what is not stays text.
_Known = Field(union_mode="left_to_right")
Status = Annotated[MessageStatus | str, _Known]


class Answered(BaseModel):
    """What every model of a response is."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class Page(Answered, Generic[T]):
    """Some of the things asked for; `next_cursor` asks for those that follow, None is the end."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class Replacement(Answered):
    """A character that would have made the message longer, and what stands in its place."""

    character: str
    replacement: str
    count: int


class Accepted(Answered):
    """A message that the gateway has taken on; from here on it is not lost.

    `replayed` is true if an earlier request with the same idempotency key had created it.
    """

    message_id: str
    status: Status
    encoding: str
    segments: int
    replacements: tuple[Replacement, ...] = ()
    warnings: tuple[str, ...] = ()
    replayed: bool = False


class PreviewedProvider(Answered):
    """A provider of a route, and whether messages can be sent over it now."""

    provider: str
    up: bool
    ignored_parameters: tuple[str, ...] = ()


class Preview(Answered):
    """A message that would be accepted; nothing was stored.

    `body` is the text as it would be sent, and `validity_period` is in seconds. `route` is the number
    of the route in the configuration, from 0; None if no route takes the message, which would fail.
    """

    encoding: str
    segments: int
    body: str
    replacements: tuple[Replacement, ...] = ()
    warnings: tuple[str, ...] = ()
    country: str | None = None
    priority: Annotated[Priority | str, _Known]
    validity_period: int
    route: int | None = None
    providers: tuple[PreviewedProvider, ...] = ()


class Message(Answered):
    """A message as it stands; `provider` is the last one that it was given to."""

    message_id: str
    status: Status
    reason: str | None = None
    to: str | None = None
    sender: str = Field(alias="from")
    body: str | None = None
    mode: Annotated[Mode | str, _Known]
    priority: Annotated[Priority | str, _Known]
    encoding: str
    segments: int
    country: str | None = None
    network: str | None = None
    provider: str | None = None
    attempts: int = 0
    environment: Annotated[Environment | str, _Known]
    accepted_at: AwareDatetime
    scheduled_at: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None
    metadata: Mapping[str, str] = {}
    parameters: Mapping[str, str] = {}
    callback_url: str | None = None
    cancel_requested: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it, save by a late receipt or a replay."""
        return self.status in FINAL_STATUSES or (
            self.status == MessageStatus.SENT and self.reason == NO_RECEIPTS
        )


class Event(Answered):
    """One thing that happened to a message; `seq` orders them."""

    seq: int
    at: AwareDatetime
    kind: str
    actor: str | None = None
    previous: Annotated[MessageStatus | str | None, _Known] = None
    status: Annotated[MessageStatus | str | None, _Known] = None
    attempt: int | None = None
    provider: str | None = None
    network: str | None = None
    code: str | None = None
    reason: str | None = None
    detail: JsonValue = None


class AccountEvent(Event):
    """An event, and the message that it is about."""

    message_id: str


class BatchCount(Answered):
    """How many messages of a batch have this status for this reason."""

    status: Status
    reason: str | None = None
    messages: int


class Batch(Answered):
    """A batch as it stands; of its `recipients`, those `accepted` became messages.

    `open` counts the messages that go on, `counts` all of them.
    """

    batch_id: str
    status: Annotated[BatchStatus | str, _Known]
    recipients: int
    accepted: int
    refused: int
    open: int
    counts: tuple[BatchCount, ...] = ()
    sender: str = Field(alias="from")
    mode: Annotated[Mode | str, _Known]
    environment: Annotated[Environment | str, _Known]
    created_at: AwareDatetime

    @property
    def has_ended(self) -> bool:
        """Whether nothing more of it leaves; what left before a cancel may still be `open`."""
        return self.status in {BatchStatus.FINISHED, BatchStatus.CANCELED}

    @property
    def by_status(self) -> Mapping[MessageStatus | str, int]:
        """How many messages have each status, whatever the reason."""
        counted: Counter[MessageStatus | str] = Counter()
        for count in self.counts:
            counted[count.status] += count.messages
        return counted


class RecipientRefusal(Answered):
    """Why a recipient of a batch got no message."""

    field: str = ""
    reason: str | None = None
    detail: str = ""


class RecipientResult(Answered):
    """What became of one recipient of a batch; `index` counts from 0, as in the request."""

    index: int
    message_id: str | None = None
    encoding: str | None = None
    segments: int | None = None
    error: RecipientRefusal | None = None


class AcceptedBatch(Batch):
    """A batch that the gateway has taken on, with a result for each recipient, in order.

    `replayed` is true if an earlier request with the same idempotency key had created it.
    """

    results: tuple[RecipientResult, ...]
    replayed: bool = False


class Price(Answered):
    """What a provider says that it bills, exactly as it reported it; the currency is of ISO 4217."""

    amount: str
    currency: str

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"


class Part(Answered):
    """One part of an attempt, as the provider saw it."""

    number: int
    status: str
    provider_message_id: str | None = None
    error_class: str | None = None
    code: str | None = None
    billed_segments: int | None = None
    price: Price | None = None
    submitted_at: AwareDatetime | None = None
    responded_at: AwareDatetime | None = None
    receipt_state: str | None = None
    receipt_code: str | None = None
    receipt_at: AwareDatetime | None = None


class Attempt(Answered):
    """One provider's turn with a message; `tries` counts since a part was accepted last."""

    number: int
    epoch: int
    provider: str
    status: str
    error_class: str | None = None
    code: str | None = None
    tries: int = 1
    started_at: AwareDatetime
    response_by: AwareDatetime | None = None
    settled_at: AwareDatetime | None = None
    receipt_by: AwareDatetime | None = None
    cancelled_at_provider: bool | None = None
    part_method: str | None = None
    config_version: int | None = None
    billed_segments: int | None = None
    price: Price | None = None
    parts: tuple[Part, ...] = ()


class Receipt(Answered):
    """What a provider said has become of a part; `copies` counts how often it said so."""

    provider: str | None = None
    provider_message_id: str | None = None
    state: str
    code: str | None = None
    error_class: str | None = None
    network: str | None = None
    attempt: int | None = None
    part: int | None = None
    copies: int = 1
    received_at: AwareDatetime | None = None
    done_at: AwareDatetime | None = None


class Callback(Answered):
    """One callback to the customer's server, and its outcome."""

    id: str
    message_id: str
    url: str
    status: str
    provider_code: str | None = None
    occurred_at: AwareDatetime
    state: Annotated[CallbackState | str, _Known]
    tries: int = 0
    next_at: AwareDatetime | None = None
    responded_at: AwareDatetime | None = None
    last_status: int | None = None
    last_error: str | None = None


class Step(Answered):
    """Something that happened to a message, as a sentence (`text`) and in fields.

    Equal steps in a row are one: `count` of them, from `at` to `until`.
    """

    at: AwareDatetime
    until: AwareDatetime | None = None
    kind: str
    count: int = 1
    provider: str | None = None
    attempt: int | None = None
    code: str | None = None
    code_name: str | None = None
    meaning: str | None = None
    text: str


class Explanation(Answered):
    """Everything that is known of a message; `summary` and `steps` say it in sentences.

    The most important sentence of `summary` comes first.
    """

    summary: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    message: Message
    attempts: tuple[Attempt, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    events: tuple[Event, ...] = ()
    callbacks: tuple[Callback, ...] = ()


class Skipped(Answered):
    """A message that was not replayed, and why."""

    message_id: str
    detail: str = ""


class Remaining(Answered):
    """Dead letters that a provider had or was offered; None: no route takes them."""

    provider: str | None = None
    messages: int = 0


class Replayed(Answered):
    """Which dead letters are sent again; where none is, `remaining` counts what there is."""

    replayed: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    remaining: tuple[Remaining, ...] = ()


class ReplayedCallbacks(Answered):
    """How many callbacks are replayed."""

    replayed: int


class ProviderFigures(Answered):
    """What a provider did in the last 60 minutes; times in milliseconds."""

    attempts: int = 0
    accepted: int = 0
    refused: int = 0
    unreachable: int = 0
    unknown: int = 0
    delivered: int = 0
    undelivered: int = 0
    accept_p50_ms: float | None = None


class SessionBindError(Answered):
    """Why a session of a provider that should be bound is not, or was not before.

    `code` is the SMSC's command status or the type of an error; `detail` says what to do. `at` is when
    it was found last; `is_current` is False once the session is bound again, at `ended_at`.
    """

    reason: str
    at: AwareDatetime | None = None
    is_current: bool = True
    ended_at: AwareDatetime | None = None
    code: str | None = None
    session: str | None = None
    detail: str = ""


class RateShare(Answered):
    """What one worker of a provider may submit and wanted to submit, in messages a second.

    `roles` are the worker's own; `share` is None where there is no limit; `critical_demand` is the part
    of `demand` that is alerts.
    """

    roles: tuple[str, ...] = ()
    share: float | None = None
    demand: float = 0.0
    critical_demand: float = 0.0


class WorkersBindError(SessionBindError):
    """A bind error, and how many living workers report it."""

    workers: int = 1


class Provider(Answered):
    """A provider and its health.

    `state` is `up` while messages of every kind can be sent over it. `up_for` names the roles of
    workers for which that is so: `providers` sends single messages, `chunks` those of batches.
    `rate` is in messages a second over all processes; `rate_ratio` is how much of it is used just now:
    1, or less while the provider throttles. `rate_shares` has each worker's share of it, divided by
    demand. `receipts` is true if the provider sends receipts.
    `unparsed_receipts` counts those that are stored and could not be parsed, at most 10,000;
    `unmatched_receipts` those of the last three days that match no message.
    `detail` says why it is not up, and what to do; `bind_errors` has what each living worker reports.
    """

    name: str
    type: str
    environment: Annotated[Environment | str, _Known]
    state: str
    workers: int = 0
    binds_up: int = 0
    binds: int | None = None
    last_heartbeat_at: AwareDatetime | None = None
    receipts: bool | None = None
    unmatched_receipts: int | None = None
    rate: float | None = None
    unparsed_receipts: int = 0
    rate_ratio: float = 1.0
    rate_shares: tuple[RateShare, ...] = ()
    up_for: tuple[str, ...] = ()
    detail: str | None = None
    last_bind_error: SessionBindError | None = None
    bind_errors: tuple[WorkersBindError, ...] = ()
    recent: ProviderFigures = ProviderFigures()


class ProviderAddresses(Answered):
    """Where a provider reports to the gateway; each address contains a secret.

    `receipts` is the fixed address for receipts; where it is None, `detail` says why.
    """

    receipts: str | None = Field(None, repr=False)
    detail: str | None = None


class ReparsedReceipts(Answered):
    """What came of parsing some of a provider's receipts again; `next_after` is None at the end."""

    parsed: int
    unparsed: int
    next_after: int | None = None


class Key(Answered):
    """A key, without its secret; it ends with its parent, the key that created it."""

    id: str
    account_id: str | None = None
    parent_id: str | None = None
    name: str
    environment: Annotated[Environment | str, _Known]
    scopes: tuple[str, ...] = ()
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None


class CreatedKey(Key):
    """A new key; `key` is the secret itself, which is shown this once."""

    key: str = Field(repr=False)


class Account(Answered):
    """An account; while it has a `suspended_at`, its keys send nothing."""

    id: str
    name: str
    created_at: AwareDatetime
    suspended_at: AwareDatetime | None = None


class OperatorKey(Answered):
    """An operator's key, without its secret; it ends with its parent."""

    id: str
    parent_id: str | None = None
    name: str
    scopes: tuple[str, ...] = ()
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None


class CreatedOperatorKey(OperatorKey):
    """A new key; `key` is the secret itself, which is shown this once."""

    key: str = Field(repr=False)


class Mistake(Answered):
    """Something wrong in a configuration: where (counted from 1), and what to do."""

    line: int | None = None
    column: int | None = None
    path: str | None = None
    detail: str


class ConfigurationCheck(Answered):
    """Whether a configuration could be applied; `more_mistakes` counts those beside `mistakes`.

    `warnings` are secrets that the API process cannot read; the workers may be able to.
    """

    ok: bool
    mistakes: tuple[Mistake, ...] = ()
    more_mistakes: int = 0
    warnings: tuple[Mistake, ...] = ()


class AppliedConfiguration(Answered):
    """The version in force; `changed` is False if it already was. `warnings` as in the check."""

    version: int
    changed: bool
    warnings: tuple[Mistake, ...] = ()


class Configuration(Answered):
    """The configuration in force, in TOML; secrets are references."""

    version: int
    applied_at: AwareDatetime | None = None
    applied_by: str | None = None
    content: str


class CallbackSecret(Answered):
    """The secret that this account's callbacks are signed with (Standard Webhooks, `whsec_…`)."""

    secret: str = Field(repr=False)


class Readiness(Answered):
    """Whether a message would be accepted now, and if not, what is to be done (`detail`).

    Temporal being down is reported and refuses nothing.
    """

    ready: bool
    status: str
    database: str | None = None
    configuration: str | None = None
    temporal: str | None = None
    detail: str | None = None


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class CallbackNotice(Answered):
    """What a callback says; `callback_id` is the same whenever it is sent again.

    Callbacks spell statuses in capitals; `status` is in the small letters of the API.
    """

    callback_id: str
    message_id: str
    to: str | None = None
    status: Annotated[MessageStatus | str, _Known, BeforeValidator(_lower)]
    provider_code: str | None = None
    timestamp: AwareDatetime

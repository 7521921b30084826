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
    HELD = "held"
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


class Mode(StrEnum):
    """The purpose of a message; it decides priority, validity and what happens in doubt."""

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
    """What every model of an answer is."""

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

    `replayed` tells that an earlier request with the same idempotency key had already done it.
    """

    message_id: str
    status: Status
    encoding: str
    segments: int
    replacements: tuple[Replacement, ...] = ()
    warnings: tuple[str, ...] = ()
    replayed: bool = False


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

    `replayed` tells that an earlier request with the same idempotency key had already done it.
    """

    results: tuple[RecipientResult, ...]
    replayed: bool = False


class Part(Answered):
    """One part of an attempt, as the provider saw it."""

    number: int
    status: str
    provider_message_id: str | None = None
    error_class: str | None = None
    code: str | None = None
    submitted_at: AwareDatetime | None = None
    answered_at: AwareDatetime | None = None
    receipt_state: str | None = None
    receipt_code: str | None = None
    receipt_at: AwareDatetime | None = None


class Attempt(Answered):
    """One provider's turn with a message; `tries` counts how often its parts were submitted."""

    number: int
    epoch: int
    provider: str
    status: str
    error_class: str | None = None
    code: str | None = None
    tries: int = 1
    started_at: AwareDatetime
    answer_by: AwareDatetime | None = None
    settled_at: AwareDatetime | None = None
    receipt_by: AwareDatetime | None = None
    recalled: bool | None = None
    part_method: str | None = None
    config_version: int | None = None
    parts: tuple[Part, ...] = ()


class Receipt(Answered):
    """What a provider said has become of a part; `copies` counts how often it said so."""

    provider: str | None = None
    provider_message_id: str | None = None
    state: str
    code: str | None = None
    network: str | None = None
    attempt: int | None = None
    part: int | None = None
    copies: int = 1
    received_at: AwareDatetime | None = None
    done_at: AwareDatetime | None = None


class Callback(Answered):
    """One thing that the customer's server is told, and how that went."""

    id: str
    message_id: str
    url: str
    status: str
    provider_code: str | None = None
    occurred_at: AwareDatetime
    state: Annotated[CallbackState | str, _Known]
    tries: int = 0
    next_at: AwareDatetime | None = None
    answered_at: AwareDatetime | None = None
    last_status: int | None = None
    last_error: str | None = None


class Explanation(Answered):
    """Everything that is known of a message; `summary` says it in sentences."""

    message: Message
    attempts: tuple[Attempt, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    events: tuple[Event, ...] = ()
    callbacks: tuple[Callback, ...] = ()
    summary: tuple[str, ...] = ()


class Skipped(Answered):
    """A message that was not replayed, and why."""

    message_id: str
    detail: str = ""


class Replayed(Answered):
    """Which dead letters go round again."""

    replayed: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


class ReplayedCallbacks(Answered):
    """How many callbacks are told again."""

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


class Provider(Answered):
    """A provider and its health; it is `up` while a living worker has a bind to it.

    `rate` is in messages a second over all processes; `receipts` tells whether it gives any.
    """

    name: str
    type: str
    environment: Annotated[Environment | str, _Known]
    state: str
    workers: int = 0
    binds_up: int = 0
    binds: int | None = None
    last_beat_at: AwareDatetime | None = None
    receipts: bool | None = None
    rate: float | None = None
    recent: ProviderFigures = ProviderFigures()


class Key(Answered):
    """A key, without its secret."""

    id: str
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


class Mistake(Answered):
    """Something wrong in a configuration: where (counted from 1), and what to do."""

    line: int | None = None
    column: int | None = None
    path: str | None = None
    detail: str


class ConfigurationCheck(Answered):
    """Whether a configuration could be applied."""

    ok: bool
    mistakes: tuple[Mistake, ...] = ()


class AppliedConfiguration(Answered):
    """The version in force; `changed` is False if it already was."""

    version: int
    changed: bool


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
    """What a callback says; `callback_id` is the same whenever it is told again.

    Callbacks spell statuses in capitals; `status` is in the small letters of the API.
    """

    callback_id: str
    message_id: str
    to: str | None = None
    status: Annotated[MessageStatus | str, _Known, BeforeValidator(_lower)]
    provider_code: str | None = None
    timestamp: AwareDatetime

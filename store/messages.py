"""Messages: accepted, read, owned, decided upon, listed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Final
from uuid import UUID

from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from domain.configuration import Environment
from domain.configuration.routing_key import RoutingKey, bucket_of
from domain.delivery import AttemptFacts, MessageFacts
from domain.encoding import Encoding
from domain.modes import MissingReceiptPolicy, Mode, Priority
from domain.states import MessageStatus, Verdict
from domain.values import value
from store.attempts import AttemptRow
from store.database import Connection, PendingResult, sql
from store.partitions import first_id
from store.rows import Query
from store.transitions import OPEN


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is being accepted; times are of the accepting process, in UTC."""

    id: UUID
    account_id: str
    environment: str
    mode: str
    priority: str
    sender: str
    recipient_id: UUID
    country: str
    network: str
    body: str
    encoding: str
    segments: int
    accepted_at: datetime
    scheduled_at: datetime | None
    validity: timedelta
    valid_until: datetime
    owner: str
    check_by: datetime
    config_version: int | None
    callback_url: str | None = None
    callback_lane_id: UUID | None = None
    callback_final_only: bool = False
    traceparent: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    receipt_deadline: timedelta | None = None
    missing_receipt: MissingReceiptPolicy | None = None
    listener: str | None = None
    listener_lane_id: UUID | None = None
    only_provider: str | None = None

    @property
    def routing_key(self) -> RoutingKey:
        """What routes look at in it."""
        return RoutingKey(
            environment=Environment(self.environment),
            country=self.country,
            mode=Mode(self.mode),
            sender=self.sender,
            network=self.network,
            account_id=self.account_id,
            bucket=bucket_of(self.id),
            only_provider=self.only_provider,
        )


@value
class MessageRow:
    """What decisions need of a message."""

    id: UUID
    account_id: str
    environment: Environment
    mode: Mode
    priority: Priority
    status: MessageStatus
    verdict: Verdict | None
    reason: str | None
    sender: str
    country: str
    network: str
    epoch: int
    first_attempt: int
    since: datetime
    valid_until: datetime
    scheduled_at: datetime | None
    cancel_requested_at: datetime | None
    missing_receipt: MissingReceiptPolicy | None


MESSAGE_COLUMNS = """
m.id, m.account_id, m.environment, m.mode, m.priority, m.status, m.verdict, m.reason, m.sender,
m.country, m.network, m.epoch, m.first_attempt, m.since, m.valid_until, m.scheduled_at,
m.cancel_requested_at, m.missing_receipt
"""
"""The columns of a `MessageRow`, of a message `m`."""


@value
class StoredMessage(MessageRow):
    """A message without number and body; the last three columns are those of its bulk, if any."""

    owner: str | None
    waiting_for: str | None
    check_by: datetime | None
    config_version: int | None
    traceparent: str | None
    segments: int
    accepted_at: datetime
    listener_lane_id: UUID | None
    only_provider: str | None
    paused_at: datetime | None
    resumed_at: datetime | None
    canceled_at: datetime | None


@value
class MessageContent:
    """What a provider is handed: sender, recipient, body."""

    id: UUID
    sender: str
    recipient: str | None = field(repr=False)
    body: str | None = field(repr=False)
    encoding: Encoding
    priority: Priority
    mode: Mode
    country: str
    parameters: Mapping[str, str] | None = field(repr=False)
    valid_until: datetime
    receipt_deadline: timedelta | None
    missing_receipt: MissingReceiptPolicy | None
    accepted_at: datetime
    traceparent: str | None


@value
class OverdueMessage:
    """An open message past its `check_by`."""

    id: UUID
    epoch: int
    owner: str | None


@dataclass(frozen=True, slots=True)
class RunnableMessage:
    """A message that was given a new epoch, and what the start of its runner needs."""

    id: UUID
    epoch: int
    mode: Mode
    country: str
    account_id: str
    priority: Priority


@value
class AccountMessage:
    """A message as its account sees it, number and body included.

    `provider` is that of the latest attempt, and `attempts` its number; None where nothing was tried.
    """

    id: UUID
    account_id: str
    environment: Environment
    mode: Mode
    priority: Priority
    status: MessageStatus
    verdict: Verdict | None
    reason: str | None
    sender: str
    recipient: str | None = field(repr=False)
    body: str | None = field(repr=False)
    encoding: Encoding
    segments: int
    country: str
    network: str
    metadata: Mapping[str, str]
    parameters: Mapping[str, str] | None = field(repr=False)
    callback_url: str | None
    accepted_at: datetime
    scheduled_at: datetime | None
    valid_until: datetime
    transitioned_at: datetime
    cancel_requested_at: datetime | None
    waiting_for: str | None
    epoch: int
    owner: str | None
    config_version: int | None
    check_by: datetime | None
    bulk_id: UUID | None
    position: int | None
    only_provider: str | None
    provider: str | None
    attempts: int | None


@value
class TestedMessage:
    """Whose a message is that tests a provider."""

    __test__ = False  # no test itself, as pytest would take it from the name

    account_id: str
    environment: Environment


@value
class _Number:
    """The number of a message's recipient."""

    id: UUID
    number: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _StatusCount:
    """How many messages have a status."""

    status: MessageStatus
    messages: int


_IN_ORDER = ", ".join(f"'{each.value}'" for each in sorted(Priority, key=lambda each: each.rank))
BY_PRIORITY = f"array_position(ARRAY[{_IN_ORDER}], priority)"
"""What to order rows by that have a `priority`, so that the most urgent come first."""

_RECIPIENT = Query.of(
    UUID,
    """
WITH known AS (
    SELECT id FROM recipients
    WHERE account_id = :account_id AND hash_version = :hash_version AND number_hash = :number_hash
      AND number IS NOT NULL
), added AS (
    INSERT INTO recipients (id, account_id, hash_version, number_hash, number, country)
    SELECT :id, :account_id, :hash_version, :number_hash, :number, :country
    WHERE NOT EXISTS (SELECT FROM known)
    ON CONFLICT (account_id, hash_version, number_hash) DO UPDATE SET number = excluded.number
    RETURNING id
)
SELECT id FROM known UNION ALL SELECT id FROM added
""",
)

_INSERT = sql("""
INSERT INTO messages (id, account_id, environment, mode, priority, status, verdict, sender,
    recipient_id, country, network, body, encoding, segments, metadata, parameters,
    callback_url, callback_lane_id, callback_final_only, accepted_at, scheduled_at, validity,
    valid_until, since, transitioned_at, owner, check_by, config_version, traceparent,
    receipt_deadline, missing_receipt, listener, listener_lane_id, only_provider)
VALUES (:id, :account_id, :environment, :mode, :priority,
    CASE WHEN CAST(:scheduled_at AS timestamptz) IS NULL THEN 'queued' ELSE 'scheduled' END,
    CASE WHEN CAST(:scheduled_at AS timestamptz) IS NULL THEN NULL ELSE 'scheduled' END,
    :sender, :recipient_id, :country, :network, :body, :encoding, :segments, :metadata,
    :parameters, :callback_url, :callback_lane_id, :callback_final_only, :accepted_at,
    :scheduled_at, :validity,
    :valid_until, :accepted_at, :accepted_at, :owner, :check_by, :config_version, :traceparent,
    :receipt_deadline, :missing_receipt, :listener, :listener_lane_id, :only_provider)
""")

_FACTS = f"""
SELECT {MESSAGE_COLUMNS}, m.owner, m.waiting_for, m.check_by, m.config_version, m.traceparent,
       m.segments, m.accepted_at, m.listener_lane_id, m.only_provider,
       b.paused_at, b.resumed_at, b.canceled_at
FROM messages m LEFT JOIN bulks b ON b.id = m.bulk_id
WHERE m.id = :id
"""
_READ = Query.of(StoredMessage, _FACTS)
_READ_LOCKED = Query.of(StoredMessage, _FACTS + "FOR UPDATE OF m")

# What goes to the provider: the only read that brings number and body together.
_CONTENT = Query.of(
    MessageContent,
    """
SELECT m.id, m.sender, r.number AS recipient, m.body, m.encoding, m.priority, m.mode,
       m.country, m.parameters, m.valid_until, m.receipt_deadline, m.missing_receipt, m.accepted_at,
       m.traceparent
FROM messages m JOIN recipients r ON r.id = m.recipient_id
WHERE m.id = :id
""",
)

# The lateral look-up keeps the planner from reading all recipients.
_NUMBERS = Query.of(
    _Number,
    """
SELECT m.id, r.number FROM messages m
CROSS JOIN LATERAL (SELECT number FROM recipients WHERE id = m.recipient_id LIMIT 1) r
WHERE m.id = ANY(:ids) AND r.number IS NOT NULL
""",
)

# The status is not set here: `refresh_status` changes it and emits the transition. The verdict `sent`
# keeps the status, so nothing is left to check.
_VERDICT = sql("""
UPDATE messages
SET verdict = :verdict, reason = :reason, offered = :offered,
    check_by = CASE WHEN CAST(:verdict AS text) = 'sent' THEN NULL ELSE check_by END
WHERE id = :id AND epoch = :epoch
""")

_WAITS = sql("""
UPDATE messages SET waiting_for = :waiting_for, check_by = :check_by
WHERE id = :id AND epoch = :epoch
  AND (verdict IS NULL OR verdict = 'scheduled') AND status <> 'delivered'
""")

_REQUEST_CANCEL = Query.of(
    bool,
    """
UPDATE messages SET cancel_requested_at = coalesce(cancel_requested_at, :at)
WHERE id = :id AND account_id = :account_id AND environment = :environment
  AND (verdict IS NULL OR verdict = 'scheduled') AND status <> 'delivered'
RETURNING cancel_requested_at = :at AS is_first
""",
)

# One that has ended meanwhile needs no runner any more, and no check.
_TAKE_OVER = Query.of(
    int,
    """
UPDATE messages SET epoch = epoch + 1, owner = :owner, check_by = :check_by
WHERE id = :id AND epoch = :epoch AND check_by IS NOT NULL
RETURNING epoch
""",
)

_GIVE_RUNNERS = sql("""
UPDATE messages m SET owner = n.owner
FROM unnest(CAST(:ids AS uuid[]), CAST(:owners AS text[])) AS n (id, owner)
WHERE m.id = n.id
""")

_OVERDUE = Query.of(
    OverdueMessage,
    f"""
SELECT id, epoch, owner FROM messages WHERE check_by < :at
ORDER BY {BY_PRIORITY}, check_by LIMIT :limit
""",
)
_PUSH = sql(
    "UPDATE messages SET check_by = :check_by WHERE id = ANY(:ids) AND check_by IS NOT NULL"
)
_DOUBT = Query.of(
    int,
    """
WITH doubted AS (UPDATE messages SET check_by = :at WHERE check_by > :at RETURNING 1)
SELECT count(*) AS messages FROM doubted
""",
)

_SHOWN = """
SELECT m.id, m.account_id, m.environment, m.mode, m.priority, m.status, m.verdict, m.reason,
       m.sender, r.number AS recipient, m.body, m.encoding, m.segments, m.country, m.network,
       m.metadata, m.parameters, m.callback_url, m.accepted_at, m.scheduled_at, m.valid_until,
       m.transitioned_at,
       m.cancel_requested_at, m.waiting_for, m.epoch, m.owner, m.config_version, m.check_by,
       m.bulk_id, m.position, m.only_provider, latest.provider, latest.number AS attempts
"""
_WITH_ITS_RECIPIENT = """
JOIN recipients r ON r.id = m.recipient_id
LEFT JOIN LATERAL (SELECT provider, number FROM attempts a WHERE a.message_id = m.id
                   ORDER BY number DESC LIMIT 1) latest ON true
"""
_OF_ACCOUNT = "WHERE m.account_id = :account_id AND m.environment = :environment\n"
VIEW = f"{_SHOWN}FROM messages m{_WITH_ITS_RECIPIENT}{_OF_ACCOUNT}"
"""A message as its account sees it; every read of an account's messages begins with this."""

_ONE = Query.of(AccountMessage, VIEW + "AND m.id = :id")
_TEST = Query.of(
    TestedMessage,
    """
SELECT account_id, environment FROM messages WHERE id = :id AND only_provider = :provider
""",
)

# What a list may be narrowed by. The statement has only what is given, so that the planner sees what
# an index can serve. A provider is looked for row by row, as a subquery that cannot become a join:
# whoever begins with a provider's attempts reads those of all accounts.
_NARROWED: Final = {
    "status": "AND m.status = :status",
    "mode": "AND m.mode = :mode",
    "sender": "AND m.sender = :sender",
    "provider": "AND (SELECT true FROM attempts a WHERE a.message_id = m.id"
    " AND a.provider = :provider LIMIT 1)",
    "since": "AND m.accepted_at >= :since AND m.id >= :first_id",
    "until": "AND m.accepted_at < :until AND m.id < :end_id",
    "before": "AND m.id < :before",
}
_BY_RECIPIENT: Final = """
SELECT found.* FROM (
    SELECT id FROM recipients
    WHERE account_id = :account_id AND number_hash = CAST(:number_hash AS bytea)) known
CROSS JOIN LATERAL (
    SELECT m.* FROM messages m WHERE m.recipient_id = known.id
    {narrowed}
    ORDER BY m.id DESC LIMIT :limit) found
ORDER BY found.id DESC LIMIT :limit"""
_BY_ACCOUNT: Final = """
SELECT m.* FROM messages m {of_account}
{narrowed}
ORDER BY m.id DESC LIMIT :limit"""
_ID_BESIDE_TIME: Final = timedelta(minutes=1)
"""How far the time in an id is from that of its message's acceptance, at most: the same process takes
both, and a batch, or a database that is slow, comes between them."""


@cache
def _list(narrowed_by: frozenset[str]) -> Query[AccountMessage]:
    """A page of an account's messages, narrowed by these fields of a MessageFilter."""
    narrowed = [clause for name, clause in _NARROWED.items() if name in narrowed_by]
    if "number_hash" in narrowed_by:
        narrowed.append("AND m.account_id = :account_id AND m.environment = :environment")
        page = _BY_RECIPIENT.format(narrowed="\n".join(narrowed))
    else:
        page = _BY_ACCOUNT.format(of_account=_OF_ACCOUNT, narrowed="\n".join(narrowed))
    return Query.of(
        AccountMessage, f"{_SHOWN}FROM ({page}) m{_WITH_ITS_RECIPIENT}ORDER BY m.id DESC"
    )


# Those of a bulk by their bulk, each of which is a range of ids.
_OPEN_COUNTS = Query.of(
    _StatusCount,
    f"""
SELECT status, sum(messages)::bigint AS messages
FROM (
    SELECT status, count(*) AS messages FROM messages WHERE check_by IS NOT NULL GROUP BY status
    UNION ALL
    SELECT of_bulk.status, of_bulk.messages
    FROM bulks b CROSS JOIN LATERAL (
        SELECT m.status, count(*) AS messages FROM messages m
        WHERE m.id BETWEEN b.first_id AND b.last_id AND m.bulk_id = b.id AND m.check_by IS NULL
          AND {OPEN}
        GROUP BY m.status
    ) of_bulk
    WHERE b.check_by IS NOT NULL
) counted
GROUP BY status
""",
)


async def recipient(
    connection: Connection,
    account_id: str,
    number: str,
    number_hash: bytes,
    hash_version: int,
    country: str,
) -> UUID:
    """The id of a recipient, who is added if new."""
    found = await _RECIPIENT.row(
        connection,
        {
            "id": uuid7(),
            "account_id": account_id,
            "hash_version": hash_version,
            "number_hash": number_hash,
            "number": number,
            "country": country,
        },
    )
    if found is None:
        message = "a recipient was neither found nor added"
        raise LookupError(message)
    return found


def insert(connection: Connection, message: NewMessage) -> None:
    """Write an accepted message."""
    values = {name: getattr(message, name) for name in NewMessage.__slots__}
    values["metadata"] = Jsonb(dict(message.metadata))
    values["parameters"] = Jsonb(dict(message.parameters)) if message.parameters else None
    connection.send(_INSERT, values)


def stored(
    connection: Connection, message_id: UUID, *, locked: bool = False
) -> PendingResult[StoredMessage | None]:
    """A message's row without number and body, locked until the end of the transaction if asked."""
    return (_READ_LOCKED if locked else _READ).row(connection, {"id": message_id})


def facts(message: MessageRow, attempts: Sequence[AttemptRow]) -> MessageFacts:
    """A message and its attempts, as decisions see them."""
    return MessageFacts(
        first_attempt=message.first_attempt,
        verdict=message.verdict,
        reason=message.reason,
        since=message.since,
        valid_until=message.valid_until,
        scheduled_at=message.scheduled_at,
        cancel_requested=message.cancel_requested_at is not None,
        attempts=tuple(
            AttemptFacts(
                number=attempt.number,
                provider=attempt.provider,
                status=attempt.status,
                started_at=attempt.started_at,
                response_by=attempt.response_by,
                settled_at=attempt.settled_at,
                receipt_by=attempt.receipt_by,
                error_class=attempt.error_class,
                cancelled_at_provider=attempt.cancelled_at_provider,
                retry_after=attempt.retry_after,
                tries=attempt.tries,
                out_of_time=attempt.out_of_time,
            )
            for attempt in attempts
        ),
    )


def content(connection: Connection, message_id: UUID) -> PendingResult[MessageContent | None]:
    """What a provider is handed; None if there is no such message."""
    return _CONTENT.row(connection, {"id": message_id})


async def numbers(connection: Connection, ids: Collection[UUID]) -> Mapping[UUID, str]:
    """The recipients' numbers of messages, as far as they are not erased."""
    found = await _NUMBERS.rows(connection, {"ids": list(ids)})
    return {each.id: each.number for each in found}


def set_verdict(
    connection: Connection,
    message_id: UUID,
    epoch: int,
    verdict: Verdict | None,
    reason: str | None,
    *,
    offered: Sequence[str] = (),
) -> None:
    """Store what was decided about a message; `store.transitions.refresh_status` then moves it.

    `offered` are the providers of its route, for a dead letter to be found by.
    """
    connection.send(
        _VERDICT,
        {
            "id": message_id,
            "epoch": epoch,
            "verdict": verdict,
            "reason": reason,
            "offered": list(offered) if verdict is Verdict.DEAD_LETTER else None,
        },
    )


def waits(
    connection: Connection,
    message_id: UUID,
    epoch: int,
    waiting_for: str | None,
    check_by: datetime,
) -> None:
    """Note what an open message waits for, and when the reconciler should miss its runner."""
    connection.send(
        _WAITS,
        {"id": message_id, "epoch": epoch, "waiting_for": waiting_for, "check_by": check_by},
    )


def request_cancel(
    connection: Connection, account_id: str, environment: str, message_id: UUID, at: datetime
) -> PendingResult[bool | None]:
    """Lock a message and forbid every further submit; whether this is the first such request.

    None if the message is over, or not this account's.
    """
    return _REQUEST_CANCEL.row(
        connection,
        {"id": message_id, "account_id": account_id, "environment": environment, "at": at},
    )


async def take_over(
    connection: Connection, message_id: UUID, epoch: int, owner: str, check_by: datetime
) -> int | None:
    """Become a message's runner; returns the new epoch, or None if it ended or has another one.

    Whoever still runs it with the old epoch can write nothing from now on.
    """
    return await _TAKE_OVER.row(
        connection,
        {"id": message_id, "epoch": epoch, "owner": owner, "check_by": check_by},
    )


def give_runners(connection: Connection, owners: Mapping[UUID, str]) -> None:
    """Say whose workflows run messages from now on, whoever ran them before."""
    connection.send(_GIVE_RUNNERS, {"ids": list(owners), "owners": list(owners.values())})


async def overdue(connection: Connection, at: datetime, limit: int) -> Sequence[OverdueMessage]:
    """Open messages past their `check_by`, by priority.

    Those of a bulk have none: `bulks.check_by` counts for them.
    """
    return await _OVERDUE.rows(connection, {"at": at, "limit": limit})


def reschedule_check(connection: Connection, ids: Sequence[UUID], check_by: datetime) -> None:
    """Look at these messages again later."""
    connection.send(_PUSH, {"ids": list(ids), "check_by": check_by})


async def mark_all_due(connection: Connection, at: datetime) -> int:
    """Let the reconciler look at every open message from `at` on; how many that brings forward."""
    return await _DOUBT.row(connection, {"at": at}) or 0


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Which messages to list; None matches all. `before` is the id below which to continue."""

    status: str | None = None
    mode: str | None = None
    sender: str | None = None
    number_hash: bytes | None = None
    provider: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = 50


async def one(
    connection: Connection, account_id: str, environment: str, message_id: UUID
) -> AccountMessage | None:
    """A message as its account sees it."""
    return await _ONE.row(
        connection,
        {"account_id": account_id, "environment": environment, "id": message_id},
    )


async def test_of(connection: Connection, provider: str, message_id: UUID) -> TestedMessage | None:
    """Whose a message is; None if it is no test of this provider."""
    return await _TEST.row(connection, {"id": message_id, "provider": provider})


async def listed(
    connection: Connection, account_id: str, environment: str, wanted: MessageFilter
) -> Sequence[AccountMessage]:
    """An account's messages, newest first; how many are looked at depends on the filter."""
    given: dict[str, object] = {
        name: narrowed
        for name in MessageFilter.__slots__
        if (narrowed := getattr(wanted, name)) is not None
    }
    query = _list(frozenset(given) - {"limit"})
    if wanted.since is not None:
        given["first_id"] = first_id(wanted.since - _ID_BESIDE_TIME)
    if wanted.until is not None:
        given["end_id"] = first_id(wanted.until + _ID_BESIDE_TIME)
    return await query.rows(
        connection, {"account_id": account_id, "environment": environment, **given}
    )


async def open_counts(connection: Connection) -> dict[MessageStatus, int]:
    """How many messages are open, by status."""
    return {each.status: each.messages for each in await _OPEN_COUNTS.rows(connection)}

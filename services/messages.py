"""Messages as their account sees them: one, many, what happened, why, and how to stop one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.delivery import Reason
from domain.ids import IdPrefix, parse_id
from domain.numbers import parse_number
from domain.states import Verdict
from services.announcements import Announcements
from services.asked import Caller
from services.meeting import GRACE
from services.recipients import RecipientHash
from store import attempts, bulks, events, messages, receipts
from store import callbacks as callback_store
from store.database import Connection, Database, Row
from store.messages import MessageFilter
from store.transitions import FINAL, Transition, settle
from workflows.ports.bulk import is_bulk
from workflows.ports.send import send_workflow_id

_FINAL = frozenset(status.value for status in FINAL)


class UnknownMessage(Exception):
    """The account has no message with this id, in this environment."""


class AlreadyOver(Exception):
    """The message is final: there is nothing left to cancel."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the message is {status} already: there is nothing left to cancel")
        self.status = status


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is known of a message, in rows and in sentences."""

    message: Row
    attempts: Sequence[Row]
    parts: Sequence[Row]
    receipts: Sequence[Row]
    events: Sequence[Row]
    callbacks: Sequence[Row]
    summary: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What to list; `recipient` is a number, which is looked up by its hash."""

    status: str | None = None
    mode: str | None = None
    sender: str | None = None
    recipient: str | None = None
    provider: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = 50


class Messages:
    """Reads, and cancels, within one account and environment."""

    def __init__(
        self, database: Database, announcements: Announcements, recipient_hash: RecipientHash
    ) -> None:
        self._database = database
        self._announcements = announcements
        self._recipient_hash = recipient_hash

    async def one(self, caller: Caller, message_id: str) -> Row:
        """A message.

        Raises:
            UnknownMessage: the caller has none with this id.
        """
        async with self._database.begin() as connection:
            found = await messages.one(
                connection, caller.account_id, caller.environment.value, _uuid(message_id)
            )
        if found is None:
            raise UnknownMessage
        return found

    async def listed(self, caller: Caller, query: ListQuery) -> Sequence[Row]:
        """Messages, newest first, at most `query.limit`.

        Raises:
            InvalidNumber: the recipient asked for is no number.
        """
        number_hash = None
        if query.recipient is not None:
            number_hash = self._recipient_hash.of(parse_number(query.recipient).e164)
        wanted = MessageFilter(
            status=query.status,
            mode=query.mode,
            sender=query.sender,
            number_hash=number_hash,
            provider=query.provider,
            since=query.since,
            until=query.until,
            before=query.before,
            limit=query.limit,
        )
        async with self._database.begin() as connection:
            return await messages.listed(
                connection, caller.account_id, caller.environment.value, wanted
            )

    async def events(self, caller: Caller, message_id: str) -> Sequence[Row]:
        """What happened to a message, in order.

        Raises:
            UnknownMessage: the caller has none with this id.
        """
        message = await self.one(caller, message_id)
        async with self._database.begin() as connection:
            return await events.of_message(connection, message["id"])

    async def explain(self, caller: Caller, message_id: str) -> Explanation:
        """Everything about a message.

        Raises:
            UnknownMessage: the caller has none with this id.
        """
        message = await self.one(caller, message_id)
        uuid = message["id"]
        async with self._database.begin() as connection:
            tried = await attempts.of_message(connection, uuid)
            happened = await events.of_message(connection, uuid)
            came = await receipts.of_message(connection, uuid)
            return Explanation(
                message=message,
                attempts=tried,
                parts=await attempts.parts_of_message(connection, uuid),
                receipts=came,
                events=happened,
                callbacks=await callback_store.of_message(connection, uuid),
                summary=tuple(_summary(message, tried, happened)),
            )

    async def cancel(self, caller: Caller, message_id: str) -> Row:
        """Forbid every further submit, and recall what a provider still holds if it can.

        Written first, signalled afterwards: whoever is about to submit sees it in the claim.

        Raises:
            UnknownMessage: the caller has none with this id.
            AlreadyOver: the message is final.
        """
        uuid = _uuid(message_id)
        now = datetime.now(UTC)
        async with self._database.begin() as connection:
            message = await messages.one(
                connection, caller.account_id, caller.environment.value, uuid
            )
            if message is None:
                raise UnknownMessage
            if not await messages.request_cancel(
                connection, caller.account_id, caller.environment.value, uuid, now
            ):
                raise AlreadyOver(message["status"])
            events.append(connection, uuid, "cancel_requested", actor=caller.key_id, at=now)
            moves = await self._cancel_at_once(connection, message, caller, now)
            stored = await messages.one(
                connection, caller.account_id, caller.environment.value, uuid
            )
        self._announcements.tell(moves)
        if not moves:
            owner = message["owner"] or send_workflow_id(message_id)
            self._announcements.nudge(owner, message["status"])
            if is_bulk(owner):
                async with self._database.begin() as connection:
                    bulks.check_sooner(connection, message["bulk_id"], now + GRACE)
        if stored is None:
            raise UnknownMessage
        return stored

    async def _cancel_at_once(
        self, connection: Connection, message: Row, caller: Caller, now: datetime
    ) -> list[Transition]:
        """The end of a message that no provider has, without waiting for its runner."""
        if message["status"] not in {"queued", "scheduled", "retried", "held"}:
            messages.push_check(connection, [message["id"]], now + GRACE)
            return []
        messages.judge(
            connection, message["id"], message["epoch"], Verdict.CANCELED, Reason.CANCELED
        )
        return await settle(connection, [message["id"]], actor=caller.key_id, at=now)


def _uuid(message_id: str) -> UUID:
    found = parse_id(IdPrefix.MESSAGE, message_id)
    if found is None:
        raise UnknownMessage
    return found


def _summary(message: Row, tried: Sequence[Row], happened: Sequence[Row]) -> list[str]:
    """The story in sentences, for a person at three in the morning."""
    accepted = (
        f"Accepted at {_at(message['accepted_at'])} as {message['mode']}, priority "
        f"{message['priority']}, {message['segments']} segment(s) in {message['encoding']}, "
        f"to {message['country']}, valid until {_at(message['valid_until'])}."
    )
    story = [accepted]
    if message["bulk_id"] is not None:
        story.append(_BATCHED if message["position"] is not None else _GROUPED)
    story += [_about_attempt(attempt) for attempt in tried]
    replays = sum(event["kind"] == "replayed" for event in happened)
    if replays:
        story.append(f"Replayed {replays} time(s) from the dead letters.")
    if any(event["kind"] == "duplicate" for event in happened):
        story.append("Two attempts were delivered: the recipient got it twice.")
    if message["status"] in _FINAL or message["verdict"] == "sent":
        took = message["moved_at"] - message["accepted_at"]
        story.append(
            f"Ended as {message['status']} ({_ENDS.get(message['reason'], message['reason'])}) "
            f"after {_seconds(took)}."
        )
    else:
        waits = message["waiting_for"]
        story.append(f"Now {message['status']}" + (f", waiting for: {waits}." if waits else "."))
    return story


_BATCHED = "It is one of a batch, whose messages share a workflow."
_GROUPED = (
    "It came faster than workflows are started for single messages, and shares one with those that "
    "came at the same moment."
)
_ENDS = {
    "delivered": "all its parts were delivered",
    "no_receipt": "its receipt did not come in time",
    "outcome_unknown": "the provider never said whether it has it",
    "validity_over": "its validity was over",
    "no_provider_up": "no provider of its route was up",
    "no_route": "no route takes it",
    "attempts_exhausted": "every provider was tried as often as allowed",
    "canceled": "it was cancelled",
    "provider_gives_no_receipts": "the provider accepted it and gives no receipts",
}


def _about_attempt(attempt: Row) -> str:
    error = f", {attempt['error_class']}" if attempt["error_class"] else ""
    code = f" ({attempt['code']})" if attempt["code"] and attempt["error_class"] else ""
    took = _seconds(attempt["settled_at"] - attempt["started_at"])
    return (
        f"Attempt {attempt['number']} by {attempt['provider']} at {_at(attempt['started_at'])}: "
        f"{attempt['status']}{error}{code} after {took}."
    )


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.1f} s"

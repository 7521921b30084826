"""Messages as their account sees them: one, many, what happened, why, and how to stop one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from domain import deadlines
from domain.binds import ProviderRole, latest
from domain.delivery import Reason
from domain.forecast import forecast
from domain.ids import IdPrefix, parse_id
from domain.money import Billed, Price, total
from domain.numbers import parse_number
from domain.states import AttemptStatus, MessageStatus, Verdict
from services.bulk.state import in_bulk
from services.configuration import Configurations
from services.explanation import Known, Step, explain
from services.reads import listing
from services.recipients import RecipientHash
from services.routes import Routes
from services.submission import Caller
from services.transitions import TransitionPublisher
from store import attempts, bulks, events, messages, providers, receipt_polls
from store import callbacks as callback_store
from store import routing_key as routing_keys
from store.attempts import StoredAttempt, StoredPart
from store.callbacks import StoredCallback
from store.database import Connection, Database
from store.events import Event, EventsPage, Position
from store.messages import AccountMessage, MessageFilter
from store.providers import WorkerHeartbeat
from store.receipts import reads as receipt_reads
from store.receipts.reads import MessageReceipt
from store.transitions import FINAL, Transition, refresh_status
from workflows.ports.bulk import is_bulk
from workflows.ports.send import send_workflow_id

_NARROWS_EVENTS = "give a later `since`"
_NARROWS = "give `since` and `until`, closer together"
_WAITING = frozenset({MessageStatus.QUEUED, MessageStatus.SCHEDULED, MessageStatus.RETRIED})


class UnknownMessage(Exception):
    """The account has no message with this id, in this environment."""


class AlreadyOver(Exception):
    """The message is final: there is nothing left to cancel."""

    def __init__(self, status: MessageStatus) -> None:
        over = _OVER.get(status, "has already ended")
        super().__init__(f"the message {over}: there is nothing left to cancel")
        self.status = status


_OVER: Final[Mapping[MessageStatus, str]] = {
    MessageStatus.DELIVERED: "has already been delivered",
    MessageStatus.SENT: "has already been sent",
    MessageStatus.FAILED: "has already failed",
    MessageStatus.DEAD_LETTER: "is already a dead letter",
    MessageStatus.EXPIRED: "has already expired",
    MessageStatus.CANCELED: "has already been cancelled",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is known of a message, in rows, in steps and in sentences."""

    message: AccountMessage
    attempts: Sequence[StoredAttempt]
    parts: Sequence[StoredPart]
    receipts: Sequence[MessageReceipt]
    events: Sequence[Event]
    callbacks: Sequence[StoredCallback]
    summary: tuple[str, ...]
    billed: Mapping[int, Billed]
    """By the numbers of attempts."""
    steps: tuple[Step, ...]


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
        self,
        database: Database,
        reads: Database,
        publisher: TransitionPublisher,
        recipient_hash: RecipientHash,
        configurations: Configurations,
        routes: Mapping[ProviderRole, Routes],
    ) -> None:
        self._database = database
        self._reads = reads
        self._publisher = publisher
        self._recipient_hash = recipient_hash
        self._configurations = configurations
        self._routes = routes

    async def one(self, caller: Caller, message_id: str) -> AccountMessage:
        """A message.

        Raises:
            UnknownMessage: the caller has none with this id.
        """
        async with self._reads.begin() as connection:
            found = await messages.one(
                connection, caller.account_id, caller.environment.value, _uuid(message_id)
            )
        if found is None:
            raise UnknownMessage
        return found

    async def listed(self, caller: Caller, query: ListQuery) -> Sequence[AccountMessage]:
        """Messages, newest first, at most `query.limit`.

        Raises:
            InvalidNumber: the recipient asked for is no number.
            QueryTooWide: too many messages would have to be looked at.
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
        async with listing(self._reads, narrows=_NARROWS) as connection:
            return await messages.listed(
                connection, caller.account_id, caller.environment.value, wanted
            )

    async def events(self, caller: Caller, message_id: str) -> Sequence[Event]:
        """What happened to a message, in order.

        Raises:
            UnknownMessage: the caller has none with this id.
        """
        message = await self.one(caller, message_id)
        async with self._reads.begin() as connection:
            return await events.of_message(connection, message.id)

    async def account_events(
        self,
        caller: Caller,
        *,
        status: str | None,
        since: datetime,
        after: Position | None,
        limit: int,
    ) -> EventsPage:
        """What happened to all messages from a time on, in order, behind a position.

        A page can have fewer events than `limit`, although others follow.

        Raises:
            QueryTooWide: the events took too long to read.
        """
        async with listing(self._reads, narrows=_NARROWS_EVENTS) as connection:
            return await events.of_account(
                connection,
                caller.account_id,
                caller.environment.value,
                status=status,
                since=since,
                after=after,
                limit=limit,
            )

    async def explain(self, caller: Caller, message_id: str) -> Explanation:
        """Everything about a message.

        Raises:
            UnknownMessage: the caller has none with this id.
        """
        message = await self.one(caller, message_id)
        uuid = message.id
        async with self._reads.begin() as connection:
            tried = await attempts.of_message(connection, uuid)
            happened = await events.of_message(connection, uuid)
            came = await receipt_reads.of_message(connection, uuid)
            parts = await attempts.parts_of_message(connection, uuid)
            billed = _billed(parts)
            known = Known(
                message=message,
                attempts=tried,
                events=happened,
                billed=billed,
                polls=await receipt_polls.of_message(connection, uuid),
            )
            if self._configurations.loaded:
                known = await self._with_route(connection, known)
            summary, steps = explain(known)
            return Explanation(
                message=message,
                attempts=tried,
                parts=parts,
                receipts=came,
                events=happened,
                callbacks=await callback_store.of_message(connection, uuid),
                summary=summary,
                steps=steps,
                billed=billed,
            )

    async def _with_route(self, connection: Connection, known: Known) -> Known:
        """With the providers that there are now, and, for an open message, with what follows."""
        message, configuration = known.message, self._configurations.current
        declared = [
            name
            for name, provider in configuration.providers.items()
            if provider.environment is message.environment
        ]
        codes = {name: each.codes() for name, each in configuration.providers.items()}
        known = replace(known, declared=sorted(declared), codes=codes)
        stored = await messages.stored(connection, message.id)
        if stored is None:
            return known
        policy = configuration.mode_policy(message.mode).for_message(stored.missing_receipt)
        known = replace(known, policy=policy)
        if message.status in FINAL or message.verdict is Verdict.SENT:
            return known
        shared = message.owner is not None and is_bulk(message.owner)
        role = ProviderRole.CHUNKS if shared else ProviderRole.PROVIDERS
        _, options = await self._routes[role].options(
            connection, configuration, routing_keys.read(message)
        )
        facts = in_bulk(messages.facts(stored, known.attempts), stored)
        return replace(
            known,
            options=options,
            forecast=forecast(facts, options, policy, datetime.now(UTC)),
            errors=await self._errors(connection, role),
        )

    async def _errors(self, connection: Connection, role: ProviderRole) -> dict[str, str]:
        """Why providers cannot send for a role, in brief: without names of files or secrets."""
        living: defaultdict[str, list[WorkerHeartbeat]] = defaultdict(list)
        for heartbeat in await providers.workers(connection):
            if heartbeat.lives:
                living[heartbeat.provider].append(heartbeat)
        return {
            name: _why_down(living.get(name, ()), role)
            for name in self._configurations.current.providers
        }

    async def cancel(self, caller: Caller, message_id: str) -> AccountMessage:
        """Forbid every further submit, and cancel_at_provider what a provider still holds if it can.

        Written first, signalled afterwards: whoever is about to submit sees it in the claim. A
        second request changes nothing, and writes no second event.

        Raises:
            UnknownMessage: the caller has none with this id.
            AlreadyOver: the message is final.
        """
        uuid = _uuid(message_id)
        now = datetime.now(UTC)
        account_id, environment = caller.account_id, caller.environment.value
        async with self._database.begin() as connection:
            # Locks the row: what is read after it is what a claim under way has made of it.
            first = messages.request_cancel(connection, account_id, environment, uuid, now)
            message = await messages.one(connection, account_id, environment, uuid)
            if message is None:
                raise UnknownMessage
            is_first = await first
            if is_first is None:
                raise AlreadyOver(message.status)
            if not is_first:
                return message
            events.append(connection, uuid, "cancel_requested", actor=caller.key_id, at=now)
            transitions = await self._cancel_at_once(connection, message, caller, now)
            stored = await messages.one(connection, account_id, environment, uuid)
        self._publisher.publish(transitions)
        if not transitions:
            owner = message.owner or send_workflow_id(message_id)
            self._publisher.signal_runner(owner, message.status)
            if message.bulk_id is not None and is_bulk(owner):
                async with self._database.begin() as connection:
                    bulks.check_sooner(connection, message.bulk_id, deadlines.reconcile_at(now))
        if stored is None:
            raise UnknownMessage
        return stored

    async def _cancel_at_once(
        self, connection: Connection, message: AccountMessage, caller: Caller, now: datetime
    ) -> list[Transition]:
        """The end of a message that no provider has, without waiting for its runner."""
        waits = message.status in _WAITING
        tried = await attempts.of_message(connection, message.id) if waits else ()
        some_parts = bool(tried) and tried[-1].status is AttemptStatus.PARTIAL
        if not waits or some_parts:
            messages.reschedule_check(connection, [message.id], deadlines.reconcile_at(now))
            return []
        messages.set_verdict(
            connection, message.id, message.epoch, Verdict.CANCELED, Reason.CANCELED
        )
        return await refresh_status(connection, [message.id], actor=caller.key_id, at=now)


def _uuid(message_id: str) -> UUID:
    found = parse_id(IdPrefix.MESSAGE, message_id)
    if found is None:
        raise UnknownMessage
    return found


def billed_of(part: StoredPart) -> Billed:
    """What the provider says that it bills for a part."""
    if part.price is None or part.price_currency is None:
        return Billed(part.billed_segments)
    return Billed(part.billed_segments, Price(part.price, part.price_currency))


def _billed(parts: Sequence[StoredPart]) -> dict[int, Billed]:
    """What is billed for each attempt, by its number."""
    numbers = {part.attempt for part in parts}
    return {
        number: total([billed_of(part) for part in parts if part.attempt == number])
        for number in numbers
    }


def _why_down(living: Sequence[WorkerHeartbeat], role: ProviderRole) -> str:
    if not living:
        return "no worker process serves it"
    error = latest(each.last_bind_error for each in living if each.last_bind_error is not None)
    if error is not None and error.is_current:
        return error.brief
    if any(each.binds_up for each in living):
        return f"no worker polls its task queues for the role {role}"
    return "no session is bound yet"

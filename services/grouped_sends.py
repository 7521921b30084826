"""Single messages that are accepted together by group commit, and share a runner.

Each is validated by itself: one that is refused, or has a key that is in use, hurts nobody else.
Messages of several commits and of one priority share a bulk, whose runner starts when its last commit
is done.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from domain import deadlines
from domain.callbacks.urls import origin_of
from domain.ids import IdPrefix, public_id
from domain.modes import Mode, Priority
from services.billing import Billing
from services.configuration import Configurations
from services.group_commit import GroupCommit
from services.recipients import RecipientHash
from services.submission import (
    KEY_LIFE,
    Accepted,
    Caller,
    KeyInFlight,
    MessageOptions,
    Submission,
    earlier_responses,
    kind_in_bulk,
)
from services.workflow_client import WorkflowClient
from services.workflow_starts import WorkflowStartBudget, schedule_reconcile_now
from store import bulk_messages, bulks, idempotency
from store import callbacks as callback_store
from store.bulk_messages import NewKind, NewMessages
from store.bulks import IdRange
from store.database import DATABASE_ERRORS, Connection, Database
from store.idempotency import Key
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.ports.bulk import bulk_workflow_id

_log = get_logger(__name__)

_MOST_IN_A_COMMIT: Final = 200
_GATHER_SECONDS: Final = 0.1
"""How long commits are gathered for one runner: a workflow costs as much as dozens of messages."""


@dataclass(slots=True)
class _Open:
    """A bulk that takes messages of further commits, until its runner starts.

    All have one priority: an alert neither waits behind others of its bulk nor hurries them.
    """

    bulk_id: UUID
    priority: Priority
    id_range: IdRange | None = None
    messages: int = 0
    modes: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Written:
    """What one commit has added to a bulk."""

    bulk: _Open
    id_range: IdRange
    messages: int
    kinds: Sequence[tuple[NewKind, NewMessages]]


class GroupedSends:
    """Accepts messages in groups, and starts a runner for each tenth of a second of them.

    Less often while Temporal takes longer than that to start one.
    """

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        workflow_client: WorkflowClient,
        budget: WorkflowStartBudget,
        recipient_hash: RecipientHash,
        billing: Billing,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._workflow_client = workflow_client
        self._budget = budget
        self._recipient_hash = recipient_hash
        self._billing = billing
        self._commits = GroupCommit(self._commit, most=_MOST_IN_A_COMMIT)
        self._turn = asyncio.Lock()
        self._open: dict[Priority, _Open] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._start_took = 0.0

    async def submit(self, submission: Submission) -> Accepted:
        """Accept a message together with others; returns after the commit.

        Raises:
            Refused, KeyInFlight, KeyReused: about this message; nothing of it was stored.
        """
        return await self._commits.submit(submission)

    async def drained(self) -> None:
        """Wait until everything is committed, and every runner was started."""
        await self._commits.drained()
        while self._starting:
            await asyncio.wait(self._starting)

    async def _commit(self, group: Sequence[Submission]) -> Sequence[Accepted | Exception]:
        """Write all of a group that can be sent, in one transaction, and see to its runners."""
        now = datetime.now(UTC)
        async with self._turn:
            async with self._database.begin() as connection:
                responses = await self._known_responses(connection, group, now)
                written = await self._write(connection, group, responses, now)
            for each in written:
                self._add(each, now)
        _count(written)
        return [responses[place] for place in range(len(group))]

    def _add(self, written: _Written, now: datetime) -> None:
        """Note what was committed to a bulk, and have its runner started if it is a new one."""
        bulk = written.bulk
        bulk.id_range = written.id_range
        bulk.messages += written.messages
        bulk.modes.update(kind.mode for kind, _ in written.kinds)
        bulk.accounts.update(kind.account_id for kind, _ in written.kinds)
        if bulk.priority not in self._open:
            self._open[bulk.priority] = bulk
            task = asyncio.create_task(self._start(bulk, now))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _known_responses(
        self, connection: Connection, group: Sequence[Submission], now: datetime
    ) -> dict[int, Accepted | Exception]:
        """The answers to those whose key was used before, or is in use, by their place."""
        responses: dict[int, Accepted | Exception] = {}
        keyed: dict[Key, int] = {}
        for place, submission in enumerate(group):
            if submission.key is not None and keyed.setdefault(submission.key, place) != place:
                responses[place] = KeyInFlight()
        if keyed:
            digests = {key: group[place].digest for key, place in keyed.items()}
            for key, response in (await earlier_responses(connection, digests, now)).items():
                again = response if isinstance(response, Exception) else Accepted.again(response)
                responses[keyed[key]] = again
        return responses

    async def _write(
        self,
        connection: Connection,
        group: Sequence[Submission],
        responses: dict[int, Accepted | Exception],
        now: datetime,
    ) -> list[_Written]:
        """Write what can be sent, and add a response for each message to `responses`."""
        kept: dict[Key, tuple[bytes, Mapping[str, Any]]] = {}
        columns: dict[Priority, dict[tuple[Caller, MessageOptions], NewMessages]] = {}
        for place, submission in enumerate(group):
            if place in responses:
                continue
            message_id = uuid7()
            try:
                options, recipient = submission.checked()
                await self._billing.reserve(
                    connection, submission.caller.account_id, message_id, recipient.text.segments
                )
            except Exception as refused:  # noqa: BLE001 - it is this one's answer
                responses[place] = refused
                continue
            responses[place] = response = submission.accepted_as(message_id, recipient)
            new = columns.setdefault(options.priority, {})
            new.setdefault((submission.caller, options), NewMessages()).add(
                message_id,
                number=recipient.number,
                number_hash=self._recipient_hash.of(recipient.number.e164),
                text=recipient.text,
                metadata=submission.command.metadata,
                parameters=submission.command.parameters,
                traceparent=submission.traceparent,
            )
            if submission.key is not None:
                kept[submission.key] = (submission.digest, response.to_json())
        if not columns:
            return []
        lanes = await self._lanes(connection, [kind for new in columns.values() for kind in new])
        written = [
            self._write_bulk(connection, priority, new, lanes, now)
            for priority, new in columns.items()
        ]
        kinds = [kind for each in written for kind in each.kinds]
        await bulk_messages.insert(connection, kinds, hash_version=self._recipient_hash.version)
        idempotency.keep(connection, kept, at=now, expires_at=now + KEY_LIFE)
        return written

    def _write_bulk(
        self,
        connection: Connection,
        priority: Priority,
        new: Mapping[tuple[Caller, MessageOptions], NewMessages],
        lanes: Mapping[tuple[str, str], UUID],
        now: datetime,
    ) -> _Written:
        """Write the bulk of messages of one priority, or add them to the one that is open."""
        bulk = self._open.get(priority) or _Open(uuid7(), priority)
        ids = [message_id for columns in new.values() for message_id in columns.ids]
        owner = bulk_workflow_id(_public(bulk.bulk_id))
        first = min(ids) if bulk.id_range is None else bulk.id_range.first_id
        id_range = IdRange(bulk.bulk_id, first, max(ids), owner)
        if bulk.id_range is None:
            bulks.insert(
                connection,
                id_range,
                len(ids),
                now,
                priority=priority,
                check_by=deadlines.reconcile_start_at(now),
            )
        else:
            bulks.extend(connection, id_range, len(ids), check_by=deadlines.reconcile_start_at(now))
        kinds = [
            (self._kind(id_range, caller, options, lanes, now), columns)
            for (caller, options), columns in new.items()
        ]
        return _Written(bulk, id_range, len(ids), kinds)

    async def _lanes(
        self, connection: Connection, kinds: Iterable[tuple[Caller, MessageOptions]]
    ) -> dict[tuple[str, str], UUID]:
        """The lanes of callbacks, by account and origin; in one order, since some may be new."""
        wanted = {
            (caller.account_id, origin_of(options.callback_url))
            for caller, options in kinds
            if options.callback_url is not None
        }
        return {lane: await callback_store.lane(connection, *lane) for lane in sorted(wanted)}

    def _kind(
        self,
        id_range: IdRange,
        caller: Caller,
        options: MessageOptions,
        lanes: Mapping[tuple[str, str], UUID],
        now: datetime,
    ) -> NewKind:
        url = options.callback_url
        return kind_in_bulk(
            id_range,
            caller,
            options,
            lane_id=lanes[caller.account_id, origin_of(url)] if url else None,
            config_version=self._configurations.version,
            at=now,
        )

    async def _start(self, bulk: _Open, now: datetime) -> None:
        """Start the runner of a bulk when it has gathered for a while and its last commit is done."""
        await asyncio.sleep(max(_GATHER_SECONDS, self._start_took))
        async with self._turn:
            del self._open[bulk.priority]
        began = time.monotonic()
        started = await self._workflow_client.start_bulk(
            _public(bulk.bulk_id),
            priority=bulk.priority,
            mode=_only(bulk.modes),
            account=_only(bulk.accounts),
        )
        self._start_took = time.monotonic() - began
        if not started:
            await schedule_reconcile_now(self._database, now, bulk=bulk.bulk_id)
        try:
            await self._budget.spend(bulk.messages)
        except DATABASE_ERRORS as error:
            _log.warning("budget_not_spent", error_type=type(error).__name__)


def _count(written: Sequence[_Written]) -> None:
    if not written:
        return
    for kind, new in (kind for each in written for kind in each.kinds):
        for country, messages in Counter(new.countries).items():
            metrics.message_accepted(
                mode=Mode(kind.mode),
                environment=kind.environment,
                country=country,
                runner="group",
                messages=messages,
            )
    metrics.group_committed(sum(each.messages for each in written))
    for each in written:
        bulk_id = _public(each.bulk.bulk_id)
        _log.info("group_accepted", bulk_id=bulk_id, count=each.messages)


def _only(values: set[str]) -> str | None:
    """The value, if there is but one."""
    return next(iter(values)) if len(values) == 1 else None


def _public(bulk_id: UUID) -> str:
    return public_id(IdPrefix.BATCH, bulk_id)

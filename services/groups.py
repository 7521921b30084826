"""Group commit: single messages that are accepted together, and share a runner.

While one commit is on its way to the disk, the messages that arrive gather for the next one. Each
is looked at for itself: what is refused, or has a key that is in use, hurts nobody else. Messages of
several commits share one bulk, whose runner starts when its last commit is done.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from domain.callbacks import origin_of
from domain.ids import IdPrefix, public_id
from domain.modes import Mode
from services.asked import (
    KEY_LIFE,
    Accepted,
    Asked,
    Caller,
    KeyInFlight,
    Shared,
    answered_before,
)
from services.configuration import Configurations
from services.money import Purse
from services.orchestration import Orchestration
from services.recipients import RecipientHash
from services.starts import START_GRACE, StartBudget, leave_to_the_reconciler
from store import bulk_messages, bulks, idempotency
from store import callbacks as callback_store
from store.bulk_messages import NewKind, NewMessages
from store.bulks import Extent
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
class _Waiting:
    """A message in a group; `outcome` is what its caller is told after the commit."""

    asked: Asked
    told: asyncio.Future[Accepted]
    outcome: Accepted | Exception | None = None

    def tell(self) -> None:
        if self.told.done():
            return  # nobody waits any more
        if isinstance(self.outcome, Accepted):
            self.told.set_result(self.outcome)
        elif self.outcome is not None:
            self.told.set_exception(self.outcome)


@dataclass(slots=True)
class _Open:
    """A bulk that takes messages of further commits, until its runner starts."""

    bulk_id: UUID
    extent: Extent | None = None
    messages: int = 0
    modes: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)


class Groups:
    """Accepts messages in groups, and starts a runner for each tenth of a second of them.

    Less often while Temporal takes longer than that to start one.
    """

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        orchestration: Orchestration,
        budget: StartBudget,
        recipient_hash: RecipientHash,
        purse: Purse,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._orchestration = orchestration
        self._budget = budget
        self._recipient_hash = recipient_hash
        self._purse = purse
        self._waiting: list[_Waiting] = []
        self._committer: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._open: _Open | None = None
        self._starting: set[asyncio.Task[None]] = set()
        self._start_took = 0.0

    async def join(self, asked: Asked) -> Accepted:
        """Accept a message together with others; returns after the commit.

        Raises:
            Refused, KeyInFlight, KeyReused: about this message; nothing of it was stored.
        """
        answer: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(asked, answer))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all())
        return await answer

    async def drained(self) -> None:
        """Wait until everything is committed, and every runner was started."""
        if self._committer is not None:
            await self._committer
        while self._starting:
            await asyncio.wait(self._starting)

    async def _commit_all(self) -> None:
        while self._waiting:
            group = [each for each in self._waiting[:_MOST_IN_A_COMMIT] if not each.told.done()]
            del self._waiting[:_MOST_IN_A_COMMIT]
            async with self._turn:
                await self._commit_and_tell(group)

    async def _commit_and_tell(self, group: Sequence[_Waiting]) -> None:
        """Commit a group; if the database refuses it, each alone, so that one at fault is alone."""
        kinds: Sequence[tuple[NewKind, NewMessages]] = ()
        try:
            kinds = await self._commit(group)
        except psycopg.Error as error:
            if len(group) > 1:
                _log.error("group_refused", error_type=type(error).__name__, count=len(group))
                for each in group:
                    await self._commit_and_tell([each])
                return
            group[0].outcome = error
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            for each in group:
                each.outcome = error
        for each in group:
            each.tell()
        _count(kinds)

    async def _commit(self, group: Sequence[_Waiting]) -> Sequence[tuple[NewKind, NewMessages]]:
        """Write all of a group that can be sent, in one transaction, and see to its runner."""
        now = datetime.now(UTC)
        bulk = self._open or _Open(uuid7())
        for each in group:
            each.outcome = None
        async with self._database.begin() as connection:
            await self._answer_again(connection, group, now)
            extent, kinds = await self._write(connection, bulk, group, now)
        if extent is not None:
            bulk.extent = extent
            bulk.messages += sum(len(new.ids) for _, new in kinds)
            bulk.modes.update(kind.mode for kind, _ in kinds)
            bulk.accounts.update(kind.account_id for kind, _ in kinds)
            if self._open is None:
                self._open = bulk
                task = asyncio.create_task(self._start(bulk, now))
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
        return kinds

    async def _answer_again(
        self, connection: Connection, group: Sequence[_Waiting], now: datetime
    ) -> None:
        """Answer those whose key was used before, or is in use."""
        keyed: dict[Key, _Waiting] = {}
        for each in group:
            if each.asked.key is not None and keyed.setdefault(each.asked.key, each) is not each:
                each.outcome = KeyInFlight()
        if not keyed:
            return
        digests = {key: each.asked.digest for key, each in keyed.items()}
        for key, answer in (await answered_before(connection, digests, now)).items():
            keyed[key].outcome = answer if isinstance(answer, Exception) else Accepted.again(answer)

    async def _write(
        self, connection: Connection, bulk: _Open, group: Sequence[_Waiting], now: datetime
    ) -> tuple[Extent | None, list[tuple[NewKind, NewMessages]]]:
        """Write what can be sent; nothing is written, and the extent None, if that is nothing."""
        ids: list[UUID] = []
        kept: dict[Key, tuple[bytes, Mapping[str, Any]]] = {}
        columns: dict[tuple[Caller, Shared], NewMessages] = {}
        for each in group:
            if each.outcome is not None:
                continue
            asked, message_id = each.asked, uuid7()
            try:
                shared, addressed = asked.checked()
                await self._purse.reserve(
                    connection, asked.caller.account_id, message_id, addressed.text.segments
                )
            except Exception as refused:  # noqa: BLE001 - it is this one's answer
                each.outcome = refused
                continue
            each.outcome = answer = asked.accepted_as(message_id, addressed)
            ids.append(message_id)
            columns.setdefault((asked.caller, shared), NewMessages()).add(
                message_id,
                number=addressed.number,
                number_hash=self._recipient_hash.of(addressed.number.e164),
                text=addressed.text,
                metadata=asked.command.metadata,
                traceparent=asked.traceparent,
            )
            if asked.key is not None:
                kept[asked.key] = (asked.digest, answer.to_json())
        if not ids:
            return None, []
        owner = bulk_workflow_id(_public(bulk.bulk_id))
        first = ids[0] if bulk.extent is None else bulk.extent.first_id
        extent = Extent(bulk.bulk_id, first, ids[-1], owner)
        if bulk.extent is None:
            bulks.insert(connection, extent, len(ids), now, check_by=now + START_GRACE)
        else:
            bulks.extend(connection, extent, len(ids))
        lanes = await self._lanes(connection, columns)
        kinds = [
            (self._kind(extent, caller, shared, lanes, now), new)
            for (caller, shared), new in columns.items()
        ]
        await bulk_messages.insert(connection, kinds, hash_version=self._recipient_hash.version)
        idempotency.keep(connection, kept, at=now, expires_at=now + KEY_LIFE)
        return extent, kinds

    async def _lanes(
        self, connection: Connection, kinds: Iterable[tuple[Caller, Shared]]
    ) -> dict[tuple[str, str], UUID]:
        """The lanes of callbacks, by account and origin; in one order, since some may be new."""
        wanted = {
            (caller.account_id, origin_of(shared.callback_url))
            for caller, shared in kinds
            if shared.callback_url is not None
        }
        return {lane: await callback_store.lane(connection, *lane) for lane in sorted(wanted)}

    def _kind(
        self,
        extent: Extent,
        caller: Caller,
        shared: Shared,
        lanes: Mapping[tuple[str, str], UUID],
        now: datetime,
    ) -> NewKind:
        url = shared.callback_url
        return NewKind(
            extent=extent,
            account_id=caller.account_id,
            environment=caller.environment.value,
            mode=shared.mode.value,
            priority=shared.priority.value,
            sender=shared.sender.value,
            callback_url=url,
            callback_lane_id=lanes[caller.account_id, origin_of(url)] if url else None,
            callback_final_only=shared.callback_final_only,
            accepted_at=now,
            scheduled_at=shared.scheduled_at,
            validity=shared.validity,
            valid_until=(shared.scheduled_at or now) + shared.validity,
            config_version=self._configurations.version,
            actor=caller.key_id,
        )

    async def _start(self, bulk: _Open, now: datetime) -> None:
        """Start the runner of a bulk when it has gathered for a while and its last commit is done."""
        await asyncio.sleep(max(_GATHER_SECONDS, self._start_took))
        async with self._turn:
            self._open = None
        began = time.monotonic()
        started = await self._orchestration.start_bulk(
            _public(bulk.bulk_id), mode=_only(bulk.modes), account=_only(bulk.accounts)
        )
        self._start_took = time.monotonic() - began
        if not started:
            await leave_to_the_reconciler(self._database, now, bulk=bulk.bulk_id)
        try:
            await self._budget.spend(bulk.messages)
        except DATABASE_ERRORS as error:
            _log.warning("budget_not_spent", error_type=type(error).__name__)


def _count(kinds: Sequence[tuple[NewKind, NewMessages]]) -> None:
    for kind, new in kinds:
        for country, messages in Counter(new.countries).items():
            metrics.message_accepted(
                mode=Mode(kind.mode),
                environment=kind.environment,
                country=country,
                runner="group",
                messages=messages,
            )
    if kinds:
        count = sum(len(new.ids) for _, new in kinds)
        metrics.group_committed(count)
        bulk_id = _public(kinds[0][0].extent.bulk_id)
        _log.info("group_accepted", bulk_id=bulk_id, count=count)


def _only(values: set[str]) -> str | None:
    """The value, if there is but one."""
    return next(iter(values)) if len(values) == 1 else None


def _public(bulk_id: UUID) -> str:
    return public_id(IdPrefix.BATCH, bulk_id)

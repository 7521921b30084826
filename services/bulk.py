"""Many messages at once: planned, claimed, handed to a provider, recorded.

What happens next to a message is decided by `domain.delivery.decide`, as for a single one; here it
is applied to many rows, and what follows is written for all of them together. How far a bulk has
come stands in its rows alone, so that whoever takes it up goes on from there.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Final
from uuid import UUID

from domain.delivery import (
    Decision,
    Declare,
    Finish,
    MessageFacts,
    Reason,
    Recall,
    RouteOption,
    Submit,
    Wait,
    decide,
)
from domain.errors import ErrorClass
from domain.ids import IdPrefix, parse_id, public_id
from domain.modes import Mode, Priority
from domain.outcomes import OutcomeKind, PartOutcome
from domain.receipts import ReceiptState
from domain.states import AttemptStatus, MessageStatus, Verdict
from providers.base import NoSlot, Outbound, Provider
from services.announcements import Announcements
from services.configuration import Configurations
from services.delivery import (
    ACTOR,
    AROUND_AN_ANSWER,
    as_change,
    reference_of,
    until_written,
)
from services.meeting import GRACE, Meeting, Unwritten
from services.orchestration import Orchestration
from services.routes import ROUTED_BY, Routes, receipt_by, receipt_deadline
from services.slices import slices
from store import attempts, bulks, events, messages, receipts
from store.attempts import AttemptChange
from store.bulks import ClaimOfMany, Extent
from store.database import Connection, Database, Row
from store.transitions import Transition, lock, settle, tell_sent
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.ports.bulk import BulkRef, Plan, PlanTask, Share, bulk_workflow_id
from workflows.ports.send import send_workflow_id

_log = get_logger(__name__)

_CHECK_AFTER: Final = timedelta(minutes=10)
"""When the reconciler asks after a bulk whose runner, which looks at it every five minutes, did not."""

_FIRST_ID: Final = UUID(int=0)
_PAGE: Final = 1000
"""Rows that are read at once."""
_MOST_EXCEPTIONS: Final = 20_000
"""More than a bulk has messages."""
_MOST_TO_LEAVE: Final = 20
"""Messages that get a runner of their own at once, so that they starve nobody."""
_AT_A_TURN: Final = 25
"""Messages that are prepared or begun in one go, some two milliseconds: alerts are not to wait."""
_TURN_WITHIN: Final = timedelta(seconds=5)
"""How long a claimed message waits for its turn, which a second of the rate should bring."""
_SHARE_FOR: Final = 30.0
"""Seconds after which a share ends, to be planned anew: others may be waiting for its place."""

_GATHERING: Final = 0.05
_LONGEST_GATHERING: Final = 0.2
"""Seconds for which outcomes are gathered, while more are to come: few statements cost less. It ends
between the two when a quarter of what the windows hold has come, so that these stay full."""

_NEVER_TRIED: Final = "queued"

_priority = cache(Priority)  # a fifth of the time that the look-up takes
_mode = cache(Mode)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What was decided about messages that routes and policies cannot tell apart."""

    decision: Decision
    route: int | None
    options: Sequence[RouteOption]


@dataclass(slots=True)
class _Ready:
    """A message that a provider is to get, and what its claim needs."""

    outbound: Outbound
    epoch: int
    number: int
    parts: int
    receipt_by: datetime
    accepted_at: datetime
    mode: Mode
    chosen: _Chosen


@dataclass
class _Planned:
    """What a plan found, before it is written."""

    shares: Counter[str] = field(default_factory=Counter)
    priorities: dict[str, int] = field(default_factory=dict)
    ends: dict[tuple[MessageStatus, str], list[UUID]] = field(
        default_factory=lambda: defaultdict(list)
    )
    declared: dict[tuple[AttemptStatus, str], list[tuple[UUID, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    leaving: list[UUID] = field(default_factory=list)
    due: list[datetime] = field(default_factory=list)

    def share(self, provider: str, messages: int, priority: str) -> None:
        """Messages that this provider should get now."""
        self.shares[provider] += messages
        rank = Priority(priority).rank
        self.priorities[provider] = min(rank, self.priorities.get(provider, rank))

    @property
    def touched(self) -> list[UUID]:
        """Messages of whose attempts time has made something, and those that have come to an end."""
        declared = [message_id for each in self.declared.values() for message_id, _ in each]
        return [*declared, *(message_id for ids in self.ends.values() for message_id in ids)]


class _Room:
    """How many messages may be claimed and not recorded, over all shares of one provider.

    No more than the provider's windows hold, so that a crash leaves no more of them in doubt; and
    no more at once than a second of its rate.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._taken = 0
        self._changed = asyncio.Event()

    async def take(self, wanted: int) -> int:
        """Take room for so many messages, or for fewer; 0 if the provider is down."""
        while self.provider.up:
            most, rate = self.provider.capacity, self.provider.rate
            if rate is not None:
                most = min(most, max(1, int(rate)))
            # A claim costs nearly the same for one message as for fifty.
            if most - self._taken >= min(wanted, max(1, most // 4)):
                room = min(most - self._taken, wanted)
                self._taken += room
                self._measure()
                return room
            self._changed.clear()
            await self._changed.wait()
        return 0

    def give_back(self, room: int) -> None:
        """So many messages are recorded, or were not claimed."""
        self._taken -= room
        self._measure()
        self._changed.set()

    def _measure(self) -> None:
        metrics.shares_measured(self.provider.name, self._taken)


class Bulks:
    """What `activities.bulk` does between Temporal, the rows, and a provider."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        announcements: Announcements,
        meeting: Meeting,
        orchestration: Orchestration,
        routes: Routes,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._announcements = announcements
        self.meeting = meeting
        self._orchestration = orchestration
        self._routes = routes
        self._rooms: dict[str, _Room] = {}

    async def plan(self, task: PlanTask) -> Plan:
        """Look at the rows, write what time has made of them, and say what can be sent."""
        now = task.now
        async with self._database.begin() as connection:
            bulk = await bulks.stored(connection, _uuid(task.bulk))
            if bulk is None:
                return Plan((), 0)
            extent = extent_of(bulk)
            moves: list[Transition] = []
            found = await self._kinds(connection, extent, now)
            if _sum(found, "released"):
                released = await bulks.unschedule(connection, extent, now)
                moves += await settle(connection, released, actor=ACTOR, at=now)
            planned = _Planned()
            await self._plan_untried(connection, extent, found, planned, now)
            if _sum(found, "exceptional"):
                await self._plan_exceptional(connection, extent, bulk, planned, now)
            moves += await self._write(connection, extent, planned, now)
            leaving = {
                message_id: send_workflow_id(public_id(IdPrefix.MESSAGE, message_id))
                for message_id in planned.leaving[:_MOST_TO_LEAVE]
            }
            left: Sequence[Row] = ()
            if leaving:
                left = await bulks.leave(connection, extent.owner, leaving, now + GRACE)
                _tell_of_leaving(connection, extent.bulk_id, left, now)
            if moves or left or planned.touched:
                found = await self._kinds(connection, extent, now)
        is_open = _sum(found, "messages")
        # By itself: who cancels a bulk takes its row before those of its messages.
        async with self._database.begin() as connection:
            bulks.check(connection, bulk["id"], now + _CHECK_AFTER if is_open else None)
        self._announcements.tell(moves, runner_knows=True)
        for message in left:
            await self._orchestration.start_send(
                message["id"],
                message["epoch"],
                mode=message["mode"],
                country=message["country"],
                account=message["account_id"],
            )
        planned.due += [kind["due"] for kind in found if kind["due"] is not None]
        if planned.declared or len(planned.leaving) > len(left):
            planned.due.append(now)
        forbidden = bulk["paused_at"] is not None or bulk["canceled_at"] is not None
        shares = tuple(
            Share(provider, count, planned.priorities[provider])
            for provider, count in sorted(planned.shares.items())
        )
        return Plan(() if forbidden else shares, is_open, min(planned.due, default=None))

    async def _kinds(self, connection: Connection, extent: Extent, now: datetime) -> Sequence[Row]:
        """What is open, by kind: one look at all rows for everything that a plan asks."""
        return await bulks.kinds(
            connection, extent, now, without_receipts=self._a_provider_is_silent
        )

    @property
    def _a_provider_is_silent(self) -> bool:
        """Whether there is one that gives no receipts."""
        declared = self._configurations.current.providers.values()
        return any(not provider.receipts for provider in declared)

    async def _plan_untried(
        self,
        connection: Connection,
        extent: Extent,
        found: Sequence[Row],
        planned: _Planned,
        now: datetime,
    ) -> None:
        """What has no attempts yet is decided upon by its kind."""
        configuration = self._configurations.current
        for kind in found:
            if not kind["untried"]:
                continue
            if kind["scheduled_at"] is not None and kind["scheduled_at"] > now:
                planned.due.append(kind["scheduled_at"])
                continue
            _, options = await self._routes.options(connection, configuration, kind)
            policy = configuration.mode_policy(Mode(kind["mode"]))
            facts = MessageFacts.untried(
                since=kind["since"],
                valid_until=kind["valid_until"],
                scheduled_at=kind["scheduled_at"],
            )
            decision = decide(facts, options, policy, now)
            match decision:
                case Submit(provider=provider):
                    planned.share(provider, kind["untried"], kind["priority"])
                case Wait(until=until):
                    planned.due.append(until)
                case Finish(status=status, reason=reason):
                    ids = await bulks.untried_ids(connection, extent, kind, now)
                    planned.ends[status, reason] += ids
                case Recall() | Declare():  # nothing was tried yet
                    pass

    async def _plan_exceptional(
        self,
        connection: Connection,
        extent: Extent,
        bulk: Row,
        planned: _Planned,
        now: datetime,
    ) -> None:
        rows = await bulks.exceptional(
            connection, extent, now, _MOST_EXCEPTIONS, without_receipts=self._a_provider_is_silent
        )
        tried = await bulks.attempts_of(connection, [row["id"] for row in rows])
        choose = _Chooser(self._routes, connection, self._configurations, now)
        for row in rows:
            known = tried.get(row["id"], [])
            decision = (await choose.about(row, known)).decision
            if bulk["canceled_at"] is not None and isinstance(decision, Submit):
                decision = Finish(MessageStatus.CANCELED, Reason.CANCELED)
            match decision:
                case Submit(resume=False, provider=provider):
                    planned.share(provider, 1, row["priority"])
                case Submit() | Recall():
                    planned.leaving.append(row["id"])
                case Wait(until=until):
                    planned.due.append(until)
                case Declare(number=number, status=status):
                    provider = known[-1]["provider"]
                    planned.declared[status, provider].append((row["id"], number))
                case Finish(status=status, reason=reason):
                    planned.ends[status, reason].append(row["id"])

    async def _write(
        self, connection: Connection, extent: Extent, planned: _Planned, now: datetime
    ) -> list[Transition]:
        """Write what time has made of attempts, and which messages have come to their end."""
        touched = planned.touched
        if not touched:
            return []
        lock(connection, sorted(touched))
        for (status, provider), declared in planned.declared.items():
            doubt_until = now + receipt_deadline(self._configurations.current, provider)
            attempts.declare(connection, declared, status, at=now, doubt_until=doubt_until)
        for (end, reason), ids in planned.ends.items():
            bulks.judge(connection, extent.owner, ids, Verdict(end.value), reason)
            if end is MessageStatus.SENT:
                tell_sent(connection, ids, now)
            events.append_to_many(
                connection,
                extent.bulk_id,
                ids,
                "decided",
                actor=ACTOR,
                at=now,
                status=end.value,
                reason=reason,
                detail={"configuration": self._configurations.version},
            )
        return await settle(connection, touched, actor=ACTOR, at=now)

    async def send_share(self, ref: BulkRef, provider: Provider, stop: asyncio.Event) -> int:
        """Hand a provider all that is its own of a bulk; returns when it has answered for them.

        Ends early at `stop`, when the provider is down, and after a while: the next plan goes on.
        """
        async with self._database.begin() as connection:
            bulk = await bulks.stored(connection, _uuid(ref))
        if bulk is None:
            return 0
        return await _Sending(self, extent_of(bulk), provider).run(stop)

    def room_at(self, provider: Provider) -> _Room:
        """The room that all shares of a provider have together, in this process."""
        known = self._rooms.get(provider.name)
        if known is None or known.provider is not provider:
            known = self._rooms[provider.name] = _Room(provider)
        return known

    async def ready(
        self, extent: Extent, provider: Provider, after: UUID, now: datetime
    ) -> tuple[list[_Ready], UUID | None]:
        """The next messages for this provider, and the last row that was looked at, if any."""
        async with self._database.begin() as connection:
            rows = await bulks.ready(connection, extent, after, now, _PAGE)
            again = [row["id"] for row in rows if not _never_tried(row)]
            tried = await bulks.attempts_of(connection, again)
            choose = _Chooser(self._routes, connection, self._configurations, now)
            chosen = [(row, await choose.about(row, tried.get(row["id"], []))) for row in rows]
        configuration = self._configurations.current

        @cache  # thousands of messages have the same
        def receipt_until(mode: Mode, valid_until: datetime) -> datetime:
            policy = configuration.mode_policy(mode)
            return receipt_by(configuration, provider.name, policy, valid_until, now)

        found: list[_Ready] = []
        async for some in slices(chosen, _AT_A_TURN):
            for row, choice in some:
                decision = choice.decision
                if (
                    isinstance(decision, Submit)
                    and decision.provider == provider.name
                    and not decision.resume
                ):
                    until = receipt_until(_mode(row["mode"]), row["valid_until"])
                    found.append(_as_ready(row, choice, decision, provider, until, now))
        return found, rows[-1]["id"] if rows else None

    async def claim(
        self, extent: Extent, provider: Provider, wanted: Sequence[_Ready], now: datetime
    ) -> list[_Ready]:
        """Write the attempts, with the last look at all that forbids them; what may be sent."""
        declared = self._configurations.current.providers[provider.name]
        answer_by = now + declared.response_timeout + AROUND_AN_ANSWER + _TURN_WITHIN
        chosen = {id(each.chosen.options): each.chosen for each in wanted}
        kinds = {kind: place for place, kind in enumerate(chosen, start=1)}
        async with self._database.begin() as connection:
            claimed = bulks.claim(
                connection,
                ClaimOfMany(
                    bulk_id=extent.bulk_id,
                    owner=extent.owner,
                    provider=provider.name,
                    part_method=declared.parts.value,
                    at=now,
                    answer_by=answer_by,
                    config_version=self._configurations.version,
                    ids=[each.outbound.message_id for each in wanted],
                    epochs=[each.epoch for each in wanted],
                    numbers=[each.number for each in wanted],
                    parts=[each.parts for each in wanted],
                    refs=[each.outbound.reference for each in wanted],
                    receipt_bys=[each.receipt_by for each in wanted],
                    kinds=[kinds[id(each.chosen.options)] for each in wanted],
                    details=[
                        self._routes.explained(each.route, each.options) for each in chosen.values()
                    ],
                ),
                actor=ACTOR,
            )
        moves = await claimed
        self._announcements.tell(moves, runner_knows=True)
        taken = {message_id for each in moves for message_id in each.ids}
        return [each for each in wanted if each.outbound.message_id in taken]

    async def record(
        self, provider: str, changes: Sequence[AttemptChange], answers: Unwritten
    ) -> None:
        """Write what came of attempts, then meet the receipts that were quicker.

        What is known is not given up while the database is away for a while; receipts are.
        """
        moves, _ = await until_written(
            lambda: self._record(provider, changes, answers), message_id=None, provider=provider
        )
        self._announcements.tell(moves)
        delivered = {
            i for move in moves if move.status is MessageStatus.DELIVERED for i in move.ids
        }
        parts = [
            part for each in changes if each.message_id not in delivered for part in each.parts
        ]
        ids = [part.provider_message_id for part in parts]
        self._announcements.afterwards(self.meeting.look_again(provider, ids))

    async def _record(
        self, provider: str, changes: Sequence[AttemptChange], answers: Unwritten
    ) -> list[Transition]:
        now = datetime.now(UTC)
        with answers.receipts() as (kept, written):
            async with self._database.begin() as connection:
                lock(connection, sorted({change.message_id for change in changes}))
                moves = await receipts.record_delivered(
                    connection, changes, kept, actor=ACTOR, at=now
                )
                done = {message_id for move in moves for message_id in move.ids}
                moves += await attempts.record_and_settle(
                    connection,
                    [change for change in changes if change.message_id not in done],
                    actor=ACTOR,
                    at=now,
                    check_by=now + GRACE,
                    doubt_until=now + receipt_deadline(self._configurations.current, provider),
                )
            written.update(
                part.provider_message_id
                for change in changes
                if change.message_id in done
                for part in change.parts
                if part.provider_message_id is not None
            )
        # They came before their answers are said to have.
        metrics.receipts_came(
            provider=provider,
            state=ReceiptState.DELIVERED,
            matched=True,
            count=len(written),
            seconds=0,
        )
        return moves


class _Chooser:
    """Decides about messages at one moment; what has no attempts yet, once for each kind."""

    def __init__(
        self,
        routes: Routes,
        connection: Connection,
        configurations: Configurations,
        now: datetime,
    ) -> None:
        self._routes = routes
        self._connection = connection
        self._configuration = configurations.current
        self._now = now
        self._ranked: dict[tuple[object, ...], tuple[int | None, list[RouteOption]]] = {}
        self._untried: dict[tuple[object, ...], _Chosen] = {}

    async def about(self, row: Row, tried: Sequence[Row]) -> _Chosen:
        """What to do with a message."""
        kind = tuple(row[name] for name in ROUTED_BY)
        like_others = (
            _never_tried(row)
            and row["cancel_requested_at"] is None
            and row["valid_until"] > self._now
        )
        if like_others and kind in self._untried:
            return self._untried[kind]
        if kind not in self._ranked:
            self._ranked[kind] = await self._routes.options(
                self._connection, self._configuration, row
            )
        route, options = self._ranked[kind]
        policy = self._configuration.mode_policy(Mode(row["mode"]))
        facts = messages.facts(row, tried)
        chosen = _Chosen(decide(facts, options, policy, self._now), route, options)
        if like_others:
            self._untried[kind] = chosen
        return chosen


class _Sending:
    """One provider's share of a bulk, on its way."""

    def __init__(self, bulks_: Bulks, extent: Extent, provider: Provider) -> None:
        self._bulks = bulks_
        self._extent = extent
        self._provider = provider
        self._room = bulks_.room_at(provider)
        self._answers = partial(bulks_.meeting.answers, provider.name)
        self._learned: list[AttemptChange] = []
        self._unwritten = self._answers()
        self._recorder: asyncio.Task[None] | None = None
        self._submitting: set[asyncio.Task[None]] = set()
        self._enough = 0
        self._gathered = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self, stop: asyncio.Event) -> int:
        """Send until nothing is left; how many messages were handed over."""
        submitted = 0
        ends = time.monotonic() + _SHARE_FOR
        page = self._page_after(_FIRST_ID)
        try:
            while not stop.is_set() and time.monotonic() < ends:
                found, last = await page
                if last is None:
                    break
                page = self._page_after(last)  # read while this one is sent
                sent = await self._send(found, stop)
                submitted += sent
                if sent < len(found):
                    break  # forbidden, or the provider is down: the next plan knows
        finally:
            page.cancel()
            await asyncio.gather(page, return_exceptions=True)
            await self._finished()
        return submitted

    def _page_after(self, last: UUID) -> asyncio.Task[tuple[list[_Ready], UUID | None]]:
        reading = self._bulks.ready(self._extent, self._provider, last, datetime.now(UTC))
        return asyncio.create_task(reading)

    async def _send(self, found: list[_Ready], stop: asyncio.Event) -> int:
        sent = 0
        while sent < len(found):
            room = await self._room.take(len(found) - sent)
            if not room:
                break
            wanted = found[sent : sent + room]
            taken = await self._claimed(wanted, stop)
            self._room.give_back(room - len(taken))
            async for some in slices(taken, _AT_A_TURN):
                for each in some:
                    task = asyncio.create_task(self._submit(each))
                    self._submitting.add(task)
                    task.add_done_callback(self._submitted)
            if not taken:
                break
            sent += len(wanted)
        return sent

    async def _claimed(self, wanted: list[_Ready], stop: asyncio.Event) -> list[_Ready]:
        """What may be sent of this; nothing any more once something went wrong."""
        if stop.is_set() or self._failure is not None:
            return []
        try:
            return await self._bulks.claim(self._extent, self._provider, wanted, datetime.now(UTC))
        except BaseException:
            self._room.give_back(len(wanted))
            raise

    async def _submit(self, ready: _Ready) -> None:
        outbound = ready.outbound
        numbers = range(1, ready.parts + 1)
        try:
            outcomes = await self._outcomes(ready, numbers)
        except Exception as error:  # noqa: BLE001 - a fault of ours: nobody knows what was sent
            _log.error("submit_failed", error_type=type(error).__name__)
            unknown = OutcomeKind.UNKNOWN
            outcomes = [PartOutcome(n, unknown, error_class=ErrorClass.UNKNOWN) for n in numbers]
        self._learned.append(as_change(outbound.message_id, ready.number, outcomes))
        self._unwritten.add(outcome.provider_message_id for outcome in outcomes)
        if self._recorder is None or self._recorder.done():
            self._recorder = asyncio.create_task(self._record())

    def _submitted(self, task: asyncio.Task[None]) -> None:
        self._submitting.discard(task)
        if len(self._learned) >= self._enough or not self._submitting:
            self._gathered.set()

    async def _gather(self) -> None:
        """Returns when what was learned is worth a statement."""
        self._enough = self._provider.capacity + 1
        self._gathered.clear()
        for seconds in (_GATHERING, _LONGEST_GATHERING - _GATHERING):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._gathered.wait()
            self._enough = self._provider.capacity // 4
            if not self._submitting or len(self._learned) >= self._enough:
                return

    async def _outcomes(self, ready: _Ready, numbers: Sequence[int]) -> list[PartOutcome]:
        outbound = ready.outbound
        give_up = time.monotonic() + _TURN_WITHIN.total_seconds()
        while True:
            try:
                async with self._provider.slot(outbound.priority):
                    if ready.number == 1:
                        metrics.message_reached_wire(
                            mode=ready.mode,
                            seconds=(datetime.now(UTC) - ready.accepted_at).total_seconds(),
                        )
                    return await self._provider.submit(outbound, numbers)
            except NoSlot as full:
                if full.error_class is ErrorClass.THROTTLED and time.monotonic() < give_up:
                    continue
                return [_without_slot(number, full) for number in numbers]

    async def _record(self) -> None:
        """Write what was learned, all of it at once, until nothing new has come."""
        while self._learned:
            if self._submitting:
                await self._gather()
            changes, self._learned = self._learned, []
            answers, self._unwritten = self._unwritten, self._answers()
            try:
                await self._bulks.record(self._provider.name, changes, answers)
            except Exception as error:  # noqa: BLE001 - the rows become unknown by their deadline
                _log.error("outcomes_not_recorded", error_type=type(error).__name__)
                self._failure = error
            answers.written()
            self._room.give_back(len(changes))

    async def _finished(self) -> None:
        while self._submitting or (self._recorder is not None and not self._recorder.done()):
            pending = {*self._submitting}
            if self._recorder is not None:
                pending.add(self._recorder)
            await asyncio.wait(pending)
        if self._failure is not None:
            raise self._failure


def _as_ready(
    row: Row, chosen: _Chosen, submit: Submit, provider: Provider, until: datetime, now: datetime
) -> _Ready:
    """A message for its provider, whose receipt is waited for `until` then."""
    outbound = Outbound(
        message_id=row["id"],
        attempt=submit.number,
        sender=row["sender"],
        recipient=row["recipient"],
        text=row["body"],
        reference=reference_of(row["id"], submit.number),
        valid_for=max(timedelta(seconds=1), min(until, row["valid_until"]) - now),
        priority=_priority(row["priority"]),
    )
    return _Ready(
        outbound=outbound,
        epoch=row["epoch"],
        number=submit.number,
        parts=provider.count_parts(outbound),
        receipt_by=until,
        accepted_at=row["accepted_at"],
        mode=_mode(row["mode"]),
        chosen=chosen,
    )


def extent_of(bulk: Row) -> Extent:
    """Which messages a stored bulk has."""
    owner = bulk_workflow_id(public_id(IdPrefix.BATCH, bulk["id"]))
    return Extent(bulk["id"], bulk["first_id"], bulk["last_id"], owner)


def _sum(kinds: Sequence[Row], name: str) -> int:
    """How many messages of all kinds are counted under this name."""
    return sum(kind[name] for kind in kinds)


def _never_tried(row: Row) -> bool:
    return bool(row["status"] == _NEVER_TRIED and row["first_attempt"] == 1)


def _without_slot(number: int, full: NoSlot) -> PartOutcome:
    """The outcome of a part whose message got no turn: it certainly never left."""
    throttled = full.error_class is ErrorClass.THROTTLED
    return PartOutcome(
        number,
        OutcomeKind.THROTTLED if throttled else OutcomeKind.UNREACHABLE,
        error_class=full.error_class,
        after=full.after if throttled else None,
    )


def _tell_of_leaving(
    connection: Connection, bulk_id: UUID, left: Sequence[Mapping[str, object]], now: datetime
) -> None:
    ids = [message["id"] for message in left if isinstance(message["id"], UUID)]
    events.append_to_many(connection, bulk_id, ids, "promoted", actor=ACTOR, at=now)


def _uuid(ref: BulkRef) -> UUID:
    found = parse_id(IdPrefix.BATCH, ref.bulk_id)
    if found is None:
        message = f"{ref.bulk_id!r} is no id of a bulk"
        raise ValueError(message)
    return found

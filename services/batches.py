"""Batches: one text, or one for each, to many recipients in one request."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks import origin_of
from domain.ids import IdPrefix, parse_id, public_id
from domain.states import MessageStatus
from domain.templates import InvalidTemplate, MissingVariable, Template
from domain.values import value
from services.announcements import Announcements
from services.asked import (
    KEY_LIFE,
    Addressed,
    Caller,
    Checks,
    Fault,
    Refused,
    Shared,
    SharedCommand,
    answer_again,
    answered_before,
    check_recipient,
)
from services.bulk import extent_of
from services.configuration import Configurations
from services.money import Purse
from services.orchestration import Orchestration
from services.recipients import RecipientHash
from services.slices import slices
from services.starts import START_GRACE, leave_to_the_reconciler
from store import batches as store
from store import bulk_messages, bulks, idempotency
from store import callbacks as callback_store
from store.batches import Refusal
from store.bulk_messages import NewKind, NewMessages
from store.bulks import Extent
from store.database import Connection, Database, Row
from store.idempotency import Key
from store.transitions import settle
from telemetry import metrics
from telemetry.logs import get_logger
from telemetry.tracing import current_traceparent
from workflows.ports.bulk import bulk_workflow_id

_log = get_logger(__name__)

MOST_RECIPIENTS: Final = 10_000
"""In one request."""

_MOST_FAULTS: Final = 20
"""That are told of a request of which nothing can be sent."""

_AT_ONCE: Final = 20
"""Recipients that are looked at in one go: some two milliseconds."""
_RESULTS_AT_ONCE: Final = 1000
"""Results that are made in one go: some two milliseconds, too."""


@value
class Recipient:
    """One recipient of a batch: with the batch's text and these variables, or with a text of its own."""

    to: str
    variables: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCommand(SharedCommand):
    """A batch as it is asked for.

    `digest` tells whether two requests with one idempotency key are the same one.
    """

    body: str | None
    recipients: Sequence[Recipient]
    digest: bytes


@value
class Result:
    """What became of one recipient: a message, or a refusal."""

    position: int
    message_id: str | None = None
    encoding: str | None = None
    segments: int | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch and how far it is; `counts` are by status and reason."""

    batch: Row
    counts: Sequence[Row]

    @property
    def open(self) -> int:
        """How many of its messages are not final."""
        return sum(int(row["messages"]) for row in self.counts if row["open"])

    @property
    def status(self) -> str:
        """Canceled (if that ended anything), paused, running, or finished."""
        ended_early = any(row["status"] == MessageStatus.CANCELED for row in self.counts)
        if self.batch["canceled_at"] is not None and (self.open or ended_early):
            return "canceled"
        if not self.open:
            return "finished"
        return "paused" if self.batch["paused_at"] is not None else "running"


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """A batch that was accepted; `replayed` if by an earlier request with the same key."""

    view: BatchView
    results: Sequence[Result]
    replayed: bool = False


class UnknownBatch(Exception):
    """The account has no batch with this id, in this environment."""


class BatchOver(Exception):
    """The batch was cancelled: there is nothing left to pause or resume."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """What was found of a command: its faults, or what of it can be sent."""

    shared: Shared | None
    faults: list[Fault]
    new: NewMessages = field(default_factory=NewMessages)
    refusals: list[Refusal] = field(default_factory=list)

    def good(self) -> Shared:
        """What holds for all messages.

        Raises:
            Refused: nothing can be sent.
        """
        if self.shared is None or self.faults:
            raise Refused(self.faults)
        if not self.new.ids:
            raise Refused([_of(refusal) for refusal in self.refusals[:_MOST_FAULTS]])
        return self.shared


class Batches:
    """Accepts batches, tells how far they are, and holds, resumes and cancels them."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        orchestration: Orchestration,
        announcements: Announcements,
        checks: Checks,
        recipient_hash: RecipientHash,
        purse: Purse,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._orchestration = orchestration
        self._announcements = announcements
        self._checks = checks
        self._recipient_hash = recipient_hash
        self._purse = purse

    async def accept(
        self, caller: Caller, command: BatchCommand, *, idempotency_key: str | None = None
    ) -> AcceptedBatch:
        """Accept a batch: every recipient that can be sent to, all of them in one transaction.

        Raises:
            Refused: nothing of it can be sent; nothing was stored.
            KeyInFlight, KeyReused: about the idempotency key; nothing was stored.
        """
        now = datetime.now(UTC)
        checked = await self._check(caller, command, now)
        key = Key(caller.account_id, caller.environment.value, idempotency_key or "")
        request_hash = b"batch" + command.digest
        async with self._database.begin() as connection:
            if idempotency_key is not None:
                known = await answered_before(connection, {key: request_hash}, now)
                if key in known:
                    batch_id = answer_again(known[key])["batch_id"]
                    return await self._again(connection, caller, batch_id)
            shared, new = checked.good(), checked.new
            batch = await self._write(
                connection, caller, command, shared, new, checked.refusals, now
            )
            if idempotency_key is not None:
                idempotency.keep(
                    connection,
                    {key: (request_hash, {"batch_id": _public(batch.extent.bulk_id)})},
                    at=now,
                    expires_at=now + KEY_LIFE,
                )
            view = await self._view(connection, caller, _public(batch.extent.bulk_id))
        for country, count in Counter(new.countries).items():
            metrics.message_accepted(
                mode=command.mode,
                environment=caller.environment.value,
                country=country,
                runner="batch",
                messages=count,
            )
        bulk_id = _public(batch.extent.bulk_id)
        _log.info("batch_accepted", bulk_id=bulk_id, mode=command.mode, count=len(new.ids))
        started = await self._orchestration.start_bulk(
            bulk_id, mode=command.mode.value, account=caller.account_id
        )
        if not started:
            await leave_to_the_reconciler(self._database, now, bulk=batch.extent.bulk_id)
        made = zip(new.positions, new.ids, new.encodings, new.segments, strict=True)
        return AcceptedBatch(view, await _results(made, checked.refusals))

    async def _again(self, connection: Connection, caller: Caller, batch_id: str) -> AcceptedBatch:
        """What is answered for a stored batch."""
        view = await self._view(connection, caller, batch_id)
        accepted, refused = await store.results(connection, view.batch)
        made = ((row["position"], row["id"], row["encoding"], row["segments"]) for row in accepted)
        refusals = [Refusal(**row) for row in refused]
        return AcceptedBatch(view, await _results(made, refusals), replayed=True)

    async def _check(self, caller: Caller, command: BatchCommand, now: datetime) -> "_Checked":
        """Look at what is the same for all, and at every recipient."""
        shared, faults = self._checks.shared(caller, command, now)
        template, more = _template(command)
        checked = _Checked(shared, [*more, *faults])
        if shared is None or checked.faults:
            return checked
        new = checked.new
        traceparent = current_traceparent()
        seen: dict[tuple[str, str], int] = {}
        async for some in slices(enumerate(command.recipients), _AT_ONCE):
            for position, recipient in some:
                addressed, wrong = _addressed(recipient, command, shared, template)
                if addressed is None:
                    checked.refusals.extend(
                        Refusal(position, fault.field, fault.reason, fault.sentence)
                        for fault in wrong
                    )
                    continue
                first = seen.setdefault((addressed.number.e164, addressed.text.text), position)
                if first != position:
                    checked.refusals.append(_duplicate(position, first))
                    continue
                new.add(
                    uuid7(),
                    number=addressed.number,
                    number_hash=self._recipient_hash.of(addressed.number.e164),
                    text=addressed.text,
                    metadata=recipient.metadata,
                    traceparent=traceparent,
                    position=position,
                )
        return checked

    async def _write(
        self,
        connection: Connection,
        caller: Caller,
        command: BatchCommand,
        shared: Shared,
        new: NewMessages,
        refusals: Sequence[Refusal],
        now: datetime,
    ) -> NewKind:
        bulk_id = uuid7()
        extent = Extent(bulk_id, new.ids[0], new.ids[-1], bulk_workflow_id(_public(bulk_id)))
        lane = None
        if shared.callback_url is not None:
            lane = await callback_store.lane(
                connection, caller.account_id, origin_of(shared.callback_url)
            )
        batch = NewKind(
            extent=extent,
            account_id=caller.account_id,
            environment=caller.environment.value,
            mode=shared.mode.value,
            priority=shared.priority.value,
            sender=shared.sender.value,
            callback_url=shared.callback_url,
            callback_lane_id=lane,
            callback_final_only=shared.callback_final_only,
            accepted_at=now,
            scheduled_at=shared.scheduled_at,
            validity=shared.validity,
            valid_until=(shared.scheduled_at or now) + shared.validity,
            config_version=self._configurations.version,
            actor=caller.key_id,
        )
        await self._purse.reserve(connection, caller.account_id, bulk_id, sum(new.segments))
        bulks.insert(connection, extent, len(new.ids), now, check_by=now + START_GRACE)
        store.insert(
            connection,
            batch,
            refusals,
            recipients=len(command.recipients),
            accepted=len(new.ids),
        )
        await bulk_messages.insert(
            connection, [(batch, new)], hash_version=self._recipient_hash.version
        )
        return batch

    async def one(self, caller: Caller, batch_id: str) -> BatchView:
        """A batch and how far it is.

        Raises:
            UnknownBatch: the caller has none with this id.
        """
        async with self._database.begin() as connection:
            return await self._view(connection, caller, batch_id)

    async def listed(self, caller: Caller, *, before: UUID | None, limit: int) -> list[BatchView]:
        """Batches, newest first."""
        async with self._database.begin() as connection:
            rows = await store.listed(
                connection, caller.account_id, caller.environment.value, before, limit
            )
            return [BatchView(row, await store.counts(connection, row)) for row in rows]

    async def results(self, caller: Caller, batch_id: str) -> AcceptedBatch:
        """What became of each recipient when the batch was accepted.

        Raises:
            UnknownBatch: the caller has none with this id.
        """
        async with self._database.begin() as connection:
            return await self._again(connection, caller, batch_id)

    async def pause(self, caller: Caller, batch_id: str) -> BatchView:
        """Let nothing more of it leave until it is resumed.

        Raises:
            UnknownBatch, BatchOver.
        """
        async with self._database.begin() as connection:
            view = await self._still_going(connection, caller, batch_id)
            bulks.pause(connection, view.batch["id"], datetime.now(UTC))
            view = await self._view(connection, caller, batch_id)
        self._tell(view)
        return view

    async def resume(self, caller: Caller, batch_id: str) -> BatchView:
        """Let it go on.

        Raises:
            UnknownBatch, BatchOver.
        """
        async with self._database.begin() as connection:
            view = await self._still_going(connection, caller, batch_id)
            bulks.resume(connection, view.batch["id"])
            view = await self._view(connection, caller, batch_id)
        self._tell(view)
        return view

    async def cancel(self, caller: Caller, batch_id: str) -> BatchView:
        """End every message that no provider has; what has left goes its way.

        Raises:
            UnknownBatch.
        """
        now = datetime.now(UTC)
        async with self._database.begin() as connection:
            view = await self._view(connection, caller, batch_id)
            ended = await bulks.cancel(connection, extent_of(view.batch), now)
            moves = await settle(connection, ended, actor=caller.key_id, at=now)
            view = await self._view(connection, caller, batch_id)
        self._announcements.tell(moves)
        self._tell(view)
        return view

    async def _view(self, connection: Connection, caller: Caller, batch_id: str) -> BatchView:
        uuid = parse_id(IdPrefix.BATCH, batch_id)
        if uuid is None:
            raise UnknownBatch
        row = await store.one(connection, caller.account_id, caller.environment.value, uuid)
        if row is None:
            raise UnknownBatch
        return BatchView(row, await store.counts(connection, row))

    async def _still_going(
        self, connection: Connection, caller: Caller, batch_id: str
    ) -> BatchView:
        view = await self._view(connection, caller, batch_id)
        if view.batch["canceled_at"] is not None:
            raise BatchOver
        return view

    def _tell(self, view: BatchView) -> None:
        """Let the batch's runner look at its rows anew."""
        owner = extent_of(view.batch).owner
        self._announcements.nudge(owner, MessageStatus.QUEUED.value)


async def _results(
    made: Iterable[tuple[int | None, UUID, str, int]], refusals: Sequence[Refusal]
) -> list[Result]:
    """What became of each recipient, in order; of several refusals of one, the first is told.

    `made` has position, id, encoding and segments of each message.
    """
    results = [
        Result(position, public_id(IdPrefix.MESSAGE, uuid), encoding, segments)
        async for some in slices(made, _RESULTS_AT_ONCE)
        for position, uuid, encoding, segments in some
        if position is not None
    ]
    in_order = sorted(refusals, key=lambda refusal: (refusal.position, refusal.field))
    first = {refusal.position: refusal for refusal in reversed(in_order)}
    results += [Result(position, refusal=refusal) for position, refusal in first.items()]
    return sorted(results, key=lambda result: result.position)


def digest_of(content: bytes) -> bytes:
    """What makes two requests the same request."""
    return hashlib.sha256(content).digest()


def _template(command: BatchCommand) -> tuple[Template | None, list[Fault]]:
    if command.body is None:
        return None, []
    try:
        return Template.parse(command.body), []
    except InvalidTemplate as error:
        return None, [Fault("body", "invalid_template", str(error))]


def _addressed(
    recipient: Recipient, command: BatchCommand, shared: Shared, template: Template | None
) -> tuple[Addressed | None, list[Fault]]:
    if recipient.body is not None:
        text = recipient.body
    elif template is None:
        sentence = "There is no text for this recipient: give it one, or give the batch one."
        return None, [Fault("body", "missing_body", sentence)]
    else:
        try:
            text = template.fill(recipient.variables)
        except MissingVariable as missing:
            sentence = (
                f"The text has a place for {{{missing.name}}}, and this recipient no such "
                "variable: add it."
            )
            return None, [Fault("variables", "missing_variable", sentence)]
    return check_recipient(
        recipient.to, text, smart=command.smart_encoding, max_segments=shared.max_segments
    )


def _duplicate(position: int, first: int) -> Refusal:
    return Refusal(
        position,
        "to",
        "duplicate_recipient",
        f"Recipient {first} of this batch has the same number and the same text: nobody gets the "
        "same message twice from one batch.",
    )


def _of(refusal: Refusal) -> Fault:
    return Fault(f"recipients.{refusal.position}.{refusal.field}", refusal.reason, refusal.sentence)


def _public(bulk_id: UUID) -> str:
    return public_id(IdPrefix.BATCH, bulk_id)

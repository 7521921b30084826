"""Batches: one text, or one for each, to many recipients in one request."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self, TypeAlias
from uuid import UUID

from uuid_utils.compat import uuid7

from domain import deadlines
from domain.ids import IdPrefix, parse_id, public_id
from domain.segments import Segmented, TooManyParts, longest_text
from domain.states import MessageStatus
from domain.templates import InvalidTemplate, MissingVariable, Template, TooLong
from domain.values import value
from services.billing import Billing
from services.bulk.state import id_range_of
from services.configuration import Configurations
from services.reads import listing
from services.recipients import RecipientHash
from services.submission import (
    KEY_LIFE,
    Caller,
    FieldError,
    MessageOptions,
    Refused,
    RequestedOptions,
    SubmissionValidator,
    callback_lane,
    check_number,
    check_text,
    earlier_responses,
    kind_in_bulk,
    repeat_response,
    validated_recipient,
)
from services.transitions import TransitionPublisher
from services.workflow_client import WorkflowClient
from services.workflow_starts import schedule_reconcile_now
from services.yielding_slices import timed_slices, yielding_slices
from store import batches as store
from store import bulk_messages, bulks, idempotency
from store.batches import Refusal, StatusCount, StoredBatch
from store.bulk_messages import NewKind, NewMessages
from store.bulks import IdRange
from store.database import Connection, Database
from store.transitions import refresh_status
from telemetry import metrics
from telemetry.logs import get_logger
from telemetry.tracing import current_traceparent
from workflows.ports.bulk import bulk_workflow_id

_log = get_logger(__name__)

MOST_RECIPIENTS: Final = 10_000
"""In one request."""

_MOST_ERRORS: Final = 20
"""Refusals listed in the error of a request of which nothing can be sent."""

MOST_CHARACTERS: Final = MOST_RECIPIENTS * 10 * 160
"""Of all texts of one batch together: ten segments for each of the most recipients."""

_RESULTS_AT_ONCE: Final = 1000
"""Results that are made in one go: some two milliseconds."""


@value
class Recipient:
    """One recipient of a batch: with the batch's text and these variables, or with a text of its own."""

    to: str
    variables: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCommand(RequestedOptions):
    """A batch as it is requested.

    Two requests with one idempotency key are the same if their `digest` is equal.
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

    batch: StoredBatch
    counts: Sequence[StatusCount]

    @property
    def open(self) -> int:
        """How many of its messages are not final."""
        return sum(row.messages for row in self.counts if row.open)

    @property
    def status(self) -> str:
        """Canceled (if that ended anything), paused, running, or finished."""
        ended_early = any(row.status is MessageStatus.CANCELED for row in self.counts)
        if self.batch.canceled_at is not None and (self.open or ended_early):
            return "canceled"
        if not self.open:
            return "finished"
        return "paused" if self.batch.paused_at is not None else "running"


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

    options: MessageOptions | None
    errors: list[FieldError]
    new: NewMessages = field(default_factory=NewMessages)
    refusals: list[Refusal] = field(default_factory=list)

    def good(self) -> MessageOptions:
        """What holds for all messages.

        Raises:
            Refused: nothing can be sent.
        """
        if self.options is None or self.errors:
            raise Refused(self.errors)
        if not self.new.ids:
            listed = [_of(refusal) for refusal in self.refusals[:_MOST_ERRORS]]
            raise Refused(listed, more=len(self.refusals) - len(listed))
        return self.options


class Batches:
    """Accepts batches, reports their progress, and pauses, resumes and cancels them."""

    def __init__(
        self,
        database: Database,
        reads: Database,
        configurations: Configurations,
        workflow_client: WorkflowClient,
        publisher: TransitionPublisher,
        checks: SubmissionValidator,
        recipient_hash: RecipientHash,
        billing: Billing,
    ) -> None:
        self._database = database
        self._reads = reads
        self._configurations = configurations
        self._workflow_client = workflow_client
        self._publisher = publisher
        self._checks = checks
        self._recipient_hash = recipient_hash
        self._billing = billing

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
        key = caller.idempotency_key(idempotency_key or "")
        request_hash = b"batch" + command.digest
        async with self._database.begin() as connection:
            if idempotency_key is not None:
                known = await earlier_responses(connection, {key: request_hash}, now)
                if key in known:
                    batch_id = repeat_response(known[key])["batch_id"]
                    return await self._again(connection, caller, batch_id)
            options, new = checked.good(), checked.new
            batch = await self._write(
                connection, caller, command, options, new, checked.refusals, now
            )
            if idempotency_key is not None:
                idempotency.keep(
                    connection,
                    {key: (request_hash, {"batch_id": _public(batch.id_range.bulk_id)})},
                    at=now,
                    expires_at=now + KEY_LIFE,
                )
            view = await self._view(connection, caller, _public(batch.id_range.bulk_id))
        for country, count in Counter(new.countries).items():
            metrics.message_accepted(
                mode=command.mode,
                environment=caller.environment.value,
                country=country,
                runner="batch",
                messages=count,
            )
        bulk_id = _public(batch.id_range.bulk_id)
        _log.info("batch_accepted", bulk_id=bulk_id, mode=command.mode, count=len(new.ids))
        started = await self._workflow_client.start_bulk(
            bulk_id,
            priority=options.priority,
            mode=command.mode.value,
            account=caller.account_id,
        )
        if not started:
            await schedule_reconcile_now(self._database, now, bulk=batch.id_range.bulk_id)
        made = zip(new.positions, new.ids, new.encodings, new.segments, strict=True)
        return AcceptedBatch(view, await _results(made, checked.refusals))

    async def _again(self, connection: Connection, caller: Caller, batch_id: str) -> AcceptedBatch:
        """What is answered for a stored batch."""
        view = await self._view(connection, caller, batch_id)
        accepted, refused = await store.results(connection, view.batch)
        made = ((row.position, row.id, row.encoding, row.segments) for row in accepted)
        return AcceptedBatch(view, await _results(made, refused), replayed=True)

    async def _check(self, caller: Caller, command: BatchCommand, now: datetime) -> "_Checked":
        """Look at what is the same for all, and at every recipient."""
        options, errors = self._checks.options(caller, command, now)
        max_segments = self._configurations.current.account(caller.account_id).max_segments
        texts, more = _Texts.of(command, max_segments)
        checked = _Checked(options, [*more, *errors])
        if options is None or texts is None:
            return checked
        new = checked.new
        traceparent = current_traceparent()
        seen: dict[tuple[str, str], int] = {}
        async for position, recipient in timed_slices(enumerate(command.recipients)):
            number, wrong = check_number(recipient.to)
            text, more = texts.of_recipient(recipient)
            if texts.characters > MOST_CHARACTERS:
                checked.errors.append(_too_many_characters())
                return checked
            if number is None or text is None:
                checked.refusals.extend(
                    Refusal(position, error.field, error.reason, error.sentence)
                    for error in (*wrong, *more)
                )
                continue
            found = validated_recipient(number, text)
            first = seen.setdefault((number.e164, found.text.text), position)
            if first != position:
                checked.refusals.append(_duplicate(position, first))
                continue
            new.add(
                uuid7(),
                number=number,
                number_hash=self._recipient_hash.of(number.e164),
                text=text,
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
        options: MessageOptions,
        new: NewMessages,
        refusals: Sequence[Refusal],
        now: datetime,
    ) -> NewKind:
        bulk_id = uuid7()
        id_range = IdRange(bulk_id, new.ids[0], new.ids[-1], bulk_workflow_id(_public(bulk_id)))
        batch = kind_in_bulk(
            id_range,
            caller,
            options,
            lane_id=await callback_lane(connection, caller, options),
            config_version=self._configurations.version,
            at=now,
            parameters=command.parameters,
        )
        await self._billing.reserve(connection, caller.account_id, bulk_id, sum(new.segments))
        bulks.insert(
            connection,
            id_range,
            len(new.ids),
            now,
            priority=options.priority,
            check_by=deadlines.reconcile_start_at(now),
        )
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
        async with self._reads.begin() as connection:
            return await self._view(connection, caller, batch_id)

    async def listed(self, caller: Caller, *, before: UUID | None, limit: int) -> list[BatchView]:
        """Batches, newest first.

        Raises:
            QueryTooWide: too many messages would have to be counted.
        """
        async with listing(self._reads, narrows="give a smaller `limit`") as connection:
            rows = await store.listed(
                connection, caller.account_id, caller.environment.value, before, limit
            )
            counts = await store.counts(connection, rows)
        return [BatchView(row, counts[row.id]) for row in rows]

    async def results(self, caller: Caller, batch_id: str) -> AcceptedBatch:
        """What became of each recipient when the batch was accepted.

        Raises:
            UnknownBatch: the caller has none with this id.
        """
        async with self._reads.begin() as connection:
            return await self._again(connection, caller, batch_id)

    async def pause(self, caller: Caller, batch_id: str) -> BatchView:
        """Let nothing more of it leave until it is resumed.

        Raises:
            UnknownBatch, BatchOver.
        """
        async with self._database.begin() as connection:
            view = await self._still_going(connection, caller, batch_id)
            bulks.pause(connection, view.batch.id, datetime.now(UTC))
            view = await self._view(connection, caller, batch_id)
        await self._signal(view)
        return view

    async def resume(self, caller: Caller, batch_id: str) -> BatchView:
        """Let it go on.

        Raises:
            UnknownBatch, BatchOver.
        """
        async with self._database.begin() as connection:
            view = await self._still_going(connection, caller, batch_id)
            bulks.resume(connection, view.batch.id, datetime.now(UTC))
            view = await self._view(connection, caller, batch_id)
        await self._signal(view)
        return view

    async def cancel(self, caller: Caller, batch_id: str) -> BatchView:
        """End every message that no provider has; submitted messages are not affected.

        Raises:
            UnknownBatch.
        """
        now = datetime.now(UTC)
        async with self._database.begin() as connection:
            view = await self._view(connection, caller, batch_id)
            ended = await bulks.cancel(connection, id_range_of(view.batch), now)
            transitions = await refresh_status(connection, ended, actor=caller.key_id, at=now)
            view = await self._view(connection, caller, batch_id)
        self._publisher.publish(transitions)
        await self._signal(view)
        return view

    async def _view(self, connection: Connection, caller: Caller, batch_id: str) -> BatchView:
        uuid = parse_id(IdPrefix.BATCH, batch_id)
        if uuid is None:
            raise UnknownBatch
        row = await store.one(connection, caller.account_id, caller.environment.value, uuid)
        if row is None:
            raise UnknownBatch
        counts = await store.counts(connection, [row])
        return BatchView(row, counts[row.id])

    async def _still_going(
        self, connection: Connection, caller: Caller, batch_id: str
    ) -> BatchView:
        view = await self._view(connection, caller, batch_id)
        if view.batch.canceled_at is not None:
            raise BatchOver
        return view

    async def _signal(self, view: BatchView) -> None:
        """Let the batch's runner look at its rows anew, and those of messages that have left it."""
        id_range = id_range_of(view.batch)
        self._publisher.signal_runner(id_range.owner, MessageStatus.QUEUED.value)
        async with self._database.begin() as connection:
            bulks.check_promoted(connection, id_range, datetime.now(UTC))


async def _results(
    made: Iterable[tuple[int | None, UUID, str, int]], refusals: Sequence[Refusal]
) -> list[Result]:
    """What became of each recipient, in order; of several refusals of one, the first is given.

    `made` has position, id, encoding and segments of each message.
    """
    results = [
        Result(position, public_id(IdPrefix.MESSAGE, uuid), encoding, segments)
        async for some in yielding_slices(made, _RESULTS_AT_ONCE)
        for position, uuid, encoding, segments in some
        if position is not None
    ]
    in_order = sorted(refusals, key=lambda refusal: (refusal.position, refusal.field))
    first = {refusal.position: refusal for refusal in reversed(in_order)}
    results += [Result(position, refusal=refusal) for position, refusal in first.items()]
    return sorted(results, key=lambda result: result.position)


_Text: TypeAlias = tuple[Segmented | None, list[FieldError]]
"""A text as it will be sent, or what is wrong with it."""


class _Texts:
    """The texts of one batch. A length is computed before the text is made.

    Attributes:
        characters: how many the texts had so far together, with a place counted as one more.
    """

    def __init__(self, template: Template | None, *, smart: bool, max_segments: int) -> None:
        self._template = template
        self._smart = smart
        self._max_segments = max_segments
        self._longest = longest_text(max_segments, smart=smart)
        # The same for all, and so looked at once.
        self._same = None
        if template is not None and not template.names:
            self._same = self._checked(template.literals[0])
        self.characters = 0

    @classmethod
    def of(cls, command: BatchCommand, max_segments: int) -> tuple[Self | None, list[FieldError]]:
        """Look at the batch's own text; None if there is a fault in it."""
        smart, template = command.smart_encoding, None
        if command.body is not None:
            try:
                template = Template.parse(command.body, longest_text(max_segments, smart=smart))
            except InvalidTemplate as error:
                return None, [FieldError("body", "invalid_template", str(error))]
            except TooLong:
                return None, [_too_long(max_segments)]
        return cls(template, smart=smart, max_segments=max_segments), []

    def of_recipient(self, recipient: Recipient) -> _Text:
        """The text for one recipient."""
        if recipient.body is not None:
            self.characters += len(recipient.body)
            return self._checked(recipient.body)
        if self._same is not None:
            return self._same
        if self._template is None:
            sentence = "There is no text for this recipient: give it one, or give the batch one."
            return None, [FieldError("body", "missing_body", sentence)]
        try:
            length = self._template.length(recipient.variables)
        except MissingVariable as missing:
            sentence = (
                f"The text uses {{{missing.name}}}, but this recipient has no variable of that "
                "name: add it to the recipient's `variables`."
            )
            return None, [FieldError("variables", "missing_variable", sentence)]
        if length > self._longest:
            return None, [_too_long(self._max_segments)]
        self.characters += length + len(self._template.names)
        if self.characters > MOST_CHARACTERS:
            return None, []
        return self._checked(self._template.fill(recipient.variables))

    def _checked(self, text: str) -> _Text:
        return check_text(text, smart=self._smart, max_segments=self._max_segments)


def _too_long(max_segments: int) -> FieldError:
    return FieldError("body", "body_too_long", str(TooManyParts(max_segments + 1, max_segments)))


def _too_many_characters() -> FieldError:
    return FieldError(
        "recipients",
        "batch_too_long",
        f"The texts of this batch have more than {MOST_CHARACTERS} characters together: send it in "
        "several batches.",
    )


def _duplicate(position: int, first: int) -> Refusal:
    return Refusal(
        position,
        "to",
        "duplicate_recipient",
        f"The recipient at index {first} of this request has the same number and the same text: "
        "nobody gets the same message twice from one batch.",
    )


def _of(refusal: Refusal) -> FieldError:
    return FieldError(
        f"recipients.{refusal.position}.{refusal.field}", refusal.reason, refusal.sentence
    )


def _public(bulk_id: UUID) -> str:
    return public_id(IdPrefix.BATCH, bulk_id)

"""The steps of one message's delivery, each one transaction: decide, claim, record, cancel_at_provider."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain import deadlines
from domain.configuration import ProviderConfiguration
from domain.delivery import CancelAtProvider, Submit
from domain.ids import IdPrefix, parse_id, public_id
from domain.modes import MissingReceiptPolicy, Mode
from domain.outcomes import PartOutcome
from domain.receipt_tokens import ReceiptTokens
from domain.states import MessageStatus, PartStatus
from providers.base import LateResponse, Outbound
from services.configuration import Configurations
from services.decisions import Decided, MessageDecisions
from services.outcomes import as_change, until_written
from services.receipt_correlator import ReceiptCorrelator
from services.references import part_method, reference_of, take_references, with_reference
from services.routes import receipt_by, receipt_wait, unknown_until
from services.transitions import TransitionPublisher
from store import attempts, events, messages
from store.attempts import Claim
from store.database import Connection, Database
from store.events import WORKFLOW
from store.transitions import Transition, lock, refresh_status
from workflows.ports.send import MessageRef, Step, send_workflow_id


@dataclass(frozen=True, slots=True)
class Loaded:
    """A message on its way to a provider, and what its trace and its metrics need."""

    outbound: Outbound
    mode: Mode
    accepted_at: datetime
    valid_until: datetime
    receipt_deadline: timedelta | None
    missing_receipt: MissingReceiptPolicy | None
    traceparent: str | None
    first: bool
    """Whether this is the first attempt of all."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The right to send parts of a message; none is started later than `start_within` from now."""

    outbound: Outbound
    parts: Sequence[int]
    start_within: timedelta


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What cancelling an attempt at its provider needs.

    Attributes:
        sender, recipient: as they were submitted.
        ids: the provider's, of each part; None where it gave none.
        within: how long the responses are waited for, all together.
    """

    sender: str = field(repr=False)
    recipient: str = field(repr=False)
    ids: Sequence[str | None]
    within: timedelta


class Delivery:
    """What `activities.send` does between Temporal and the provider."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        publisher: TransitionPublisher,
        correlator: ReceiptCorrelator,
        decisions: MessageDecisions,
        receipt_tokens: ReceiptTokens,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._publisher = publisher
        self._correlator = correlator
        self._decisions = decisions
        self._receipt_tokens = receipt_tokens

    async def decide(self, ref: MessageRef, now: datetime) -> Step:
        """Decide about a message and store the decision."""
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            message = messages.stored(connection, message_id, locked=True)
            decided = await self._decisions.next_step(
                connection, message_id, ref.epoch, message, now
            )
        self._publish(decided)
        return decided.step

    def _publish(self, decided: Decided) -> None:
        self._publisher.publish(decided.transitions, runner_knows=True)
        self._publisher.wake(decided.lanes)

    async def load(self, ref: MessageRef, submit: Submit, now: datetime) -> Loaded | None:
        """Read what a provider is handed; None if there is nothing to send any more."""
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            found = messages.content(connection, message_id)
            tried = await attempts.of_message(connection, message_id) if submit.resume else ()
            made = await attempts.parts_of_message(connection, message_id) if submit.resume else ()
        content = await found
        begun = next((attempt for attempt in tried if attempt.number == submit.number), None)
        if content is None or content.body is None or content.recipient is None:
            return None
        until = receipt_by(
            self._configurations.current,
            submit.provider,
            content.mode,
            content.receipt_deadline,
            content.valid_until,
            now,
            alternatives=submit.alternatives,
            missing_receipt=content.missing_receipt,
        )
        return Loaded(
            outbound=Outbound(
                message_id=message_id,
                attempt=submit.number,
                sender=content.sender,
                recipient=content.recipient,
                text=content.body,
                reference=begun.reference if begun else reference_of(message_id, submit.number),
                part_method=begun.part_method if begun else None,
                parts=sum(part.attempt == submit.number for part in made) if begun else None,
                valid_until=content.valid_until,
                priority=content.priority,
                receipt_wait=receipt_wait(until, content.missing_receipt, now),
                receipt_token=self._receipt_tokens.token(message_id, submit.number),
                country=content.country,
                parameters=content.parameters or {},
            ),
            mode=content.mode,
            accepted_at=content.accepted_at,
            valid_until=content.valid_until,
            receipt_deadline=content.receipt_deadline,
            missing_receipt=content.missing_receipt,
            traceparent=content.traceparent,
            first=submit.number == 1,
        )

    async def claim(
        self,
        ref: MessageRef,
        submit: Submit,
        loaded: Loaded,
        *,
        parts: int,
        now: datetime,
    ) -> Claimed | None:
        """Write the attempt, unless something forbids it; the parts to be sent now.

        None where nothing may be sent; a permanent reason has ended the message.
        """
        began = time.monotonic()
        provider = self._configurations.current.providers[submit.provider]
        outbound = loaded.outbound
        wanted = self._as_claim(ref, submit, loaded, provider, parts, now)
        async with self._database.begin() as connection:
            if parts > 1 and not submit.resume:
                taken = await take_references(connection, {outbound.message_id: parts}, now)
                outbound = with_reference(outbound, taken)
                wanted = replace(
                    wanted,
                    reference=outbound.reference,
                    part_method=part_method(provider, outbound),
                )
            write = attempts.resume if submit.resume else attempts.claim
            granted = write(connection, wanted)
            transitions = refresh_status(
                connection,
                [wanted.message_id],
                actor=WORKFLOW,
                at=now,
                check_by=deadlines.reconcile_at(wanted.response_by),
            )
        self._publisher.publish(await transitions, runner_knows=True)
        parts_granted = (await granted).parts
        if not parts_granted:
            return None
        took = timedelta(seconds=time.monotonic() - began)
        within = deadlines.start_within(provider.response_timeout, parts) - took
        return Claimed(outbound, parts_granted, within)

    def _as_claim(
        self,
        ref: MessageRef,
        submit: Submit,
        loaded: Loaded,
        provider: ProviderConfiguration,
        parts: int,
        now: datetime,
    ) -> Claim:
        """The claim as the store takes it."""
        outbound = loaded.outbound
        return Claim(
            message_id=outbound.message_id,
            epoch=ref.epoch,
            number=submit.number,
            provider=submit.provider,
            parts=parts,
            part_method=part_method(provider, outbound),
            reference=outbound.reference,
            at=now,
            response_by=deadlines.response_by(now, provider.response_timeout, parts),
            receipt_by=receipt_by(
                self._configurations.current,
                submit.provider,
                loaded.mode,
                loaded.receipt_deadline,
                loaded.valid_until,
                now,
                alternatives=submit.alternatives,
                missing_receipt=loaded.missing_receipt,
            ),
            config_version=self._configurations.version,
        )

    async def record(
        self,
        ref: MessageRef,
        submit: Submit,
        outcomes: Sequence[PartOutcome],
        clock: Callable[[], datetime],
    ) -> Step:
        """Write what came of an attempt, meet the receipts that were quicker, and decide anew.

        What is known is not given up while the database is away for a while: else a message that
        was accepted would count as unknown. A runner that has stopped waiting meanwhile is signalled.
        """
        step, tries = await until_written(
            lambda: self._record(ref, submit, outcomes, clock()),
            message_id=ref.message_id,
            provider=submit.provider,
        )
        if tries > 1:
            self._publisher.signal_runner(
                send_workflow_id(ref.message_id), MessageStatus.SENDING.value
            )
        ids = [outcome.provider_message_id for outcome in outcomes]
        self._publisher.afterwards(self._correlator.rematch(submit.provider, ids))
        return step

    async def _record(
        self, ref: MessageRef, submit: Submit, outcomes: Sequence[PartOutcome], now: datetime
    ) -> Step:
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            message = messages.stored(connection, message_id, locked=True)
            attempts.record(
                connection,
                [as_change(message_id, submit.number, outcomes)],
                at=now,
                unknown_until=unknown_until(self._configurations.current, submit.provider, now),
            )
            early = await self._apply_early_receipts(
                connection, submit.provider, message_id, outcomes, now
            )
            transitions = refresh_status(
                connection,
                [message_id],
                actor=WORKFLOW,
                at=now,
                check_by=deadlines.reconcile_at(now),
            )
            decided = await self._decisions.next_step(
                connection, message_id, ref.epoch, message, now
            )
        mine = [
            transition
            for transition in [*early, *await transitions, *decided.transitions]
            if transition.message_id == message_id
        ]
        others = [transition for transition in early if transition.message_id != message_id]
        self._publisher.publish(mine, runner_knows=True)
        self._publisher.publish(others)
        self._publisher.wake(decided.lanes)
        return decided.step

    async def record_late(self, response: LateResponse) -> None:
        """Write a response that came after its attempt became unknown, and notify the runner."""
        transitions, _ = await until_written(
            lambda: self._record_late(response),
            message_id=public_id(IdPrefix.MESSAGE, response.message_id),
            provider=response.provider,
        )
        self._publisher.publish(transitions)
        await self._correlator.rematch(response.provider, [response.outcome.provider_message_id])

    async def _record_late(self, response: LateResponse) -> list[Transition]:
        now = datetime.now(UTC)
        outcome = response.outcome
        async with self._database.begin() as connection:
            lock(connection, [response.message_id])
            message = await messages.content(connection, response.message_id)
            tried = await attempts.of_message(connection, response.message_id)
            sent_again = any(attempt.number > response.attempt for attempt in tried)
            attempts.record(
                connection,
                [as_change(response.message_id, response.attempt, [outcome])],
                at=now,
                unknown_until=None,
                # If it was sent again meanwhile, the next route has had it; if not, that is still to come.
                receipt_by=receipt_by(
                    self._configurations.current,
                    response.provider,
                    message.mode,
                    message.receipt_deadline,
                    message.valid_until,
                    now,
                    alternatives=0 if sent_again else 1,
                    missing_receipt=message.missing_receipt,
                )
                if message is not None
                else None,
            )
            early = await self._apply_early_receipts(
                connection, response.provider, response.message_id, [outcome], now
            )
            transitions = await refresh_status(
                connection,
                [response.message_id],
                actor="provider",
                at=now,
                check_by=deadlines.reconcile_at(now),
            )
        return [*early, *transitions]

    async def _apply_early_receipts(
        self,
        connection: Connection,
        provider: str,
        message_id: UUID,
        outcomes: Sequence[PartOutcome],
        now: datetime,
    ) -> list[Transition]:
        """Let receipts that were quicker than the response find their parts."""
        ids = [o.provider_message_id for o in outcomes if o.provider_message_id is not None]
        if not ids:
            return []
        return await self._correlator.match_within(connection, provider, ids, message_id, now)

    async def begin_cancel(
        self, ref: MessageRef, cancel_at_provider: CancelAtProvider
    ) -> Cancellation | None:
        """Record the try to cancel an attempt; what it needs, or None if it was tried before."""
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            begun = attempts.begin_cancel(connection, message_id, cancel_at_provider.number)
            found = messages.content(connection, message_id)
            parts = await attempts.parts_of_message(connection, message_id)
        content = await found
        if not await begun:
            return None
        provider = self._configurations.current.providers.get(cancel_at_provider.provider)
        if content is None or content.recipient is None or provider is None:
            return Cancellation("", "", (), timedelta())
        return Cancellation(
            content.sender,
            content.recipient,
            [
                part.provider_message_id
                for part in parts
                if part.attempt == cancel_at_provider.number and part.status not in _NOT_TAKEN
            ],
            deadlines.cancel_within(provider.response_timeout),
        )

    async def cancelled_at_provider(
        self, ref: MessageRef, cancel_at_provider: CancelAtProvider, *, done: bool, now: datetime
    ) -> Step:
        """Record whether the provider forgot an attempt, and decide anew."""
        message_id = _uuid(ref)
        async with self._database.begin() as connection:
            message = messages.stored(connection, message_id, locked=True)
            attempts.cancelled_at_provider(
                connection, message_id, cancel_at_provider.number, done=done
            )
            events.append(
                connection,
                message_id,
                "cancelled_at_provider",
                actor=WORKFLOW,
                at=now,
                attempt=cancel_at_provider.number,
                provider=cancel_at_provider.provider,
                reason="cancelled_at_provider" if done else "refused",
            )
            decided = await self._decisions.next_step(
                connection, message_id, ref.epoch, message, now
            )
        self._publish(decided)
        return decided.step


_NOT_TAKEN = frozenset({PartStatus.REFUSED, PartStatus.THROTTLED, PartStatus.UNREACHABLE})
"""What parts are that their provider certainly does not have."""


def _uuid(ref: MessageRef) -> UUID:
    found = parse_id(IdPrefix.MESSAGE, ref.message_id)
    if found is None:
        message = f"{ref.message_id!r} is no message id"
        raise ValueError(message)
    return found

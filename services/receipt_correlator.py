"""Where receipts and responses meet that were committed at the same moment (docs/decisions/0013)."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from domain.receipts import ReceiptState
from services.receipt_rules import GRACE, ReceiptRules
from services.transitions import TransitionPublisher
from store.attempts import AttemptChange
from store.database import DATABASE_ERRORS, Connection, Database
from store.receipts.ingest import StoredReceipt
from store.receipts.match import Matched, match
from store.receipts.unmatched import waiting as waiting_ids
from store.receipts.with_response import EarlyReceipt, record_delivered
from store.transitions import Transition
from telemetry.logs import get_logger

__all__ = ["GRACE", "PendingOutcomes", "ReceiptCorrelator"]

_log = get_logger(__name__)

_WRITTEN_WITHIN: Final = 1.0
"""Seconds that receipts wait for their answers to be written, and then for these to have been.

Without the database neither would be."""

_FEW = 1000
"""Receipts without a part of which all are read."""


class PendingOutcomes:
    """Responses of a provider that are written together, in a moment, with receipts that came before."""

    def __init__(self, known: dict[str, "PendingOutcomes"]) -> None:
        self._known = known
        self._ids: list[str] = []
        self._kept: dict[str, tuple[EarlyReceipt, Callable[[bool], None]]] = {}
        self._gathering = True
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, provider_message_ids: Iterable[str | None]) -> None:
        """These answers are to be written, too."""
        ids = [each for each in provider_message_ids if each is not None]
        self._known.update(dict.fromkeys(ids, self))
        self._ids += ids

    def hold(self, its_id: str, receipt: EarlyReceipt, notify: Callable[[bool], None]) -> bool:
        """As `ReceiptCorrelator.hold`."""
        if not self._gathering or its_id in self._kept:
            return False
        if not self._kept:
            asyncio.get_running_loop().call_later(_WRITTEN_WITHIN, self._leave)
        self._kept[its_id] = receipt, notify
        return True

    def _leave(self) -> None:
        """Return the kept receipts to their receivers, which write them alone."""
        kept, self._kept = self._kept, {}
        for _, notify in kept.values():
            notify(False)

    @contextmanager
    def receipts(self) -> Iterator[tuple[Mapping[str, EarlyReceipt], set[str]]]:
        """The receipts to write with their responses, by their ids, and a set for those that were.

        None is kept from now on. At the end of the block, the receivers of receipts that are not in
        the set write them alone; if the block raises, all receivers do.
        """
        self._gathering = False
        kept, self._kept = self._kept, {}
        written: set[str] = set()
        try:
            yield {each: receipt for each, (receipt, _) in kept.items()}, written
        except BaseException:
            written.clear()
            raise
        finally:
            for each, (_, notify) in kept.items():
                notify(each in written)

    def written(self) -> None:
        """They are written, or cannot be."""
        self._leave()
        for each in self._ids:
            if self._known.get(each) is self:
                del self._known[each]
        self.end.set_result(None)


class ReceiptCorrelator:
    """Both sides of the race: who is early waits for what this process is about to write.

    What another process writes is met by a second look, after what each side wrote is committed.
    """

    def __init__(
        self, database: Database, publisher: TransitionPublisher, rules: ReceiptRules
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._rules = rules
        self._unwritten: dict[str, dict[str, PendingOutcomes]] = {}

    def responses(self, provider: str) -> PendingOutcomes:
        """Where answers are gathered that are not written yet."""
        return PendingOutcomes(self._unwritten.setdefault(provider, {}))

    def hold(self, receipt: StoredReceipt, notify: Callable[[bool], None]) -> bool:
        """Hold a receipt to write it with its response, if that is being gathered just now.

        If so, `notify` is called with whether both were committed: if not, the receipt is to be written
        by itself. Only a receipt that reports a delivery, and nothing more, is held. A receipt that names
        its part is not held, because it needs no id to be matched.
        """
        if (
            receipt.state is not ReceiptState.DELIVERED
            or receipt.network
            or receipt.part is not None
        ):
            return False
        its_id = receipt.provider_message_id
        unwritten = next(self._gathering(receipt.provider, [its_id]), None)
        if unwritten is None:
            return False
        early = EarlyReceipt(
            receipt.code,
            receipt.received_at,
            receipt.done_at,
            receipt.reference,
            receipt.number_hash,
            receipt.destination_hash,
        )
        return unwritten.hold(its_id, early, notify)

    def _gathering(self, provider: str, ids: Iterable[str]) -> Iterator[PendingOutcomes]:
        """The gathered answers with these ids, of the provider and of its receipt group."""
        if not any(self._unwritten.values()):
            return
        for name in self._rules.providers(provider):
            known = self._unwritten.get(name)
            if known:
                yield from (known[each] for each in ids if each in known)

    async def until_written(self, provider: str, ids: Sequence[str]) -> None:
        """Wait for those answers with these ids that are being gathered, for a second at most."""
        ends = {unwritten.end for unwritten in self._gathering(provider, ids)}
        if ends:
            await asyncio.wait(ends, timeout=_WRITTEN_WITHIN)

    async def record_delivered(
        self,
        connection: Connection,
        provider: str,
        changes: Sequence[AttemptChange],
        kept: Mapping[str, EarlyReceipt],
        *,
        actor: str,
        at: datetime,
    ) -> list[Transition]:
        """Write answers together with the receipts that were kept for them, as far as these have come."""
        names = self._rules.providers(provider)
        return await record_delivered(connection, names, changes, kept, actor=actor, at=at)

    async def match_within(
        self,
        connection: Connection,
        provider: str,
        ids: Sequence[str],
        message_id: UUID,
        at: datetime,
    ) -> list[Transition]:
        """Let receipts that were quicker than a response find its parts; the message's row is locked."""
        matched = await match(
            connection,
            self._rules.providers(provider),
            ids,
            self._rules.effects(),
            at=at,
            within=[message_id],
        )
        return list(matched.transitions)

    async def rematch(
        self, provider: str, ids: Sequence[str | None], came: Sequence[int] | None = None
    ) -> Matched:
        """Match receipts with these ids to parts, and publish the transitions.

        With `came` only the receipts of these rows, and those that may be for the same recipients.
        Never raises: what fails here is found by the next `match_late`.
        """
        known = [each for each in ids if each is not None]
        if not known:
            return Matched()
        names = self._rules.providers(provider)
        try:
            async with self._database.begin() as connection:
                # Mostly none waits, or a few do; to look for each id costs more than all of them.
                waiting = await waiting_ids(connection, names, _FEW)
                if waiting is not None:
                    known = [each for each in known if each in waiting]
                if not known:
                    return Matched()
                matched = await match(
                    connection,
                    names,
                    known,
                    self._rules.effects(),
                    at=datetime.now(UTC),
                    came=came,
                )
        except DATABASE_ERRORS as error:
            _log.warning("receipts_not_met", provider=provider, error_type=type(error).__name__)
            return Matched()
        self._publisher.publish(matched.transitions)
        return matched

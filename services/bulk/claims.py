"""Reads the messages of a bulk that a provider should get, and claims them before they are sent."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final
from uuid import UUID

from domain import deadlines
from domain.claims import Refusal
from domain.configuration import Configuration, ProviderConfiguration
from domain.delivery import RouteOption, Standing, Submit
from domain.modes import MissingReceiptPolicy, Mode
from domain.receipt_tokens import ReceiptTokens
from providers.base import Outbound, Provider
from services.bulk.decisions import BulkDecisions, Decided, never_tried
from services.configuration import Configurations
from services.references import part_method, reference_of, take_references, with_reference
from services.routes import Routes, receipt_by, receipt_wait
from services.transitions import TransitionPublisher
from services.yielding_slices import yielding_slices
from store import bulks
from store.bulks import ClaimOfMany, IdRange, ReadyMessage
from store.database import Connection, Database
from store.events import WORKFLOW

_PAGE: Final = 1000
"""Rows that are read at once."""
PREPARED_AT_ONCE: Final = 25
"""Messages that are prepared or submitted before other tasks run: some two milliseconds of work, so that
single messages do not wait for longer."""


@dataclass(slots=True)
class Ready:
    """A message that a provider should get, and what its claim needs.

    Attributes:
        slot_by, start_by: when it must have its slot, and when its last part must have started, on the
            monotonic clock; set by its claim.
    """

    outbound: Outbound
    epoch: int
    submit: Submit
    parts: int
    accepted_at: datetime
    valid_until: datetime
    receipt_deadline: timedelta | None
    missing_receipt: MissingReceiptPolicy | None
    mode: Mode
    decided: Decided
    slot_by: float = 0.0
    start_by: float = 0.0


class BulkClaims:
    """Reads and claims the messages of bulks for one provider at a time."""

    def __init__(
        self,
        database: Database,
        configurations: Configurations,
        publisher: TransitionPublisher,
        routes: Routes,
        receipt_tokens: ReceiptTokens,
    ) -> None:
        self._database = database
        self._configurations = configurations
        self._publisher = publisher
        self._routes = routes
        self._receipt_tokens = receipt_tokens

    async def ready(
        self, id_range: IdRange, provider: Provider, after: UUID, now: datetime
    ) -> tuple[list[Ready], UUID | None]:
        """The next messages for this provider, and the id of the last row of the page, if any."""
        async with self._database.begin() as connection:
            decided = await self._decided_page(connection, id_range, after, now)
        found: list[Ready] = []
        async for some in yielding_slices(decided, PREPARED_AT_ONCE):
            for row, each in some:
                decision = each.decision
                if (
                    isinstance(decision, Submit)
                    and decision.provider == provider.name
                    and not decision.resume
                ):
                    token = self._receipt_tokens.token(row.id, decision.number)
                    found.append(_as_ready(row, each, decision, provider, token))
        return found, decided[-1][0].id if decided else None

    async def _decided_page(
        self, connection: Connection, id_range: IdRange, after: UUID, now: datetime
    ) -> list[tuple[ReadyMessage, Decided]]:
        """Rows after this id, each with what to do about it."""
        stored = bulks.stored(connection, id_range.bulk_id)
        rows = await bulks.ready(connection, id_range, after, now, _PAGE)
        bulk = await stored
        tried = [row.id for row in rows if not never_tried(row)]
        attempts = await bulks.attempts_of(connection, tried)
        if bulk is None:
            return []
        decisions = BulkDecisions(self._routes, connection, self._configurations.current, now, bulk)
        return [(row, await decisions.about(row, attempts.get(row.id, []))) for row in rows]

    async def claim(
        self, id_range: IdRange, provider: Provider, wanted: Sequence[Ready], now: datetime
    ) -> tuple[list[Ready], frozenset[Refusal]]:
        """Write the attempts that nothing forbids; what may be sent, and why others may not."""
        declared = self._configurations.current.providers[provider.name]
        response_bys, receipt_bys = self._set_deadlines(provider.name, wanted, now)
        several = {each.outbound.message_id: each.parts for each in wanted if each.parts > 1}
        async with self._database.begin() as connection:
            if several:
                taken = await take_references(connection, several, now)
                for each in wanted:
                    each.outbound = with_reference(each.outbound, taken)
            claim = self._as_claim(
                id_range, provider.name, declared, wanted, response_bys, receipt_bys, now
            )
            claimed = bulks.claim(connection, claim, actor=WORKFLOW)
        done = await claimed
        self._publisher.publish(done.transitions, runner_knows=True)
        granted = [each for each in wanted if each.outbound.message_id not in done.refused]
        return granted, frozenset(done.refused.values())

    def _as_claim(
        self,
        id_range: IdRange,
        provider: str,
        declared: ProviderConfiguration,
        wanted: Sequence[Ready],
        response_bys: Sequence[datetime],
        receipt_bys: Sequence[datetime],
        now: datetime,
    ) -> ClaimOfMany:
        """The claim as the store takes it; each ranking is in it once."""
        rankings = {id(each.decided.options): each.decided for each in wanted}
        places = {ranking: place for place, ranking in enumerate(rankings, start=1)}
        return ClaimOfMany(
            bulk_id=id_range.bulk_id,
            owner=id_range.owner,
            provider=provider,
            at=now,
            config_version=self._configurations.version,
            ids=[each.outbound.message_id for each in wanted],
            epochs=[each.epoch for each in wanted],
            numbers=[each.submit.number for each in wanted],
            parts=[each.parts for each in wanted],
            methods=[part_method(declared, each.outbound) for each in wanted],
            refs=[each.outbound.reference for each in wanted],
            response_bys=response_bys,
            receipt_bys=receipt_bys,
            kinds=[places[id(each.decided.options)] for each in wanted],
            details=[
                self._routes.explained(each.route, each.options, _standings(each.options, provider))
                for each in rankings.values()
            ],
        )

    def _set_deadlines(
        self, provider: str, wanted: Sequence[Ready], now: datetime
    ) -> tuple[list[datetime], list[datetime]]:
        """Set the deadlines of messages that are claimed now; each one's `response_by` and `receipt_by`."""
        configuration = self._configurations.current
        submit_deadlines = _submit_deadlines(
            configuration.providers[provider].response_timeout, now
        )
        receipt_deadline = _receipt_deadline(configuration, provider, now)
        response_bys: list[datetime] = []
        receipt_bys: list[datetime] = []
        for each in wanted:
            response_by, each.start_by = submit_deadlines(each.parts)
            _, each.slot_by = submit_deadlines(1)
            until = receipt_deadline(
                each.mode,
                each.receipt_deadline,
                each.missing_receipt,
                each.valid_until,
                each.submit.alternatives,
            )
            if until < each.valid_until:
                wait = receipt_wait(until, each.missing_receipt, now)
                each.outbound = replace(each.outbound, receipt_wait=wait)
            response_bys.append(response_by)
            receipt_bys.append(until)
        return response_bys, receipt_bys


def _standings(options: Sequence[RouteOption], chosen: str) -> dict[str, Standing]:
    """Why each provider was chosen or not, as far as that holds for all messages of one ranking."""
    found: dict[str, Standing] = {}
    for option in options:
        if option.provider == chosen:
            found[chosen] = Standing.CHOSEN
        elif not option.up:
            found[option.provider] = Standing.DOWN
        elif chosen in found:
            found[option.provider] = Standing.LOWER
        else:
            found[option.provider] = Standing.TRIED
    return found


def _submit_deadlines(
    response_timeout: timedelta, now: datetime
) -> Callable[[int], tuple[datetime, float]]:
    """By the number of parts: `response_by`, and `start_by` on the monotonic clock.

    Computed once for the thousands of messages that have the same number of parts.
    """
    began = time.monotonic()
    slot_wait = deadlines.CHUNK_SLOT_WAIT

    @cache
    def of_parts(parts: int) -> tuple[datetime, float]:
        within = deadlines.start_within(response_timeout, parts, slot_wait=slot_wait)
        by = deadlines.response_by(now, response_timeout, parts, slot_wait=slot_wait)
        return by, began + within.total_seconds()

    return of_parts


def _receipt_deadline(
    configuration: Configuration, provider: str, now: datetime
) -> Callable[[Mode, timedelta | None, MissingReceiptPolicy | None, datetime, int], datetime]:
    """`services.routes.receipt_by` at one provider and moment; computed once for equal arguments."""

    @cache
    def of_message(
        mode: Mode,
        requested: timedelta | None,
        missing_receipt: MissingReceiptPolicy | None,
        valid_until: datetime,
        alternatives: int,
    ) -> datetime:
        return receipt_by(
            configuration,
            provider,
            mode,
            requested,
            valid_until,
            now,
            alternatives=alternatives,
            missing_receipt=missing_receipt,
        )

    return of_message


def _as_ready(
    row: ReadyMessage, decided: Decided, submit: Submit, provider: Provider, receipt_token: str
) -> Ready:
    """A message for its provider; what depends on the time is computed when it is claimed."""
    outbound = Outbound(
        message_id=row.id,
        attempt=submit.number,
        sender=row.sender,
        recipient=row.recipient,
        text=row.body,
        reference=reference_of(row.id, submit.number),
        valid_until=row.valid_until,
        priority=row.priority,
        receipt_token=receipt_token,
        country=row.country,
        parameters=row.parameters or {},
    )
    return Ready(
        outbound=outbound,
        epoch=row.epoch,
        submit=submit,
        parts=provider.count_parts(outbound),
        accepted_at=row.accepted_at,
        valid_until=row.valid_until,
        receipt_deadline=row.receipt_deadline,
        missing_receipt=row.missing_receipt,
        mode=row.mode,
        decided=decided,
    )

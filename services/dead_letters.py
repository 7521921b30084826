"""Dead letters: messages for which nothing was left to try, and their second chance."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from domain import deadlines
from domain.ids import IdPrefix, parse_id, public_id
from services.configuration import Configurations
from services.reads import listing
from services.submission import Caller, FieldError, Refused
from services.transitions import TransitionPublisher
from services.workflow_client import WorkflowClient
from store import dead_letters as store
from store import events, messages
from store.database import Connection, Database
from store.messages import AccountMessage, RunnableMessage
from store.transitions import Transition, refresh_status
from workflows.ports.send import send_workflow_id

_MOST_COUNTED: Final = 10_000
"""Dead letters, the newest, that are counted by provider."""
_STARTS_AT_ONCE: Final = 16
"""Runners of replayed messages that are started side by side."""
_NARROWS = "leave out `provider`, or give a smaller `limit`"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A message that was not replayed, and why."""

    message_id: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Remaining:
    """Dead letters that a provider had or was offered; None: no route takes them."""

    provider: str | None
    messages: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did.

    `remaining` is for a replay that took nothing: how many dead letters there are, by provider.
    """

    replayed: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    remaining: tuple[Remaining, ...] = ()


class DeadLetters:
    """Lists and replays within one account and environment."""

    def __init__(
        self,
        database: Database,
        reads: Database,
        configurations: Configurations,
        workflow_client: WorkflowClient,
        publisher: TransitionPublisher,
    ) -> None:
        self._database = database
        self._reads = reads
        self._configurations = configurations
        self._workflow_client = workflow_client
        self._publisher = publisher
        self._start_slots = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._starting: set[asyncio.Task[None]] = set()

    async def listed(
        self, caller: Caller, *, provider: str | None, before: UUID | None, limit: int
    ) -> Sequence[AccountMessage]:
        """Dead letters, newest first; with `provider`, those that it had or was offered.

        Raises:
            Refused: there is no such provider.
            QueryTooWide: too many dead letters would have to be looked at.
        """
        async with listing(self._reads, narrows=_NARROWS) as connection:
            found = await store.listed(
                connection,
                caller.account_id,
                caller.environment.value,
                provider=provider,
                before=before,
                limit=limit,
            )
            if not found:
                await self._check_provider(connection, caller, provider)
        return found

    async def replay(
        self,
        caller: Caller,
        *,
        message_ids: Sequence[str] | None,
        provider: str | None,
        limit: int,
    ) -> Replayed:
        """Send dead letters again, with a new epoch and their whole validity.

        Each is taken by compare-and-set: of two replays at once, or of a replay and a late receipt,
        one wins, and the other finds no dead letter. Runners start after the response; a runner that
        does not start is left to the reconciler, as the transaction has set.

        Raises:
            Refused: there is no such provider.
        """
        named = {text: parse_id(IdPrefix.MESSAGE, text) for text in message_ids or ()}
        now = datetime.now(UTC)
        async with self._database.begin() as connection:
            taken = await store.take(
                connection,
                caller.account_id,
                caller.environment.value,
                ids=None if message_ids is None else [u for u in named.values() if u is not None],
                provider=provider,
                limit=limit,
                at=now,
                check_by=deadlines.reconcile_start_at(now),
            )
            messages.give_runners(
                connection,
                {row.id: send_workflow_id(public_id(IdPrefix.MESSAGE, row.id)) for row in taken},
            )
            for row in taken:
                events.append(
                    connection,
                    row.id,
                    "replayed",
                    actor=caller.key_id,
                    at=now,
                    detail={"epoch": row.epoch},
                )
            transitions: list[Transition] = await refresh_status(
                connection, [row.id for row in taken], actor=caller.key_id, at=now
            )
            remaining: Sequence[Remaining] = ()
            if not taken:
                remaining = await self._check_provider(connection, caller, provider)
        self._publisher.publish(transitions, runner_knows=True)
        self._start_runners(taken)
        done = [public_id(IdPrefix.MESSAGE, row.id) for row in taken]
        return Replayed(
            replayed=tuple(done),
            skipped=tuple(
                Skipped(text, "There is no dead letter with this id, or its batch is cancelled.")
                for text in named
                if text not in set(done)
            ),
            remaining=tuple(remaining),
        )

    async def drained(self) -> None:
        """Wait until the start of every runner was tried."""
        while self._starting:
            await asyncio.wait(self._starting)

    def _start_runners(self, taken: Sequence[RunnableMessage]) -> None:
        """Start the runners of replayed messages in the background, by priority."""
        for row in sorted(taken, key=lambda row: (row.priority.rank, row.id)):
            task = asyncio.create_task(self._start(row))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, row: RunnableMessage) -> None:
        async with self._start_slots:  # first come, first served
            await self._workflow_client.start_runner(row)

    async def _check_provider(
        self, connection: Connection, caller: Caller, provider: str | None
    ) -> Sequence[Remaining]:
        """How many dead letters there are, by provider, where none of this one's was found.

        Raises:
            Refused: neither the configuration nor any dead letter knows this provider.
        """
        remaining = [
            Remaining(row.provider, row.messages)
            for row in await store.by_provider(
                connection, caller.account_id, caller.environment.value, most=_MOST_COUNTED
            )
        ]
        known = {each.provider for each in remaining if each.provider is not None}
        if self._configurations.loaded:
            declared = self._configurations.current.providers.items()
            known |= {name for name, one in declared if one.environment is caller.environment}
        if provider is not None and provider not in known:
            names = ", ".join(sorted(known)) or "none"
            raise Refused(
                [
                    FieldError(
                        "provider",
                        "unknown_provider",
                        f"There is no such provider; known: {names}.",
                    )
                ]
            )
        return remaining

"""Dead letters: messages for which nothing was left to try, and their second chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from domain.ids import IdPrefix, parse_id, public_id
from services.announcements import Announcements
from services.asked import Caller
from services.orchestration import Orchestration
from services.starts import START_GRACE
from store import dead_letters as store
from store import events, messages
from store.database import Database, Row
from store.transitions import Transition, settle
from workflows.ports.send import send_workflow_id


@dataclass(frozen=True, slots=True)
class Skipped:
    """A message that was not replayed, and why."""

    message_id: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did."""

    replayed: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


class DeadLetters:
    """Lists and replays within one account and environment."""

    def __init__(
        self, database: Database, orchestration: Orchestration, announcements: Announcements
    ) -> None:
        self._database = database
        self._orchestration = orchestration
        self._announcements = announcements

    async def listed(
        self, caller: Caller, *, provider: str | None, before: UUID | None, limit: int
    ) -> Sequence[Row]:
        """Dead letters, newest first; with `provider`, those whose last attempt was its."""
        async with self._database.begin() as connection:
            return await store.listed(
                connection,
                caller.account_id,
                caller.environment.value,
                provider=provider,
                before=before,
                limit=limit,
            )

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
        one wins, and the other finds no dead letter.
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
                check_by=now + START_GRACE,
            )
            messages.give_runners(
                connection,
                {
                    row["id"]: send_workflow_id(public_id(IdPrefix.MESSAGE, row["id"]))
                    for row in taken
                },
            )
            for row in taken:
                events.append(
                    connection,
                    row["id"],
                    "replayed",
                    actor=caller.key_id,
                    at=now,
                    detail={"epoch": row["epoch"]},
                )
            moves: list[Transition] = await settle(
                connection, [row["id"] for row in taken], actor=caller.key_id, at=now
            )
        self._announcements.tell(moves, runner_knows=True)
        for row in taken:
            await self._orchestration.start_send(
                row["id"],
                row["epoch"],
                mode=row["mode"],
                country=row["country"],
                account=row["account_id"],
            )
        done = [public_id(IdPrefix.MESSAGE, row["id"]) for row in taken]
        return Replayed(
            replayed=tuple(done),
            skipped=tuple(
                Skipped(text, "There is no dead letter with this id.")
                for text in named
                if text not in set(done)
            ),
        )

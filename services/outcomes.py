"""Submit outcomes as the store takes them, and how long the database is retried for them."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar
from uuid import UUID

import psycopg

from domain.outcomes import OutcomeKind, PartOutcome
from store.attempts import AttemptChange, PartRecord
from store.database import DatabaseAway
from telemetry.logs import get_logger

_log = get_logger(__name__)

_Written = TypeVar("_Written")

_RETRY_INTERVAL: Final = 0.5
_GIVE_UP_AFTER: Final = 300.0
"""Seconds. A database that restarts is back in seconds, one that fails over in a minute or two."""

_GRAVITY: Final = {
    OutcomeKind.ACCEPTED: 0,
    OutcomeKind.UNREACHABLE: 1,
    OutcomeKind.THROTTLED: 2,
    OutcomeKind.REFUSED: 3,
    OutcomeKind.UNKNOWN: 4,
}


def as_change(message_id: UUID, number: int, outcomes: Sequence[PartOutcome]) -> AttemptChange:
    """The outcomes of an attempt's parts, as the store takes them; the worst one is the attempt's."""
    worst = outcomes[0]
    if len(outcomes) > 1:
        worst = max(outcomes, key=lambda outcome: _GRAVITY[outcome.kind])
    return AttemptChange(
        message_id=message_id,
        number=number,
        parts=[_as_record(outcome) for outcome in outcomes],
        error_class=worst.error_class.value if worst.error_class else None,
        code=worst.code,
        retry_after=worst.after,
        bind=worst.bind,
    )


def _as_record(outcome: PartOutcome) -> PartRecord:
    return PartRecord(
        number=outcome.number,
        status=outcome.kind.value,
        provider_message_id=outcome.provider_message_id,
        error_class=outcome.error_class.value if outcome.error_class else None,
        code=outcome.code,
        provider_message_id_given=outcome.provider_message_id_given,
        billed_segments=outcome.segments,
        price=outcome.price,
    )


async def until_written(
    write: Callable[[], Awaitable[_Written]], *, message_id: str | None, provider: str
) -> tuple[_Written, int]:
    """Call `write`, and retry it while the database is away; its result, and the number of tries.

    Raises:
        DatabaseAway: it was away for five minutes.
        psycopg.Error: Postgres refuses what is written, and would refuse it each time.
    """
    give_up_at = time.monotonic() + _GIVE_UP_AFTER
    for tries in itertools.count(1):
        try:
            return await write(), tries
        except DatabaseAway as error:
            _log.warning(
                "outcome_not_recorded_yet",
                message_id=message_id,
                provider=provider,
                error_type=type(error).__name__,
                sqlstate=error.sqlstate,
            )
            if time.monotonic() > give_up_at:
                raise
        except psycopg.Error as error:
            _log.error(
                "outcome_refused",
                message_id=message_id,
                provider=provider,
                error_type=type(error).__name__,
                sqlstate=error.sqlstate,
            )
            raise
        await asyncio.sleep(_RETRY_INTERVAL)
    raise AssertionError

"""The outbox: lanes of callbacks, what is due in them, what came of each try, and replays.

A lane is what one account has at one origin. Its `active` says that somebody will look at its rows
without being told: whoever adds rows wakes it only while it is not set.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks import CallbackEvent, CallbackState, Trouble
from domain.states import MessageStatus
from store.database import Connection, Row, sql


@dataclass(frozen=True, slots=True)
class DueCallback:
    """A callback whose time has come, with what its delivery needs."""

    event: CallbackEvent
    url: str
    tries: int


@dataclass(frozen=True, slots=True)
class TriedCallback:
    """What becomes of a callback after a try that began when it had `tries_before` behind it."""

    id: UUID
    tries_before: int
    state: CallbackState
    tries: int
    next_at: datetime
    at: datetime
    status: int | None
    trouble: Trouble | None


@dataclass(frozen=True, slots=True)
class WokenLane:
    """A lane that somebody has to look at."""

    id: UUID
    account_id: str


_LANE = sql("SELECT id FROM callback_lanes WHERE account_id = :account_id AND origin = :origin")
_ADD_LANE = sql("""
INSERT INTO callback_lanes (id, account_id, origin) VALUES (:id, :account_id, :origin)
ON CONFLICT (account_id, origin) DO NOTHING
""")

# In the order of ids, like every statement that takes several lanes.
_WAKE = sql("""
UPDATE callback_lanes SET active = true
WHERE id IN (SELECT id FROM callback_lanes WHERE id = ANY(:ids) AND NOT active
             ORDER BY id FOR UPDATE)
RETURNING id, account_id
""")
_TAKE = sql("""
UPDATE callback_lanes SET active = true WHERE id = :id
RETURNING account_id
""")
_LEAVE = sql("UPDATE callback_lanes SET active = false WHERE id = :id")

# A callback waits for the earlier ones of its message. One that was never tried is due whatever the
# clocks say: the time at which it was written is another machine's.
_DUE = sql("""
SELECT e.id, e.message_id, e.url, e.status, e.provider_code, e.occurred_at, e.tries, r.number
FROM callback_events e
LEFT JOIN messages m ON m.id = e.message_id
LEFT JOIN recipients r ON r.id = m.recipient_id
WHERE e.lane_id = :lane_id AND e.state = 'pending' AND (e.tries = 0 OR e.next_at <= :at)
  AND e.id <> ALL(:under_way)
  AND NOT EXISTS (SELECT FROM callback_events earlier
                  WHERE earlier.message_id = e.message_id AND earlier.state = 'pending'
                    AND earlier.position < e.position)
ORDER BY e.next_at
LIMIT :limit
""")
_NEXT = sql("""
SELECT CASE WHEN e.tries = 0 THEN least(e.next_at, :at) ELSE e.next_at END AS next_at
FROM callback_events e
WHERE e.lane_id = :lane_id AND e.state = 'pending'
  AND NOT EXISTS (SELECT FROM callback_events earlier
                  WHERE earlier.message_id = e.message_id AND earlier.state = 'pending'
                    AND earlier.position < e.position)
ORDER BY e.next_at
LIMIT 1
""")

# `tries` tells whether the row is still the one that was tried: a worker that was given up for
# dead, and comes back, overwrites nothing.
_RECORD = sql("""
UPDATE callback_events e
SET state = t.state, tries = t.tries, next_at = t.next_at,
    answered_at = CASE WHEN t.status IS NULL THEN e.answered_at ELSE t.at END,
    last_status = t.status, last_error = t.error
FROM unnest(CAST(:ids AS uuid[]), CAST(:tries_before AS smallint[]), CAST(:states AS text[]),
            CAST(:tries AS smallint[]), CAST(:next_at AS timestamptz[]),
            CAST(:at AS timestamptz[]), CAST(:statuses AS integer[]), CAST(:errors AS text[]))
     AS t (id, tries_before, state, tries, next_at, at, status, error)
WHERE e.id = t.id AND e.state = 'pending' AND e.tries = t.tries_before
RETURNING e.id
""")

# Lane by lane (hence the LIMIT), since a lane with a long backlog has its first row at hand.
_OVERDUE = sql("""
SELECT l.id, l.account_id
FROM callback_lanes l
CROSS JOIN LATERAL (
    SELECT e.id FROM callback_events e
    WHERE e.lane_id = l.id AND e.state = 'pending' AND e.next_at < :before
      AND NOT EXISTS (SELECT FROM callback_events earlier
                      WHERE earlier.message_id = e.message_id AND earlier.state = 'pending'
                        AND earlier.position < e.position)
    ORDER BY e.next_at
    LIMIT 1
) late
ORDER BY l.id
""")

_SECRET = sql("SELECT callback_secret FROM accounts WHERE id = :account_id")

_SHOWN = """
SELECT id, message_id, url, status, provider_code, occurred_at, state, tries, next_at, answered_at,
       last_status, last_error
FROM callback_events
"""
_PAGE = sql(f"""
{_SHOWN}
WHERE account_id = :account_id AND environment = :environment
  AND (CAST(:state AS text) IS NULL OR state = :state)
  AND (CAST(:message_id AS uuid) IS NULL OR message_id = :message_id)
  AND (CAST(:before AS uuid) IS NULL OR id < :before)
ORDER BY id DESC
LIMIT :limit
""")
_OF_MESSAGE = sql(f"{_SHOWN} WHERE message_id = :message_id ORDER BY position")

# A callback that waits for its next try keeps its count and is tried at once; one that has ended
# begins its schedule anew.
_REPLAY_ONE = sql("""
UPDATE callback_events
SET state = 'pending', next_at = :at, tries = CASE WHEN state = 'pending' THEN tries ELSE 0 END
WHERE id = :id AND account_id = :account_id AND environment = :environment
RETURNING id, message_id, url, status, provider_code, occurred_at, state, tries, next_at,
          answered_at, last_status, last_error, lane_id
""")
_REPLAY_MANY = sql("""
UPDATE callback_events
SET state = 'pending', next_at = :at, tries = CASE WHEN state = 'pending' THEN tries ELSE 0 END
WHERE id IN (SELECT id FROM callback_events
             WHERE account_id = :account_id AND environment = :environment AND state = :state
             ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
RETURNING lane_id
""")


async def lane(connection: Connection, account_id: str, origin: str) -> UUID:
    """The lane of an account and origin (`domain.callbacks.origin_of`), made if there is none."""
    key = {"account_id": account_id, "origin": origin}
    found = await connection.row(_LANE, key)
    if found is None:
        connection.send(_ADD_LANE, {**key, "id": uuid7()})
        # A statement of its own, since one that lost a race against another process that adds the
        # same lane would not see that one's row.
        found = await connection.row(_LANE, key)
    if found is None:
        message = "a callback lane was not stored"
        raise LookupError(message)
    return UUID(str(found["id"]))


async def wake(connection: Connection, lanes: Collection[UUID]) -> Sequence[WokenLane]:
    """Mark lanes as looked at; those that nobody looked at until now."""
    woken = await connection.rows(_WAKE, {"ids": list(lanes)})
    return [WokenLane(found["id"], found["account_id"]) for found in woken]


async def take(connection: Connection, lane_id: UUID) -> str | None:
    """Begin to look at a lane; the account that it belongs to, or None if there is no such lane."""
    found = await connection.row(_TAKE, {"id": lane_id})
    return None if found is None else str(found["account_id"])


def leave(connection: Connection, lane_id: UUID) -> None:
    """Look at a lane no longer, unless told."""
    connection.send(_LEAVE, {"id": lane_id})


async def due(
    connection: Connection,
    lane_id: UUID,
    at: datetime,
    *,
    limit: int,
    under_way: Collection[UUID] = (),
) -> Sequence[DueCallback]:
    """What can be delivered now, the longest due first; at most one callback of each message.

    Args:
        connection: any.
        lane_id: of which lane.
        at: the present time.
        limit: how many, at most.
        under_way: callbacks that are left out, because they are being delivered.
    """
    found = await connection.rows(
        _DUE,
        {"lane_id": lane_id, "at": at, "limit": limit, "under_way": list(under_way)},
    )
    return [
        DueCallback(
            event=CallbackEvent(
                id=callback["id"],
                message_id=callback["message_id"],
                to=callback["number"],
                status=MessageStatus(callback["status"]),
                provider_code=callback["provider_code"],
                occurred_at=callback["occurred_at"],
            ),
            url=callback["url"],
            tries=callback["tries"],
        )
        for callback in found
    ]


async def next_due(connection: Connection, lane_id: UUID, at: datetime) -> datetime | None:
    """When a lane's next callback is due, at `at` or before if one is now; None if none waits."""
    found = await connection.row(_NEXT, {"lane_id": lane_id, "at": at})
    return None if found is None else found["next_at"]


async def record(connection: Connection, tried: Sequence[TriedCallback]) -> set[UUID]:
    """Store what came of tries; the callbacks that were still as they were when tried."""
    found = await connection.rows(
        _RECORD,
        {
            "ids": [callback.id for callback in tried],
            "tries_before": [callback.tries_before for callback in tried],
            "states": [callback.state.value for callback in tried],
            "tries": [callback.tries for callback in tried],
            "next_at": [callback.next_at for callback in tried],
            "at": [callback.at for callback in tried],
            "statuses": [callback.status for callback in tried],
            "errors": [callback.trouble.value if callback.trouble else None for callback in tried],
        },
    )
    return {callback["id"] for callback in found}


async def overdue(connection: Connection, at: datetime, *, by: timedelta) -> Sequence[WokenLane]:
    """Lanes with callbacks that should have been tried longer ago than `by`."""
    found = await connection.rows(_OVERDUE, {"before": at - by})
    return [WokenLane(late["id"], late["account_id"]) for late in found]


async def secret(connection: Connection, account_id: str) -> str | None:
    """The signing secret that an account was given when it was made."""
    found = await connection.row(_SECRET, {"account_id": account_id})
    return None if found is None else str(found["callback_secret"])


async def page(
    connection: Connection,
    *,
    account_id: str,
    environment: str,
    state: CallbackState | None,
    message_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> Sequence[Row]:
    """Callbacks of an account, newest first; those after `before`, if it is given."""
    return await connection.rows(
        _PAGE,
        {
            "account_id": account_id,
            "environment": environment,
            "state": state.value if state else None,
            "message_id": message_id,
            "before": before,
            "limit": limit,
        },
    )


async def of_message(connection: Connection, message_id: UUID) -> Sequence[Row]:
    """The callbacks of a message, in the order in which they are told."""
    return await connection.rows(_OF_MESSAGE, {"message_id": message_id})


async def replay(
    connection: Connection,
    callback_id: UUID,
    *,
    account_id: str,
    environment: str,
    at: datetime,
) -> Row | None:
    """Make a callback due now; as it is then, with its lane, or None if the account has none such."""
    return await connection.row(
        _REPLAY_ONE,
        {"id": callback_id, "account_id": account_id, "environment": environment, "at": at},
    )


async def replay_many(
    connection: Connection,
    *,
    account_id: str,
    environment: str,
    state: CallbackState,
    limit: int,
    at: datetime,
) -> Sequence[UUID]:
    """Make callbacks in a state due now, the oldest first; the lane of each."""
    found = await connection.rows(
        _REPLAY_MANY,
        {
            "account_id": account_id,
            "environment": environment,
            "state": state.value,
            "limit": limit,
            "at": at,
        },
    )
    return [UUID(str(callback["lane_id"])) for callback in found]

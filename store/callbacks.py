"""The outbox: lanes of callbacks, what is due in them, what came of each try, and replays.

A lane is what one account has at one origin. Its `active` says that somebody will look at its rows
without being told: whoever adds rows wakes it only while it is not set.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, takewhile
from operator import itemgetter
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks import CallbackEvent, CallbackState, Trouble
from domain.states import MessageStatus
from domain.values import value
from store.database import Connection, Row, sql

_MOST_OF_EACH: Final = 10
_EVER: Final = datetime.min.replace(tzinfo=UTC)


@value
class DueCallback:
    """A callback whose time has come, with what its delivery needs."""

    event: CallbackEvent
    url: str
    tries: int
    next_at: datetime


@dataclass(frozen=True, slots=True)
class TriedCallbacks:
    """What becomes of callbacks that fared alike: tried together, each with `tries` behind it."""

    ids: Sequence[UUID]
    tries: int
    state: CallbackState
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

# A callback waits for the earlier ones of its message. That it is the first is asked row by row, as
# a subquery which the planner cannot turn into a join: of a prepared statement it does not know how
# few rows are wanted, and would read all that wait.
_FIRST_OF_ITS_MESSAGE = """
e.position = (SELECT f.position FROM callback_events f
              WHERE f.message_id = e.message_id AND f.state = 'pending'
              ORDER BY f.position LIMIT 1)
"""

# One that was never tried is due whatever the clocks say, as long as they are ten minutes apart at
# most: the time at which it was written is another machine's. So there are two indexes: what was
# never tried is read that far into the future, what was tried up to the present.
_AHEAD = "interval '10 minutes'"
_DUE = sql(f"""
WITH first AS (
    (SELECT e.message_id, e.position, e.next_at
     FROM callback_events e
     WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries = 0
       AND e.next_at >= :since AND e.next_at <= CAST(:at AS timestamptz) + {_AHEAD}
       AND e.id NOT IN (SELECT unnest(CAST(:under_way AS uuid[])))
       AND {_FIRST_OF_ITS_MESSAGE}
     ORDER BY e.next_at LIMIT :limit)
    UNION ALL
    (SELECT e.message_id, e.position, e.next_at
     FROM callback_events e
     WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries > 0
       AND e.next_at >= :since AND e.next_at <= :at
       AND e.id NOT IN (SELECT unnest(CAST(:under_way AS uuid[])))
       AND {_FIRST_OF_ITS_MESSAGE}
     ORDER BY e.next_at LIMIT :limit)
    ORDER BY next_at, position LIMIT :limit
)
SELECT e.id, e.message_id, e.url, e.status, e.provider_code, e.occurred_at, e.tries, e.next_at,
       e.tries = 0 OR e.next_at <= :at AS is_due,
       (SELECT r.number FROM messages m JOIN recipients r ON r.id = m.recipient_id
        WHERE m.id = e.message_id) AS number
FROM first
CROSS JOIN LATERAL (
    SELECT * FROM callback_events e
    WHERE e.message_id = first.message_id AND e.state = 'pending'
    ORDER BY e.position LIMIT :of_each
) e
ORDER BY first.next_at, first.position, e.position
""")
_NEXT = sql(f"""
(SELECT least(e.next_at, :at) AS next_at
 FROM callback_events e
 WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries = 0
   AND e.next_at <= CAST(:at AS timestamptz) + {_AHEAD} AND {_FIRST_OF_ITS_MESSAGE}
 ORDER BY e.next_at LIMIT 1)
UNION ALL
(SELECT e.next_at
 FROM callback_events e
 WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries > 0 AND {_FIRST_OF_ITS_MESSAGE}
 ORDER BY e.next_at LIMIT 1)
ORDER BY next_at LIMIT 1
""")

# Whoever tells of the message's first callback tells of these, too, so that they miss nothing. It is
# done once for each time that the first one has to wait for. MATERIALIZED, and no condition but
# `tries` at the end, since otherwise the planner may look for them once for each row that it has.
_PUT_BACK_AT_ONCE: Final = 1000
_PUT_BACK = sql(f"""
WITH behind AS MATERIALIZED (
    SELECT e.id, first.next_at
    FROM callback_events e
    CROSS JOIN LATERAL (
        SELECT f.tries, f.next_at FROM callback_events f
        WHERE f.message_id = e.message_id AND f.state = 'pending'
        ORDER BY f.position LIMIT 1
    ) first
    WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries = 0
      AND e.next_at <= CAST(:at AS timestamptz) + {_AHEAD}
      AND first.tries > 0 AND first.next_at > greatest(:at, e.next_at)
    ORDER BY e.next_at LIMIT {_PUT_BACK_AT_ONCE}
)
UPDATE callback_events e SET next_at = behind.next_at
FROM behind WHERE e.id = behind.id AND e.tries = 0
""")

# `tries` tells whether the row is still the one that was tried: a worker that was given up for
# dead, and comes back, overwrites nothing. What callbacks have in common travels once.
_RECORD = sql("""
UPDATE callback_events e
SET state = (CAST(:states AS text[]))[t.fate],
    tries = e.tries + 1,
    next_at = (CAST(:next_at AS timestamptz[]))[t.fate],
    answered_at = CASE WHEN (CAST(:statuses AS integer[]))[t.fate] IS NULL THEN e.answered_at
                       ELSE (CAST(:at AS timestamptz[]))[t.fate] END,
    last_status = (CAST(:statuses AS integer[]))[t.fate],
    last_error = (CAST(:errors AS text[]))[t.fate]
FROM unnest(CAST(:ids AS uuid[]), CAST(:fates AS integer[])) AS t (id, fate)
WHERE e.id = t.id AND e.state = 'pending' AND e.tries = (CAST(:tries AS smallint[]))[t.fate]
""")

# Lane by lane (hence the LIMIT), since a lane with a long backlog has its first row at hand.
_OVERDUE = sql(f"""
SELECT l.id, l.account_id
FROM callback_lanes l
WHERE EXISTS (
    (SELECT FROM callback_events e
     WHERE e.lane_id = l.id AND e.state = 'pending' AND e.tries = 0 AND e.next_at < :before
       AND {_FIRST_OF_ITS_MESSAGE}
     ORDER BY e.next_at LIMIT 1)
    UNION ALL
    (SELECT FROM callback_events e
     WHERE e.lane_id = l.id AND e.state = 'pending' AND e.tries > 0 AND e.next_at < :before
       AND {_FIRST_OF_ITS_MESSAGE}
     ORDER BY e.next_at LIMIT 1)
)
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
    since: datetime | None = None,
    under_way: Collection[UUID] = (),
) -> Sequence[Sequence[DueCallback]]:
    """What can be delivered now, message by message, the longest due first.

    Those of a message are in the order of its moves: the first ones that wait, as far as they are
    due, ten at most.

    Args:
        connection: any.
        lane_id: of which lane.
        at: the present time.
        limit: of how many messages, at most.
        since: leaves out messages whose first callback was due before; what a look at the rows
            before this one has dealt with need not be walked over again.
        under_way: callbacks that are left out, with those behind them, because they are being
            delivered.
    """
    found = await connection.rows(
        _DUE,
        {
            "lane_id": lane_id,
            "at": at,
            "limit": limit,
            "of_each": _MOST_OF_EACH,
            "since": since or _EVER,
            "under_way": list(under_way),
        },
    )
    return [
        [
            _due(row)
            for row in takewhile(lambda row: row["is_due"] and row["id"] not in under_way, rows)
        ]
        for _, rows in groupby(found, key=itemgetter("message_id"))
    ]


def _due(row: Row) -> DueCallback:
    event = CallbackEvent(
        id=row["id"],
        message_id=row["message_id"],
        to=row["number"],
        status=MessageStatus(row["status"]),
        provider_code=row["provider_code"],
        occurred_at=row["occurred_at"],
    )
    return DueCallback(event, row["url"], row["tries"], row["next_at"])


def put_back(connection: Connection, lane_id: UUID, at: datetime) -> None:
    """Have what waits behind an earlier callback of its message wait for the time of that one.

    Until then it would lie among what is due, and be walked over by every look at the rows.
    """
    connection.send(_PUT_BACK, {"lane_id": lane_id, "at": at})


async def next_due(connection: Connection, lane_id: UUID, at: datetime) -> datetime | None:
    """When a lane's next callback is due, at `at` or before if one is now; None if none waits."""
    found = await connection.row(_NEXT, {"lane_id": lane_id, "at": at})
    return None if found is None else found["next_at"]


def record(connection: Connection, tried: Sequence[TriedCallbacks]) -> None:
    """Store what came of tries; callbacks that are no longer as they were when tried stay so."""
    connection.send(
        _RECORD,
        {
            "ids": [callback for fate in tried for callback in fate.ids],
            "fates": [number for number, fate in enumerate(tried, 1) for _ in fate.ids],
            "tries": [fate.tries for fate in tried],
            "states": [fate.state.value for fate in tried],
            "next_at": [fate.next_at for fate in tried],
            "at": [fate.at for fate in tried],
            "statuses": [fate.status for fate in tried],
            "errors": [fate.trouble.value if fate.trouble else None for fate in tried],
        },
    )


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

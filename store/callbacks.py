"""The outbox: endpoints and their lanes, what is due in them, what came of each try, and replays.

A lane holds the events of one endpoint: of an account's webhooks at one origin, or of its listening
workflows. `active` means that a workflow will read the lane's rows without a signal: a writer of rows
wakes the lane only while `active` is not set.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import groupby, takewhile
from operator import attrgetter
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.callbacks.events import CallbackState
from domain.callbacks.retries import NOT_TRIED, Trouble
from domain.configuration import Environment
from domain.outbox import MESSAGE_REPORT, MESSAGE_STATUS, OutboxEvent, Transport
from domain.states import MessageStatus
from domain.values import value
from store.database import Connection, PendingResult, sql
from store.rows import Query

_MOST_OF_EACH: Final = 10
_MOST_TRIES: Final = 32_000
"""What the column holds. Signals are tried for ever."""
_EVER: Final = datetime.min.replace(tzinfo=UTC)


@value
class DueCallback:
    """An event whose time has come, with what its delivery needs.

    `target` is the URL of a webhook, or the id of a workflow.
    """

    event: OutboxEvent
    environment: Environment
    target: str
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

    @property
    def made(self) -> int:
        """How many tries there were then; what could not be sent was not tried."""
        if self.trouble in NOT_TRIED:
            return self.tries
        return min(self.tries + 1, _MOST_TRIES)


@dataclass(frozen=True, slots=True)
class WokenLane:
    """A lane that somebody has to look at."""

    id: UUID
    account_id: str


@dataclass(frozen=True, slots=True)
class TakenLane:
    """A lane that is looked at from now on: whose it is, and how its events are delivered."""

    account_id: str
    transport: Transport


@value
class StoredCallback:
    """A callback as its account sees it."""

    id: UUID
    message_id: UUID
    url: str
    status: MessageStatus
    provider_code: str
    occurred_at: datetime
    state: CallbackState
    tries: int
    next_at: datetime
    responded_at: datetime | None
    last_status: int | None
    last_error: str | None


@value
class ReplayedCallback(StoredCallback):
    """A callback that was made due, with its lane."""

    lane_id: UUID


@value
class _DueRow:
    id: UUID
    kind: str
    subject_id: UUID
    environment: Environment
    target: str
    status: str
    code: str
    occurred_at: datetime
    tries: int
    next_at: datetime
    is_due: bool


_LANE = Query.of(
    UUID, "SELECT id FROM endpoints WHERE account_id = :account_id AND origin = :origin"
)
_ADD_LANE = sql("""
INSERT INTO endpoints (id, account_id, transport, origin, kinds)
VALUES (:id, :account_id, :transport, :origin, :kinds)
ON CONFLICT (account_id, origin) DO NOTHING
""")
_SUBSCRIBE = sql("UPDATE endpoints SET kinds = :kinds WHERE id = :id AND transport = :transport")

# Only for an endpoint that subscribes to the kind.
_ADD_EVENT = Query.of(
    UUID,
    """
INSERT INTO outbox (id, lane_id, account_id, environment, kind, subject_id, target, status, code,
                    occurred_at, next_at)
SELECT :event_id, e.id, e.account_id, :environment, :kind, :subject_id, :target, :status, :code,
       :occurred_at, :occurred_at
FROM endpoints e WHERE e.id = :lane_id AND :kind = ANY(e.kinds)
RETURNING id
""",
)

# In the order of ids, like every statement that takes several lanes.
_WAKE = Query.of(
    WokenLane,
    """
UPDATE endpoints SET active = true
WHERE id IN (SELECT id FROM endpoints WHERE id = ANY(:ids) AND NOT active
             ORDER BY id FOR UPDATE)
RETURNING id, account_id
""",
)
_TAKE = Query.of(
    TakenLane,
    """
UPDATE endpoints SET active = true WHERE id = :id
RETURNING account_id, transport
""",
)
_LEAVE = sql("UPDATE endpoints SET active = false WHERE id = :id")

# An event waits for the earlier ones of its subject in its lane. That it is the first is asked row by
# row, as a subquery which the planner cannot turn into a join: of a prepared statement it does not know
# how few rows are wanted, and would read all that wait.
_FIRST_OF_ITS_SUBJECT = """
e.position = (SELECT f.position FROM outbox f
              WHERE f.subject_id = e.subject_id AND f.lane_id = e.lane_id AND f.state = 'pending'
              ORDER BY f.position LIMIT 1)
"""

# One that was never tried is due whatever the clocks say, as long as they are ten minutes apart at
# most: the time at which it was written is another machine's. So there are two indexes: what was
# never tried is read that far into the future, what was tried up to the present.
_AHEAD = "interval '10 minutes'"
_DUE = Query.of(
    _DueRow,
    f"""
WITH first AS (
    (SELECT e.subject_id, e.position, e.next_at
     FROM outbox e
     WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries = 0
       AND e.next_at >= :since AND e.next_at <= CAST(:at AS timestamptz) + {_AHEAD}
       AND e.id NOT IN (SELECT unnest(CAST(:under_way AS uuid[])))
       AND {_FIRST_OF_ITS_SUBJECT}
     ORDER BY e.next_at LIMIT :limit)
    UNION ALL
    (SELECT e.subject_id, e.position, e.next_at
     FROM outbox e
     WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries > 0
       AND e.next_at >= :since AND e.next_at <= :at
       AND e.id NOT IN (SELECT unnest(CAST(:under_way AS uuid[])))
       AND {_FIRST_OF_ITS_SUBJECT}
     ORDER BY e.next_at LIMIT :limit)
    ORDER BY next_at, position LIMIT :limit
)
SELECT e.id, e.kind, e.subject_id, e.environment, e.target, e.status, e.code, e.occurred_at, e.tries,
       e.next_at, e.tries = 0 OR e.next_at <= :at AS is_due
FROM first
CROSS JOIN LATERAL (
    SELECT * FROM outbox e
    WHERE e.subject_id = first.subject_id AND e.lane_id = :lane_id AND e.state = 'pending'
    ORDER BY e.position LIMIT :of_each
) e
ORDER BY first.next_at, first.position, e.position
""",
)
_NEXT = Query.of(
    datetime,
    f"""
(SELECT least(e.next_at, :at) AS next_at
 FROM outbox e
 WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries = 0
   AND e.next_at <= CAST(:at AS timestamptz) + {_AHEAD} AND {_FIRST_OF_ITS_SUBJECT}
 ORDER BY e.next_at LIMIT 1)
UNION ALL
(SELECT e.next_at
 FROM outbox e
 WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries > 0 AND {_FIRST_OF_ITS_SUBJECT}
 ORDER BY e.next_at LIMIT 1)
ORDER BY next_at LIMIT 1
""",
)

# Whoever delivers the subject's first event delivers these, too, so that they miss nothing. It is
# done once for each time that the first one has to wait for. MATERIALIZED, and no condition but
# `tries` at the end, since otherwise the planner may look for them once for each row that it has.
_PUT_BACK_AT_ONCE: Final = 1000
_PUT_BACK = sql(f"""
WITH behind AS MATERIALIZED (
    SELECT e.id, first.next_at
    FROM outbox e
    CROSS JOIN LATERAL (
        SELECT f.tries, f.next_at FROM outbox f
        WHERE f.subject_id = e.subject_id AND f.lane_id = e.lane_id AND f.state = 'pending'
        ORDER BY f.position LIMIT 1
    ) first
    WHERE e.lane_id = :lane_id AND e.state = 'pending' AND e.tries = 0
      AND e.next_at <= CAST(:at AS timestamptz) + {_AHEAD}
      AND first.tries > 0 AND first.next_at > greatest(:at, e.next_at)
    ORDER BY e.next_at LIMIT {_PUT_BACK_AT_ONCE}
)
UPDATE outbox e SET next_at = behind.next_at
FROM behind WHERE e.id = behind.id AND e.tries = 0
""")

# `tries` identifies the try: a worker that was given up for dead, and comes back, overwrites nothing.
# Values that callbacks have in common are sent once.
_RECORD = sql("""
UPDATE outbox e
SET state = (CAST(:states AS text[]))[t.fate],
    tries = (CAST(:made AS smallint[]))[t.fate],
    next_at = (CAST(:next_at AS timestamptz[]))[t.fate],
    responded_at = CASE WHEN (CAST(:statuses AS integer[]))[t.fate] IS NULL THEN e.responded_at
                       ELSE (CAST(:at AS timestamptz[]))[t.fate] END,
    last_status = (CAST(:statuses AS integer[]))[t.fate],
    last_error = (CAST(:errors AS text[]))[t.fate]
FROM unnest(CAST(:ids AS uuid[]), CAST(:fates AS integer[])) AS t (id, fate)
WHERE e.id = t.id AND e.state = 'pending' AND e.tries = (CAST(:tries AS smallint[]))[t.fate]
""")

# Lane by lane (hence the LIMIT), since a lane with a long backlog has its first row at hand.
_OVERDUE = Query.of(
    WokenLane,
    f"""
SELECT l.id, l.account_id
FROM endpoints l
WHERE EXISTS (
    (SELECT FROM outbox e
     WHERE e.lane_id = l.id AND e.state = 'pending' AND e.tries = 0 AND e.next_at < :before
       AND {_FIRST_OF_ITS_SUBJECT}
     ORDER BY e.next_at LIMIT 1)
    UNION ALL
    (SELECT FROM outbox e
     WHERE e.lane_id = l.id AND e.state = 'pending' AND e.tries > 0 AND e.next_at < :before
       AND {_FIRST_OF_ITS_SUBJECT}
     ORDER BY e.next_at LIMIT 1)
)
ORDER BY l.id
""",
)

_SECRET = Query.of(
    str,
    """
SELECT CASE :environment WHEN 'live' THEN callback_secret WHEN 'test' THEN test_callback_secret END
       AS secret
FROM accounts WHERE id = :account_id
""",
)

_NAMES = """
id, subject_id AS message_id, target AS url, status, code AS provider_code, occurred_at, state, tries,
next_at, responded_at, last_status, last_error
"""
_SHOWN = f"SELECT {_NAMES}"
# The events that accounts see as callbacks.
_CALLBACK = f"kind = '{MESSAGE_STATUS}'"
# There is an index of what is pending by message, and one of all others.
_SPLIT_BY_STATE = """
FROM (SELECT * FROM outbox WHERE subject_id = :message_id AND state = 'pending'
      UNION ALL
      SELECT * FROM outbox WHERE subject_id = :message_id AND state <> 'pending') e
"""
_OF_MESSAGE = Query.of(
    StoredCallback, f"{_SHOWN}{_SPLIT_BY_STATE}WHERE {_CALLBACK} ORDER BY position"
)


@cache
def _page(state: CallbackState | None, *, of_message: bool, before: bool) -> Query[StoredCallback]:
    """A page; the state stands in the statement, since indexes are there for some of them."""
    narrowed = [
        *([f"AND state = '{state.value}'"] if state else []),
        *(["AND id < :before"] if before else []),
    ]
    source = _SPLIT_BY_STATE if of_message else "FROM outbox"
    return Query.of(
        StoredCallback,
        f"{_SHOWN}{source} WHERE account_id = :account_id AND environment = :environment"
        f" AND {_CALLBACK} {' '.join(narrowed)} ORDER BY id DESC LIMIT :limit",
    )


# A callback that waits for its next try keeps its count and is tried at once; one that has ended
# begins its schedule anew.
_REPLAY_ONE = Query.of(
    ReplayedCallback,
    f"""
UPDATE outbox
SET state = 'pending', next_at = :at, tries = CASE WHEN state = 'pending' THEN tries ELSE 0 END
WHERE id = :id AND account_id = :account_id AND environment = :environment AND {_CALLBACK}
RETURNING {_NAMES}, lane_id
""",
)


@cache
def _replay_many(state: CallbackState) -> Query[UUID]:
    return Query.of(
        UUID,
        f"""
UPDATE outbox
SET state = 'pending', next_at = :at, tries = CASE WHEN state = 'pending' THEN tries ELSE 0 END
WHERE id IN (SELECT id FROM outbox
             WHERE account_id = :account_id AND environment = :environment
               AND {_CALLBACK} AND state = '{state.value}'
             ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
RETURNING lane_id
""",
    )


async def lane(connection: Connection, account_id: str, origin: str) -> UUID:
    """The lane of an account and origin (`domain.callbacks.urls.origin_of`), made if there is none.

    Its endpoint subscribes to the status of messages.
    """
    return await _lane(connection, account_id, origin, Transport.WEBHOOK, [MESSAGE_STATUS])


async def listener_lane(connection: Connection, account_id: str) -> UUID:
    """The lane of the workflows that listen to messages of an account, made if there is none."""
    return await _lane(connection, account_id, "temporal", Transport.SIGNAL, [MESSAGE_REPORT])


async def _lane(
    connection: Connection,
    account_id: str,
    origin: str,
    transport: Transport,
    kinds: Sequence[str],
) -> UUID:
    key = {"account_id": account_id, "origin": origin}
    found = await _LANE.row(connection, key)
    if found is None:
        new = {"id": uuid7(), "transport": transport.value, "kinds": list(kinds)}
        connection.send(_ADD_LANE, key | new)
        # A statement of its own, since one that lost a race against another process that adds the
        # same lane would not see that one's row.
        found = await _LANE.row(connection, key)
    if found is None:
        message = "a callback lane was not stored"
        raise LookupError(message)
    return found


def subscribe(
    connection: Connection, lane_id: UUID, transport: Transport, kinds: Collection[str]
) -> None:
    """Set the kinds of events that are written to a lane from now on.

    `services.event_kinds` checks that they are for this transport.
    """
    values = {"id": lane_id, "transport": transport.value, "kinds": sorted(kinds)}
    connection.send(_SUBSCRIBE, values)


def add(
    connection: Connection,
    lane_id: UUID,
    target: str,
    event: OutboxEvent,
    environment: Environment,
) -> PendingResult[bool]:
    """Write an event to a lane; False if its endpoint does not subscribe to the kind.

    In the transaction of what the event is about; `services.callbacks.management.Callbacks.wake` follows its commit.
    `store.transitions` does this for messages, many at a time.
    """
    values = {
        "event_id": event.id,
        "lane_id": lane_id,
        "environment": environment.value,
        "kind": event.kind,
        "subject_id": event.subject_id,
        "target": target,
        "status": event.status,
        "code": event.code,
        "occurred_at": event.occurred_at,
    }
    return _ADD_EVENT.row(connection, values).then(lambda found: found is not None)


async def wake(connection: Connection, lanes: Collection[UUID]) -> Sequence[WokenLane]:
    """Mark lanes as looked at; those that nobody looked at until now."""
    return await _WAKE.rows(connection, {"ids": list(lanes)})


async def take(connection: Connection, lane_id: UUID) -> TakenLane | None:
    """Begin to look at a lane; None if there is no such lane."""
    return await _TAKE.row(connection, {"id": lane_id})


def leave(connection: Connection, lane_id: UUID) -> None:
    """Stop reading a lane until it is woken."""
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
    """What can be delivered now, subject by subject, the longest due first.

    The events of a subject are in their order: the first ones that wait, as far as they are due, ten at
    most.

    Args:
        connection: any.
        lane_id: of which lane.
        at: the present time.
        limit: of how many subjects, at most.
        since: leaves out subjects whose first event was due before; what a look at the rows
            before this one has dealt with need not be walked over again.
        under_way: callbacks that are left out, with those behind them, because they are being
            delivered.
    """
    found = await _DUE.rows(
        connection,
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
        [_due(row) for row in takewhile(lambda row: row.is_due and row.id not in under_way, rows)]
        for _, rows in groupby(found, key=attrgetter("subject_id"))
    ]


def _due(row: _DueRow) -> DueCallback:
    event = OutboxEvent(
        id=row.id,
        kind=row.kind,
        subject_id=row.subject_id,
        status=row.status,
        code=row.code,
        occurred_at=row.occurred_at,
    )
    return DueCallback(event, row.environment, row.target, row.tries, row.next_at)


def put_back(connection: Connection, lane_id: UUID, at: datetime) -> None:
    """Have what waits behind an earlier event of its subject wait for the time of that one.

    Until then it would lie among what is due, and be walked over by every look at the rows.
    """
    connection.send(_PUT_BACK, {"lane_id": lane_id, "at": at})


async def next_due(connection: Connection, lane_id: UUID, at: datetime) -> datetime | None:
    """When a lane's next callback is due, at `at` or before if one is now; None if none waits."""
    return await _NEXT.row(connection, {"lane_id": lane_id, "at": at})


def record(connection: Connection, tried: Sequence[TriedCallbacks]) -> None:
    """Store what came of tries; callbacks that are no longer as they were when tried stay so."""
    connection.send(
        _RECORD,
        {
            "ids": [callback for fate in tried for callback in fate.ids],
            "fates": [number for number, fate in enumerate(tried, 1) for _ in fate.ids],
            "tries": [fate.tries for fate in tried],
            "made": [fate.made for fate in tried],
            "states": [fate.state.value for fate in tried],
            "next_at": [fate.next_at for fate in tried],
            "at": [fate.at for fate in tried],
            "statuses": [fate.status for fate in tried],
            "errors": [fate.trouble.value if fate.trouble else None for fate in tried],
        },
    )


async def overdue(connection: Connection, at: datetime, *, by: timedelta) -> Sequence[WokenLane]:
    """Lanes with callbacks that should have been tried longer ago than `by`."""
    return await _OVERDUE.rows(connection, {"before": at - by})


async def secret(connection: Connection, account_id: str, environment: Environment) -> str | None:
    """The signing secret of an account's environment, generated when the account was made."""
    return await _SECRET.row(
        connection, {"account_id": account_id, "environment": environment.value}
    )


async def page(
    connection: Connection,
    *,
    account_id: str,
    environment: str,
    state: CallbackState | None,
    message_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> Sequence[StoredCallback]:
    """Callbacks of an account, newest first; those after `before`, if it is given."""
    query = _page(state, of_message=message_id is not None, before=before is not None)
    return await query.rows(
        connection,
        {
            "account_id": account_id,
            "environment": environment,
            "message_id": message_id,
            "before": before,
            "limit": limit,
        },
    )


async def of_message(connection: Connection, message_id: UUID) -> Sequence[StoredCallback]:
    """The callbacks of a message, in the order of their delivery."""
    return await _OF_MESSAGE.rows(connection, {"message_id": message_id})


async def replay(
    connection: Connection,
    callback_id: UUID,
    *,
    account_id: str,
    environment: str,
    at: datetime,
) -> ReplayedCallback | None:
    """Make a callback due now; as it is then, or None if the account has none such."""
    return await _REPLAY_ONE.row(
        connection,
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
    return await _replay_many(state).rows(
        connection,
        {
            "account_id": account_id,
            "environment": environment,
            "limit": limit,
            "at": at,
        },
    )

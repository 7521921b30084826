"""Retention: what is over, and older than it is kept, is deleted in the order of ids.

Ids are UUIDv7 (RFC 9562, 5.7), so an age is a range of them. What is not over stays, however old.
Recipients stay: a request may be about to write to one. Events go with their partition
(`store.partitions`); only what the last one has is deleted here.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from store.database import Connection, Statement, sql
from store.partitions import first_id
from store.rows import Query
from store.transitions import OPEN


def _deletes(**columns: str) -> tuple[Statement, ...]:
    """Deletions from tables, in this order, of the rows whose column is one of `ids`."""
    return tuple(
        sql(f"DELETE FROM {table} WHERE {column} = ANY(:ids)") for table, column in columns.items()
    )


# One that is taken up again at this moment, by a replay, is passed over.
_OLD_MESSAGES = Query.of(
    UUID,
    f"""
SELECT m.id FROM messages m WHERE m.id < :before AND NOT ({OPEN})
ORDER BY m.id LIMIT :limit FOR UPDATE SKIP LOCKED
""",
)
_OF_MESSAGES: Final = _deletes(
    receipts="message_id",
    receipt_polls="message_id",
    parts="message_id",
    attempts="message_id",
    events_last="message_id",
    messages="id",
)

# Their messages may be younger than they are, and wait for their time.
_OLD_BULKS = Query.of(
    UUID,
    """
SELECT b.id FROM bulks b
WHERE b.id < :before AND NOT EXISTS (
    SELECT FROM messages m WHERE m.id BETWEEN b.first_id AND b.last_id AND m.bulk_id = b.id)
ORDER BY b.id LIMIT :limit FOR UPDATE SKIP LOCKED
""",
)
_OF_BULKS: Final = _deletes(
    events_of_many_last="bulk_id",
    batch_refusals="batch_id",
    batches="id",
    bulks="id",
)

_CALLBACKS = sql("""
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE id < :before AND state <> 'pending'
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
""")

# Nobody ever asked for them, or nobody does any more.
_RECEIPTS_ALONE = sql("""
DELETE FROM receipts WHERE (day, id) IN (
    SELECT day, id FROM receipts WHERE day < :day AND message_id IS NULL
    ORDER BY day, id LIMIT :limit FOR UPDATE SKIP LOCKED)
""")

_UNPARSED_RECEIPTS = sql("""
DELETE FROM unparsed_receipts WHERE id IN (
    SELECT id FROM unparsed_receipts WHERE received_at < :before
    ORDER BY received_at LIMIT :limit FOR UPDATE SKIP LOCKED)
""")


async def delete(connection: Connection, before: datetime, limit: int) -> int:
    """Delete messages that were accepted before, at most `limit`, with all but their events.

    Returns how many messages those were. A batch goes with the last of its messages; callbacks, and
    receipts that met no message or could not be parsed, go by their own age.
    """
    first = {"before": first_id(before), "limit": limit}
    messages = await _OLD_MESSAGES.rows(connection, first)
    for statement in _OF_MESSAGES if messages else ():
        connection.send(statement, {"ids": messages})
    bulks = await _OLD_BULKS.rows(connection, first)
    for statement in _OF_BULKS if bulks else ():
        connection.send(statement, {"ids": bulks})
    connection.send(_CALLBACKS, first)
    connection.send(_RECEIPTS_ALONE, {"day": before.date(), "limit": limit})
    connection.send(_UNPARSED_RECEIPTS, {"before": before, "limit": limit})
    return len(messages)

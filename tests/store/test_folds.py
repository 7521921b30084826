"""The folds stand twice, in Python and in SQL: here they are held together, and to their rules."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import IntegrityError
from uuid_utils.compat import uuid7

from domain.states import (
    AttemptMark,
    AttemptStatus,
    MessageStatus,
    PartStatus,
    Verdict,
    fold_attempt,
    fold_message,
)
from store.database import Database, sql
from tests.rows import row_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(database_url):
    database = Database.connect(database_url)
    yield database
    await database.close()


def add_message(connection, status="queued", verdict=None):
    message_id, recipient_id = uuid7(), uuid7()
    connection.send(
        sql(
            "INSERT INTO accounts (id, name, callback_secret) VALUES ('default', 'default', 'whsec_x') ON CONFLICT DO NOTHING"
        )
    )
    connection.send(
        sql(
            "INSERT INTO recipients (id, account_id, hash_version, number_hash, number, country)"
            " VALUES (:id, 'default', 1, :hash, '+447700900123', 'GB')"
        ),
        {"id": recipient_id, "hash": recipient_id.bytes},
    )
    connection.send(
        sql(
            "INSERT INTO messages (id, account_id, environment, mode, priority, status, verdict,"
            " sender, recipient_id, country, body, encoding, segments, accepted_at, validity,"
            " valid_until, since, transitioned_at)"
            " VALUES (:id, 'default', 'live', 'transactional', 'normal', :status, :verdict, 'T',"
            " :recipient, 'GB', 'x', 'gsm7', 1, :now, '1 day', :until, :now, :now)"
        ),
        {
            "id": message_id,
            "status": status,
            "verdict": verdict,
            "recipient": recipient_id,
            "now": NOW,
            "until": NOW + timedelta(days=1),
        },
    )
    return message_id


def add_attempt(connection, message_id, number, parts, status, *, expired=False, inside=False):
    """An attempt with its parts; with `inside` an only part stands in the attempt's row."""
    connection.send(
        sql(
            "INSERT INTO attempts (message_id, number, epoch, provider, status, expired,"
            " part_method, reference, started_at, response_by, settled_at, receipt_by)"
            " VALUES (:m, :n, 1, 'p', :s, :e, 'udh8', 0, :now, :now, :now, :now)"
        ),
        {"m": message_id, "n": number, "s": status, "e": expired, "now": NOW},
    )
    if inside and len(parts) == 1:
        connection.send(
            sql("UPDATE attempts SET part_status = :s WHERE message_id = :m AND number = :n"),
            {"m": message_id, "n": number, "s": parts[0]},
        )
        return
    for position, part in enumerate(parts, start=1):
        connection.send(
            sql(
                "INSERT INTO parts (message_id, attempt, number, provider, status, reference,"
                " submitted_at) VALUES (:m, :a, :n, 'p', :s, 0, :now)"
            ),
            {"m": message_id, "a": number, "n": position, "s": part, "now": NOW},
        )


class Undone(Exception):
    """Leaves a transaction without its commit."""


histories = st.lists(
    st.tuples(
        st.lists(st.sampled_from(PartStatus), min_size=1, max_size=4),
        st.booleans(),
    ),
    max_size=4,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    verdict=st.none() | st.sampled_from(Verdict),
    first=st.integers(1, 4),
    history=histories,
    inside=st.booleans(),
)
def test_python_and_sql_fold_every_history_alike(database_url, verdict, first, history, inside):
    marks = [
        AttemptMark(number, fold_attempt(parts, expired=expired))
        for number, (parts, expired) in enumerate(history, start=1)
    ]

    async def in_sql():
        database = Database.connect(database_url)
        try:
            async with database.begin() as connection:
                message_id = add_message(connection, verdict=verdict)
                connection.send(
                    sql("UPDATE messages SET first_attempt = :f WHERE id = :m"),
                    {"m": message_id, "f": first},
                )
                for mark, (parts, expired) in zip(marks, history, strict=True):
                    add_attempt(
                        connection,
                        message_id,
                        mark.number,
                        parts,
                        mark.status,
                        expired=expired,
                        inside=inside,
                    )
                folded = await row_of(
                    connection,
                    sql(
                        "SELECT (SELECT status FROM message_folds(ARRAY[:m])) AS message,"
                        " (SELECT array_agg(status ORDER BY number)"
                        " FROM attempt_folds(ARRAY[:m])) AS attempts"
                    ),
                    {"m": message_id},
                )
                raise Undone  # noqa: TRY301 - it leaves the transaction, not the function
        except Undone:
            return folded["message"], folded["attempts"]
        finally:
            await database.close()

    message_status, attempt_statuses = asyncio.run(in_sql())
    assert message_status == fold_message(verdict, first, marks)
    assert (attempt_statuses or []) == [mark.status for mark in marks]


async def test_a_status_that_does_not_follow_from_the_rows_cannot_be_committed(database):
    with pytest.raises(IntegrityError, match="make it queued"):
        async with database.begin() as connection:
            add_message(connection, status="delivered")


async def test_an_attempt_that_its_parts_contradict_cannot_be_committed(database):
    async with database.begin() as connection:
        message_id = add_message(connection)
    with pytest.raises(IntegrityError, match="its parts make it accepted"):
        async with database.begin() as connection:
            add_attempt(connection, message_id, 1, ["accepted"], "delivered")


async def test_a_message_whose_attempt_moved_without_it_cannot_be_committed(database):
    async with database.begin() as connection:
        message_id = add_message(connection)
    with pytest.raises(IntegrityError, match="its attempts and verdict make it sent"):
        async with database.begin() as connection:
            add_attempt(connection, message_id, 1, ["accepted"], "accepted")


async def test_events_can_neither_be_changed_nor_deleted(database):
    async with database.begin() as connection:
        message_id = add_message(connection)
        connection.send(
            sql("INSERT INTO events (message_id, at, kind, actor) VALUES (:m, now(), 'x', 'x')"),
            {"m": message_id},
        )
    changes = ("UPDATE {} SET actor = 'y'", "DELETE FROM {}", "TRUNCATE {}")
    tables = ("events", "events_first", "events_of_many", "events_of_many_first")
    refused = [change.format(table) for change in changes for table in tables]
    for statement in (*refused, "UPDATE events_last SET actor = 'y'", "TRUNCATE events_last"):
        with pytest.raises(IntegrityError, match="append-only"):
            async with database.begin() as connection:
                connection.send(sql(statement))


def test_delivered_stands_above_every_verdict():
    delivered = [AttemptMark(1, AttemptStatus.DELIVERED), AttemptMark(2, AttemptStatus.REFUSED)]
    for verdict in Verdict:
        assert fold_message(verdict, 2, delivered) is MessageStatus.DELIVERED


def test_a_late_refusal_of_an_old_attempt_does_not_move_a_newer_one():
    marks = [AttemptMark(1, AttemptStatus.UNDELIVERED), AttemptMark(2, AttemptStatus.ACCEPTED)]
    assert fold_message(None, 1, marks) is MessageStatus.SENT


def test_a_message_is_delivered_only_when_all_its_parts_are():
    two = [PartStatus.DELIVERED, PartStatus.ACCEPTED]
    assert fold_attempt(two) is AttemptStatus.ACCEPTED
    assert fold_attempt([PartStatus.DELIVERED] * 2) is AttemptStatus.DELIVERED

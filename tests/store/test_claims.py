"""What forbids a submit: one table of situations, through each of the statements that claim."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.claims import ENDS, Refusal
from domain.modes import Priority
from store import attempts, bulks
from store.attempts import Claim
from store.bulks import ClaimOfMany, IdRange
from store.database import Connection, Database, sql
from store.transitions import refresh_status
from tests.rows import rows_of
from tests.store.test_folds import add_attempt, add_message, database

__all__ = ["database"]

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
BULK = UUID(int=7)
BULK_OWNER = "bulk/bat_7"


@dataclass(frozen=True)
class Situation:
    """A message right before its claim, and what is to come of that."""

    name: str
    refusal: Refusal | None
    changes: dict[str, Any] = field(default_factory=dict)
    bulk: dict[str, Any] = field(default_factory=dict)
    """What its bulk's row says; only where a bulk runs it."""
    epoch: int = 1
    ends_as: str | None = None


SITUATIONS = (
    Situation("nothing forbids it", None),
    Situation("it waits for another try", None, {"status": "retried"}),
    Situation("its last attempt is unknown", None, {"status": "unknown"}),
    Situation("another epoch has it", Refusal.SUPERSEDED, {"epoch": 2}),
    Situation("it has ended", Refusal.ENDED, {"status": "failed", "verdict": "failed"}),
    Situation(
        "it is cancelled before any provider has it",
        Refusal.CANCELED,
        {"cancel_requested_at": NOW},
        ends_as="canceled",
    ),
    Situation(
        "it is cancelled between two tries",
        Refusal.CANCELED,
        {"cancel_requested_at": NOW, "status": "retried"},
        ends_as="canceled",
    ),
    Situation(
        "it is cancelled and a provider may have it",
        Refusal.CANCELED,
        {"cancel_requested_at": NOW, "status": "unknown"},
    ),
    Situation(
        "its validity is over", Refusal.VALIDITY_OVER, {"valid_until": NOW}, ends_as="expired"
    ),
    Situation(
        "its validity is over and a provider may have it",
        Refusal.VALIDITY_OVER,
        {"valid_until": NOW, "status": "unknown"},
    ),
    Situation(
        "its time has not come",
        Refusal.SCHEDULED,
        {"status": "scheduled", "verdict": "scheduled", "scheduled_at": NOW + timedelta(hours=1)},
    ),
    Situation("a provider has it", Refusal.IN_FLIGHT, {"status": "sending"}),
    Situation("it was sent", Refusal.IN_FLIGHT, {"status": "sent"}),
)
OF_BULKS = (
    Situation("its bulk is paused", Refusal.PAUSED, bulk={"paused_at": NOW}),
    Situation(
        "its bulk is cancelled", Refusal.CANCELED, bulk={"canceled_at": NOW}, ends_as="canceled"
    ),
    Situation(
        "its bulk is paused and its validity is over",
        Refusal.VALIDITY_OVER,
        {"valid_until": NOW},
        {"paused_at": NOW},
        ends_as="expired",
    ),
    Situation("it has left its bulk", Refusal.SUPERSEDED, {"owner": "send/msg_1"}),
)
_ATTEMPT_OF = {
    "retried": "refused",
    "unknown": "unknown",
    "sending": "submitting",
    "sent": "accepted",
}


def add(connection: Connection, situation: Situation, **owned: Any) -> UUID:
    """A message in a situation, with the attempt that its status comes from."""
    changes = {"epoch": 1, "valid_until": NOW + timedelta(days=1), **owned, **situation.changes}
    message_id = add_message(connection, changes.get("status", "queued"), changes.get("verdict"))
    attempt = _ATTEMPT_OF.get(changes.get("status", "queued"))
    if attempt is not None:
        add_attempt(connection, message_id, 1, [attempt], attempt, inside=True)
    columns = ", ".join(f"{name} = :{name}" for name in changes)
    connection.send(
        sql(f"UPDATE messages SET {columns} WHERE id = :id"), {**changes, "id": message_id}
    )
    return message_id


async def status_of(database: Database, message_id: UUID) -> tuple[str, str | None, int]:
    """Status, reason and number of attempts that were just claimed."""
    (row,) = await rows_of(
        database,
        sql(
            "SELECT status, reason, (SELECT count(*) FROM attempts a WHERE a.message_id = m.id"
            " AND a.status = 'submitting' AND a.provider = 'primary') AS claimed"
            " FROM messages m WHERE id = :id"
        ),
        {"id": message_id},
    )
    return row["status"], row["reason"], row["claimed"]


def claim_of(message_id: UUID, *, epoch: int = 1, number: int = 2) -> Claim:
    return Claim(
        message_id=message_id,
        epoch=epoch,
        number=number,
        provider="primary",
        parts=1,
        part_method="udh8",
        reference=7,
        at=NOW,
        response_by=NOW + timedelta(seconds=10),
        receipt_by=NOW + timedelta(minutes=5),
        config_version=None,
    )


def claim_of_many(ids: list[UUID]) -> ClaimOfMany:
    many = len(ids)
    return ClaimOfMany(
        bulk_id=BULK,
        owner=BULK_OWNER,
        provider="primary",
        at=NOW,
        config_version=1,
        ids=ids,
        epochs=[1] * many,
        numbers=[2] * many,
        parts=[1] * many,
        methods=["udh8"] * many,
        refs=[7] * many,
        response_bys=[NOW + timedelta(seconds=10)] * many,
        receipt_bys=[NOW + timedelta(minutes=5)] * many,
        kinds=[1] * many,
        details=[{}],
    )


def add_bulk(connection: Connection, **changes: Any) -> None:
    id_range = IdRange(BULK, UUID(int=0), UUID(int=2**128 - 1), BULK_OWNER)
    bulks.insert(connection, id_range, 1, NOW, priority=Priority.NORMAL, check_by=NOW)
    for name, value in changes.items():
        connection.send(sql(f"UPDATE bulks SET {name} = :value"), {"value": value})


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda s: s.name)
async def test_a_single_message_is_claimed_or_the_reason_is_named(database, situation):
    async with database.begin() as connection:
        message_id = add(connection, situation)
    async with database.begin() as connection:
        granted = await attempts.claim(connection, claim_of(message_id))
        await refresh_status(connection, [message_id], actor="test", at=NOW)
    assert (granted.refusal, granted.parts) == (
        situation.refusal,
        () if situation.refusal else (1,),
    )
    status, reason, claimed = await status_of(database, message_id)
    if situation.ends_as:
        assert (status, reason) == (situation.ends_as, ENDS[situation.refusal][1])
    elif situation.refusal:
        assert status == situation.changes.get("status", "queued")
    assert claimed == (situation.refusal is None)


@pytest.mark.parametrize(
    "situation",
    [s for s in SITUATIONS if s.changes.get("status", "queued") in {"queued", "retried"}],
    ids=lambda s: s.name,
)
async def test_the_rest_of_a_partial_attempt_is_claimed_by_the_same_rules(database, situation):
    async with database.begin() as connection:
        message_id = add(connection, Situation(situation.name, None, situation.changes))
        connection.send(sql("DELETE FROM attempts WHERE message_id = :id"), {"id": message_id})
        add_attempt(connection, message_id, 1, ["accepted", "throttled"], "partial")
        connection.send(
            sql("UPDATE messages SET status = 'retried' WHERE id = :id"), {"id": message_id}
        )
    async with database.begin() as connection:
        granted = await attempts.resume(connection, claim_of(message_id, number=1))
        await refresh_status(connection, [message_id], actor="test", at=NOW)
    assert (granted.refusal, granted.parts) == (
        situation.refusal,
        () if situation.refusal else (2,),
    )


@pytest.mark.parametrize("situation", [*SITUATIONS, *OF_BULKS], ids=lambda s: s.name)
async def test_a_message_of_a_bulk_is_claimed_by_the_same_rules(database, situation):
    async with database.begin() as connection:
        add_bulk(connection, **situation.bulk)
        message_id = add(connection, situation, owner=BULK_OWNER, bulk_id=BULK)
    async with database.begin() as connection:
        done = await bulks.claim(connection, claim_of_many([message_id]), actor="test")
    assert done.refused.get(message_id) is situation.refusal
    status, reason, claimed = await status_of(database, message_id)
    if situation.ends_as:
        assert (status, reason) == (situation.ends_as, ENDS[situation.refusal][1])
        events = await rows_of(
            database, sql("SELECT kind, status, reason FROM events_of_many ORDER BY seq")
        )
        assert [(e["kind"], e["status"]) for e in events] == [
            ("decided", situation.ends_as),
            ("moved", situation.ends_as),
        ]
    assert claimed == (situation.refusal is None)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(SITUATIONS), min_size=1, max_size=40))
async def test_every_message_of_a_claim_is_granted_or_has_its_reason(database, situations):
    await rows_of(database, sql("DELETE FROM bulks"))
    async with database.begin() as connection:
        add_bulk(connection)
        ids = [add(connection, each, owner=BULK_OWNER, bulk_id=BULK) for each in situations]
    gone = UUID(int=1)
    async with database.begin() as connection:
        done = await bulks.claim(connection, claim_of_many([*ids, gone]), actor="test")
    expected = dict(zip(ids, (each.refusal for each in situations), strict=True))
    assert done.refused == {
        gone: Refusal.SUPERSEDED,
        **{message_id: refusal for message_id, refusal in expected.items() if refusal},
    }
    granted = {i for each in done.transitions if each.status == "sending" for i in each.ids}
    assert granted == {message_id for message_id, refusal in expected.items() if refusal is None}
    ended = {i for each in done.transitions if each.status != "sending" for i in each.ids}
    assert ended == {i for i, each in zip(ids, situations, strict=True) if each.ends_as}


async def test_a_message_that_expired_without_a_receipt_says_so(database):
    async with database.begin() as connection:
        message_id = add(connection, Situation("", None, {"status": "retried", "valid_until": NOW}))
        connection.send(
            sql("UPDATE attempts SET status = 'expired', expired = true, part_status = 'accepted'")
        )
    async with database.begin() as connection:
        granted = await attempts.claim(connection, claim_of(message_id))
        await refresh_status(connection, [message_id], actor="test", at=NOW)
    assert granted.refusal is Refusal.VALIDITY_OVER
    assert (await status_of(database, message_id))[:2] == ("expired", "no_receipt")

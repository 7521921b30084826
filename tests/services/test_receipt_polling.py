"""Receipts that do not come are asked for: which parts, when, how many at once, and by one worker only."""

import asyncio
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from domain.receipts import ReceiptState
from providers.base import ReceivedReceipt
from services import receipt_polling
from services.assembly import assemble
from services.receipt_polling import MOST_AT_ONCE, ReceiptPolling
from settings.settings import Settings
from store.database import DatabaseAway, sql
from telemetry.metrics import metric_value
from tests.rows import row_of, rows_of
from tests.store.test_folds import add_attempt, add_message

pytestmark = pytest.mark.stack

CONFIGURATION = """
[providers.asked]
type = "twilio"
account_sid = "AC72d1371c17149d439536b3216fdaeeb9"
auth_token = "env:SMSGATEWAY_SECRET_TWILIO"
poll_after = "5m"
response_timeout = "2s"

[providers.silent]
type = "simulator"
port = 2775

[[routes]]
providers = ["asked", "silent"]
"""
MINUTE = timedelta(minutes=1)
DELIVERED, ENROUTE = ReceiptState.DELIVERED, ReceiptState.ENROUTE


class AskedProvider:
    """A provider that answers with the state of `states`, or by default with DELIVERED."""

    def __init__(self, state=DELIVERED, *, name="asked"):
        self.name = name
        self.state = state
        self.asked: Counter[str] = Counter()
        self.senders: set[str] = set()
        self.under_way = 0
        self.most_under_way = 0
        self.troubles = {}
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def query(self, provider_message_id, *, sender):
        self.asked[provider_message_id] += 1
        self.senders.add(sender)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.may_answer.wait()
            await asyncio.sleep(0)
            if provider_message_id in self.troubles:
                return await self.troubles[provider_message_id]()
        finally:
            self.under_way -= 1
        return ReceivedReceipt(
            provider=self.name,
            provider_message_id=provider_message_id,
            state=self.state,
            code="",
            network=None,
            reference=None,
            sender=None,
            recipient=None,
            done_at=None,
        )


class Polled:
    """Services on a real database, without Temporal."""

    def __init__(self, services):
        self.services = services
        self.database = services.database
        self.polling = services.receipt_polling
        self.declared = services.configurations.current.providers["asked"]

    async def poll(self, provider):
        return await self.polling.poll(provider, self.declared)

    async def poll_all(self, provider):
        while await self.poll(provider):
            pass

    async def add(
        self,
        its_id="SM1",
        *,
        status="accepted",
        message="sent",
        verdict=None,
        parts=1,
        inside=True,
        provider="asked",
        submitted=10 * MINUTE,
        receipt_in=60 * MINUTE,
        expired=False,
        bulk=None,
        check_in=60 * MINUTE,
    ):
        """A message with an attempt whose parts have the same status, submitted so long ago."""
        now = datetime.now(UTC)
        folded = "expired" if expired else status
        async with self.database.begin() as connection:
            added = add_message(connection, status=message, verdict=verdict)
            add_attempt(connection, added, 1, [status] * parts, folded, inside=inside)
            values = {
                "id": added,
                "its_id": its_id,
                "provider": provider,
                "at": now - submitted,
                "by": now + receipt_in,
                "expired": expired,
                "check_by": None if bulk else now + check_in,
                "bulk": bulk,
            }
            connection.send(
                sql(
                    "UPDATE attempts SET provider = :provider, started_at = :at, receipt_by = :by,"
                    " expired = :expired WHERE message_id = :id"
                ),
                values,
            )
            where = "attempts" if inside else "parts"
            its_own = "" if inside else " || number"
            connection.send(
                sql(
                    f"UPDATE {where} SET provider_message_id = :its_id{its_own} WHERE message_id = :id"
                ),
                values,
            )
            connection.send(
                sql(
                    "UPDATE parts SET provider = :provider, submitted_at = :at WHERE message_id = :id"
                ),
                values,
            )
            connection.send(
                sql("UPDATE messages SET check_by = :check_by, bulk_id = :bulk WHERE id = :id"),
                values,
            )
        return added

    async def add_bulk(self, count, *, is_open=True, **what):
        """A bulk with so many messages."""
        bulk = uuid7()
        ids = [await self.add(f"B{n}", bulk=bulk, **what) for n in range(count)]
        async with self.database.begin() as connection:
            connection.send(
                sql(
                    "INSERT INTO bulks (id, first_id, last_id, messages, created_at, check_by)"
                    " VALUES (:id, :first, :last, :count, now(), :check_by)"
                ),
                {
                    "id": bulk,
                    "first": ids[0],
                    "last": ids[-1],
                    "count": count,
                    "check_by": datetime.now(UTC) if is_open else None,
                },
            )
        return ids

    async def due_again(self):
        """Let time pass until everything is due."""
        async with self.database.begin() as connection:
            connection.send(sql("UPDATE receipt_polls SET poll_at = now() - interval '1 second'"))

    async def scan_again(self):
        async with self.database.begin() as connection:
            connection.send(sql("DELETE FROM receipt_poll_scans"))
        return await self.polling.scan()

    async def status(self, message):
        row = await row_of(
            self.database, sql("SELECT status FROM messages WHERE id = :id"), {"id": message}
        )
        return row["status"]

    async def rows(self):
        return await rows_of(self.database, sql("SELECT * FROM receipt_polls"))


@pytest.fixture
async def polled(database_url):
    settings = Settings(
        database_url=SecretStr(database_url), recipient_hash_key=SecretStr(secrets.token_hex(32))
    )

    async def no_temporal():
        raise RuntimeError("there is no Temporal here")

    services = assemble(settings, connect=no_temporal)
    await services.configurations.apply(CONFIGURATION, applied_by="test")
    yield Polled(services)
    await services.close()


def counted(outcome: str) -> float:
    labels = {"provider": "asked", "outcome": outcome}
    return metric_value("smsgateway_receipt_polls_total", labels)


@pytest.mark.parametrize(
    ("status", "message"), [("accepted", "sent"), ("unknown", "unknown")], ids=str
)
@pytest.mark.parametrize("inside", [True, False], ids=["in its attempt", "in a row of its own"])
async def test_a_part_without_a_receipt_is_asked_for_by_its_id_and_the_answer_delivers_it(
    polled, status, message, inside
):
    added = await polled.add(status=status, message=message, inside=inside)
    assert await polled.polling.scan() == 1
    provider = AskedProvider()
    before = counted("final")
    assert await polled.poll(provider) == 1
    assert await polled.status(added) == "delivered"
    assert provider.asked == {"SM1" if inside else "SM11": 1}
    assert provider.senders == {"T"}
    assert counted("final") == before + 1
    stored = await row_of(polled.database, sql("SELECT * FROM receipts"))
    assert (stored["named_message_id"], stored["named_attempt"], stored["named_part"]) == (
        added,
        1,
        1,
    )


async def test_the_form_of_the_id_that_the_provider_gave_is_the_one_it_is_asked_with(polled):
    await polled.add("abc")
    async with polled.database.begin() as connection:
        connection.send(sql("UPDATE attempts SET provider_message_id_given = 'ABC'"))
    await polled.polling.scan()
    provider = AskedProvider()
    await polled.poll(provider)
    assert provider.asked == {"ABC": 1}


async def test_each_part_of_an_attempt_is_asked_for_and_all_of_them_deliver_the_message(polled):
    added = await polled.add(parts=3, inside=False)
    assert await polled.polling.scan() == 3
    provider = AskedProvider()
    await polled.poll(provider)
    assert provider.asked == {"SM11": 1, "SM12": 1, "SM13": 1}
    assert await polled.status(added) == "delivered"


@pytest.mark.parametrize(
    "what",
    [
        {"submitted": 4 * MINUTE},
        {"status": "delivered", "message": "delivered"},
        {"status": "undelivered", "message": "retried"},
        {"status": "submitting", "message": "sending"},
        {"status": "refused", "message": "retried"},
        {"its_id": None},
        {"receipt_in": -MINUTE},
        {"expired": True, "message": "retried"},
        {"submitted": timedelta(days=3, minutes=1)},
        {"message": "canceled", "verdict": "canceled"},
        {"verdict": "sent"},
        {"provider": "silent"},
        {"provider": "removed"},
    ],
    ids=lambda what: ", ".join(f"{key} {value}" for key, value in what.items()),
)
async def test_what_is_not_waited_for_or_not_yet_late_is_not_asked_for(polled, what):
    await polled.add(**what)
    assert await polled.polling.scan() == 0
    provider = AskedProvider()
    assert await polled.poll(provider) == 0
    assert provider.asked == {}


@pytest.mark.parametrize("ties", [True, False])
async def test_a_scan_finds_every_open_message_however_many_pages_that_takes(
    polled, monkeypatch, ties
):
    monkeypatch.setattr(receipt_polling, "_PAGE", 3)
    at = 60 * MINUTE
    for number in range(10):
        await polled.add(f"SM{number}", check_in=at + (0 if ties else number) * MINUTE)
    if ties:
        async with polled.database.begin() as connection:
            connection.send(sql("UPDATE messages SET check_by = now()"))
    assert await polled.polling.scan() == 10
    assert await polled.scan_again() == 0  # they are known already
    assert len(await polled.rows()) == 10


async def test_messages_of_a_bulk_are_found_while_it_has_a_runner(polled, monkeypatch):
    monkeypatch.setattr(receipt_polling, "_PAGE", 3)
    of_open = await polled.add_bulk(10)
    await polled.add_bulk(4, is_open=False)
    assert await polled.polling.scan() == 10
    assert {row["message_id"] for row in await polled.rows()} == set(of_open)


async def test_one_worker_scans_at_a_time_and_not_again_at_once(polled):
    await polled.add()
    another = ReceiptPolling(polled.database, polled.services.configurations, None)
    found = await asyncio.gather(*(each.scan() for each in [polled.polling, another] * 3))
    assert sorted(found, key=str) == [1, None, None, None, None, None]
    async with polled.database.begin() as connection:
        connection.send(
            sql("UPDATE receipt_poll_scans SET next_at = next_at - interval '15 seconds'")
        )
    assert await another.scan() == 0


async def test_an_installation_whose_providers_are_not_asked_does_not_scan(polled):
    await polled.add()
    kept = CONFIGURATION.replace('poll_after = "5m"', "")
    kept = kept.replace('"twilio"', '"simulator"').replace(
        'account_sid = "AC72d1371c17149d439536b3216fdaeeb9"', "port = 2776"
    )
    kept = kept.replace('auth_token = "env:SMSGATEWAY_SECRET_TWILIO"', "")
    await polled.services.configurations.apply(kept, applied_by="test")
    assert await polled.polling.scan() is None
    assert await rows_of(polled.database, sql("SELECT FROM receipt_poll_scans")) == []


async def test_two_workers_never_ask_for_the_same_part(polled):
    count = 30
    for number in range(count):
        await polled.add(f"SM{number}")
    await polled.polling.scan()
    provider = AskedProvider(ENROUTE)
    provider.may_answer.clear()

    async def work():
        while len(provider.asked) < count:
            await polled.poll(provider)

    workers = [asyncio.create_task(work()) for _ in range(3)]
    async with asyncio.timeout(60):
        while provider.under_way < 3 * MOST_AT_ONCE:
            await asyncio.sleep(0.01)
        # Nobody has answered yet: what is under way is asked for by nobody else.
        assert set(provider.asked.values()) == {1}
        provider.may_answer.set()
        await asyncio.gather(*workers)
    assert len(provider.asked) == count
    assert set(provider.asked.values()) == {1}


async def test_a_worker_asks_for_a_few_parts_at_once(polled):
    for number in range(3 * MOST_AT_ONCE):
        await polled.add(f"SM{number}")
    await polled.polling.scan()
    provider = AskedProvider()
    assert await polled.poll(provider) == MOST_AT_ONCE
    await polled.poll_all(provider)
    assert len(provider.asked) == 3 * MOST_AT_ONCE
    assert provider.most_under_way == MOST_AT_ONCE


async def test_a_part_that_is_on_its_way_is_asked_for_again_after_twice_the_time(polled):
    added = await polled.add(receipt_in=timedelta(days=2))
    await polled.polling.scan()
    provider = AskedProvider(ENROUTE)
    before = counted("pending")
    waits = []
    for _ in range(5):
        await polled.due_again()
        await polled.poll(provider)
        (row,) = await polled.rows()
        waits.append(round((row["poll_at"] - datetime.now(UTC)) / MINUTE))
    assert waits == [10, 20, 40, 60, 60]
    assert await polled.poll(provider) == 0  # it is not due
    assert counted("pending") == before + 5
    events = await rows_of(polled.database, sql("SELECT status FROM events WHERE kind = 'receipt'"))
    assert [event["status"] for event in events] == ["enroute"]
    assert await polled.status(added) == "sent"


async def test_an_answer_that_says_on_its_way_settles_what_was_unknown(polled):
    added = await polled.add(status="unknown", message="unknown")
    await polled.polling.scan()
    await polled.poll(AskedProvider(ENROUTE))
    assert await polled.status(added) == "sent"


async def test_after_a_receipt_or_a_deadline_the_part_is_not_asked_for_again(polled):
    await polled.add("SM1")
    await polled.add("SM2")
    await polled.polling.scan()
    provider = AskedProvider(ENROUTE)
    await polled.poll(provider)
    provider.state = DELIVERED
    async with polled.database.begin() as connection:
        connection.send(
            sql("UPDATE attempts SET receipt_by = now() WHERE provider_message_id = 'SM2'")
        )
    await polled.due_again()
    await polled.poll_all(provider)
    assert provider.asked == {"SM1": 2, "SM2": 1}
    await polled.due_again()
    await polled.poll_all(provider)
    assert provider.asked == {"SM1": 2, "SM2": 1}
    assert await polled.rows() == []
    assert await polled.scan_again() == 0


async def test_a_part_that_cannot_be_asked_for_does_not_stop_the_others(polled, monkeypatch):
    monkeypatch.setattr(receipt_polling.deadlines, "receipt_poll_within", lambda _: MINUTE / 120)

    async def fails():
        raise LookupError("of the adapter")

    async def says_nothing():
        return None

    async def hangs():
        await asyncio.sleep(3600)

    added = [await polled.add(f"SM{number}") for number in range(4)]
    await polled.polling.scan()
    provider = AskedProvider()
    provider.troubles = {"SM0": fails, "SM1": says_nothing, "SM2": hangs}
    before = {each: counted(each) for each in ("failed", "unanswered", "final")}
    await polled.poll(provider)
    assert [await polled.status(each) for each in added] == ["sent", "sent", "sent", "delivered"]
    after = {each: counted(each) - before[each] for each in before}
    assert after == {"failed": 1, "unanswered": 2, "final": 1}


async def test_an_answer_that_is_not_stored_is_asked_for_again(polled, monkeypatch):
    added = await polled.add()
    await polled.polling.scan()
    provider = AskedProvider()
    before = counted("not_stored")
    with monkeypatch.context() as broken:

        def away():
            raise DatabaseAway

        broken.setattr(polled.services.receipts, "_database", SimpleNamespace(begin=away))
        await polled.poll(provider)
    assert counted("not_stored") == before + 1
    assert await polled.status(added) == "sent"
    await polled.due_again()
    await polled.poll(provider)
    assert await polled.status(added) == "delivered"

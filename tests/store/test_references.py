"""References of parts: none repeats for a recipient while parts of an earlier message may come."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain import deadlines
from domain.segments import PartMethod, segment, segment_as_counted
from store import references
from store.database import Database, sql
from store.references import Reference
from tests.store.test_folds import database

__all__ = ["database"]

pytestmark = pytest.mark.stack

NOW = datetime.now(UTC)
MESSAGES = 3000
RECIPIENTS = 2


@pytest.fixture
async def filled(database: Database) -> Database:
    """Messages of an account, to one recipient and the other in turn."""
    async with database.begin() as connection:
        connection.send(
            sql(
                "INSERT INTO accounts (id, name, callback_secret) VALUES ('default', 'default', 'whsec_x')"
            )
        )
        connection.send(
            sql(
                "INSERT INTO recipients (id, account_id, hash_version, number_hash, number, country)"
                " SELECT lpad(to_hex(n * 65521), 32, '0')::uuid, 'default', 1, int4send(n),"
                " '+447700900123', 'GB' FROM generate_series(1, :recipients) AS n"
            ),
            {"recipients": RECIPIENTS},
        )
        connection.send(
            sql(
                "INSERT INTO messages (id, account_id, environment, mode, priority, status, sender,"
                " recipient_id, country, body, encoding, segments, accepted_at, validity,"
                " valid_until, since, transitioned_at)"
                " SELECT lpad(to_hex(n), 32, '0')::uuid, 'default', 'live', 'alert', 'normal',"
                " 'queued', 'T', lpad(to_hex((n % :recipients + 1) * 65521), 32, '0')::uuid, 'GB',"
                " 'x', 'gsm7', 2, :now, '1 day', :now, :now, :now"
                " FROM generate_series(0, :many) AS n"
            ),
            {"many": MESSAGES, "recipients": RECIPIENTS, "now": NOW},
        )
    return database


class Phones:
    """What phones would join: references in use, by recipient, header and number."""

    def __init__(self) -> None:
        self.used: dict[tuple[int, bool, int], datetime] = {}

    def receive(self, message: int, reference: Reference, at: datetime) -> None:
        is_long = reference.is_scarce
        number = reference.number if is_long else reference.number & 0xFF
        place = (message % RECIPIENTS, is_long, number)
        since = deadlines.reassembly_since(at)
        assert self.used.get(place, since) <= since, f"{place} is used again"
        self.used[place] = at


async def take(
    database: Database, phones: Phones, messages: Iterator[int], parts: list[int], at: datetime
) -> list[Reference]:
    """Claim messages of so many parts together."""
    wanted = {UUID(int=n): count for n, count in zip(messages, parts, strict=False)}
    async with database.begin() as connection:
        taken = await references.take(
            connection, wanted, at=at, since=deadlines.reassembly_since(at)
        )
    assert taken.keys() == wanted.keys()
    for message_id in sorted(taken):
        phones.receive(message_id.int, taken[message_id], at)
    return list(taken.values())


async def test_the_references_of_forty_messages_to_one_phone_are_all_different(filled):
    phones, even = Phones(), iter(range(0, MESSAGES, RECIPIENTS))
    taken = [(await take(filled, phones, even, [2], NOW))[0] for _ in range(40)]
    assert not any(each.is_scarce for each in taken)
    assert len({each.number & 0xFF for each in taken}) == 40


async def test_where_256_are_not_enough_all_sixteen_bits_are_used_and_later_eight_again(filled):
    phones, even = Phones(), iter(range(0, MESSAGES, RECIPIENTS))
    taken = [(await take(filled, phones, even, [2], NOW))[0] for _ in range(400)]
    assert [each.is_scarce for each in taken] == sorted(each.is_scarce for each in taken)
    assert sum(not each.is_scarce for each in taken) in {127, 128}
    later = NOW + timedelta(days=4)
    again = [(await take(filled, phones, even, [2], later))[0] for _ in range(60)]
    assert not again[-1].is_scarce


async def test_recipients_begin_with_different_references(filled):
    phones = Phones()
    first = await take(filled, phones, iter([0, 1]), [2, 2], NOW)
    assert first[0].number != first[1].number


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    claims=st.lists(
        st.tuples(
            st.lists(st.integers(2, 40), min_size=1, max_size=25),
            st.sampled_from([0, 0, 0, 1, 600, 40_000, 200_000, 300_000]),
        ),
        min_size=1,
        max_size=25,
    )
)
async def test_no_reference_repeats_for_a_recipient_within_the_reassembly_time(filled, claims):
    """However many messages are claimed together, of however many parts, and with whatever pauses."""
    async with filled.begin() as connection:
        connection.send(sql("DELETE FROM concatenation_references"))
    phones, messages, at = Phones(), iter(range(MESSAGES)), NOW
    for parts, pause in claims:
        at += timedelta(seconds=pause)
        await take(filled, phones, messages, parts, at)


@given(st.text(alphabet="aé€ł💾\r\n", max_size=700))
def test_a_text_has_the_same_number_of_parts_with_either_header(text):
    if not text:
        return
    counts = {
        segment_as_counted(text, method=method).segments
        for method in (PartMethod.UDH8, PartMethod.UDH16, PartMethod.SAR, PartMethod.PAYLOAD)
    }
    assert counts == {segment(text).segments}

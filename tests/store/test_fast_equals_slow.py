"""The statements for usual cases leave the rows that the step-by-step path leaves.

Random histories of messages (submit outcomes, and receipts of all states in random order) are written
by the statements for usual cases, by the step-by-step path in the same groups, and by that one by one.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

import store
from domain.money import Price
from domain.receipts import ReceiptState
from store import attempts
from store.attempts import AttemptChange, PartRecord
from store.database import Database, sql
from store.receipts import apply, reads, unmatched
from store.receipts.ingest import StoredReceipt, ingest
from store.receipts.match import match
from store.receipts.with_response import EarlyReceipt, record_delivered
from store.transitions import EMIT_EVENTS, emit_events, lock, refresh_status
from tests.rows import rows_of
from tests.store.test_folds import NOW, add_attempt, add_message
from tests.store.test_receipts import EFFECTS, HOW

pytestmark = pytest.mark.stack

AT = NOW + timedelta(seconds=10)


@dataclass(frozen=True)
class Message:
    """How a message was sent: its parts' outcomes, and whether it is one of a bulk."""

    outcomes: tuple[str, ...]
    bulk: bool
    final_only: bool = False
    expired: bool = False


@dataclass(frozen=True)
class Receipt:
    """A receipt for a part of a message, by their places."""

    message: int
    part: int
    state: ReceiptState = ReceiptState.DELIVERED
    code: str = "000"
    network: str | None = None


@dataclass(frozen=True)
class History:
    """Messages, and what came of them: an outcome is the place of a message; groups are written at once."""

    messages: tuple[Message, ...]
    groups: tuple[tuple[int | Receipt, ...], ...]


messages = st.builds(
    Message,
    outcomes=st.lists(
        st.sampled_from(["accepted", "accepted", "accepted", "unknown", "refused"]),
        min_size=1,
        max_size=3,
    ).map(tuple),
    bulk=st.booleans(),
    final_only=st.booleans(),
    expired=st.sampled_from([False, False, False, True]),
)


@st.composite
def histories(draw) -> History:
    some = draw(st.lists(messages, min_size=1, max_size=5))
    receipt = st.integers(0, len(some) - 1).flatmap(
        lambda m: st.builds(
            Receipt,
            message=st.just(m),
            part=st.integers(0, len(some[m].outcomes) - 1),
            state=st.sampled_from([ReceiptState.DELIVERED] * 4 + list(ReceiptState)),
            code=st.sampled_from(["000", "001"]),
            network=st.sampled_from([None, None, None, "23415"]),
        )
    )
    steps = [*range(len(some)), *draw(st.lists(receipt, max_size=10))]
    steps = draw(st.permutations(steps))
    groups: list[list[int | Receipt]] = []
    for step in steps:
        same = groups and isinstance(groups[-1][0], int) == isinstance(step, int)
        if same and draw(st.booleans()):
            groups[-1].append(step)
        else:
            groups.append([step])
    return History(tuple(some), tuple(tuple(group) for group in groups))


@dataclass
class World:
    """One way to write a history, with a provider of its own."""

    database: Database
    provider: str
    history: History
    fast: bool
    grouped: bool
    ids: list[UUID] = field(default_factory=list)
    early: set[int] = field(default_factory=set)

    async def begin(self) -> None:
        async with self.database.begin() as connection:
            for message in self.history.messages:
                message_id = add_message(connection, status="sending")
                add_attempt(
                    connection,
                    message_id,
                    1,
                    ["submitting"] * len(message.outcomes),
                    "submitting",
                    inside=True,
                )
                self.ids.append(message_id)
            for table in ("attempts", "parts"):
                connection.send(
                    sql(f"UPDATE {table} SET provider = :provider WHERE message_id = ANY(:ids)"),
                    {"provider": self.provider, "ids": self.ids},
                )
            await self._put_in_lanes(connection)

    async def _put_in_lanes(self, connection) -> None:
        bulk, lane = uuid7(), uuid7()
        connection.send(
            sql("INSERT INTO bulks VALUES (:bulk, :first, :last, :count, :now)"),
            {
                "bulk": bulk,
                "first": self.ids[0],
                "last": self.ids[-1],
                "count": len(self.ids),
                "now": NOW,
            },
        )
        connection.send(
            sql("INSERT INTO endpoints (id, account_id, origin) VALUES (:l, 'default', :o)"),
            {"l": lane, "o": lane.hex},
        )
        for message_id, message in zip(self.ids, self.history.messages, strict=True):
            connection.send(
                sql(
                    "UPDATE messages SET callback_lane_id = :lane, callback_url = 'https://x/',"
                    " callback_final_only = :final_only,"
                    " bulk_id = CASE WHEN :in_bulk THEN CAST(:bulk AS uuid) END,"
                    " owner = CASE WHEN :in_bulk THEN 'bulk/1' ELSE 'send/1' END WHERE id = :m"
                ),
                {
                    "lane": lane,
                    "final_only": message.final_only,
                    "in_bulk": message.bulk,
                    "bulk": bulk,
                    "m": message_id,
                },
            )

    async def write(self) -> None:
        for place, group in enumerate(self.history.groups):
            for some in [group] if self.grouped else [(step,) for step in group]:
                if isinstance(some[0], int):
                    await self.record(some, self.kept(place) if self.fast else {})
                elif not self.fast or place not in self.early:
                    await self.receive(some)
        await self.match_again()
        for place, message in enumerate(self.history.messages):
            if message.expired:
                await self.expire(place)

    def kept(self, place: int) -> dict[str, EarlyReceipt]:
        """The receipts of the next group, if each of them can be written with its outcome here."""
        group, following = self.history.groups[place], self.history.groups[place + 1 : place + 2]
        for receipts_ in following:
            usual = all(
                isinstance(each, Receipt)
                and each.message in group
                and each.state is ReceiptState.DELIVERED
                and each.network is None
                and self.history.messages[each.message].bulk
                and self.history.messages[each.message].outcomes == ("accepted",)
                for each in receipts_
            )
            once = len({each.message for each in receipts_ if isinstance(each, Receipt)})
            if usual and once == len(receipts_) and not self.came_before(receipts_, place):
                self.early.add(place + 1)
                return {
                    self.id_of(each.message, 0): EarlyReceipt(each.code, self.time_of(each))
                    for each in receipts_
                    if isinstance(each, Receipt)
                }
        return {}

    def came_before(self, receipts_, place: int) -> bool:
        """Whether an earlier receipt waits for the same outcome."""
        wanted = {each.message for each in receipts_}
        before = [step for group in self.history.groups[:place] for step in group]
        return any(isinstance(step, Receipt) and step.message in wanted for step in before)

    def id_of(self, message: int, part: int) -> str:
        return f"{self.provider}/{message}/{part}"

    def time_of(self, receipt: Receipt):
        """Receipts come in the order in which they are written."""
        steps = [step for group in self.history.groups for step in group]
        place = next((n for n, step in enumerate(steps) if step is receipt), len(steps))
        return NOW + timedelta(seconds=1, milliseconds=place)

    def change(self, message: int) -> AttemptChange:
        outcomes = self.history.messages[message].outcomes
        parts = [
            PartRecord(
                n + 1,
                status,
                self.id_of(message, n) if status == "accepted" else None,
                {"refused": "invalid_recipient", "unknown": "unknown"}.get(status),
                "0x45" if status == "refused" else "",
                billed_segments=n + 1 if status == "accepted" else None,
                price=Price.of("0.0075", "EUR") if status == "accepted" and message % 2 else None,
            )
            for n, status in enumerate(outcomes)
        ]
        worst = next((s for s in ("unknown", "refused") if s in outcomes), None)
        return AttemptChange(
            self.ids[message],
            1,
            parts,
            error_class={"unknown": "unknown", "refused": "invalid_recipient", None: None}[worst],
            code="0x45" if worst == "refused" else "",
            bind="p/1",
        )

    async def record(self, some: Sequence[int | Receipt], kept: dict[str, EarlyReceipt]) -> None:
        changes = [self.change(each) for each in some if isinstance(each, int)]
        async with self.database.begin() as connection:
            lock(connection, sorted(change.message_id for change in changes))
            if self.fast:
                transitions = await record_delivered(
                    connection, [self.provider], changes, kept, actor="test", at=AT
                )
                done = {each for transition in transitions for each in transition.ids}
                assert len(done) == len(kept)
                await attempts.record_and_refresh(
                    connection,
                    [change for change in changes if change.message_id not in done],
                    actor="test",
                    at=AT,
                    check_by=AT,
                    unknown_until=AT,
                )
            else:
                attempts.record(connection, changes, at=AT, unknown_until=AT)
                ids = [change.message_id for change in changes]
                await refresh_status(connection, ids, actor="test", at=AT, check_by=AT)
        ids = [part.provider_message_id for change in changes for part in change.parts]
        await self.match([each for each in ids if each is not None])

    async def match(self, ids: Sequence[str]) -> None:
        async with self.database.begin() as connection:
            await match(connection, [self.provider], ids, **{**HOW, "at": AT})

    async def match_again(self) -> None:
        async with self.database.begin() as connection:
            due = await unmatched.due(connection, AT + timedelta(days=1), 1000)
        await self.match(
            [each.provider_message_id for each in due if each.provider == self.provider]
        )

    async def receive(self, some: Sequence[int | Receipt]) -> None:
        batch = [
            StoredReceipt(
                provider=self.provider,
                provider_message_id=self.id_of(each.message, each.part),
                state=each.state,
                code=each.code,
                received_at=self.time_of(each),
                network=each.network,
            )
            for each in some
            if isinstance(each, Receipt)
        ]
        async with self.database.begin() as connection:
            await ingest(connection, [self.provider], batch, EFFECTS, at=AT)

    async def expire(self, place: int) -> None:
        """Give up the wait for receipts, as the runner would, and see what a late one does."""
        async with self.database.begin() as connection:
            lock(connection, [self.ids[place]])
            await rows_of(
                connection,
                sql("UPDATE attempts SET expired = true WHERE message_id = :m"),
                {"m": self.ids[place]},
            )
            change = AttemptChange(self.ids[place], 1)
            attempts.refold(connection, [change], at=AT)
            await refresh_status(connection, [self.ids[place]], actor="test", at=AT)
        await self.receive([Receipt(place, 0, ReceiptState.DELIVERED, "late")])

    async def rows(self) -> list[object]:
        """All that is written of each message, but for names."""
        return [await self.rows_of(message_id) for message_id in self.ids]

    async def rows_of(self, message_id: UUID) -> dict[str, object]:
        found: dict[str, object] = {}
        for table, query in TABLES.items():
            rows = await rows_of(self.database, sql(query), {"m": message_id})
            found[table] = [
                {
                    name: value.replace(f"{self.provider}/", "")
                    if isinstance(value, str)
                    else value
                    for name, value in row.items()
                    if name not in NAMES
                }
                for row in rows
            ]
        async with self.database.begin() as connection:
            of_message = await reads.of_message(connection, message_id)
        found["receipts"] = [
            {name: value for name, value in asdict(row).items() if name not in NAMES}
            for row in sorted(of_message, key=lambda r: (r.received_at, r.part, r.state))
        ]
        return found


NAMES = {"id", "seq", "message_id", "message_ids", "bulk_id", "lane_id", "recipient_id", "provider"}
NAMES |= {"subject_id", "provider_message_id", "callback_lane_id", "position", "receipt_within"}
NAMES |= {"receipt_done_at", "number_hash"}
EVENT = "at, kind, actor, previous, status, attempt, network, code, reason, detail, seq"
TABLES = {
    "messages": "SELECT * FROM messages WHERE id = :m",
    "attempts": "SELECT * FROM attempts WHERE message_id = :m ORDER BY number",
    "parts": "SELECT * FROM all_parts WHERE message_id = :m ORDER BY attempt, number",
    "events": f"SELECT {EVENT} FROM events WHERE message_id = :m UNION ALL"
    f" SELECT {EVENT} FROM events_of_many WHERE :m = ANY(message_ids) ORDER BY seq",
    "callbacks": "SELECT * FROM outbox WHERE subject_id = :m ORDER BY position",
}


async def written_each_way(database_url: str, history: History):
    database = Database.connect(database_url)
    usual, unusual = apply._deliver, _none_is_usual
    try:
        worlds = []
        for fast, grouped in ((True, True), (False, True), (False, False)):
            world = World(database, f"p{uuid7().hex}", history, fast=fast, grouped=grouped)
            await world.begin()
            apply._deliver = usual if fast else unusual
            await world.write()
            worlds.append(await world.rows())
        return worlds
    finally:
        apply._deliver = usual
        await database.close()


async def _none_is_usual(*_: object):
    return []


ALL_EARLY = History(
    (Message(("accepted",), bulk=True), Message(("accepted",), bulk=True, final_only=True)),
    ((0, 1), (Receipt(0, 0), Receipt(1, 0, code="001"))),
)


@pytest.mark.timeout(600)
@settings(
    max_examples=50,
    deadline=None,
    # Each example takes many statements: the one that fails is shown as it was found.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(histories())
@example(ALL_EARLY)
def test_fast_statements_leave_the_rows_of_the_step_by_step_path(database_url, history):
    fast, slow, alone = asyncio.run(written_each_way(database_url, history))
    for place, message in enumerate(history.messages):
        for table in fast[place]:
            assert fast[place][table] == slow[place][table], f"{table} of {message}"
            if table not in {"events", "callbacks"}:  # a group may move a message less often
                assert slow[place][table] == alone[place][table], f"{table} of {message}, alone"
        receipts = [
            sorted(
                (e["status"], e["code"]) for e in rows[place]["events"] if e["kind"] == "receipt"
            )
            for rows in (slow, alone)
        ]
        assert receipts[0] == receipts[1]


# --- one fragment writes what a change of status is followed by ----------------------------------

STORE = Path(store.__file__).parent


def test_every_statement_that_changes_a_status_ends_in_the_fragment_that_writes_events():
    changes = re.compile(r"UPDATE messages(?: m)?\s+SET (?:\w+ = [^,]+,\s*)*?status\s*=", re.DOTALL)
    found = {}
    for path in STORE.rglob("*.py"):
        for statement in re.split(r"\n_?[A-Z_]+ = ", path.read_text()):
            if changes.search(statement):
                found[f"{path.name}: {statement[:40]!r}"] = statement
    assert len(found) == 5
    for name, statement in found.items():
        assert "{EMIT_EVENTS}" in statement or "{emit_events(" in statement, name
    assert emit_events() in EMIT_EVENTS

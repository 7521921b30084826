"""A batch while everything around it dies: each message is delivered, or honestly unknown."""

import time
import uuid
from collections import Counter
from collections.abc import Callable

import pytest
from smsgateway import Recipient

from tests.stack.gateway import MOST_IN_DOUBT, Gateway

pytestmark = pytest.mark.stack

COUNT = 600


class Batch:
    """A batch in progress, as the API and the carriers show it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.mark = f"Disk full ({uuid.uuid4().hex[:12]})"
        self.sent = gateway.patient_client.send_batch(
            recipients=[
                Recipient(to=f"+447700900{100 + n}", variables={"n": str(n)}) for n in range(COUNT)
            ],
            sender="AbilIT",
            body=f"{self.mark} on db-{{n}}",
        )
        assert self.sent.accepted == COUNT

    @property
    def uuid(self) -> str:
        return self.sent.batch_id.removeprefix("bat_")

    def counts(self) -> Counter[str]:
        found = self.gateway.patient_client.batch(self.sent.batch_id).counts
        counted: Counter[str] = Counter()
        for each in found:
            counted[str(each.status)] += each.messages
        return counted

    def carried(self) -> Counter[str]:
        """How often the carriers have each text."""
        return Counter(got.text for got in self.gateway.got() if got.text.startswith(self.mark))

    def until(
        self, so: Callable[[Counter[str]], bool], what: str, within: float = 120
    ) -> Counter[str]:
        end = time.monotonic() + within
        while not so(counts := self.counts()):
            assert time.monotonic() < end, f"not so after {within:g} s: {what}; {counts}"
            time.sleep(0.1)
        return counts

    def until_more_are_delivered(self, more: int) -> None:
        """Or until no more can be, since the outcome of those that are left is unknown."""
        before = self.counts()["delivered"]
        self.until(
            lambda counts: counts["delivered"] >= min(before + more, COUNT - in_doubt(counts)),
            f"{more} more delivered",
        )


def in_doubt(counts: Counter[str]) -> int:
    """How many have an unknown outcome: a dead letter where the receipt's deadline has passed, too."""
    return counts["unknown"] + counts["dead_letter"]


@pytest.mark.timeout(300)  # each death is noticed after ten seconds or more
def test_a_batch_survives_its_workers_its_api_its_database_and_its_carrier(gateway: Gateway):
    gateway.behave(latency=0.1)
    batch = Batch(gateway)
    for _ in range(3):
        batch.until_more_are_delivered(60)
        gateway.stack.kill_worker()
        gateway.stack.start_worker()
    gateway.stack.kill_api()
    gateway.stack.start_api()
    batch.until_more_are_delivered(30)
    gateway.stack.restart_postgres()
    batch.until_more_are_delivered(30)
    gateway.steer("/reset")
    counts = batch.until(
        lambda counts: counts["delivered"] + in_doubt(counts) == COUNT, "delivered or unknown"
    )
    assert dead_letters(gateway, batch) <= {"outcome_unknown"}
    # Three kills, and one reset of the connections, of one provider.
    assert in_doubt(counts) <= 4 * MOST_IN_DOUBT
    carried = batch.carried()
    assert max(carried.values()) == 1, "a transactional message is not sent again unknown"
    assert counts["delivered"] <= len(carried) <= COUNT
    gateway.eventually(
        lambda: batch.counts()["delivered"] == delivered_with_a_receipt(gateway, batch),
        "counters agree with rows",
    )


def dead_letters(gateway: Gateway, batch: Batch) -> set[str]:
    """Why messages of the batch are dead letters, if some are."""
    rows = gateway.fetch(
        "SELECT DISTINCT reason FROM messages WHERE bulk_id = %(bulk)s AND status = 'dead_letter'",
        bulk=batch.uuid,
    )
    return {row["reason"] for row in rows}


def delivered_with_a_receipt(gateway: Gateway, batch: Batch) -> int:
    """How many messages have a delivered part, counted in the rows themselves."""
    (row,) = gateway.fetch(
        "SELECT count(*) AS messages FROM messages m JOIN all_parts p ON p.message_id = m.id"
        " WHERE m.bulk_id = %(bulk)s AND p.receipt_state = 'delivered'",
        bulk=batch.uuid,
    )
    return int(row["messages"])

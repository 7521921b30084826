"""A batch while everything around it dies: each message is delivered, or honestly unknown."""

import time
import uuid
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest
from smsgateway import Recipient

from tests.stack.gateway import MOST_IN_DOUBT, Gateway

pytestmark = pytest.mark.stack

COUNT = 600


class Batch:
    """A batch that is on its way, as the API and as the carriers tell of it."""

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
        self, so: Callable[[Counter[str]], bool], what: str, within: float = 90
    ) -> Counter[str]:
        end = time.monotonic() + within
        while not so(counts := self.counts()):
            assert time.monotonic() < end, f"not so after {within:g} s: {what}; {counts}"
            time.sleep(0.1)
        return counts

    def until_more_are_delivered(self, more: int) -> None:
        """Or until no more can be, since those that are left are in doubt."""
        before = self.counts()["delivered"]
        self.until(
            lambda counts: counts["delivered"] >= min(before + more, COUNT - counts["unknown"]),
            f"{more} more delivered",
        )


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
        lambda counts: counts["delivered"] + counts["unknown"] == COUNT, "delivered or unknown"
    )
    # Three kills, and one reset of the connections, of one provider.
    assert counts["unknown"] <= 4 * MOST_IN_DOUBT
    carried = batch.carried()
    assert max(carried.values()) == 1, "a transactional message is not sent again in doubt"
    assert counts["delivered"] <= len(carried) <= COUNT
    gateway.eventually(
        lambda: batch.counts()["delivered"] == delivered_with_a_receipt(gateway, batch),
        "counters agree with rows",
    )


def delivered_with_a_receipt(gateway: Gateway, batch: Batch) -> int:
    """How many messages have a delivered part, counted in the rows themselves."""
    uuid_ = batch.sent.batch_id.removeprefix("bat_")
    with psycopg.connect(gateway.stack.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM messages m JOIN all_parts p ON p.message_id = m.id"
            " WHERE m.bulk_id = %s AND p.receipt_state = 'delivered'",
            (uuid_,),
        ).fetchone()
    return int(row[0]) if row else 0

"""Several workers share a carrier's binds, and take over from each other."""

from collections.abc import Iterator

import pytest

from tests.stack.gateway import BINDS, MIXED, Gateway, assert_nothing_lost

pytestmark = pytest.mark.stack

CARRIERS = ("primary", "backup")


def bound(gateway: Gateway, carrier: str = "primary") -> int:
    """How many sessions an SMSC has with us, as it counts them."""
    binds = gateway.ask(carrier, "GET", "/state")["binds"]
    return sum(bind["system_id"] != "hasty" for bind in binds)


def workers(gateway: Gateway) -> set[tuple[int, int]]:
    """How many workers and binds each provider has."""
    return {(p.workers, p.binds_up) for p in gateway.patient_client.providers()}


@pytest.fixture
def gateway_of_two(gateway: Gateway) -> Iterator[Gateway]:
    """With a second worker, which has its part of the binds."""
    second = gateway.stack.add_worker()
    gateway.eventually(lambda: workers(gateway) == {(2, BINDS)}, "both have their binds")
    yield gateway
    gateway.stack.start_what_is_down()
    gateway.stack.remove_worker(second)
    gateway.eventually(lambda: workers(gateway) == {(1, BINDS)}, "the first one has all binds")


def test_two_workers_have_no_more_binds_than_one(gateway_of_two: Gateway):
    assert [bound(gateway_of_two, carrier) for carrier in CARRIERS] == [BINDS, BINDS]
    messages = gateway_of_two.send_many(20, MIXED)
    gateway_of_two.until(messages, "delivered")


def test_when_one_of_two_workers_is_killed_the_other_takes_its_binds(gateway_of_two: Gateway):
    gateway = gateway_of_two
    seen = set()

    def one_has_all() -> bool:
        seen.add(bound(gateway))
        return workers(gateway) == {(1, BINDS)}

    with gateway.sending(60, MIXED) as load:
        gateway.eventually(lambda: load.accepted >= 15, "messages flow")
        gateway.stack.kill_worker()
        gateway.eventually(one_has_all, "one has all binds")  # no need to wait for a heartbeat
    gateway.until_over(load.messages)
    assert_nothing_lost(gateway, load.messages, kills=1)
    assert max(seen) <= BINDS


def test_a_worker_that_shuts_down_hands_its_binds_to_the_other(gateway_of_two: Gateway):
    gateway = gateway_of_two
    with gateway.sending(60, MIXED) as load:
        gateway.eventually(lambda: load.accepted >= 15, "messages flow")
        gateway.stack.stop_worker()
        gateway.eventually(lambda: workers(gateway) == {(1, BINDS)}, "one has all binds")
    gateway.until(load.messages, "delivered")


def test_a_worker_without_a_database_lets_go_of_its_binds_and_takes_them_again(gateway: Gateway):
    gateway.stack.stop_postgres()
    gateway.eventually(lambda: bound(gateway) == 0, "others could have the binds")
    gateway.stack.start_postgres()
    gateway.eventually(lambda: bound(gateway) == BINDS, "they are bound again")
    gateway.until(gateway.send_many(4, patiently=True), "delivered")

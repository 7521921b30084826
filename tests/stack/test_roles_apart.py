"""Roles in workers of their own at a provider with a single bind: the commonest contract."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest
from smsgateway import Recipient

from local.folders import temporary_folder
from local.stack import Stack
from tests.gateway import CONFIGURATION, Gateway, running_gateway
from tests.stack.gateway import MIXED
from tests.stack.gateway import Gateway as Processes
from tests.workflows.test_bulk import Batch, carried, number
from workers.roles import Role

pytestmark = pytest.mark.stack

WITHIN = 180
ONE_BIND = CONFIGURATION.replace("echoes_reference", "binds = 1\nechoes_reference")


async def single_messages_and_a_batch_are_delivered(gateway: Gateway, name: str) -> None:
    """Both kinds of traffic, side by side."""
    before = carried(gateway)
    batch = await Batch(gateway, 20, body=f"{name} {{name}}").send()
    singles = [await gateway.send(to=number(100 + n), body=f"{name} {n}") for n in range(3)]
    for single in singles:
        await gateway.until(single, "delivered", within=WITHIN)
    await batch.until_all("delivered", within=WITHIN)
    assert carried(gateway) - before == batch.texts + Counter(f"{name} {n}" for n in range(3))


@pytest.mark.parametrize("first", [Role.PROVIDERS, Role.CHUNKS])
async def test_the_worker_that_holds_the_only_bind_sends_single_messages_and_batches(
    database_url, temporal_client, first
):
    async with running_gateway(
        database_url, temporal_client, configuration=ONE_BIND, with_worker=False
    ) as gateway:
        await gateway.start_worker(Role.SENDS)
        holder = await gateway.start_worker(first)
        await gateway.providers_up("primary", "backup", within=WITHIN)
        await gateway.start_worker(Role.CHUNKS if first is Role.PROVIDERS else Role.PROVIDERS)
        await single_messages_and_a_batch_are_delivered(gateway, "First")
        await gateway.services.configurations.apply(
            ONE_BIND.format(
                primary=gateway.primary.port,
                backup=gateway.backup.port,
                receipt_deadline="20m",
                response_timeout="2s",
                more="",
            ),
            applied_by="test",
        )
        await single_messages_and_a_batch_are_delivered(gateway, "Applied")
        await gateway.end_worker(holder)
        await single_messages_and_a_batch_are_delivered(gateway, "Other holder")


# As `make run` starts them: processes of their own, of which one may be killed.


@pytest.fixture(scope="module")
def stack_of_two() -> Iterator[Stack]:
    with temporary_folder() as folder:
        template = ONE_BIND.format(
            primary="$primary",
            backup="$backup",
            receipt_deadline="60s",
            response_timeout="3s",
            more="",
        )
        environment = {"SMSGATEWAY_WORKFLOW_STARTS": "1000"}
        stack = Stack(
            folder, own_servers=True, template=template, workers=2, environment=environment
        )
        try:
            stack.start()
            yield stack
        finally:
            stack.remove()


@pytest.fixture
def processes(stack_of_two: Stack) -> Iterator[Processes]:
    with closing(Processes(stack_of_two)) as gateway:
        is_up(gateway)
        yield gateway
    stack_of_two.check()


def is_up(gateway: Processes) -> None:
    gateway.eventually(
        lambda: gateway.patient_client.provider("primary").state == "up",
        "the primary is up for every role",
        within=WITHIN,
    )


def both_kinds_are_delivered(gateway: Processes) -> None:
    singles = gateway.send_many(3, MIXED)
    batch = gateway.client.send_batch(
        sender="AbilIT",
        body="Hello",
        recipients=[Recipient(to=f"+447700900{200 + n}") for n in range(10)],
    )
    gateway.until(singles, "delivered", within=WITHIN)
    gateway.eventually(
        lambda: gateway.client.batch(batch.batch_id).status == "finished",
        "the batch is delivered",
        within=WITHIN,
    )


def holders(gateway: Processes) -> list[str]:
    """The names of the living workers that hold the primary's bind, one at most."""
    rows = gateway.fetch(
        "SELECT worker FROM provider_workers WHERE provider = 'primary' AND binds_held > 0"
    )
    processes = [str(row["worker"]).rpartition("/")[2].partition(".")[0] for row in rows]
    workers = [child for child in gateway.stack.workers if child.running]
    return [child.name for child in workers if str(child.pid) in processes]


@pytest.mark.timeout(900)
def test_processes_send_both_kinds_also_after_a_configuration_was_applied(processes: Processes):
    both_kinds_are_delivered(processes)
    text = processes.stack.configuration_file.read_text()
    assert '"60s"' in text
    processes.operator.apply_configuration(text.replace('"60s"', '"50s"'))
    both_kinds_are_delivered(processes)


@pytest.mark.timeout(900)
def test_when_the_process_with_the_only_bind_is_killed_the_other_serves_both_kinds(
    processes: Processes,
):
    killed = set()
    while len(killed) < 2:  # each of them once
        (dead,) = holders(processes)
        killed.add(dead)
        processes.stack.kill_worker(dead)
        processes.eventually(
            lambda: bool(holders(processes)), "the other has the bind", within=WITHIN
        )
        if dead != "worker":  # which also decides for each message
            both_kinds_are_delivered(processes)
        processes.stack.start_worker(name=dead)
        both_kinds_are_delivered(processes)
        assert dead not in holders(processes)

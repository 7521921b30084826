"""The fixtures of the stack themselves, since everything else leans on them."""

import asyncio
from datetime import timedelta

import psycopg
import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from workflows.ports.attributes import MESSAGE_MODE


@workflow.defn
class SleepsForDays:
    @workflow.run
    async def run(self, days: int) -> int:
        await asyncio.sleep(timedelta(days=days).total_seconds())
        return days


@pytest.mark.stack
def test_each_test_has_a_database_of_its_own(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE only_here ()")


@pytest.mark.stack
def test_each_test_has_a_database_of_its_own_again(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE only_here ()")


@pytest.mark.stack
async def test_a_fresh_namespace_takes_workflows_with_our_search_attributes(
    temporal_client: Client,
) -> None:
    mode = SearchAttributePair(MESSAGE_MODE, "alert")
    async with Worker(temporal_client, task_queue="sends", workflows=[SleepsForDays]):
        result = await temporal_client.execute_workflow(
            SleepsForDays.run,
            0,
            id="a-fixed-id",
            task_queue="sends",
            search_attributes=TypedSearchAttributes([mode]),
        )
    assert result == 0


@pytest.mark.java
async def test_days_pass_in_seconds_on_the_time_skipping_server(
    time_skipping: WorkflowEnvironment,
) -> None:
    started = await time_skipping.get_current_time()
    async with Worker(time_skipping.client, task_queue="sends", workflows=[SleepsForDays]):
        await time_skipping.client.execute_workflow(
            SleepsForDays.run, 3, id="three-days", task_queue="sends"
        )
    assert await time_skipping.get_current_time() - started >= timedelta(days=3)

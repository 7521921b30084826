"""Kinds of workflows and roles of workers are entries of tables: a new one needs nothing else."""

import asyncio
import inspect
from dataclasses import dataclass
from datetime import datetime
from typing import get_type_hints

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner

from domain.binds import ProviderRole
from services.reconciler_kinds import TakenUp
from services.workflow_client import StartResult, WorkflowClient
from services.workflow_kinds import KINDS, WorkflowKind
from tests.gateway import running_gateway
from workers.process import WorkerProcess
from workers.provider_queues import WORKERS_OF_ROLES
from workers.roles import Role
from workers.task_queues import ROLES, TaskQueue, WorkerRole

WORKFLOWS = [
    (queue.name, each)
    for role in ROLES.values()
    for queue in role.task_queues
    for each in queue.options.get("workflows", ())
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_is_run_by_a_role_that_polls_its_task_queue(kind):
    (run,) = [
        each for queue, each in WORKFLOWS if (queue, each.__name__) == (kind.task_queue, kind.name)
    ]
    hints = get_type_hints(run.run)
    arguments = [hints[name] for name in list(inspect.signature(run.run).parameters)[1:]]
    assert arguments == ([] if kind.input is type(None) else [kind.input])


def test_each_workflow_of_a_role_is_a_kind_with_ids_of_its_own():
    assert {each.__name__ for _, each in WORKFLOWS} == {kind.name for kind in KINDS}
    assert len({kind.workflow_id("x") for kind in KINDS}) == len(KINDS)


def test_each_role_has_a_name_and_each_role_of_providers_has_pollers():
    assert set(ROLES) == set(Role) - {Role.ALL}
    assert {role.provider_role for role in ROLES.values()} == {None, *ProviderRole}
    assert set(WORKERS_OF_ROLES) == set(ProviderRole)


@dataclass(frozen=True, slots=True)
class Incident:
    number: int


@workflow.defn
class IncidentWorkflow:
    @workflow.run
    async def run(self, incident: Incident) -> int:
        return incident.number + 1


INCIDENT = WorkflowKind(
    name="IncidentWorkflow",
    task_queue="incidents",
    workflow_id=lambda subject: f"incident/{subject}",
    input=Incident,
)
ON_CALL = WorkerRole(
    task_queues=(
        TaskQueue(
            "incidents",
            {"workflows": [IncidentWorkflow], "workflow_runner": UnsandboxedWorkflowRunner()},
        ),
    )
)


class CheckedIncidents:
    """One incident whose runner is gone."""

    name = "incidents"

    def __init__(self, workflow_client: WorkflowClient) -> None:
        self._workflow_client = workflow_client

    async def make_all_due(self, now: datetime) -> int:
        return 1

    async def take_up(self, now: datetime) -> TakenUp:
        started = await self._workflow_client.start(
            INCIDENT, "inc_1", Incident(41), summary="Disk full"
        )
        return TakenUp(overdue=1, restarted=started is StartResult.STARTED)


@pytest.mark.stack
async def test_a_kind_that_is_registered_is_started_by_the_reconciler_and_run_by_its_role(
    database_url: str, temporal_client: Client
):
    async with running_gateway(database_url, temporal_client, with_worker=False) as gateway:
        services = gateway.services
        services.reconciler._checked = (
            *services.reconciler._checked,
            CheckedIncidents(services.workflow_client),
        )
        swept = await services.reconciler.sweep()
        assert swept.restarted == 1
        again = await services.workflow_client.start(INCIDENT, "inc_1", Incident(1), summary="x")
        assert again is StartResult.ALREADY_RUNNING
        process = WorkerProcess(
            services, gateway.client, ["on_call"], table={**ROLES, "on_call": ON_CALL}
        )
        stop = asyncio.Event()
        working = asyncio.create_task(process.work(stop))
        handle = gateway.client.get_workflow_handle("incident/inc_1", result_type=int)
        assert await asyncio.wait_for(handle.result(), 120) == 42
        stop.set()
        await working

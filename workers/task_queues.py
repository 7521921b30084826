"""The roles of workers: one table of what each polls, with which workflows, activities and limits."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner

from activities.bulk import Planning
from activities.callbacks import CallbackDelivery
from activities.reconciler import Sweeping
from activities.send import Deciding
from connectors.webhooks import Webhooks
from domain.binds import ProviderRole
from services.assembly import Services
from services.callbacks.drain import LaneDrain
from telemetry.supervision import supervised
from workers.reconciler import ReconcilerStarter
from workers.roles import Role
from workflows.bulk import BulkSendWorkflow
from workflows.callbacks import CALLBACKS, HANGING_CALLBACKS, CallbackWorkflow
from workflows.ports.send import SENDS
from workflows.reconciler import RECONCILER, ReconcilerWorkflow
from workflows.send import SendWorkflow

Activities: TypeAlias = Sequence[Callable[..., Any]]

_STICKY: Final = timedelta(seconds=5)
"""How long the next task of a workflow waits for the worker that has it in its cache, which may be
dead, before any other one may have it."""

TASKS_AT_ONCE: Final = 25
"""Workflow tasks of messages and bulks that a worker takes at once: few enough to end within their timeout
also on a busy machine. A hundred that were taken together, and all ran out of time, stopped the SDK's pollers
for good; what is not taken waits in Temporal, by priority."""

LANES_AT_ONCE: Final = 500
HANGING_LANES_AT_ONCE: Final = 50
"""A lane whose receiver hangs takes up a place for as long as its requests are waited for. Once that is
known it takes one of these, and the others stay free. It has one connection then, two while it is not
known, and 16 at most while its receiver answers."""


@dataclass(frozen=True, slots=True)
class TaskQueue:
    """A task queue that a role polls: its name, and options of Temporal's `Worker`."""

    name: str
    options: Mapping[str, Any]


@asynccontextmanager
async def _send_activities(services: Services) -> AsyncIterator[Activities]:
    yield [Deciding(services.delivery).decide, Planning(services.bulk_planner).plan]


@asynccontextmanager
async def _callback_activities(services: Services) -> AsyncIterator[Activities]:
    settings, configurations = services.settings, services.configurations

    def private_allowed() -> bool:
        policy = configurations.current.callbacks
        return settings.allow_private_callbacks or policy.allow_private_addresses

    async with Webhooks(allow_private=private_allowed) as webhooks:
        drain = LaneDrain(
            services.database,
            webhooks,
            lambda: configurations.current,
            services.workflow_client,
            allowed_secrets=settings.allowed_secrets,
        )
        yield [CallbackDelivery(drain).drain_lane]


@asynccontextmanager
async def _reconciler_activities(services: Services) -> AsyncIterator[Activities]:
    sweeping = Sweeping(services.reconciler)
    yield [sweeping.mark_everything_due, sweeping.sweep]


@asynccontextmanager
async def _no_activities(_: Services) -> AsyncIterator[Activities]:
    yield []


def _keep_reconciler_running(services: Services, client: Client) -> Awaitable[NoReturn]:
    starter = ReconcilerStarter(
        services.workflow_client, client, services.settings.temporal_namespace
    )
    return supervised(starter.run, "keep_reconciler_running")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRole:
    """What a worker of a role does and holds.

    Attributes:
        task_queues: those that it polls.
        activities: those of the role, which all of its task queues have.
        provider_role: what it holds binds for, if it does; the task queues of each provider are in
            `workers.provider_queues`.
        background: what runs beside the pollers, for as long as the worker has the role.
        nice: by how much a process that has no other role lets others go first (nice(2)).
    """

    task_queues: tuple[TaskQueue, ...] = ()
    activities: Callable[[Services], AbstractAsyncContextManager[Activities]] = _no_activities
    provider_role: ProviderRole | None = None
    background: Callable[[Services, Client], Awaitable[NoReturn]] | None = None
    nice: int = 0


ROLES: Final[Mapping[str, WorkerRole]] = MappingProxyType(
    {
        Role.SENDS: WorkerRole(
            task_queues=(
                TaskQueue(
                    SENDS,
                    {
                        "workflows": [SendWorkflow, BulkSendWorkflow],
                        "max_cached_workflows": 1000,
                        # One sandbox for each message costs a quarter of the worker
                        # (docs/decisions/0007); the recorded histories are replayed inside of it.
                        "workflow_runner": UnsandboxedWorkflowRunner(),
                        "sticky_queue_schedule_to_start_timeout": _STICKY,
                        "max_concurrent_workflow_tasks": TASKS_AT_ONCE,
                    },
                ),
            ),
            activities=_send_activities,
        ),
        Role.PROVIDERS: WorkerRole(provider_role=ProviderRole.PROVIDERS),
        # On a busy machine, single messages go first.
        Role.CHUNKS: WorkerRole(provider_role=ProviderRole.CHUNKS, nice=5),
        Role.CALLBACKS: WorkerRole(
            task_queues=(
                TaskQueue(
                    CALLBACKS,
                    {"workflows": [CallbackWorkflow], "max_concurrent_activities": LANES_AT_ONCE},
                ),
                TaskQueue(HANGING_CALLBACKS, {"max_concurrent_activities": HANGING_LANES_AT_ONCE}),
            ),
            activities=_callback_activities,
        ),
        Role.RECONCILER: WorkerRole(
            task_queues=(TaskQueue(RECONCILER, {"workflows": [ReconcilerWorkflow]}),),
            activities=_reconciler_activities,
            background=_keep_reconciler_running,
        ),
    }
)
"""All roles of workers; a new one is one entry."""

BINDING_ROLES: Final = frozenset(name for name, role in ROLES.items() if role.provider_role)
"""The roles that hold binds to providers."""

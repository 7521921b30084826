"""The kinds of workflows that are started: one table, from which every start takes its values.

A new kind is one entry here, and a role whose workers poll its task queue (`workers.task_queues`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from workflows.bulk import BulkSendWorkflow
from workflows.callbacks import CALLBACKS, CallbackLane, CallbackWorkflow, callback_workflow_id
from workflows.ports.bulk import BulkRef, bulk_workflow_id
from workflows.ports.send import SENDS, Start, send_workflow_id
from workflows.reconciler import RECONCILER, RECONCILER_WORKFLOW_ID, ReconcilerWorkflow
from workflows.send import SendWorkflow

Input = TypeVar("Input")

# A worker that died with a task of a message holds it up no longer than this.
_TASK_OF_A_MESSAGE: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowKind(Generic[Input]):
    """How workflows of one kind are started.

    Attributes:
        name: the workflow's, as Temporal knows it.
        task_queue: which its workers poll.
        workflow_id: the id of a workflow, from that of what it runs, such as `msg_…`.
        input: the type of its one argument; `type(None)` if it takes none.
        task_timeout: how long a worker may take for one task; None for Temporal's default.
    """

    name: str
    task_queue: str
    workflow_id: Callable[[str], str]
    input: type[Input]
    task_timeout: timedelta | None = None

    def arguments(self, value: Input) -> list[Input]:
        """The arguments with which a workflow is started."""
        return [] if value is None else [value]


SEND: Final = WorkflowKind(
    name=SendWorkflow.__name__,
    task_queue=SENDS,
    workflow_id=send_workflow_id,
    input=Start,
    task_timeout=_TASK_OF_A_MESSAGE,
)
"""One message."""

BULK: Final = WorkflowKind(
    name=BulkSendWorkflow.__name__,
    task_queue=SENDS,
    workflow_id=bulk_workflow_id,
    input=BulkRef,
    task_timeout=_TASK_OF_A_MESSAGE,
)
"""The messages of one bulk."""

CALLBACK_LANE: Final = WorkflowKind(
    name=CallbackWorkflow.__name__,
    task_queue=CALLBACKS,
    workflow_id=callback_workflow_id,
    input=CallbackLane,
)
"""The callbacks of one account to one origin."""

RECONCILE: Final = WorkflowKind(
    name=ReconcilerWorkflow.__name__,
    task_queue=RECONCILER,
    workflow_id=lambda _: RECONCILER_WORKFLOW_ID,
    input=type(None),
)
"""The reconciler, of which there is one."""

KINDS: Final[tuple[WorkflowKind[Any], ...]] = (SEND, BULK, CALLBACK_LANE, RECONCILE)
"""All of them."""

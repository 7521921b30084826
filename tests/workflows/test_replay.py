"""What has begun with the code of yesterday goes on with that of today: recorded histories, replayed.

`record_histories.py` recorded them. A replay compares the commands that the workflow gives now with
those that it gave then; one that differs would leave every such message stuck.
"""

import importlib
import inspect
import json
import sys
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from telemetry.temporal import DATA_CONVERTER
from tests.histories import texts_of
from tests.workflows.record_histories import BODY, HISTORIES, NUMBER, SECRETS
from workflows.bulk import BulkSendWorkflow
from workflows.callbacks import CallbackWorkflow
from workflows.reconciler import ReconcilerWorkflow
from workflows.send import SendWorkflow

WORKFLOWS = {
    "send": SendWorkflow,
    "bulk": BulkSendWorkflow,
    "callbacks": CallbackWorkflow,
    "reconciler": ReconcilerWorkflow,
}
RECORDED = sorted(HISTORIES.glob("*/*.json"))
each_recorded = pytest.mark.parametrize(
    "recorded", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}"
)


def history_of(recorded: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(
        f"{recorded.parent.name}/{recorded.stem}", recorded.read_text()
    )


@each_recorded
async def test_a_recorded_history_still_replays(recorded):
    replayer = Replayer(workflows=[WORKFLOWS[recorded.parent.name]], data_converter=DATA_CONVERTER)
    await replayer.replay_workflow(history_of(recorded))


@each_recorded
def test_a_recorded_history_holds_neither_number_nor_text_nor_machine(recorded):
    assert found_in(history_of(recorded), *SECRETS) == set()
    identities = {
        value for key, value in _members(json.loads(recorded.read_text())) if key == "identity"
    }
    assert identities <= {"worker"}


def found_in(history: WorkflowHistory, *secrets: str) -> set[str]:
    everything = "\n".join(texts_of(history)).lower()
    return {secret for secret in secrets if secret in everything}


def _members(value):
    if isinstance(value, dict):
        yield from value.items()
        value = list(value.values())
    if isinstance(value, list):
        for member in value:
            yield from _members(member)


@pytest.mark.parametrize("planted", [NUMBER, f'{{"body": "{BODY}"}}'])
def test_a_number_or_a_text_in_a_history_would_be_found(planted):
    history = history_of(HISTORIES / "send" / "delivered.json")
    payload = history.events[0].workflow_execution_started_event_attributes.input.payloads.add()
    payload.data = planted.encode()
    assert found_in(history, *SECRETS)


# --- would a replay notice? --------------------------------------------------------------------

# For each workflow, changes that no message under way would survive: what stands there, and what
# would stand there instead.
MUTATIONS = {
    "send": {
        "decides by a task of the server instead of by itself": (
            "execute_local_activity_method(",
            "execute_activity_method(",
        ),
        "rests before it decides": (
            "step = start.first or await self._decide(message)\n",
            "await workflow.sleep(1); step = start.first or await self._decide(message)\n",
        ),
        "decides anew though its input has the first step": ("start.first or ", ""),
        "decides before it submits, and not after": (
            "await self._ask_provider(message, step)",
            "await self._decide(message)",
        ),
        "decides once more after it has submitted": (
            "await self._ask_provider(message, step)\n",
            "await self._ask_provider(message, step); step = await self._decide(message)\n",
        ),
        "waits without a deadline": ("timeout=pause", "timeout=None"),
        "does not wait": ("await self._until_news_or(until, seen)", "pass"),
        "does not end with the news of its end": ("if news.final:", "if not news.final:"),
        "cancels by a submit": ("ProviderActivities.cancel_at_provider,", "ProviderActivities.submit,"),
    },
    "bulk": {
        "plans by a task of the server instead of by itself": (
            "execute_local_activity_method(",
            "execute_activity_method(",
        ),
        "sends no chunk": ("if chunk.provider not in self._sending and not is_long:", "if False:"),
        "does not wait": ("await self._until_something_happens(plan, seen)", "pass"),
        "ends while messages are open": ("if plan.open == 0 and", "if"),
        "does not hear of people's decisions": (
            "lambda: self._news != seen or any(",
            "lambda: any(",
        ),
    },
    "callbacks": {
        "waits before it delivers": (
            "drained = await self._drain(lane)",
            "await workflow.sleep(1)\n            drained = await self._drain(lane)",
        ),
        "ends while callbacks are left": ("elif drained.next_at is not None:", "elif False:"),
        "does not leave a failing origin alone": ("if drained.failing:", "if False:"),
    },
    "reconciler": {
        "rests before it sweeps": (
            "for _ in range(_ROUNDS):\n",
            "for _ in range(_ROUNDS):\n            await workflow.sleep(_EVERY)\n",
        ),
        "rests though there is more": ("if not found.more:", "if True:"),
        "marks everything due again when it begins anew": ("if workflow.info().continued_run_id is None:", "if True:"),
        "does not doubt": ("if workflow.info().continued_run_id is None:", "if False:"),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change"),
    [(name, change) for name, changes in MUTATIONS.items() for change in changes],
)
async def test_a_replay_notices_a_workflow_that(name, change, tmp_path, monkeypatch):
    before, after = MUTATIONS[name][change]
    source = inspect.getsource(importlib.import_module(f"workflows.{name}"))
    assert source.count(before) == 1
    (tmp_path / "mutated_workflows.py").write_text(source.replace(before, after))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mutated_workflows", raising=False)
    mutated = getattr(importlib.import_module("mutated_workflows"), WORKFLOWS[name].__name__)
    replayer = Replayer(
        workflows=[mutated],
        data_converter=DATA_CONVERTER,
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    histories = [history_of(path) for path in RECORDED if path.parent.name == name]
    replayed = [await replayer.replay_workflow(h, raise_on_replay_failure=False) for h in histories]
    assert any(result.replay_failure is not None for result in replayed)

"""Many messages, from their acceptance to their ends, under one runner."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.ports.bulk import (
        BulkProviderActivities,
        BulkRef,
        Plan,
        PlanActivities,
        PlanTask,
        ProviderChunk,
        SubmitChunkTask,
        chunk_queue,
    )
    from workflows.ports.send import UNTIL_THE_DATABASE_RESPONDS, MessageChanged

# Where a chunk was left stands in the rows: another look at them is better than a repetition.
_ONCE = RetryPolicy(maximum_attempts=1)
_QUEUE_WITHIN = timedelta(minutes=2)
_CHUNK_WITHIN = timedelta(minutes=30)
_HEARTBEAT = timedelta(seconds=10)
# While nothing is known to be due the rows are looked at less and less often: receipts move them
# without a word to this workflow.
_FIRST_REST = timedelta(seconds=1)
_LONGEST_REST = timedelta(minutes=5)
# A look at all rows is not for nothing; so soon what has failed is tried again.
_WHILE_SENDING = timedelta(seconds=10)


@workflow.defn
class BulkSendWorkflow:
    """Takes the messages of a bulk to their ends, each as `SendWorkflow` would.

    A plan says which provider should send how many; each of these chunks is one activity, at the
    provider's own pace. Whatever did not go well shows in the rows, and is in the next plan.
    """

    def __init__(self) -> None:
        self._news = 0
        self._rests = 0
        self._sending: dict[str, asyncio.Task[int]] = {}

    @workflow.run
    async def run(self, bulk: BulkRef) -> None:
        while True:
            seen = self._news
            plan = await self._plan(bulk)
            # No chunk is begun any more once the history is long: the next run begins them.
            is_long = workflow.info().is_continue_as_new_suggested()
            for chunk in plan.chunks:
                if chunk.provider not in self._sending and not is_long:
                    self._sending[chunk.provider] = asyncio.create_task(self._send(bulk, chunk))
            self._show(plan)
            if plan.open == 0 and not self._sending:
                return
            if is_long and not self._sending:
                workflow.continue_as_new(bulk)
            await self._until_something_happens(plan, seen)

    def _show(self, plan: Plan) -> None:
        """Show people in Temporal's UI and CLI what the workflow does now."""
        lines = [f"Messages are open: {'yes' if plan.open else 'no'}"]
        lines += [f"Being sent by `{provider}`" for provider in self._sending]
        if plan.look_at is not None:
            lines.append(f"Next deadline: {plan.look_at:%Y-%m-%d %H:%M:%S} UTC")
        workflow.set_current_details("\n\n".join(lines))

    @workflow.signal
    def message_changed(self, _: MessageChanged) -> None:
        """Something about the bulk was decided by people, or about its messages by carriers."""
        self._news += 1

    async def _plan(self, bulk: BulkRef) -> Plan:
        return await workflow.execute_local_activity_method(
            PlanActivities.plan,
            PlanTask(bulk, workflow.now()),
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=UNTIL_THE_DATABASE_RESPONDS,
        )

    async def _send(self, bulk: BulkRef, chunk: ProviderChunk) -> int:
        """Let a worker of the provider send its chunk; how many messages that were."""
        try:
            done = await workflow.execute_activity_method(
                BulkProviderActivities.submit_chunk,
                SubmitChunkTask(bulk, chunk.provider),
                task_queue=chunk_queue(chunk.provider, chunk.messages),
                schedule_to_start_timeout=_QUEUE_WITHIN,
                start_to_close_timeout=_CHUNK_WITHIN,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=_ONCE,
                priority=Priority(priority_key=chunk.priority),
                summary=f"{chunk.messages} messages by {chunk.provider}",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.info("the provider's worker did not respond; planning again")
            return 0
        return done.submitted

    async def _until_something_happens(self, plan: Plan, seen: int) -> None:
        """Return when a chunk is done, when something is due, or at news."""
        rest = min(_LONGEST_REST, _FIRST_REST * 2 ** min(self._rests, 10))
        until = max(rest, _WHILE_SENDING) if self._sending else rest
        if plan.look_at is not None:
            until = min(until, max(timedelta(milliseconds=100), plan.look_at - workflow.now()))
        try:
            await workflow.wait_condition(
                lambda: self._news != seen or any(s.done() for s in self._sending.values()),
                timeout=until,
            )
        except TimeoutError:
            self._rests += 1
            return
        done = [provider for provider, chunk in self._sending.items() if chunk.done()]
        sent = sum([await self._sending.pop(provider) for provider in done])
        if sent or self._news != seen:
            self._rests = 0
        elif done:
            self._rests += 1
            await workflow.sleep(min(rest, timedelta(seconds=15)))

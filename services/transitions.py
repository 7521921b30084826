"""What follows from a transition once it is committed: a metric, a log line, news for those who wait."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from typing import Any
from uuid import UUID

from domain.ids import IdPrefix, public_id
from domain.modes import Mode
from domain.states import MessageStatus
from services.callbacks.management import Callbacks
from services.workflow_client import WorkflowClient
from store.transitions import Transition
from telemetry import metrics
from telemetry.logs import get_logger
from workflows.ports.bulk import is_bulk
from workflows.ports.send import MessageChanged

_log = get_logger(__name__)
_MOST_AT_ONCE = 50
_GATHERED_FOR = 5.0
"""Seconds between news of many messages to the runner of a bulk, who then looks at all its rows."""
_BETWEEN_WAKES = 0.1
"""Seconds for which lanes of callbacks are gathered after some were woken."""
_WHILE_BUSY = 0.5
_MANY = 20
"""The same seconds if all lanes were awake, and each had so many events: such a lane stays awake."""

_NEEDS_A_DECISION = frozenset({MessageStatus.RETRIED, MessageStatus.UNKNOWN})


class TransitionPublisher:
    """Publishes transitions. A lost one adds delay and loses no message: every waiter has a deadline."""

    def __init__(self, workflow_client: WorkflowClient, callbacks: Callbacks) -> None:
        self._workflow_client = workflow_client
        self._callbacks = callbacks
        self._signalled: set[str] = set()
        self._to_wake: Counter[UUID] = Counter()
        self._is_waking = False
        self._ending = asyncio.Event()
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)
        self._under_way: set[asyncio.Task[object]] = set()

    def publish(self, transitions: Sequence[Transition], *, runner_knows: bool = False) -> None:
        """Count and log transitions, and notify runners and lanes in the background.

        `runner_knows` is for transitions that the message's own workflow made or requested.
        """
        for transition in transitions:
            metrics.message_transitioned(
                transition.previous,
                transition.status,
                mode=Mode(transition.mode),
                provider=transition.provider,
                reason=transition.reason,
                messages=transition.messages,
            )
            _log_transition(transition)
            if runner_knows or transition.owner is None:
                continue
            if not is_bulk(transition.owner):
                self._spawn(
                    self._notify(
                        transition.owner, MessageChanged(transition.status.value, transition.final)
                    )
                )
            elif transition.status in _NEEDS_A_DECISION and transition.owner not in self._signalled:
                self._signalled.add(transition.owner)
                self._spawn(
                    self._signal(
                        transition.owner, MessageChanged(transition.status.value, final=False)
                    )
                )
        for transition in transitions:
            for lane in (transition.callback_lane_id, transition.listener_lane_id):
                if lane is not None:
                    self._to_wake[lane] += transition.messages
        self._wake_soon()

    def wake(self, lanes: Collection[UUID]) -> None:
        """Have lanes looked at that got an event without a transition, in the background."""
        self._to_wake.update(lanes)
        self._wake_soon()

    def _wake_soon(self) -> None:
        if self._to_wake and not self._is_waking:
            self._is_waking = True
            self._spawn(self._wake())

    def signal_runner(self, owner: str, status: str) -> None:
        """Let a message's runner decide anew: something that it should know was written."""
        self._spawn(self._notify(owner, MessageChanged(status, final=False)))

    def afterwards(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something that nobody waits for, and that may be lost."""
        self._spawn(work)

    async def drained(self) -> None:
        """Wait until all runners are signalled; signals that are being gathered are sent at once."""
        self._ending.set()
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _signal(self, owner: str, news: MessageChanged) -> None:
        """Signal the runner of a bulk after a delay: a signal for each message would flood it."""
        await self._rest(_GATHERED_FOR)
        self._signalled.discard(owner)
        await self._notify(owner, news)

    async def _notify(self, owner: str, news: MessageChanged) -> None:
        async with self._turns:
            await self._workflow_client.signal(owner, news)

    async def _wake(self) -> None:
        """Wake the lanes that something was added to, at once, and then in turns."""
        try:
            while self._to_wake:
                lanes, self._to_wake = self._to_wake, Counter()
                async with self._turns:
                    were_asleep = await self._callbacks.wake(sorted(lanes))
                are_busy = not were_asleep and min(lanes.values()) >= _MANY
                await self._rest(_WHILE_BUSY if are_busy else _BETWEEN_WAKES)
        finally:
            self._is_waking = False

    async def _rest(self, seconds: float) -> None:
        """Wait, but not when others wait for the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()


def _log_transition(transition: Transition) -> None:
    about = {
        "was": transition.previous,
        "now": transition.status,
        "provider": transition.provider,
        "code": transition.code,
        "reason": transition.reason,
    }
    if transition.message_id is not None:
        public = public_id(IdPrefix.MESSAGE, transition.message_id)
        _log.info("message_transitioned", message_id=public, **about)
    elif transition.bulk_id is not None:
        bulk = public_id(IdPrefix.BATCH, transition.bulk_id)
        _log.info("messages_moved", bulk_id=bulk, count=transition.messages, **about)

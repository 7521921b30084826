"""A worker or an API that kills itself when it comes to a given point, as a power cut would: no
signal handler, no goodbye, nothing written out.

`python -m tests.fakes.mortal worker FILE` is `worker.py --role all`, and with `api` it is
`python -m api`, until it gets SIGUSR1. Then FILE names the point at which it dies, and the number of
the call of that point from then on, as in `{"point": "before_the_socket", "nth": 3}`.
"""

import asyncio
import functools
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import api.__main__
import worker
from services.delivery import Delivery
from services.receipts import ReceiptIntake
from services.workflow_client import WorkflowClient
from smpp.commands import Command
from smpp.session import Session

Method = Callable[..., Awaitable[Any]]


class Point(StrEnum):
    """Where to die."""

    BEFORE_THE_WRITE = "before_the_write"
    """Of an attempt."""
    BEFORE_THE_SOCKET = "before_the_socket"
    """The attempt is written, nothing was sent."""
    BEFORE_THE_RESPONSE = "before_the_answer"
    """The submit_sm left, its response did not come yet."""
    BEFORE_THE_RECORD = "before_the_record"
    """The response is here, and not written."""
    BEFORE_THE_RECEIPTS_RESPONSE = "before_the_receipts_answer"
    """The receipt is committed, deliver_sm_resp was not sent."""
    BEFORE_THE_START = "before_the_start"
    """The message is committed, its workflow not started; nobody has answered the request."""
    AFTER_THE_START = "after_the_start"
    """As before, but the workflow was started."""


class Death:
    """The call at which the process dies; none before `arm`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._point: Point | None = None
        self._left = 0

    def arm(self, *_: object) -> None:
        order = json.loads(self._file.read_text())
        self._left = order["nth"]
        self._point = Point(order["point"])

    def is_due(self, point: Point) -> bool:
        """Count this call of a point; whether it is the last one."""
        if point is not self._point:
            return False
        self._left -= 1
        return self._left == 0

    @staticmethod
    def come() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def comes_before(self, method: Method, point: Point) -> Method:
        """The method, in which this process may die before anything is done."""

        @functools.wraps(method)
        async def mortal(*args: Any, **kwargs: Any) -> Any:
            if self.is_due(point):
                self.come()
            return await method(*args, **kwargs)

        return mortal

    def comes_after(self, method: Method, point: Point) -> Method:
        """The method, in which this process may die when all is done and nobody knows."""

        @functools.wraps(method)
        async def mortal(*args: Any, **kwargs: Any) -> Any:
            result = await method(*args, **kwargs)
            # What was given up, or failed, does not count.
            if self.is_due(point):
                self.come()
            return result

        return mortal

    def comes_to_submits(self, request: Method) -> Method:
        """A session's `request`, for the two points between the socket and the record."""

        @functools.wraps(request)
        async def mortal(session: Session, command: Command, *args: Any, **kwargs: Any) -> Any:
            if command is not Command.SUBMIT_SM:
                return await request(session, command, *args, **kwargs)
            if self.is_due(Point.BEFORE_THE_RESPONSE):
                # What is queued in this turn of the loop leaves at its end.
                asyncio.get_running_loop().call_later(0.02, self.come)
            due = self.is_due(Point.BEFORE_THE_RECORD)
            response = await request(session, command, *args, **kwargs)
            if due:
                self.come()
            return response

        return mortal


def make_mortal(death: Death) -> None:
    """Put death where it may come: in place of the methods themselves."""
    replaced: list[tuple[type, str, Method]] = [
        (
            Delivery,
            "claim",
            death.comes_before(
                death.comes_after(Delivery.claim, Point.BEFORE_THE_SOCKET), Point.BEFORE_THE_WRITE
            ),
        ),
        (Session, "request", death.comes_to_submits(Session.request)),
        (
            ReceiptIntake,
            "take",
            death.comes_after(ReceiptIntake.take, Point.BEFORE_THE_RECEIPTS_RESPONSE),
        ),
        (
            WorkflowClient,
            "start_send",
            death.comes_before(
                death.comes_after(WorkflowClient.start_send, Point.AFTER_THE_START),
                Point.BEFORE_THE_START,
            ),
        ),
    ]
    for owner, name, method in replaced:
        setattr(owner, name, method)


if __name__ == "__main__":
    _, program, file = sys.argv
    death = Death(Path(file))
    make_mortal(death)
    signal.signal(signal.SIGUSR1, death.arm)
    sys.argv = [sys.argv[0]]
    {"worker": worker.main, "api": api.__main__.main}[program]()

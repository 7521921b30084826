"""A worker or an API that kills itself at a given point, as a power cut would: no signal handler, no
goodbye, nothing written out.

`python -m tests.fakes.dying POINT NTH` is `worker.py --role all` or `python -m api`, until it comes
to that point for the NTH time.
"""

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import api.__main__
import worker
from services.delivery import Delivery
from services.orchestration import Orchestration
from services.receipts import ReceiptIntake
from smpp.pdus import Command
from smpp.session import Session

Method = Callable[..., Awaitable[Any]]


class Point(StrEnum):
    """Where to die."""

    BEFORE_THE_WRITE = "before_the_write"
    """Of an attempt."""
    BEFORE_THE_SOCKET = "before_the_socket"
    """The attempt is written, nothing was sent."""
    BEFORE_THE_ANSWER = "before_the_answer"
    """The submit_sm left, its answer did not come yet."""
    BEFORE_THE_RECORD = "before_the_record"
    """The answer is here, and not written."""
    BEFORE_THE_RECEIPTS_ANSWER = "before_the_receipts_answer"
    """The receipt is committed, deliver_sm_resp was not sent."""
    BEFORE_THE_START = "before_the_start"
    """The message is committed, its workflow not started; nobody has answered the request."""
    AFTER_THE_START = "after_the_start"
    """As before, but the workflow was started."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(method: Method, nth: int, *, after: bool, counts: Callable[..., bool]) -> Method:
    """The method, in whose `nth` call this process dies: before it, or after it has returned."""
    calls = 0

    @functools.wraps(method)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        last = False
        if counts(*args, **kwargs):
            calls += 1
            last = calls == nth
        if last and not after:
            die()
        result = await method(*args, **kwargs)
        if last:
            die()
        return result

    return wrapped


def always(*_: Any, **__: Any) -> bool:
    return True


def is_submit(_: Session, command: Command, *__: Any, **___: Any) -> bool:
    return command is Command.SUBMIT_SM


def dying_on_its_way(request: Method, nth: int) -> Method:
    """The request of a session, where the `nth` submit_sm kills this process once it has left."""
    calls = 0

    @functools.wraps(request)
    async def wrapped(session: Session, command: Command, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if command is Command.SUBMIT_SM:
            calls += 1
            if calls == nth:
                # What was queued in this turn of the loop is written at the end of it.
                asyncio.get_running_loop().call_later(0.02, die)
        return await request(session, command, *args, **kwargs)

    return wrapped


def prepare(point: Point, nth: int) -> Callable[[], None]:
    """Put the end into its place; returns the program's `main`."""
    match point:
        case Point.BEFORE_THE_WRITE:
            Delivery.claim = dying(Delivery.claim, nth, after=False, counts=always)  # type: ignore[method-assign]
        case Point.BEFORE_THE_SOCKET:
            Delivery.claim = dying(Delivery.claim, nth, after=True, counts=always)  # type: ignore[method-assign]
        case Point.BEFORE_THE_ANSWER:
            Session.request = dying_on_its_way(Session.request, nth)  # type: ignore[method-assign]
        case Point.BEFORE_THE_RECORD:
            Session.request = dying(Session.request, nth, after=True, counts=is_submit)  # type: ignore[method-assign]
        case Point.BEFORE_THE_RECEIPTS_ANSWER:
            ReceiptIntake.take = dying(ReceiptIntake.take, nth, after=True, counts=always)  # type: ignore[method-assign]
        case Point.BEFORE_THE_START | Point.AFTER_THE_START:
            after = point is Point.AFTER_THE_START
            Orchestration.start_send = dying(  # type: ignore[method-assign]
                Orchestration.start_send, nth, after=after, counts=always
            )
            return api.__main__.main
    return worker.main


if __name__ == "__main__":
    main = prepare(Point(sys.argv[1]), int(sys.argv[2]))
    sys.argv = [sys.argv[0]]
    main()

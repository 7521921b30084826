"""How a message is waited for: when to look again, and when to stop.

Pure, as `exchange`: the generator asks its driver to look or to pause, so that the blocking and the
awaiting client have the same rules.
"""

import time
from collections.abc import Callable, Generator

from smsgateway.errors import ConnectionFailed, GatewayError, NotEnded, Unavailable
from smsgateway.exchange import Pause
from smsgateway.models import Message

DEFAULT_WAIT = 120.0
"""Seconds that a message is waited for."""
OUTAGES = (ConnectionFailed, Unavailable)
"""What is no reason to stop waiting: the gateway has the message all the same."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
_SLOWER_BY = 1.3


class Look:
    """Asks the driver to read the message once more."""


Polling = Generator[Look | Pause, Message | GatewayError | None, Message]


def poll(timeout: float, now: Callable[[], float] = time.monotonic) -> Polling:
    """Look more and more slowly until the message has ended, or `timeout` seconds are over.

    The driver answers a Look with the message or with one of the `OUTAGES`.

    Raises:
        NotEnded: it has not ended in time.
        GatewayError: it could not be read in the end.
    """
    deadline = now() + timeout
    pause = _FIRST_PAUSE
    while True:
        seen = yield Look()
        if isinstance(seen, Message) and seen.has_ended:
            return seen
        left = deadline - now()
        if left <= 0:
            if isinstance(seen, Message):
                raise NotEnded(seen.message_id, seen.status, timeout)
            raise seen or TypeError("a look is to be answered by a message or an error")
        yield Pause(min(pause, left))
        pause = min(_LONGEST_PAUSE, pause * _SLOWER_BY)

"""`events tail`: the events of an account's messages, shown as they come."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from smsgateway import AccountEvent, Client, ConnectionFailed, MessageStatus, Unavailable

_PAUSE = 1.0
_READ_AGAIN = timedelta(seconds=10)
"""An event can be committed so long after its time, and so after later ones."""


def follow(
    client: Client,
    status: MessageStatus | None,
    since: datetime | None,
    show: Callable[[AccountEvent], None],
    note: Callable[[str], None],
) -> None:
    """Call `show` once with each event, until interrupted.

    Args:
        client: the gateway.
        status: only transitions to it.
        since: when to begin; by default a minute ago.
        show: called with each event.
        note: called with a sentence when the gateway is away, and when it is back.

    Raises:
        GatewayError: the events cannot be read, or the gateway is away from the beginning.
    """
    known: dict[tuple[int, str], datetime] = {}
    began = is_away = False
    while True:
        try:
            for event in client.each_account_event(status=status, since=since, limit=200):
                if (event.seq, event.message_id) not in known:
                    known[event.seq, event.message_id] = event.at
                    show(event)
        except (ConnectionFailed, Unavailable):
            if not began:
                raise
            if not is_away:
                note("The gateway cannot be reached: trying again until it can.")
            is_away = True
        else:
            if is_away:
                note("The gateway can be reached again.")
            began, is_away = True, False
            if known:
                since = max(known.values()) - _READ_AGAIN
                known = {key: at for key, at in known.items() if at >= since}
        _pause()


def _pause() -> None:
    time.sleep(_PAUSE)

"""What the response to a callback means, and when the callback is tried again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from domain.callbacks.events import CallbackState


class Trouble(StrEnum):
    """Why a try did not deliver; a closed set, so that it can be stored, counted and shown."""

    REFUSED = "refused"
    """Answered, but not with 2xx."""
    GONE = "gone"
    """Answered with 410: the receiver wants no more of this."""
    TIMEOUT = "timeout"
    NAME_NOT_FOUND = "name_not_found"
    ADDRESS_REFUSED = "address_refused"
    """The name leads to an address that callbacks may not go to."""
    UNREACHABLE = "unreachable"
    """No connection, or it broke off."""
    TLS = "tls"
    NOT_HTTP = "not_http"
    REDIRECT = "redirect"
    """Redirected too often, to what is no callback URL, or from https to http."""
    INVALID_URL = "invalid_url"
    SECRET_UNUSABLE = "secret_unusable"  # noqa: S105 - a reason
    """Not sent, and not counted as a try: what signs it is missing, or is no signing secret."""
    KIND_UNKNOWN = "kind_unknown"
    """Not sent, and not counted as a try: this version of the worker does not know such events."""


NOT_TRIED: Final = frozenset({Trouble.SECRET_UNUSABLE, Trouble.KIND_UNKNOWN})


GONE: Final = 410
_THROTTLED: Final = 429
_SUCCESS: Final = range(200, 300)
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Response:
    """What came of one request; `trouble` is None only if it was delivered."""

    status: int | None
    """The last HTTP status, if one came."""
    trouble: Trouble | None
    seconds: float

    @property
    def delivered(self) -> bool:
        return self.trouble is None

    @property
    def concerns_origin(self) -> bool:
        """Whether the receiver as a whole is in trouble, and not just this callback."""
        if self.trouble is Trouble.REFUSED:
            return self.status == _THROTTLED or (self.status or 0) >= _SERVER_ERROR
        return self.trouble not in {None, Trouble.GONE}


def trouble_of(status: int) -> Trouble | None:
    """What an HTTP status means for a callback."""
    if status in _SUCCESS:
        return None
    return Trouble.GONE if status == GONE else Trouble.REFUSED


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What becomes of a callback after a try."""

    state: CallbackState
    tries: int
    next_at: datetime


def decide_retry(
    response: Response, tries: int, at: datetime, delays: Sequence[timedelta]
) -> RetryDecision:
    """What becomes of a callback after one more try.

    Args:
        response: what came of it.
        tries: how many there were before.
        at: when it ended.
        delays: the waits between tries; there are no more than one more try than waits.
    """
    made = tries + 1
    if response.delivered:
        return RetryDecision(CallbackState.DELIVERED, made, at)
    if response.trouble is Trouble.GONE or made > len(delays):
        return RetryDecision(CallbackState.FAILED, made, at)
    return RetryDecision(CallbackState.PENDING, made, at + delays[made - 1])


_FIRST_SIGNAL_PAUSE: Final = timedelta(seconds=1)
_LONGEST_SIGNAL_PAUSE: Final = timedelta(minutes=5)


def decide_signal_retry(response: Response, tries: int, at: datetime) -> RetryDecision:
    """What becomes of a signal after one more try: it is repeated until Temporal has taken it.

    Arguments as those of `decide_retry`.
    """
    if response.delivered:
        return RetryDecision(CallbackState.DELIVERED, tries + 1, at)
    pause = min(_FIRST_SIGNAL_PAUSE * (1 << min(tries, 16)), _LONGEST_SIGNAL_PAUSE)
    return RetryDecision(CallbackState.PENDING, tries + 1, at + pause)


_FIRST_PAUSE: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(minutes=1)


def pause_after(failing_slices: int) -> timedelta:
    """How long to leave alone an origin that answered nothing in so many slices, one after another.

    Each callback has its own schedule; this keeps a backlog of many from running into a wall.
    """
    doubled = _FIRST_PAUSE * (1 << min(max(failing_slices, 1) - 1, 16))
    return min(doubled, _LONGEST_PAUSE)

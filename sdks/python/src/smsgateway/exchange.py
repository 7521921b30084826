"""How a call is carried through: what is tried again, when, and what the end is.

Pure: `converse` is a generator that asks its driver to exchange a request or to pause, so that the
blocking and the awaiting client have the same rules.
"""

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import ValidationError

from smsgateway.calls import Call, Response
from smsgateway.errors import (
    ConnectionFailed,
    GatewayError,
    Problem,
    UnexpectedResponse,
    problem_error,
)

T = TypeVar("T")

_PROBLEM = "application/problem+json"
# The gateway, or what stands before it, is not itself for a moment (RFC 9110, 15.6).
_PASSING = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried and how long is waited in between, in seconds.

    Only what can safely be done twice is tried again after the request may have been carried out:
    reading, checking, and sending with an idempotency key. What surely was not carried out (no
    connection, 429 of a proxy) is always tried again.

    Attributes:
        tries: in all; 1 means never again.
        first_pause: before the second try; doubled each time, less up to half by chance.
        longest_pause: what doubling ends at.
        longest_retry_after: a gateway that asks for more than this is not waited for.
    """

    tries: int = 4
    first_pause: float = 0.25
    longest_pause: float = 8.0
    longest_retry_after: float = 30.0


@dataclass(frozen=True, slots=True)
class NeverSent:
    """The request did not reach the gateway."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The request may have reached the gateway, and its response did not come."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


Outcome = Response | NeverSent | Lost
Conversation = Generator[Call[Any] | Pause, Outcome | None, T]


def converse(
    call: Call[T], address: str, retries: Retries, chance: Callable[[], float] = random.random
) -> Conversation[T]:
    """Carry `call` through; returns what it reads from the response, or raises a GatewayError.

    Yields either the call, which the driver exchanges for an Outcome, or a Pause.
    """
    perhaps_carried_out = False
    for number in range(1, retries.tries + 1):
        outcome = yield call
        if outcome is None:
            raise TypeError("A call is to be answered by an outcome.")
        if isinstance(outcome, Response) and _is_response(outcome, call):
            return call.read(outcome)
        perhaps_carried_out |= isinstance(outcome, Lost)
        pause = _pause(outcome, call, number, retries, chance)
        if pause is None:
            raise _error(outcome, address, perhaps_carried_out=perhaps_carried_out)
        yield Pause(pause)
    raise AssertionError("the last try has no pause after it")


def _is_response(response: Response, call: Call[Any]) -> bool:
    return response.status // 100 == 2 or response.status in call.responses  # noqa: PLR2004  # 2xx


def _pause(
    outcome: Outcome,
    call: Call[Any],
    number: int,
    retries: Retries,
    chance: Callable[[], float],
) -> float | None:
    """Seconds to wait before the next try; None if there is none."""
    if number >= retries.tries or not _may_try_again(outcome, call):
        return None
    doubled = min(retries.longest_pause, retries.first_pause * 2.0 ** (number - 1))
    # By chance, so that clients that failed together do not come back together.
    backoff = doubled * (1 - chance() / 2)
    asked = _retry_after(outcome) if isinstance(outcome, Response) else None
    if asked is None:
        return backoff
    return None if asked > retries.longest_retry_after else max(asked, backoff)


def _may_try_again(outcome: Outcome, call: Call[Any]) -> bool:
    match outcome:
        case NeverSent():
            return True
        case Lost():
            return call.repeatable
        case Response(status=HTTPStatus.TOO_MANY_REQUESTS):
            return True
        case Response(status=HTTPStatus.CONFLICT):
            return call.in_flight
        case Response(status=status):
            return call.repeatable and status in _PASSING


def _error(outcome: Outcome, address: str, *, perhaps_carried_out: bool) -> GatewayError:
    if not isinstance(outcome, Response):
        return ConnectionFailed(address, outcome.reason, perhaps_carried_out=perhaps_carried_out)
    if outcome.content_type == _PROBLEM:
        try:
            problem = Problem.model_validate({**outcome.json(), "status": outcome.status})
        except ValidationError:
            pass
        else:
            return problem_error(problem, retry_after=_retry_after(outcome))
    if outcome.status < HTTPStatus.BAD_REQUEST:
        return UnexpectedResponse(
            f"{address} answered {outcome.status}, which the gateway's API never does: "
            "give the address of the API itself."
        )
    return problem_error(_undocumented(outcome.status), retry_after=_retry_after(outcome))


def _undocumented(status: int) -> Problem:
    """The problem of a response that does not explain itself (RFC 9457, 4.2.1)."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Unknown status"
    detail = (
        f"The response was {status} ({title}) without the gateway's explanation: "
        "it may come from something before the gateway."
    )
    return Problem(title=title, status=status, detail=detail)


def _retry_after(response: Response) -> float | None:
    """Seconds from now (RFC 9110, 10.2.3); None if it is not there, or not readable."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())

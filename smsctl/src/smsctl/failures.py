"""What went wrong, told to a person and to a script: a sentence, what to do, and an exit code."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from smsgateway import (
    AuthenticationError,
    Conflict,
    ConnectionFailed,
    GatewayError,
    NotFound,
    PermissionDenied,
    ProblemError,
    RateLimited,
    Unavailable,
    UnexpectedAnswer,
    ValidationFailed,
)


class ExitCode(IntEnum):
    """What `smsctl` tells the shell; these numbers never change their meaning."""

    OK = 0
    FAILED = 1
    """It did not work out: a message that was waited for ended otherwise than delivered, some of a
    file were refused, a named message was not replayed, or the gateway itself failed."""
    REFUSED = 2
    """The command line or what it asks for is not acceptable; a configuration has mistakes."""
    UNAUTHORIZED = 3
    """The key is wrong, revoked, or has not the scope."""
    NOT_FOUND = 4
    UNREACHABLE = 5
    """The gateway did not answer, or could not now."""
    CONFLICT = 6
    """Not in its present state."""
    LIMITED = 7
    """Too many requests."""
    STILL_GOING = 8
    """What was waited for had not ended in time; it goes on."""
    INTERRUPTED = 130


class Mistake(Exception):
    """Something on the command line or in the user's own files that they can put right."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as it is told."""

    exit_code: ExitCode
    sentence: str
    advice: str = ""
    problem: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The document that stands on stderr with `--output json`."""
        return {
            "error": {
                "exit_code": int(self.exit_code),
                "detail": self.sentence,
                "advice": self.advice,
                "problem": self.problem,
            }
        }


_TABLE: tuple[tuple[type[Exception], ExitCode, str], ...] = (
    (
        AuthenticationError,
        ExitCode.UNAUTHORIZED,
        "Check the key (--key, SMSCTL_KEY or the profile); `smsctl key create` makes a new one.",
    ),
    (
        PermissionDenied,
        ExitCode.UNAUTHORIZED,
        "Use a key that has the scope; `smsctl key create --scope …` makes one.",
    ),
    (
        NotFound,
        ExitCode.NOT_FOUND,
        "Check the name or id; a key sees only its own account and environment.",
    ),
    (Conflict, ExitCode.CONFLICT, ""),
    (ValidationFailed, ExitCode.REFUSED, ""),
    (RateLimited, ExitCode.LIMITED, "Try again{later}."),
    (Unavailable, ExitCode.UNREACHABLE, "Try again{later}."),
    (ProblemError, ExitCode.FAILED, "The gateway's log tells more."),
    (
        ConnectionFailed,
        ExitCode.UNREACHABLE,
        "Check that the gateway runs and that the address ({origin}) is right.",
    ),
    (
        UnexpectedAnswer,
        ExitCode.FAILED,
        "Check that the address ({origin}) is that of the gateway's API.",
    ),
)


def failure_of(error: GatewayError | Mistake, *, origin: str) -> Failure:
    """How to tell an error; `origin` says where the address of the gateway was taken from."""
    if isinstance(error, Mistake):
        return Failure(ExitCode.REFUSED, str(error))
    exit_code, advice = next(
        ((code, advice) for kind, code, advice in _TABLE if isinstance(error, kind)),
        (ExitCode.FAILED, ""),
    )
    problem = None
    sentence = str(error)
    later = ""
    if isinstance(error, ProblemError):
        sentence = _sentence(error)
        problem = error.problem.model_dump(mode="json", exclude_none=True)
        later = f" in {error.retry_after:.0f} s" if error.retry_after else " a little later"
    return Failure(exit_code, sentence, advice.format(origin=origin, later=later), problem)


def _sentence(error: ProblemError) -> str:
    """What is wrong with each field, or else what the gateway says of the whole."""
    faults = [f"{fault.field}: {fault.detail}" for fault in error.errors if fault.field]
    faults += [fault.detail for fault in error.errors if not fault.field]
    return f"{error.title}. {' '.join(faults)}" if faults else str(error)

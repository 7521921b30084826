"""Failures: a sentence, what to do, and an exit code, for people and for scripts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from smsgateway import (
    AuthenticationError,
    Conflict,
    ConnectionFailed,
    FieldError,
    GatewayError,
    NotFound,
    PermissionDenied,
    ProblemError,
    Unavailable,
    UnexpectedResponse,
    ValidationFailed,
)


class ExitCode(IntEnum):
    """The exit codes of `smsctl`; these numbers never change their meaning."""

    OK = 0
    FAILED = 1
    """It did not work out: a message that was waited for ended otherwise than delivered, some of a
    file were refused, a named message was not replayed, a configuration has errors, or the gateway
    itself failed."""
    REFUSED = 2
    """The command line or what it asks for is not acceptable, or no gateway is known."""
    UNAUTHORIZED = 3
    """The key is wrong, revoked, or has not the scope."""
    NOT_FOUND = 4
    UNREACHABLE = 5
    """The gateway did not answer, or could not now."""
    CONFLICT = 6
    """Not in its present state."""
    STILL_GOING = 8
    """What was waited for had not ended in time; it goes on."""
    INTERRUPTED = 130


class Mistake(Exception):
    """Something on the command line or in the user's own files that they can put right."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as it is printed."""

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


_CHECK_ADDRESS: Final = "Check that the address ({origin}) is that of the gateway's API."
_TABLE: tuple[tuple[type[Exception], ExitCode, str], ...] = (
    (
        AuthenticationError,
        ExitCode.UNAUTHORIZED,
        (
            "Check the key (--key, SMSCTL_KEY or the profile). A new key can be created by another "
            "valid key (`smsctl key create`), or by the operator (`python worker.py bootstrap`)."
        ),
    ),
    (
        PermissionDenied,
        ExitCode.UNAUTHORIZED,
        "Use a key that has the scope; `smsctl key create --scope …` makes one.",
    ),
    (NotFound, ExitCode.NOT_FOUND, ""),
    (Conflict, ExitCode.CONFLICT, ""),
    (ValidationFailed, ExitCode.REFUSED, ""),
    (Unavailable, ExitCode.UNREACHABLE, "Try again{later}."),
    (ProblemError, ExitCode.FAILED, "The gateway's log has the details."),
    (
        ConnectionFailed,
        ExitCode.UNREACHABLE,
        "Check that the gateway runs and that the address ({origin}) is right.",
    ),
    (UnexpectedResponse, ExitCode.FAILED, _CHECK_ADDRESS),
)


_OF_THE_GATEWAY = "urn:smsgateway:problem:"
_ADVICE_BY_PROBLEM: Mapping[str, str] = {
    "operator-key-needed": "Use an operator's key (--key, SMSCTL_OPERATOR_KEY or another profile). "
    "`make run` prints one and keeps it in build/run.json; where the gateway's settings are (DATABASE_URL), "
    "`python worker.py bootstrap --new-operator-key NAME --print-key` creates one.",
    "account-key-needed": "Use a key of an account (--key, SMSCTL_KEY or another profile).",
    "account-suspended": "An operator resumes it: `smsctl account resume ACCOUNT_ID`.",
}
"""By the last part of a problem's type, where the advice of its class would not help."""


_OPTIONS: Mapping[str, str] = {
    "Idempotency-Key": "--idempotency-key",
    "from": "--from",
    "message_id": "--message",
    "parameters": "--parameter",
    "scheduled_at": "--at",
    "scopes": "--scope",
    "smart_encoding": "--smart-encoding",
    "validity_period": "--validity",
}
"""The options that are called otherwise than the fields of the API that they fill."""


def failure_of(
    error: GatewayError | Mistake, *, origin: str, options: Mapping[str, object] | None = None
) -> Failure:
    """The sentence, the advice and the exit code for an error.

    Args:
        error: what went wrong.
        origin: where the address of the gateway was taken from.
        options: those that the command has, with their values; they are named in place of the API's
            fields.
    """
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
        if _is_of_another_server(error):
            exit_code, advice = ExitCode.FAILED, _CHECK_ADDRESS
        advice = _ADVICE_BY_PROBLEM.get(error.problem.type.rpartition(":")[2], advice)
        sentence = _sentence(error, options or {})
        problem = error.problem.model_dump(mode="json", exclude_none=True)
        later = f" in {error.retry_after:.0f} s" if error.retry_after else " a little later"
    return Failure(exit_code, sentence, advice.format(origin=origin, later=later), problem)


def _is_of_another_server(error: ProblemError) -> bool:
    """Whether what answered is no gateway: neither it nor a proxy before it responds like this."""
    is_odd = isinstance(error, NotFound) or type(error) is ProblemError
    return is_odd and not error.type.startswith(_OF_THE_GATEWAY)


def _sentence(error: ProblemError, options: Mapping[str, object]) -> str:
    """What is wrong with each field, or else what the gateway says of the whole."""
    faults = [f"{_place(fault, options)}: {fault.detail}" for fault in error.errors if fault.field]
    faults += [fault.detail for fault in error.errors if not fault.field]
    if error.problem.more_errors:
        faults.append(f"There are {error.problem.more_errors} more errors.")
    return f"{error.title}. {' '.join(faults)}" if faults else str(error)


def _place(fault: FieldError, options: Mapping[str, object]) -> str:
    """Where a fault is: a line of the user's file, an option, or else a field of the API.

    Of an option that is given several times, the value is repeated.
    """
    if fault.line is not None:
        return f"line {fault.line}, {fault.field}"
    option = option_of(fault.field, options)
    values, number = options.get(option), fault.field.rpartition(".")[2]
    if isinstance(values, list | tuple) and number.isdecimal() and int(number) < len(values):
        return f"{option} {values[int(number)]}"
    return option


def option_of(field: str, options: Collection[str]) -> str:
    """The option that fills a field of the API; the field itself where no option does."""
    name = field.partition(".")[0]
    option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
    return option if option in options else field

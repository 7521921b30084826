"""What can go wrong: problem documents (RFC 9457) as a hierarchy of exceptions.

Everything that a client raises after it has sent something is a `GatewayError`. No exception's text
holds a phone number or a body: those stand in the request, which is not repeated.
"""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class FieldError(BaseModel):
    """What is wrong with one field of the request, in words and as a constant (`reason`).

    `line` and `column` say where it stands in a configuration, from 1.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    field: str = ""
    detail: str = ""
    reason: str | None = None
    line: int | None = None
    column: int | None = None


class Problem(BaseModel):
    """A problem document (RFC 9457, 3); `type` names the kind of problem and never changes."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str = ""
    instance: str | None = None
    errors: tuple[FieldError, ...] = ()
    more_errors: int = 0
    """How many there are beside `errors`, which has the first ones."""


class GatewayError(Exception):
    """Anything that a call to the gateway can end with, other than its response."""


class ConnectionFailed(GatewayError):
    """No answer came, however often it was tried.

    Attributes:
        address: the address of the API that was tried.
        reason: what stood in the way.
        perhaps_carried_out: whether the request may have reached the gateway, so that what it
            asked for may have been done although the response was lost.
    """

    def __init__(self, address: str, reason: str, *, perhaps_carried_out: bool) -> None:
        doubt = (
            " The request may have been carried out all the same." if perhaps_carried_out else ""
        )
        super().__init__(f"No answer from {address}: {reason}.{doubt}")
        self.address = address
        self.reason = reason
        self.perhaps_carried_out = perhaps_carried_out


class NotEnded(GatewayError, TimeoutError):
    """A message that was waited for has not ended in time; it goes on.

    Attributes:
        message_id: of the message.
        status: where it was at the last look.
    """

    def __init__(self, message_id: str, status: str, timeout: float) -> None:
        super().__init__(f"{message_id} has not ended in {timeout:g} s: it is still {status}.")
        self.message_id = message_id
        self.status = status


class UnexpectedResponse(GatewayError):
    """Something answered, but not as the gateway does: a proxy, or another program."""


class ProblemError(GatewayError):
    """The gateway refused, and said why.

    Attributes:
        problem: the document, with any members that this version does not know.
        retry_after: seconds after which to try again, where the gateway named them.
    """

    def __init__(self, problem: Problem, *, retry_after: float | None = None) -> None:
        super().__init__(_sentence(problem))
        self.problem = problem
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        """The kind of problem, as a URI: `urn:smsgateway:problem:<slug>`."""
        return self.problem.type

    @property
    def title(self) -> str:
        """The kind of problem, in words."""
        return self.problem.title

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def detail(self) -> str:
        """What happened this time, and what to do."""
        return self.problem.detail

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """What is wrong, field by field."""
        return self.problem.errors


class AuthenticationError(ProblemError):
    """401: the key is missing, wrong, expired or revoked."""


class PermissionDenied(ProblemError):
    """403: the key has not the scope that this needs."""


class NotFound(ProblemError):
    """404: no such thing, or not in this key's account and environment."""


class Conflict(ProblemError):
    """409: not in its present state, such as cancelling what has already ended."""


class ValidationFailed(ProblemError):
    """400, 413, 415, 422: the request was understood and is not acceptable; see `errors`."""


class Unavailable(ProblemError):
    """502, 503, 504, and 429 of a proxy: no response now; see `retry_after`."""


_BY_STATUS: Mapping[int, type[ProblemError]] = {
    400: ValidationFailed,
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: ValidationFailed,
    415: ValidationFailed,
    422: ValidationFailed,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem_error(problem: Problem, *, retry_after: float | None = None) -> ProblemError:
    """The exception for a problem document; one of an unlisted status is a plain ProblemError."""
    return _BY_STATUS.get(problem.status, ProblemError)(problem, retry_after=retry_after)


def _sentence(problem: Problem) -> str:
    said = problem.detail or problem.title or f"The gateway answered {problem.status}."
    fields = "; ".join(
        f"{error.field}: {error.detail}" if error.field else error.detail
        for error in problem.errors
    )
    return f"{said} ({fields})" if fields else said

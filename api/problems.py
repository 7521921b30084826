"""What goes wrong, as problem documents (RFC 9457): which kinds there are, and what becomes which.

A kind is a constant; its slug ends the document's `type`, counts in the metric of refusals, and is
explained in `docs/problems.md`. Exceptions of the services are given their kind in one table, so
that an endpoint neither catches nor translates anything: it only names, in its `responses`, what
its service may raise (`responses=raises(UnknownMessage)`).
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args
from uuid import uuid4

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.sentences import field_errors_of
from domain.callbacks.signatures import SignatureRefused
from domain.numbers import InvalidNumber
from providers.base import ReceiptRefused
from providers.webhooks import WebhookForged
from services import submission
from services.accounts import AccountNameTaken, UnknownAccount
from services.batches import BatchOver, UnknownBatch
from services.callbacks.management import SecretConfigured
from services.configuration import NoConfiguration
from services.keys import NotYours, UnknownKey
from services.messages import AlreadyOver, UnknownMessage
from services.provider_tests import ProviderDown, TestedAccountSuspended
from services.provider_webhooks import ReportNotStored, SecretUnavailable, UnknownAddress
from services.reads import QueryTooWide
from services.receipts import ReceiptNotStored
from services.submission import KeyInFlight, KeyReused, Refused
from settings.configuration_file import ConfigurationMistakes
from store.database import DatabaseAway
from telemetry import metrics
from telemetry.logs import get_logger

_log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20
"""Most errors that one response lists; of the others it has only the number."""
_TYPE = "urn:smsgateway:problem:"
_SOON = {"Retry-After": "2"}

# --- kinds -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem; `detail` says what to do where nothing more is known of the case."""

    slug: str
    status: int
    title: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The URI that names the kind, and never changes."""
        return f"{_TYPE}{self.slug}"


MALFORMED = Kind(
    "malformed-request",
    400,
    "The request cannot be read",
    "The body is not JSON in UTF-8: check its quotes, commas and brackets.",
)
UNAUTHORIZED = Kind(
    "unauthorized",
    401,
    "The key is not valid",
    "The key is wrong, expired or revoked: use another one.",
    {"WWW-Authenticate": "Bearer"},
)
SIGNATURE_REFUSED = Kind(
    "signature-refused",
    401,
    "The signature does not hold",
    "No provider of the configuration signs like this: check the secret on both sides.",
)
MISSING_SCOPE = Kind(
    "missing-scope",
    403,
    "The key may not do this",
    "The key lacks a scope: use one that has it, or let one be made.",
)
OPERATOR_KEY_NEEDED = Kind(
    "operator-key-needed",
    403,
    "Only an operator may do this",
    "The key belongs to an account, and this concerns the whole installation: use an operator's key "
    "(`sg_operator_…`).",
)
ACCOUNT_KEY_NEEDED = Kind(
    "account-key-needed",
    403,
    "An operator's key may not do this",
    "The key is an operator's, and this belongs to an account: use a key of the account "
    "(`sg_live_…` or `sg_test_…`).",
)
ACCOUNT_SUSPENDED = Kind(
    "account-suspended",
    403,
    "The account is suspended",
    "The account is suspended. Its keys read and cancel, but send nothing until the operator resumes "
    "the account: ask the operator for the reason.",
)
KEY_EXCEEDED = Kind(
    "key-exceeded",
    403,
    "The key has not the right to do this with keys",
    "The key would give more than it has, or revoke a key that it descends from: ask for less, or "
    "use another key.",
)
NOT_FOUND = Kind(
    "not-found",
    404,
    "There is no such thing",
    "There is nothing at this address: check the path.",
)
METHOD_NOT_ALLOWED = Kind(
    "method-not-allowed",
    405,
    "This address does not take that method",
    "This address does not take that method: use one of those in the header `Allow`.",
)
REQUEST_TIMEOUT = Kind(
    "request-timeout",
    408,
    "The request did not arrive in time",
    "Not all of the request arrived within the time that the gateway waits for one: send it again, "
    "without pauses, or in smaller parts.",
    {"Connection": "close"},
)
KEY_IN_FLIGHT = Kind(
    "idempotency-key-in-flight",
    409,
    "A request with this idempotency key is at work",
    "Another request with the same Idempotency-Key is being accepted: send this one again in a "
    "moment, and it is answered like that one.",
    {"Retry-After": "1"},
)
BATCH_CANCELED = Kind(
    "batch-canceled",
    409,
    "The batch was cancelled",
    "The batch was cancelled, and nothing is left of it to pause or resume: send what is missing in a "
    "new one.",
)
ALREADY_FINAL = Kind(
    "already-final",
    409,
    "The message is final",
    "The message is final: there is nothing left to cancel.",
)
SECRET_CONFIGURED = Kind(
    "secret-configured",
    409,
    "The secret is set in the configuration",
    "The operator has set this account's secret in the configuration, and secrets of the "
    "configuration are not shown: ask the operator for it.",
)
ACCOUNT_NAME_TAKEN = Kind(
    "account-name-taken",
    409,
    "Another account has this name",
    "Another account has this name, and names of accounts are unique: choose another one.",
)
PROVIDER_DOWN = Kind(
    "provider-down",
    409,
    "The provider is down",
    "Nothing can be sent over the provider now: `smsctl provider status` shows why.",
)
NOT_A_DEAD_LETTER = Kind(
    "not-a-dead-letter",
    409,
    "The message is no dead letter",
    "Only dead letters can be replayed, and this message is none (any more).",
)
BODY_TOO_LARGE = Kind(
    "body-too-large",
    413,
    "The body is too large",
    "The body has more bytes than the gateway reads: send less.",
)
UNSUPPORTED_MEDIA_TYPE = Kind(
    "unsupported-media-type",
    415,
    "The body is of a type that is not taken here",
    "The body is of a type that is not taken here: send it as application/json, and say so in the "
    "header Content-Type.",
)
INVALID_REQUEST = Kind(
    "invalid-request",
    422,
    "The request is not acceptable",
    "The request is not acceptable: change what `errors` names, and send it again.",
)
QUERY_TOO_WIDE = Kind(
    "query-too-wide",
    422,
    "The query looks at too much",
    "The list would take longer than reads may: narrow it, for example by `since` and `until`.",
)
HEADERS_TOO_LARGE = Kind(
    "headers-too-large",
    431,
    "The headers are too large",
    "The request line and the headers have more bytes than the gateway reads: send fewer or shorter "
    "headers.",
)
KEY_REUSED = Kind(
    "idempotency-key-reused",
    422,
    "The idempotency key was used for another request",
    "The Idempotency-Key came before, with another body: use a fresh key for a new message.",
)
INVALID_CONFIGURATION = Kind(
    "invalid-configuration",
    422,
    "The configuration has errors",
    "The configuration has errors, and nothing was applied: correct what `errors` names, and apply it "
    "again.",
)
INTERNAL = Kind(
    "internal-error",
    500,
    "The gateway has a fault",
    "The gateway failed, and not because of your request: send it again, and if it fails again, give "
    "the operator the `instance` of this response, which is the `request_id` of the log line.",
)
UNAVAILABLE = Kind(
    "database-unavailable",
    503,
    "The database does not answer",
    "The database does not answer, and it is not known whether the request was carried out: send it "
    "again in a moment, with the same Idempotency-Key if it had one.",
    _SOON,
)
OUTDATED = Kind(
    "database-outdated",
    503,
    "The database is not prepared",
    "The database's schema is older than the gateway: the operator brings it forward with "
    "`python worker.py bootstrap`.",
    _SOON,
)
NO_CONFIGURATION = Kind(
    "no-configuration",
    503,
    "There is no configuration yet",
    "There is no configuration yet. Nothing can be sent before the operator has applied one: "
    "`smsctl config apply FILE`.",
    _SOON,
)
TOO_MANY_BATCHES = Kind(
    "too-many-batches",
    503,
    "There are too many batches at once",
    "The process accepts as many batches as it can, and nothing of this one was stored: send it "
    "again in a moment, and fewer of them at the same time.",
    _SOON,
)
TOO_MANY_CONNECTIONS = Kind(
    "too-many-connections",
    503,
    "There are too many connections",
    "The process has as many connections as it takes: keep fewer of them open, and try again in a "
    "moment.",
    _SOON,
)

KINDS = tuple(kind for kind in list(globals().values()) if isinstance(kind, Kind))
"""All kinds."""

# --- documents ---------------------------------------------------------------------------------


class FieldError(BaseModel):
    """What is wrong with one field; it never repeats the field's value."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=False)

    field: str = Field(
        description="The field, such as `to` or `metadata.order`; empty where the whole is meant."
    )
    detail: str = Field(description="What is wrong, and what to do.")
    reason: str | None = Field(None, description="The same as a constant, such as `missing`.")
    line: int | None = Field(None, description="Where it stands in a configuration, from 1.")
    column: int | None = Field(None, description="Where it stands in that line, from 1.")


class ProblemDocument(BaseModel):
    """A problem (RFC 9457). `type` never changes; texts may."""

    model_config = ConfigDict(frozen=True)

    type: Annotated[str, Field(pattern=r"^urn:smsgateway:problem:[a-z-]+$")]
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The HTTP status, again.")
    detail: str = Field(description="What happened this time, and what to do.")
    instance: str = Field(description="Names this very answer, for talking to the operator.")
    errors: tuple[FieldError, ...] | None = Field(
        None, description=f"What is wrong, by field: the first {MOST_ERRORS} errors."
    )
    more_errors: int | None = Field(
        None, description="How many errors there are beside those of `errors`, if there are any."
    )


class Problem(HTTPException):
    """A request that is answered with a problem document."""

    def __init__(
        self,
        kind: Kind,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        more: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(kind.status, detail or kind.detail, {**kind.headers, **(headers or {})})
        self.kind = kind
        self.errors = tuple(errors[:MOST_ERRORS])
        self.more = more + len(errors) - len(self.errors)
        self.occurrence = uuid4()

    def document(self) -> dict[str, Any]:
        """The response's body."""
        return ProblemDocument(
            type=self.kind.type,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            instance=f"urn:uuid:{self.occurrence}",
            errors=self.errors or None,
            more_errors=self.more or None,
        ).model_dump(exclude_none=True)


def not_json(position: int) -> Problem:
    """A body that is no JSON from this character on, counted from 0."""
    return Problem(
        MALFORMED,
        f"The body is not JSON, from character {position + 1} on: check its quotes, commas and "
        "brackets.",
    )


def _refused(faults: Sequence[submission.FieldError], more: int = 0) -> Problem:
    errors = [
        FieldError(field=fault.field, detail=_whole(fault.sentence), reason=fault.reason)
        for fault in faults[:MOST_ERRORS]
    ]
    return Problem(INVALID_REQUEST, errors=errors, more=more + len(faults) - len(errors))


def _whole(sentence: str) -> str:
    """With a capital and a full stop: some rules speak in the middle of a sentence."""
    return sentence[:1].upper() + sentence[1:].removesuffix(".") + "."


def _already_final(error: AlreadyOver) -> Problem:
    return Problem(ALREADY_FINAL, _whole(str(error)))


def _mistakes(error: ConfigurationMistakes) -> Problem:
    return Problem(
        INVALID_CONFIGURATION,
        errors=[
            FieldError(
                field=mistake.path,
                detail=mistake.sentence,
                line=mistake.line or None,
                column=mistake.column or None,
            )
            for mistake in error.mistakes
        ],
        more=error.more,
    )


# PostgreSQL, appendix A: undefined_table, undefined_column.
_OF_A_NEWER_SCHEMA = frozenset({"42P01", "42703"})


def _of_a_statement(error: psycopg.ProgrammingError) -> Problem:
    return Problem(OUTDATED if error.sqlstate in _OF_A_NEWER_SCHEMA else INTERNAL)


_NO_BATCH = "There is no batch with this id in the key's account and environment."
_NO_ACCOUNT = "There is no account with this id: `GET /api/v1/accounts` (`smsctl account list`) shows all ids."
_NO_MESSAGE = "There is no message with this id in the key's account and environment."

# What an exception of the services means to whoever asked; the rest is INTERNAL.
_EXPLAINED: Mapping[type[Exception], tuple[Kind, Callable[[Any], Problem]]] = {
    Refused: (INVALID_REQUEST, lambda error: _refused(error.errors, error.more)),
    InvalidNumber: (
        INVALID_REQUEST,
        lambda error: _refused([submission.FieldError("to", "invalid_number", str(error))]),
    ),
    QueryTooWide: (
        QUERY_TOO_WIDE,
        lambda error: Problem(
            QUERY_TOO_WIDE,
            f"The list would take longer than reads may: {error.narrows}, and send it again.",
        ),
    ),
    KeyInFlight: (KEY_IN_FLIGHT, lambda _: Problem(KEY_IN_FLIGHT)),
    KeyReused: (KEY_REUSED, lambda _: Problem(KEY_REUSED)),
    UnknownMessage: (NOT_FOUND, lambda _: Problem(NOT_FOUND, _NO_MESSAGE)),
    AlreadyOver: (ALREADY_FINAL, _already_final),
    UnknownBatch: (NOT_FOUND, lambda _: Problem(NOT_FOUND, _NO_BATCH)),
    BatchOver: (BATCH_CANCELED, lambda _: Problem(BATCH_CANCELED)),
    UnknownAccount: (NOT_FOUND, lambda _: Problem(NOT_FOUND, _NO_ACCOUNT)),
    AccountNameTaken: (ACCOUNT_NAME_TAKEN, lambda _: Problem(ACCOUNT_NAME_TAKEN)),
    UnknownKey: (UNAUTHORIZED, lambda _: Problem(UNAUTHORIZED)),
    NotYours: (KEY_EXCEEDED, lambda error: Problem(KEY_EXCEEDED, str(error))),
    NoConfiguration: (NO_CONFIGURATION, lambda _: Problem(NO_CONFIGURATION)),
    ConfigurationMistakes: (INVALID_CONFIGURATION, _mistakes),
    SignatureRefused: (
        SIGNATURE_REFUSED,
        lambda error: Problem(SIGNATURE_REFUSED, f"The webhook is refused: {error}."),
    ),
    UnknownAddress: (NOT_FOUND, lambda _: Problem(NOT_FOUND)),
    WebhookForged: (
        SIGNATURE_REFUSED,
        lambda error: Problem(SIGNATURE_REFUSED, f"The webhook is refused: {error}."),
    ),
    ReportNotStored: (UNAVAILABLE, lambda _: Problem(UNAVAILABLE)),
    SecretUnavailable: (UNAVAILABLE, lambda _: Problem(UNAVAILABLE)),
    ProviderDown: (PROVIDER_DOWN, lambda error: Problem(PROVIDER_DOWN, str(error))),
    TestedAccountSuspended: (
        ACCOUNT_SUSPENDED,
        lambda _: Problem(
            ACCOUNT_SUSPENDED, "The account is suspended: resume it, or give another account."
        ),
    ),
    SecretConfigured: (SECRET_CONFIGURED, lambda _: Problem(SECRET_CONFIGURED)),
    ReceiptNotStored: (UNAVAILABLE, lambda _: Problem(UNAVAILABLE)),
    ReceiptRefused: (
        INVALID_REQUEST,
        lambda _: Problem(INVALID_REQUEST, "The receipt cannot be stored: do not send it again."),
    ),
    DatabaseAway: (UNAVAILABLE, lambda _: Problem(UNAVAILABLE)),
    psycopg.ProgrammingError: (OUTDATED, _of_a_statement),
}

# What the framework refuses by itself.
_OF_THE_FRAMEWORK: Mapping[int, Kind] = {
    kind.status: kind for kind in (MALFORMED, NOT_FOUND, METHOD_NOT_ALLOWED, BODY_TOO_LARGE)
}


def raises(
    *causes: type[Exception] | Kind, examples: Mapping[str, Problem] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint whose service may raise these, for the OpenAPI document.

    Args:
        causes: what may be raised.
        examples: answers to the requests that stand under the same names among the examples of
            the request's body.
    """
    responses: dict[Any, dict[str, Any]] = {}
    for cause in causes:
        add_response(responses, cause if isinstance(cause, Kind) else _EXPLAINED[cause][0])
    for name, problem in (examples or {}).items():
        add_response(responses, problem.kind)
        shown = responses[str(problem.kind.status)]["content"][MEDIA_TYPE]["examples"]
        shown[name] = {"value": _example(problem)}
    return responses


def refusal(field: str, reason: str, detail: str) -> Problem:
    """A request that is refused for one field."""
    return _refused([submission.FieldError(field, reason, detail)])


def add_response(responses: MutableMapping[Any, dict[str, Any]], kind: Kind) -> None:
    """Describe in an operation's `responses`, by status, that the response may be such a problem."""
    response = responses.setdefault(str(kind.status), {"description": kind.title})
    if kind.title not in response["description"]:
        response["description"] += f"; or: {kind.title}"
    content = response.setdefault("content", {}).setdefault(
        MEDIA_TYPE, {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "examples": {}}
    )
    content["examples"].setdefault(kind.slug, {"value": _example(Problem(kind))})


def _example(problem: Problem) -> dict[str, Any]:
    return problem.document() | {"instance": "urn:uuid:6f1d0bd8-8a44-4bb1-9b8c-3f4ad2a9c7e1"}


# --- answers -----------------------------------------------------------------------------------


def explain(app: FastAPI, routes: Sequence[APIRoute] = ()) -> None:
    """Let an application with these routes answer with problem documents, whatever goes wrong."""
    app.state.routes = routes
    for cause in _EXPLAINED:
        app.add_exception_handler(cause, _explained)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _of_the_framework)


def response(problem: Problem) -> JSONResponse:
    """The response to a request that was refused; it is counted by the problem's kind."""
    metrics.request_refused(problem.kind.slug)
    return JSONResponse(
        problem.document(),
        status_code=problem.kind.status,
        headers=dict(problem.headers or {}),
        media_type=MEDIA_TYPE,
    )


def unexpected(error: Exception) -> JSONResponse:
    """The response to a request that failed by a fault of the gateway; the log has the details."""
    problem = Problem(INTERNAL)
    _log.error("request_failed", request_id=problem.occurrence, exc_info=error)
    return response(problem)


async def _explained(_: Request, error: Exception) -> JSONResponse:
    cause = next(cause for cause in type(error).__mro__ if cause in _EXPLAINED)
    problem = _EXPLAINED[cause][1](error)
    if problem.kind.status >= INTERNAL.status:
        _log.warning(
            "request_not_served",
            request_id=problem.occurrence,
            reason=problem.kind.slug,
            exc_info=error,
        )
    return response(problem)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    for found in errors[:1]:
        if found["type"] == "json_invalid":
            return response(not_json(found["loc"][1]))
    shown = errors[:MOST_ERRORS]
    more = getattr(error, "more", 0) + len(errors) - len(shown)
    return response(
        _refused(field_errors_of(shown, _known_names(request.scope.get("route"))), more)
    )


async def _of_the_framework(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, Problem):
        return response(error)
    if isinstance(error, HTTPException) and error.status_code in _OF_THE_FRAMEWORK:
        kind = _OF_THE_FRAMEWORK[error.status_code]
        headers = dict(error.headers or {})
        if kind is METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_allowed(request)) or headers.get("Allow", "")
        return response(Problem(kind, headers=headers))
    return unexpected(error)


def _allowed(request: Request) -> list[str]:
    """The methods of the address (RFC 9110, 10.2.1), of which the framework names one route's.

    A path without parameters stands before one with.
    """
    routes = [
        route
        for route in request.app.state.routes
        if route.matches(dict(request.scope))[0] is not Match.NONE
    ]
    fewest = min((len(route.param_convertors) for route in routes), default=0)
    methods = {
        method
        for route in routes
        if len(route.param_convertors) == fewest
        for method in route.methods
    }
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _known_names(route: object) -> dict[str, list[str]]:
    """The names of the fields that a route takes, under "", and of what these hold, under theirs."""
    if not isinstance(route, APIRoute):
        return {}
    fields = [route.body_field, *route.dependant.query_params]
    known: dict[str, list[str]] = {"": []}
    for model in [each.field_info.annotation for each in fields if each is not None]:
        for name, annotation in _fields_of(model):
            known[""].append(name)
            for held in (annotation, *get_args(annotation)):
                known.setdefault(name, []).extend(inner for inner, _ in _fields_of(held))
    return known


def _fields_of(model: object) -> list[tuple[str, object]]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [(info.alias or name, info.annotation) for name, info in model.model_fields.items()]

"""The description of the API (OpenAPI 3.1): what FastAPI knows, and what holds for all endpoints."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Header
from pydantic import BaseModel, ConfigDict, Field

from api.problems import (
    ACCOUNT_KEY_NEEDED,
    BODY_TOO_LARGE,
    INTERNAL,
    INVALID_REQUEST,
    MALFORMED,
    MISSING_SCOPE,
    OPERATOR_KEY_NEEDED,
    OUTDATED,
    REQUEST_TIMEOUT,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
    FieldError,
    Kind,
    ProblemDocument,
    add_response,
)
from domain.callbacks.events import CALLBACK_STATUSES, MOST_EVENTS
from services.keys import OperatorScope

TITLE = "SMS gateway"
DESCRIPTION = """\
Sends SMS durably: what was answered with `202` is committed and will be brought to its end.

**Keys** are sent as `Authorization: Bearer KEY`. A key belongs to one account and one environment,
and sees nothing else; its scopes say what it may do. The keys of operators (`sg_operator_…`) belong
to no account: they manage accounts and the configuration, and neither send nor read messages.

**Problems** are documents of the type `application/problem+json` (RFC 9457). `type` names the kind,
`errors` the fields. No document repeats what was sent.

**Lists** come in pages, the newest first; `next_cursor` asks for the next one.

**Examples**: the response to a request example is the response example of the same name.
"""
TAGS = [
    {"name": "messages", "description": "Send messages, follow them, stop them."},
    {"name": "batches", "description": "Send to many at once, and see how far that is."},
    {"name": "dead letters", "description": "What could not be sent, and its second chance."},
    {"name": "providers", "description": "The carriers, and how they are."},
    {"name": "callbacks", "description": "Callbacks to your server, and their outcomes."},
    {"name": "receipts", "description": "Receipts that carriers deliver over HTTP."},
    {"name": "keys", "description": "Who may do what."},
    {"name": "accounts", "description": "Who the messages belong to; for operators."},
    {"name": "operator keys", "description": "Who may manage the installation."},
    {"name": "configuration", "description": "Providers, routes and policies."},
    {"name": "health", "description": "For whoever watches the process; needs no key."},
]

# --- webhooks ---------------------------------------------------------------------------------

webhooks = APIRouter()


class Notice(BaseModel):
    """The callback for one transition of a message; these five members, and no others."""

    model_config = ConfigDict(extra="forbid")

    message_id: str = Field(examples=["msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f"])
    to: str | None = Field(description="The recipient's number; null once it was erased.")
    status: Annotated[
        str, Field(json_schema_extra={"enum": sorted(s.upper() for s in CALLBACK_STATUSES)})
    ]
    provider_code: str = Field(description="The provider's own code; empty where it gave none.")
    timestamp: str = Field(
        description="RFC 3339, in UTC.", json_schema_extra={"format": "date-time"}
    )


class ListedNotice(Notice):
    """The same in a list, with the id that a `webhook-id` would carry."""

    id: str = Field(
        description="The id of the callback, the same for each try and replay: what came before "
        "under it can be passed over.",
        examples=["cb_019aa5c0d1e27b3c8f4e5a6b7c8d9e10"],
    )


class Notices(BaseModel):
    """A callback with many events, for accounts that are configured for it."""

    model_config = ConfigDict(extra="forbid")

    events: list[ListedNotice] = Field(
        min_length=1,
        max_length=MOST_EVENTS,
        description="Those of a message in the order of its transitions.",
    )


_NOTICE = {
    "message_id": "msg_019aa5c0d1e27b3c8f4e5a6b7c8d9e0f",
    "to": "+447700900123",
    "status": "DELIVERED",
    "provider_code": "000",
    "timestamp": "2026-11-30T09:30:00.123Z",
}


@webhooks.post(
    "message-moved",
    operation_id="message_transitioned",
    tags=["callbacks"],
    summary="A message has moved",
    status_code=204,
    response_description="Any 2xx: it was understood. After any other response it is sent again, on "
    "a schedule that runs over days.",
    responses={
        "410": {"description": "It is not wanted any more: it is not sent again."},
    },
)
def message_transitioned(
    notice: Annotated[
        Notice | Notices,
        Body(
            openapi_examples={
                "delivered": {"summary": "Delivered", "value": _NOTICE},
                "many": {
                    "summary": "Many events in a request",
                    "value": {"events": [_NOTICE | {"id": "cb_019aa5c0d1e27b3c8f4e5a6b7c8d9e10"}]},
                },
            }
        ),
    ],
    webhook_id: Annotated[
        str,
        Header(
            description="The id of the callback, the same for each try and replay: what came "
            "before under it can be passed over. Of a list it is the id of this very set of "
            "events (`cbr_…`); then go by the `id` of each.",
            examples=["cb_019aa5c0d1e27b3c8f4e5a6b7c8d9e10"],
        ),
    ],
    webhook_timestamp: Annotated[
        str, Header(description="Seconds since 1970, of this try.", examples=["1795000000"])
    ],
    webhook_signature: Annotated[
        str,
        Header(
            description="`v1,` and base64 of an HMAC-SHA256 over id, timestamp and body, joined by "
            "dots (Standard Webhooks); the key is that of `GET /api/v1/callbacks/secret`.",
            examples=["v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="],
        ),
    ],
) -> None:
    """Sent to a message's `callback_url` when it moves, in the order of its transitions.

    Sent for these: sent, delivered, failed, expired, set aside as a dead letter, and cancelled. Where the
    account prefers many events in a request, they come as a list.
    """


# --- the document ------------------------------------------------------------------------------

_OPERATOR_SCOPES = frozenset(scope.value for scope in OperatorScope)
_FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> None:
    """Complete what FastAPI says of an application, once, when it is first asked for."""
    app.webhooks.routes.extend(webhooks.routes)
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generated())
        return generated()

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _complete(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in _FASTAPIS_OWN:
        schemas.pop(name, None)
    for model in (FieldError, ProblemDocument):
        schemas[model.__name__] = model.model_json_schema(
            ref_template="#/components/schemas/{model}", mode="serialization"
        )
        schemas[model.__name__].pop("$defs", None)
    for operation in _operations(document):
        responses = operation["responses"]
        _forget_fastapis(responses)
        for kind in _kinds(operation):
            add_response(responses, kind)
        operation["responses"] = dict(sorted(responses.items()))
    for item in document["webhooks"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from item.values()


def _forget_fastapis(responses: dict[str, Any]) -> None:
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]


def _kinds(operation: dict[str, Any]) -> Iterator[Kind]:
    """The problems that any operation like this one may be answered with."""
    if operation["tags"] == ["health"]:
        return
    yield from (INTERNAL, UNAVAILABLE, OUTDATED)
    if "security" in operation:
        yield from (UNAUTHORIZED, MISSING_SCOPE)
        (scopes,) = operation["security"][0].values()
        of_operator = bool(_OPERATOR_SCOPES.intersection(scopes))
        yield OPERATOR_KEY_NEEDED if of_operator else ACCOUNT_KEY_NEEDED
    if "requestBody" in operation:
        yield from (MALFORMED, REQUEST_TIMEOUT, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE)
    if "application/json" in operation.get("requestBody", {}).get("content", {}) or any(
        parameter["in"] != "path" for parameter in operation.get("parameters", ())
    ):
        yield INVALID_REQUEST

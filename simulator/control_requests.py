"""How requests to control a carrier are read, and how what they say wrong is answered."""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from simulator.behaviour import CarrierBehaviour, digits_of, is_documented

_MAX_BODY: Final = 64 * 1024
_SHORTEST_NUMBER: Final = 7
HIDDEN: Final = "(hidden)"


class RequestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ThrottleRequest(RequestModel):
    above: int | None = Field(default=None, ge=1)
    next: int = Field(default=0, ge=0)


class ReleaseRequest(RequestModel):
    newest_first: bool = False


_Model = TypeVar("_Model", bound=BaseModel)


def shown_number(number: str) -> str:
    """A number as it may be shown: a documented one, a short code or a name; else hidden."""
    digits = digits_of(number)
    if is_documented(digits):
        return f"+{digits}"
    return number if not digits.isdecimal() or len(digits) < _SHORTEST_NUMBER else HIDDEN


def shown_behaviours(numbers: Mapping[str, CarrierBehaviour]) -> dict[str, Any]:
    """The behaviours that numbers were given, of those numbers that may be shown."""
    return {
        shown_number(number): behaviour.model_dump(mode="json")
        for number, behaviour in numbers.items()
        if is_documented(number)
    }


async def read(request: Request, model: type[_Model]) -> _Model:
    """The request's JSON body; an empty one has only defaults."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f"The body is longer than {_MAX_BODY} octets: shorten it.")
    try:
        return model.model_validate_json(bytes(body) or b"{}")
    except ValidationError as invalid:
        raise HTTPException(422, _in_words(invalid)) from None


def _in_words(invalid: ValidationError) -> str:
    # Places and rules, never the input: it may be somebody's number or text.
    errors = invalid.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'body'}: {_rule(error)}" for error in errors
    )


def _rule(error: ErrorDetails) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "there is no such field: take it out, or correct its name."
        case "missing":
            return "it is missing: add it."
        case "json_invalid":
            return "it is not JSON: check its quotes, commas and brackets."
        case "value_error":
            return f"{error['msg'].removeprefix('Value error, ').removesuffix('.')}."
        case _:
            return f"change the value: {error['msg'].replace('Input should be', 'it must be')}."


def number_of(request: Request) -> str:
    """The number in the path of a request."""
    number = str(request.path_params["number"])
    if not digits_of(number).isdecimal():
        raise HTTPException(
            422, "number: write it in the path as digits with or without a plus, +447700900123."
        )
    return number


async def problem(_: Request, error: Exception) -> Response:
    """RFC 9457."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = (
        error.detail if isinstance(error, HTTPException) else "The simulator failed; see its log."
    )
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    body = {"type": "about:blank", "status": status, "title": _TITLES.get(status, "Error"),
            "detail": detail}  # fmt: skip
    return Response(
        json.dumps(body),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


_TITLES: Final = {
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Body too large",
    422: "Not understood",
    500: "Internal error",
}

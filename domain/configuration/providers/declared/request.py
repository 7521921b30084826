"""The request by which a declared provider is given a message."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from enum import StrEnum
from math import isfinite
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from domain.configuration.declared import Declared, mistake_at, refuse
from domain.configuration.durations import Duration
from domain.configuration.providers.declared.credentials import HeaderName
from domain.configuration.providers.declared.templates import (
    MessageTemplate,
    SendPath,
    Template,
    Values,
    checked_message,
    parse_template,
)
from domain.encoding import Encoding

FieldName = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Method(StrEnum):
    """Methods of requests."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"


class Coding(Declared):
    """What `{coding}` stands for."""

    gsm7: Annotated[str, StringConstraints(max_length=20)] = Field(
        description="for a text that GSM-7 has all characters of; empty to leave the entry out"
    )
    ucs2: Annotated[str, StringConstraints(max_length=20)] = Field(description="for any other text")

    def of(self, encoding: Encoding) -> str:
        return self.gsm7 if encoding is Encoding.GSM7 else self.ucs2


class SendRequest(Declared):
    """The request for one message. An entry is left out where one of its placeholders has no value."""

    method: Method = Field(Method.POST, description="method of the request")
    path: SendPath = Field(
        description="path below `url`, with placeholders; their values are percent-encoded"
    )
    query: dict[FieldName, MessageTemplate] = Field(
        {}, description="fields of the query, with placeholders"
    )
    headers: dict[HeaderName, MessageTemplate] = Field(
        {}, description="further headers, with placeholders"
    )
    form: dict[FieldName, MessageTemplate] | None = Field(
        None, description="fields of a form as the body, with placeholders"
    )
    json_body: dict[str, Any] | None = Field(
        None,
        alias="json",
        description="a JSON object as the body: texts have placeholders, other values keep their type",
    )
    coding: Coding | None = Field(
        None, description="values of `{coding}`, by the encoding of the text"
    )
    longest_text: Annotated[StrictInt, Field(ge=1, le=100_000)] | None = Field(
        None,
        description="maximum number of characters of a text; the next provider gets a longer one",
    )
    longest_validity: Duration | None = Field(
        None,
        description="maximum validity that the provider takes; a longer one is shortened to it",
    )

    @field_validator("json_body")
    @classmethod
    def _json_can_be_written(cls, body: dict[str, Any] | None) -> dict[str, Any] | None:
        refuse(cls.__name__, [mistake_at(*path, sentence=why) for path, why in _unwritable(body)])
        return body

    @model_validator(mode="after")
    def _has_one_body(self) -> Self:
        sentence = None
        if self.form is not None and self.json_body is not None:
            sentence = "form", "a request has one body: give form or json"
        elif self.method is Method.GET and self.has_body:
            name = "form" if self.form is not None else "json"
            sentence = name, "a GET request has no body: give query, or another method"
        if sentence:
            refuse(type(self).__name__, [mistake_at(sentence[0], sentence=sentence[1])])
        return self

    @property
    def has_body(self) -> bool:
        return self.form is not None or self.json_body is not None

    def templates(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Where each template is in the table, and the template."""
        yield ("path",), self.path
        for name in ("query", "headers", "form"):
            for key, template in (getattr(self, name) or {}).items():
                yield (name, key), template
        yield from _texts(self.json_body, ("json",))

    def parsed(self) -> Iterator[Template]:
        return (parse_template(text) for _, text in self.templates())


class Idempotency(Declared):
    """By what the provider recognizes a request that comes twice; one of both keys is given."""

    header: HeaderName | None = Field(
        None,
        description="header that gets the reference of the attempt as a key: the same request with the "
        "same key sends no second message",
    )
    duplicate_codes: tuple[str, ...] = Field(
        (),
        description="codes by which the provider refuses a `{reference}` that it already has: such a "
        "refusal shows that the message was accepted",
    )
    reference_is_id: StrictBool = Field(
        False, description="whether `{reference}` becomes the provider's id of the message, too"
    )

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.header is None) == (not self.duplicate_codes):
            raise ValueError("give either header or duplicate_codes")
        if self.reference_is_id and not self.duplicate_codes:
            sentence = "it is only for providers with duplicate_codes"
            refuse(type(self).__name__, [mistake_at("reference_is_id", sentence=sentence)])
        return self


def filled_fields(fields: Mapping[str, str], values: Values) -> list[tuple[str, str]]:
    """Names and values of a form, a query or headers, without those that have no value."""
    filled = [(name, parse_template(template).fill(values)) for name, template in fields.items()]
    return [(name, value) for name, value in filled if value is not None]


def filled_json(template: Any, values: Values) -> Any:
    """A value of JSON; None where it has no value. What holds nothing else is left out with it."""
    match template:
        case str():
            return parse_template(template).typed(values)
        case dict():
            filled = {key: filled_json(each, values) for key, each in template.items()}
            kept = {key: each for key, each in filled.items() if each is not None}
            return kept if kept or not template else None
        case list():
            items = [filled_json(each, values) for each in template]
            held = [each for each in items if each is not None]
            return held if held or not template else None
        case _:
            return template


def _texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    match value:
        case str():
            yield path, value
        case dict():
            for key, each in value.items():
                yield from _texts(each, (*path, key))
        case list():
            for place, each in enumerate(value):
                yield from _texts(each, (*path, place))
        case _:
            pass


def _unwritable(
    value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where a value is no JSON with placeholders, and a sentence about it."""
    match value:
        case dict():
            for key, each in value.items():
                yield from _unwritable(each, (*path, key))
        case list():
            for place, each in enumerate(value):
                yield from _unwritable(each, (*path, place))
        case str():
            try:
                checked_message(value)
            except ValueError as error:
                yield path, str(error)
        case float() if not isfinite(value):
            yield path, "JSON has no infinite numbers"
        case date() | datetime() | time():
            yield path, "JSON has no times: write it as a text, in quotes"
        case _:
            pass

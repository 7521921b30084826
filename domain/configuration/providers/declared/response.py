"""Responses to requests that send a message: accepted, refused, or neither of them for certain."""

import re
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictInt,
    model_validator,
)

from domain.configuration.declared import mistake_at, refuse
from domain.configuration.providers.declared.documents import Format, Unreadable, read_document
from domain.configuration.providers.declared.reading import Reading, Test, Where
from domain.error_classes import ErrorClass
from domain.http_statuses import is_success
from domain.money import CURRENCIES, Price
from domain.outcomes import MOST_SEGMENTS
from domain.values import value

_LOWEST, _HIGHEST = 200, 599
_PRICE: Final = re.compile(r"[-+]?([0-9]{1,20}(?:\.[0-9]{1,20})?)")


def _http_status(key: object) -> int:
    text = str(key)
    if not text.isascii() or not text.isdigit() or not _LOWEST <= int(text[:4]) <= _HIGHEST:
        raise ValueError(f"an HTTP status is a number from {_LOWEST} to {_HIGHEST}")
    return int(text)


HttpStatus = Annotated[
    int, BeforeValidator(_http_status), PlainSerializer(str, return_type=str, when_used="json")
]


def _checked_currency(currency: str) -> str:
    if currency not in CURRENCIES:
        raise ValueError('a currency is a code of ISO 4217 in capitals, such as "EUR"')
    return currency


def _checked_unit(unit: str) -> str:
    if not _PRICE.fullmatch(unit) or not Decimal(unit) > 0:
        raise ValueError('it is a decimal number as a text, such as "0.0001"')
    return unit


Currency = Annotated[str, AfterValidator(_checked_currency)]


class Verdict(StrEnum):
    """What a response says of the message."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """It may have been accepted: the response does not say."""


@value
class ReadResponse:
    """What a response says.

    Attributes:
        verdict: whether the message was accepted.
        id: the provider's id; empty without one.
        code: the provider's error code; empty without one.
        segments, price: what the provider bills.
        after: how long it asks to wait.
    """

    verdict: Verdict
    id: str = ""
    code: str = ""
    segments: int | None = None
    price: Price | None = None
    after: timedelta | None = None


_LONGEST_WAIT: Final = timedelta(hours=1)
_LONGEST_NUMBER: Final = 9


class ResponseReading(Reading):
    """How the response to a request for a message is read."""

    format: Format = Field(
        Format.JSON, description="how the body is read: `json`, `form` or `text`"
    )
    accepted: tuple[Annotated[StrictInt, Field(ge=200, le=299)], ...] | None = Field(
        None, description="HTTP statuses of an accepted message; all from 200 to 299 if not given"
    )
    success: Test | None = Field(
        None, description="what holds for an accepted message, if its status does not say so"
    )
    id: Where | None = Field(
        None, description="where the provider's id of the message is; not given if there is none"
    )
    code: Where | None = Field(None, description="where the provider's error code is")
    segments: Where | None = Field(None, description="where the number of billed segments is")
    price: Where | None = Field(
        None,
        description="where the price is; a sign is dropped, and it may have its currency with it",
    )
    currency: Where | None = Field(None, description="where the currency of the price is")
    default_currency: Currency | None = Field(
        None, description="currency of prices where the response names none"
    )
    price_unit: Annotated[str, AfterValidator(_checked_unit)] = Field(
        "1", description="what one unit of the price is worth in that currency, such as 0.0001"
    )
    retry_after: Where | None = Field(
        None, description="where the seconds to wait are, if not in the header Retry-After"
    )
    statuses: dict[HttpStatus, ErrorClass] = Field(
        {},
        description="error classes of HTTP statuses, where the response has no known code and they "
        "differ from the standard",
    )
    default: ErrorClass = Field(
        ErrorClass.ROUTE,
        description="error class of a refusal with an HTTP status from 200 to 299 and no known code",
    )

    @model_validator(mode="after")
    def _places_can_be_read(self) -> Self:
        mistakes = []
        if self.format is Format.QUERY:
            mistakes.append(
                mistake_at("format", sentence="a response has no query: json, form or text")
            )
        else:
            mistakes = self._unusable_places(
                id=self.id,
                code=self.code,
                segments=self.segments,
                price=self.price,
                currency=self.currency,
                retry_after=self.retry_after,
                success__value=None if self.success is None else self.success.value,
            )
        refuse(type(self).__name__, mistakes)
        return self

    def _format_of(self) -> Format:
        return self.format

    def accepts(self, status: int) -> bool:
        """Whether the message may have been accepted, by the HTTP status."""
        return is_success(status) if self.accepted is None else status in self.accepted

    def read(self, status: int, body: bytes) -> ReadResponse:
        """What a response says of the message."""
        try:
            document = read_document(body, self.format)
        except Unreadable:
            return ReadResponse(Verdict.UNKNOWN if self.accepts(status) else Verdict.REFUSED)
        code = self._text(self.code, document)
        after = self._after(document)
        if not self.accepts(status):
            return ReadResponse(Verdict.REFUSED, code=code, after=after)
        passed = True if self.success is None else self.success.passes(document, self.format)
        if not passed:
            # Where the provider says nothing of the message, it may have been accepted.
            says_no = bool(code) or (passed is False and self._is_there(document))
            verdict = Verdict.REFUSED if says_no else Verdict.UNKNOWN
            return ReadResponse(verdict, code=code, after=after)
        found = self._text(self.id, document)
        if self.id is not None and not found:
            return ReadResponse(Verdict.UNKNOWN, code=code)
        return ReadResponse(
            Verdict.ACCEPTED,
            id=found,
            segments=_segments(self._text(self.segments, document)),
            price=self._price(document),
        )

    def _is_there(self, document: Any) -> bool:
        """Whether the value is there that `success` looks at."""
        source = None if self.success is None else self._source(self.success.value)
        return source is not None and source.is_in(document)

    def _after(self, document: Any) -> timedelta | None:
        seconds = self._text(self.retry_after, document).partition(".")[0]
        if not seconds.isascii() or not seconds.isdigit():
            return None
        return min(timedelta(seconds=int(seconds[:_LONGEST_NUMBER])), _LONGEST_WAIT)

    def _price(self, document: Any) -> Price | None:
        words = self._text(self.price, document).split()
        amounts = [found[1] for word in words if (found := _PRICE.fullmatch(word))]
        named = [word for word in words if not _PRICE.fullmatch(word)]
        currency = (
            self._text(self.currency, document) or "".join(named) or self.default_currency or ""
        )
        if len(amounts) != 1:
            return None
        with suppress(ValueError):
            return Price(Decimal(amounts[0]) * Decimal(self.price_unit), currency.upper())
        return None


def _segments(written: str) -> int | None:
    is_number = written.isascii() and written.isdigit() and len(written) <= _LONGEST_NUMBER
    count = int(written) if is_number else 0
    return count if 0 < count <= MOST_SEGMENTS else None

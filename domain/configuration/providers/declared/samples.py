"""Samples of responses and receipts, with what they must mean; the check of a configuration tries them."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt, StringConstraints

from domain.configuration.declared import Declared
from domain.configuration.providers.declared.codes import Codes
from domain.configuration.providers.declared.documents import Unreadable
from domain.configuration.providers.declared.receipt import ReadReceipt, ReceiptReading
from domain.configuration.providers.declared.response import HttpStatus, ResponseReading, Verdict
from domain.error_classes import ErrorClass
from domain.money import Price
from domain.receipts import ReceiptState

Location = tuple[str | int, ...]
_Body = Annotated[str, StringConstraints(max_length=20_000)]


def _price(text: str) -> Price:
    amount, _, currency = text.partition(" ")
    return Price.of(amount, currency)


def _checked_price(text: str) -> str:
    _price(text)
    return text


class ResponseMeaning(Declared):
    """What a sample of a response must mean; only what is given is compared."""

    verdict: Verdict = Field(
        description="`accepted`, `refused`, or `unknown` where it does not say"
    )
    id: str | None = Field(None, description="the provider's id")
    code: str | None = Field(None, description="the provider's error code")
    error_class: ErrorClass | None = Field(
        None, alias="class", description="error class of a message that was not accepted"
    )
    segments: StrictInt | None = Field(None, description="number of billed segments")
    price: Annotated[str, AfterValidator(_checked_price)] | None = Field(
        None, description='price, such as "0.0075 EUR"'
    )


class ResponseSample(Declared):
    """A response, and what it must mean."""

    status: HttpStatus = Field(200, description="HTTP status")
    body: _Body = Field("", description="body")
    means: ResponseMeaning

    def mistakes(self, reading: ResponseReading, codes: Codes) -> Iterator[tuple[Location, str]]:
        """Where the response does not mean what it must, and a sentence about it."""
        means, found = self.means, reading.read(self.status, self.body.encode())
        code = codes.kept(found.code)
        error_class = None
        if found.verdict is Verdict.UNKNOWN:
            error_class = ErrorClass.UNKNOWN
        elif found.verdict is Verdict.REFUSED:
            error_class = codes.class_of_response(code, self.status, reading)
        verdict = Verdict.UNKNOWN if error_class is ErrorClass.UNKNOWN else found.verdict
        if means.verdict is not verdict:
            yield ("means", "verdict"), f"the sample is read as {verdict}"
            return
        if means.id not in {None, found.id}:
            yield ("means", "id"), _differs(found.id, "id")
        if means.code not in {None, code}:
            yield ("means", "code"), _differs(code, "code")
        if means.error_class not in {None, error_class}:
            yield ("means", "class"), f"the sample is read as {error_class or 'no failure'}"
        if means.segments not in {None, found.segments}:
            yield ("means", "segments"), _differs(found.segments, "number of segments")
        if means.price is not None and _price(means.price) != found.price:
            yield ("means", "price"), _differs(found.price, "price")


class ReceiptMeaning(Declared):
    """What a receipt of a sample must mean; only what is given is compared."""

    state: ReceiptState = Field(description="state of the message")
    id: str | None = Field(None, description="the provider's id")
    code: str | None = Field(None, description="the provider's error code")
    error_class: ErrorClass | None = Field(
        None, alias="class", description="error class of a state that is a failure"
    )
    time: str | None = Field(None, description="time in UTC, as in 2026-11-28T12:00:00+00:00")

    def mistakes(self, found: ReadReceipt, codes: Codes) -> Iterator[tuple[str, str]]:
        """By key, what the receipt means instead."""
        code = codes.kept(found.code)
        state = codes.state_of_receipt(code, found.state)
        error_class = codes.class_of_receipt(code, state)
        time = None if found.done_at is None else found.done_at.isoformat()
        if self.state is not state:
            yield "state", f"the sample is read as {state}"
        if self.id not in {None, found.id}:
            yield "id", _differs(found.id, "id")
        if self.code not in {None, code}:
            yield "code", _differs(code, "code")
        if self.error_class not in {None, error_class}:
            yield "class", f"the sample is read as {error_class or 'no failure'}"
        if self.time not in {None, time}:
            yield "time", _differs(time, "time")


class ReceiptSample(Declared):
    """A request with receipts, and what it must mean."""

    body: _Body = Field(description="body, or the query if receipts come in one")
    means: tuple[ReceiptMeaning, ...] = Field(
        description="the receipts in it, in its order; an empty list if it is something else"
    )

    def mistakes(
        self, reading: ReceiptReading | None, codes: Codes
    ) -> Iterator[tuple[Location, str]]:
        """Where the request does not mean what it must, and a sentence about it."""
        if reading is None:
            yield ("body",), "there is no table receipt that could read it"
            return
        try:
            found = reading.read(self.body.encode())
        except Unreadable as error:
            yield ("body",), f"the sample cannot be read: {error}"
            return
        if len(found) != len(self.means):
            yield ("means",), f"the number of receipts in the sample is {len(found)}"
            return
        for place, (means, receipt) in enumerate(zip(self.means, found, strict=True)):
            for key, sentence in means.mistakes(receipt, codes):
                yield ("means", place, key), sentence


class Samples(Declared):
    """Samples of what the provider sends."""

    responses: tuple[ResponseSample, ...] = ()
    receipts: tuple[ReceiptSample, ...] = ()

    def mistakes(
        self, response: ResponseReading, receipt: ReceiptReading | None, codes: Codes
    ) -> Iterator[tuple[Location, str]]:
        """Where samples do not mean what they must, and a sentence about each."""
        for place, sample in enumerate(self.responses):
            for path, sentence in sample.mistakes(response, codes):
                yield ("responses", place, *path), sentence
        for place, each in enumerate(self.receipts):
            for path, sentence in each.mistakes(receipt, codes):
                yield ("receipts", place, *path), sentence


def _differs(found: object, what: str) -> str:
    return (
        f"another {what} is found in the sample" if found else f"no {what} is found in the sample"
    )

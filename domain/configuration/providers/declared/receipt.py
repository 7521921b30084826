"""Receipts of a declared provider, and requests for the state of a message."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, StrictInt, StringConstraints, model_validator

from domain.attempt_references import part_of_reference
from domain.configuration.declared import Declared, mistake_at, refuse
from domain.configuration.providers.declared.credentials import Signature, signature_from_word
from domain.configuration.providers.declared.documents import (
    Format,
    Steps,
    Unreadable,
    at_steps,
    parse_json,
    parse_path,
    read_document,
)
from domain.configuration.providers.declared.reading import StateReading, Test, Where
from domain.configuration.providers.declared.request import FieldName, Method
from domain.configuration.providers.declared.templates import PollPath, PollTemplate
from domain.receipts import PartIdentity, ReceiptState
from domain.values import value

MOST_RECEIPTS: Final = 100
"""That one request may hold."""


@value
class ReadReceipt:
    """A receipt, as it was read.

    Attributes:
        id: the provider's id of the message; empty without one.
        part: the part that the receipt's reference names, if it has one of ours.
        state: the state of the message, before its code is looked at.
        code, network, done_at: as far as the receipt has them.
        recipient: in E.164, if the receipt has a number in international form.
    """

    id: str
    part: PartIdentity | None
    state: ReceiptState
    code: str = ""
    network: str | None = None
    recipient: str | None = None
    done_at: datetime | None = None


class PartlyUnreadable(Unreadable):
    """A request of which some receipts cannot be read; `receipts` are the others."""

    def __init__(self, receipts: Sequence[ReadReceipt]) -> None:
        super().__init__("some of its receipts cannot be read")
        self.receipts = receipts


class ReceiptResponse(Declared):
    """The response to a request with receipts, once these are committed."""

    status: Annotated[StrictInt, Field(ge=200, le=299)] = Field(204, description="HTTP status")
    content_type: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e ]{1,100}$")] | None = (
        Field(None, description="type of the body")
    )
    body: Annotated[str, StringConstraints(max_length=500)] = Field(
        "", description="the body, as it is; some providers send any text on to the recipient"
    )

    @model_validator(mode="after")
    def _body_has_its_type(self) -> Self:
        sentence = None
        if self.body and self.status == 204:  # noqa: PLR2004 - RFC 9110, 15.3.5
            sentence = "status", "204 has no body: write 200"
        elif bool(self.body) != (self.content_type is not None):
            sentence = "content_type", "body and content_type belong together: give both or neither"
        if sentence:
            refuse(type(self).__name__, [mistake_at(sentence[0], sentence=sentence[1])])
        return self


class ReceiptReading(StateReading):
    """How the provider's receipts are recognized and read, and the response to them."""

    format: Format = Field(
        description="`query` (a GET request), or how the body of a POST request is read: `form` or `json`"
    )
    form_field: FieldName | None = Field(
        None, description="field of a form that holds the JSON document, if `format` is `json`"
    )
    each: Where | None = Field(
        None, description="path of the list of receipts in a JSON document; `$` if it is the list"
    )
    separator: Annotated[str, StringConstraints(min_length=1, max_length=5)] | None = Field(
        None,
        description="what is between several ids in one value; other values are separated alike",
    )
    when: Test | None = Field(
        None, description="what holds for receipts; all else that comes is ignored"
    )
    id: Where | None = Field(None, description="where the provider's id of the message is")
    reference: Where | None = Field(None, description="where the `{reference}` of the request is")
    recipient: Where | None = Field(
        None,
        description="where the recipient's number is, if the provider's ids are not unique and it is "
        "in international form",
    )
    network: Where | None = Field(None, description="where MCC and MNC are, as five or six digits")
    signature: Annotated[Signature, BeforeValidator(signature_from_word)] = Field(
        description='how the provider signs its receipts; "none" if it does not'
    )
    response: ReceiptResponse = ReceiptResponse()

    @model_validator(mode="after")
    def _places_can_be_read(self) -> Self:
        mistakes = []
        if self.format is Format.TEXT:
            mistakes.append(
                mistake_at("format", sentence="receipts are read as query, form or json")
            )
        else:
            mistakes = self._unusable_places(
                state=self.state,
                code=self.code,
                time=self.time,
                id=self.id,
                reference=self.reference,
                recipient=self.recipient,
                network=self.network,
                when__value=None if self.when is None else self.when.value,
            )
        is_json = self.format is Format.JSON
        for name in ("form_field", "each"):
            if getattr(self, name) is not None and not is_json:
                mistakes.append(mistake_at(name, sentence='it is only for format = "json"'))
        if self.each is not None and is_json:
            try:
                parse_path(self.each, Format.JSON)
            except ValueError as error:
                mistakes.append(mistake_at("each", sentence=str(error)))
        if self.signature.type == "hmac" and self.format is Format.QUERY:
            sentence = "a GET request has no body that could be signed: basic, header or none"
            mistakes.append(mistake_at("signature", "type", sentence=sentence))
        refuse(type(self).__name__, mistakes)
        return self

    def _format_of(self) -> Format:
        return self.format

    def read(self, content: bytes) -> list[ReadReceipt]:
        """The receipts in a query or a body, in its order; none if it is something else than receipts.

        Raises:
            PartlyUnreadable: only a part of it can be read.
            Unreadable: it is not of the declared format, or lacks the state.
        """
        entries = self._entries(self._document(content))
        found: list[ReadReceipt] = []
        wrong: Unreadable | None = None
        for entry in entries:
            try:
                found += self._receipts(entry)
            except Unreadable as error:
                wrong = error
        if wrong is not None:
            raise PartlyUnreadable(found) from wrong
        return found

    def _document(self, content: bytes) -> Any:
        if self.form_field is None:
            return read_document(content, self.format)
        text = read_document(content, Format.FORM).get(self.form_field, "")
        try:
            return parse_json(text)
        except ValueError:
            raise Unreadable("its field holds no JSON") from None

    def _entries(self, document: Any) -> list[Any]:
        if self.each is not None:
            document = at_steps(document, self._steps(self.each))
        entries = [document] if self.each is None else document
        if not isinstance(entries, list):
            raise Unreadable("there is no list of receipts where it is declared to be")
        if len(entries) > MOST_RECEIPTS:
            raise Unreadable("it has too many receipts")
        return entries

    def _steps(self, path: str) -> Steps:
        return parse_path(path, Format.JSON)

    def _receipts(self, entry: Any) -> list[ReadReceipt]:
        """The receipts in an entry: as many as there are ids, or references, in it."""
        if not isinstance(entry, dict):
            raise Unreadable("it has something else in the place of a receipt")
        if self.when is not None and not self.when.passes(entry, self.format):
            return []
        columns = {
            name: self._separated(self._text(getattr(self, name), entry))
            for name in ("id", "reference", "state", "code", "time", "network", "recipient")
        }
        count = max(len(columns["id"]), len(columns["reference"]))
        if count > MOST_RECEIPTS or any(len(each) not in {1, count} for each in columns.values()):
            raise Unreadable("its values are separated differently")
        rows = [
            {name: each[place if len(each) > 1 else 0] for name, each in columns.items()}
            for place in range(count)
        ]
        if not all(row["state"] for row in rows):
            raise Unreadable("it has a receipt without a state")
        return [self._receipt(row) for row in rows]

    def _receipt(self, row: Mapping[str, str]) -> ReadReceipt:
        return ReadReceipt(
            id=row["id"],
            part=part_of_reference(row["reference"]),
            state=self.state_of(row["state"]),
            code=self.prefixed(row["code"]),
            network=row["network"] if row["network"].isdigit() else None,
            recipient=_as_e164(row["recipient"]),
            done_at=self.time_of(row["time"]) if row["time"] else None,
        )

    def _separated(self, text: str) -> list[str]:
        return (
            [text]
            if self.separator is None
            else [each.strip() for each in text.split(self.separator)]
        )


class Polling(StateReading):
    """How the state of a message is asked for, and how the response is read."""

    method: Method = Field(Method.GET, description="method of the request")
    path: PollPath = Field(description="path below `url`, with `{id}` for the provider's id")
    query: dict[FieldName, PollTemplate] = Field({}, description="fields of the query, with `{id}`")
    form: dict[FieldName, PollTemplate] | None = Field(
        None, description="fields of a form as the body, with `{id}`"
    )
    format: Format = Field(
        Format.JSON, description="how the body is read: `json`, `form` or `text`"
    )

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        mistakes = []
        if self.format is Format.QUERY:
            mistakes.append(
                mistake_at("format", sentence="a response has no query: json, form or text")
            )
        else:
            mistakes = self._unusable_places(state=self.state, code=self.code, time=self.time)
        if self.form is not None and self.method is Method.GET:
            mistakes.append(mistake_at("form", sentence="a GET request has no body: give query"))
        if not any("{id}" in text for _, text in self.templates()):
            mistakes.append(mistake_at("path", sentence="no key has the provider's id: write {id}"))
        refuse(type(self).__name__, mistakes)
        return self

    def _format_of(self) -> Format:
        return self.format

    def templates(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Where each template is in the table, and the template."""
        yield ("path",), self.path
        for name in ("query", "form"):
            for key, template in (getattr(self, name) or {}).items():
                yield (name, key), template

    def read(self, message_id: str, body: bytes) -> ReadReceipt | None:
        """What a response says of the message with this id; None if it does not say it."""
        try:
            document = read_document(body, self.format)
        except Unreadable:
            return None
        word = self._text(self.state, document)
        if not word:
            return None
        written = self._text(self.time, document)
        return ReadReceipt(
            id=message_id,
            part=None,
            state=self.state_of(word),
            code=self.prefixed(self._text(self.code, document)),
            done_at=self.time_of(written) if written else None,
        )


_SHORTEST_NUMBER: Final = 7


def _as_e164(written: str) -> str | None:
    """A number in international form with its +; None for anything else."""
    digits = written.removeprefix("+").removeprefix("00")
    is_number = digits.isascii() and digits.isdigit() and len(digits) >= _SHORTEST_NUMBER
    return f"+{digits}" if is_number else None


POLL_AFTER: Final = timedelta(minutes=5)
"""By default, of a provider that can be asked."""
